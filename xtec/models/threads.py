"""Work for many threads, in each of which torch runs on one.

A product that torch itself cuts among threads leaves them spinning while the next compiled loop
wants their cores; whole pieces of work side by side do not. It is also why a chunk's bytes do not
depend on its company: the float library sees one thread, whoever else is there.

Below: nothing. Above: temporal_model, lapped_model, prior.
"""

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from threadpoolctl import threadpool_info, threadpool_limits

A = TypeVar("A")
R = TypeVar("R")

_thread = threading.local()
_granted: int | None = None


def grant(threads: int | None) -> None:
    """Give this process so many threads, or as many as torch has.

    Torch's own number is one per thread of the caller's, and stays where it was asked for before.
    """
    global _granted  # noqa: PLW0603 - of the process, as the threads are
    _granted = threads
    if threads is not None:
        torch.set_num_threads(threads)


def count() -> int:
    """How many threads torch may use here; 1 where `spread` already cut the work."""
    return 1 if hasattr(_thread, "single") else _granted or torch.get_num_threads()


def spread(function: Callable[[A], R], items: Iterable[A]) -> list[R]:
    """Do ``function`` of each item, on as many threads as torch may use, in inference mode.

    Callers share the threads. What is spread within an item stays on that item's thread.
    """

    @torch.inference_mode()
    def quiet(item: A) -> R:
        return function(item)

    if count() == 1:
        return [quiet(item) for item in items]
    return list(_pool(count()).map(quiet, items))


def side_by_side(function: Callable[[A], R], items: Iterable[A], width: int) -> list[R]:
    """Do ``function`` of each item, so many at a time, in threads that may `spread` within.

    Callers share these threads too: no more items are under way in the whole process.
    """
    if hasattr(_thread, "beside"):
        return [function(item) for item in items]
    return list(_waiters(width).map(function, items))


@lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "xtec", initializer=_begin)


@lru_cache
def _waiters(width: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(
        width, "xtec-beside", initializer=lambda: setattr(_thread, "beside", True)
    )


def _begin() -> None:
    """Make this thread's torch single-threaded, and no other's."""
    torch.get_num_threads()  # sets this thread up, which would undo what follows
    threadpool_limits(limits=1, user_api="openmp")
    for path in _libraries():
        # MKL listens to OpenMP only until somebody calls torch.set_num_threads.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(path).MKL_Set_Num_Threads_Local(1)
    _thread.single = True


@lru_cache
def _libraries() -> list[str]:
    """Where MKL may be: inside torch, as in its wheels, or beside it."""
    inside = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    beside = [lib["filepath"] for lib in threadpool_info() if lib["internal_api"] == "mkl"]
    return [str(inside), *beside]


# A forked process has no threads but its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
    os.register_at_fork(after_in_child=_waiters.cache_clear)
