"""Noise that is the same, bit for bit, on every machine and with every numpy.

Random numbers are hashes of integer coordinates, so a pixel's value does not depend on the size
of the picture around it. Everything else is made of additions, multiplications, divisions and
square roots, one array at a time: IEEE 754 rounds each of them in one way only. No library
function whose last digit differs between machines (exp, sin, power), no float sums of many.

Below: numpy. Above: sample.land, sample.sky.
"""

from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]

_WORD = (1 << 64) - 1


def key(seed: int, *names: object) -> int:
    """Return a 64-bit key for a seed and a purpose; different names, different noise."""
    purpose = crc32("/".join(map(str, names)).encode())
    return (seed * 0x9E3779B97F4A7C15 + purpose * 0xD1B54A32D192ED03) & _WORD


def hashed(key: int, *index: NDArray[np.integer]) -> Hashes:
    """Hash integer arrays that broadcast against each other to 64 bits (SplitMix64)."""
    out = np.atleast_1d(np.asarray(key & _WORD, dtype=np.uint64))
    for each in index:
        out = out + np.asarray(each).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out = out ^ (out >> np.uint64(31))
    return out


def uniform(hashes: Hashes, draw: int = 0) -> Floats:
    """Turn hashes to numbers in [0, 1); each `draw` (0 to 3) uses other 16 bits of them."""
    return ((hashes >> np.uint64(16 * draw)) & np.uint64(0xFFFF)).astype(np.float64) / 65536


def normal(hashes: Hashes) -> Floats:
    """Turn hashes to numbers of mean 0 and deviation 1, nearly normal: a sum of four uniforms."""
    total = uniform(hashes, 0) + uniform(hashes, 1) + uniform(hashes, 2) + uniform(hashes, 3)
    return (total - 2) * 1.7320508075688772  # one uniform has the variance 1/12


def smoothstep(low: float, high: float, values: Floats) -> Floats:
    """Rise from 0 at `low` to 1 at `high` without a kink; `low` above `high` falls."""
    ramp = np.clip((values - low) / (high - low), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def gradient_noise(y: Floats, x: Floats, period: float, key: int) -> Floats:
    """Perlin's gradient noise: about -1 to 1, waves of about `period` pixels."""
    y, x = y / period, x / period
    row, column = np.floor(y), np.floor(x)
    dy, dx = y - row, x - column
    first_row, first_column = int(row.min()), int(column.min())
    rows = np.arange(first_row, int(row.max()) + 2)
    columns = np.arange(first_column, int(column.max()) + 2)
    h = hashed(key, rows[:, None], columns[None, :])
    slope_y, slope_x = uniform(h, 0) - 0.5, uniform(h, 1) - 0.5
    i, j = row.astype(np.intp) - first_row, column.astype(np.intp) - first_column
    fade_y, fade_x = dy * dy * (3 - 2 * dy), dx * dx * (3 - 2 * dx)
    out = np.zeros(np.broadcast(y, x).shape)
    for down in (0, 1):
        for right in (0, 1):
            corner = (i + down, j + right)
            weight = (fade_y if down else 1 - fade_y) * (fade_x if right else 1 - fade_x)
            out += weight * (slope_y[corner] * (dy - down) + slope_x[corner] * (dx - right))
    return out * 2.5


def fractal(y: Floats, x: Floats, period: float, key: int, octaves: int = 4) -> Floats:
    """Sum gradient noise of halving period and amplitude: mean 0, deviation about 0.4."""
    out = np.zeros(np.broadcast(y, x).shape)
    for octave in range(octaves):
        out += gradient_noise(y, x, period / 2**octave, key + octave) / 2**octave
    return out


class Cells(NamedTuple):
    """Voronoi cells around one random point per square of a lattice."""

    name: Hashes
    """A random number for the cell that a pixel belongs to."""
    y: Floats
    """Rows from the cell's point."""
    x: Floats
    """Columns from the cell's point."""
    distance: Floats
    """Pixels to the cell's point."""
    border: Floats
    """Pixels, about: how much farther the next point is; 0 on the border of two cells."""


def cells(y: Floats, x: Floats, size: float, key: int) -> Cells:
    """Find the Voronoi cell of each pixel; points stand `size` pixels apart on average."""
    row, column = np.floor(y / size).astype(np.int64), np.floor(x / size).astype(np.int64)
    shape = np.broadcast(y, x).shape
    name, near_y, near_x = np.zeros(shape, np.uint64), np.zeros(shape), np.zeros(shape)
    first, second = np.full(shape, np.inf), np.full(shape, np.inf)
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            h = hashed(key, row + step_y, column + step_x)
            dy = y - (row + step_y + uniform(h, 0)) * size
            dx = x - (column + step_x + uniform(h, 1)) * size
            squared = dy * dy + dx * dx
            closer = squared < first
            second = np.where(closer, first, np.minimum(second, squared))
            first = np.where(closer, squared, first)
            name = np.where(closer, h, name)
            near_y, near_x = np.where(closer, dy, near_y), np.where(closer, dx, near_x)
    distance = np.sqrt(first)
    return Cells(name, near_y, near_x, distance, np.sqrt(second) - distance)
