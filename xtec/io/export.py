"""Decoded cubes as GeoTIFF or Cloud Optimized GeoTIFF, one file per date.

Below: native, cube, errors. Above: cli.
"""

import os
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute

from xtec.cube.layout import find_cube
from xtec.cube.packing import packing_of
from xtec.errors import InputError
from xtec.io.native import native as to_native
from xtec.io.scene import dataset_of

TILE = 256
"""Rows and columns of a tile in a file."""

BLOCK = 4 * TILE
"""Rows and columns that are written at once."""


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
        Digital numbers, or reflectance with the encoding by which a store packs it. Lazy ones are
        computed block by block, each chunk of a store once.
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
        for dates in _together(array):
            _write(array, {date: paths[date][number] for date in dates}, cog=cog)
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


def _together(array: xr.DataArray) -> Iterator[Sequence[int]]:
    """Dates that share chunks: decoded once, written at once."""
    lengths = array.chunks[0] if array.chunks else (1,) * array.shape[0]
    start = 0
    for length in lengths:
        yield range(start, start + length)
        start += length


def _write(array: xr.DataArray, paths: dict[int, Path], *, cog: bool) -> None:
    """Write some dates, each under another name until it is whole."""
    parts = {path: path.with_name(f".{path.name}.part") for path in paths.values()}
    try:
        compute(  # type: ignore[no-untyped-call]
            *(_delayed(array.isel({array.dims[0]: date}), parts[p]) for date, p in paths.items())
        )
        for path, part in parts.items():
            if cog:
                _optimise(part, path)
            else:
                part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _delayed(array: xr.DataArray, path: Path) -> Any:
    """Make the file; give the task that fills it."""
    import rioxarray  # noqa: F401 - registers .rio

    packing = packing_of(array)
    band, y, x = array.dims
    named = array.drop_vars([c for c in array.coords if c not in (y, x, "spatial_ref")])
    named = named.chunk({band: -1, y: BLOCK, x: BLOCK}).rename({y: "y", x: "x"})
    said = {key: array.attrs[key] for key in ("scale_factor", "add_offset") if key in array.attrs}
    named.attrs = said | {"long_name": tuple(map(str, array[band].to_numpy()))}
    if packing.floating:
        named.encoding = {"dtype": packing.dtype, "_FillValue": packing.nodata} | packing.encoding()
    else:
        named.attrs["_FillValue"] = packing.nodata
        named.encoding = {}
    return named.rio.to_raster(
        path,
        driver="GTiff",
        lock=Lock(),
        compute=False,
        tiled=True,
        blockxsize=TILE,
        blockysize=TILE,
        compress="deflate",
        predictor=2,
        interleave="band",
        bigtiff="if_safer",
        tags=_tags(array),
    )


def _tags(array: xr.DataArray) -> dict[str, str]:
    """When it was sensed, where TIFF keeps it."""
    times = [c for c in array.coords.values() if c.ndim == 0 and np.issubdtype(c.dtype, "M8")]
    if not times:
        return {}
    text = str(times[0].to_numpy().astype("datetime64[s]"))
    return {"TIFFTAG_DATETIME": text.replace("-", ":").replace("T", " ")}


def _optimise(part: Path, path: Path) -> None:
    """Rewrite a tiled file as a Cloud Optimized GeoTIFF."""
    import rasterio.shutil

    done = part.with_name(f"{part.name}.cog")
    try:
        rasterio.shutil.copy(
            part, done, driver="COG", compress="deflate", predictor="yes", resampling="average"
        )
        done.replace(path)
    finally:
        done.unlink(missing_ok=True)
