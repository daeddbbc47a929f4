"""Bits and quality of the embedded model beside classical codecs, on the real validation cubes.

    python benchmarks/rate_distortion.py            all codecs; --quick for a third of the cubes
    python benchmarks/rate_distortion.py --series   what coding eight dates together saves
    python benchmarks/rate_distortion.py --docs     both, written to docs/ with a picture

Prints Markdown. With --cache FOLDER the classical codecs are measured once for all.

Below: competitors, coders, measure, seams, report, page, data, common.
"""

import argparse
import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import data
import page
import report
from coders import Learned
from common import about, parser
from competitors import ANCHOR, VIDEO, Competitor, available
from curves import Point
from measure import Cache, Result, everywhere, measured
from seams import Seams

from xtec.codec import Settings
from xtec.pixels import Pixels

COMPRESSIONS = (0.5, 1.5, 4.0, 10.0, 30.0, 100.0, 400.0)
QUICK_COMPRESSIONS = (1.0, 10.0, 100.0)
DOCS = Path(__file__).resolve().parents[1] / "docs"
Cubes = dict[str, Pixels]
Tables = dict[str, str]
"""Markdown by the name that page.md knows it by."""


@dataclass(frozen=True)
class Run:
    """What one call of the command works with."""

    options: argparse.Namespace
    competitors: list[Competitor]
    cache: Cache

    @property
    def learned(self) -> Learned:
        """The model, at its default setting."""
        o = self.options
        return Learned(Settings(model=o.model), o.frames, o.tile, o.threads, o.device)

    def model(
        self, name: str, cubes: Cubes, coder: Learned, seams: dict[float, Seams] | None = None
    ) -> Result:
        """Measure the model."""

        def at(compression: float, cube: Pixels) -> Point:
            made = replace(coder, settings=replace(coder.settings, compression=compression))
            watch = None
            if seams is not None:
                blocks = coder.blocks(cube.shape)
                watch = functools.partial(seams[compression].add, blocks=blocks)
            return measured(made, cube, watch)

        usual = QUICK_COMPRESSIONS if self.options.quick else COMPRESSIONS
        settings = self.options.compression or usual
        return everywhere(name, "compression", settings, cubes, at)

    def competitor(self, codec: Competitor, cubes: Cubes) -> Result:
        """Measure a classical codec, or look it up."""

        def at(setting: float, cube: Pixels) -> Point:
            return self.cache.point(codec.made(setting), codec.version, cube)

        return everywhere(codec.name, codec.knob, codec.settings, cubes, at)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    options = _parser().parse_args(arguments)
    competitors, missing = available(options.threads, quick=options.quick)
    run = Run(options, competitors, Cache(options.cache))
    origin = about(options, "torch", "imagecodecs") + _codecs(competitors, missing)
    print(origin)
    tables: Tables = {}
    drawn: dict[str, list[Result]] = {}
    if options.docs or not options.series:
        found, drawn[page.PICTURE] = _pairs(run)
        tables |= _printed(found)
    if options.docs or options.series:
        found, drawn[page.PICTURE_SERIES] = _series(run)
        tables |= _printed(found)
    if options.docs:
        parts = {"origin": origin, "command": _command(options), **tables}
        page.write(options.docs, parts, drawn)


def _parser() -> argparse.ArgumentParser:
    made = parser("Rate and distortion of the embedded model and of classical codecs.")
    made.add_argument("--quick", action="store_true", help="a third of the cubes, few settings")
    made.add_argument("--series", action="store_true", help="the long series, all its dates")
    made.add_argument(
        "--docs", type=Path, nargs="?", const=DOCS, help="both, as a page in docs/ (or a folder)"
    )
    made.add_argument("--cache", type=Path, help="folder for what the classical codecs gave")
    made.add_argument("--alone", action="store_true", help="also code each date alone")
    made.add_argument("--compression", type=float, nargs="+", help="settings of the model")
    made.add_argument("--tile", type=int, default=256, help="side of a chunk; 0: whole scenes")
    made.add_argument("--frames", type=int, default=8, help="dates of a chunk")
    made.add_argument("--device", default="cpu")
    return made


def _pairs(run: Run) -> tuple[Tables, list[Result]]:
    """All cubes, all codecs."""
    cubes = data.pairs(run.options.data, quick=run.options.quick)
    seams: dict[float, Seams] = defaultdict(Seams)
    results = [run.model("xtec", cubes, run.learned, seams)]
    if run.options.alone:
        alone = replace(run.learned, frames=1)
        results.append(run.model("xtec, each date alone", cubes, alone))
    results += [run.competitor(codec, cubes) for codec in run.competitors]
    ours, others = results[0], results[1:]
    anchor = next((r for r in others if r.name == ANCHOR), None)
    tables = {
        "curves": report.curves(results),
        "against": report.against(ours, others),
        "cubes": report.cubes(ours, anchor) if anchor else "",
        "cubes_against_all": report.cubes_against_all(ours, others),
        "other_measures": report.at_equal_bits(results),
        "bands": report.bands_at_equal_bits(results),
        "seams": report.seams(seams),
        "everything": report.everything(results),
    }
    return tables, results


def _series(run: Run) -> tuple[Tables, list[Result]]:
    """What time saves: chunks of several dates against each date alone, and against video."""
    cubes = data.series(run.options.data)
    together = f"xtec, chunks of {run.options.frames} dates"
    results = [
        run.model(together, cubes, run.learned),
        run.model("xtec, each date alone", cubes, replace(run.learned, frames=1)),
    ]
    chosen = [c for c in run.competitors if c.name in {VIDEO, ANCHOR}]
    results += [run.competitor(codec, cubes) for codec in chosen]
    tables = {
        "series": report.curves(results),
        "series_against": report.against_series(results[0], results[1:]),
    }
    return tables, results


def _printed(tables: Tables) -> Tables:
    for name, text in tables.items():
        print(f"## {name.replace('_', ' ').capitalize()}\n\n{text}")
    return tables


def _codecs(competitors: list[Competitor], missing: list[str]) -> str:
    """Which codecs of which version, and which are left out."""
    versions = "; ".join(dict.fromkeys(c.version for c in competitors)) or "none"
    left_out = f" Left out: {'; '.join(missing)}." if missing else ""
    return f"\nClassical codecs: {versions}.{left_out}\n"


def _command(options: argparse.Namespace) -> str:
    """The command without what is a matter of the machine."""
    words = ["python benchmarks/rate_distortion.py --docs"]
    usual = _parser()
    for name in ("quick", "alone"):
        words += [f"--{name}"] * getattr(options, name)
    for name in ("tile", "frames", "device"):
        if getattr(options, name) != usual.get_default(name):
            words.append(f"--{name} {getattr(options, name)}")
    if options.compression:
        words.append("--compression " + " ".join(f"{c:g}" for c in options.compression))
    return " ".join(words)


if __name__ == "__main__":
    main()
