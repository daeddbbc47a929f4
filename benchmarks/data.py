"""The real cubes that the benchmarks run on; they lie beside the project and are never copied in.

Below: xtec.train.data. Above: rate_distortion, throughput, prior_cost.
"""

import os
from pathlib import Path

import numpy as np

from xtec.errors import InputError
from xtec.pixels import Pixels
from xtec.sentinel2 import BANDS
from xtec.train.data import read

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
CROP = 128
"""Rows and columns are cropped to multiples of this, so that no codec pays for padding."""
LONG = 8
"""A cube of more dates is a series; beside the pairs it enters with a few of them only."""
DATES_OF_SERIES = (1, 4, 8, 12, 18, 25)


def folder(given: Path | None) -> Path:
    """Find the validation cubes below ``given``, ``XTEC_DATA`` or ``../shared/data``."""
    found = (given or Path(os.environ.get("XTEC_DATA", BESIDE))) / "val"
    if not found.is_dir():
        raise InputError(
            f"no folder {found}; give --data or XTEC_DATA a folder with the validation cubes "
            "in val/ (.cube, .npz, .zarr or .nc)."
        )
    return found


def pairs(data: Path | None, *, quick: bool = False) -> dict[str, Pixels]:
    """Read all validation cubes: uint16 (time, 13, y, x), long series with six of their dates.

    Parameters
    ----------
    data : folder, optional
    quick : bool
        A third of them, the large ones not among it.
    """
    paths = _paths(data)
    if quick:
        paths = paths[3::3] or paths
    return {path.stem: _some_dates(_read(path)) for path in paths}


def series(data: Path | None) -> dict[str, Pixels]:
    """Read the cubes of more than eight dates, with every date."""
    cubes = {path.stem: _read(path) for path in _paths(data)}
    return {name: cube for name, cube in cubes.items() if len(cube) > LONG}


def one(data: Path | None, name: str) -> Pixels:
    """Read the first cube whose name contains ``name``, uncropped."""
    for path in _paths(data):
        if name in path.stem:
            return read(path).pixels
    raise InputError(f"no cube called {name!r} among {[p.stem for p in _paths(data)]}.")


def _paths(data: Path | None) -> list[Path]:
    return sorted(
        p for p in folder(data).iterdir() if p.suffix in {".cube", ".npz", ".zarr", ".nc"}
    )


def _read(path: Path) -> Pixels:
    cube = read(path)
    if cube.bands != tuple(band.name for band in BANDS):
        raise InputError(f"{path} has the bands {cube.bands}; the benchmarks need all 13 of L1C.")
    height, width = (n - n % CROP for n in cube.pixels.shape[2:])
    return np.ascontiguousarray(cube.pixels[:, :, :height, :width])


def _some_dates(cube: Pixels) -> Pixels:
    return cube if len(cube) <= LONG else cube[[d for d in DATES_OF_SERIES if d < len(cube)]]
