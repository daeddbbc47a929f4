"""Stores that carry their models: put one in, open a store so that its models are found.

Below: shelf, stored, the sockets, errors. Above: writing, report, the package itself.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import xarray as xr
import zarr

from xtec.codec import Settings
from xtec.cube.stored import codec_of_array, settings_of
from xtec.errors import InputError
from xtec.shelf import GROUP, CarryingStore, Shelf, wanted

NOISE = "Consolidated metadata is currently not part|The data type .* does not have a Zarr V3"
"""What Zarr says about every store that xarray writes in format 3."""


def open_zarr(store: Any, **options: Any) -> xr.Dataset:
    """``xr.open_zarr`` for a store whose models may be nowhere but in it.

    Plain ``xr.open_zarr`` finds them too where the store is of Zarr format 3 and has no shards.
    What this returns finds them in any store, also on Dask's workers, which get it with their
    tasks.

    Parameters
    ----------
    store : path, URL or Zarr store
    **options
        Those of ``xr.open_zarr``.
    """
    group = zarr.open_group(
        store,
        mode="r",
        path=options.get("group"),
        storage_options=options.pop("storage_options", None),
    )
    opened: xr.Dataset = xr.open_zarr(CarryingStore(group.store), **options)
    opened.encoding["source"] = store
    return opened


def embed_model(store: Any) -> list[str]:
    """Put the models that a store's pixels need into the store, unless they are there.

    ``ds.tec.compress(store)`` does so by itself for weights of up to 16 MB. This is for stores
    that ``.to_zarr`` wrote, for larger weights, and for stores of an xtec that did not do it yet.

    Parameters
    ----------
    store : path, URL or Zarr store
        A store, or a group of one; the models go into this group.

    Returns
    -------
    list of str
        Names of the models.

    Raises
    ------
    InputError
        Nothing in it was compressed by xtec.
    WrongModelError
        A model is not at hand here.
    """
    group = zarr.open_group(store, mode="r+")
    found = {settings.model_digest: settings for settings in _settings_in(group)}
    if not found:
        raise InputError(
            f"nothing in {store} was compressed by xtec, and only such a store needs a model; make "
            "one with ds.tec.compress(store)."
        )
    for settings in found.values():
        put(store, settings, group.metadata.zarr_format)
    if group.metadata.consolidated_metadata is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", NOISE)
            zarr.consolidate_metadata(store)
    return sorted(settings.model for settings in found.values())


def embed(prepared: xr.Dataset, store: Any, zarr_format: int, *, weights: bool | None) -> None:
    """Put the models of what is going to be written into a store that is laid out.

    Parameters
    ----------
    prepared : Dataset
    store : path, URL or Zarr store
    zarr_format : {2, 3}
    weights : bool, optional
        Whether to; None: where they are small.
    """
    for variable in prepared.data_vars.values():
        settings = settings_of(variable)
        if settings is not None and wanted(settings.card, weights):
            put(store, settings, zarr_format)


def put(store: Any, settings: Settings, zarr_format: int) -> None:
    """Put one model into the root of a store."""
    Shelf(store).put(settings.card, zarr_format)


def _settings_in(group: "zarr.Group") -> Iterator[Settings]:
    for name, array in group.members(max_depth=None):
        codec = codec_of_array(array) if isinstance(array, zarr.Array) else None
        if codec is not None and GROUP not in name.split("/"):
            yield codec.settings
