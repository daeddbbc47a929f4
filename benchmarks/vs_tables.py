"""The tables of `vs_terracodec`, in Markdown.

Below: products, side, common, xtec.coding.tables, xtec.metrics. Above: vs_terracodec.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import products
from common import table
from numpy.typing import NDArray
from side import Usage

from xtec.coding import tables
from xtec.metrics import PEAK_DN, compare
from xtec.models.config import ModelConfig
from xtec.pixels import Pixels

STEPS = "encode", "decode"
USUAL_DB = 40.0
"""Quality at which a difference between two reconstructions is judged."""
SIGMAS = 0.1, 0.3, 1.0, 3.0, 10.0, 30.0


@dataclass(frozen=True)
class Frames:
    """One side's figures for some number of frames."""

    encode: list[Usage]
    decode: list[Usage]
    bytes: list[int]
    """Of each frame."""
    latents: NDArray[np.int32]
    rows: NDArray[np.uint16]
    """The table row of each latent; none of the reference, whose tables are others."""
    decoded: NDArray[np.float64]
    """Pixels that came back, in DN."""


@dataclass(frozen=True)
class Side:
    """All that one side measured."""

    name: str
    versions: dict[str, str]
    """Of the packages that matter."""
    made: Usage
    warm_up: Usage
    instructions: str
    """What torch says that it computes with."""
    gemm_gflops: float
    drawn_bytes: list[int]
    """Of each frame of latents that were drawn from the network's own distribution."""
    frames: dict[int, Frames]


def coded(figures: Frames) -> str:
    """What kind of latents these are, so that one may judge how much they are like real ones."""
    t = tables.load()
    level = np.searchsorted(t.first_row, figures.rows, side="right") - 1
    sigma = 2.0 ** (level / 10 - 4)
    edges = [0, *SIGMAS, np.inf]
    shares = np.histogram(sigma, edges)[0] / sigma.size
    names = [f"below {SIGMAS[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(SIGMAS))]
    scales = [f"{100 * s:.1f}%" for s in shares]
    spread = figures.latents.std((0, 2, 3))
    return (
        f"latents: {100 * (figures.latents == 0).mean():.0f}% zeros, largest "
        f"{np.abs(figures.latents).max()}, standard deviation of the channels {spread.min():.2f} "
        f"to {spread.max():.1f}, median {np.median(spread):.2f}; predicted scales:\n\n"
        + table((*names, f"above {SIGMAS[-1]:g}"), [scales])
    )


def agreement(cube: Pixels, theirs: Side, ours: Side) -> str:
    """Whether both sides did the same work."""
    rows = []
    for count, a in theirs.frames.items():
        b = ours.frames[count]
        before = cube[:count].astype(np.float64)
        psnr = [compare(before, x.decoded).psnr_pooled for x in (a, b)]
        apart = np.sqrt(np.mean((a.decoded - b.decoded) ** 2))
        noise = PEAK_DN / 10 ** (USUAL_DB / 20)
        rows.append(
            (
                count,
                f"{(a.latents != b.latents).sum()} of {a.latents.size}",
                *(f"{x:.4f}" for x in psnr),
                f"{psnr[1] - psnr[0]:+.5f}",
                f"{apart:.2f}",
                f"{-10 * np.log10(1 + (apart / noise) ** 2):+.5f}",
            )
        )
    head = (
        "frames",
        "latents that differ",
        "PSNR terracodec",
        "PSNR xtec",
        "difference, dB",
        "reconstructions apart, RMS DN",
        f"what that would be at {USUAL_DB:g} dB",
    )
    return table(head, rows)


def sizes(theirs: Side, ours: Side) -> str:
    """Bytes of the entropy codes."""
    pairs = {
        f"the image, {count} frame(s)": (sum(figures.bytes), sum(ours.frames[count].bytes))
        for count, figures in theirs.frames.items()
    }
    drawn = theirs.drawn_bytes, ours.drawn_bytes
    pairs[f"drawn, {len(drawn[0])} frame(s)"] = sum(drawn[0]), sum(drawn[1])
    rows = [(what, a, b, f"{100 * (b / a - 1):+.2f}%") for what, (a, b) in pairs.items()]
    return table(("latents of", "bytes terracodec", "bytes xtec", "difference"), rows)


def preparation(sides: Sequence[Side]) -> str:
    """What is done once per process, and counts nowhere else."""
    rows = [
        (s.name, step, f"{u.wall_s:.1f}", f"{u.cpu_s:.1f}", f"{u.peak_mb:.0f}")
        for s in sides
        for step, u in (("imports, weights, tables", s.made), ("first use", s.warm_up))
    ]
    return table(("once per process", "step", "s", "CPU s", "peak MB"), rows)


def timing(ours: Side, theirs: Side | None) -> str:
    """Seconds, CPU seconds and memory side by side; ratios are theirs / ours."""
    sides = [theirs, ours] if theirs else [ours]
    rows = []
    for count in ours.frames:
        for step in STEPS:
            usages = [getattr(side.frames[count], step) for side in sides]
            both = [x for usage in usages for x in _median(usage)]
            rows.append([step, count, *both, *(_ratios(*usages) if theirs else ())])
    head = [x for side in sides for x in (f"{side.name} s", "CPU s", "peak MB")]
    ratios = ["times faster", "times less CPU", "times less memory"] if theirs else []
    return table(["step", "frames", *head, *ratios], rows)


def _median(usages: Sequence[Usage]) -> list[str]:
    """Median of the runs; of the seconds the least and the most, too."""
    wall = [u.wall_s for u in usages]
    return [
        f"{statistics.median(wall):.2f} ({min(wall):.2f} to {max(wall):.2f})",
        f"{statistics.median(u.cpu_s for u in usages):.2f}",
        f"{max(u.peak_mb for u in usages):.0f}",
    ]


def _ratios(theirs: Sequence[Usage], ours: Sequence[Usage]) -> list[str]:
    pairs = (
        [statistics.median(getattr(u, field) for u in usages) for usages in (theirs, ours)]
        for field in ("wall_s", "cpu_s")
    )
    most = [max(u.peak_mb for u in usages) for usages in (theirs, ours)]
    return [f"{a / b:.1f}" for a, b in (*pairs, most)]


def rates(ours: Side, config: ModelConfig, size: int) -> str:
    """How much of the machine's own rate our passes reach.

    Told twice: by the operations that we do, and by those of the pass with every frame's context,
    of which we know the first one's.
    """
    counted = products.count(config, size, size)
    rows = []
    for count, figures in ours.frames.items():
        for step in STEPS:
            done = getattr(counted, step)(count)
            whole = done + counted.context
            wall = statistics.median(u.wall_s for u in getattr(figures, step))
            shares = [f"{100 * x / wall / ours.gemm_gflops:.0f}%" for x in (done, whole)]
            gemm = f"{ours.gemm_gflops:.0f}"
            rate = f"{done / wall:.0f}"
            rows.append(
                (step, count, gemm, f"{done:.0f}", rate, shares[0], f"{whole:.0f}", shares[1])
            )
    head = (
        "step",
        "frames",
        "float32 product 4096^3, GFLOP/s",
        "GFLOP done",
        "GFLOP/s",
        "share",
        "GFLOP of the whole pass",
        "share",
    )
    return table(head, rows)
