"""Rate-distortion curves: points, interpolation between them, Bjontegaard's mean difference.

Below: quality. Above: measure, report, picture, throughput.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quality import Quality, assess
from scipy.interpolate import PchipInterpolator

from xtec.pixels import Pixels

GRID_DB = 0.05
"""How finely the worst point of a range is looked for."""


@dataclass(frozen=True)
class Point:
    """What one setting of a codec gave; points of two cubes add up."""

    stored_bytes: int
    quality: Quality

    def __add__(self, other: "Point") -> "Point":
        """Both cubes together."""
        return Point(self.stored_bytes + other.stored_bytes, self.quality + other.quality)

    @property
    def bpppb(self) -> float:
        """Bits per pixel and band."""
        return 8 * self.stored_bytes / self.quality.count

    @property
    def psnr(self) -> float:
        """PSNR in dB over 10,000 DN, squared errors pooled over bands and cubes."""
        return self.quality.psnr_pooled

    @property
    def psnr_mean(self) -> float:
        """Mean of the bands' PSNR in dB."""
        return self.quality.psnr_mean


def point(stored_bytes: int, cube: Pixels, decoded: Pixels) -> Point:
    """Compare what came back with what went in."""
    return Point(stored_bytes, assess(cube, decoded))


def pooled(points: Iterable[Point]) -> Point:
    """All cubes as one."""
    return functools.reduce(operator.add, points)


@dataclass(frozen=True)
class Curve:
    """The points of one codec; those that cost more without being better do not count."""

    points: tuple[Point, ...]
    psnr_of: Callable[[Point], float] = operator.attrgetter("psnr")
    """Which PSNR: that of all bands pooled, or the mean of the bands'."""

    @functools.cached_property
    def best(self) -> list[Point]:
        """From low to high rate, each better than the one before."""
        kept: list[Point] = []
        for p in sorted(self.points, key=lambda p: p.bpppb):
            if not kept or self.psnr_of(p) > self.psnr_of(kept[-1]):
                kept.append(p)
        return kept

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest PSNR in dB."""
        return self.psnr_of(self.best[0]), self.psnr_of(self.best[-1])

    @property
    def ends(self) -> str:
        """First and last point, for a table."""
        ends = self.best[0], self.best[-1]
        return " to ".join(f"{p.bpppb:.4f} @ {self.psnr_of(p):.1f}" for p in ends)

    def rate(self, psnr: float) -> float:
        """Bits per pixel and band at a PSNR; NaN beyond the ends. Linear in log rate."""
        low, high = self.span
        if not low <= psnr <= high:
            return math.nan
        return math.exp(np.interp(psnr, *self.log_rates()))

    def fewest(self, psnr: float) -> float:
        """Bits for at least this PSNR: below the curve those of its first point."""
        return self.rate(max(psnr, self.span[0]))

    def at_rate(self, bpppb: float, figure: Callable[[Point], Any]) -> NDArray[np.float64]:
        """A figure at equal bits, linear over log rate between two points; NaN beyond the ends."""
        rates = [math.log(p.bpppb) for p in self.best]
        figures = np.array([figure(p) for p in self.best], np.float64)
        columns = figures.reshape(len(rates), -1).T
        nan = {"left": math.nan, "right": math.nan}
        found = [np.interp(math.log(bpppb), rates, c, **nan) for c in columns]
        return np.array(found).reshape(figures.shape[1:])

    def log_rates(self) -> tuple[list[float], list[float]]:
        """PSNR, rising, and the natural logarithm of the rate at each."""
        return [self.psnr_of(p) for p in self.best], [math.log(p.bpppb) for p in self.best]

    def smooth(self) -> PchipInterpolator:
        """Natural logarithm of the rate over PSNR, PCHIP between the points."""
        return PchipInterpolator(*self.log_rates())


@dataclass(frozen=True)
class Difference:
    """Bjontegaard's: how many more bits one curve needs than another, at equal PSNR."""

    rate: float
    """-0.3: 30 % fewer bits than the anchor. NaN where the curves share no range."""
    low: float
    """The range of PSNR in dB that both reach, within the one asked for."""
    high: float
    worst: float = math.nan
    """The largest difference within the range."""
    worst_at: float = math.nan
    """Where that is, in dB."""

    def __str__(self) -> str:
        """As it stands in a table."""
        if math.isnan(self.rate):
            return "no common range"
        if self.low == self.high:
            return f"{self.rate:+.1%} (at {self.low:.1f} dB alone)"
        return f"{self.rate:+.1%} ({self.low:.1f} to {self.high:.1f} dB)"

    @property
    def worst_point(self) -> str:
        """As it stands in a table."""
        if math.isnan(self.worst):
            return "–"
        return f"{self.worst:+.1%} at {self.worst_at:.1f} dB"


def bd_rate(curve: Curve, anchor: Curve, low: float = 0.0, high: float = 100.0) -> Difference:
    """Compare two curves between two PSNR in dB, as far as both reach."""
    low, high = max(low, curve.span[0], anchor.span[0]), min(high, curve.span[1], anchor.span[1])
    if low >= high:
        return Difference(math.nan, low, high)
    ours, theirs = curve.smooth(), anchor.smooth()
    mean = float(ours.integrate(low, high) - theirs.integrate(low, high)) / (high - low)
    grid = np.linspace(low, high, max(2, round((high - low) / GRID_DB) + 1))
    apart = ours(grid) - theirs(grid)
    worst = int(apart.argmax())
    return Difference(math.expm1(mean), low, high, math.expm1(apart[worst]), float(grid[worst]))


def bd_rate_or_point(curve: Curve, anchor: Curve) -> Difference:
    """The same over all of the range that both reach; where there is none, at one PSNR.

    That is the highest that both reach; a curve that begins above it counts with its first point.
    """
    found = bd_rate(curve, anchor)
    if not math.isnan(found.rate):
        return found
    psnr = min(curve.span[1], anchor.span[1])
    rate = curve.fewest(psnr) / anchor.fewest(psnr) - 1
    return Difference(rate, psnr, psnr, rate, psnr)
