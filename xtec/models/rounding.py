"""Components to latents, each rounded to what serves best: little error for few bits.

The encoder knows how a latent is distributed before it settles on a number. Between the two
integers next to a component it takes the one whose squared error and bits, weighed by
`analysis.BIT`, are the lesser; what that does to later latents is left out of account.

Below: analysis, distribution, coding.tables, coding.kernel. Above: lapped_model.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xtec.coding.kernel import compiled, tail_order
from xtec.coding.tables import FREQUENCY_BITS, load
from xtec.models.analysis import BIT
from xtec.models.distribution import Distribution

Whole = NDArray[np.int32]
Costs = tuple[NDArray[np.float32], Whole, Whole, Whole]
"""Bits of each entry of the tables; starts, lows and sizes of their rows."""


def rounded(components: Tensor, found: Distribution) -> Tensor:
    """Latents (n, K, S), integer-valued, of components in steps and their distributions."""
    out = np.empty(tuple(components.shape), np.float32)
    _choose(
        components.cpu().numpy().ravel(),
        found.centre.cpu().numpy().ravel(),
        found.row.cpu().numpy().ravel(),
        _costs(),
        np.float32(BIT),
        out.reshape(-1),
    )
    return torch.from_numpy(out).to(components.device)


@lru_cache(maxsize=1)
def _costs() -> Costs:
    tables = load()
    counts = np.diff(tables.cdf.astype(np.int64), append=0)
    # Between two rows the difference means nothing, and is never looked up.
    bits = FREQUENCY_BITS - np.log2(np.maximum(counts, 1))
    return bits.astype(np.float32), tables.starts, tables.lows, tables.sizes


@compiled
def _choose(
    components: NDArray[np.float32],
    centres: Whole,
    rows: Whole,
    costs: Costs,
    bit: np.float32,
    out: NDArray[np.float32],
) -> None:
    for i in range(len(components)):
        y, centre, row = components[i], centres[i], rows[i]
        nearest = np.rint(y)
        if nearest == centre:  # also the cheapest
            out[i] = nearest
            continue
        other = nearest - 1 if nearest > y else nearest + 1
        loss = (y - nearest) ** 2 + bit * _bits(int(nearest) - centre, row, costs)
        other_loss = (y - other) ** 2 + bit * _bits(int(other) - centre, row, costs)
        out[i] = other if other_loss < loss else nearest


@compiled
def _bits(symbol: int, row: int, costs: Costs) -> float:
    """What a symbol costs, an escape about."""
    bits, starts, lows, sizes = costs
    entry = symbol - lows[row]
    last = sizes[row] - 1
    if 0 <= entry < last:
        return float(bits[starts[row] + entry])
    beyond = -entry - 1 if entry < 0 else entry - last
    order = tail_order(last)
    escape: float = bits[starts[row] + last] + 2 + order + 2 * np.log2((beyond >> order) + 1)
    return escape
