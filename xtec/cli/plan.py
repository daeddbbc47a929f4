"""``xtec plan``: what compressing a cube will take, before it begins.

Below: opening, options, accessor. Above: the room's face.
"""

import argparse

import xtec.accessor  # noqa: F401  registers ds.tec
from xtec.cli.opening import open_cube
from xtec.cli.options import Commands, add_codec, add_json, add_meaning, command, names, show

EXAMPLES = """\
  xtec plan cube.zarr
  xtec plan S2A_MSIL2A_2024*.SAFE --compression 50 --json"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "say how large a compressed cube will be and how long it takes, from a few chunks"
    parser = command(commands, "plan", about, EXAMPLES, run)
    parser.add_argument("input", nargs="+", metavar="IN", help="as of xtec compress")
    add_codec(parser)
    parser.add_argument("--bands", type=names, metavar="NAMES", help="B02,B03,...; default all")
    parser.add_argument("--time", metavar="REGEX", help="as of xtec compress")
    add_meaning(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Foretell."""
    found = open_cube(options.input, bands=options.bands, time=options.time).tec.plan(
        compression=options.compression,
        model=options.model,
        chunks=options.chunks,
        offset=options.offset,
        nodata=options.nodata,
        variable=options.variable,
    )
    show(found, found.to_dict(), as_json=options.json)
