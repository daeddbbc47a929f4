"""Decoded cubes as GeoTIFF or Cloud Optimized GeoTIFF, one file per date.

Below: native, cube, errors. Above: cli.
"""

import itertools
import math
import os
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xtec.cube.layout import find_cube
from xtec.errors import InputError
from xtec.io.native import native as to_native
from xtec.io.radiometry import Numbers, digital_numbers
from xtec.io.scene import dataset_of, packed

TILE = 256
"""Rows and columns of a tile in a file."""

BLOCK_PIXELS = 1 << 25
"""Pixels of all dates and bands that are in memory at once, if a chunk is no larger."""


def to_geotiff(
    cube: xr.Dataset | xr.DataArray,
    folder: str | os.PathLike[str],
    *,
    cog: bool = False,
    native: bool = False,
    prefix: str = "",
    overwrite: bool = False,
    variable: Hashable | None = None,
) -> list[Path]:
    """Write each date of a cube as a file of digital numbers.

    Parameters
    ----------
    cube : Dataset or DataArray
        Digital numbers, or reflectance: packed as its encoding says, as it came from a store,
        else with an offset of 1000. Lazy ones are computed block by block, each chunk of a store
        once.
    folder : path
        Made where it is missing.
    cog : bool
        Cloud Optimized GeoTIFF, with overviews, instead of plain tiled GeoTIFF.
    native : bool
        One file for each resolution, with the bands as `xtec.io.native` gives them.
    prefix : str
        Goes before the date in the names: "20240103T101803.tif", with `native`
        "20240103T101803_r20m.tif".
    overwrite : bool
        Whether existing files may be replaced.
    variable : hashable, optional
        Which variable, where several have a band axis.

    Returns
    -------
    list of Path
        The files, in the order of time.

    Raises
    ------
    InputError, BandError
        A file exists, two dates would have one name, or there is no cube.

    Notes
    -----
    Bands have their names as descriptions, and scale, offset, no-data value, CRS and transform
    stand where GDAL looks for them. `xtec.io.open_geotiffs` opens the files again; times come back
    to the second.
    """
    found = find_cube(dataset_of(cube), variable)
    parts = {"": found.variable}
    if native:
        tree = to_native(found.dataset, found.name)
        parts = {f"_{key}": node.dataset[found.name] for key, node in tree.children.items()}
    stamps = _stamps(found.variable)
    folder = Path(folder).expanduser()
    paths = [[folder / f"{prefix}{stamp}{suffix}.tif" for suffix in parts] for stamp in stamps]
    existing = [path.name for row in paths for path in row if path.exists()]
    if existing and not overwrite:
        raise InputError(
            f"{folder} already holds {', '.join(existing[:4])}; choose another folder or prefix, "
            "or pass overwrite=True to replace them."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for number, array in enumerate(parts.values()):
        _write(array, [row[number] for row in paths], cog=cog)
    return [path for row in paths for path in row]


def _stamps(array: xr.DataArray) -> list[str]:
    """A name for each date; numbers where there are no dates."""
    time = array.dims[0]
    if time not in array.coords or array[time].dtype.kind != "M":
        return [f"{number:04d}" for number in range(array.shape[0])]
    seconds = array[time].to_numpy().astype("datetime64[s]").astype(str)
    stamps = [str(second).replace("-", "").replace(":", "") for second in seconds]
    if len({*stamps}) < len(stamps):
        twice = next(stamp for stamp in stamps if stamps.count(stamp) > 1)
        raise InputError(
            f"two dates would be written to {twice}.tif, as they lie within one second; write them "
            "one by one, each with a prefix."
        )
    return stamps


def _write(array: xr.DataArray, paths: Sequence[Path], *, cog: bool) -> None:
    """Write all dates, each under another name until it is whole."""
    parts = [path.with_name(f".{path.name}.part") for path in paths]
    try:
        for dates in _together(array):
            _fill(array.isel({array.dims[0]: dates}), parts[dates])
            for path, part in zip(paths[dates], parts[dates], strict=True):
                if cog:
                    _optimise(part)
                part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _together(array: xr.DataArray) -> Iterator[slice]:
    """Dates that share chunks."""
    start = 0
    for length in array.chunks[0] if array.chunks else (1,) * array.shape[0]:
        yield slice(start, start + length)
        start += length


def _fill(array: xr.DataArray, paths: Sequence[Path]) -> None:
    """Write some dates block by block: a chunk of a store is decoded once for all of them."""
    import rasterio
    from rasterio.windows import Window

    meaning = digital_numbers(array)
    with ExitStack() as files:
        rasters = [
            files.enter_context(rasterio.open(path, "w", **_profile(meaning))) for path in paths
        ]
        for raster, date in zip(rasters, array, strict=True):
            _describe(raster, date, meaning)
        for rows, columns in _blocks(array):
            block = digital_numbers(array[:, :, rows, columns]).array.to_numpy()
            window = Window.from_slices(rows, columns)
            for raster, numbers in zip(rasters, block, strict=True):
                raster.write(numbers, window=window)


def _profile(meaning: Numbers) -> dict[str, Any]:
    """What rasterio must know to create a file."""
    import rioxarray  # noqa: F401 - registers .rio

    array = meaning.array
    _, count, height, width = array.shape
    *_, y, x = array.dims
    return {
        "driver": "GTiff",
        "dtype": array.dtype.name,
        "nodata": meaning.nodata,
        "count": count,
        "height": height,
        "width": width,
        "crs": array.rio.crs,
        "transform": array.rio.set_spatial_dims(x, y).rio.transform(),
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": "deflate",
        "predictor": 2,
        "interleave": "band",
        "bigtiff": "if_safer",
    }


def _describe(raster: Any, date: xr.DataArray, meaning: Numbers) -> None:
    """Names of the bands, what their numbers mean, and when they were sensed."""
    said = packed({}, meaning.nodata, meaning.scale, meaning.offset or 0)
    raster.scales = (said.get("scale_factor", 1.0),) * raster.count
    raster.offsets = (said.get("add_offset", 0.0),) * raster.count
    raster.descriptions = tuple(map(str, date[date.dims[0]].to_numpy()))
    times = [c for c in date.coords.values() if c.ndim == 0 and np.issubdtype(c.dtype, "M8")]
    for time in times[:1]:
        text = str(time.to_numpy().astype("datetime64[s]"))
        raster.update_tags(TIFFTAG_DATETIME=text.replace("-", ":").replace("T", " "))


def _blocks(array: xr.DataArray) -> Iterator[tuple[slice, slice]]:
    """Rows and columns that are in memory at once: whole chunks where there are any."""
    dates, bands, *_ = array.shape
    side = math.isqrt(BLOCK_PIXELS // (dates * bands))
    starts = []
    for axis in (2, 3):
        chunk = max(array.chunks[axis]) if array.chunks else TILE
        step = max(side // chunk, 1) * chunk
        starts.append([slice(n, n + step) for n in range(0, array.shape[axis], step)])
    for rows, columns in itertools.product(*starts):
        yield (
            slice(rows.start, min(rows.stop, array.shape[2])),
            slice(columns.start, min(columns.stop, array.shape[3])),
        )


def _optimise(path: Path) -> None:
    """Make a Cloud Optimized GeoTIFF of a tiled file."""
    import rasterio.shutil

    plain = path.with_name(f"{path.name}.plain")
    path.replace(plain)
    try:
        rasterio.shutil.copy(
            plain, path, driver="COG", compress="deflate", predictor="yes", resampling="average"
        )
    finally:
        plain.unlink(missing_ok=True)
