"""Series that never were: a real place on days between two of its dates, with weather.

Long series are rare among training cubes; these teach what stays of a place and what does not.

Letters: T frames, B bands.

Below: nothing. Above: sampler.
"""

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch.nn import functional

Numbers = NDArray[np.float32]
LOWEST, HIGHEST = 1, 20_000
"""Digital numbers of the brightest clouds, about."""
STEADY = 0.5
"""How often the place hardly changes but for light and weather."""
SHIFTED, CLOUDY = 0.7, 0.22
"""How often a date lies a bit aside of the others, and has clouds."""
FADING = 0.7
"""What is left of a change of the ground on the next date."""


def made_up(first: Numbers, last: Numbers, frames: int, random: Generator) -> Numbers:
    """Make so many frames (T, B, side, side) of two (B, side, side) without holes."""
    steady, noise_dn = random.random() < STEADY, random.choice([0, 6, 12, 25])
    grown, days = np.zeros_like(first), []
    for _ in range(frames):
        day = first + _share(first.shape[-1], random, steady=steady) * (last - first)
        if random.random() < SHIFTED:
            day = _shifted(_shifted(day, 1, random), 2, random)
        day *= _each(day, 1, 0.04, random) * np.float32(random.uniform(0.85, 1.15))
        day += np.float32(max(random.normal(0, 120), 0))  # haze
        grown = FADING * grown + _change(day, random)
        day += grown
        if random.random() < CLOUDY:
            day += _cloud(day, random)
        if noise_dn:
            day += noise_dn * random.standard_normal(day.shape, np.float32)
        days.append(day)
    return np.stack(days).clip(LOWEST, HIGHEST)


def _share(side: int, random: Generator, *, steady: bool) -> Numbers:
    """How far each place is on its way from the first date to the last, 0 to 1."""
    if steady:
        return np.array(random.normal(0, 0.1), np.float32).clip(0, 1)
    return (0.5 + np.float32(0.5 * random.random()) * _smooth(side, random)).clip(0, 1)


def _shifted(day: Numbers, axis: int, random: Generator) -> Numbers:
    """Up to half a pixel to one side."""
    n, by = day.shape[axis], np.float32(random.uniform(0, 0.5))
    neighbour = (np.arange(n) + random.choice([-1, 1])).clip(0, n - 1)
    moved: Numbers = day + by * (day.take(neighbour, axis) - day)
    return moved


def _change(day: Numbers, random: Generator) -> Numbers:
    """What has grown since the day before."""
    height_dn = np.float32(random.choice([0, 20, 80]))
    return height_dn * _smooth(day.shape[-1], random) * _each(day, 1, 0.3, random)


def _cloud(day: Numbers, random: Generator) -> Numbers:
    """What clouds add."""
    side = day.shape[-1]
    cover = 1 / (1 + np.exp(-4 * (_smooth(side, random) + np.float32(random.normal()))))
    texture = 600 * _smooth(side, random) + 40 * random.standard_normal((side, side), np.float32)
    white = np.float32(random.uniform(2500, 8000)) * _each(day, 1, 0.08, random)
    added: Numbers = cover * (white + texture - day)
    return added


def _each(day: Numbers, mean: float, deviation: float, random: Generator) -> Numbers:
    """One number for each band."""
    return random.normal(mean, deviation, (len(day), 1, 1)).astype(np.float32)


def _smooth(side: int, random: Generator) -> Numbers:
    """A smooth field (side, side), from about -2 to 2."""
    knots = int(random.integers(2, 9))
    coarse = torch.from_numpy(random.standard_normal((1, 1, knots, knots), np.float32))
    fine = functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)
    field: Numbers = fine[0, 0].numpy()
    return field
