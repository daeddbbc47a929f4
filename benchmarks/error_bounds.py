"""Bits at a promised largest error: xtec with `max_error` beside LERC and JPEG XL.

    python benchmarks/error_bounds.py            every cube, bounds of 0, 1, 5, 20 and 50 DN
    python benchmarks/error_bounds.py --search   bits by compression, from which the rule comes

Every stream is decoded; the largest error found and the number of no-data pixels that differ are
printed, and the command fails where a bound is not kept.

Below: common, data, coders. Above: nothing.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import imagecodecs
import numpy as np
from coders import Coder, Learned, Shape
from coders_bounded import Lerc
from common import about, parser, table
from data import pairs
from tqdm import tqdm

from xtec.codec import Settings
from xtec.coding import stream as container
from xtec.pixels import Pixels
from xtec.settings import compression_for

BOUNDS = 0, 1, 5, 20, 50
SEARCHED_BOUNDS = 0, 5, 20, 50, 100, 200, 400
SEARCHED_STEPS = 256, 512, 1024, 2048, 4096
STEP_OF_ONE = 3600
EFFORT = 7


@dataclass(frozen=True)
class BareLerc(Lerc):
    """The same without zstd."""

    name: ClassVar[str] = "LERC"

    def encode(self, cube: Pixels) -> list[bytes]:
        """One file per date."""
        return [
            bytes(imagecodecs.lerc_encode(frame, level=self.error_dn, planar=True))
            for frame in cube
        ]


@dataclass(frozen=True)
class Lossless:
    """Numbers in steps that keep the bound, each band a lossless JPEG XL file."""

    name: ClassVar[str] = "JPEG XL lossless"
    error_dn: int
    threads: int = 1

    def encode(self, cube: Pixels) -> list[bytes]:
        """One file per date and band."""
        steps = (cube.astype(np.uint32) + self.error_dn) // self._step
        return [
            bytes(
                imagecodecs.jpegxl_encode(
                    band, lossless=True, effort=EFFORT, usecontainer=False, numthreads=self.threads
                )
            )
            for frame in steps.astype(np.uint16)
            for band in frame
        ]

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """All files."""
        steps = np.stack([imagecodecs.jpegxl_decode(s, numthreads=self.threads) for s in streams])
        pixels: Pixels = np.minimum(steps.astype(np.uint32) * self._step, 65535).astype(np.uint16)
        return pixels.reshape(shape)

    @property
    def _step(self) -> int:
        return 2 * self.error_dn + 1


@dataclass
class Tally:
    """Of some cubes."""

    coded_bytes: int = 0
    residual_bytes: int = 0
    values: int = 0
    largest_dn: int = 0
    masks_differ: int = 0

    def add(self, coder: Coder, cube: Pixels) -> None:
        """Code a cube, decode it, compare."""
        streams = coder.encode(cube)
        found = coder.decode(streams, cube.shape)
        valid = cube != 0
        error = np.abs(found.astype(np.int32) - cube)
        self.coded_bytes += sum(map(len, streams))
        self.values += cube.size
        self.largest_dn = max(self.largest_dn, int(error[valid].max(initial=0)))
        self.masks_differ += int(np.count_nonzero((found == 0) != ~valid))
        if isinstance(coder, Learned):
            self.residual_bytes += sum(len(container.parse(s).residual) for s in streams)

    def __add__(self, other: "Tally") -> "Tally":
        """Of both."""
        return Tally(
            self.coded_bytes + other.coded_bytes,
            self.residual_bytes + other.residual_bytes,
            self.values + other.values,
            max(self.largest_dn, other.largest_dn),
            self.masks_differ + other.masks_differ,
        )

    @property
    def bpppb(self) -> float:
        """Bits per pixel and band."""
        return 8 * self.coded_bytes / self.values

    @property
    def share(self) -> str:
        """The residual's part of it."""
        return f"{100 * self.residual_bytes / self.coded_bytes:.0f} %"


def main() -> int:
    """Print the tables; 1 where a promise was not kept."""
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--quick", action="store_true", help="a third of the cubes")
    made.add_argument("--search", action="store_true", help="bits by compression")
    options = made.parse_args()
    print(about(options, "torch", "imagecodecs"))
    cubes = pairs(options.data, quick=options.quick or options.search)
    if options.search:
        print(_search(cubes, options))
        return 0
    return _compare(cubes, options)


def _learned(options: argparse.Namespace, bound: int, compression: float) -> Learned:
    settings = Settings(model=options.model, compression=compression, max_error=bound)
    return Learned(settings, threads=options.threads)


def _compare(cubes: dict[str, Pixels], options: argparse.Namespace) -> int:
    makers: dict[str, Callable[[int], Coder]] = {
        "xtec": lambda e: _learned(options, e, compression_for([e])),
        "LERC": lambda e: BareLerc(e, options.threads),
        "LERC + zstd": lambda e: Lerc(e, options.threads),
        "JPEG XL lossless": lambda e: Lossless(e, options.threads),
    }
    pooled = {(name, bound): Tally() for name in makers for bound in BOUNDS}
    rows, kept = [], True
    work = [(cube, bound) for cube in cubes for bound in BOUNDS]
    for cube, bound in tqdm(work, leave=False):
        alone = {name: Tally() for name in makers}
        for name, maker in makers.items():
            alone[name].add(maker(bound), cubes[cube])
            pooled[name, bound] += alone[name]
        rows.append((cube, bound, *_figures(list(alone.values()))))
    lines = []
    for bound in BOUNDS:
        tallies = [pooled[name, bound] for name in makers]
        ours = tallies[0]
        kept &= ours.largest_dn <= bound and not ours.masks_differ
        lines.append((bound, *_figures(tallies), ours.largest_dn, ours.masks_differ))
    head = ("bound DN", "xtec bpppb", "ratio to 16 bits", "share of the residual")
    others = [f"{name} bpppb" for name in list(makers)[1:]]
    found = ("largest error DN", "no-data pixels differing")
    print(table((*head, *others, *found), lines))
    print(table(("cube", *head, *others), rows))
    print("All bounds are kept." if kept else "A PROMISE WAS NOT KEPT.")
    return 0 if kept else 1


def _figures(tallies: Sequence[Tally]) -> tuple[str, ...]:
    ours = tallies[0]
    return (
        f"{ours.bpppb:.3f}",
        f"{16 / ours.bpppb:.1f}",
        ours.share,
        *(f"{tally.bpppb:.3f}" for tally in tallies[1:]),
    )


def _search(cubes: dict[str, Pixels], options: argparse.Namespace) -> str:
    rows: list[list[object]] = []
    for bound in tqdm(SEARCHED_BOUNDS, leave=False):
        row: list[object] = [bound]
        for step in SEARCHED_STEPS:
            tally = Tally()
            for cube in cubes.values():
                tally.add(_learned(options, bound, (STEP_OF_ONE / step) ** 2), cube)
            row.append(f"{tally.bpppb:.4f}")
        rows.append(row)
    steps = [f"bpppb, step {step} DN" for step in SEARCHED_STEPS]
    return table(("bound DN", *steps), rows)


if __name__ == "__main__":
    sys.exit(main())
