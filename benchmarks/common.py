"""What the command lines of the benchmarks share: arguments, a line about the machine, tables.

Below: xtec.models.registry. Above: rate_distortion, throughput, scaling, prior_cost,
vs_terracodec.
"""

import argparse
import multiprocessing
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ParamSpec, TypeVar

from xtec.models import registry

P = ParamSpec("P")
R = TypeVar("R")


def parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the arguments that every benchmark takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--data", type=Path, help="folder that holds val/ (or XTEC_DATA)")
    made.add_argument("--model", default="embedded", help="a name, or a .safetensors file")
    made.add_argument("--threads", type=int, default=1)
    return made


def about(options: argparse.Namespace, *packages: str) -> str:
    """Say when, where and with what: the line that belongs above every figure."""
    card = registry.resolve(options.model)
    here = machine(options.threads, *packages)
    return f"{here}; model {card.name}, digest {card.digest[:16]}\n"


def machine(threads: int, *packages: str) -> str:
    """Say when, where and with what, but for the model."""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("xarray-tec", *packages))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {_processor()}, {os.cpu_count()} cores, "
        f"{threads} thread(s) used; Python {platform.python_version()}, {versions}"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def alone(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(from the source tree)"


def _processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
