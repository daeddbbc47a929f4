"""From one tile to the world, on paper: sizes, chunks and hours, from speeds that were measured.

    python benchmarks/scaling_paper.py
    python benchmarks/scaling_paper.py --encode 20 --decode 25 --bpppb 0.05

Nothing is measured here. The speeds are those of one thread in benchmarks/RESULTS.md (throughput.py
for the embedded model, scaling.py for the official size), the bits those of the city in
throughput.py at compression 20, where a chunk has two dates: a high estimate.

Below: common. Above: nothing.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from common import table

DATES, BANDS, PIXEL_M = 73, 13, 10
CHUNK = 8, 256
TASK_S = 1e-3
"""What Dask's scheduler takes for a task, by its own documentation."""
TASKS_PER_BLOCK = 3
CORES = 2, 100, 1000


@dataclass(frozen=True)
class Area:
    """What is to be stored."""

    name: str
    squares: int
    """Of 100 x 100 km."""
    years: int = 1


AREAS = (
    Area("100 x 100 km", 1),
    Area("a country of 360,000 km2", 36),
    Area("all land, 149 million km2", 14_900),
    Area("all land, ten years", 14_900, 10),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    options = _parser().parse_args(arguments)
    side = 100_000 // PIXEL_M
    chunks = ceil(DATES / CHUNK[0]) * ceil(side / CHUNK[1]) ** 2
    values = DATES * BANDS * side**2
    coded = chunks * CHUNK[0] * CHUNK[1] ** 2 * BANDS  # those at the edges at full size
    sizes, times = [], []
    for area in AREAS:
        count = area.squares * area.years
        core_h = {
            name: 2 * coded * count / (speed * 1e6) / 3600
            for name, speed in (
                ("write", options.encode), ("read", options.decode),
                ("official", options.official_encode), ("official read", options.official_decode),
            )
        }  # fmt: skip
        sizes.append(
            (area.name, _size(2 * values * count), f"{chunks * count:,}",
             _size(options.bpppb / 8 * values * count))
        )  # fmt: skip
        tasks_h = chunks * count * TASKS_PER_BLOCK * TASK_S / 3600
        times.append(
            (area.name, *(_round(hours) for hours in core_h.values()),
             *(_time(core_h["write"] / n) for n in CORES), _time(tasks_h))
        )  # fmt: skip
    print(table(("", "raw", "chunks", "stored"), sizes))
    head = ("", "core hours to write", "to read", "official model: to write", "to read")
    head += tuple(f"written by {n:,} cores in" for n in CORES)
    print(table((*head, "one scheduler's time"), times))


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Sizes and hours on paper.")
    made.add_argument("--encode", type=float, default=18.19, help="MB/s of one thread")
    made.add_argument("--decode", type=float, default=19.57)
    made.add_argument("--bpppb", type=float, default=0.1016)
    made.add_argument("--official-encode", type=float, default=2.34)
    made.add_argument("--official-decode", type=float, default=1.61)
    return made


def _size(count: float) -> str:
    power = min((len(str(int(count))) - 1) // 3, 5)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def _round(number: float) -> str:
    return f"{number:.3g}" if number < 1000 else f"{float(f'{number:.3g}'):,.0f}"


def _time(hours: float) -> str:
    if hours < 2:
        return f"{60 * hours:.3g} min"
    return f"{hours:.3g} h" if hours < 48 else f"{_round(hours / 24)} days"


if __name__ == "__main__":
    main()
