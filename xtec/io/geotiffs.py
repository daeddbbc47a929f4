"""Stacks of GeoTIFFs: one file per date with all bands, or one per band and date.

Below: scene, radiometry, cube, sentinel2, errors. Above: the room's face.
"""

import glob
import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xtec.errors import BandError, InputError
from xtec.io.radiometry import Numbers, digital_numbers
from xtec.io.scene import Scene, choose, require_equal, to_cube
from xtec.sentinel2 import SCALE, recognise

PathLike = str | os.PathLike[str]
Times = Callable[[Path], Any] | str | Sequence[Any]
Bands = Callable[[Path], str | Sequence[str]] | Sequence[str]

_DATE = re.compile(
    r"(?<!\d)(\d{4})[-_]?([01]\d)[-_]?([0-3]\d)(?:[T_-]?(\d{2})(\d{2})(\d{2}))?(?!\d)"
)
_WORDS = re.compile(r"[_\-. ]")


def open_geotiffs(
    files: PathLike | Iterable[PathLike],
    *,
    time: Times | None = None,
    bands: Bands | None = None,
    offset: int | Callable[[Path], int] | None = None,
) -> xr.Dataset:
    """Open GeoTIFFs of one place as one cube; lazy.

    Parameters
    ----------
    files : path, pattern or paths
        One file per date with all bands, one per band and date, or anything between. A text with
        ``*`` is a pattern: "scenes/*.tif".
    time : callable, str or sequence, optional
        Dates: what a function says of a path, what the first group of a regular expression finds
        in its name, or one for each file in the order given. By default the first thing in the
        name that looks like 20240103, 2024-01-03 or 20240103T101329.
    bands : callable or sequence of str, optional
        Names of a file's bands, by any usual name: what a function says of a path, or a list for
        every file. By default the descriptions in the file; for a file of one band without any,
        the part of its name that is a band's ("..._B04_10m.tif").
    offset : int or callable, optional
        Radiometric offset that the digital numbers carry: 1000 for ESA's products since processing
        baseline 04.00. By default what scale and offset in the files say; where they say nothing,
        nothing is said of reflectance.

    Returns
    -------
    Dataset
        ``reflectance`` (time, band, y, x) as `open_safe` makes it. Reflectance in floating point
        becomes uint16 digital numbers with an offset of 1000, or `offset`.

    Raises
    ------
    InputError, BandError
        A date or a band cannot be told, is there twice or not at all, or files do not fit together.
    """
    paths = _paths(files)
    times = _times(paths, time)
    scenes: dict[np.datetime64, Scene] = {}
    for path, when in zip(paths, times, strict=True):
        scene = _scene(path, when, bands, offset(path) if callable(offset) else offset)
        scenes[when] = _joined(scenes[when], scene) if when in scenes else scene
    return to_cube([_in_order(scene) for scene in scenes.values()], {"long_name": "reflectance"})


def _in_order(scene: Scene) -> Scene:
    """Bands in ESA's order, whichever file came first."""
    names = choose([*scene.bands], None, scene.source)
    return replace(scene, bands={name: scene.bands[name] for name in names})


def _paths(files: PathLike | Iterable[PathLike]) -> list[Path]:
    if isinstance(files, str | os.PathLike):
        text = os.fspath(files)
        found = sorted(glob.glob(text, recursive=True)) if "*" in text else [text]  # noqa: PTH207
        if not found:
            raise InputError(
                f"no file matches {text!r}, and at least one must; look at the folder, or list the "
                "files."
            )
        return [Path(each) for each in found]
    paths = [Path(each) for each in files]
    if not paths:
        raise InputError("there is nothing to open: the list of files is empty.")
    return paths


def _times(paths: Sequence[Path], time: Times | None) -> list[np.datetime64]:
    """One date for each file."""
    if time is None or isinstance(time, str):
        return [_time(path, _in_name(path, time)) for path in paths]
    if callable(time):
        return [_time(path, time(path)) for path in paths]
    if len(time) != len(paths):
        raise InputError(f"{len(time)} dates for {len(paths)} files; give one for each file.")
    return [_time(path, value) for path, value in zip(paths, time, strict=True)]


def _in_name(path: Path, pattern: str | None) -> str:
    """Find the date in a file's name."""
    if pattern is None:
        match = _DATE.search(path.name)
        if match:
            year, month, day, *clock = match.groups()
            return f"{year}-{month}-{day}" + (f"T{':'.join(clock)}" if clock[0] else "")
        raise InputError(
            f"{path.name}: no date in the name; say it with time=: a list of dates, a regular "
            "expression with a group, or a function of the path."
        )
    try:
        match = re.search(pattern, path.name)
        if match:
            return match[1]
    except (re.error, IndexError) as error:
        raise InputError(
            f"time={pattern!r} is no regular expression with a group ({error}); for example "
            r"time=r'_(\d{8})_'."
        ) from error
    raise InputError(f"{path.name}: time={pattern!r} does not match the name.")


def _time(path: Path, value: Any) -> np.datetime64:
    import pandas as pd

    try:
        stamp = pd.Timestamp(value)
        if stamp.tz is not None:
            stamp = stamp.tz_convert("UTC").tz_localize(None)
        when = np.datetime64(stamp.to_datetime64(), "ns")
    except (TypeError, ValueError) as error:
        raise InputError(f"{path.name}: {value!r} is no date ({error}).") from error
    if np.isnat(when):
        raise InputError(f"{path.name}: {value!r} is no date.")
    return when


def _scene(path: Path, when: np.datetime64, bands: Bands | None, offset: int | None) -> Scene:
    """Read a file's header."""
    import rasterio
    import rioxarray

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(Scales|Offsets) differ across bands")
            raster = rioxarray.open_rasterio(path, cache=False)
    except rasterio.errors.RasterioIOError as error:
        raise InputError(f"{path} cannot be read as a raster ({error}).") from error
    if not isinstance(raster, xr.DataArray):
        raise InputError(f"{path} holds several rasters; give files of one.")
    names = _names(path, raster, bands)
    meaning = _meaning(path, raster, offset)
    return Scene(
        source=path.name,
        time=when,
        bands={name: meaning.array.isel(band=n, drop=True) for n, name in enumerate(names)},
        crs=raster.rio.crs,
        offset=meaning.offset or 0,
        scale=meaning.scale if meaning.offset is None else meaning.scale or SCALE,
        nodata=meaning.nodata,
    )


def _names(path: Path, raster: xr.DataArray, bands: Bands | None) -> tuple[str, ...]:
    """Names of a file's bands."""
    count = raster.sizes["band"]
    if bands is None:
        return _names_described(path, raster) or _band_in_name(path, count)
    said = bands(path) if callable(bands) else bands
    names = recognise((said,) if isinstance(said, str) else said)
    if len(names) != count:
        raise BandError(
            f"{path.name} has {count} bands and {len(names)} names, {', '.join(names)}; give a "
            "name to each, in the order of the file."
        )
    return names


def _names_described(path: Path, raster: xr.DataArray) -> tuple[str, ...]:
    """Names by the descriptions in the file; empty where they are none of bands.

    GDAL's driver of Sentinel-2 adds to them: "B4, central wavelength 665 nm".
    """
    described = raster.attrs.get("long_name", ())
    described = (described,) if isinstance(described, str) else described
    words = [str(text).partition(",")[0] for text in described if text]
    known = [word for word in words if _is_band(word)]
    if not known:
        return ()
    if len(known) < raster.sizes["band"]:
        raise BandError(
            f"{path.name}: of its descriptions, {', '.join(map(str, described))}, not all are "
            "bands. Say what they are: bands=['B02', 'B03', ...]."
        )
    return recognise(words)


def _band_in_name(path: Path, count: int) -> tuple[str, ...]:
    """Find the one word of a file's name that is a band's."""
    found = [word for word in _WORDS.split(path.stem) if _is_band(word)]
    if count != 1 or len(found) != 1:
        raise BandError(
            f"{path.name}, of {count} bands: no descriptions in the file say which, and its name "
            f"speaks of {' and '.join(found) or 'none'}. Say it: bands=['B02', 'B03', ...], or a "
            "function of the path."
        )
    return recognise(found)


def _is_band(word: str) -> bool:
    try:
        recognise([word])
    except BandError:
        return False
    return True


def _meaning(path: Path, raster: xr.DataArray, offset: int | None) -> Numbers:
    """Digital numbers and what they mean; rioxarray gives scale 1 and offset 0 where none is."""
    several = {key: raster.attrs[key] for key in ("scales", "offsets") if key in raster.attrs}
    if several:
        raise InputError(
            f"{path.name}: its bands differ in scale or offset, {several}; a cube has one. Bring "
            "them to one first."
        )
    scale, shift = raster.attrs.get("scale_factor", 1.0), raster.attrs.get("add_offset", 0.0)
    fill = raster.rio.nodata
    if raster.dtype.kind == "f" and fill is not None and not np.isnan(fill):
        raster = raster.where(raster != fill)
    said = {} if (scale, shift) == (1, 0) else {"scale_factor": scale, "add_offset": shift}
    filled = {} if fill is None or raster.dtype.kind == "f" else {"_FillValue": fill}
    raster.attrs, raster.name = said | filled, path.name
    return digital_numbers(raster, offset)


def _joined(scene: Scene, other: Scene) -> Scene:
    """Put files of one date together."""
    twice = scene.bands.keys() & other.bands.keys()
    if twice:
        raise InputError(
            f"{', '.join(sorted(twice))} of {scene.time.astype('datetime64[s]')} is there twice: "
            f"in {scene.source} and {other.source}. Leave one out, or tell their times apart: "
            "time=."
        )
    require_equal(scene, other, ("crs", "scale", "offset", "nodata"))
    return replace(scene, bands={**scene.bands, **other.bands})
