"""Chunks and shards of a store, and the Dask blocks that are written to it.

Every block is a whole number of shards or chunks, so that nothing is ever encoded twice.

Below: axes, errors. Above: prepare.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from xtec.cube.axes import AXES
from xtec.errors import InputError

Shape = tuple[int, int, int, int]
Sizes = Mapping[Hashable, int] | Sequence[int]

DEFAULT = {"time": 8, "y": 256, "x": 256}
"""Size of a chunk; the band axis is never split."""

BLOCK_PIXELS = 1 << 25
"""A Dask block grows to no more than this: 64 MiB of digital numbers."""


def chunk_shape(chunks: Sizes | None, dims: Sequence[Hashable], shape: Sequence[int]) -> Shape:
    """Shape of a chunk (time, band, y, x).

    Parameters
    ----------
    chunks : mapping or four integers, optional
        By axis ("time", "y", "x") or dimension; -1 for the whole axis. What is missing takes the
        default, all bands always; nothing is larger than the cube.

    Raises
    ------
    InputError
        Not sizes, unknown axes, or split bands.
    """
    default = dict(zip(AXES, shape, strict=True)) | DEFAULT
    sizes = _sizes("chunks", chunks, dims, shape, _four(default[role] for role in AXES))
    if sizes[1] < shape[1]:
        raise InputError(
            f"chunks of {sizes[1]} of the {shape[1]} bands: the codec needs all bands of a pixel "
            "together; leave the band axis out of chunks."
        )
    return _four(min(pair) for pair in zip(sizes, shape, strict=True))


def shard_shape(
    shards: Sizes | None, dims: Sequence[Hashable], shape: Sequence[int], chunk: Shape
) -> Shape | None:
    """Shape of a shard (time, band, y, x), made of whole chunks; None without shards.

    Parameters
    ----------
    shards : mapping or four integers, optional
        As chunks; what is missing is one chunk, -1 enough chunks for the whole axis.

    Raises
    ------
    InputError
        Not sizes, unknown axes, or not whole chunks.
    """
    if shards is None:
        return None
    whole = [-(-n // c) * c for n, c in zip(shape, chunk, strict=True)]
    sizes = _sizes("shards", shards, dims, whole, chunk)
    if any(s % c for s, c in zip(sizes, chunk, strict=True)):
        raise InputError(
            f"shards of {sizes} are not whole chunks of {chunk}; make each size a multiple."
        )
    return sizes


def block_shape(unit: Shape, shape: Sequence[int], present: Sequence[int]) -> Shape:
    """Shape of the Dask blocks for writing.

    Parameters
    ----------
    unit : (time, band, y, x)
        Shard or chunk: what is written at once.
    shape : (time, band, y, x)
        The cube.
    present : (time, band, y, x)
        The largest block that the cube is made of now. Blocks grow along y and x while they stay
        within it: several chunks at once are coded faster, and read with fewer tasks.
    """
    block = list(unit)
    for axis in (3, 2):
        larger = block.copy()
        larger[axis] *= 2
        if larger[axis] <= present[axis] and prod(larger) <= BLOCK_PIXELS:
            block = larger
    return _four(min(pair) for pair in zip(block, shape, strict=True))


def cut(variable: xr.Variable, sizes: Mapping[Any, Any]) -> xr.Variable:
    """Cut a variable into Dask blocks of these sizes; lazy."""
    # name=False: Dask would hash all pixels to find a name for them.
    return variable.chunk(sizes, name=False)  # type: ignore[arg-type]


def _sizes(
    what: str, given: Sizes | None, dims: Sequence[Hashable], whole: Sequence[int], default: Shape
) -> Shape:
    """Complete what was given, in the order of the axes."""
    if given is None:
        return default
    allowed = (
        f"give four positive integers (time, band, y, x) or a mapping of {', '.join(AXES)}, "
        "-1 for a whole axis."
    )
    if not isinstance(given, Mapping):
        if len(given) != len(dims):
            raise InputError(f"{what}={given!r} does not name four sizes; {allowed}")
        given = dict(zip(AXES, given, strict=True))
    roles = dict(zip(dims, AXES, strict=True)) | {role: role for role in AXES}
    unknown = [key for key in given if key not in roles]
    sizes: dict[str, Any] = dict(zip(AXES, default, strict=True))
    sizes |= {roles.get(k, ""): n for k, n in given.items()}
    sizes = {k: w if sizes[k] == -1 else sizes[k] for k, w in zip(AXES, whole, strict=True)}
    if unknown or not all(isinstance(n, int | np.integer) and n > 0 for n in sizes.values()):
        raise InputError(f"{what}={given!r} does not name sizes of the cube's axes; {allowed}")
    return _four(int(n) for n in sizes.values())


def _four(sizes: Iterable[int]) -> Shape:
    time, band, y, x = sizes
    return time, band, y, x
