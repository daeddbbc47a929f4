"""Arithmetic whose result cannot depend on the order of sums, the device or the library.

Values are integers, carried in floating point: fixed-point numbers with 10 fractional bits
between layers, and integers of few bits as operands of every matrix product. A sum of products
that stays below 2**24 is exact in float32 in whatever order it is taken, below 2**53 in float64.
Between the products stand only operations that IEEE 754 rounds correctly (+ - * / sqrt, round
half to even), each a tensor operation of its own so that nothing is fused, and integer tables in
place of exp, erf and log. docs/format.md states every step: it is part of the format.

Below: errors. Above: prior.
"""

import copy
import math
import warnings
import zlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from xtec.errors import ModelError

ONE = 1024
"""The fixed-point unit."""
LIMIT = 2**20
"""Largest magnitude of a fixed-point number: 1024 units."""
EXACT_FLOAT32 = 2**24
EXACT_FLOAT64 = 2**53
ATTENTION_LIMIT = 255
"""Operands of the products inside attention: 8 bits and a sign."""
SCORE_UNIT = 256
"""Steps of an attention score per natural-log unit."""


@dataclass(frozen=True)
class Tables:
    """Integer tables for what is not correctly rounded anywhere."""

    exp: Tensor
    """round(2**15 exp(-i / 256)), i from 0 to 4095; the last is 0."""
    gelu: Tensor
    """round(1024 gelu(i / 1024)) for i from -8192 to 8191."""
    log: Tensor
    """round(1024 log2(1 + n)) for n from 0 to 4095."""


TABLES_CRC = 0x897C8CCD


@lru_cache(maxsize=1)
def _tables() -> tuple[list[int], list[int], list[int]]:
    """Tables as integers; no entry lies near enough to a tie for a libm to matter."""
    exp = [round(2**15 * math.exp(-i / SCORE_UNIT)) for i in range(4096)]
    gelu = [round(i / 2 * math.erfc(-i / ONE * 0.5**0.5)) for i in range(-8 * ONE, 8 * ONE)]
    log = [round(ONE * math.log2(1 + n)) for n in range(4096)]
    crc = zlib.crc32(b"".join(v.to_bytes(4, "little", signed=True) for v in exp + gelu + log))
    if crc != TABLES_CRC:
        raise ModelError(
            f"the function tables come out with CRC {crc:#x} on this machine, not "
            f"{TABLES_CRC:#x}: its mathematical library is broken; nothing can be decoded with it."
        )
    return exp, gelu, log


class Arithmetic:
    """The operations, on one device.

    Parameters
    ----------
    device : torch.device
    product : torch.dtype
        What matrix products below 2**24 are carried in: float32, or float64 where a device fails
        the known-answer test in float32. The result is the same.
    """

    def __init__(self, device: torch.device, product: torch.dtype = torch.float32) -> None:
        self.device, self.product = device, product
        exp, gelu, log = (torch.tensor(t, dtype=torch.float32, device=device) for t in _tables())
        self.tables = Tables(exp, gelu, log)

    def matmul(self, a: Tensor, b: Tensor, bound: int) -> Tensor:
        """Exact product of integer tensors whose sums stay below ``bound``."""
        if bound >= EXACT_FLOAT64:
            raise ModelError(f"sums may reach {bound}, too large to be exact (2**53).")
        if bound >= EXACT_FLOAT32:
            return a.double() @ b.double()
        return (a.to(self.product) @ b.to(self.product)).float()

    def gelu(self, x: Tensor) -> Tensor:
        """Fixed-point GELU; beyond 8 units it is x or 0."""
        index = (x.clamp(-8 * ONE, 8 * ONE - 1) + 8 * ONE).int()
        return torch.where(x >= 8 * ONE, x, self.tables.gelu[index])

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

    def attend(self, q: Tensor, k: "Keys", mask: Tensor | None) -> Tensor:
        """Softmax attention of fixed-point queries [P, heads, n, hd] -> [P, heads, n, hd]."""
        hd = q.shape[-1]
        qi, qm = quantise(q, ATTENTION_LIMIT)
        scores = self.matmul(qi, k.keys.transpose(-2, -1), ATTENTION_LIMIT**2 * hd)
        # Each operand stands for value * limit / largest, so the largest enter here.
        unit = SCORE_UNIT / (ATTENTION_LIMIT**2 * ONE**2) * hd**-0.5
        scores = scores.mul_(qm * unit).mul_(k.key_largest.transpose(-2, -1)).round_()
        if mask is not None:
            scores = scores.masked_fill_(mask, -torch.inf)
        depth = scores.amax(-1, keepdim=True).sub(scores).clamp_(max=4095).int()
        weight = self.tables.exp[depth]
        total = weight.sum(-1, keepdim=True)
        weight = weight.mul_(k.value_largest.transpose(-2, -1))
        wi, wm = quantise(weight, ATTENTION_LIMIT)
        out = self.matmul(wi, k.values, ATTENTION_LIMIT**2 * wi.shape[-1])
        return out.mul_(wm / total).mul_(1 / ATTENTION_LIMIT**2).round_()


@dataclass(frozen=True)
class Keys:
    """Quantised keys and values of some tokens, [P, heads, tokens, hd], with what scales them."""

    keys: Tensor
    key_largest: Tensor
    values: Tensor
    value_largest: Tensor

    @classmethod
    def of(cls, keys: Tensor, values: Tensor) -> "Keys":
        """Quantise fixed-point keys and values."""
        return cls(*quantise(keys, ATTENTION_LIMIT), *quantise(values, ATTENTION_LIMIT))

    def then(self, more: "Keys") -> "Keys":
        """These tokens followed by ``more``: a cache that grew."""
        pairs = zip(vars(self).values(), vars(more).values(), strict=True)
        return Keys(*(torch.cat(pair, dim=2) for pair in pairs))

    def expand(self, windows: int) -> "Keys":
        """The same tokens for many windows."""
        return Keys(*(x.expand(windows, *x.shape[1:]) for x in vars(self).values()))


def quantise(x: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Integers within +-limit for the rows of ``x``, and each row's largest magnitude."""
    largest = x.abs().amax(-1, keepdim=True).clamp_min_(1)
    return (x * (largest.reciprocal() * limit)).round_(), largest


def fixed(x: Tensor) -> Tensor:
    """Real weights to fixed point."""
    return x.double().mul(ONE).round_().clamp_(-LIMIT, LIMIT).float()


class Linear:
    """A linear layer with integer weights, one scale per output.

    Parameters
    ----------
    layers : torch.nn.Linear
        One or more with the same inputs, evaluated together.
    limit : int
        Largest magnitude of the integers that weights and inputs are rounded to.
    unit : float
        What an input of 1 stands for: 1/1024 for fixed point.
    """

    def __init__(
        self, arithmetic: Arithmetic, *layers: nn.Linear, limit: int, unit: float = 1 / ONE
    ) -> None:
        self.arithmetic, self.limit = arithmetic, limit
        weight = torch.cat([x.weight for x in layers]).to(arithmetic.device, torch.float32)
        bias = torch.cat([x.bias for x in layers]).to(arithmetic.device)
        integers, largest = quantise_weights(weight, limit)
        self.bound = limit * limit * weight.shape[1]
        kind = torch.float32 if self.bound < EXACT_FLOAT32 else torch.float64
        self.weight = integers.T.contiguous().to(kind)
        self.scale = (largest.to(kind) * (ONE * unit / limit**2)).squeeze(-1)
        self.bias = fixed(bias).to(kind)

    def __call__(self, x: Tensor) -> Tensor:
        """Integers [..., in] to fixed point [..., out]."""
        xi, largest = quantise(x, self.limit)
        y = self.arithmetic.matmul(xi, self.weight, self.bound)
        y = y.mul_(largest.to(y.dtype)).mul_(self.scale).add_(self.bias)
        return y.round_().clamp_(-LIMIT, LIMIT).float()

    def outputs(self, begin: int, end: int) -> "Linear":
        """The layer with some of its outputs only; it shares the weights."""
        part = copy.copy(self)
        part.weight = self.weight[:, begin:end]
        part.scale, part.bias = self.scale[begin:end], self.bias[begin:end]
        return part


def quantise_weights(weight: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Integers within +-limit for the rows of a real matrix, and each row's largest magnitude."""
    largest = weight.abs().amax(-1, keepdim=True).clamp_min(2.0**-40)
    return (weight * (largest.reciprocal() * limit)).round_(), largest


class LayerNorm:
    """Layer normalisation: integer sums, one square root and one division in float64."""

    def __init__(self, arithmetic: Arithmetic, layer: nn.LayerNorm) -> None:
        self.width = layer.weight.shape[0]
        if (2 * LIMIT) ** 2 * self.width >= EXACT_FLOAT64:
            raise ModelError(f"rows of {self.width} numbers are too wide to be normalised exactly.")
        self.weight = layer.weight.to(arithmetic.device, torch.float64) * ONE
        self.bias = fixed(layer.bias.to(arithmetic.device)).double()
        self.floor = layer.eps * ONE**2

    def __call__(self, x: Tensor) -> Tensor:
        """Fixed point [..., D] to fixed point [..., D]."""
        x = x.double()
        x = x - (x.sum(-1, keepdim=True) / self.width).round_()
        deviation = ((x * x).sum(-1, keepdim=True) / self.width + self.floor).sqrt_()
        x = x.div_(deviation).mul_(self.weight).add_(self.bias)
        return x.round_().clamp_(-LIMIT, LIMIT).float()


def add(x: Tensor, y: Tensor) -> Tensor:
    """Sum of two fixed-point tensors, within the limit."""
    return (x + y).clamp_(-LIMIT, LIMIT)


def leaky_relu(x: Tensor) -> Tensor:
    """Fixed-point leaky ReLU with slope 0.01."""
    return torch.where(x > 0, x, (x * 0.01).round_())


KNOWN_CRC = 0x12E21FDE


@lru_cache
def select(device: str) -> Arithmetic:
    """The arithmetic of a device, once it has given the known answer.

    A device whose float32 products fail is tried in float64, then left for the CPU, with one
    warning.

    Raises
    ------
    ModelError
        Not even float64 on the CPU gives the known answer.
    """
    attempts = [(device, torch.float32), (device, torch.float64), ("cpu", torch.float64)]
    for number, (name, product) in enumerate(attempts):
        arithmetic = Arithmetic(torch.device(name), product)
        if known_answer(arithmetic) == KNOWN_CRC:
            if number:
                warnings.warn(
                    f"{device} does not compute exactly in float32; using {name} in {product}.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return arithmetic
    raise ModelError("this machine fails the known-answer test even in float64 on the CPU.")


@torch.no_grad()
def known_answer(arithmetic: Arithmetic) -> int:
    """CRC-32 of every operation on worst-case and on pseudo-random operands."""
    crc = 0

    def absorb(x: Tensor) -> Tensor:
        nonlocal crc
        crc = zlib.crc32(x.cpu().to(torch.int64).numpy().tobytes(), crc)
        return x

    device, d = arithmetic.device, 64
    # Full-range operands of one sign are what saturating int8 kernels get wrong.
    for limit, k in ((63, 4096), (127, 1024), (ATTENTION_LIMIT, 128)):
        worst = torch.full((33, k), float(limit), device=device)
        absorb(arithmetic.matmul(worst, -worst.T.contiguous(), limit * limit * k))
    x = pseudo_random((48, d), device) * (LIMIT / 2**24)
    layer = nn.Linear(d, 3 * d, device="meta")  # elsewhere it would draw random numbers
    layer.weight = nn.Parameter(pseudo_random((3 * d, d), device) / 2**26)
    layer.bias = nn.Parameter(pseudo_random((3 * d,), device) / 2**24)
    norm = nn.LayerNorm(d, device=device)
    norm.weight.copy_(pseudo_random((d,), device) / 2**22)
    n = absorb(LayerNorm(arithmetic, norm)(x.round()))
    for limit in (63, 8191):
        y = absorb(Linear(arithmetic, layer, limit=limit)(n))
    absorb(arithmetic.gelu(y))
    absorb(arithmetic.log(n))
    absorb(leaky_relu(y))
    q, k, v = y.reshape(3, 16, 3, 4, 16).permute(2, 0, 3, 1, 4)
    mask = torch.ones(16, 16, dtype=torch.bool, device=device).triu(1)
    absorb(arithmetic.attend(q, Keys.of(k, v), mask))
    return crc


def pseudo_random(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Integers from -2**23 to 2**23 that are the same everywhere."""
    count = math.prod(shape)
    values, state = [], 1
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        values.append(state // 2**7 - 2**23)
    return torch.tensor(values, dtype=torch.float32, device=device).reshape(shape)
