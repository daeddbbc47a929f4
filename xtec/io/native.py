"""Bands of 20 and 60 m back at their own resolution.

Below: grid, scene, cube, errors. Above: accessor.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xtec.cube.layout import find_cube
from xtec.errors import InputError
from xtec.io.grid import NATIVE, Grid, from_attribute
from xtec.io.scene import dataset_of, georeferenced, group_name


def native(cube: xr.Dataset | xr.DataArray, variable: Hashable | None = None) -> xr.DataTree:
    """Take bands that were repeated onto a finer grid back to their own pixels; lazy.

    Parameters
    ----------
    cube : Dataset or DataArray
        What a reader of `xtec.io` made, before or after compression, whole or cropped.
    variable : hashable, optional
        Which variable, where several have a band axis.

    Returns
    -------
    DataTree
        One group per resolution, "r10m", "r20m", "r60m", each a cube (time, band, y, x) with its
        own coordinates, CRS and transform.

    Raises
    ------
    InputError, BandError
        There is no such cube, or it does not lie on the grid that it says.

    Notes
    -----
    A pixel becomes the mean of its copies. Where they are equal that is the pixel, exactly: before
    compression, after lossless compression, and for no data and saturated pixels always. Where
    coding made them differ, the squared error of the mean is at most the mean of theirs, and it is
    no further from the original than the worst of them, so that a bound on the error holds for it
    too; of any one copy, the first say, only the latter is true. Along a crop that cuts through
    pixels, the copies inside count.
    """
    found = find_cube(dataset_of(cube), variable)
    array = found.variable
    own = from_attribute(array.attrs[NATIVE]) if NATIVE in array.attrs else {}
    groups: dict[str, xr.Dataset] = {}
    for resolution, bands in _by_resolution(array, own).items():
        part = array.sel({array.dims[1]: bands})
        if bands[0] in own:
            part = _decimated(part, own[bands[0]])
        part.attrs = {key: value for key, value in part.attrs.items() if key != NATIVE}
        alone = part.drop_vars("spatial_ref", errors="ignore").to_dataset(name=found.name)
        groups[group_name(resolution)] = georeferenced(alone, array.rio.crs)
    return xr.DataTree.from_dict(groups)


def _by_resolution(
    array: xr.DataArray, own: Mapping[str, tuple[float, float, float, float]]
) -> dict[float, list[str]]:
    """Size of pixels -> bands, fine to coarse."""
    width = abs(Grid.of(array, repr(array.name)).width)
    groups: dict[float, list[str]] = {}
    for band in array[array.dims[1]].to_numpy().tolist():
        size = abs(own[band][1]) if band in own else width
        groups.setdefault(size, []).append(band)
    return dict(sorted(groups.items()))


def _decimated(array: xr.DataArray, coarse: tuple[float, float, float, float]) -> xr.DataArray:
    """One pixel for each block of copies; blocks that a crop cut are filled from their own edge."""
    left, width, top, height = coarse
    _, _, y, x = array.dims
    runs = {y: _runs(array[y], top, height), x: _runs(array[x], left, width)}
    plain = array.drop_vars([*array.coords])
    whole = plain.pad({dim: run.missing for dim, run in runs.items()}, mode="edge")
    copies = whole.coarsen({dim: run.length for dim, run in runs.items()}).construct(
        {y: (y, "row"), x: (x, "column")}
    )
    first = copies.isel(row=0, column=0)
    # Differences from one copy: their mean is exactly 0 where all are equal, in any arithmetic.
    wide = np.promote_types(array.dtype, np.float32)
    mean = first + (copies.astype(wide) - first.astype(wide)).mean(["row", "column"], skipna=False)
    made = (mean if array.dtype.kind == "f" else mean.round()).astype(array.dtype)
    made = made.assign_coords({k: v for k, v in array.coords.items() if not {y, x} & {*v.dims}})
    made = made.assign_coords({dim: (dim, run.centres) for dim, run in runs.items()})
    for dim in (y, x):
        made[dim].attrs = array[dim].attrs
    made.attrs, made.encoding = array.attrs, array.encoding
    made.name = array.name
    return made


@dataclass(frozen=True)
class _Runs:
    """Neighbouring copies along one axis."""

    length: int
    """Copies in the longest run."""
    missing: tuple[int, int]
    """Copies that the first and the last run lack."""
    centres: NDArray[np.float64]
    """Centre of the pixel that each run is copied from."""


def _runs(centres: xr.DataArray, origin: float, step: float) -> _Runs:
    """Find the copies; InputError where pixels are not neighbours."""
    pixels = np.floor((centres.to_numpy().astype(np.float64) - origin) / step).astype(int)
    counts = np.bincount(pixels - pixels.min())
    length = int(counts.max())
    if (np.diff(pixels) < 0).any() or (counts[1:-1] != length).any():
        raise InputError(
            f"{centres.name!r} does not run along the pixels of {abs(step):g} that the attribute "
            f"{NATIVE!r} speaks of; select neighbouring pixels only, or delete the attribute."
        )
    before = length - int(counts[0])
    after = length - int(counts[-1]) if len(counts) > 1 else 0
    places = origin + (np.arange(len(counts)) + pixels[0] + 0.5) * step
    return _Runs(length, (before, after), places)
