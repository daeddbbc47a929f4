"""``xtec demo``: a cube made on the spot, through the codec and back.

Below: options, accessor, sample. Above: the room's face.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xtec.cli.options import Commands, command

if TYPE_CHECKING:
    import xarray as xr

EXAMPLES = """\
  xtec demo
  xtec demo --size 256 --compression 100 --picture demo.png"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "compress a cube made on the spot, read it back, and say what came of it"
    parser = command(commands, "demo", about, EXAMPLES, run)
    parser.add_argument("--store", type=Path, default=Path("demo.zarr"), help="where to write")
    parser.add_argument(
        "--compression", type=float, default=20.0, help="low: smaller, high: better"
    )
    parser.add_argument("--size", type=int, default=512, help="rows and columns of the cube")
    parser.add_argument("--dates", type=int, default=8)
    parser.add_argument("--picture", type=Path, help="also draw original, decoded and error (PNG)")
    parser.add_argument("--bits", type=Path, help="also draw where the bits go (PNG)")


def run(options: argparse.Namespace) -> None:
    """Show what the package does."""
    import xarray as xr

    import xtec.accessor  # noqa: F401  registers ds.tec
    from xtec import sample

    print("Making a synthetic Sentinel-2 cube ...")
    cube = sample.cube(dates=options.dates, size=options.size)
    begin = time.perf_counter()
    cube.tec.compress(options.store, compression=options.compression, overwrite=True, progress=True)
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
        figure = opened.tec.plot(cube, date=min(1, options.dates - 1))
        figure.savefig(options.picture, dpi=100)
    if options.bits:
        xr.open_zarr(options.store).tec.explain().plot().savefig(options.bits, dpi=100)


def _table(quality: "xr.Dataset") -> str:
    """Per band what varies by band, then the rest in one line each."""
    per_band = quality[[name for name, v in quality.data_vars.items() if v.dims == ("band",)]]
    rest = "\n".join(
        f"{name:12} {value.item():.4g}"
        for name, value in quality.data_vars.items()
        if not value.dims
    )
    return f"{per_band.to_dataframe().round(1).to_string()}\n\n{rest}"
