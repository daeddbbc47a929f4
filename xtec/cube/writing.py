"""Write a prepared Dataset to a store and open it again.

A store is written beside its place or, where that cannot be, says that it is unfinished until it is
whole (`places`, `state`).

Below: prepare, blocks, carrying, places, progress, resuming, state, stored, errors.
Above: adding, accessor.
"""

import contextlib
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from zarr.errors import ContainsArrayError, ContainsGroupError

from xtec.cube import blocks, carrying, places, resuming, state
from xtec.cube.carrying import NOISE
from xtec.cube.places import local_path
from xtec.cube.progress import run
from xtec.cube.state import WRITING, Unfinished
from xtec.cube.stored import arrays_behind, is_told, settings_of
from xtec.errors import InputError

ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata", ".zattrs")
"""By one of these a folder is known as a Zarr store."""


def refuse_to_spoil(
    source: xr.Dataset, store: Any, *, overwrite: bool, resume: bool = False
) -> None:
    """Stop before anything is deleted or mixed up.

    With `resume` a store may be there, unless one that was to replace it was begun beside it.

    Raises
    ------
    InputError
        The store exists and may not be overwritten, is what the cube is read from, is a folder or
        file of something else, or was opened to be read only.
    """
    if getattr(store, "read_only", False):
        raise InputError(f"{store} was opened to be read only; open it to be written to.")
    path = local_path(store)
    if path is None:
        return
    places.restore(path)
    if not path.exists():
        return
    if path.is_file() or (any(path.iterdir()) and not _is_zarr(path)):
        raise InputError(
            f"{path} exists and is no Zarr store; only stores are replaced. Choose another."
        )
    resume = resume and not any(places.leftovers(path))
    if not overwrite and not resume and any(path.iterdir()):
        raise InputError(f"{path} exists; choose another, or pass overwrite=True to replace it.")
    if any(place.is_relative_to(path.resolve()) for place in _places(source)):
        raise InputError(
            f"{path} holds the cube that is to be compressed, which cannot be replaced while it is "
            "read; choose another."
        )


def write(
    prepared: xr.Dataset,
    store: Any,
    *,
    zarr_format: int,
    overwrite: bool,
    progress: bool,
    embed_weights: bool | None = None,
    resume: bool = False,
) -> xr.Dataset:
    """Encode and write everything, then open what was written.

    Returns
    -------
    xarray.Dataset
        The opened store, lazy. Floating point comes back in the type it went in.

    Raises
    ------
    InputError
        The store exists and may not be overwritten, or pixels turn out not to fit. In the latter
        case what was there before is still there, if it lies in a folder of this machine. Or what
        is to be resumed was begun otherwise.
    """
    path = local_path(store)
    target = store if path is None or not isinstance(store, str | Path) else str(path)
    begun = None
    if resume:
        with quiet():
            begun = resuming.find(
                prepared, target, path, zarr_format, overwrite=overwrite, weights=embed_weights
            )
    if begun is not None and begun.whole:
        return _open(prepared, target)
    unfinished = Unfinished(WRITING, secrets.token_hex(4))
    in_place = path is None or (begun is not None and begun.folder is None)
    place = None if path is None or in_place else places.beside(path, unfinished.run)
    written = target if place is None else str(place)
    layout = begun.layout if begun is not None else None
    if begun is not None and layout is not None:
        resuming.take_over(begun, written, place, unfinished)
    else:
        _try_one_block(prepared)
    if path is not None:
        places.tidy(path, keep=place)
    try:
        with quiet():
            if layout is None:
                # What was begun in place, and has no pixels yet, may go.
                anew = overwrite or (begun is not None and in_place)
                _lay_out(prepared, written, unfinished, zarr_format, overwrite=anew)
            else:
                resuming.complete(written, layout)
            carrying.embed(prepared, written, zarr_format, weights=embed_weights)
        _write_blocks(prepared, written, shown=progress, resume=layout is not None)
        with quiet():
            state.require_own(written, unfinished)
            zarr.consolidate_metadata(written, zarr_format=zarr_format)  # type: ignore[arg-type]
            state.end(written)
        if path is not None and place is not None:
            places.settle(place, path, unfinished.run, overwrite=overwrite)
    except BaseException as error:
        error.add_note(_what_is_left(target, place))
        raise
    return _open(prepared, target)


def _write_blocks(prepared: xr.Dataset, store: Any, *, shown: bool, resume: bool) -> None:
    """Write what is lazy; of compressed variables only what is not stored whole."""
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    jobs = []
    for name, variable in blocks.lazy(prepared.variables).items():
        array = group[str(name)]
        assert isinstance(array, zarr.Array)  # noqa: S101 - it was laid out
        coded = settings_of(variable) is not None
        stored = resuming.sizes_stored(array) if resume and coded else None
        told = is_told(variable)
        jobs.append(blocks.job(variable, array, stored=stored, counted=coded, told=told))
    run(jobs, shown=shown)


def _what_is_left(store: Any, place: Path | None) -> str:
    if place is None:
        return (
            f"what is in {store} may be incomplete, and then says so; resume=True goes on with it, "
            "overwrite=True replaces it."
        )
    return (
        f"nothing of it is in {store}. An incomplete store is left in {place}; resume=True goes on "
        f"with it, another write to {store} removes it."
    )


def _is_zarr(path: Path) -> bool:
    return any((path / name).exists() for name in ZARR_FILES)


def _places(source: xr.Dataset) -> Iterator[Path]:
    """Folders of all Zarr arrays on this machine that a Dataset reads from."""
    for variable in source.variables.values():
        for array in arrays_behind(variable):
            path = local_path(array.store)
            if path is not None:
                yield (path / array.path).resolve()


def _try_one_block(prepared: xr.Dataset) -> None:
    """Compute one block of floating point: if no value fits, this tells before writing does."""
    for variable in prepared.variables.values():
        if settings_of(variable) is not None and variable.dtype.kind == "f":
            middle = tuple(count // 2 for count in variable.data.numblocks)
            variable.data.blocks[middle].compute()


def _lay_out(
    prepared: xr.Dataset, store: Any, unfinished: Unfinished, zarr_format: int, *, overwrite: bool
) -> None:
    """Write metadata and all that is not lazy to a store that says so until it is whole."""
    try:
        blocks.hollow(prepared).assign_attrs(unfinished.to_attribute()).to_zarr(
            store,
            mode="w" if overwrite else "w-",
            zarr_format=zarr_format,
            consolidated=False,
            compute=False,
        )
    except (ContainsArrayError, ContainsGroupError, FileExistsError) as error:
        raise InputError(f"{store} exists; pass overwrite=True to replace it.") from error


def _open(prepared: xr.Dataset, store: Any) -> xr.Dataset:
    """Open a store; values of the coded variable in the type that was compressed."""
    opened = carrying.open_zarr(store)
    opened.encoding["source"] = store
    for name, variable in prepared.data_vars.items():
        if settings_of(variable) is not None and opened[name].dtype.kind == variable.dtype.kind:
            encoding = opened[name].encoding
            opened[name] = opened[name].astype(variable.dtype)
            opened[name].encoding = encoding
    return opened


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what Zarr says about every store that xarray writes in format 3."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", NOISE)
        yield
