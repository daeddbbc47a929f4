"""``xtec export``: a compressed store as GeoTIFF or plain Zarr.

Below: io, opening, options. Above: the room's face.
"""

import argparse

from xtec import io
from xtec.cli.opening import open_store
from xtec.cli.options import Commands, command

EXAMPLES = """\
  xtec export out.zarr scenes/                  one GeoTIFF for each date
  xtec export out.zarr scenes/ --format cog     Cloud Optimized GeoTIFF
  xtec export out.zarr scenes/ --native         a file for each resolution
  xtec export out.zarr plain.zarr               Zarr that needs no xtec to be read"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "write a compressed store as GeoTIFFs or as plain Zarr"
    parser = command(commands, "export", about, EXAMPLES, run)
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("output", metavar="OUT", help="a folder; for Zarr a store")
    parser.add_argument(
        "--format",
        choices=("geotiff", "cog", "zarr"),
        help="by default zarr if OUT ends in .zarr, else geotiff",
    )
    parser.add_argument("--native", action="store_true", help="each band at its own resolution")
    parser.add_argument("--prefix", default="", help="goes before the date in files' names")
    parser.add_argument("--zarr-format", type=int, choices=(2, 3), default=3)
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument("--variable", help="which variable, where several have a band axis")


def run(options: argparse.Namespace) -> None:
    """Export."""
    form = options.format
    if form is None:
        form = "zarr" if options.output.rstrip("/").endswith(".zarr") else "geotiff"
    cube = open_store(options.store, chunked=True, raw=True)
    if form == "zarr":
        io.to_plain_zarr(
            cube,
            options.output,
            zarr_format=options.zarr_format,
            overwrite=options.overwrite,
            progress=True,
        )
        print(options.output)
        return
    files = io.to_geotiff(
        cube,
        options.output,
        cog=form == "cog",
        native=options.native,
        prefix=options.prefix,
        overwrite=options.overwrite,
        variable=options.variable,
    )
    for file in files:
        print(file)
