"""The search for a transform: bits at equal PSNR of linear transforms, before anything is trained.

    python benchmarks/transforms.py

Every candidate turns the bands of the validation cubes, in tiles of 256 pixels, into coefficients
that are rounded in one step and priced with one and the same simple model: the entropy of their
magnitudes given those round about (in space, among the frequencies of their block, in the component
before), counted over all cubes, plus a bit per sign. Side information is not counted: it is told
from the columns of the table how often a basis would have to be sent. The differences between
rows are what counts, not the figures themselves.

Below: data, curves, common, xtec.models.lapped.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import data
import numpy as np
import scipy.fft
import torch
from common import about, parser, table
from numpy.typing import NDArray
from tqdm import tqdm

from xtec.metrics import PEAK_DN
from xtec.models import lapped
from xtec.pixels import Pixels

Coefficients = NDArray[np.float32]
"""Shape (time, block row, block column, component, frequency, frequency)."""

STEPS_DN = (300.0, 500.0, 900.0, 1600.0, 2600.0)
EQUAL_PSNR = 37.0, 40.0, 43.0
TILE = 256
SIDE = lapped.SIDE
MOST = 33
CONTEXTS, COMPONENTS, SIZES = 41, 8, 10


@dataclass(frozen=True)
class Candidate:
    """One way to decorrelate a tile."""

    name: str
    edges: tuple[int, ...]
    """Octaves with a basis of their own begin at these frequencies."""
    scope: str
    """What shares a basis: all "cubes", the frames of a "tile", or nothing but a "frame"."""
    overlap: bool = True
    """The lapped transform, else the DCT of blocks alone."""


CANDIDATES = (
    Candidate("DCT 16 x 16, one basis for all scenes", (0,), "cubes", overlap=False),
    Candidate("DCT 16 x 16, a basis per tile", (0,), "tile", overlap=False),
    Candidate("lapped 16 x 16, one basis for all scenes", (0,), "cubes"),
    Candidate("lapped, a basis per tile", (0,), "tile"),
    Candidate("lapped, a basis per frame", (0,), "frame"),
    Candidate("lapped, per frame and two octaves", (0, 8), "frame"),
    Candidate("lapped, per frame and three octaves", (0, 3, 8), "frame"),
    Candidate("lapped, per frame and four octaves (chosen)", (0, 1, 3, 8), "frame"),
    Candidate("lapped, per frame and five octaves", (0, 1, 3, 8, 11), "frame"),
)


def main() -> None:
    """Run from the command line."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    print(about(options, "torch"))
    tiles = list(_tiles(data.pairs(options.data, quick=options.quick)))
    everything = _covariance([_frequencies(t, overlap=True) for t in tiles])
    rows = []
    for candidate in tqdm(CANDIDATES, leave=False):
        coefficients = [_components(t, candidate, everything) for t in tiles]
        points = [_point(coefficients, step) for step in STEPS_DN]
        bits, psnr = np.log(np.array([p[0] for p in points])), [p[1] for p in points]
        found = [np.exp(np.interp(p, psnr[::-1], bits[::-1], np.nan, np.nan)) for p in EQUAL_PSNR]
        rows.append((candidate.name, *(f"{x:.4f}" for x in found)))
    head = "transform", *(f"bpppb at {p:g} dB" for p in EQUAL_PSNR)
    print(table(head, rows))


def _parser() -> argparse.ArgumentParser:
    made = parser("Bits at equal PSNR of linear transforms.")
    made.add_argument("--quick", action="store_true", help="a third of the cubes")
    return made


def _tiles(cubes: dict[str, Pixels]) -> Iterator[NDArray[np.float32]]:
    for cube in cubes.values():
        for y in range(0, cube.shape[2], TILE):
            for x in range(0, cube.shape[3], TILE):
                tile = cube[:, :, y : y + TILE, x : x + TILE].astype(np.float32)
                yield tile - tile.mean((0, 2, 3), keepdims=True)


def _frequencies(tile: NDArray[np.float32], *, overlap: bool) -> Coefficients:
    """Shape (time, block row, block column, band, frequency, frequency)."""
    t, b, h, w = tile.shape
    blocks = t, b, h // SIDE, SIDE, w // SIDE, SIDE
    if overlap:
        found = lapped.forward(torch.from_numpy(tile)).numpy().reshape(blocks)
    else:
        found = scipy.fft.dctn(tile.reshape(blocks), axes=(3, 5), norm="ortho")
    return found.transpose(0, 2, 4, 1, 3, 5)


def _covariance(all_frequencies: list[Coefficients]) -> NDArray[np.float64]:
    flat = [np.moveaxis(f, 3, 0).reshape(f.shape[3], -1).astype(float) for f in all_frequencies]
    return sum(f @ f.T for f in flat)


def _components(
    tile: NDArray[np.float32], candidate: Candidate, everything: NDArray[np.float64]
) -> Coefficients:
    """Principal components instead of bands."""
    found = _frequencies(tile, overlap=candidate.overlap)
    larger = np.maximum.outer(np.arange(SIDE), np.arange(SIDE))
    octave = np.searchsorted(candidate.edges, larger, side="right")
    groups = [[t] for t in range(len(found))] if candidate.scope == "frame" else [slice(None)]
    out = np.empty_like(found)
    for frames in groups:
        for number in np.unique(octave):
            here = found[frames][..., octave == number]
            own = _covariance([here]) if candidate.scope != "cubes" else everything
            basis = np.linalg.eigh(own)[1][:, ::-1].T.astype(np.float32)
            turned = np.einsum("kb,thwbf->thwkf", basis, here, optimize=True)
            part = out[frames]
            part[..., octave == number] = turned
            out[frames] = part
    return out


def _point(coefficients: list[Coefficients], step: float) -> tuple[float, float]:
    """Bits per pixel and band, and PSNR, of all tiles at one step."""
    error, count, signs = 0.0, 0, 0.0
    seen = np.zeros(COMPONENTS * SIZES * CONTEXTS * (MOST + 1))
    for z in coefficients:
        q = np.rint(z / step)
        error += float(np.square(z - q * step).sum())
        count += q.size
        magnitude = np.abs(q)
        large = magnitude[magnitude >= MOST]
        signs += np.count_nonzero(q) + 2 * np.log2(large - MOST + 2).sum()
        symbols = np.minimum(magnitude, MOST).astype(int)
        seen += np.bincount(
            (_context(magnitude) * (MOST + 1) + symbols).ravel(), minlength=len(seen)
        )
    table_of = seen.reshape(-1, MOST + 1)
    share = table_of / np.maximum(table_of.sum(1, keepdims=True), 1)
    entropy = -(table_of * np.log2(np.maximum(share, 1e-30))).sum()
    return (entropy + signs) / count, 10 * np.log10(PEAK_DN**2 / (error / count))


def _context(magnitude: Coefficients) -> NDArray[np.int64]:
    """What a magnitude is priced by: the weighted mean of those known before it."""
    around = np.pad(magnitude, ((0, 0), (1, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    blocks = 2 * around[:, 1:, :-2] + 2 * around[:, :-1, 1:-1]
    blocks = (blocks + around[:, :-1, :-2] + around[:, :-1, 2:]) / 6
    lower = np.pad(magnitude, ((0, 0),) * 4 + ((2, 0), (2, 0)))
    inside = 2 * lower[..., 1:-1, 2:] + 2 * lower[..., 2:, 1:-1] + lower[..., 1:-1, 1:-1]
    inside = (inside + lower[..., :-2, 2:] + lower[..., 2:, :-2]) / 7
    before = np.pad(magnitude, ((0, 0),) * 3 + ((1, 0), (0, 0), (0, 0)))[:, :, :, :-1]
    mean = 0.45 * blocks + 0.45 * inside + 0.1 * before
    level = np.clip(np.rint(3 * np.log2(mean + 0.02) + 17), 0, CONTEXTS - 1).astype(int)
    u = np.arange(SIDE)
    size = np.minimum(np.rint(2 * np.log2(1 + u[:, None] + u)), SIZES - 1).astype(int)
    component = np.minimum(np.arange(magnitude.shape[3]), COMPONENTS - 1)
    key: NDArray[np.int64] = (component[:, None, None] * SIZES + size) * CONTEXTS + level
    return key


if __name__ == "__main__":
    main()
