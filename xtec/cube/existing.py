"""A compressed store that something is added to, and whether that fits.

Bands, grid, no data, offset, packing and variables must be the store's. What differs is an error
before anything is written.

Below: layout, packing, storable, stored, errors. Above: adding.
"""

import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.conventions import decode_cf_variable, encode_cf_variable

from xtec.codec import Settings
from xtec.cube.chunks import Shape
from xtec.cube.layout import Cube, find_cube
from xtec.cube.packing import Packing, packing_of
from xtec.cube.places import local_path
from xtec.cube.storable import storable_variable
from xtec.cube.stored import settings_of
from xtec.errors import InputError

Region = dict[Hashable, slice]
"""Begin and end along dimensions of a store."""


@dataclass(frozen=True)
class Existing:
    """A compressed store, opened; nothing of it is in memory."""

    store: Any
    dataset: xr.Dataset
    name: Hashable
    """The compressed variable."""
    settings: Settings
    unit: Shape
    """Shape of a shard or, without shards, of a chunk: what is written at once."""

    @property
    def variable(self) -> xr.DataArray:
        """The compressed variable, (time, band, y, x)."""
        return self.dataset[self.name]

    def packing_for(self, cube: Cube) -> Packing:
        """How a cube's values become the store's numbers, if both mean the same.

        Raises
        ------
        InputError
            Another name, other dimensions or bands, or another packing, no-data value or offset.
        """
        here, there = cube.variable, self.variable
        if (cube.name, here.dims) != (self.name, there.dims):
            raise InputError(
                f"{cube.name!r} {here.dims} cannot be added to {self.name!r} {there.dims} of the "
                "store; rename variable and dimensions to the store's."
            )
        if cube.bands != self.settings.bands:
            raise InputError(
                f"the bands are {list(cube.bands)}, the store's {list(self.settings.bands)}; "
                "select the same bands in the same order."
            )
        nodata, offset = self.settings.nodata, self.settings.offset
        packing = packing_of(here, nodata, offset)
        ours, theirs = _meaning(here, packing), _meaning(there, packing_of(there, nodata, offset))
        ours["no data"] = here.attrs.get("nodata", packing.nodata)
        if ours != theirs:
            raise InputError(
                f"the numbers mean something else: {ours} here, {theirs} in the store. Convert the "
                "cube to the store's type and packing."
            )
        return packing

    def require_equal(self, name: Hashable, variable: xr.Variable, region: Region) -> None:
        """Check that a coordinate is what the store has at this place, its CRS included.

        Raises
        ------
        InputError
            Its values, or its ``crs_wkt``, differ.
        """
        theirs = self.dataset.variables[name]
        theirs = theirs.isel({dim: part for dim, part in region.items() if dim in theirs.dims})
        same = variable.shape == theirs.shape and np.array_equal(
            variable.values, theirs.values, equal_nan=variable.dtype.kind in "fM"
        )
        keys = {"crs_wkt"} & variable.attrs.keys() & theirs.attrs.keys()
        if not same or any(variable.attrs[key] != theirs.attrs[key] for key in keys):
            raise InputError(
                f"the coordinate {name!r} is not the store's; only the same grid can be added to. "
                "Take it from the store, or drop it with .drop_vars() if it does not matter."
            )

    def encoded(self, name: Hashable, variable: xr.Variable) -> xr.Variable:
        """Say how the store packs a variable, so that it is packed so when it is written."""
        theirs = self.dataset.variables[name].encoding
        form = {key: theirs[key] for key in PACKED if key in theirs}
        return xr.Variable(variable.dims, variable.data, {}, form)

    def storable(self, name: Hashable, variable: xr.Variable) -> xr.Variable:
        """Bring a variable into the form that the store takes, and check that nothing is lost.

        Raises
        ------
        InputError
            The store's type, units or packing cannot hold these values.
        """
        theirs = self.dataset.variables[name]
        ours = storable_variable(variable, str(name))
        ours.attrs, ours.encoding = {}, {}
        if variable.chunks:
            return ours  # not computed here; xarray compares the types
        form = {key: theirs.encoding[key] for key in PACKED if key in theirs.encoding}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what xarray warns of is an error below
            packed = encode_cf_variable(xr.Variable(ours.dims, ours.values, {}, form), name=name)
        back = decode_cf_variable(str(name), packed.copy(deep=False))
        same_form = all(_same(packed.attrs.get(key, form[key]), form[key]) for key in form)
        if not same_form or not _fits(packed, theirs) or not _same(back.values, ours.values):
            raise InputError(
                f"{name!r} cannot be added: the store holds it as {form or theirs.dtype}, which "
                "does not hold these values exactly. Convert them, or write a new store."
            )
        return ours


PACKED = ("dtype", "units", "calendar", "scale_factor", "add_offset", "_FillValue")


def open_existing(store: Any, variable: Hashable | None = None) -> Existing:
    """Open a store to add to it.

    Raises
    ------
    InputError
        There is no store, it was opened to be read only, or nothing in it is compressed.
    """
    if getattr(store, "read_only", False):
        raise InputError(f"{store} was opened to be read only; open it to be written to.")
    path = local_path(store)
    store = store if path is None or not isinstance(store, str) else str(path)
    try:
        dataset = xr.open_zarr(store, chunks=None)
    except FileNotFoundError as error:
        raise InputError(
            f"there is no store {store}, and only to one that exists can be added; write the first "
            "with ds.tec.compress(store)."
        ) from error
    coded = [n for n in dataset.data_vars if settings_of(dataset[n]) and variable in (None, n)]
    if len(coded) != 1:
        raise InputError(
            f"{store} has {len(coded)} compressed variables ({coded}) of {list(dataset.data_vars)} "
            "to add to; there must be one, or name it with variable=."
        )
    array, settings = dataset[coded[0]], settings_of(dataset[coded[0]])
    assert settings is not None  # noqa: S101 - it is one of `coded`
    time, band, y, x = unit_of(array)
    return Existing(store, dataset, coded[0], settings, (time, band, y, x))


def find_addition(dataset: xr.Dataset, existing: Existing) -> tuple[Cube, Packing]:
    """Find the cube that is to be added, and how its values become the store's numbers.

    Raises
    ------
    InputError, BandError
        There is none, it means something else, it has variables that the store has not, or the
        model is not at hand.
    """
    cube = find_cube(dataset, existing.name if existing.name in dataset.data_vars else None)
    foreign = [name for name in cube.dataset.variables if name not in existing.dataset.variables]
    packing = existing.packing_for(cube)
    if foreign:
        raise InputError(
            f"the store has no {foreign}, and only what it has can be added; leave them out with "
            f".drop_vars({foreign})."
        )
    existing.settings.card  # noqa: B018 - raises where the model is not at hand
    return cube, packing


def unit_of(array: xr.DataArray | xr.Variable) -> tuple[int, ...]:
    """Shape of a stored array's shards or, without shards, of its chunks."""
    return tuple(array.encoding.get("shards") or array.encoding["chunks"])


def arrays_along(store: Any, dim: Hashable) -> list[tuple["zarr.Array[Any]", int]]:
    """All arrays of a store that have a dimension, and which axis it is."""
    found: list[tuple[zarr.Array[Any], int]] = []
    for _, array in zarr.open_group(store, mode="r+", use_consolidated=False).arrays():
        names: Any = getattr(array.metadata, "dimension_names", None)
        dims = list(array.attrs.get("_ARRAY_DIMENSIONS", ()) if names is None else names)  # type: ignore[arg-type]
        if dim in dims:
            found.append((array, dims.index(dim)))
    return found


def _meaning(array: xr.DataArray, packing: Packing) -> dict[str, Any]:
    """All that decides which value a stored number is."""
    said = {} if packing.floating else array.attrs  # integers may say it to whom it may concern
    return {
        "type": packing.dtype,
        "scale": float(said.get("scale_factor", packing.scale)),
        "added": float(said.get("add_offset", packing.add_offset)),
        "no data": packing.nodata,
        "offset": packing.offset,
    }


def _fits(packed: xr.Variable, stored: xr.Variable) -> bool:
    """Whether the store's type holds these values; text of a fixed width may be shorter."""
    dtype = np.dtype(stored.encoding.get("dtype", stored.dtype))
    if dtype.kind in "US":
        return bool(packed.values.astype(dtype.kind).dtype.itemsize <= dtype.itemsize)
    return bool(dtype.kind in "OT" or packed.dtype == dtype)


def _same(one: Any, other: Any) -> bool:
    """Equal values; NaN is NaN, and text of any kind is text."""
    one, other = np.asarray(one), np.asarray(other)
    if other.dtype.kind in "OUST":
        return bool((one.astype(str) == other.astype(str)).all())
    return bool(np.array_equal(one, other, equal_nan=other.dtype.kind in "fM"))
