"""Training cubes: read whole into memory, cut into random crops of short sequences.

A cube enters as digital numbers with the names of its bands; bands of the model that it lacks
are fed to the network as their mean and do not count in the distortion.

Below: models.config, sentinel2, errors. Above: loop.
"""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from xtec.errors import InputError
from xtec.models.config import ModelConfig
from xtec.sentinel2 import NODATA, SATURATED, recognise


@dataclass(frozen=True)
class Cube:
    """One training cube."""

    pixels: NDArray[np.uint16]
    """Digital numbers, shape (time, band, y, x)."""
    bands: tuple[str, ...]
    """Canonical names of its bands."""


@dataclass(frozen=True)
class Crops:
    """A batch for the network."""

    pixels: Tensor
    """Standardised, float32, shape (B, T, model bands, y, x); 0 where there is nothing."""
    weight: Tensor
    """1 where a pixel counts, else 0; same shape."""


def read(path: Path) -> Cube:
    """Read one training file.

    ``.npz`` with arrays ``pixels`` (time, band, y, x) and ``bands``; ``.zarr`` or ``.nc`` with
    one 4-D variable that has a ``band`` coordinate; ``.cube``, a zip of ``meta.json`` and of
    ``delta.bin``, the zig-zag differences along x with low and high bytes apart.
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


def read_all(folders: list[Path]) -> list[Cube]:
    """Read every training file of some folders, sorted by name."""
    paths = sorted(
        p for f in folders for p in f.iterdir() if p.suffix in {".npz", ".cube", ".zarr", ".nc"}
    )
    if not paths:
        raise InputError(f"no .npz, .cube, .zarr or .nc in {[str(f) for f in folders]}.")
    return [read(p) for p in tqdm(paths, desc="reading", unit="cube")]


class Sampler:
    """Random crops of random short sequences, for ever; two samplers of one seed agree.

    Parameters
    ----------
    cubes : list of Cube
    config : ModelConfig
    size : int, pixels
        Side of a crop; smaller cubes are left out.
    frames : int
        Longest sequence. A batch has one length, drawn from 1 to this, long ones rarer because
        fewer cubes have them.
    """

    def __init__(
        self, cubes: list[Cube], config: ModelConfig, *, size: int, frames: int, seed: int
    ) -> None:
        self.cubes = [c for c in cubes if min(c.pixels.shape[2:]) >= size]
        if not self.cubes:
            raise InputError(f"no training cube is as large as the crops of {size} pixels.")
        self.config, self.size = config, size
        longest = max(len(c.pixels) for c in self.cubes)
        self.frames = min(frames, longest)
        self.random = np.random.default_rng(seed)

    def batches(self, batch: int) -> Iterator[Crops]:
        """Endless batches."""
        while True:
            length = int(self.random.integers(min(2, self.frames), self.frames + 1))
            long_enough = [c for c in self.cubes if len(c.pixels) >= length]
            # A cube counts by its area, softly, so that small ones are not drowned.
            area = np.array([c.pixels[:, 0].size for c in long_enough], float) ** 0.5
            picks = self.random.choice(len(long_enough), size=batch, p=area / area.sum())
            crops = [self._crop(long_enough[i], length) for i in picks]
            pixels, weight = (torch.from_numpy(np.stack(a)) for a in zip(*crops, strict=True))
            yield Crops(pixels, weight)

    def _crop(self, cube: Cube, length: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rng, size = self.random, self.size
        t, _, h, w = cube.pixels.shape
        start = int(rng.integers(t - length + 1))
        dates = np.arange(start, start + length)
        if rng.random() < 0.5:
            dates = dates[::-1]
        y, x = int(rng.integers(h - size + 1)), int(rng.integers(w - size + 1))
        pixels = cube.pixels[dates, :, y : y + size, x : x + size]
        if rng.random() < 0.5:
            pixels = pixels.swapaxes(2, 3)
        pixels = pixels[:, :, :: rng.choice([1, -1]), :: rng.choice([1, -1])]
        return self._place(pixels, cube.bands)

    def _place(
        self, pixels: NDArray[np.uint16], bands: tuple[str, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Standardise, jitter, and put each band where the model has it."""
        rng, names = self.random, self.config.bands
        out = np.zeros((len(pixels), len(names), *pixels.shape[2:]), np.float32)
        weight = np.zeros_like(out)
        kept = [b for b in bands if b in names]
        if rng.random() < 0.1:  # a user's subset of the bands
            count = int(rng.integers(min(3, len(kept)), len(kept) + 1))
            kept = list(rng.choice(kept, size=count, replace=False))
        brightness = rng.uniform(0.85, 1.15) if rng.random() < 0.5 else 1.0
        for band in kept:
            i = names.index(band)
            raw = pixels[:, bands.index(band)]
            valid = (raw != NODATA) & (raw != SATURATED)
            value = (raw * brightness - self.config.mean[i]) / self.config.std[i]
            out[:, i], weight[:, i] = np.where(valid, value, 0), valid
        return out, weight
