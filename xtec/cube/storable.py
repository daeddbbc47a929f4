"""Attributes, coordinates and encodings that a Zarr store can hold.

What JSON cannot hold becomes text, with a warning: information is kept, and nobody's cube fails to
be written because of a coordinate that some reader made of Python objects.

Below: nothing of ours. Above: layout, packing, prepare.
"""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

VALUES = ("dtype", "scale_factor", "add_offset", "_FillValue")
"""Encoding that says what a variable's numbers mean."""

KEPT = (*VALUES, "missing_value", "units", "calendar", "grid_mapping", "coordinates")
"""All encoding that outlives a change of the store; the rest belongs to the file it came from."""


def storable_attributes(attributes: Mapping[Any, Any], owner: str) -> dict[str, Any]:
    """Attributes that are JSON; others as text, with one warning that names them.

    Parameters
    ----------
    attributes : mapping
    owner : str
        Whose attributes these are, for the warning.
    """
    kept = {str(key): _plain(value) for key, value in attributes.items()}
    foreign = [key for key, value in kept.items() if not _is_json(value)]
    if foreign:
        types = ", ".join(f"{key!r} ({type(kept[key]).__name__})" for key in foreign)
        warnings.warn(
            f"attributes of {owner} that JSON cannot hold are stored as text: {types}.",
            UserWarning,
            stacklevel=2,
        )
    return kept | {key: str(kept[key]) for key in foreign}


def storable_variable(variable: xr.Variable, name: str) -> xr.Variable:
    """Bring a variable that is not coded, or a coordinate, into a form every store takes.

    Values stay as they are: lossless. Only Python objects become text.
    """
    variable = variable.copy(deep=False)
    variable.attrs = storable_attributes(variable.attrs, name)
    variable.encoding = {key: variable.encoding[key] for key in KEPT if key in variable.encoding}
    if "grid_mapping" in variable.attrs:
        variable.encoding.pop("grid_mapping", None)
    if variable.dtype.kind == "M" and "units" not in variable.encoding:
        variable.encoding |= _fine_units(variable)
    if variable.dtype == object:
        variable = _as_text(variable, name)
    if variable.chunks:  # blocks of one size, as Zarr has them
        sizes = zip(variable.dims, variable.chunks, strict=True)
        variable = variable.chunk({dim: max(blocks) for dim, blocks in sizes})
    return variable


def _as_text(variable: xr.Variable, name: str) -> xr.Variable:
    """Text instead of Python objects; text stays."""
    values = np.asarray(variable.values)
    if all(isinstance(value, str) for value in values.flat):
        return variable
    warnings.warn(
        f"{name!r} holds Python objects ({type(values.flat[0]).__name__}, ...), which no Zarr "
        "store can hold; they are stored as text.",
        UserWarning,
        stacklevel=2,
    )
    text = np.array([str(value) for value in values.flat], object).reshape(values.shape)
    return xr.Variable(variable.dims, text, variable.attrs, variable.encoding)


def _fine_units(variable: xr.Variable) -> dict[str, Any]:
    """Units that also hold dates that are appended later; xarray's own fit the dates at hand."""
    if variable.chunks or (variable.values.astype("M8[ns]").astype(np.int64) % 1000).any():
        return {}
    return {"units": "microseconds since 1970-01-01", "dtype": "int64"}


def _plain(value: Any) -> Any:
    """Numpy values as Python ones; xarray stores them so."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
