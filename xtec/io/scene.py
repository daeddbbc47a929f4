"""One date as it was delivered, each band at its own resolution; and dates into cubes.

Below: grid, radiometry, cube, sentinel2, errors. Above: safe, geotiffs, recognise.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from xtec.cube.axes import roles
from xtec.errors import BandError, InputError
from xtec.io.grid import NATIVE, Grid, repeat, to_attribute
from xtec.io.radiometry import one_for_all, raised
from xtec.sentinel2 import NAMES, NODATA, SCALE, recognise

VARIABLE = "reflectance"

BLOCK = 1536
"""Rows and columns of a lazy block on the cube's grid: whole chunks of the codec (256), and whole
pixels of 20 and 60 m on a grid of 10 m."""

ADDED = "offset_added"
"""Coordinate: digital numbers that were added to bring a date to the offset of the others."""

ADDED_ATTRIBUTES = {"units": "DN", "long_name": "added to the digital numbers of the product"}


@dataclass(frozen=True)
class Scene:
    """One date of one place."""

    source: str
    """Where it comes from, for messages."""
    time: np.datetime64
    bands: Mapping[str, xr.DataArray]
    """Name -> digital numbers (y, x) with coordinates of pixel centres, each on its own grid."""
    crs: Any
    """Whatever ``rio.write_crs`` takes; None where it is unknown."""
    offset: int
    """Radiometric offset that the digital numbers carry."""
    scale: float | None = SCALE
    """Reflectance of one digital number; None where nobody said."""
    nodata: int = NODATA
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else is known of the date: coordinates along time."""

    def grid(self, band: str) -> Grid:
        """Return where a band's pixels lie."""
        return Grid.of(self.bands[band], f"{band} of {self.source}")


def choose(available: Sequence[str], wanted: Sequence[str] | None, source: str) -> list[str]:
    """Tell the bands to read: those wanted, in that order, else all, in the order of ESA's.

    Raises
    ------
    BandError
        A band is unknown or not there.
    """
    if wanted is None:
        return sorted(available, key=NAMES.index)
    chosen = recognise(wanted)
    missing = [band for band in chosen if band not in available]
    if missing or not chosen:
        raise BandError(
            f"{source} has no band {', '.join(missing) or 'among none wanted'}; it has "
            f"{', '.join(sorted(available, key=NAMES.index))}. Ask for some of these: bands=[...]."
        )
    return list(chosen)


def to_cube(scenes: Sequence[Scene], attributes: Mapping[str, Any]) -> xr.Dataset:
    """Put dates together on the grid of their finest band; lazy, sorted by time.

    Raises
    ------
    InputError
        The dates differ in bands, grids, CRS or scale, or the grids of two bands do not fit.
    """
    scenes = _alike(scenes)
    first = scenes[0]
    grids = {band: first.grid(band) for band in first.bands}
    finest = min(grids, key=lambda band: abs(grids[band].width))
    coarse = {
        band: grid
        for band, grid in grids.items()
        if abs(grid.width) > abs(grids[finest].width) * 1.5
    }
    noted = {NATIVE: to_attribute(coarse)} if coarse else {}
    return _dataset(scenes, list(first.bands), finest, {**attributes, **noted})


def to_tree(scenes: Sequence[Scene], attributes: Mapping[str, Any]) -> xr.DataTree:
    """Put dates together, bands of one resolution in one group: "r10m", "r20m", "r60m".

    Raises
    ------
    InputError
        As `to_cube`.
    """
    scenes = _alike(scenes)
    groups: dict[float, list[str]] = {}
    for band in scenes[0].bands:
        groups.setdefault(abs(scenes[0].grid(band).width), []).append(band)
    return xr.DataTree.from_dict(
        {
            group_name(resolution): _dataset(scenes, bands, bands[0], attributes)
            for resolution, bands in sorted(groups.items())
        }
    )


def dataset_of(cube: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Make a DataArray the only variable of a Dataset, with a name where it has none."""
    if isinstance(cube, xr.Dataset):
        return cube
    return cube.to_dataset(name=VARIABLE if cube.name is None else cube.name)


def group_name(resolution: float) -> str:
    """Name of the group of all bands with this size of pixels, as in EOPF's products."""
    return f"r{resolution:g}m".replace(".", "_")


def georeferenced(dataset: xr.Dataset, crs: Any) -> xr.Dataset:
    """Write CRS and transform where rioxarray and CF look for them."""
    import rioxarray  # noqa: F401 - registers .rio

    if crs is None:
        return dataset
    made, axes = dataset.copy(), roles(dataset.dims)
    made.rio.set_spatial_dims(axes["x"], axes["y"], inplace=True)
    made.rio.write_crs(crs, inplace=True)
    made.rio.write_coordinate_system(inplace=True)
    made.rio.write_transform(inplace=True)
    return made


def packed(
    attributes: Mapping[str, Any], nodata: int, scale: float | None, offset: int
) -> dict[str, Any]:
    """Attributes that say what digital numbers mean."""
    said: dict[str, Any] = {**attributes, "_FillValue": nodata}
    if scale is not None:
        said |= {"units": "1", "scale_factor": scale}
        if offset:
            said["add_offset"] = -round(offset * scale, 12)
    return said


def _dataset(
    scenes: Sequence[Scene], bands: Sequence[str], finest: str, attributes: Mapping[str, Any]
) -> xr.Dataset:
    """Stack dates and bands on the grid of one of the bands."""
    grid = scenes[0].grid(finest)
    offset = one_for_all(scene.offset for scene in scenes)
    added = np.array([offset - scene.offset for scene in scenes])
    dates = [[_pixels(scene, band, grid, offset) for band in bands] for scene in scenes]
    pixels = da.stack([da.stack(date) for date in dates])  # type: ignore[no-untyped-call]
    like = scenes[0].bands[finest]
    dims = ("time", "band", "y", "x")
    made = xr.Dataset(
        {VARIABLE: (dims, pixels)},
        coords={
            "time": np.array([scene.time for scene in scenes], "datetime64[ns]"),
            "band": list(bands),
            "y": ("y", like["y"].to_numpy().astype(np.float64)),
            "x": ("x", like["x"].to_numpy().astype(np.float64)),
            **{
                name: ("time", np.array([scene.about[name] for scene in scenes]))
                for name in scenes[0].about
            },
        },
    )
    if added.any():
        made = made.assign_coords({ADDED: ("time", added, ADDED_ATTRIBUTES)})
    made[VARIABLE].attrs = packed(attributes, scenes[0].nodata, scenes[0].scale, offset)
    return georeferenced(made, scenes[0].crs)


def _pixels(scene: Scene, band: str, grid: Grid, offset: int) -> da.Array:
    """Digital numbers of one band of one date on the cube's grid; lazy."""
    own = scene.grid(band)
    place = grid.inside(own)
    if place is None:
        raise InputError(
            f"{band} of {scene.source} lies on {own}, which does not fit the grid of the cube, "
            f"{grid}: pixels must be a whole number of times as large, aligned, and cover it. "
            "Select bands of one resolution (bands=[...]), or warp this one first."
        )
    array = scene.bands[band]
    if array.chunks is None:
        size = max(BLOCK // place[0], 1)
        array = array.chunk({"y": size, "x": size})
    return repeat(raised(array, offset - scene.offset, scene.nodata).data, place, grid)


def _alike(scenes: Sequence[Scene]) -> list[Scene]:
    """Sort by time what differs in nothing but time and offset."""
    if not scenes:
        raise InputError("there is nothing to open: the list of files is empty. Give one at least.")
    first, *others = ordered = sorted(scenes, key=lambda scene: scene.time)
    for before, scene in pairwise(ordered):
        if before.time == scene.time:
            raise InputError(
                f"{before.source} and {scene.source} are of one time, {scene.time}; leave one out."
            )
    for scene in others:
        if list(scene.bands) != list(first.bands):
            raise InputError(
                f"{first.source} and {scene.source} differ in bands: {', '.join(first.bands)}; "
                f"{', '.join(scene.bands)}. Select those that both have: bands=[...]."
            )
        require_equal(first, scene, ("crs", "scale", "nodata"))
        for band in scene.bands:
            _require_same_pixels(first, scene, band)
    return ordered


def require_equal(first: Scene, scene: Scene, fields: Iterable[str]) -> None:
    """Raise an InputError where two scenes differ in one of these fields."""
    for what in fields:
        here, there = getattr(first, what), getattr(scene, what)
        if here != there:
            raise InputError(
                f"{first.source} and {scene.source} differ in {what}: {here}; {there}. A cube has "
                "one; open them apart."
            )


def _require_same_pixels(first: Scene, scene: Scene, band: str) -> None:
    here, there = first.bands[band].dtype, scene.bands[band].dtype
    if here != there:
        raise InputError(
            f"{first.source} and {scene.source} differ in the type of {band}: {here}; {there}. "
            "Cast one of them."
        )
    if not scene.grid(band).close_to(first.grid(band)):
        raise InputError(
            f"{first.source} and {scene.source} differ in the grid of {band}: {first.grid(band)}; "
            f"{scene.grid(band)}. Open places apart, and warp or crop to one grid what is to be "
            "one cube."
        )
