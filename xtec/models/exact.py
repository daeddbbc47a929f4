"""Numbers whose value cannot depend on the order of sums, the device or the library.

Values are integers, carried in floating point: fixed-point numbers with 10 fractional bits
between layers, and integers of few bits as operands of every matrix product. A sum of products
that stays below 2**24 is exact in float32 in whatever order it is taken, below 2**53 in float64,
and integers of 8 bits may be multiplied as such. Between the products stand only operations that
IEEE 754 rounds correctly (+ - * / sqrt, round half to even), each by itself so that nothing is
fused, and integer tables in place of exp, erf and log. docs/format.md states every step: it is
part of the format.

Below: errors. Above: exact_tensors, exact_compiled, arithmetic.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from xtec.errors import ModelError

ONE = 1024
"""The fixed-point unit."""
LIMIT = 2**20
"""Largest magnitude of a fixed-point number: 1024 units."""
ROWS_AT_ONCE = 64
"""Of weights that are made integers: large temporaries between them leave holes in the heap."""
EXACT_FLOAT32 = 2**24
EXACT_INT32 = 2**31
EXACT_FLOAT64 = 2**53
BYTE_LIMIT = 127
"""Largest magnitude of an operand that a product of bytes takes."""
ATTENTION_LIMIT = 255
"""Operands of the products inside attention: 8 bits and a sign."""
SCORE_UNIT = 256
"""Steps of an attention score per natural-log unit."""


@dataclass(frozen=True)
class Tables:
    """Integer tables for what is not correctly rounded anywhere; float32."""

    exp: Tensor
    """round(2**15 exp(-i / 256)), i from 0 to 4095; the last is 0."""
    gelu: Tensor
    """round(1024 gelu(i / 1024)) for i from -8192 to 8191."""
    log: Tensor
    """round(1024 log2(1 + n)) for n from 0 to 4095."""

    @classmethod
    def on(cls, device: torch.device) -> "Tables":
        """The tables on a device."""
        return cls(*(torch.tensor(t, dtype=torch.float32, device=device) for t in _tables()))


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


@dataclass(frozen=True)
class Quantised:
    """Rows as small integers, and the magnitude that the largest of them stands for."""

    integers: Tensor
    """[..., K]: int8, float32 or float64."""
    largest: Tensor
    """[..., 1], float32."""

    def then(self, more: "Quantised") -> "Quantised":
        """These rows followed by ``more``."""
        return _cat([self, more], dim=-2)


def _cat(parts: Sequence[Quantised], dim: int) -> Quantised:
    integers, largest = ([getattr(x, name) for x in parts] for name in ("integers", "largest"))
    return Quantised(torch.cat(integers, dim), torch.cat(largest, dim))


@dataclass(frozen=True)
class Keys:
    """Quantised keys and values of some tokens, [P, heads, tokens, width] each.

    One window (P = 1) serves the queries of all.
    """

    keys: Quantised
    values: Quantised

    def then(self, more: "Keys") -> "Keys":
        """These tokens followed by ``more``: a cache that grew."""
        return Keys(self.keys.then(more.keys), self.values.then(more.values))

    @classmethod
    def together(cls, parts: Sequence["Keys"]) -> "Keys":
        """The same tokens of more windows."""
        return cls(
            _cat([part.keys for part in parts], dim=0), _cat([part.values for part in parts], dim=0)
        )


@dataclass(frozen=True)
class Sums:
    """What a linear layer's products come to, before they are fixed point again."""

    sums: Tensor
    """[..., N], exact: int32, float32 or float64; rounded to the scale's type before all else."""
    largest: Tensor
    """[..., 1], float32: what the inputs' integers stand for."""
    scale: Tensor
    """[N], float32 or float64: what the weights' integers stand for."""
    bias: Tensor
    """[N], of the scale's type, fixed point."""


def quantise(x: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Integers within +-limit for the rows of ``x``, and each row's largest magnitude."""
    largest = x.abs().amax(-1, keepdim=True).clamp_min_(1)
    return (x * (largest.reciprocal() * limit)).round_(), largest


def quantise_weights(
    weights: Sequence[Tensor],
    limit: int,
    kind: torch.dtype,
    device: torch.device,
    inputs: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Integers within +-limit for the rows of real matrices, and each row's largest magnitude.

    The matrices stand one below the other, all of one width; their columns are multiplied by
    powers of two, if there are any for the ``inputs``.
    """
    parts = [part for weight in weights for part in weight.split(ROWS_AT_ONCE)]
    sizes = [len(part) for part in parts]
    integers = torch.empty(sum(sizes), parts[0].shape[1], dtype=kind, device=device)
    largest = torch.empty(sum(sizes), 1, device=device)
    for part, top, out in zip(parts, largest.split(sizes), integers.split(sizes), strict=True):
        real = part.to(device, torch.float32)
        if inputs is not None:
            real = real * inputs.to(device)
        top.copy_(real.abs().amax(-1, keepdim=True).clamp_min_(2.0**-40))
        out.copy_((real * (top.reciprocal() * limit)).round_())
    return integers, largest


def fixed(x: Tensor) -> Tensor:
    """Real weights to fixed point."""
    return x.double().mul(ONE).round_().clamp_(-LIMIT, LIMIT).float()


def add(x: Tensor, y: Tensor) -> Tensor:
    """Sum of two fixed-point tensors, within the limit."""
    return (x + y).clamp_(-LIMIT, LIMIT)


def leaky_relu(x: Tensor) -> Tensor:
    """Fixed-point leaky ReLU with slope 0.01."""
    return functional.leaky_relu(x, 0.01).round_()
