"""What stands between the matrix products of the prior, as compiled loops for CPUs.

The same integers as in `exact_tensors`, in one walk over each row instead of a dozen over all of
them. Numba contracts nothing here: every operation is rounded by itself. Sums and maxima are
taken of integers, because only then may the loops be vectorised.

Below: coding.kernel. Above: exact_compiled.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xtec.coding.kernel import compiled

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Sums = NDArray[Any]
"""Exact sums of products: int32, or floats with integer values."""
Integers = NDArray[Any]
"""What enters a product: int8, or floats with integer values."""
Scales = NDArray[Any]
"""float32 or float64."""
Layer = tuple[Sums, Floats, Scales, Scales]
"""What a linear layer comes to: sums (n, N), largest (n,), scale (N,), bias (N,)."""

LIMIT = np.float32(2**20)
GELU_END = 8192
FARTHEST = 4095


@compiled
def _quantise_row(x: Floats, limit: np.float32, out: Integers) -> Any:
    """`exact.quantise` of one row of integers; its largest magnitude."""
    most = np.int64(1)
    for j in range(len(x)):
        most = max(most, np.int64(abs(x[j])))
    largest = np.float32(most)
    factor = (np.float32(1) / largest) * limit
    for j in range(len(x)):
        out[j] = np.int32(np.rint(x[j] * factor))
    return largest


@compiled
def _fixed_row(sums: Sums, largest: np.float32, scale: Scales, bias: Scales, out: Floats) -> None:
    """What a linear layer makes of one row of its sums, computed in its scale's type."""
    real = scale.dtype.type
    for j in range(len(out)):
        y = np.rint(((real(sums[j]) * real(largest)) * scale[j]) + bias[j])
        out[j] = min(max(y, -LIMIT), LIMIT)


@compiled
def quantise(x: Floats, limit: np.float32, out: Integers, largest: Floats) -> None:
    """Rows (n, K) to integers within the limit."""
    for i in range(len(x)):
        largest[i] = _quantise_row(x[i], limit, out[i])


@compiled
def normalise(x: Floats, weight: Doubles, bias: Doubles, floor: float, out: Floats) -> None:
    """`exact_layers.LayerNorm` of rows (n, D)."""
    width = x.shape[1]
    limit = np.float64(LIMIT)
    centred = np.empty(width, np.int32)
    for i in range(len(x)):
        total = np.int64(0)
        for j in range(width):
            total += np.int64(x[i, j])
        mean = np.int32(np.rint(total / width))
        squares = np.int64(0)
        for j in range(width):
            c = np.int32(x[i, j]) - mean
            centred[j] = c
            squares += np.int64(c) * np.int64(c)
        deviation = np.sqrt(np.float64(squares) / width + floor)
        for j in range(width):
            y = np.rint((np.float64(centred[j]) / deviation) * weight[j] + bias[j])
            out[i, j] = np.float32(min(max(y, -limit), limit))


@compiled
def fixed(layer: Layer, out: Floats) -> None:
    """A linear layer's rows (n, N) to fixed point."""
    sums, largest, scale, bias = layer
    for i in range(len(sums)):
        _fixed_row(sums[i], largest[i], scale, bias, out[i])


@compiled
def added(layer: Layer, onto: Floats, out: Floats) -> None:
    """A linear layer's rows (n, N) to fixed point, added to ``onto``."""
    sums, largest, scale, bias = layer
    for i in range(len(sums)):
        _fixed_row(sums[i], largest[i], scale, bias, out[i])
        for j in range(out.shape[1]):
            out[i, j] = min(max(onto[i, j] + out[i, j], -LIMIT), LIMIT)


@compiled
def activated(
    layer: Layer, gelu: Floats, limit: np.float32, out: Integers, out_largest: Floats
) -> None:
    """A linear layer's rows (n, N) through GELU, quantised for the next one."""
    sums, largest, scale, bias = layer
    row = np.empty(sums.shape[1], np.float32)
    for i in range(len(sums)):
        _fixed_row(sums[i], largest[i], scale, bias, row)
        for j in range(len(row)):
            x = int(row[j])
            if x < GELU_END:
                row[j] = gelu[max(x, -GELU_END) + GELU_END]
        out_largest[i] = _quantise_row(row, limit, out[i])


@compiled
def heads(layer: Layer, limit: np.float32, out: Floats, out_largest: Floats) -> None:
    """A linear layer's rows (P n, parts D) to quantised heads (parts, P, heads, n, width)."""
    sums, largest, scale, bias = layer
    parts, windows, count, tokens, width = out.shape
    row = np.empty(sums.shape[1], np.float32)
    for p in range(windows):
        for t in range(tokens):
            i = p * tokens + t
            _fixed_row(sums[i], largest[i], scale, bias, row)
            for part in range(parts):
                for h in range(count):
                    begin = (part * count + h) * width
                    out_largest[part, p, h, t] = _quantise_row(
                        row[begin : begin + width], limit, out[part, p, h, t]
                    )


@compiled
def soften(
    scores: Floats,
    largest: tuple[Floats, ...],
    unit: np.float32,
    limit: np.float32,
    exp: Floats,
    causal: bool,  # noqa: FBT001 - Numba knows no keyword-only arguments
    factor: Floats,
) -> None:
    """Turn products of queries and keys (G, n, m) into quantised weights of the values.

    ``largest`` of the queries (G, n), keys and values (G, m) are what their integers stand for;
    ``factor`` (G, n) is filled with what the weights' integers stand for, over their sum.
    """
    queries, keys, values = largest
    groups, n, m = scores.shape
    row = np.empty(m, np.int64)
    weight = np.empty(m, np.float32)
    for g in range(groups):
        for i in range(n):
            seen = i + 1 if causal else m
            size = queries[g, i] * unit
            top = np.int64(-(2**62))
            for j in range(seen):
                row[j] = np.int64(np.rint((scores[g, i, j] * size) * keys[g, j]))
            for j in range(seen):
                top = max(top, row[j])
            total = np.int32(0)
            for j in range(seen):
                weight[j] = exp[min(top - row[j], FARTHEST)]
                total += np.int32(weight[j])
            for j in range(seen):
                weight[j] *= values[g, j]
            weight[seen:] = 0
            factor[g, i] = _quantise_row(weight, limit, scores[g, i]) / np.float32(total)


@compiled
def merge(found: Floats, factor: Floats, unit: np.float32, out: Floats) -> None:
    """Heads (P, heads, n, width) to fixed-point tokens (P, n, heads, width)."""
    windows, count, tokens, width = found.shape
    for p in range(windows):
        for h in range(count):
            for t in range(tokens):
                f = factor[p, h, t]
                for j in range(width):
                    out[p, t, h, j] = np.rint((found[p, h, t, j] * f) * unit)
