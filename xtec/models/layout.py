"""The coding order of `grid` as tensors on a device.

Below: grid. Above: context_exact.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xtec.models.grid import grid


@dataclass(frozen=True, eq=False)
class DeviceGroup:
    """`grid.Group` on a device."""

    blocks: Tensor
    places: Tensor
    neighbours: Tensor
    factor: Tensor
    missing: Tensor
    known: Tensor

    def around(self, x: Tensor) -> Tensor:
        """12 times the mean over the known neighbours, [N + 1, ...] -> [n, ...]."""
        total = torch.zeros_like(x[self.blocks])
        for column in self.neighbours.T:
            total += x[column]
        return total * self.factor.view(-1, *[1] * (x.dim() - 1))


@dataclass(frozen=True, eq=False)
class Layout:
    """`grid.Grid` on a device."""

    groups: tuple[DeviceGroup, ...]
    reach: Tensor


@lru_cache(maxsize=32)
def layout(rows: int, columns: int, device: torch.device) -> Layout:
    """Lay out a frame of so many blocks; both numbers are multiples of 4."""
    made = grid(rows, columns)

    def there(x: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(device)

    groups = tuple(
        DeviceGroup(
            there(g.blocks),
            there(g.places),
            there(g.neighbours),
            there(g.factor).float(),
            there(g.neighbours) == made.blocks,
            there(g.known),
        )
        for g in made.groups
    )
    return Layout(groups, there(made.reach))
