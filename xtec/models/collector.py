"""What many threads ask of one device at the same time travels together.

Whoever comes first leads: takes along what others have brought, as much as there is room for, and
does it in one go. Meanwhile the next wait, and travel together after that. So batches form by
themselves, and only while the device is busy does anybody wait; a leader also waits, for a moment,
for those who said that they are coming.

Below: nothing. Above: engine.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)

PATIENCE_S = 0.25
"""How long a leader waits for those who are coming, at most."""


class Collector(Generic[A, K, R]):
    """Does the work of many callers, in turns.

    Parameters
    ----------
    work : callable
        Takes items of one kind and the kind, gives a result for each. Never called twice at a
        time. Where it fails for several items it is called again for each alone, so that whose
        error it is gets it, and what did not fit together is tried in parts.
    room : callable
        How many items of a kind may travel together.
    """

    def __init__(self, work: Callable[[list[A], K], Sequence[R]], room: Callable[[K], int]) -> None:
        self._work, self._room = work, room
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: list[_Entry[A, K, R]] = []
        self._coming = 0
        self._thread = threading.local()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Say that this thread will probably call from within this block, once."""
        self._thread.coming = True
        with self._changed:
            self._coming += 1
        try:
            yield
        finally:
            with self._changed:
                self._arrived()

    def __call__(self, items: Sequence[A], kind: K) -> list[R]:
        """Do the work for some items of one kind; raises what their own items raised."""
        entries = [_Entry[A, K, R](item, kind) for item in items]
        with self._changed:
            self._waiting += entries
            self._arrived()
        with self._turn:
            for entry in entries:
                if not entry.done:
                    self._do(self._company(entry), kind)
        for entry in entries:
            if entry.error is not None:
                raise entry.error
        return [result for entry in entries for result in entry.result]

    def _arrived(self) -> None:
        """Note that this thread is not coming any more: it is here, or will not come."""
        if getattr(self._thread, "coming", False):
            self._thread.coming = False
            self._coming -= 1
        self._changed.notify_all()

    def _company(self, leader: "_Entry[A, K, R]") -> "list[_Entry[A, K, R]]":
        """The leader and those who travel with it; they wait no longer."""
        room = self._room(leader.kind)

        def alike() -> list[_Entry[A, K, R]]:
            others = (e for e in self._waiting if e is not leader and e.kind == leader.kind)
            return [leader, *others]

        with self._changed:
            self._changed.wait_for(
                lambda: not self._coming or len(alike()) >= room, timeout=PATIENCE_S
            )
            company = alike()[: max(room, 1)]
            self._waiting = [e for e in self._waiting if e not in company]
        return company

    def _do(self, company: "list[_Entry[A, K, R]]", kind: K) -> None:
        try:
            results = self._work([entry.item for entry in company], kind)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            if len(company) == 1:
                company[0].error = error
        else:
            for entry, result in zip(company, results, strict=True):
                entry.result = (result,)
        # Not in the handler: the error would hold on to the memory of what failed.
        for entry in company:
            if not entry.done:
                self._do([entry], kind)


class _Entry(Generic[A, K, R]):
    """One item on its way."""

    def __init__(self, item: A, kind: K) -> None:
        self.item, self.kind = item, kind
        self.result: tuple[R, ...] = ()
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return bool(self.result) or self.error is not None
