"""Write a prepared Dataset to a store and open it again.

A store is written beside its place or, where that cannot be, says that it is unfinished until it is
whole (`places`, `state`).

Below: prepare, carrying, places, state, stored, errors. Above: adding, accessor.
"""

import contextlib
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from tqdm import TqdmWarning
from zarr.errors import ContainsArrayError, ContainsGroupError

from xtec.cube import carrying, places, state
from xtec.cube.carrying import NOISE
from xtec.cube.places import local_path
from xtec.cube.state import WRITING, Unfinished
from xtec.cube.stored import arrays_behind, settings_of
from xtec.errors import InputError

ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata", ".zattrs")
"""By one of these a folder is known as a Zarr store."""


def refuse_to_spoil(source: xr.Dataset, store: Any, *, overwrite: bool) -> None:
    """Stop before anything is deleted or mixed up.

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
    if not overwrite and any(path.iterdir()):
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
        case what was there before is still there, if it lies in a folder of this machine.
    """
    _try_one_block(prepared)
    unfinished = Unfinished(WRITING, secrets.token_hex(4))
    path = local_path(store)
    place = None if path is None else places.beside(path, unfinished.run)
    target = store if path is None or not isinstance(store, str | Path) else str(path)
    if path is not None:
        places.tidy(path)
    try:
        _write(
            prepared,
            target if place is None else str(place),
            unfinished,
            zarr_format,
            overwrite=overwrite,
            progress=progress,
            embed_weights=embed_weights,
        )
        if path is not None and place is not None:
            places.settle(place, path, unfinished.run, overwrite=overwrite)
    except BaseException as error:
        error.add_note(_what_is_left(target, place))
        raise
    return _open(prepared, target)


def _write(
    prepared: xr.Dataset,
    store: Any,
    unfinished: Unfinished,
    zarr_format: int,
    *,
    overwrite: bool,
    progress: bool,
    embed_weights: bool | None,
) -> None:
    """Write everything to a store that says so until it is whole."""
    prepared = prepared.assign_attrs(unfinished.to_attribute())
    with quiet():
        task = _lay_out(prepared, store, zarr_format, overwrite=overwrite)
        carrying.embed(prepared, store, zarr_format, weights=embed_weights)
    with progress_bar(shown=progress):
        task.compute()
    with quiet():
        state.require_own(store, unfinished)
        zarr.consolidate_metadata(store, zarr_format=zarr_format)  # type: ignore[arg-type]
        state.end(store)


def _what_is_left(store: Any, place: Path | None) -> str:
    if place is None:
        return (
            f"what is in {store} may be incomplete, and then says so; overwrite=True replaces it."
        )
    return (
        f"nothing of it is in {store}. An incomplete store is left in {place}; the next write to "
        f"{store} removes it."
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


def _lay_out(prepared: xr.Dataset, store: Any, zarr_format: int, *, overwrite: bool) -> Any:
    """Write metadata and coordinates; give the task that writes the rest."""
    try:
        return prepared.to_zarr(
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


def progress_bar(*, shown: bool) -> contextlib.AbstractContextManager[Any]:
    """Show a bar over Dask's tasks; schedulers on other machines show their own."""
    if not shown:
        return contextlib.nullcontext()
    with warnings.catch_warnings():
        # In a notebook without widgets tqdm says so at length; the bar is then one of text.
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.dask import TqdmCallback

        bar: contextlib.AbstractContextManager[Any] = TqdmCallback(desc="compressing", unit="task")
        return bar
