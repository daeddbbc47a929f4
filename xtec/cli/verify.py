"""``xtec verify``: whether a store is whole, and what it is beside its original.

Below: opening, options, cube.verify. Above: the room's face.
"""

import argparse

from xtec.cli.opening import open_cube
from xtec.cli.options import Commands, add_json, command, names, show
from xtec.cube.verify import verify

DAMAGED = 3
"""Exit code where something is damaged, unfinished, or not what the original says."""

EXAMPLES = f"""\
  xtec verify out.zarr
  xtec verify out.zarr --against cube.zarr
  xtec verify out.zarr --against S2A_*.SAFE --bands B02,B03,B04,B08 --json

exit codes: 0 everything is well; {DAMAGED} a chunk is damaged, the store is unfinished or, beside
the original, pixels are lost or an error bound is broken; 1 nothing could be told: no store, no
model, or another cube; 2 a wrong command line"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "read every chunk of a store, check every checksum, and name what is damaged"
    parser = command(commands, "verify", about, EXAMPLES, run)
    parser.add_argument("store", metavar="STORE")
    parser.add_argument(
        "--against", nargs="+", metavar="ORIGINAL", help="also compare with what was compressed"
    )
    parser.add_argument("--bands", type=names, metavar="NAMES", help="of the original")
    parser.add_argument("--time", metavar="REGEX", help="as of xtec compress")
    parser.add_argument("--variable", help="which to compare, where several are compressed")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Verify."""
    original = None
    if options.against:
        original = open_cube(options.against, bands=options.bands, time=options.time)
    verdict = verify(options.store, original, variable=options.variable, progress=True)
    show(verdict, verdict.to_dict(), as_json=options.json)
    return 0 if verdict.ok else DAMAGED
