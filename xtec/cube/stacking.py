"""Many variables or one: a Dataset with one variable per band, and the way back.

What the way back needs stands, as JSON, in an attribute of the stacked variable.

Below: axes, storable, sentinel2, errors. Above: layout, accessor.
"""

import json
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from xarray.conventions import encode_cf_variable

from xtec.cube.axes import AXES, roles
from xtec.cube.storable import VALUES, storable_attributes
from xtec.errors import BandError, InputError
from xtec.sentinel2 import AMBIGUOUS, recognise

STACKED = "tec_stacked"
"""Attribute that remembers the variables that were stacked."""

DEFAULT_NAME = "reflectance"
"""Name of a variable that has none."""


def stack(dataset: xr.Dataset) -> tuple[xr.Dataset, str]:
    """Make one variable of those that are bands; the others stay.

    Attributes that all bands share become those of the new variable; so does encoding.

    Returns
    -------
    xarray.Dataset, str
        The Dataset and the name of the new variable, whose axis "band" has the variables' names.

    Raises
    ------
    InputError, BandError
        No variable is a band, two are the same, or they differ in shape or type.
    """
    names = _band_variables(dataset)
    attributes = {str(name): storable_attributes(dataset[name].attrs, str(name)) for name in names}
    common = _common(attributes.values())
    own = {
        name: {key: value for key, value in each.items() if key not in common}
        for name, each in attributes.items()
    }
    record = {
        "variables": own,
        "order": [str(name) for name in dataset.data_vars],
        "dims": [str(dim) for dim in dataset[names[0]].dims],
        "dtype": str(dataset[names[0]].dtype),
    }
    # A scalar "band", left over from opening files one by one, says nothing of the stack.
    leftover = [name for name in ("band",) if name in dataset.coords]
    new = DEFAULT_NAME if DEFAULT_NAME not in dataset else f"{DEFAULT_NAME}_stacked"
    stacked = dataset[names].drop_vars(leftover).to_dataarray("band", name=new)
    stacked.attrs = {**common, STACKED: json.dumps(record)}
    stacked.encoding = _common(dataset[name].encoding for name in names)
    return dataset.drop_vars([*names, *leftover]).assign({new: stacked}), new


def unstack(dataset: xr.Dataset, name: Hashable) -> xr.Dataset:
    """Make one variable of each band: the inverse of `stack`, lazy.

    Names, order, attributes, dimensions and type are those that were stacked. A variable that
    always was one is split into variables named after its band coordinate.

    Parameters
    ----------
    dataset : xarray.Dataset
    name : hashable
        A variable (time, band, y, x).
    """
    array = dataset[name]
    time, band, *_ = array.dims
    record = json.loads(array.attrs.get(STACKED, "{}"))
    own: Mapping[str, dict[str, Any]] = record.get("variables", {})
    common = {key: v for key, v in array.attrs.items() if not str(key).startswith("tec_")}
    rest = dataset.drop_vars([name])
    if time not in record.get("dims", array.dims):  # the cube came without a time axis
        array, rest = array.isel({time: 0}), rest.isel({time: 0}, missing_dims="ignore")
    bands = {}
    for number, key in enumerate(str(key) for key in array[band].values):
        one = array.isel({band: number}, drop=True)
        one = _of_type(one, np.dtype(record.get("dtype", one.dtype)))
        one.attrs = common | one.attrs | own.get(key, {})
        bands[key] = one.transpose(*record.get("dims", one.dims))
    every = rest.drop_dims([band], errors="ignore").assign(bands)
    order = [key for key in record.get("order", []) if key in every.data_vars]
    return every[order + [key for key in every.data_vars if key not in order]]


def _band_variables(dataset: xr.Dataset) -> list[Hashable]:
    """Names of the variables that are bands, if they can be stacked."""
    names = [name for name in dataset.data_vars if _is_band(dataset[name])]
    if not names:
        found = {str(name): array.dims for name, array in dataset.data_vars.items()}
        raise InputError(
            f"no band dimension, and no variable that is a Sentinel-2 band; found {found}. "
            f"Give one variable with a dimension {' or '.join(AXES['band'])}, or variables "
            "with y and x that are named after bands, such as B02 or blue."
        )
    recognise([str(name) for name in names])
    first, *others = (dataset[name] for name in names)
    for other in others:
        if (other.dims, other.shape, other.dtype) != (first.dims, first.shape, first.dtype):
            raise InputError(
                f"the bands are not alike: {first.name} is {first.dtype} {dict(first.sizes)}, "
                f"{other.name} is {other.dtype} {dict(other.sizes)}. Resample and cast them to one "
                "grid and type, or leave some out."
            )
    return names


def _is_band(array: xr.DataArray) -> bool:
    if not {"y", "x"} <= roles(array.dims).keys():
        return False
    try:
        recognise([str(array.name)])
    except BandError:
        # An ambiguous band must not slip by as something that is no band.
        return str(array.name).lower().replace("_", "") in AMBIGUOUS
    return True


def _of_type(array: xr.DataArray, dtype: np.dtype[Any]) -> xr.DataArray:
    """Return digital numbers where these were stacked, else floating point and its packing."""
    packing = {key: array.encoding[key] for key in VALUES if key in array.encoding}
    if dtype.kind == "f" or array.dtype.kind != "f":
        made = array.astype(dtype, keep_attrs=False)
        made.encoding = packing
        return made
    values = xr.Variable(array.dims, array.variable.data, encoding=packing | {"dtype": dtype})
    packed = encode_cf_variable(values)
    made = array.copy(data=packed.data)
    made.attrs, made.encoding = packed.attrs, {}
    return made


def _common(mappings: Iterable[Mapping[Any, Any]]) -> dict[Any, Any]:
    """Entries that all mappings share; NaN is NaN here."""
    first, *others = mappings
    return {
        key: value
        for key, value in first.items()
        if all(key in other and repr(other[key]) == repr(value) for other in others)
    }
