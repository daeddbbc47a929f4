"""The order in which the blocks of a frame are coded, and who is known to whom.

The 16 blocks of a 4 x 4 window fall into five groups, from coarse to fine:

    0 4 2 4
    4 3 4 3
    2 4 1 4
    4 3 4 3

All blocks of a group are coded at once. From the second group on, every block has up to four
neighbours of earlier groups on all sides, the far side of a window's border included.

Below: nothing. Above: context, context_exact.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

WINDOW = 4
"""Side of a window, in blocks."""
REACH = WINDOW + 2
"""Side of what a window's blocks attend to: one block more all around."""
GROUP = np.array([[0, 4, 2, 4], [4, 3, 4, 3], [2, 4, 1, 4], [4, 3, 4, 3]])
GROUPS = 5
NEIGHBOURS = (
    (),
    ((-2, -2), (-2, 2), (2, -2), (2, 2)),
    ((-2, 0), (2, 0), (0, -2), (0, 2)),
    ((-1, -1), (-1, 1), (1, -1), (1, 1)),
    ((-1, 0), (1, 0), (0, -1), (0, 1)),
)
"""Per group: where the known neighbours stand, as (rows, columns)."""
COMMON = 12
"""Sums over 1, 2, 3 or 4 neighbours are brought to 12 times the mean: an integer factor."""


@dataclass(frozen=True, eq=False)
class Group:
    """The blocks of one group in a frame of N blocks, window by window."""

    blocks: NDArray[np.int64]
    """Shape (n,): their numbers, row by row in the frame."""
    places: NDArray[np.int64]
    """Shape (n,): where each stands in its window, 0 to 15."""
    neighbours: NDArray[np.int64]
    """Shape (n, 4): blocks known before; N where the frame ends. Group 0: no columns."""
    factor: NDArray[np.int64]
    """Shape (n,): 12 divided by the number of neighbours; 0 without any."""
    known: NDArray[np.int64]
    """Which of a window's 36 attended blocks belong to earlier groups."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The blocks of a frame."""

    rows: int
    columns: int
    groups: tuple[Group, ...]
    reach: NDArray[np.int64]
    """Shape (windows, 36): the blocks that each window attends to; N where the frame ends."""

    @property
    def blocks(self) -> int:
        """N."""
        return self.rows * self.columns

    @property
    def windows(self) -> int:
        """Number of windows."""
        return len(self.reach)


@lru_cache(maxsize=64)
def grid(rows: int, columns: int) -> Grid:
    """Lay out a frame of so many blocks; both numbers are multiples of 4."""
    number = np.full((rows + 4, columns + 4), rows * columns)
    number[2:-2, 2:-2] = np.arange(rows * columns).reshape(rows, columns)
    corners = [(y, x) for y in range(0, rows, WINDOW) for x in range(0, columns, WINDOW)]
    reach = np.stack(
        [number[y + 1 : y + 1 + REACH, x + 1 : x + 1 + REACH].ravel() for y, x in corners]
    )
    return Grid(rows, columns, tuple(_group(g, number, corners) for g in range(GROUPS)), reach)


def _group(g: int, number: NDArray[np.int64], corners: list[tuple[int, int]]) -> Group:
    inside = np.argwhere(g == GROUP)
    at = np.array([(y + r + 2, x + c + 2) for y, x in corners for r, c in inside])
    offsets = np.array(NEIGHBOURS[g], np.int64).reshape(-1, 1, 2)
    neighbours = number[tuple(np.moveaxis(at + offsets, -1, 0))].T
    present = (neighbours < number.max()).sum(1)
    around = np.pad(GROUP, 1, mode="wrap").ravel()
    return Group(
        blocks=number[tuple(at.T)],
        places=np.tile(inside @ (WINDOW, 1), len(corners)),
        neighbours=neighbours,
        factor=np.where(present, COMMON // np.maximum(present, 1), 0),
        known=np.flatnonzero(around < g),
    )


@dataclass(frozen=True, eq=False)
class Whole:
    """All blocks of a frame at once, for training: as `Group`, in the order of their numbers."""

    neighbours: NDArray[np.int64]
    """Shape (N, 4)."""
    factor: NDArray[np.int64]
    """Shape (N,)."""
    group: NDArray[np.int64]
    """Shape (N,): the group of each block."""
    windows: NDArray[np.int64]
    """Shape (windows, 16): the blocks of each window."""
    hidden: NDArray[np.bool_]
    """Shape (16, 36): what a block of a window must not attend to."""


@lru_cache(maxsize=64)
def whole(rows: int, columns: int) -> Whole:
    """Give the groups of `grid` together."""
    made = grid(rows, columns)
    n = made.blocks
    neighbours, factor, group = np.full((n, 4), n), np.zeros(n, int), np.zeros(n, int)
    for number, g in enumerate(made.groups):
        factor[g.blocks], group[g.blocks] = g.factor, number
        if number:
            neighbours[g.blocks] = g.neighbours
    inner = np.arange(REACH**2).reshape(REACH, REACH)[1:-1, 1:-1].ravel()
    around = np.pad(GROUP, 1, mode="wrap").ravel()
    hidden = around[None] >= GROUP.reshape(-1, 1)
    return Whole(neighbours, factor, group, made.reach[:, inner], hidden)
