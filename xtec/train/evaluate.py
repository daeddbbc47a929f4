"""How a network does on cubes that it is not trained on: the same crops every time.

Below: data, augment, batch, loss. Above: loop.
"""

from collections.abc import Sequence

import numpy as np
import torch

from xtec.models.context import ContextTransformer
from xtec.train.augment import Numbers, filled
from xtec.train.batch import make
from xtec.train.data import Cube, holes
from xtec.train.loss import spent
from xtec.train.sampler import Draw

COMPRESSIONS = (1.8, 16.0, 140.0)
SIDE, FRAMES = 256, 6
"""The largest crop."""


def crop(cube: Cube, tile: int) -> Numbers | None:
    """One corner of a cube, some of its dates; None where the cube is smaller than a tile."""
    height, width = (min(SIDE, n - n % tile) for n in cube.pixels.shape[2:])
    if not height * width:
        return None
    frames = np.linspace(0, len(cube.pixels) - 1, min(FRAMES, len(cube.pixels))).round().astype(int)
    raw = cube.pixels[:, :, :height, :width][frames]
    return filled(raw.astype(np.float32), holes(raw))


@torch.no_grad()
def bits_per_number(network: ContextTransformer, crops: Sequence[Numbers]) -> dict[str, float]:
    """Bits of the latents per pixel and band, for some values of the compression.

    What the decorrelation of the bands takes is not among them.
    """
    config, device = network.config, next(network.parameters()).device
    found = {}
    for compression in COMPRESSIONS if crops else ():
        level, total = config.level(compression), 0.0
        for each in crops:
            total += float(spent(network, make(Draw(level, [each]), config).to(device)))
        found[f"{compression:g}"] = total / sum(each.size for each in crops)
    return found
