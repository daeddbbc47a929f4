"""An event loop of our own, for what must be read of a store while Zarr decodes chunks of it.

Zarr decodes in the threads of its event loop's pool, and reads with them too. Where all of them
wait for one model, none is left to read it from the store: so it is read by another loop.

Below: nothing. Above: shelf.
"""

import asyncio
import copy
import os
import threading
from collections.abc import Coroutine
from functools import cache, lru_cache
from typing import Any, TypeVar

from fsspec import AbstractFileSystem
from zarr.storage import FsspecStore, WrapperStore

R = TypeVar("R")


def run(work: Coroutine[Any, Any, R]) -> R:
    """Wait for something that does not wait for Zarr's own loop."""
    with _starting:
        loop = _loop()
    return asyncio.run_coroutine_threadsafe(work, loop).result()


def own(store: Any) -> Any:
    """A store as our loop may use it."""
    if not isinstance(store, FsspecStore | WrapperStore):
        return store
    ours: Any = copy.copy(store)
    if isinstance(store, FsspecStore):
        ours.fs = _our_file_system(store.fs)
    else:
        ours._store = own(store._store)  # noqa: SLF001  as its class tells those who wrap
    return ours


_starting = threading.Lock()


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="xtec-aside", daemon=True).start()
    return loop


@cache
def _our_file_system(theirs: Any) -> Any:
    """One made alike, for a file system of fsspec belongs to the loop that it was first used in.

    It may lie within another. Not one of those that fsspec keeps: it keeps them by thread, and
    the numbers of threads that have ended return.
    """

    def ours(argument: Any) -> Any:
        inner = isinstance(argument, AbstractFileSystem)
        return _our_file_system(argument) if inner else argument

    options = {name: ours(value) for name, value in theirs.storage_options.items()}
    made: Any = type(theirs)
    return made(*map(ours, theirs.storage_args), **options, skip_instance_cache=True)


# A forked process has no threads but its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_loop.cache_clear)
    os.register_at_fork(after_in_child=_our_file_system.cache_clear)
