"""Add to a compressed store without a second loss: dates at its end, or whole chunks of a region.

All is checked before anything is written. Dates are appended so that a reader sees the store as it
was until all of them are there: the arrays grow, pixels are written behind what was there, and only
then the consolidated metadata, which readers go by, says so.

Below: blocks, existing, prepare, progress, state, writing, errors. Above: accessor.
"""

import secrets
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr

from xtec.cube import blocks, state
from xtec.cube.axes import AXES
from xtec.cube.existing import (
    Existing,
    Region,
    arrays_along,
    find_addition,
    open_existing,
    unit_of,
)
from xtec.cube.layout import Cube
from xtec.cube.packing import Packing
from xtec.cube.prepare import in_blocks, warn_of_second_generation
from xtec.cube.progress import run
from xtec.cube.state import APPENDING, Unfinished
from xtec.cube.writing import quiet
from xtec.errors import InputError


def append(
    dataset: xr.Dataset,
    store: Any,
    *,
    recover: bool = False,
    variable: Hashable | None = None,
    progress: bool = False,
) -> None:
    """Add dates to a store; see `xtec.accessor.Tec.append`."""
    existing = _whole(store, variable, recover=recover)
    cube, packing = find_addition(dataset, existing)
    time = existing.variable.dims[0]
    before = existing.variable.sizes[time]
    begin = _first_new(cube, existing)
    region: Region = {time: slice(begin, begin + cube.variable.sizes[time])}
    addition = _addition(cube, packing, existing, region, time)
    mark = Unfinished(APPENDING, secrets.token_hex(4), before)
    with quiet():
        state.begin(existing.store, mark)
    try:
        _resize(existing.store, time, region[time].stop)
        _write(addition, existing, region, progress=progress)
        state.require_own(existing.store, mark)
    except BaseException as error:
        _undo(existing, mark, error)
        raise
    with quiet():
        zarr.consolidate_metadata(existing.store)
        state.end(existing.store)


def write_region(
    dataset: xr.Dataset,
    store: Any,
    region: Mapping[Any, slice] | str,
    *,
    variable: Hashable | None = None,
    progress: bool = False,
) -> None:
    """Replace whole chunks of a store; see `xtec.accessor.Tec.write`."""
    existing = open_existing(store, variable)
    state.warn(existing.dataset.attrs)
    cube, packing = find_addition(dataset, existing)
    place = _place(cube, existing, region)
    addition = _addition(cube, packing, existing, place)
    _require_whole_chunks(place, existing, addition)
    _write(addition, existing, place, progress=progress)


def _whole(store: Any, variable: Hashable | None, *, recover: bool) -> Existing:
    """Open a store for an append; what an interrupted one left is removed on demand."""
    existing = open_existing(store, variable)
    found = Unfinished.of(existing.dataset.attrs)
    if found is None:
        return existing
    if found.state != APPENDING or found.complete is None or not recover:
        raise InputError(f"{store} is not finished ({found.state}): {state.NOTES[found.state]}.")
    _resize(existing.store, existing.variable.dims[0], found.complete)
    state.end(existing.store)
    return open_existing(store, variable)


def _first_new(cube: Cube, existing: Existing) -> int:
    """Index of the first date that is written: behind the last, or at the last chunk's border."""
    time = existing.variable.dims[0]
    unit, before = existing.unit[0], existing.variable.sizes[time]
    border = before - before % unit
    begin, repeated = before, np.empty(0)
    if time in cube.dataset.coords and time in existing.dataset.coords:
        ours, theirs = cube.dataset[time].values, existing.dataset[time].values
        last = theirs[border:]
        if last.size and np.array_equal(ours[: last.size], last):
            begin, ours = border, ours[last.size :]
        repeated = ours[np.isin(ours, theirs)]
    if repeated.size:
        raise InputError(
            f"the store has {repeated.size} of these dates already, the first is {repeated[0]}. "
            "Leave them out, or replace whole chunks with ds.tec.write(store, region=...)."
        )
    if begin % unit:
        raise InputError(
            f"the last chunk of the store holds {before - border} of {unit} dates; appending would "
            f"decode and encode them again, with loss. Give its {before - border} dates once more "
            f"from the original, ahead of the new ones (all dates from index {border} on: they "
            f"replace the chunk), or write a new store whose chunks have {_divisor(before, unit)} "
            "dates. To avoid this, keep dates back until a chunk is full: append multiples of "
            f"{unit}."
        )
    return begin


def _divisor(before: int, unit: int) -> int:
    """The largest size of chunks that so many dates fill."""
    return max(n for n in range(1, unit + 1) if before % n == 0)


def _place(cube: Cube, existing: Existing, region: Mapping[Any, slice] | str) -> Region:
    """Begin and end along time, y and x, from slices or by the coordinates."""
    if isinstance(region, str) and region != "auto":
        raise InputError(f"region={region!r} is unknown; give a mapping of slices, or 'auto'.")
    dims = existing.variable.dims
    slices = {} if isinstance(region, str) else dict(region)
    roles = dict(zip(AXES, dims, strict=True))
    slices = {roles.get(str(key), key): part for key, part in slices.items()}
    strange = [key for key in slices if key not in dims or key == dims[1]]
    if strange:
        raise InputError(
            f"region names {strange}; allowed are slices along {dims[0]!r}, {dims[2]!r} and "
            f"{dims[3]!r}. Leave out all else: bands are written together."
        )
    place: Region = {}
    for dim in (dims[0], *dims[2:]):
        whole, part = existing.variable.sizes[dim], slices.get(dim)
        if region == "auto":
            part = _found(cube, existing, dim)
        begin, end, step = (part or slice(None)).indices(whole)
        if step != 1 or end - begin != cube.variable.sizes[dim]:
            raise InputError(
                f"region {dim}={begin}:{end} does not hold the {cube.variable.sizes[dim]} of the "
                f"cube (the store has {whole}); give a slice(begin, end) for each axis, or 'auto'."
            )
        place[dim] = slice(begin, end)
    return place


def _found(cube: Cube, existing: Existing, dim: Hashable) -> slice:
    """Where a cube's coordinates stand in the store."""
    if dim not in cube.dataset.coords or dim not in existing.dataset.coords:
        return slice(None)
    places = existing.dataset.get_index(dim).get_indexer(cube.dataset.get_index(dim))
    if (places < 0).any() or (np.diff(places) != 1).any():
        raise InputError(
            f"the coordinates along {dim!r} are not a run of the store's; select a part of the "
            "same grid, or name the place: region={'y': slice(0, 256), ...}."
        )
    return slice(int(places[0]), int(places[-1]) + 1)


def _require_whole_chunks(place: Region, existing: Existing, addition: xr.Dataset) -> None:
    """Raise where a region cuts a chunk or shard, with one that does not."""
    for name in addition.variables:
        wider: Region = {}
        array = existing.dataset.variables[name]
        for dim, unit in zip(array.dims, unit_of(array), strict=True):
            if dim in place:
                part, whole = place[dim], existing.dataset.sizes[dim]
                end = -(-part.stop // unit) * unit
                wider[dim] = slice(part.start // unit * unit, min(end, whole))
        if any(wider[dim] != place[dim] for dim in wider):
            raise InputError(
                f"the region {_text(place)} cuts chunks {unit_of(array)} of {name!r}; the rest of "
                f"them would be decoded and encoded again. Write {_text(wider)} from the original"
                + ("." if name == existing.name else f", or leave it out: .drop_vars({name!r}).")
            )


def _text(region: Region) -> str:
    return ", ".join(f"{dim}={part.start}:{part.stop}" for dim, part in region.items())


def _addition(
    cube: Cube, packing: Packing, existing: Existing, region: Region, along: Hashable = None
) -> xr.Dataset:
    """What is written to a region, lazy: the pixels, and all else that is of this place only.

    Coordinates that do not grow along `along` are compared with the store's and left out.
    """
    warn_of_second_generation(cube)
    ours, theirs = cube.dataset.variables, existing.dataset.variables
    missing = [name for name, v in theirs.items() if along in v.dims and name not in ours]
    if missing:
        raise InputError(f"the store has {missing} along {along!r}, the cube has not; add them.")
    made = {}
    for name, variable in ours.items():
        if name == existing.name:
            pixels = in_blocks(cube.variable.variable, packing, existing.unit)
            made[name] = xr.Variable(pixels.dims, pixels.data)
        elif name in cube.dataset.coords and along not in variable.dims:
            existing.require_equal(name, variable, region)
        elif region.keys() & set(variable.dims):
            made[name] = _aligned(existing.storable(name, variable), theirs[name], region)
    return xr.Dataset(made)


def _aligned(variable: xr.Variable, stored: xr.Variable, region: Region) -> xr.Variable:
    """Cut a lazy variable so that no two blocks meet in one chunk of the store."""
    if not variable.chunks:
        return variable
    blocks = {}
    for dim, unit in zip(stored.dims, unit_of(stored), strict=True):
        begin = region[dim].start if dim in region else 0
        borders = [0, *range(unit - begin % unit, variable.sizes[dim], unit), variable.sizes[dim]]
        blocks[dim] = tuple(np.diff(borders).tolist())
    return variable.chunk(blocks)


def _write(addition: xr.Dataset, existing: Existing, region: Region, *, progress: bool) -> None:
    """Write variables whose blocks meet in no chunk: xarray need not check them."""
    addition = addition.drop_indexes(list(addition.xindexes))
    with quiet():
        blocks.hollow(addition).to_zarr(
            existing.store,
            region={str(dim): part for dim, part in region.items()},
            mode="r+",
            consolidated=False,
            compute=False,
            safe_chunks=False,
        )
    group = zarr.open_group(existing.store, mode="r+", use_consolidated=False)
    jobs = []
    for name, variable in blocks.lazy(addition.variables).items():
        array = group[str(name)]
        assert isinstance(array, zarr.Array)  # noqa: S101 - the store has it
        jobs.append(
            blocks.job(
                existing.encoded(name, variable), array, region, counted=name == existing.name
            )
        )
    run(jobs, shown=progress)


def _resize(store: Any, dim: Hashable, size: int) -> None:
    for array, axis in arrays_along(store, dim):
        shape = (*array.shape[:axis], size, *array.shape[axis + 1 :])
        if shape != array.shape:
            array.resize(shape)


def _undo(existing: Existing, run: Unfinished, error: BaseException) -> None:
    """Take an append back; where that fails too, the store says so."""
    try:
        state.require_own(existing.store, run)
        _resize(existing.store, existing.variable.dims[0], run.complete or 0)
        state.end(existing.store)
        error.add_note(f"{existing.store} holds what it held before.")
    except Exception as second:  # noqa: BLE001 - the first error is the one to be seen
        error.add_note(
            f"the append could not be taken back ({second}); if {existing.store} says that it is "
            "unfinished, ds.tec.append(store, recover=True) removes what is left."
        )
