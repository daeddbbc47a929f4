"""Pixels of a chunk to components and to latents: what only an encoder does.

Each frame chooses its bases and the earlier frames that foretell it by guesses of the bits that
they save. `decompose` stops before anything is rounded: the codec rounds latent by latent, when it
knows what each costs (`rounding`). `analyse` rounds by a guess; training needs no more.

Letters: T frames, B bands, N blocks of a frame (row by row), K components, S frequencies.

Below: spectrum, lapped, frequencies. Above: lapped_model, train.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xtec.models import lapped
from xtec.models.frequencies import FREQUENCIES, OCTAVES
from xtec.models.lapped import SIDE
from xtec.models.spectrum import (
    ENERGY_ZERO,
    LEAST_BASIS_BITS,
    MOST_BASIS_BITS,
    MOST_ENERGY,
    REFERENCES,
    SHIFT_UNIT,
    Basis,
    FrameSpectrum,
    Latents,
    Spectrum,
    Whole,
    step_dn,
)

Components = list[Tensor]
"""Of one frame, one real tensor per octave: in quantiser steps, shape (N, K, S)."""

ENERGY_BITS = 3
"""What an energy costs, about."""
WORTHWHILE = 0.2
"""Share of its bits that a frame must save to be told of another one."""
CANDIDATES = 3
"""Earlier bases that a frame tries."""
BIT = 0.16
"""What a bit is worth in squared error, in squared steps; rounding balances the two."""


def decompose(
    pixels: Tensor, level: int, references: int = REFERENCES
) -> tuple[Spectrum, list[Components]]:
    """Decorrelate a chunk.

    Parameters
    ----------
    pixels : float32, shape (T, B, y, x)
        Digital numbers without holes; y and x are multiples of 16.
    level : int
        Setting.
    references : int
        Earlier frames that foretell a frame, at most.

    Returns
    -------
    spectrum : Spectrum
        Its shifts are still to be found (`shifts`).
    components : list of Components
        Of each frame.
    """
    grid = pixels.shape[2] // SIDE, pixels.shape[3] // SIDE
    frames = _to_blocks(lapped.forward(pixels)) / step_dn(level)
    which = [torch.from_numpy(f).to(pixels.device) for f in FREQUENCIES]
    spectrum, components = Spectrum(np.zeros((OCTAVES, 2), np.int64), references), []
    for number, blocks in enumerate(frames):
        means = blocks[..., 0].mean(0).round()
        blocks[..., 0] -= means
        told = _references(blocks, frames[:number], which, references)
        found = [
            _octave(blocks[..., f], grid, bases)
            for f, bases in zip(which, spectrum.bases, strict=True)
        ]
        choices, energies, real = zip(*found, strict=True)
        spectrum.frames.append(
            FrameSpectrum(means.cpu().numpy().astype(np.int64), told, choices, energies)
        )
        components.append(list(real))
    return spectrum, components


def analyse(
    pixels: Tensor, level: int, references: int = REFERENCES
) -> tuple[Spectrum, list[Latents]]:
    """Decorrelate and quantise a chunk; see `decompose`."""
    grid = pixels.shape[2] // SIDE, pixels.shape[3] // SIDE
    spectrum, components = decompose(pixels, level, references)
    latents = [[_quantise(y, _bits(y, grid)) for y in frame] for frame in components]
    spectrum.shifts[:] = shifts(components, latents)
    return spectrum, latents


def shifts(components: list[Components], latents: list[Latents]) -> Whole:
    """How much nearer to zero than their latents components lie, see `Spectrum.shifts`."""
    nearer = [_Nearer() for _ in range(OCTAVES)]
    for real, quantised in zip(components, latents, strict=True):
        for n, y, q in zip(nearer, real, quantised, strict=True):
            n.add(q, y)
    return np.array([n.means() for n in nearer], np.int64)


def _to_blocks(image: Tensor) -> Tensor:
    """(T, B, y, x) -> (T, N, B, 256)."""
    x: Tensor = image.unflatten(-1, (-1, SIDE)).unflatten(-3, (-1, SIDE))
    return x.permute(0, 2, 4, 1, 3, 5).flatten(4).flatten(1, 2)


def _references(now: Tensor, before: Tensor, which: list[Tensor], most: int) -> tuple[int, ...]:
    """Numbers of the earlier frames (T, N, B, 256) that are most like this one (N, B, 256).

    The bits that a frame saves are guessed from the energy it leaves, block by block and octave by
    octave, when it is subtracted with the share that fits best. A block may do without it.
    """
    own, saved = 0.0, np.zeros(len(before))
    for frequencies in which:
        x = now[..., frequencies]
        size = x[0].numel()
        energy = x.square().mean((1, 2))
        own += size * float(torch.log2(1 + energy).sum())
        for number, frame in enumerate(before):
            y = frame[..., frequencies]
            share = (x * y).sum() / y.square().sum().clamp(min=1)
            left = (x - share * y).square().mean((1, 2))
            gain = torch.log2((1 + energy) / (1 + left)).clamp(min=0)
            saved[number] += size * float(gain.sum())
    best = np.argsort(-saved, kind="stable")[:most]
    return tuple(int(n) for n in best if saved[n] > WORTHWHILE * own)


def _octave(x: Tensor, grid: tuple[int, int], bases: list[Basis]) -> tuple[int, Whole, Tensor]:
    """Choice of a basis, energies and components of one octave (N, B, S), in steps.

    A new basis is appended to ``bases``.
    """
    rows = x.movedim(1, 0).flatten(1).double()
    covariance = (rows @ rows.mT).cpu().numpy()
    values, vectors = np.linalg.eigh(covariance)
    own, strongest = vectors.T[::-1], math.sqrt(max(values[-1], 0) / rows.shape[1])
    # Errors of the basis leak from the strongest component into the others: keep that below a step.
    bits = math.ceil(math.log2(max(strongest, 1e-9))) + 2
    bits = min(max(bits, LEAST_BASIS_BITS), MOST_BASIS_BITS)
    fresh = Basis(bits, np.rint(own * 2.0**bits).astype(np.int64))
    candidates = [(number, bases[number], 0) for number in range(len(bases))][-CANDIDATES:]
    candidates.append((len(bases), fresh, x.shape[1] * (bits + 1)))
    tried = [
        (_worth(_components(x, b.rows, b.bits), _explained(covariance, b), grid, row), n, b)
        for n, b, row in candidates
    ]
    (_, kept), choice, basis = max(tried, key=lambda t: t[0][0])
    if choice == len(bases):
        bases.append(Basis(bits, fresh.rows[:kept]))
    y = _components(x, basis.rows[:kept], basis.bits)
    spread = y.square().mean((0, 2)).sqrt().cpu().numpy().clip(1e-9)
    energies = (np.rint(2 * np.log2(spread)) + ENERGY_ZERO).clip(1, MOST_ENERGY)
    return choice, energies.astype(np.int64), y


def _components(x: Tensor, rows: Whole, bits: int) -> Tensor:
    """Coordinates (N, K, S) of (N, B, S) in a basis that is only nearly orthonormal."""
    if not len(rows):
        return x[:, :0]
    inverse = torch.from_numpy(np.linalg.pinv(rows.T * 2.0**-bits)).to(x)
    return torch.matmul(inverse, x)


def _explained(covariance: NDArray[np.float64], basis: Basis) -> NDArray[np.float64]:
    """Energy that each component adds to those before it; the rows are only nearly orthonormal."""
    axes, _ = np.linalg.qr(basis.rows.T.astype(float))
    energy: NDArray[np.float64] = np.einsum("bk,bc,ck->k", axes, covariance, axes)
    return energy


def _worth(
    y: Tensor, explained: NDArray[np.float64], grid: tuple[int, int], row_bits: int
) -> tuple[float, int]:
    """How many of the components to keep, and the bits they are worth.

    Each saves error and costs its latents, its energy and its row of the basis.
    """
    if not y.shape[1]:
        return 0.0, 0
    bits = _bits(y, grid)
    q = _quantise(y, bits)
    left = (y - q).square().sum((0, 2)).double().cpu().numpy()
    # What is not 0 costs as a one does, and for its size.
    sizes = q.abs()
    ones = sizes.sign().sum(-1, keepdim=True)
    doublings = sizes.clamp_(min=1).log2_().sum(-1, keepdim=True)
    spent = (bits * ones + 2 * doublings).sum((0, 2)).double().cpu().numpy()
    gain = (explained - left) / BIT - spent
    total = np.append(0, np.cumsum(gain - ENERGY_BITS - row_bits))
    kept = int(np.argmax(total))
    return float(total[kept]), kept


def _bits(y: Tensor, grid: tuple[int, int]) -> Tensor:
    """What a one costs, (N, K, 1): for a Laplacian of the mean magnitude round about."""
    if not y.shape[1]:
        return y[..., :1]
    own = y.abs().mean(-1).mT.unflatten(-1, grid)  # K rows columns
    around = functional.avg_pool2d(own, 3, stride=1, padding=1, count_include_pad=False)
    local: Tensor = ((own + around) / 2).flatten(-2).mT[..., None]
    return 1 + 0.5 * math.log2(math.e) / local.clamp(min=0.02)


def _quantise(y: Tensor, bits: Tensor) -> Tensor:
    """Round to integers, to zero where a one would cost more bits than it is worth."""
    magnitude = y.abs()
    threshold = (0.5 + BIT / 2 * bits).clamp(max=0.95)
    # Two and more are above every threshold, and a zero is below.
    whole = torch.floor(magnitude + (0.5 - BIT / 2)).mul_(magnitude > threshold)
    return whole.mul_(y.sign())


class _Nearer:
    """Collects how much nearer to zero than their latents the components of an octave lie."""

    def __init__(self) -> None:
        self.sums, self.counts = [0.0, 0.0], [0, 0]

    def add(self, q: Tensor, y: Tensor) -> None:
        magnitude = q.abs()
        distance, ones = magnitude - y * q.sign(), magnitude == 1
        found = float((distance * ones).sum()), int(ones.sum())
        # Of a zero the distance is 0.
        larger = float(distance.sum()) - found[0], int(torch.count_nonzero(q)) - found[1]
        for i, (total, count) in enumerate((found, larger)):
            self.sums[i] += total
            self.counts[i] += count

    def means(self) -> list[int]:
        """In 1/64 step, for latents of magnitude 1 and for larger ones."""
        limit = SHIFT_UNIT // 2
        means = (s / max(n, 1) for s, n in zip(self.sums, self.counts, strict=True))
        return [max(min(round(mean * SHIFT_UNIT), limit), -limit) for mean in means]
