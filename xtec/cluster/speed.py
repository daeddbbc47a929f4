"""How fast the workers at hand code some chunks, all of them at it at the same time.

Below: workers, ready, codec. Above: plan.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from xtec.cluster.ready import Wish, find_card
from xtec.codec import Settings, encode_chunks
from xtec.pixels import Pixels

WORKERS = 8
"""So many are timed at most; the others are taken to be like them."""

PER_THREAD = 2
"""Chunks that each thread of a timed worker codes, at least."""


@dataclass(frozen=True)
class Speed:
    """What the workers do together."""

    bytes_per_second: float
    """Raw, coded by all of them."""
    workers: int
    """Processes; 1 without a client."""
    threads: int
    """Of Dask, in all processes; of torch without a client."""
    sizes: tuple[int, ...]
    """Bytes of each of the chunks, coded."""


def here(chunks: Sequence[Pixels], settings: Settings) -> Speed:
    """Time this process, with the threads that torch has in it."""
    from xtec.engine import threads_now

    coded([_corner(chunks[0])], settings)  # loads and compiles
    threads = threads_now()
    batch = [chunks[i % len(chunks)] for i in range(max(len(chunks), PER_THREAD * threads))]
    seconds, sizes = coded(batch, settings)
    rate = sum(c.nbytes for c in batch) / seconds
    return Speed(rate, 1, threads, tuple(sizes[: len(chunks)]))


def on_workers(client: Any, chunks: Sequence[Pixels], wish: Wish) -> Speed:
    """Time some of the workers, as many tasks at a time on each as it has threads for.

    Parameters
    ----------
    client : distributed.Client
    """
    every: dict[str, int] = client.nthreads()
    some = dict(islice(every.items(), WORKERS))
    corner = _corner(chunks[0])
    client.gather([client.submit(warm, corner, wish, workers=[a], pure=False) for a in some])
    seats = [(address, n) for address, count in some.items() for n in range(count)]
    each = max(PER_THREAD, -(-len(chunks) // len(seats)))
    numbers = [[(each * seat + i) % len(chunks) for i in range(each)] for seat in range(len(seats))]
    batches = [[chunks[number] for number in own] for own in numbers]
    # They travel first: what is timed is coding.
    there = [
        client.scatter([batch], workers=[address], hash=False)[0]
        for batch, (address, _) in zip(batches, seats, strict=True)
    ]
    timed = client.gather(
        [
            client.submit(coded, batch, wish.settings, workers=[address], pure=False)
            for batch, (address, _) in zip(there, seats, strict=True)
        ]
    )
    rate = sum(
        sum(c.nbytes for c in batch) / seconds
        for batch, (seconds, _) in zip(batches, timed, strict=True)
    )
    sizes: dict[int, int] = {}
    for own, (_, lengths) in zip(numbers, timed, strict=True):
        sizes |= zip(own, lengths, strict=True)
    threads = sum(every.values())
    return Speed(
        rate * threads / len(seats), len(every), threads, tuple(sizes[i] for i in sorted(sizes))
    )


def warm(chunk: Pixels, wish: Wish) -> None:
    """Load and compile; finds a model that is a file, too."""
    find_card(wish)
    coded([chunk], wish.settings)


def coded(chunks: Sequence[Pixels], settings: Settings) -> tuple[float, list[int]]:
    """Seconds that it takes to code some chunks, and how many bytes each becomes."""
    begin = time.perf_counter()
    streams = encode_chunks(chunks, settings)
    return time.perf_counter() - begin, [len(stream) for stream in streams]


def _corner(chunk: Pixels) -> Pixels:
    return np.ascontiguousarray(chunk[:2, :, :64, :64])
