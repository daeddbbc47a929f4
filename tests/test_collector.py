"""Callers whose work travels together: each gets its own, in whatever company, and nobody hangs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xtec.models import collector as room
from xtec.models import memory
from xtec.models.coded import Replayed
from xtec.models.collector import Collector
from xtec.models.memory import Room


class Work:
    """Doubles numbers and notes who travelled together; a number below 0 breaks a batch."""

    def __init__(self):
        self.batches = []
        self.busy = threading.Lock()

    def __call__(self, items, kind):
        assert self.busy.acquire(blocking=False), "two batches at a time"
        try:
            self.batches.append((kind, list(items)))
            if min(items) < 0:
                raise ZeroDivisionError(min(items))
            return [2 * item for item in items]
        finally:
            self.busy.release()


calls = st.lists(
    st.tuples(st.lists(st.integers(-2, 99), min_size=1, max_size=3), st.sampled_from("ab")),
    min_size=1,
    max_size=12,
)


@settings(max_examples=30)
@given(calls=calls, most=st.integers(1, 5), announced=st.booleans())
def test_everybody_gets_their_own(calls, most, announced):
    work = Work()
    collector = Collector(work, lambda _: most)

    def call(one):
        items, kind = one
        if announced:
            with collector.coming():
                return collector(items, kind)
        return collector(items, kind)

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call, one) for one in calls]
    for (items, _), future in zip(calls, futures, strict=True):
        if min(items) < 0:
            assert isinstance(future.exception(), ZeroDivisionError)
            assert future.exception().args[0] in items
        else:
            assert future.result() == [2 * item for item in items]
    assert max(len(items) for _, items in work.batches) <= most


def test_those_who_come_travel_together():
    work, ready = Work(), threading.Barrier(8)
    collector = Collector(work, lambda _: 8)

    def call(number):
        with collector.coming():
            ready.wait()
            return collector([number], "a")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == [[2 * n] for n in range(8)]
    assert [len(items) for _, items in work.batches] == [8]


def test_those_who_find_the_device_busy_travel_together():
    work, begun, go = Work(), threading.Event(), threading.Event()

    def slow(items, kind):
        if not begun.is_set():
            begun.set()
            go.wait()
        return work(items, kind)

    collector = Collector(slow, lambda _: 8)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(collector, [0], "a")
        begun.wait()
        others = [pool.submit(collector, [n], "a") for n in range(1, 8)]
        while len(collector._waiting) < 7:
            time.sleep(0.001)
        go.set()
        assert [f.result() for f in [first, *others]] == [[2 * n] for n in range(8)]
    assert [len(items) for _, items in work.batches] == [1, 7]


def test_nobody_waits_for_long_for_who_does_not_come(monkeypatch):
    monkeypatch.setattr(room, "PATIENCE_S", 0.01)
    collector, leave = Collector(Work(), lambda _: 8), threading.Event()

    def never():
        with collector.coming():
            leave.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(never)
        while not collector._coming:
            time.sleep(0.001)
        assert collector([1], "a") == [2]
        leave.set()
    assert collector._coming == 0


def test_one_who_is_interrupted_leaves_nobody_behind():
    """Ctrl-C reaches the leader in the midst of a batch."""
    work, calls, begun, go = Work(), [], threading.Event(), threading.Event()

    def interrupted(items, kind):
        calls.append(items)
        if len(calls) == 1:
            begun.set()
            go.wait()
            raise KeyboardInterrupt
        return work(items, kind)

    collector = Collector(interrupted, lambda _: 8)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(collector, [1], "a")
        begun.wait()
        second = pool.submit(collector, [2], "a")
        go.set()
        assert second.result() == [4]
        assert isinstance(first.exception(), KeyboardInterrupt)


def test_a_reader_begins_again_and_fails_again():
    left = [1, 2]

    def read(rows):
        return np.full(len(rows), left.pop(0), np.int32)

    reader, rows = Replayed(read), np.zeros(3, np.uint16)
    for _ in range(3):
        reader.rewind()
        assert [reader(rows).tolist() for _ in range(2)] == [[1] * 3, [2] * 3]
        with pytest.raises(IndexError):
            reader(rows)


def test_a_cpu_takes_what_it_always_takes():
    room = Room(torch.device("cpu"))
    with room.measured("a", 3):
        assert room.chunks("a") == room.chunks("b") == memory.MOST["cpu"]


def test_a_gpu_takes_what_its_memory_holds(monkeypatch):
    """Numbers of an imagined device: what one chunk took decides how many go next."""
    about = {"free": 1000, "reserved": 300, "allocated": 100, "peak": 0}
    for name, value in (
        ("mem_get_info", lambda _: (about["free"], 9999)),
        ("memory_reserved", lambda _: about["reserved"]),
        ("memory_allocated", lambda _: about["allocated"]),
        ("max_memory_allocated", lambda _: about["peak"]),
        ("reset_peak_memory_stats", lambda _: None),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    room = Room(torch.device("cuda"))
    assert room.chunks("a") == 1
    with room.measured("a", 1):
        about["peak"] = 100 + 140
    assert room.chunks("a") == int(memory.SHARE * 1200 / 140) == 6
    assert room.chunks("b") == 1
    with room.measured("a", 6):
        about["peak"] = 100 + 600
    assert room.chunks("a") == 8
    about["free"] = 0
    assert room.chunks("a") == 1
    about["free"] = 10**9
    assert room.chunks("a") == memory.MOST["cuda"]
