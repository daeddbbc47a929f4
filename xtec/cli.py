"""The command line: parse, call, print.

Below: everything. Above: nothing.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xtec.errors import XtecError

if TYPE_CHECKING:
    import xarray as xr


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it went well, 1 after an error that is the user's to mend."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (XtecError, OSError) as error:
        print(f"xtec: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xtec", description="Compress Sentinel-2 datacubes with a Temporal Transformer."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser(
        "demo", help="compress a cube made on the spot, read it back, and say what came of it"
    )
    demo.add_argument("--store", type=Path, default=Path("demo.zarr"), help="where to write")
    demo.add_argument("--compression", type=float, default=20.0, help="low: smaller, high: better")
    demo.add_argument("--size", type=int, default=512, help="rows and columns of the cube")
    demo.add_argument("--dates", type=int, default=8)
    demo.add_argument("--picture", type=Path, help="also draw original, decoded and error (PNG)")
    demo.set_defaults(run=_demo)

    train = commands.add_parser(
        "train", help="train a network; the same command resumes what was interrupted"
    )
    train.add_argument(
        "recipe", type=Path, nargs="?",
        help="TOML file, or one of the package: small, or finetune (the default with --init)",
    )  # fmt: skip
    train.add_argument("--data", type=Path, nargs="+", required=True, help="folders of cubes")
    train.add_argument("--val", type=Path, nargs="*", default=[], help="folders to evaluate on")
    train.add_argument("--init", help="weights to start from: embedded, or a .safetensors file")
    train.add_argument("--out", type=Path, default=Path("runs/train"), help="checkpoint and log")
    train.add_argument("--device", default="cpu", help="torch device, for example cuda")
    train.add_argument("--threads", type=int, help="CPU threads of torch")
    train.add_argument("--workers", type=int, help="threads that make batches ahead")
    train.set_defaults(run=_train)
    return parser


def _demo(options: argparse.Namespace) -> None:
    import xarray as xr

    import xtec.accessor  # noqa: F401  registers ds.tec
    from xtec import sample

    print("Making a synthetic Sentinel-2 cube ...")
    cube = sample.cube(dates=options.dates, size=options.size)
    begin = time.perf_counter()
    cube.tec.compress(options.store, compression=options.compression, overwrite=True)
    written = time.perf_counter()
    opened = xr.open_zarr(options.store).load()
    read = time.perf_counter()
    print(opened.tec.info())
    quality = opened.tec.quality(cube)
    print(
        f"\nAgainst the original, in digital numbers (PSNR in dB over 10,000):\n\n{_table(quality)}"
    )
    raw_mb = cube.tec.array.nbytes / 1e6
    print(
        f"\n{raw_mb:.1f} MB of pixels written in {written - begin:.1f} s and read in "
        f"{read - written:.1f} s; loading the model is part of the first.\n\nOpen it anywhere:\n\n"
        f"  python -c \"import xarray as xr; print(xr.open_zarr('{options.store}'))\""
    )
    if options.picture:
        from xtec import plot

        figure = plot.comparison(cube.tec.array, opened.tec.array, time=min(1, options.dates - 1))
        figure.savefig(options.picture, dpi=100)


def _table(quality: "xr.Dataset") -> str:
    """Per band what varies by band, then the rest in one line each."""
    per_band = quality[[name for name, v in quality.data_vars.items() if v.dims == ("band",)]]
    rest = "\n".join(
        f"{name:12} {value.item():.4g}"
        for name, value in quality.data_vars.items()
        if not value.dims
    )
    return f"{per_band.to_dataframe().round(1).to_string()}\n\n{rest}"


def _train(options: argparse.Namespace) -> None:
    import torch

    from xtec.train.loop import train
    from xtec.train.recipe import Recipe

    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = Recipe.read(options.recipe or Path("finetune" if options.init else "small"))
    train(
        recipe, options.data, options.out, val=options.val, init=options.init,
        device=options.device, workers=options.workers,
    )  # fmt: skip
    print(f"{options.out / 'model.safetensors'} is model {recipe.name!r}")


if __name__ == "__main__":
    sys.exit(main())
