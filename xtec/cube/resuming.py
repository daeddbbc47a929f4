"""A write that was interrupted, taken up: found, compared, and what is whole of it counted.

What is compared is what the store says: all metadata, and the values of coordinates and of other
variables that are not lazy. The pixels of the source are not: whoever resumes gives the same cube.

Below: blocks, pieces, places, state, stored, zarr_v3, codec, errors. Above: writing.
"""

import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.buffer import default_buffer_prototype
from zarr.errors import ContainsArrayError, NodeTypeValidationError
from zarr.storage import MemoryStore

from xtec.codec import only_checked
from xtec.cube import places, state
from xtec.cube.blocks import hollow, unit_of
from xtec.cube.pieces import grid, region
from xtec.cube.state import WRITING, Unfinished
from xtec.cube.stored import codec_of_array, settings_of
from xtec.errors import InputError
from xtec.shelf import Shelf, wanted
from xtec.zarr_v3 import places_stored, remove_stored, stored_size

UNITS_PER_TASK = 32
"""Chunks or shards that one of Dask's tasks checks."""

MOST_NAMED = 4
"""So many differences an error names at most."""


@dataclass(frozen=True)
class Begun:
    """A store that an earlier run wrote to."""

    store: Any
    """Where it lies."""
    folder: Path | None
    """The same, where that is not its place but beside it."""
    whole: bool
    """Whether it is finished."""
    layout: "zarr.Group | None" = None
    """What it is made of but for what is lazy; None where so much is not even there."""


def find(
    prepared: xr.Dataset,
    store: Any,
    path: Path | None,
    zarr_format: int,
    *,
    overwrite: bool,
    weights: bool | None,
) -> Begun | None:
    """What an earlier run left for a place; None where there is nothing, or it is whole and may go.

    Parameters
    ----------
    prepared : xarray.Dataset
        What is going to be written.
    store : path, URL or Zarr store
    path : Path, optional
        Its folder, if it lies in one of this machine.
    zarr_format : {2, 3}
    overwrite : bool
    weights : bool, optional
        Whether the model goes into the store; None: if it is small.

    Raises
    ------
    InputError
        It was begun with other settings, grid, coordinates or variables, or is being appended to.
    """
    begun = _look(store, path)
    if begun is None or (begun.whole and overwrite):
        return None
    layout = _layout(prepared, zarr_format)
    theirs = zarr.open_group(begun.store, mode="r", use_consolidated=False)
    if not (begun.whole or _is_laid_out(theirs, layout, prepared)):
        return begun
    differences = [*_differences(_described(layout), _described(theirs))]
    differences = differences or [*_other_values(layout, theirs)]
    if not begun.whole:
        models = set(Shelf(begun.store).digests()) - set(_models(prepared, weights))
        differences += [f"embed_weights: {sorted(models)} there, not here"] * bool(models)
    if differences:
        more = len(differences) - MOST_NAMED
        raise InputError(
            f"{begun.store} was {'written' if begun.whole else 'begun'} otherwise than this would "
            f"be: {'; '.join(differences[:MOST_NAMED])}{f'; and {more} more' * (more > 0)}. Give "
            "the same cube and settings, or write anew: overwrite=True without resume."
        )
    return replace(begun, layout=layout)


def _look(store: Any, path: Path | None) -> Begun | None:
    left = [] if path is None else [p for p in places.leftovers(path) if _unfinished(p)]
    if left:
        last = max(left, key=lambda folder: folder.stat().st_mtime)
        return Begun(str(last), last, whole=False)
    group = _group(store)
    if group is None:
        return None
    found = Unfinished.of(group.attrs)
    if found is not None and found.state != WRITING:
        raise InputError(f"{store} is not finished ({found.state}): {state.NOTES[found.state]}.")
    return Begun(store, None, whole=found is None)


def _layout(prepared: xr.Dataset, zarr_format: int) -> "zarr.Group":
    """Metadata, and all that is not lazy, as a write would lay it out; in memory."""
    store = MemoryStore()
    hollow(prepared).to_zarr(store, zarr_format=zarr_format, consolidated=False, compute=False)
    return zarr.open_group(store, mode="r", use_consolidated=False)


def _is_laid_out(theirs: "zarr.Group", layout: "zarr.Group", prepared: xr.Dataset) -> bool:
    """Whether a run came as far as its pixels: what is there may be compared."""
    there = dict(theirs.arrays())
    pixels = [there[str(name)] for name in _coded(prepared) if str(name) in there]
    complete = layout.array_keys()
    return {*complete} <= there.keys() or any(array.nchunks_initialized for array in pixels)


def take_over(begun: Begun, store: Any, place: Path | None, unfinished: Unfinished) -> None:
    """Make what was begun this run's own; a run that still writes there is told when it ends."""
    path = places.local_path(store)
    if begun.folder is not None and place is not None:
        places.claim(begun.folder, place)
    elif path is not None:
        places.sweep(path)
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    group.attrs.update(unfinished.to_attribute())


def complete(store: Any, layout: "zarr.Group") -> None:
    """Write the values of what is not lazy once more, where some of them are missing."""
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    for name, ours, theirs in _pairs(layout, group):
        if theirs.nchunks_initialized != ours.nchunks_initialized:
            group[name][...] = ours[...]  # type: ignore[index]


def sizes_stored(array: "zarr.Array[Any]") -> NDArray[np.int64]:
    """For each chunk or shard of a compressed array the bytes of it, where it is stored whole.

    All that is stored is read, by Dask's workers, and checked; nothing is decoded. What is damaged
    is removed: Zarr reads a shard again before it writes it.

    Returns
    -------
    array of int64, one axis for each of the array's
        -1 where nothing is stored, or nothing whole.
    """
    sizes = np.full(grid(array.shape, unit_of(array)), -1, np.int64)
    there = list(places_stored(array).items())
    groups = [there[i : i + UNITS_PER_TASK] for i in range(0, len(there), UNITS_PER_TASK)]
    tasks = [dask.delayed(partial(_check, array, group), pure=False)() for group in groups]  # type: ignore[attr-defined]
    found = dask.compute(*tasks)  # type: ignore[attr-defined, no-untyped-call]
    for group, whole in zip(groups, found, strict=True):
        for (place, _), size in zip(group, whole, strict=True):
            sizes[place] = size
    return sizes


def _check(array: "zarr.Array[Any]", units: list[tuple[tuple[int, ...], str]]) -> list[int]:
    """Sizes of some chunks or shards; -1 for those that are damaged, and removed."""
    codec = codec_of_array(array)
    assert codec is not None  # noqa: S101 - `compress` asks for its own arrays
    codec.settings.card  # noqa: B018 - without the model nothing is said of the chunks
    sizes = []
    for place, key in units:
        size = stored_size(array, key)
        if not (size and _is_whole(array, place)):
            remove_stored(array, key)
            size = -1
        sizes.append(size)
    return sizes


def _is_whole(array: "zarr.Array[Any]", place: tuple[int, ...]) -> bool:
    """Whether a chunk or shard can be read; any error that is not about its bytes is raised."""
    try:
        with only_checked():
            array[region(array.shape, unit_of(array), place)]
    except (ValueError, IndexError):  # a StreamError, or Zarr's of a shard's index
        return False
    return True


def _group(store: Any) -> "zarr.Group | None":
    try:
        return zarr.open_group(store, mode="r", use_consolidated=False)
    except (FileNotFoundError, ContainsArrayError, NodeTypeValidationError):
        return None


def _unfinished(folder: Path) -> bool:
    group = _group(str(folder))
    return group is not None and state.ATTRIBUTE in group.attrs


def _coded(prepared: xr.Dataset) -> list[Hashable]:
    return [n for n in prepared.data_vars if settings_of(prepared[n]) is not None]


def _models(prepared: xr.Dataset, weights: bool | None) -> Iterator[str]:  # noqa: FBT001
    """What the models are called that go into the store."""
    for name in _coded(prepared):
        settings = settings_of(prepared[name])
        if settings is not None and wanted(settings.card, weights):
            yield settings.model_digest[:16]


def _described(group: "zarr.Group") -> dict[str, Any]:
    """All metadata of a group and its arrays, each field by a name for people."""
    attributes = {k: v for k, v in dict(group.attrs).items() if k != state.ATTRIBUTE}
    said: dict[str, Any] = {"zarr_format": group.metadata.zarr_format, "attributes": attributes}
    for name, array in group.arrays():
        documents = array.metadata.to_buffer_dict(default_buffer_prototype())
        said[name] = {k: v for d in documents.values() for k, v in json.loads(d.to_bytes()).items()}
    return dict(_fields(said))


def _fields(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Take nested JSON apart."""
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        inside = enumerate(value)
    if not inside:
        yield name, value
    for key, each in inside:
        yield from _fields(each, f"{name}.{key}" if name else str(key))


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    names = ours.keys() | theirs.keys()
    if ours["zarr_format"] != theirs["zarr_format"]:
        names = {"zarr_format"}  # all else differs with it
    for name in sorted(names):
        here, there = ours.get(name, "nothing"), theirs.get(name, "nothing")
        if here != there:
            yield f"{name}: {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _pairs(
    layout: "zarr.Group", group: "zarr.Group"
) -> Iterator[tuple[str, "zarr.Array[Any]", "zarr.Array[Any]"]]:
    """Arrays whose values are laid out; what is lazy has none in a layout."""
    theirs = dict(group.arrays())
    for name, array in layout.arrays():
        if array.nchunks_initialized:
            yield name, array, theirs[name]


def _other_values(layout: "zarr.Group", group: "zarr.Group") -> Iterator[str]:
    """Coordinates and variables, all of them there, whose values differ."""
    for name, ours, theirs in _pairs(layout, group):
        if theirs.nchunks_initialized == ours.nchunks_initialized:
            here, there = np.asarray(ours[...]), np.asarray(theirs[...])
            if not np.array_equal(here, there, equal_nan=here.dtype.kind in "fcmM"):
                yield f"the values of {name!r} differ"
