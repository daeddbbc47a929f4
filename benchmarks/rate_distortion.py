"""Bits and quality of the embedded model beside JPEG 2000, on the real validation cubes.

    python benchmarks/rate_distortion.py            everything; --quick for a third of the cubes
    python benchmarks/rate_distortion.py --series   what coding eight dates together saves

Prints Markdown. bpppb: bits per pixel and band, every byte of every stream counted. PSNR: peak
10,000 DN after clipping to 0..10,000.

Below: coders, curves, data, common.
"""

import argparse
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import data
from coders import Bands, CheckedBands, Coder, Components, Klt, Learned
from common import about, parser, table
from curves import Curve, Point, bd_rate, point, pooled
from tqdm import tqdm

from xtec.codec import Settings
from xtec.pixels import Pixels

COMPRESSIONS = (1.0, 3.0, 10.0, 30.0, 100.0, 400.0)
QUICK_COMPRESSIONS = (1.0, 10.0, 100.0)
LEVELS = (46.0, 50.0, 54.0, 58.0, 62.0)
"""Targets of OpenJPEG, PSNR with the peak 65535: 30 to 46 dB here."""
EQUAL_PSNR = 36.0
BD_RANGE = (33.0, 44.0)


@dataclass(frozen=True)
class Result:
    """One codec on all cubes: for each setting the points of the cubes by name."""

    name: str
    points: tuple[dict[str, Point], ...]

    @property
    def curve(self) -> Curve:
        """All cubes pooled."""
        return Curve(tuple(pooled(p.values()) for p in self.points))

    def of(self, cube: str) -> Curve:
        """One cube."""
        return Curve(tuple(p[cube] for p in self.points))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    options = _parser().parse_args(arguments)
    print(about(options, "torch", "imagecodecs"))
    if options.series:
        _series(options)
        return
    cubes = data.pairs(options.data, quick=options.quick)
    results = [_learned("xtec", options, cubes, _learned_coder(options))]
    if options.alone:
        alone = replace(_learned_coder(options), frames=1)
        results.append(_learned("xtec, each date alone", options, cubes, alone))
    for codec in (Bands, CheckedBands, Components, Klt):
        made = functools.partial(codec, threads=options.threads)
        results.append(_measured(codec.name, made, LEVELS, cubes))
    print(_points(results))
    print(_against(results))
    print(_cubes(results[0], results[-1]))


def _parser() -> argparse.ArgumentParser:
    made = parser("Rate and distortion of the embedded model and of JPEG 2000.")
    made.add_argument("--quick", action="store_true", help="a third of the cubes, three settings")
    made.add_argument("--series", action="store_true", help="the long series, all its dates")
    made.add_argument("--alone", action="store_true", help="also code each date alone")
    made.add_argument("--compression", type=float, nargs="+", help="settings of the model")
    made.add_argument("--tile", type=int, default=256, help="side of a chunk; 0: whole scenes")
    made.add_argument("--frames", type=int, default=8, help="dates of a chunk")
    made.add_argument("--device", default="cpu")
    return made


def _learned_coder(options: argparse.Namespace) -> Learned:
    settings = Settings(model=options.model)
    return Learned(settings, options.frames, options.tile, options.threads, options.device)


def _learned(
    name: str, options: argparse.Namespace, cubes: dict[str, Pixels], coder: Learned
) -> Result:
    def made(compression: float) -> Learned:
        return replace(coder, settings=replace(coder.settings, compression=compression))

    usual = QUICK_COMPRESSIONS if options.quick else COMPRESSIONS
    return _measured(name, made, options.compression or usual, cubes)


def _measured(
    name: str,
    made: Callable[[float], Coder],
    settings: Sequence[float],
    cubes: dict[str, Pixels],
) -> Result:
    """Code every cube at every setting, and decode it."""
    points: list[dict[str, Point]] = [{} for _ in settings]
    for setting, found in zip(tqdm(settings, desc=name, leave=False), points, strict=True):
        coder = made(setting)
        for cube_name, cube in cubes.items():
            streams = coder.encode(cube)
            decoded = coder.decode(streams, cube.shape)
            found[cube_name] = point(sum(map(len, streams)), cube, decoded)
    return Result(name, tuple(points))


def _points(results: list[Result]) -> str:
    """Every setting of every codec, all cubes pooled."""
    rows = []
    for result in results:
        points = result.curve.points
        pooled_psnr = " · ".join(f"{p.bpppb:.4f} @ {p.psnr:.2f}" for p in points)
        mean_psnr = " · ".join(f"{p.bpppb:.4f} @ {p.quality.psnr_mean:.2f}" for p in points)
        rows.append((result.name, pooled_psnr, mean_psnr))
    head = "codec", "bpppb @ PSNR of all bands pooled", "bpppb @ mean PSNR of the bands"
    return table(head, rows)


def _against(results: list[Result]) -> str:
    """The first codec against each of the others."""
    ours, *others = (r.curve for r in results)
    mine = ours.rate(EQUAL_PSNR)
    rows = []
    for result, other in zip(results[1:], others, strict=True):
        theirs = other.rate(EQUAL_PSNR)
        ratio = f"{mine / theirs:.3f} ({mine:.4f} / {theirs:.4f})"
        if math.isnan(mine + theirs):
            ratio = "not reached by both"
        rows.append((result.name, ratio, bd_rate(ours, other, *BD_RANGE)))
    head = f"{results[0].name} against", f"bits at {EQUAL_PSNR:g} dB pooled", "BD-rate"
    return table(head, rows)


def _cubes(ours: Result, anchor: Result) -> str:
    """Cube by cube, over all of the range that both reach."""
    rows = []
    for name in ours.points[0]:
        curves = ours.of(name), anchor.of(name)
        rows.append((name, *(c.ends for c in curves), bd_rate(*curves)))
    return table(("cube", ours.name, anchor.name, "BD-rate"), rows)


def _series(options: argparse.Namespace) -> None:
    """What time saves: chunks of several dates against each date alone."""
    cubes, coder = data.series(options.data), _learned_coder(options)
    together = _learned(f"xtec, chunks of {options.frames} dates", options, cubes, coder)
    alone = _learned("xtec, each date alone", options, cubes, replace(coder, frames=1))
    print(_points([together, alone]))
    rows = [(name, bd_rate(together.of(name), alone.of(name))) for name in cubes]
    print(table(("cube", f"BD-rate, chunks of {options.frames} dates against single dates"), rows))


if __name__ == "__main__":
    main()
