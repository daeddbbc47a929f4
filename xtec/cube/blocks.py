"""Lazy variables, written block by block by tasks that say what they stored.

xarray lays a store out; the blocks are written here, because what is stored whole already is left
out, chunk by chunk, and because each task counts the bytes that the store got, on whatever machine
it runs.

Below: pieces, secondhand. Above: progress, writing, adding.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from typing import Any, Self

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.conventions import encode_cf_variable
from zarr.storage import StorePath, WrapperStore

from xtec import secondhand
from xtec.cube.pieces import Place, grid

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Written:
    """How much was written."""

    chunks: int = 0
    raw_bytes: int = 0
    """As numbers of the array's type."""
    stored_bytes: int = 0
    """What the store got; chunks without data are not stored."""

    def __add__(self, other: Self) -> "Written":
        return Written(
            self.chunks + other.chunks,
            self.raw_bytes + other.raw_bytes,
            self.stored_bytes + other.stored_bytes,
        )


@dataclass(frozen=True)
class Job:
    """What there is to do for one variable."""

    tasks: Sequence[Any]
    """Dask's Delayed; each writes one block and gives a Written."""
    whole: Written = field(default_factory=Written)
    """What the variable is in all; its stored bytes are not known yet."""
    done: Written = field(default_factory=Written)
    """What is left out, because it is stored."""


def job(
    variable: xr.Variable,
    array: "zarr.Array[Any]",
    origin: Mapping[Any, slice] | None = None,
    stored: NDArray[np.int64] | None = None,
    *,
    counted: bool = True,
    told: bool = False,
) -> Job:
    """Tasks that write a lazy variable to an array, or to a region of it.

    Parameters
    ----------
    variable : xarray.Variable
        Made of Dask blocks that are whole chunks or shards of the array; with an encoding, packed.
    array : zarr.Array
        Laid out already.
    origin : mapping, optional
        By dimension, where in the array it belongs; the begins of the slices count.
    stored : array of int64, optional
        For each chunk or shard of the array the bytes that are stored for it and stay, or -1.
    counted : bool
        Whether what is written counts; else it is all zeros.
    told : bool
        Whether the user was told already that the pixels were decoded before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was said when the variable was laid out
        data = encode_cf_variable(variable).data
    begins = tuple((origin or {}).get(dim, slice(0, None)).start or 0 for dim in variable.dims)
    borders = [
        list(accumulate(sizes, initial=begin))
        for begin, sizes in zip(begins, data.chunks, strict=True)
    ]
    if stored is None:
        stored = np.full(grid(array.shape, unit_of(array)), -1, np.int64)
    writer = _Writer(array, borders, counted, told)
    wanted, done = [], Written()
    for place in np.ndindex(data.numblocks):
        region = writer.region(place)
        units = stored[_units(region, array)]
        kept = units[units >= 0]
        if kept.size:
            missing = list(_missing(region, array, stored))
            rest, block = sum((_about(array, r) for r in missing), Written()), _about(array, region)
            chunks, raw = block.chunks - rest.chunks, block.raw_bytes - rest.raw_bytes
            done += Written(chunks, raw, int(kept.sum()))
            if missing:
                writer.missing[place] = missing  # few: all of it travels with every task
        if kept.size < units.size:
            wanted.append(place)
    blocks = data.map_blocks(writer, dtype=object, meta=np.empty((0,) * data.ndim, object))
    tasks = blocks.to_delayed()
    ends = tuple(slice(border[0], border[-1]) for border in borders)
    wanted_tasks = [tasks[place] for place in wanted]
    return Job(wanted_tasks, _about(array, ends), done) if counted else Job(wanted_tasks)


def lazy(variables: Mapping[Any, xr.Variable]) -> dict[Any, xr.Variable]:
    """Those that Dask is yet to compute."""
    return {name: v for name, v in variables.items() if v.chunks is not None}


def hollow(dataset: xr.Dataset) -> xr.Dataset:
    """The same with zeros for what is lazy: to be laid out, and not to be computed."""
    empty = {
        name: xr.Variable(
            v.dims, da.zeros(v.shape, dtype=v.dtype, chunks=v.chunks), v.attrs, v.encoding
        )
        for name, v in lazy(dataset.variables).items()
    }
    return dataset.assign(empty)


class _Counting(WrapperStore[Any]):
    """A store that notes how large the objects are that it gets."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.sizes: dict[str, int] = {}

    async def set(self, key: str, value: Any) -> None:
        await self._store.set(key, value)
        self.sizes[key] = len(value)


@dataclass(frozen=True, eq=False)
class _Writer:
    """Writes a block to its place; travels to the workers."""

    array: "zarr.Array[Any]"
    borders: Sequence[Sequence[int]]
    """Where blocks begin and end along each axis of the array."""
    counted: bool
    told: bool
    missing: dict[Place, list[Slices]] = field(default_factory=dict)
    """Of blocks that are stored in part: the parts that are not."""

    def __call__(self, block: NDArray[Any], block_id: Place = ()) -> Written:
        """Write what is missing of a block, and say how much that was."""
        store = _Counting(self.array.store)
        array: zarr.Array[Any] = zarr.Array(
            zarr.AsyncArray(self.array.metadata, StorePath(store, self.array.path))
        )
        region, written = self.region(block_id), Written()
        for part in self.missing.get(block_id, [region]):
            inside = tuple(
                slice(p.start - r.start, p.stop - r.start)
                for p, r in zip(part, region, strict=True)
            )
            with secondhand.silence() if self.told else contextlib.nullcontext():
                array[part] = block[inside]
            written += _about(array, part)
        written += Written(stored_bytes=sum(store.sizes.values()))
        return written if self.counted else Written()

    def region(self, place: Place) -> Slices:
        """Where a block belongs."""
        return tuple(slice(b[i], b[i + 1]) for i, b in zip(place, self.borders, strict=True))


def _about(array: "zarr.Array[Any]", region: Slices) -> Written:
    chunks = prod(
        -(-part.stop // c) - part.start // c for part, c in zip(region, array.chunks, strict=True)
    )
    return Written(chunks, prod(p.stop - p.start for p in region) * array.dtype.itemsize)


def unit_of(array: "zarr.Array[Any]") -> tuple[int, ...]:
    """Shape of what is stored as one object: a shard or, without shards, a chunk."""
    return tuple(array.shards or array.chunks)


def _units(region: Slices, array: "zarr.Array[Any]") -> Slices:
    """Which chunks or shards a region is made of, counted along each axis."""
    return tuple(
        slice(r.start // u, -(-r.stop // u)) for r, u in zip(region, unit_of(array), strict=True)
    )


def _missing(
    region: Slices, array: "zarr.Array[Any]", stored: NDArray[np.int64]
) -> Iterator[Slices]:
    """The chunks or shards of a region that are not stored."""
    units = _units(region, array)
    for place in np.argwhere(stored[units] < 0):
        yield tuple(
            slice((s.start + i) * u, min((s.start + i + 1) * u, r.stop))
            for i, s, u, r in zip(place.tolist(), units, unit_of(array), region, strict=True)
        )
