"""A Sentinel-2 cube that needs no download: synthetic, deterministic, of any size.

It shows the tools at work and feeds tests; figures are quoted on real data. Fields, woods, a
river, roads and towns pass through the seasons under haze, clouds and their shadows, with sensor
noise and the edge of a swath. The same arguments give the same bits on every machine.

Below: errors, sentinel2. Above: cli, notebooks, tests.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xtec.errors import InputError
from xtec.sample.land import Season, season, survey
from xtec.sample.noise import Floats, hashed, key, normal
from xtec.sample.sky import Sky, sky
from xtec.sentinel2 import BANDS, NODATA, SCALE

if TYPE_CHECKING:
    import xarray as xr

EPSG = 32632
WEST_M, NORTH_M = 651_240, 5_352_480
"""Outer corner of the first pixel in UTM zone 32 N (Bavaria); a multiple of 60 m."""

FIRST_DATE = np.datetime64("2018-03-18T10:20:21", "ns")
BETWEEN_DATES = np.timedelta64(35, "D")
"""Seven of Sentinel-2's revisits."""

EDGE_EVERY = 6
"""Of so many dates one has the edge of the swath in it, the second first."""

NOISE_DN = (6, 8, 7, 7, 9, 8, 8, 9, 8, 5, 1, 7, 6)
"""Deviation of the sensor's noise in each band, in digital numbers."""

MARGIN = 6
"""Pixels computed around the cube, so that its border is like its inside; one 60 m pixel."""


def cube(
    *, dates: int = 6, size: int | tuple[int, int] = 512, seed: int = 0, level: str = "L1C"
) -> "xr.Dataset":
    """Make a synthetic Sentinel-2 cube.

    Parameters
    ----------
    dates : int
        Number of dates, 35 days apart from 18 March 2018.
    size : int or (int, int)
        Rows and columns of 10 m pixels. A smaller cube is the upper left corner of a larger one,
        but for the edge of the swath.
    seed : int
        Another seed, another place.
    level : {"L1C", "L2A"}
        Top of atmosphere, 13 bands, or surface reflectance, 12 bands (without B10).

    Returns
    -------
    xarray.Dataset
        ``reflectance``: uint16 digital numbers (time, band, y, x), reflectance x 10000 without
        offset, 0 where there is no data. Bands of 20 and 60 m are repeated on the 10 m grid.
        No data lies beyond a slanted edge on the second date and every sixth from there.
        Coordinates of pixel centres in EPSG:32632, written by rioxarray.

    Raises
    ------
    InputError
        `dates` or `size` is not positive, or there is no such `level`.

    Examples
    --------
    >>> cube(dates=2, size=(60, 90)).reflectance.shape
    (2, 13, 60, 90)
    """
    rows, columns = size if isinstance(size, tuple) else (size, size)
    if min(dates, rows, columns) < 1:
        raise InputError(f"dates={dates} and size={size!r} must be at least 1.")
    if level not in ("L1C", "L2A"):
        raise InputError(
            f"level={level!r} is unknown; allowed are 'L1C' and 'L2A'. Give one of them."
        )
    bands = [number for number, band in enumerate(BANDS) if level == "L1C" or band.name != "B10"]
    y, x = _coordinates(rows, 0), _coordinates(columns, 1)
    land = survey(y, x, seed)
    pixels = np.empty((dates, len(bands), rows, columns), np.uint16)
    for number in range(dates):
        grown = season(land, _day_of_year(number))
        air = sky(y, x, seed, number)
        edge = _beyond_the_swath(rows, columns, number, dates)
        for place, band in enumerate(bands):
            seen = _record(_light(grown, air, band, level), band, key(seed, "noise", number, band))
            pixels[number, place] = np.where(edge, NODATA, seen[:rows, :columns])
    return _described(pixels, [BANDS[band].name for band in bands], level)


def _coordinates(count: int, axis: int) -> Floats:
    """Pixel coordinates with the margin, up to a whole number of 60 m pixels."""
    line = np.arange(-MARGIN, -(-count // 6) * 6 + MARGIN, dtype=np.float64)
    return line[:, None] if axis == 0 else line[None, :]


def _day_of_year(number: int) -> int:
    day = (FIRST_DATE + number * BETWEEN_DATES).astype("datetime64[D]")
    return int((day - day.astype("datetime64[Y]")).astype(int)) % 365


def _light(grown: Season, air: Sky, band: int, level: str) -> Floats:
    """Light that reaches the sensor, reflectance x 10000, blurred a little by its optics."""
    light = air.shaded(grown.reflectance(band), band)
    if level == "L1C":
        light = air.through_the_air(light, band)
    light = air.under_clouds(light, band)
    for _ in range(2):
        light[:, 1:-1] = light[:, 1:-1] / 2 + (light[:, :-2] + light[:, 2:]) / 4
        light = light.T
    return light


def _record(light: Floats, band: int, noise: int) -> NDArray[np.uint16]:
    """Sample light on the band's own grid, add noise, round, and repeat on the 10 m grid."""
    factor = BANDS[band].gsd_m // 10
    light = light[MARGIN:-MARGIN, MARGIN:-MARGIN]
    total = np.zeros((light.shape[0] // factor, light.shape[1] // factor))
    for row in range(factor):
        for column in range(factor):
            total += light[row::factor, column::factor]
    rows, columns = (np.arange(count) for count in total.shape)
    shot = normal(hashed(noise, rows[:, None], columns[None, :])) * NOISE_DN[band]
    numbers = np.clip(np.floor(total / factor**2 + shot + 0.5), 1, 32767).astype(np.uint16)
    return numbers.repeat(factor, 0).repeat(factor, 1)


def _beyond_the_swath(rows: int, columns: int, number: int, dates: int) -> NDArray[np.bool_]:
    """Pixels that the satellite did not see on a date, in steps of 60 m; slanted as its orbit."""
    if number % EDGE_EVERY != min(1, dates - 1):
        return np.zeros((rows, columns), np.bool_)
    y, x = np.arange(rows)[:, None] // 6 * 6, np.arange(columns)[None, :] // 6 * 6
    outside: NDArray[np.bool_] = 9 * x + 2 * y < 3 * columns
    return outside


def _described(pixels: NDArray[np.uint16], names: list[str], level: str) -> "xr.Dataset":
    """Give the pixels their coordinates, attributes, no-data value and CRS."""
    import rioxarray  # noqa: F401 - registers .rio; heavy, and wanted here alone
    import xarray as xr

    times, _, rows, columns = pixels.shape
    top = level == "L1C"
    cube = xr.Dataset(
        {"reflectance": (("time", "band", "y", "x"), pixels)},
        coords={
            "time": FIRST_DATE + np.arange(times) * BETWEEN_DATES,
            "band": names,
            "y": ("y", NORTH_M - 5 - 10.0 * np.arange(rows)),
            "x": ("x", WEST_M + 5 + 10.0 * np.arange(columns)),
        },
        attrs={
            "title": f"Synthetic Sentinel-2 {level} cube",
            "source": "made by xtec.sample.cube; no satellite saw this place",
            "Conventions": "CF-1.11",
        },
    )
    cube["reflectance"].attrs = {
        "long_name": f"{'top-of-atmosphere' if top else 'surface'} reflectance, digital numbers",
        "standard_name": "toa_bidirectional_reflectance"
        if top
        else "surface_bidirectional_reflectance",
        "units": str(SCALE),
    }
    cube["reflectance"] = cube["reflectance"].rio.write_nodata(NODATA)
    described: xr.Dataset = cube.rio.write_crs(EPSG).rio.write_coordinate_system()
    return described
