"""A few of a cube's own chunks, as the codec will see them.

Always the same ones, spread over time and space. Chunks without any data are not stored, so they
are left out here too.

Below: chunks, packing, errors. Above: calibrate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from xtec.cube.chunks import Shape
from xtec.cube.packing import Packing, snap
from xtec.errors import InputError

CHUNKS = 8
"""So many chunks are sampled at most."""

VALUES = 1 << 26
"""So many values at most, where chunks are large: memory and time are those of eight chunks of the
default size. One chunk is always taken."""

CANDIDATES = 64
"""So many chunks are read at most in search of some that hold data."""

BASES = (2, 3, 5)
"""Of the Halton sequence along time, y and x."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Chunks of a cube."""

    chunks: Sequence[NDArray[Any]]
    """Digital numbers (time, band, y, x), all of one shape; beyond the cube's edge no data."""
    values: int
    """How many of their values lie inside the cube."""
    of: int
    """How many chunks the cube has."""


def take(variable: xr.Variable, chunk: Shape, packing: Packing) -> Sample:
    """Read a sample of a cube; no other part of a lazy one is computed.

    Parameters
    ----------
    variable : xarray.Variable
        The cube (time, band, y, x).
    chunk : (time, band, y, x)
        Shape of the chunks that will be stored.
    packing : Packing
        What the cube's values mean.

    Raises
    ------
    InputError
        No chunk that was looked at holds data, or values do not fit their packing.
    """
    grid = tuple(-(-n // c) for n, c in zip(variable.shape, chunk, strict=True))
    wanted = min(CHUNKS, max(1, VALUES // prod(chunk)))
    candidates = islice(spread(grid), CANDIDATES)
    chunks: list[NDArray[Any]] = []
    values = 0
    # Together what is read together: neighbours may come from one block of the source.
    while pieces := [
        variable[tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunk, strict=True))]
        for place in islice(candidates, wanted - len(chunks))
    ]:
        for piece in compute(*pieces):  # type: ignore[no-untyped-call]
            numbers = _numbers(piece.values, packing)
            if (numbers != packing.nodata).any():
                chunks.append(_padded(numbers, chunk, packing.nodata))
                values += numbers.size
    if not chunks:
        raise InputError(
            f"{min(CANDIDATES, prod(grid))} of the cube's {prod(grid)} chunks were looked at, and "
            "none holds data: there is nothing to choose a compression by. Select a part that "
            "holds data, or give compression= itself."
        )
    return Sample(chunks, values, prod(grid))


def spread(grid: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Every chunk of a grid once, each far from those before: cells that a Halton sequence hits.

    Parameters
    ----------
    grid : (time, 1, y, x)
        Chunks along each axis.
    """
    seen: set[tuple[int, int, int, int]] = set()
    for number in count(1):
        time, y, x = (
            int(n * _mirrored(number, base))
            for n, base in zip((grid[0], *grid[2:]), BASES, strict=True)
        )
        place = time, 0, y, x
        if place not in seen:
            seen.add(place)
            yield place
        if len(seen) == prod(grid):
            return


def _mirrored(number: int, base: int) -> float:
    """A number's digits behind the point, in reverse: 6 in base 2, which is 110, gives 0.011."""
    digits, scale = 0, 1
    while number:
        number, digit = divmod(number, base)
        digits, scale = digits * base + digit, scale * base
    return digits / scale


def _numbers(values: NDArray[Any], packing: Packing) -> NDArray[Any]:
    """Digital numbers, as xarray will write them."""
    if packing.floating:
        numbers = np.rint(packing.numbers(snap(values, packing)))
        values = np.where(np.isnan(numbers), packing.nodata, numbers)
    return values.astype(packing.dtype)


def _padded(numbers: NDArray[Any], chunk: Shape, nodata: int) -> NDArray[Any]:
    """Fill a chunk at the cube's edge up to full size with no data, as Zarr does."""
    short = [(0, c - n) for c, n in zip(chunk, numbers.shape, strict=True)]
    return np.pad(numbers, short, constant_values=nodata)
