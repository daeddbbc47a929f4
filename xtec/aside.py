"""An event loop of our own, for what must be read of a store while Zarr decodes chunks of it.

Zarr decodes in the threads of its event loop's pool, and reads with them too. Where all of them
wait for one model, none is left to read it from the store: so it is read by another loop.

Below: nothing. Above: shelf.
"""

import asyncio
import os
import pickle
import threading
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, TypeVar

from zarr.storage import FsspecStore

R = TypeVar("R")


def run(work: Coroutine[Any, Any, R]) -> R:
    """Wait for something that does not wait for Zarr's own loop."""
    with _starting:
        loop = _loop()
    return asyncio.run_coroutine_threadsafe(work, loop).result()


def own(store: Any) -> Any:
    """A store as the loop that this is called in may use it.

    A file system of fsspec belongs to the loop that it was first used in; unpickled it is another
    in every thread.
    """
    return pickle.loads(pickle.dumps(store)) if isinstance(store, FsspecStore) else store  # noqa: S301


_starting = threading.Lock()


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="xtec-aside", daemon=True).start()
    return loop


# A forked process has no threads but its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_loop.cache_clear)
