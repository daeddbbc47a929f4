"""How frames of latents are cut into windows of tokens, and put together again.

A window is 4 x 4 latents, each a token; the transformer sees it with the 8 x 8 latents around it
in the frames before. These are moves of numbers, the same for floats and for exact integers.
Letters as in `network`.

Below: config. Above: network, prior.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from xtec.models.config import WINDOW


def windows(y: Tensor) -> Tensor:
    """[N, C, h, w] -> [N * P, 16, C]: windows row by row, tokens row by row."""
    n, c, h, w = y.shape
    y = y.reshape(n, c, h // WINDOW, WINDOW, w // WINDOW, WINDOW)
    return y.permute(0, 2, 4, 3, 5, 1).reshape(-1, WINDOW * WINDOW, c)


def unwindows(tokens: Tensor, h: int, w: int) -> Tensor:
    """Inverse of `windows`."""
    c = tokens.shape[-1]
    y = tokens.reshape(-1, h // WINDOW, w // WINDOW, WINDOW, WINDOW, c)
    return y.permute(0, 5, 1, 3, 2, 4).reshape(-1, c, h, w)


def context_windows(y: Tensor) -> Tensor:
    """[N, C, h, w] -> [N * P, 64, C]: the 8x8 latents around each window, edges reflected."""
    n, c, _, _ = y.shape
    half = WINDOW // 2
    y = F.pad(y, (half, half, half, half), mode="reflect")
    y = y.unfold(2, 2 * WINDOW, WINDOW).unfold(3, 2 * WINDOW, WINDOW)
    return y.permute(0, 2, 3, 4, 5, 1).reshape(n * y.shape[2] * y.shape[3], -1, c)


def shifted(tokens: Tensor, first: Tensor) -> Tensor:
    """Tokens moved one place back; ``first`` stands in front."""
    front = first.expand(tokens.shape[0], 1, tokens.shape[2])
    return torch.cat([front, tokens[:, :-1]], dim=1)
