"""Which axis is which, and which band is which: told by names, never guessed from sizes.

Below: sentinel2, errors. Above: stacking, layout, chunks.
"""

from collections.abc import Hashable, Iterable

import xarray as xr

from xtec.errors import BandError, InputError
from xtec.sentinel2 import recognise

AXES: dict[str, tuple[str, ...]] = {
    "time": ("time", "t"),
    "band": ("band", "bands"),
    "y": ("y", "lat", "latitude"),
    "x": ("x", "lon", "longitude"),
}
"""The axes in the order of every chunk, and the names each of them may have, in any case."""


def roles(dims: Iterable[Hashable]) -> dict[str, Hashable]:
    """Tell the axes by their names.

    Returns
    -------
    dict
        "time", "band", "y", "x" -> the dimension that is this axis, in that order, as far as
        there is one.

    Raises
    ------
    InputError
        Two dimensions are the same axis.
    """
    found: dict[str, Hashable] = {}
    for role, names in AXES.items():
        here = [dim for dim in dims if str(dim).lower() in names]
        if len(here) > 1:
            raise InputError(f"{here[0]!r} and {here[1]!r} are both the {role} axis; rename one.")
        if here:
            found[role] = here[0]
    return found


def in_order(array: xr.DataArray) -> xr.DataArray:
    """Transpose to (time, band, y, x); a cube of one date without a time axis gets one.

    Raises
    ------
    InputError
        The axes cannot be told by the names of the dimensions.
    """
    axes = roles(array.dims)
    missing = [role for role in ("band", "y", "x") if role not in axes]
    strange = [dim for dim in array.dims if dim not in axes.values()]
    if missing or strange:
        allowed = "; ".join(f"{role}: {', '.join(names)}" for role, names in AXES.items())
        raise InputError(
            f"the dimensions {array.dims} are not those of a cube: "
            + "; ".join(
                [f"no {role} dimension" for role in missing]
                + [f"{dim!r} is unknown" for dim in strange]
            )
            + f". Allowed, in any order, time may be missing ({allowed}). Rename them with "
            ".rename(), or add a band axis with .expand_dims(band=['B04'])."
        )
    if "time" not in axes:
        time = next((name for name in AXES["time"] if name in array.coords), "time")
        array = array.expand_dims(time)
        axes["time"] = time
    return array.transpose(*(axes[role] for role in AXES))


def band_names(array: xr.DataArray) -> tuple[str, ...]:
    """Canonical names of the bands of an array in order.

    Raises
    ------
    BandError
        The band axis has no names, or names that cannot be recognised.
    """
    dim = array.dims[1]
    if dim not in array.coords:
        raise BandError(
            f"the {array.sizes[dim]} bands along {dim!r} have no names; allowed are those "
            "of Sentinel-2, such as B02 or blue. Give them: "
            f".assign_coords({dim}=['B02', 'B03', ...])."
        )
    return recognise(array[dim].values.tolist())
