"""Cubes of other libraries as they come: stackstac, odc-stac, EOPF.

Below: scene, radiometry, cube, sentinel2, errors. Above: the room's face.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xtec.cube.axes import roles
from xtec.cube.layout import find_cube
from xtec.cube.storable import VALUES
from xtec.errors import BandError, InputError
from xtec.io import eopf
from xtec.io.grid import TOLERANCE
from xtec.io.radiometry import digital_numbers, offset_of_baseline, one_for_all, raised
from xtec.io.scene import (
    ADDED,
    ADDED_ATTRIBUTES,
    VARIABLE,
    dataset_of,
    georeferenced,
    packed,
    to_cube,
)
from xtec.sentinel2 import SCALE, recognise

BASELINE = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
"""Coordinates by which STAC catalogues tell the processing baseline of each item."""

TAKEN_OFF = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Coordinates by which Earth Search tells that it took the offset off."""

LEFT_OUT = ("spec", "crs", "transform", "resolution", "resolution_xy", "nodata")
"""Attributes that say again what coordinates and CF attributes say, some of them not as JSON."""


def as_cube(
    source: xr.Dataset | xr.DataArray | xr.DataTree | Iterable[xr.DataTree],
    *,
    bands: Sequence[str] | None = None,
    offset: int | Sequence[int] | None = None,
    scale: float | None = None,
) -> xr.Dataset:
    """Make a cube of what another library opened; lazy, and nothing of `source` changes.

    Parameters
    ----------
    source : DataArray, Dataset, DataTree or DataTrees
        What ``stackstac.stack`` or ``odc.stac.load`` returns, an EOPF product opened by
        ``xarray.open_datatree``, or several of them, one per date.
    bands : sequence of str, optional
        Bands to take, by any usual name; by default all that are Sentinel-2's.
    offset : int or sequence of int, optional
        Radiometric offset that the digital numbers carry, for all dates or for each. By default
        what attributes and encoding say, else what the processing baselines imply that STAC items
        state, if none was taken off. For reflectance in floating point, the offset to give: 1000,
        which leaves room for negative values.
    scale : float, optional
        What one digital number means, for floating point that does not say it: 1e-4, the default,
        where values are reflectance; 1 where they are digital numbers.

    Returns
    -------
    Dataset
        ``reflectance`` (time, band, y, x) in digital numbers as `open_safe` makes it, dates of
        smaller offset raised to the largest; bands keep their names. Other variables, such as
        scene classes of odc-stac, stay as they are.

    Raises
    ------
    InputError, BandError
        There are no bands of Sentinel-2, or something cannot be recognised.

    Warns
    -----
    UserWarning
        Along the band axis lie assets that are not bands, such as "SCL" or "visual"; they are left
        out.

    Notes
    -----
    EOPF's bands of 20 and 60 m are repeated onto the grid of 10 m, and `xtec.io.native` takes that
    back. stackstac and odc-stac have brought all bands to one grid by their own resampling already;
    that stays. stackstac's coordinates of upper left corners become those of pixel centres.
    """
    if isinstance(source, xr.DataTree):
        source = [source]
    if not isinstance(source, xr.Dataset | xr.DataArray):
        trees = list(source)
        if not all(isinstance(tree, xr.DataTree) for tree in trees):
            raise InputError(
                f"a list of {type(trees[0]).__name__} is no cube; allowed are one DataArray or "
                "Dataset, and one or several DataTrees of EOPF. Concatenate dates along time first."
            )
        _only_for_others(offset, scale)
        return to_cube([eopf.scene(tree, bands) for tree in trees], eopf.ATTRIBUTES)
    cube = find_cube(_selected(dataset_of(source), bands))
    array = _centred(cube.variable)
    one = int(offset) if isinstance(offset, int | np.integer) else None
    numbers = digital_numbers(array, one, scale)
    known = _offsets(array, numbers.offset, offset)
    offsets = known or [0] * array.shape[0]
    target = one_for_all(offsets)
    added = xr.DataArray(
        target - np.array(offsets), dims=array.dims[:1], attrs=ADDED_ATTRIBUTES, name=ADDED
    )
    places = {dim: array[dim].variable for dim in array.dims if dim in array.coords}
    made = _storable(cube.dataset.drop_vars([cube.name])).assign_coords(places)
    made[VARIABLE] = raised(numbers.array, added, numbers.nodata).variable
    if added.any():
        made = made.assign_coords({ADDED: added})
    scale = numbers.scale if known is None else numbers.scale or SCALE
    made[VARIABLE].attrs = packed(_kept(array), numbers.nodata, scale, target)
    made[VARIABLE].encoding = {}
    return georeferenced(made, _crs(array))


def _only_for_others(offset: Any, scale: Any) -> None:
    if offset is not None or scale is not None:
        raise InputError(
            "EOPF's products say offset and scale of every band; leave offset and scale out."
        )


def _selected(dataset: xr.Dataset, bands: Sequence[str] | None) -> xr.Dataset:
    """Leave out what is no band of Sentinel-2 along a band axis, and bands not wanted."""
    axes = [name for name in dataset.data_vars if "band" in roles(dataset[name].dims)]
    wanted = None if bands is None else recognise(bands)
    if not axes:
        here = {_canonical(name): name for name in dataset.data_vars}
        unwanted = [name for band, name in here.items() if band and wanted and band not in wanted]
        _require(wanted, here)
        return dataset.drop_vars(unwanted)
    dim = roles(dataset[axes[0]].dims)["band"]
    if dim not in dataset.coords:
        return dataset
    here = {_canonical(name): name for name in dataset[dim].to_numpy().tolist()}
    strange = [n for n in dataset[dim].to_numpy().tolist() if not _canonical(n)]
    _require(wanted, here)
    if wanted is not None:
        return dataset.sel({dim: [here[band] for band in wanted]})
    if strange and len(strange) < dataset.sizes[dim]:
        warnings.warn(
            f"{', '.join(map(str, strange))} among the bands are none of Sentinel-2's and left "
            "out; store them apart, without loss, if you need them.",
            UserWarning,
            stacklevel=3,
        )
        return dataset.sel({dim: [name for band, name in here.items() if band]})
    return dataset


def _canonical(name: Any) -> str:
    """Canonical name of a band; "" for what is none, or may be several."""
    try:
        return recognise([name])[0]
    except BandError:
        return ""


def _require(wanted: Sequence[str] | None, here: Mapping[str, Any]) -> None:
    missing = [band for band in wanted or () if band not in here]
    if missing:
        raise BandError(
            f"there is no band {', '.join(missing)}; there are {', '.join(map(str, here.values()))}"
            ". Ask for some of these: bands=[...]."
        )


def _centred(array: xr.DataArray) -> xr.DataArray:
    """Coordinates of pixel centres, where stackstac gave those of upper left corners.

    Its attribute ``transform`` says where pixels are; cropping keeps the phase.
    """
    transform = array.attrs.get("transform")
    if "spec" not in array.attrs or transform is None:
        return array
    _, _, y, x = array.dims
    a, _, c, _, e, f = tuple(transform)[:6]
    for dim, step, origin in ((x, a, c), (y, e, f)):
        if dim in array.coords:
            phase = (float(array[dim][0]) - origin) / step
            if abs(phase - round(phase)) < TOLERANCE:
                array = array.assign_coords({dim: array[dim] + step / 2})
    return array


def _offsets(
    array: xr.DataArray, known: int | None, given: int | Sequence[int] | None
) -> list[int] | None:
    """Radiometric offset of each date; None where nothing tells it."""
    dates = array.shape[0]
    if given is not None and not isinstance(given, int | np.integer):
        if len(given) != dates:
            raise InputError(f"{len(given)} offsets for {dates} dates; give one for each date.")
        if known is not None and {*given} != {known}:
            raise InputError(
                f"offset={list(given)} contradicts what the cube says of itself, {known}; leave "
                "offset out."
            )
        return [int(each) for each in given]
    if known is not None:
        return [known] * dates
    baselines = _along_time(array, BASELINE)
    if baselines is None:
        return None
    taken_off = _along_time(array, TAKEN_OFF) or [False] * dates
    offsets = [
        0 if off is True else offset_of_baseline(str(baseline))
        for baseline, off in zip(baselines, taken_off, strict=True)
    ]
    if None in offsets:
        raise InputError(
            f"processing baseline {baselines[offsets.index(None)]!r} is unknown, and so is the "
            "radiometric offset of its date. Say it: offset=0 or 1000, or one for each date."
        )
    return [each for each in offsets if each is not None]


def _along_time(array: xr.DataArray, names: Sequence[str]) -> list[Any] | None:
    """Values of the first of these coordinates that there is; one for all dates is repeated."""
    for name in names:
        if name in array.coords:
            values = array[name].to_numpy()
            return list(np.broadcast_to(values, array.shape[:1]).tolist())
    return None


def _storable(dataset: xr.Dataset) -> xr.Dataset:
    """Leave out coordinates that hold Python objects, which no store can hold; text stays."""
    objects = [name for name, each in dataset.coords.items() if each.dtype == object]
    texts = [
        name
        for name in objects
        if all(isinstance(value, str) for value in dataset[name].to_numpy().flat)
    ]
    strange = [name for name in objects if name not in texts]
    return dataset.drop_vars(strange).assign_coords(
        {name: dataset[name].variable.astype(str) for name in texts}
    )


def _kept(array: xr.DataArray) -> dict[Any, Any]:
    """Attributes that nothing else says."""
    said = {*LEFT_OUT, *VALUES}
    return {"long_name": "reflectance"} | {k: v for k, v in array.attrs.items() if k not in said}


def _crs(array: xr.DataArray) -> Any:
    """CRS as rioxarray sees it, else as stackstac says it."""
    import rioxarray  # noqa: F401 - registers .rio

    return array.rio.crs or array.attrs.get("crs")
