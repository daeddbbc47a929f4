"""What makes one process ready to code: memory, Zarr, threads, device, model, compiled loops.

Runs in every worker; only small things travel there.

Below: codec, engine, models. Above: plugin, workers, plan.
"""

import ctypes
import os
import sys
import time
from dataclasses import dataclass

import numpy as np
import zarr

from xtec.codec import Settings, decode_chunk, encode_chunk
from xtec.errors import ModelError, WrongModelError
from xtec.models import registry
from xtec.models.weights import Card

CHUNKS_PER_CALL = 16
"""Chunks that Zarr hands over at once: more than a Dask block of the usual size has, so that
one of Dask's threads codes its block in one call, and no more of them at a time than there are
threads."""

KEPT_BYTES = 1 << 26
LARGEST_KEPT_BYTES = 1 << 22
"""Of memory that was freed so much stays with each arena of the C library; arrays above the second
size are not made of it: larger ones would tear holes in it that nothing else fits into."""

CONCURRENCY = 32
"""Calls of Zarr under way in a process with a GPU, where those that wait form batches."""


@dataclass(frozen=True)
class Wish:
    """What a process is to be made ready for."""

    model: str
    """Name or path, as the user gave it."""
    settings: Settings
    """With the name and digest of the model, as the client found it."""
    device: str | None
    threads: int | None


@dataclass(frozen=True)
class Place:
    """Where a worker stands among the others of its machine."""

    seat: int = 0
    """Counts the processes that see the same devices."""
    beside: int = 1
    """Processes on this machine."""
    threads: int = 1
    """Of Dask, in this process."""


@dataclass(frozen=True)
class Ready:
    """One process that is ready."""

    worker: str
    device: str
    threads: int
    seconds: float
    """What it took: importing torch, loading and testing the model, compiling."""


def make_ready(worker: str, wish: Wish, place: Place) -> Ready:
    """Make this process ready.

    Raises
    ------
    ModelError
        The model is not here, is another than the client's, or this machine cannot compute it.
    InputError
        There is no such device here.
    """
    begin = time.perf_counter()
    keep_memory()
    set_zarr()
    card = find_card(wish)
    from xtec import engine  # torch arrives here

    device = engine.take_device(wish.device, place.seat)
    on_gpu = not device.startswith("cpu")
    threads = wish.threads or _threads(place, on_gpu=on_gpu)
    engine.use_threads(threads)
    # These two count where Zarr has not been at work in this process.
    zarr.config.set({"threading.max_workers": CONCURRENCY if on_gpu else threads + 1})
    if on_gpu:
        zarr.config.set({"async.concurrency": CONCURRENCY})
    _try(wish.settings, card)
    return Ready(worker, device, threads, round(time.perf_counter() - begin, 2))


def keep_memory() -> None:
    """Let arrays be made of what others were made of before, where the C library is glibc.

    Dask's nanny starts its workers so that all that is freed goes back at once. Then the system
    clears the pages of each array anew, in a third of the time that coding takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""As malloc.h of glibc numbers them."""


def set_zarr() -> None:
    """Let Zarr hand over many chunks at once. Arrays keep what was set when they were opened."""
    zarr.config.set({"codec_pipeline.batch_size": CHUNKS_PER_CALL})


def find_card(wish: Wish) -> Card:
    """The client's model, found here."""
    digest, name = wish.settings.model_digest, wish.settings.model
    try:
        return registry.find(bytes.fromhex(digest), name)
    except WrongModelError:
        card = registry.resolve(wish.model, wish.settings.compression)
    if card.digest != digest:
        raise ModelError(
            f"{wish.model!r} is another model here (digest {card.digest[:16]}) than where it was "
            f"asked for ({digest[:16]}); bring its weights file here and name its folder in "
            f"{registry.SEARCH_PATH}."
        )
    return card


def _threads(place: Place, *, on_gpu: bool) -> int:
    """As many as Dask has here; beside a GPU this process's share of the cores, for the coder."""
    if not on_gpu:
        return place.threads
    return max(place.threads, cores() // place.beside)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _try(settings: Settings, card: Card) -> None:
    """Code a small chunk: builds the engine, which tests the device, and compiles all loops."""
    side = card.config.tile
    ramp = np.arange(2 * side * side).reshape(2, 1, side, side) % 977 + 1000
    chunk = np.repeat(ramp, len(settings.bands), axis=1).astype(np.uint16)
    decode_chunk(encode_chunk(chunk, settings))
