"""What several commands share: kinds of arguments, and how results are printed.

Below: errors. Above: the commands.
"""

import argparse
import json
import math
from collections.abc import Callable
from typing import Any

Commands = Any
"""What `argparse.ArgumentParser.add_subparsers` returns."""


def command(
    commands: Commands, name: str, about: str, examples: str, run: Callable[..., int | None]
) -> argparse.ArgumentParser:
    """Add a command with a help text that ends with examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let a command print JSON."""
    parser.add_argument("--json", action="store_true", help="print nothing but JSON on stdout")


def add_codec(parser: argparse.ArgumentParser) -> None:
    """What a user may choose of the codec, for all commands that code."""
    parser.add_argument(
        "--compression", type=float, help="0.1 to 10000; low: smaller, high: better; default 20"
    )
    parser.add_argument(
        "--model",
        default="embedded",
        help="embedded (the default), tt-s2l1c, tt-s2l2a, another name, or a weights file",
    )
    parser.add_argument(
        "--chunks",
        type=sizes,
        metavar="SIZES",
        help="time=8,y=256,x=256, or a part of that; -1 is the whole axis",
    )


def add_meaning(parser: argparse.ArgumentParser) -> None:
    """What the numbers of a cube mean, where it does not say so."""
    parser.add_argument("--offset", type=int, help="radiometric offset that the numbers carry, DN")
    parser.add_argument("--nodata", type=int, help="digital number of pixels without data")
    parser.add_argument("--variable", help="which variable, where several have a band axis")


def sizes(text: str) -> dict[str, int]:
    """Sizes by axis: "time=8,y=256,x=256"."""
    try:
        return {name: int(size) for name, size in _pairs(text)}
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} names no sizes; write time=8,y=256,x=256, or a part of that"
        ) from error


def bound(text: str) -> int | dict[str, int]:
    """One bound in digital numbers, or one by band: "50" or "B02=20,B03=20"."""
    try:
        return {name: int(dn) for name, dn in _pairs(text)} if "=" in text else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no error bound; write 50, or B02=20,B03=20,... with every band"
        ) from error


def names(text: str) -> list[str]:
    """Names, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def show(result: Any, fields: dict[str, Any], *, as_json: bool) -> None:
    """Print a result for people, or its fields for programs."""
    print(json.dumps(_plain(fields), indent=2, allow_nan=False) if as_json else result)


def _plain(value: Any) -> Any:
    """What JSON can hold; numbers that are none become null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in text.split(",")]
    return [(name.strip(), value) for name, _, value in pairs]
