"""Rate-distortion curves: points, interpolation between them, Bjontegaard's mean difference.

Below: xtec.metrics. Above: rate_distortion.
"""

import functools
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from xtec.metrics import Comparison, compare
from xtec.pixels import Pixels

RANGE_DN = (0, 10_000)
"""Where errors count: both cubes are clipped to it."""


@dataclass(frozen=True)
class Point:
    """What one setting of a codec gave; points of two cubes add up."""

    stored_bytes: int
    quality: Comparison

    def __add__(self, other: "Point") -> "Point":
        """Both cubes together."""
        return Point(self.stored_bytes + other.stored_bytes, self.quality + other.quality)

    @property
    def bpppb(self) -> float:
        """Bits per pixel and band."""
        return 8 * self.stored_bytes / int(self.quality.count.sum())

    @property
    def psnr(self) -> float:
        """PSNR in dB over 10,000 DN, squared errors pooled over bands and cubes."""
        return self.quality.psnr_pooled


def point(stored_bytes: int, cube: Pixels, decoded: Pixels) -> Point:
    """Compare what came back with what went in."""
    return Point(stored_bytes, compare(cube.clip(*RANGE_DN), decoded.clip(*RANGE_DN)))


def pooled(points: Iterable[Point]) -> Point:
    """All cubes as one."""
    return functools.reduce(operator.add, points)


@dataclass(frozen=True)
class Curve:
    """The points of one codec; those that cost more without being better do not count."""

    points: tuple[Point, ...]

    @property
    def best(self) -> list[Point]:
        """From low to high rate, each better than the one before."""
        kept: list[Point] = []
        for p in sorted(self.points, key=lambda p: p.bpppb):
            if not kept or p.psnr > kept[-1].psnr:
                kept.append(p)
        return kept

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest PSNR in dB."""
        return self.best[0].psnr, self.best[-1].psnr

    @property
    def ends(self) -> str:
        """First and last point, for a table."""
        return " to ".join(f"{p.bpppb:.4f} @ {p.psnr:.1f}" for p in (self.best[0], self.best[-1]))

    def rate(self, psnr: float) -> float:
        """Bits per pixel and band at a PSNR; NaN beyond the ends. Linear in log rate."""
        low, high = self.span
        if not low <= psnr <= high:
            return math.nan
        return math.exp(np.interp(psnr, *self.log_rates()))

    def log_rates(self) -> tuple[list[float], list[float]]:
        """PSNR, rising, and the natural logarithm of the rate at each."""
        return [p.psnr for p in self.best], [math.log(p.bpppb) for p in self.best]

    def mean_log_rate(self, low: float, high: float) -> float:
        """Mean over a range of PSNR that the curve covers; PCHIP between its points."""
        cubic = PchipInterpolator(*self.log_rates())
        return float(cubic.integrate(low, high)) / (high - low)


@dataclass(frozen=True)
class Difference:
    """Bjontegaard's: how many more bits one curve needs than another, at equal PSNR."""

    rate: float
    """-0.3: 30 % fewer bits than the anchor. NaN where the curves share no range."""
    low: float
    """The range of PSNR in dB that both reach, within the one asked for."""
    high: float

    def __str__(self) -> str:
        """As it stands in a table."""
        if math.isnan(self.rate):
            return "no common range"
        return f"{self.rate:+.1%} ({self.low:.1f} to {self.high:.1f} dB)"


def bd_rate(curve: Curve, anchor: Curve, low: float = 0.0, high: float = 100.0) -> Difference:
    """Compare two curves between two PSNR in dB, as far as both reach."""
    low, high = max(low, curve.span[0], anchor.span[0]), min(high, curve.span[1], anchor.span[1])
    if low >= high:
        return Difference(math.nan, low, high)
    difference = curve.mean_log_rate(low, high) - anchor.mean_log_rate(low, high)
    return Difference(math.expm1(difference), low, high)
