"""Crops as the transformer is trained on them: quantised, and stacked.

Letters: M chunks, T frames, N blocks, K components, S frequencies.

Below: models.spectrum, sampler. Above: loss, evaluate, loop.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from xtec.models.analysis import analyse
from xtec.models.config import LappedConfig
from xtec.models.frequencies import OCTAVES, SIZES
from xtec.models.lapped import SIDE
from xtec.models.spectrum import Latents, Spectrum
from xtec.train.sampler import Draw

FREQUENCIES_OF_A_STEP = (1, 8, 20, 32)
"""How many frequencies of each octave a step of training looks at: the rest would say much the
same, at the price of more steps."""


@dataclass(frozen=True)
class Batch:
    """Chunks of one shape and one setting."""

    latents: list[Tensor]
    """Per octave, float32 with integer values, (M, T, N, K, S)."""
    energies: Tensor
    """Int64, (M, T, octave, component); 0 where there is no component."""
    level: Tensor
    """Int64, (M,)."""
    before: Tensor
    """Int64, (M, T, lags): earlier frames, -1 for none."""
    turns: list[Tensor]
    """Per octave, float32, (M, T, lags, K, K)."""
    shape: tuple[int, int]
    """Rows and columns of blocks."""
    some: list[Tensor]
    """Per octave: the frequencies that count."""
    numbers: int
    """Pixels times bands of all chunks."""

    @property
    def blocks(self) -> int:
        """Blocks of all chunks and frames."""
        return int(np.prod(self.latents[0].shape[:3]))

    def to(self, device: torch.device) -> "Batch":
        """Give the batch on a device."""
        return dataclasses.replace(
            self,
            latents=[q.to(device) for q in self.latents],
            energies=self.energies.to(device),
            level=self.level.to(device),
            before=self.before.to(device),
            turns=[t.to(device) for t in self.turns],
            some=[f.to(device) for f in self.some],
        )


def make(draw: Draw, config: LappedConfig, some: Sequence[Tensor] | None = None) -> Batch:
    """Quantise the crops of a batch as the codec does.

    Parameters
    ----------
    draw : Draw
    config : LappedConfig
    some : per octave, int, optional
        The frequencies that count; all where it is left out.
    """
    found = [analyse(torch.from_numpy(crop), draw.level, config.lags) for crop in draw.crops]
    height, width = draw.crops[0].shape[2:]
    return Batch(
        *latents_of(found, draw.level, (height // SIDE, width // SIDE), config),
        some=[torch.arange(s) for s in SIZES] if some is None else list(some),
        numbers=sum(crop.size for crop in draw.crops),
    )


def latents_of(
    found: Sequence[tuple[Spectrum, Sequence[Latents]]],
    level: int,
    shape: tuple[int, int],
    config: LappedConfig,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor, list[Tensor], tuple[int, int]]:
    """What the transformer takes, of chunks as `analyse` gives them; the first fields of Batch."""
    spectra, latents = [s for s, _ in found], [q for _, q in found]
    counts = [max(1, *(q[o].shape[1] for chunk in latents for q in chunk)) for o in range(OCTAVES)]
    return (
        [_stacked(latents, octave, count) for octave, count in enumerate(counts)],
        torch.stack([_energies(spectrum, config.components) for spectrum in spectra]),
        torch.full((len(found),), level),
        torch.stack([_before(spectrum, config.lags) for spectrum in spectra]),
        [_turns(spectra, octave, count, config.lags) for octave, count in enumerate(counts)],
        shape,
    )


def some_frequencies(seed: int, number: int) -> list[Tensor]:
    """Those of one step of training."""
    random = np.random.default_rng((seed, number, 1))
    return [
        torch.from_numpy(random.permutation(size)[:count])
        for size, count in zip(SIZES, FREQUENCIES_OF_A_STEP, strict=True)
    ]


def _stacked(latents: Sequence[Sequence[Latents]], octave: int, count: int) -> Tensor:
    """Latents of all chunks and frames, with zeros where one has fewer components."""
    frames = [frame[octave] for chunk in latents for frame in chunk]
    padded = [functional.pad(q, (0, 0, 0, count - q.shape[1])) for q in frames]
    return torch.stack(padded).view(len(latents), -1, *padded[0].shape)


def _energies(spectrum: Spectrum, components: int) -> Tensor:
    out = torch.zeros(len(spectrum.frames), OCTAVES, components, dtype=torch.int64)
    for rows, frame in zip(out, spectrum.frames, strict=True):
        for row, energies in zip(rows, frame.energies, strict=True):
            row[: len(energies)] = torch.from_numpy(energies)
    return out


def _before(spectrum: Spectrum, lags: int) -> Tensor:
    out = torch.full((len(spectrum.frames), lags), -1)
    for row, frame in zip(out, spectrum.frames, strict=True):
        row[: len(frame.references)] = torch.tensor(frame.references)
    return out


def _turns(spectra: list[Spectrum], octave: int, count: int, lags: int) -> Tensor:
    out = torch.zeros(len(spectra), len(spectra[0].frames), lags, count, count)
    for chunk, spectrum in zip(out, spectra, strict=True):
        for now, frame in enumerate(chunk):
            for place, number in zip(frame, spectrum.frames[now].references, strict=False):
                turn, bits = spectrum.turn(octave, now, number)
                place[: turn.shape[0], : turn.shape[1]] = torch.from_numpy(turn * 2.0**-bits)
    return out
