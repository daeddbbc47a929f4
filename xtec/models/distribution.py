"""From a predicted mean and scale to what the entropy coder takes: a centre and a table row.

Below: coding.tables, exact. Above: prior, context_exact.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from xtec.coding.tables import FRACTION_BITS, load
from xtec.models.exact import ONE

BINS = 1 << FRACTION_BITS
LARGEST_MEAN = 2**24


@dataclass(frozen=True)
class Distribution:
    """How some latents are coded; two tensors of their shape."""

    centre: Tensor
    """int32: what is subtracted from a latent before it is coded."""
    row: Tensor
    """int32: row of the frequency tables."""


class Rows:
    """The tables' geometry on one device.

    Parameters
    ----------
    scale_map : str
        What a scale s stands for, see ``ModelConfig.scale_map``.
    device : torch.device
    """

    def __init__(self, scale_map: str, device: torch.device) -> None:
        tables = load()
        self.edges = torch.tensor(tables.scale_edges[scale_map], dtype=torch.float32, device=device)
        self.first_row, self.shift = (
            torch.tensor(x, dtype=torch.int32, device=device)
            for x in (tables.first_row, tables.shift)
        )

    def __call__(self, mean: Tensor, scale: Tensor) -> Distribution:
        """Give the rows of fixed-point means (float64) and scales (float32)."""
        # From 1/1024 to 1/64; then the whole part is the centre, the rest the fraction.
        mean = torch.floor((mean + ONE / BINS / 2) / (ONE / BINS)) + BINS // 2
        mean = mean.clamp(-LARGEST_MEAN, LARGEST_MEAN).int()
        index = torch.bucketize(scale, self.edges, right=True)
        row = self.first_row[index] + ((mean & (BINS - 1)) >> self.shift[index])
        return Distribution(mean >> FRACTION_BITS, row)
