"""What stands between the matrix products, in compiled loops: for CPUs.

The same integers as `exact_tensors`, several times faster; `exact_kernel` holds the loops.

Below: exact_kernel, exact_tensors. Above: arithmetic.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xtec.models import exact_kernel as kernel
from xtec.models.exact import ATTENTION_LIMIT, Keys, Quantised, Sums, Tables
from xtec.models.exact_tensors import Tensors, score_unit

UNIT = np.float32(1 / ATTENTION_LIMIT**2)


class Compiled(Tensors):
    """The steps between products; float64 is left to tensor operations."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self._gelu, self._exp = tables.gelu.numpy(), tables.exp.numpy()

    def quantise(self, x: Tensor, limit: int, kind: torch.dtype) -> Quantised:
        if x.dtype != torch.float32:
            return super().quantise(x, limit, kind)
        found = _empty(x.shape, kind)
        kernel.quantise(_rows(x), np.float32(limit), *_arrays(found))
        return found

    def normalise(self, x: Tensor, weight: Tensor, bias: Tensor, floor: float) -> Tensor:
        out = torch.empty(x.shape)
        kernel.normalise(_rows(x), weight.numpy(), bias.numpy(), floor, _rows(out))
        return out

    def fixed(self, s: Sums) -> Tensor:
        out = torch.empty(s.sums.shape)
        kernel.fixed(_layer(s), _rows(out))
        return out

    def added(self, s: Sums, onto: Tensor) -> Tensor:
        out = torch.empty(s.sums.shape)
        kernel.added(_layer(s), _rows(onto), _rows(out))
        return out

    def activated(self, s: Sums, limit: int, kind: torch.dtype) -> Quantised:
        found = _empty(s.sums.shape, kind)
        kernel.activated(_layer(s), self._gelu, np.float32(limit), *_arrays(found))
        return found

    def heads(self, s: Sums, parts: int, count: int) -> tuple[Quantised, ...]:
        windows, n, width = s.sums.shape
        found = _empty((parts, windows, count, n, width // parts // count), torch.float32)
        integers, largest = found.integers, found.largest
        limit = np.float32(ATTENTION_LIMIT)
        kernel.heads(_layer(s), limit, integers.numpy(), largest.squeeze(-1).numpy())
        return tuple(map(Quantised, integers, largest))

    def soften(
        self, scores: Tensor, q: Quantised, keys: Keys, *, causal: bool
    ) -> tuple[Tensor, Tensor]:
        n, m = scores.shape[-2:]
        factor = torch.empty(q.largest.shape)
        parts = q.largest, keys.keys.largest, keys.values.largest
        kernel.soften(
            scores.view(-1, n, m).numpy(),
            tuple(x.reshape(-1, x.shape[-2]).numpy() for x in parts),
            np.float32(score_unit(q.integers.shape[-1])),
            np.float32(ATTENTION_LIMIT),
            self._exp,
            causal,
            factor.view(-1, n).numpy(),
        )
        return scores, factor

    def merge(self, found: Tensor, factor: Tensor) -> Tensor:
        p, heads, n, width = found.shape
        out = torch.empty(p, n, heads, width)
        kernel.merge(found.contiguous().numpy(), factor.squeeze(-1).numpy(), UNIT, out.numpy())
        return out.flatten(2)


def _rows(x: Tensor) -> NDArray[np.float32]:
    """[..., K] -> (n, K)."""
    rows: NDArray[np.float32] = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).numpy()
    return rows


def _empty(shape: tuple[int, ...], kind: torch.dtype) -> Quantised:
    return Quantised(torch.empty(shape, dtype=kind), torch.empty(*shape[:-1], 1))


def _arrays(q: Quantised) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
    return _rows(q.integers), q.largest.view(-1).numpy()


def _layer(s: Sums) -> kernel.Layer:
    return _rows(s.sums), s.largest.reshape(-1).numpy(), s.scale.numpy(), s.bias.numpy()
