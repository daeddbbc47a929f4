"""Crops made more varied than the cubes are, so that a network meets what users bring.

Each function takes a random generator last and leaves its arguments alone. Letters: T frames, B
bands.

Below: fill, recipe. Above: sampler.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from xtec.fill import fill
from xtec.train.recipe import Shares

Numbers = NDArray[np.float32]
Mask = NDArray[np.bool_]
FEWEST_BANDS = 3
LOWEST, HIGHEST = 1, 65534
"""What digital numbers of valid pixels can be."""


def dates(there: int, wanted: int, shares: Shares, random: Generator) -> NDArray[np.int64]:
    """Which of a cube's dates make a sequence, in which order; too few come more than once."""
    if there < wanted:
        return random.integers(there, size=wanted)
    begin = int(random.integers(there - wanted + 1))
    found = np.arange(begin, begin + wanted)
    if random.random() < shares.scattered:
        found = np.sort(random.choice(there, wanted, replace=False))
    if wanted > 1 and random.random() < shares.repeated:
        at = int(random.integers(wanted - 1))
        found[at + 1] = found[at]
    return found[::-1] if random.random() < shares.backwards else found


def some_bands(there: int, shares: Shares, random: Generator) -> NDArray[np.int64]:
    """Which bands are kept, in order."""
    if random.random() >= shares.bands:
        return np.arange(there)
    count = int(random.integers(min(FEWEST_BANDS, there), there + 1))
    return np.sort(random.choice(there, count, replace=False))


def placed(pixels: NDArray[np.uint16], random: Generator) -> NDArray[np.uint16]:
    """One of the eight ways to lay down a square, (..., side, side)."""
    way = int(random.integers(8))
    turned = pixels.swapaxes(-1, -2) if way & 4 else pixels
    return turned[..., :: -1 if way & 2 else 1, :: -1 if way & 1 else 1]


def lit(pixels: Numbers, shares: Shares, random: Generator, *, again: bool) -> Numbers:
    """Other light, the same for all frames, and other air in each; (T, B, y, x).

    ``again`` says that a date is there more than once; it mostly looks different each time.
    """
    out = pixels.copy()
    if random.random() < shares.brightness:
        out *= np.float32(random.uniform(0.7, 1.3))
    if random.random() < (1 - shares.identical if again else shares.haze):
        each = (len(out), 1, 1, 1)
        out *= random.uniform(0.9, 1.1, each).astype(np.float32)
        out += random.uniform(0, 150, each).astype(np.float32)
        noise_dn = random.choice([0, 15, 40])
        if noise_dn:
            out += noise_dn * random.standard_normal(out.shape, np.float32)
    return out.clip(LOWEST, HIGHEST)


def gaps(shape: tuple[int, int, int], shares: Shares, random: Generator) -> Mask:
    """Holes that satellites leave, bool (T, y, x): edges of a swath, and dates without a pixel."""
    frames, height, width = shape
    hole = np.zeros(shape, bool)
    if random.random() < shares.swath:
        angle, reach = random.uniform(0, 2 * np.pi), min(height, width) / 2
        y, x = np.ogrid[:height, :width]
        across = (y - height / 2) * np.sin(angle) + (x - width / 2) * np.cos(angle)
        beyond = across > random.uniform(-0.8, 0.9) * reach
        hole[random.random(frames) < 0.5] = beyond
        hole[random.integers(frames)] = beyond
    if frames > 1 and random.random() < shares.missing:
        hole[random.integers(frames)] = True
    return hole


def filled(pixels: Numbers, hole: Mask) -> Numbers:
    """Fill as the codec does (`xtec.fill`), but once for all bands that have the same holes."""
    alike: dict[bytes, list[int]] = {}
    for band in range(pixels.shape[1]):
        alike.setdefault(hole[:, band].tobytes(), []).append(band)
    out = pixels.copy()
    # What is copied are numbers of pixels, counted from 1; 0 stands for nothing to copy.
    numbers = np.arange(1, pixels[:, 0].size + 1, dtype=np.float32).reshape(pixels[:, :1].shape)
    for bands in alike.values():
        if hole[:, bands[0]].any():
            source = fill(numbers, hole[:, bands[:1]])[:, 0].astype(np.int64)
            for band in bands:
                out[:, band] = np.append(np.float32(0), pixels[:, band])[source]
    return out
