"""One product of ESA's EOPF Zarr format as a scene.

The bands stand in groups ``measurements/reflectance/r10m``, ``r20m`` and ``r60m``; L2A repeats
finer bands in coarser groups. Place and time stand in the attributes of the root, under keys that
changed between versions of the processor.

Below: scene, radiometry, sentinel2, errors. Above: recognise.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from xtec.errors import BandError, InputError
from xtec.io.radiometry import Numbers, digital_numbers
from xtec.io.scene import Scene, choose
from xtec.sentinel2 import band as facts
from xtec.sentinel2 import recognise

ATTRIBUTES = {"long_name": "reflectance"}

GROUPS = {10: "r10m", 20: "r20m", 60: "r60m"}


def scene(tree: xr.DataTree, bands: Sequence[str] | None) -> Scene:
    """Read a product that ``xarray.open_datatree`` opened, with or without ``mask_and_scale``.

    Raises
    ------
    InputError, BandError
        There are no such groups, or place or time are not said.
    """
    attributes = tree.root.attrs
    discovery = attributes.get("stac_discovery", {})
    name = str(discovery.get("id") or tree.root.name or "the DataTree")
    images = _images(tree, name)
    chosen = choose([*images], bands, name)
    numbers = {band: _numbers(images[band], band) for band in chosen}
    first = numbers[chosen[0]]
    for band, each in numbers.items():
        if (each.scale, each.offset, each.nodata) != (first.scale, first.offset, first.nodata):
            raise InputError(
                f"{name}: {chosen[0]} and {band} differ in scale, offset or no-data value; a cube "
                "has one of each. Open them apart: bands=[...]."
            )
    properties = discovery.get("properties", {})
    return Scene(
        source=name,
        time=_time(name, attributes, properties),
        bands={band: each.array for band, each in numbers.items()},
        crs=_crs(attributes, properties, first.array),
        offset=first.offset or 0,
        scale=first.scale,
        nodata=first.nodata,
        about={"product": name, "spacecraft": str(properties.get("platform", ""))},
    )


def _images(tree: xr.DataTree, name: str) -> dict[str, xr.DataArray]:
    """Find each band at its own resolution, else at the finest there is."""
    path = "measurements/reflectance"
    try:
        node = tree[path]
    except KeyError:  # perhaps the group itself
        node = tree
    found: dict[str, dict[int, xr.DataArray]] = {}
    for resolution, group in GROUPS.items():
        for key, array in node[group].data_vars.items() if group in node else ():
            try:
                (band,) = recognise([str(key)])
            except BandError:
                continue
            found.setdefault(band, {})[resolution] = array
    if not found:
        raise InputError(
            f"{name} has no bands in {path}/{', '.join(GROUPS.values())}: it is no Sentinel-2 "
            f"product of EOPF. It has {', '.join(tree.groups[:6])}."
        )
    return {band: each.get(facts(band).gsd_m, each[min(each)]) for band, each in found.items()}


def _numbers(array: xr.DataArray, band: str) -> Numbers:
    """Digital numbers; ``fill_value`` among the attributes is EOPF's name for no data."""
    if "fill_value" in array.attrs and "_FillValue" not in {*array.attrs, *array.encoding}:
        array = array.copy(deep=False)
        array.attrs = {**array.attrs, "nodata": array.attrs["fill_value"]}
    array.name = band
    return digital_numbers(array)


def _time(name: str, attributes: Any, properties: Any) -> np.datetime64:
    """When the granule was sensed, else when the datatake began."""
    said = (
        attributes.get("other_metadata", {}).get("mean_sensing_time"),
        properties.get("datetime"),
        properties.get("start_datetime"),
    )
    for text in said:
        try:
            when = np.datetime64(str(text).removesuffix("Z").removesuffix("+00:00"), "ns")
        except ValueError:
            continue
        if not np.isnat(when):
            return when
    raise InputError(
        f"{name} does not say when it was sensed: no mean_sensing_time, datetime or start_datetime "
        "in the attributes of the root. Open the product from its root, not from a group."
    )


def _crs(attributes: Any, properties: Any, array: xr.DataArray) -> Any:
    """CRS, wherever this version of the format keeps it."""
    import rioxarray  # noqa: F401 - registers .rio

    other = attributes.get("other_metadata", {})
    epsg = properties.get("proj:epsg", array.attrs.get("proj:epsg"))
    said = (
        other.get("horizontal_CRS_code"),
        other.get("horizontal_crs_code"),
        properties.get("proj:code"),
        None if epsg is None else f"EPSG:{epsg}",
        array.rio.crs,
    )
    return next((each for each in said if each), None)
