"""The lapped transform: pixels to frequencies in blocks of 16 x 16 that overlap by half.

A pre-filter across each border of two blocks, then a DCT inside every block; both are orthonormal,
so an error is as large in the pixels as in the frequencies. Nothing crosses the border of a chunk.
The way back is computed in integers and gives the same pixels on every machine.

Source: Tran, Liang and Tu, "Lapped transform via time-domain pre- and post-filtering", 2003.

Below: errors. Above: spectrum.
"""

import math
import zlib
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from xtec.errors import ModelError

SIDE = 16
"""Rows and columns of a block."""
MATRIX_UNIT = 2**20
"""Steps per 1 in the integer matrices of `inverse`."""
LIMIT = 2**28
"""Largest magnitude between the steps of `inverse`: its sums stay below 2**53."""
MATRICES_CRC = 0xBE661DA4


def forward(pixels: Tensor) -> Tensor:
    """Frequencies of real images.

    Parameters
    ----------
    pixels : float, shape (..., y, x)
        y and x are multiples of 16.

    Returns
    -------
    float, shape (..., y, x)
        Block for block: frequency (u, v) of the block in row h, column w stands at
        (16 h + u, 16 w + v).
    """
    overlap, dct = (m.to(pixels) for m in _matrices())
    x = _inner(pixels, lambda blocks: blocks @ overlap.mT)
    x = _blocks(x) @ dct.mT
    x = _inner(x.flatten(-2).mT, lambda blocks: blocks @ overlap.mT)
    return (_blocks(x) @ dct.mT).flatten(-2).mT


def inverse(frequencies: Tensor) -> Tensor:
    """Images from integer frequencies, exactly.

    Parameters
    ----------
    frequencies : float64 with integer values, shape (..., y, x)
        Laid out as by `forward`, in any unit; magnitudes are clipped to 2**28.

    Returns
    -------
    float64 with integer values, shape (..., y, x)
        In the same unit.
    """
    overlap, dct = (m.to(frequencies.device) for m in _integer_matrices())

    def along(x: Tensor) -> Tensor:
        x = _rounded(_blocks(x) @ dct).flatten(-2)
        return _inner(x, lambda blocks: _rounded(blocks @ overlap))

    return along(along(frequencies.clamp(-LIMIT, LIMIT)).mT.contiguous()).mT


def _inner(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function to the pieces of the last axis that straddle two blocks."""
    half = SIDE // 2
    inner = function(_blocks(x[..., half:-half])).flatten(-2)
    return torch.cat([x[..., :half], inner, x[..., -half:]], -1)


def _blocks(x: Tensor) -> Tensor:
    blocks: Tensor = x.unflatten(-1, (-1, SIDE))
    return blocks


def _rounded(sums: Tensor) -> Tensor:
    return sums.mul_(1 / MATRIX_UNIT).round_().clamp_(-LIMIT, LIMIT)


@lru_cache(maxsize=1)
def _matrices() -> tuple[Tensor, Tensor]:
    """The pre-filter and the DCT, float64, shape (16, 16) each, orthonormal."""
    half = SIDE // 2
    flip, one = torch.eye(half, dtype=torch.float64).flip(0), torch.eye(half, dtype=torch.float64)
    butterfly = torch.cat([torch.cat([one, flip], 1), torch.cat([flip, -one], 1)]) / math.sqrt(2)
    middle = torch.block_diag(one, flip @ _cosines(half, 2).mT @ _cosines(half, 4) @ flip)
    return butterfly @ middle @ butterfly, _cosines(SIDE, 2)


def _cosines(n: int, kind: int) -> Tensor:
    """The orthonormal DCT of type 2 or 4."""
    shift = {2: 0.0, 4: 0.5}[kind]
    rows = [
        [math.cos(math.pi / n * (k + shift) * (i + 0.5)) * math.sqrt(2 / n) for i in range(n)]
        for k in range(n)
    ]
    matrix = torch.tensor(rows, dtype=torch.float64)
    if kind == 2:
        matrix[0] /= math.sqrt(2)
    return matrix


@lru_cache(maxsize=1)
def _integer_matrices() -> tuple[Tensor, Tensor]:
    """The same in steps of 2**-20; no entry lies near enough to a tie for a libm to matter."""
    overlap, dct = (m.mul(MATRIX_UNIT).round_() for m in _matrices())
    crc = zlib.crc32(torch.stack([overlap, dct]).to(torch.int32).numpy().tobytes())
    if crc != MATRICES_CRC:
        raise ModelError(
            f"the lapped transform comes out with CRC {crc:#x} on this machine, not "
            f"{MATRICES_CRC:#x}: its mathematical library is broken, and nothing can be decoded."
        )
    return overlap, dct
