"""What a decoder must know of a chunk to turn latents into pixels, and the way there.

In each octave of the lapped transform the bands of a frame are turned into principal components
(Karhunen-Loeve), strongest first, and rounded in steps of one size. A frame brings a basis of its
own or takes over that of an earlier frame, whichever costs less. So a chunk adapts to its scene, to
any set of bands and to bands that are coarser than the grid (`analysis`). What a decoder needs for
the way back is a `Spectrum`; that way is exact integer arithmetic.

Letters: T frames, B bands, N blocks of a frame (row by row), K components, S frequencies.

Below: lapped, frequencies, config. Above: analysis, spectrum_code, lapped_model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xtec.models import lapped
from xtec.models.config import LARGEST_STEP_DN, LEVELS_PER_HALVING
from xtec.models.frequencies import FREQUENCIES
from xtec.models.lapped import SIDE

Whole = NDArray[np.int64]
Latents = list[Tensor]
"""Of one frame, one tensor per octave: integer-valued, shape (N, K, S)."""

PIXEL_UNIT = 16
"""Steps per digital number in the integers of the way back."""
STEP_UNIT = 256
"""Steps per digital number of a quantiser step."""
SHIFT_UNIT = 64
"""Steps per quantiser step of `Spectrum.shifts`."""
ENERGY_ZERO = 8
"""Energy of a component that spreads as wide as the step."""
MOST_ENERGY = 63
REFERENCES = 3
"""Earlier frames that foretell a frame, at most, if nothing else is said."""
LEAST_BASIS_BITS = 3
MOST_BASIS_BITS = 12


@dataclass(frozen=True, eq=False)
class Basis:
    """Components as rows over the bands."""

    bits: int
    """The rows are in steps of ``2**-bits``."""
    rows: Whole
    """Shape (K, B); nearly orthonormal."""


@dataclass(frozen=True, eq=False)
class FrameSpectrum:
    """How the bands of one frame were decorrelated; tuples have an entry per octave."""

    means: Whole
    """Shape (B,): mean of the lowest frequency, in quantiser steps."""
    references: tuple[int, ...]
    """Numbers of earlier frames that foretell it, the best first."""
    choices: tuple[int, ...]
    """Which of the chunk's bases it uses: counted from 0, as they appear."""
    energies: tuple[Whole, ...]
    """Shape (K,): 1 to 63, twice the log2 of the spread in steps, plus 8. The frame uses as many
    components; the basis may have more."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """How the bands of a chunk were decorrelated."""

    shifts: Whole
    """Shape (4, 2): how far latents of magnitude 1, and larger ones, lie nearer to zero than
    their number says, in 1/64 step."""
    most_references: int = REFERENCES
    bases: tuple[list[Basis], ...] = field(default_factory=lambda: ([], [], [], []))
    """Per octave, in the order in which frames bring them."""
    frames: list[FrameSpectrum] = field(default_factory=list)

    def basis(self, frame: int, octave: int) -> tuple[Whole, int]:
        """The rows (K, B) that a frame uses, and their bits."""
        used = self.frames[frame]
        basis = self.bases[octave][used.choices[octave]]
        return basis.rows[: len(used.energies[octave])], basis.bits

    def turn(self, octave: int, now: int, then: int) -> tuple[Whole, int]:
        """What turns components of frame ``then`` into those of ``now``: (K, K'), and its bits."""
        new, old = (self.frames[f].choices[octave] for f in (now, then))
        (rows, bits), (old_rows, old_bits) = self.basis(now, octave), self.basis(then, octave)
        if new == old:
            return np.eye(len(rows), len(old_rows), dtype=np.int64), 0
        return rows @ old_rows.T, bits + old_bits


def step_dn(level: int) -> float:
    """The quantiser's step of a setting, in digital numbers."""
    return step_units(level) / STEP_UNIT


def step_units(level: int) -> int:
    """The step in units of 1/256 DN: an integer, the same on every machine."""
    return round(float(LARGEST_STEP_DN * STEP_UNIT * 2 ** (-level / LEVELS_PER_HALVING)))


def synthesise(
    spectrum: Spectrum, latents: Sequence[Latents], level: int, grid: tuple[int, int]
) -> Tensor:
    """Pixels from latents, the same on every machine.

    Parameters
    ----------
    spectrum : Spectrum
    latents : sequence of Latents
        Of each frame.
    level : int
    grid : (rows, columns) of blocks

    Returns
    -------
    float64, shape (T, B, y, x)
        Digital numbers, multiples of 1/16.
    """
    frames = [_bands(spectrum, t, q, step_units(level)) for t, q in enumerate(latents)]
    images = _from_blocks(torch.stack(frames), grid)
    return torch.stack([lapped.inverse(image) for image in images]).div_(PIXEL_UNIT)


def _bands(spectrum: Spectrum, frame: int, latents: Latents, unit: int) -> Tensor:
    """Frequencies of all bands of a frame, (N, B, 256), in 1/16 DN."""
    means = torch.from_numpy(spectrum.frames[frame].means).to(latents[0].device, torch.float64)
    blocks = means.new_zeros(len(latents[0]), len(means), SIDE**2)
    for octave, q in enumerate(latents):
        first, more = (int(s) for s in spectrum.shifts[octave])
        nearer = torch.where(q.abs() == 1, first, more) * q.sign()
        y = (q.double() * SHIFT_UNIT - nearer) * (unit * PIXEL_UNIT / (STEP_UNIT * SHIFT_UNIT))
        y = y.round_().clamp_(-lapped.LIMIT, lapped.LIMIT)
        rows, bits = spectrum.basis(frame, octave)
        bands = (torch.from_numpy(rows).to(y).mT @ y) * 2.0**-bits
        blocks[..., torch.from_numpy(FREQUENCIES[octave]).to(y.device)] = bands.round_()
    blocks[..., 0] += (means * (unit * PIXEL_UNIT / STEP_UNIT)).round_()
    return blocks


def _from_blocks(blocks: Tensor, grid: tuple[int, int]) -> Tensor:
    x: Tensor = blocks.unflatten(1, grid).unflatten(-1, (SIDE, SIDE))
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
