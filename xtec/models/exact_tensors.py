"""What stands between the matrix products, in tensor operations: for any device.

Each method is one step of docs/format.md, "The prior's arithmetic".

Below: exact. Above: arithmetic.
"""

import torch
from torch import Tensor

from xtec.models.exact import (
    ATTENTION_LIMIT,
    LIMIT,
    ONE,
    SCORE_UNIT,
    Keys,
    Quantised,
    Sums,
    Tables,
    add,
    quantise,
)

FARTHEST = 4095
"""Scores this far below the largest count nothing."""


def score_unit(width: int) -> float:
    """What an attention score's integers stand for, without the largest magnitudes."""
    # Each operand stands for value * limit / largest, so the largest enter elsewhere.
    return SCORE_UNIT / (ATTENTION_LIMIT**2 * ONE**2) * float(width**-0.5)


class Tensors:
    """The steps between products.

    Parameters
    ----------
    tables : Tables
        On the device of all that enters.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def quantise(self, x: Tensor, limit: int, kind: torch.dtype) -> Quantised:
        """Rows of ``x`` to integers within +-limit, carried in ``kind``."""
        integers, largest = quantise(x, limit)
        return Quantised(integers.to(kind), largest)

    def normalise(self, x: Tensor, weight: Tensor, bias: Tensor, floor: float) -> Tensor:
        """Layer normalisation: integer sums, one square root and one division in float64."""
        width = x.shape[-1]
        x = x.double()
        x = x - (x.sum(-1, keepdim=True) / width).round_()
        deviation = ((x * x).sum(-1, keepdim=True) / width + floor).sqrt_()
        return x.div_(deviation).mul_(weight).add_(bias).round_().clamp_(-LIMIT, LIMIT).float()

    def fixed(self, s: Sums) -> Tensor:
        """Sums to fixed point."""
        y = s.sums.to(s.scale.dtype, copy=True)
        y = y.mul_(s.largest.to(y.dtype)).mul_(s.scale).add_(s.bias)
        return y.round_().clamp_(-LIMIT, LIMIT).float()

    def added(self, s: Sums, onto: Tensor) -> Tensor:
        """Sums to fixed point, added to ``onto``."""
        return add(onto, self.fixed(s))

    def activated(self, s: Sums, limit: int, kind: torch.dtype) -> Quantised:
        """Sums to fixed point through GELU, quantised."""
        return self.quantise(self.gelu(self.fixed(s)), limit, kind)

    def gelu(self, x: Tensor) -> Tensor:
        """Fixed-point GELU; beyond 8 units it is x or 0."""
        index = (x.clamp(-8 * ONE, 8 * ONE - 1) + 8 * ONE).int()
        return torch.where(x >= 8 * ONE, x, self.tables.gelu[index])

    def heads(self, s: Sums, parts: int, count: int) -> tuple[Quantised, ...]:
        """Sums [P, n, parts * D] to ``parts`` quantised tensors [P, heads, n, width]."""
        x = self.fixed(s).unflatten(-1, (parts, count, -1)).permute(2, 0, 3, 1, 4)
        return tuple(self.quantise(part, ATTENTION_LIMIT, torch.float32) for part in x.contiguous())

    def soften(
        self, scores: Tensor, q: Quantised, keys: Keys, *, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """Softmax of products of queries and keys.

        Parameters
        ----------
        scores : [P, heads, n, m]
            Overwritten.
        q, keys : [P, heads, n, width], [P, heads, m, width]
            What was multiplied.
        causal : bool
            Whether a query sees no key after its own place.

        Returns
        -------
        weights : [P, heads, n, m]
            Quantised, of the values' integers.
        factor : [P, heads, n, 1]
            What the weights stand for, over their sum.
        """
        scores = scores.mul_(q.largest * score_unit(q.integers.shape[-1]))
        scores = scores.mul_(keys.keys.largest.transpose(-2, -1)).round_()
        if causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores.masked_fill_(later, -torch.inf)
        depth = scores.amax(-1, keepdim=True).sub(scores).clamp_(max=FARTHEST).int()
        weight = self.tables.exp[depth]
        total = weight.sum(-1, keepdim=True)
        integers, largest = quantise(
            weight.mul_(keys.values.largest.transpose(-2, -1)), ATTENTION_LIMIT
        )
        return integers, largest / total

    def merge(self, found: Tensor, factor: Tensor) -> Tensor:
        """Weighted values [P, heads, n, width] to fixed point [P, n, D]."""
        out = (found * factor).mul_(1 / ATTENTION_LIMIT**2).round_()
        return out.transpose(1, 2).flatten(2)
