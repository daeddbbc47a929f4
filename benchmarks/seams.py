"""Whether chunks show: errors along their borders against those inside.

Below: coders. Above: rate_distortion, report.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from coders import Block
from numpy.typing import NDArray
from quality import RANGE_DN

from xtec.pixels import Pixels

MARGIN = 8
"""Pixels from a border that count as lying along it."""


@dataclass
class Mean:
    """A mean of squared errors that grows."""

    total: float = 0.0
    count: int = 0

    def add(self, squared: NDArray[np.float64]) -> None:
        """Count more of them."""
        self.total += float(squared.sum())
        self.count += squared.size

    @property
    def rmse(self) -> float:
        """In DN; NaN while there is none."""
        return math.sqrt(self.total / self.count) if self.count else math.nan


@dataclass
class Seams:
    """Squared errors of all cubes at one setting, by where they lie in their chunks."""

    borders: Mean = field(default_factory=Mean)
    """Along any border of a chunk, those of the scene among them."""
    inside: Mean = field(default_factory=Mean)
    """Everywhere else."""
    between: Mean = field(default_factory=Mean)
    """Along borders that have a chunk on either side."""
    inside_several: Mean = field(default_factory=Mean)
    """Inside, in those cubes that have such borders."""

    def add(self, cube: Pixels, decoded: Pixels, blocks: Iterable[Block]) -> None:
        """Count a cube (time, band, y, x) that was coded in these blocks."""
        before, after = (c.clip(*RANGE_DN).astype(np.float64) for c in (cube, decoded))
        squared = np.square(after - before)
        chunks = list(blocks)
        edges = [
            sorted({min(e, size) for c in chunks for e in (c[axis].start, c[axis].stop)})
            for axis, size in ((2, cube.shape[2]), (3, cube.shape[3]))
        ]
        near, inner = _near(edges, cube.shape), _near([e[1:-1] for e in edges], cube.shape)
        self.borders.add(squared[..., near])
        self.inside.add(squared[..., ~near])
        if inner.any():
            self.between.add(squared[..., inner])
            self.inside_several.add(squared[..., ~near])


def _near(edges: list[list[int]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels (y, x) within the margin of an edge along either axis."""
    along = []
    for positions, size in zip(edges, shape[2:], strict=True):
        marked = np.zeros(size, bool)
        for edge in positions:
            marked[max(0, edge - MARGIN) : edge + MARGIN] = True
        along.append(marked)
    return along[0][:, None] | along[1]
