"""`mixing` as one compiled loop, for CPUs: the same integers, several times faster.

Below: nothing. Above: mixing alone.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xtec.coding.kernel import compiled

Whole = NDArray[np.int32]
Known = tuple[Whole, NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]
"""Blocks' zones aside: zone (S), latents of this frame (N + 1, K, S), neighbours (n, 4), factor."""
Tables = tuple[Whole, Whole, Whole, Whole, int]
"""Logarithms; level of each scale, first row and shift of each level; the lowest scale."""

MOST = 4095
COARSE_BITS = 6
ONE_BITS = 10
PAST_BITS = 6
MIX_BITS = 6
MEAN_STEP_BITS = 4
FRACTION_BITS = 6
LARGEST_MEAN = 1 << 24


@compiled
def mix(
    offset: NDArray[np.int64],
    heads: Whole,
    blocks: NDArray[np.int64],
    past: tuple[Whole, ...],
    known: Known,
    statics: tuple[Whole, Whole, Whole],
    tables: Tables,
    found: tuple[Whole, Whole],
) -> None:
    """Fill centres and rows (n, K, S); see `mixing.Mixing` for what enters."""
    zone, here, neighbours, factor = known
    shares, base, energies = statics
    log, level_of, first_row, shift, lowest = tables
    centres, rows = found
    n, components, frequencies = centres.shape
    lags = len(past)
    for i in range(n):
        for k in range(components):
            for s in range(frequencies):
                z = zone[s]
                before = np.int64(0)
                static = shares[0, k, z] * energies[k]
                for lag in range(lags):
                    q = np.int64(past[lag][blocks[i], k, s])
                    before += heads[i, k, z, lag] * q
                    static += shares[1 + lag, k, z] * _log2(abs(q), PAST_BITS, log)
                around = np.int64(0)
                for j in range(neighbours.shape[1]):
                    around += np.int64(abs(here[neighbours[i, j], k, s]))
                static += shares[1 + lags, k, z] * _log2(around * factor[i], 0, log)
                mean = offset[i, k, z] + _halved(before, PAST_BITS)
                mean = (mean + (1 << (MEAN_STEP_BITS - 1))) >> MEAN_STEP_BITS
                mean += 1 << (FRACTION_BITS - 1)
                mean = min(max(mean, -LARGEST_MEAN), LARGEST_MEAN)
                scale = heads[i, k, z, lags] + base[k, s] + _halved(static, MIX_BITS)
                level = level_of[min(max(scale - lowest, 0), len(level_of) - 1)]
                fraction = mean & ((1 << FRACTION_BITS) - 1)
                centres[i, k, s] = mean >> FRACTION_BITS
                rows[i, k, s] = first_row[level] + (fraction >> shift[level])


@compiled
def _log2(n: Any, unit_bits: int, log: Whole) -> Any:
    """`exact.Arithmetic.log2`."""
    index = n + (1 << unit_bits) - 1
    if index <= MOST:
        return np.int64(log[index]) - (unit_bits << ONE_BITS)
    coarse = min(index >> COARSE_BITS, MOST)
    return np.int64(log[coarse]) + ((COARSE_BITS - unit_bits) << ONE_BITS)


@compiled
def _halved(x: Any, bits: int) -> Any:
    """Divided by a power of two, rounded half to even."""
    return (x + (1 << (bits - 1)) - 1 + ((x >> bits) & 1)) >> bits
