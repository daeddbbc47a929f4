"""How one device multiplies integers, and what it does between the products.

Below: exact, exact_tensors, exact_compiled. Above: exact_layers, known_answer.
"""

import torch
from torch import Tensor
from torch.nn import functional

from xtec.errors import ModelError
from xtec.models.exact import (
    BYTE_LIMIT,
    EXACT_FLOAT32,
    EXACT_FLOAT64,
    EXACT_INT32,
    ONE,
    Tables,
)
from xtec.models.exact_compiled import Compiled
from xtec.models.exact_tensors import Tensors

BYTES_MULTIPLE = 8
"""What both sides of a matrix of bytes must be multiples of. CUDA refuses others; on a CPU torch
gives garbage for a side of 1."""
CUDA_ROWS = 32
"""The fewest rows that CUDA multiplies as bytes."""


class Arithmetic:
    """The operations, on one device.

    Parameters
    ----------
    device : torch.device
    product : torch.dtype
        What matrix products are carried in, as far as their operands and sums allow: int8, float32,
        or float64. The result is the same.
    compiled : bool, optional
        Whether compiled loops stand between the products; on a CPU unless said otherwise.
    """

    def __init__(
        self,
        device: torch.device,
        product: torch.dtype = torch.float32,
        *,
        compiled: bool | None = None,
    ) -> None:
        self.device, self.product = device, product
        self.tables = Tables.on(device)
        compiled = device.type == "cpu" if compiled is None else compiled
        self.steps = (Compiled if compiled else Tensors)(self.tables)

    def carrier(self, limit: int, inner: int) -> torch.dtype:
        """Give the type in which sums of ``inner`` products of integers within +-limit go on.

        Sums of bytes' products are rounded to float32 where that does not hold them.

        Raises
        ------
        ModelError
            Not even float64 holds them.
        """
        bound = limit * limit * inner
        if bound >= EXACT_FLOAT64:
            raise ModelError(f"sums may reach {bound}, too large to be exact (2**53).")
        most = EXACT_INT32 if limit <= BYTE_LIMIT else EXACT_FLOAT32
        return torch.float32 if bound < most else torch.float64

    def operands(self, limit: int, inner: int, outer: int) -> torch.dtype:
        """Give the type that operands of a product have: bytes where they may."""
        kind = self.carrier(limit, inner)
        if kind == torch.float64 or self.product != torch.int8 or limit > BYTE_LIMIT:
            return kind
        return kind if inner % BYTES_MULTIPLE or outer % BYTES_MULTIPLE else torch.int8

    def matmul(self, a: Tensor, b: Tensor, limit: int) -> Tensor:
        """Exact product of integers within +-limit, of one type, as `operands` gives it.

        int32 of bytes, else floating point.
        """
        if a.dtype == torch.int8:
            found = self._bytes(a.reshape(-1, a.shape[-1]), b)
            return found.view(*a.shape[:-1], b.shape[-1])
        if torch.float64 in (a.dtype, self.product):
            return a.double() @ b.double()
        most = (EXACT_FLOAT32 - 1) // limit**2
        if a.shape[-1] <= most:
            return a @ b
        pairs = zip(a.split(most, -1), b.split(most, -2), strict=True)
        return torch.stack([(x @ y).double() for x, y in pairs]).sum(0)

    def _bytes(self, a: Tensor, b: Tensor) -> Tensor:
        if self.device.type == "cpu":
            return torch._int_mm(a, b)
        padded = functional.pad(a, (0, 0, 0, max(CUDA_ROWS - len(a), 0)))
        return torch._int_mm(padded, b)[: len(a)]

    def log(self, q: Tensor) -> Tensor:
        """Integers to fixed-point sign(q) log2(1 + |q|); magnitudes end at 4095."""
        return self.tables.log[q.abs().clamp(max=4095).int()] * q.sign()

    def log2(self, n: Tensor, unit: int = 1) -> Tensor:
        """Numbers from 0 to 2**18 steps to fixed-point log2(1 + n); above 4095 in coarser steps.

        ``n`` counts steps of 1 / unit, a power of 2 up to 64.
        """
        index = n.int() + (unit - 1)
        large = index > 4095
        index = torch.where(large, index >> 6, index).clamp_(max=4095)
        return self.tables.log[index] + (large * 6 - (unit.bit_length() - 1)) * ONE
