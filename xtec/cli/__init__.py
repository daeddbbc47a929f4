"""The command line: parse, call, print. One file for each command.

Exit codes: 0 all went well; 1 an error that is the user's to mend, in one line on stderr; 2 the
command line itself is wrong (argparse); 3 `verify` found damage; 130 interrupted.

Below: everything. Above: nothing.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from xtec.cli import bench, compress, demo, export, info, plan, train, verify
from xtec.errors import XtecError

COMMANDS = (compress, info, verify, export, plan, bench, train, demo)

WELL, ERROR, INTERRUPTED = 0, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _tell
            return int(options.run(options) or WELL)
    except (XtecError, OSError) as error:
        print(f"xtec: {' '.join(str(error).split())}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        print("xtec: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xtec",
        description="Compress Sentinel-2 datacubes with a Temporal Transformer.",
        epilog="Every command has examples: xtec compress --help",
    )
    parser.add_argument("--version", action="version", version=f"xtec {version('xarray-tec')}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _tell(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning in one line."""
    print(f"xtec: warning: {' '.join(str(message).split())}", file=sys.stderr)
