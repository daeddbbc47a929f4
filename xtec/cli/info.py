"""``xtec info``: how a store is compressed.

Below: opening, options, accessor. Above: the room's face.
"""

import argparse

import xtec.accessor  # noqa: F401  registers ds.tec
from xtec.cli.opening import open_store
from xtec.cli.options import Commands, add_json, command, show

EXAMPLES = """\
  xtec info out.zarr
  xtec info out.zarr --json | jq .bits_per_pixel_per_band"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "info", "say how a store is compressed", EXAMPLES, run)
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("--variable", help="which variable, where several are compressed")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Describe."""
    found = open_store(options.store).tec.info(options.variable)
    show(found, {"store": options.store} | found.to_dict(), as_json=options.json)
