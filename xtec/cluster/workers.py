"""Make all processes that will code ready for it, and say what they are.

Below: ready, plugin, table. Above: plan, cli.
"""

import sys
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import dask

from xtec.cluster.ready import Place, Ready, Wish, make_ready, set_zarr
from xtec.cluster.table import Table
from xtec.codec import Settings
from xtec.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

HERE = "this process"


class Workers(Table, tuple[Ready, ...]):
    """The processes that are ready; shown as a table."""

    __slots__ = ()
    title = "xtec workers"

    def rows(self) -> list[tuple[str, str]]:
        """As a table for people."""
        return [
            (one.worker, f"{one.device}, threads: {one.threads}, ready after {one.seconds:.1f} s")
            for one in self
        ]


def prepare(
    client: "Client | None" = None,
    model: str = "embedded",
    device: str | None = None,
    threads: int | None = None,
    *,
    compression: float | None = None,
) -> Workers:
    """Make Dask's workers ready to code.

    Each process loads the model once, tests that its device computes exactly, compiles what is
    compiled, gives torch as many threads as are good there, and lets Zarr hand over many chunks at
    once. Workers that join later, or that start again, are made ready too. All of it also
    happens without this, by and by, while the first chunks are coded; but a model that is a file
    is found by workers only through ``XTEC_MODEL_PATH``, and threads stay as they are. Call it
    before a store is opened or written: Zarr's arrays remember the settings of that moment.

    Parameters
    ----------
    client : distributed.Client, optional
        By default the active one. Where there is none, this process is made ready, and those that
        Dask's scheduler "processes" starts from here, each with one thread.
    model : str
        As of ``ds.tec.compress``: name, or path of a weights file that the workers see too.
    device : str, optional
        "cpu", "cuda" or "cuda:N", for all workers. By default what ``XTEC_DEVICE`` says, else a
        CUDA device where there is one (several workers of one machine take one each, in turn,
        unless each is shown its own, as ``dask_cuda.LocalCUDACluster`` does), else the CPU.
    threads : int, optional
        For torch, in each process. By default as many as Dask has there, beside a GPU the
        process's share of the machine's cores. Dask's own threads of a process share them.
    compression : float, optional
        Chooses among the checkpoints of "tt-s2l1c" and "tt-s2l2a".

    Returns
    -------
    Workers
        One entry for each worker: its name, device, threads and the seconds it took.

    Raises
    ------
    ModelError
        The model is not at hand, here or on a worker, or a worker has another one of that name.
    InputError
        A device that a worker does not have, fewer than one thread, or a client without workers.

    Examples
    --------
    >>> import xtec.cluster
    >>> xtec.cluster.prepare(client, threads=4)  # doctest: +SKIP
    <xtec workers>
      0            cpu, threads: 4, ready after 5.3 s
      1            cpu, threads: 4, ready after 5.2 s
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads={threads}; give at least 1, or leave it out.")
    settings = Settings(model) if compression is None else Settings(model, compression)
    wish = Wish(model, settings, device, threads)
    client = client or active_client()
    if client is None:
        start = partial(make_ready, HERE, wish, Place())
        dask.config.set({"multiprocessing.initializer": start})
        own = Wish(model, wish.settings, device, threads or _threads_now())
        return Workers((make_ready(HERE, own, Place()),))
    return Workers(_on_workers(client, wish))


def active_client() -> "Client | None":
    """The client that Dask would use; None where there is none."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        client: Client = default_client()  # type: ignore[no-untyped-call]
    except ValueError:
        return None
    return client


def _on_workers(client: "Client", wish: Wish) -> list[Ready]:
    from xtec.cluster import plugin

    if client.asynchronous:
        raise InputError("the client is asynchronous; give one of asynchronous=False.")
    views = client.run(plugin.look)
    if not views:
        raise InputError("the client has no workers yet; wait for them (client.wait_for_workers).")
    set_zarr()  # arrays that are opened here travel with it
    try:
        client.register_plugin(plugin.Readiness(wish, places(views.values())), name=plugin.NAME)
    except Exception:
        # Else no worker could start any more.
        client.unregister_worker_plugin(plugin.NAME)  # type: ignore[no-untyped-call]
        raise
    found = client.run(plugin.told)
    return sorted((one for one in found.values() if one), key=lambda one: _natural(one.worker))


def places(views: Iterable[dict[str, Any]]) -> dict[str, Place]:
    """The place of each worker by its name, from what `plugin.look` told of each."""
    views = list(views)
    found = {}
    for view in views:
        host = [v for v in views if v["host"] == view["host"]]
        own = [v for v in host if v["process"] == view["process"]]
        rivals = sorted({v["process"] for v in host if v["devices"] == view["devices"]})
        found[view["name"]] = Place(
            seat=rivals.index(view["process"]),
            beside=len({v["process"] for v in host}),
            threads=sum(v["threads"] for v in own),
        )
    return found


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (sys.maxsize, name)


def _threads_now() -> int:
    from xtec.engine import threads_now

    return threads_now()
