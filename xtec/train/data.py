"""Training cubes, read whole into memory: digital numbers with the names of their bands.

Below: sentinel2, errors. Above: sampler, evaluate, benchmarks.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from xtec.errors import InputError
from xtec.sentinel2 import NODATA, SATURATED, recognise

SUFFIXES = (".cube", ".nc", ".npz", ".zarr")


@dataclass(frozen=True)
class Cube:
    """One training cube."""

    pixels: NDArray[np.uint16]
    """Digital numbers, shape (time, band, y, x)."""
    bands: tuple[str, ...]
    """Canonical names of its bands."""

    def only(self, bands: Sequence[str]) -> "Cube":
        """Give the cube without all other bands."""
        kept = [i for i, name in enumerate(self.bands) if name in bands]
        if len(kept) == len(self.bands):
            return self
        return Cube(self.pixels[:, kept], tuple(self.bands[i] for i in kept))


def holes(pixels: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Where pixels say nothing: no-data and saturation."""
    found: NDArray[np.bool_] = (pixels == NODATA) | (pixels == SATURATED)
    return found


def read(path: Path) -> Cube:
    """Read one training file.

    ``.npz`` with arrays ``pixels`` (time, band, y, x) and ``bands``; ``.zarr`` or ``.nc`` with
    one 4-D variable that has a ``band`` coordinate; ``.cube``, a zip of ``meta.json`` and of
    ``delta.bin``, the zig-zag differences along x with low and high bytes apart.

    Raises
    ------
    InputError
        The file holds something else.
    """
    if path.suffix == ".npz":
        with np.load(path) as file:
            pixels, bands = file["pixels"], file["bands"].tolist()
    elif path.suffix == ".cube":
        with zipfile.ZipFile(path) as file:
            meta = json.loads(file.read("meta.json"))
            low, high = np.frombuffer(file.read("delta.bin"), np.uint8).reshape(2, -1)
        folded = low.astype(np.int32) | (high.astype(np.int32) << 8)
        steps = ((folded >> 1) ^ -(folded & 1)).reshape(meta["shape"])
        pixels, bands = steps.cumsum(axis=-1, dtype=np.int32).astype(np.uint16), meta["bands"]
    else:
        with xr.open_dataset(path, mask_and_scale=False) as opened:
            cubes = [v for v in opened.data_vars.values() if v.ndim == 4 and "band" in v.coords]
            if not cubes:
                raise InputError(f"{path} has no variable of four dimensions with names of bands.")
            pixels, bands = cubes[0].to_numpy(), cubes[0]["band"].to_numpy().tolist()
    if pixels.dtype != np.uint16 or pixels.ndim != 4:
        raise InputError(
            f"{path} holds {pixels.dtype} of {pixels.ndim} dimensions; training needs uint16 "
            "digital numbers of shape (time, band, y, x)."
        )
    return Cube(pixels, recognise(bands))


def read_all(folders: Sequence[Path], bands: Sequence[str] | None = None) -> list[Cube]:
    """Read every training file of some folders, sorted by path.

    Parameters
    ----------
    folders : sequence of Path
    bands : sequence of str, optional
        All other bands are left out.

    Raises
    ------
    InputError
        There is no training file, or one without any of the bands.
    """
    paths = sorted(p for folder in folders for p in folder.iterdir() if p.suffix in SUFFIXES)
    if not paths:
        raise InputError(f"no {', '.join(SUFFIXES)} in {[str(f) for f in folders]}.")
    cubes = []
    for path in tqdm(paths, desc="reading", unit="cube"):
        cube = read(path)
        kept = cube if bands is None else cube.only(bands)
        if not kept.bands:
            raise InputError(f"{path} has the bands {cube.bands}, none of {tuple(bands or ())}.")
        cubes.append(kept)
    return cubes
