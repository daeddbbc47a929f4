"""The plugin that makes Dask's workers ready, those too that come later.

Below: ready, distributed. Above: workers, which imports this file when there is a client.
"""

import asyncio
import os
from typing import Any

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

from xtec.cluster.ready import Place, Ready, Wish, make_ready

NAME = "xtec"


class Readiness(WorkerPlugin):
    """Makes a worker ready when it starts, or when this is registered.

    Parameters
    ----------
    wish : Wish
    places : dict
        Name of each worker that there is -> its place. Dask's nanny starts a worker again under
        its name.
    """

    def __init__(self, wish: Wish, places: dict[str, Place]) -> None:
        self.wish, self.places = wish, places
        self.ready: Ready | None = None

    async def setup(self, worker: Worker) -> None:
        """Work in a thread: the worker must answer meanwhile."""
        alone = Place(threads=worker.state.nthreads)
        place = self.places.get(str(worker.name), alone)
        self.ready = await asyncio.to_thread(make_ready, str(worker.name), self.wish, place)


def look(dask_worker: Worker) -> dict[str, Any]:
    """Tell about a worker what its place depends on."""
    return {
        "name": str(dask_worker.name),
        "host": dask_worker.ip,
        "process": os.getpid(),
        "threads": dask_worker.state.nthreads,
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def told(dask_worker: Worker) -> Ready | None:
    """What the plugin noted."""
    plugin = dask_worker.plugins.get(NAME)
    return plugin.ready if isinstance(plugin, Readiness) else None
