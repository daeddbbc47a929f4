"""Run the tasks that write, on whatever scheduler is active, and show how far they are.

Below: blocks. Above: writing, adding, verify, io.
"""

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import dask
from dask.base import get_scheduler
from dask.callbacks import Callback
from tqdm import TqdmWarning

from xtec.cube.blocks import Job, Written

if TYPE_CHECKING:
    from distributed import Client


FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} chunks, {remaining} left{postfix}"
"""Short enough for 80 columns, of which tqdm would cut off the end."""


def run(jobs: Sequence[Job], *, shown: bool) -> None:
    """Do all tasks of all jobs.

    Parameters
    ----------
    jobs : sequence of Job
    shown : bool
        Whether to show a bar, if there is somebody to see it: `is_watched`.
    """
    tasks = [task for job in jobs for task in job.tasks]
    with Bar(jobs, shown=shown and is_watched()) as bar:
        client = _client(tasks)
        if client is not None:
            _on_client(client, tasks, bar.add)
        elif tasks:
            _here(tasks, bar.add)


def of_tasks(what: str, *, shown: bool) -> contextlib.AbstractContextManager[Any]:
    """Show a plain bar of all that Dask computes meanwhile, if there is somebody to see it.

    Not on a cluster, whose tasks are not those of this process.
    """
    if not (shown and is_watched()):
        return contextlib.nullcontext()
    from tqdm.dask import TqdmCallback

    bar: contextlib.AbstractContextManager[Any] = TqdmCallback(desc=what, unit="task")
    return bar


def is_watched() -> bool:
    """Whether a bar would be seen: in a terminal or a notebook, and not in a log."""
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


class Bar:
    """Chunks, speed in and out, ratio so far, time left.

    The speed is that of this run; chunks and ratio are those of the store, so they count what an
    earlier run had stored.
    """

    def __init__(self, jobs: Sequence[Job], *, shown: bool) -> None:
        self.total = sum((job.whole for job in jobs), Written())
        self.before = sum((job.done for job in jobs), Written())
        self.now = Written()
        self.begin = time.monotonic()
        with warnings.catch_warnings():
            # In a notebook without widgets tqdm says so at length; the bar is then one of text.
            warnings.simplefilter("ignore", TqdmWarning)
            from tqdm.auto import tqdm

            self._bar = tqdm(
                bar_format=FORMAT,
                total=self.total.chunks,
                initial=self.before.chunks,
                disable=not shown,
            )

    def add(self, written: Written) -> None:
        """Count what one task wrote."""
        self.now += written
        self._bar.set_postfix_str(str(self), refresh=False)
        self._bar.update(written.chunks)

    def __str__(self) -> str:
        """Speed and ratio."""
        seconds = max(time.monotonic() - self.begin, 1e-9)
        speed = (n / seconds / 1e6 for n in (self.now.raw_bytes, self.now.stored_bytes))
        all_of_it = self.before + self.now
        ratio = all_of_it.raw_bytes / all_of_it.stored_bytes if all_of_it.stored_bytes else None
        said = "{:.3g} MB/s in, {:.3g} out".format(*speed)
        return said if ratio is None else f"{said}, ratio {ratio:.1f}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _in_notebook() -> bool:
    """Whether tqdm would draw with widgets; it looks at IPython's kernel for that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm import auto, notebook
    return issubclass(auto.tqdm, notebook.tqdm_notebook)


def _client(tasks: Sequence[Any]) -> "Client | None":
    """The client that Dask would compute with; None where it is a scheduler of this machine."""
    get = get_scheduler(collections=list(tasks))  # type: ignore[no-untyped-call]
    if "distributed" not in sys.modules:
        return None
    from distributed import Client

    owner = getattr(get, "__self__", None)
    return owner if isinstance(owner, Client) else None


def _here(tasks: Sequence[Any], add: Callable[[Written], None]) -> None:
    ours = {task.key for task in tasks}  # others may compute at the same time

    def done(key: Any, result: Any, *_: object) -> None:
        if key in ours:
            add(result)

    with Callback(posttask=done):  # type: ignore[no-untyped-call]
        dask.compute(*tasks)  # type: ignore[attr-defined, no-untyped-call]


def _on_client(client: "Client", tasks: Sequence[Any], add: Callable[[Written], None]) -> None:
    from distributed import as_completed

    futures = client.compute(list(tasks))  # type: ignore[no-untyped-call]
    try:
        for _, written in as_completed(futures, with_results=True):  # type: ignore[no-untyped-call]
            add(written)
    except BaseException:
        client.cancel(futures)  # type: ignore[no-untyped-call]
        raise
