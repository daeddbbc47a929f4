"""``xtec compress``: a cube on disk into a compressed store.

Below: opening, options, accessor. Above: the room's face.
"""

import argparse
import time

import xtec.accessor  # noqa: F401  registers ds.tec
from xtec.cli.opening import open_cube
from xtec.cli.options import (
    Commands,
    add_codec,
    add_json,
    add_meaning,
    bound,
    command,
    names,
    show,
    sizes,
)

EXAMPLES = """\
  xtec compress cube.zarr out.zarr
  xtec compress S2A_MSIL2A_2024*.SAFE out.zarr --bands B02,B03,B04,B08
  xtec compress scenes/*.tif out.zarr --max-error 50
  xtec compress cube.nc out.zarr --target-psnr 45 --overwrite
  xtec compress cube.zarr out.zarr --chunks time=4 --shards y=2048,x=2048 --json"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "compress", "compress a cube into a Zarr store", EXAMPLES, run)
    parser.add_argument(
        "input",
        nargs="+",
        metavar="IN",
        help="a Zarr store or NetCDF file, or one or several .SAFE products (folder or zip) or "
        "GeoTIFFs",
    )
    parser.add_argument("output", metavar="OUT", help="the store to write")
    add_codec(parser)
    parser.add_argument(
        "--max-error", type=bound, metavar="DN", help="50, or B02=20,B03=20,...; 0 is lossless"
    )
    parser.add_argument("--target-psnr", type=float, metavar="DB", help="instead of --compression")
    parser.add_argument(
        "--target-bpppb", type=float, metavar="BITS", help="bits per pixel per band to aim at"
    )
    parser.add_argument("--shards", type=sizes, metavar="SIZES", help="many chunks in one file")
    parser.add_argument("--zarr-format", type=int, choices=(2, 3), default=3)
    parser.add_argument(
        "--embed-weights",
        action=argparse.BooleanOptionalAction,
        help="whether the model goes into the store; by default if it has up to 16 MB",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with what was interrupted; what is stored whole is not coded again",
    )
    parser.add_argument("--bands", type=names, metavar="NAMES", help="B02,B03,...; default all")
    parser.add_argument(
        "--time", metavar="REGEX", help="its first group is the date in a GeoTIFF's name"
    )
    add_meaning(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Compress."""
    cube = open_cube(options.input, bands=options.bands, time=options.time)
    begin = time.perf_counter()
    written = cube.tec.compress(
        options.output,
        compression=options.compression,
        max_error=options.max_error,
        target_psnr=options.target_psnr,
        target_bpppb=options.target_bpppb,
        model=options.model,
        chunks=options.chunks,
        shards=options.shards,
        zarr_format=options.zarr_format,
        overwrite=options.overwrite,
        resume=options.resume,
        embed_weights=options.embed_weights,
        offset=options.offset,
        nodata=options.nodata,
        variable=options.variable,
        progress=True,
    )
    seconds = time.perf_counter() - begin
    found = written.tec.info(options.variable)
    fields = {"store": options.output, "seconds": seconds} | found.to_dict()
    show(f"{found}\n  {'written':<12} {options.output}, in {seconds:.1f} s", fields,
         as_json=options.json)  # fmt: skip
