"""Work spread over threads: in order, each with one-threaded torch, nobody else disturbed."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from xtec.models import threads


@pytest.fixture(params=[1, 2, 3])
def several(request):
    """As many threads for torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order(several):
    assert threads.spread(lambda i: i * i, range(50)) == [i * i for i in range(50)]
    assert threads.spread(str, []) == []
    assert threads.count() == torch.get_num_threads() == several


def test_each_thread_has_one_for_torch_and_no_gradients(several):
    def look(_):
        inner = threads.spread(lambda _: threading.get_ident(), range(3))
        return (
            torch.get_num_threads(),
            torch.is_inference_mode_enabled(),
            set(inner) == {threading.get_ident()},
        )

    assert set(threads.spread(look, range(20))) == {(1, True, True)}
    assert not torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == several


def test_a_product_in_a_thread_stays_on_it(several):
    """The limit reaches the libraries, not only torch's own count."""
    a = torch.ones(600, 600)

    def seconds(_):
        before = time.process_time(), time.thread_time()
        for _ in range(20):
            a @ a
        return time.process_time() - before[0], time.thread_time() - before[1]

    ((whole_process, this_thread),) = threads.spread(seconds, [0])
    if several > 1:  # else it is the caller's thread, with what it had
        assert whole_process < 1.4 * this_thread + 0.02


def test_errors_arrive(several):
    with pytest.raises(ZeroDivisionError):
        threads.spread(lambda i: 1 // i, range(-several, several + 1))


def test_callers_share_the_threads(several):
    seen = set()
    barrier = threading.Barrier(4)

    def call(_):
        barrier.wait()
        return threads.spread(lambda i: seen.add(threading.get_ident()) or i, range(30))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(4))) == [list(range(30))] * 4
    assert len(seen) <= max(several, 4 if several == 1 else 0)


def test_side_by_side_never_more_than_so_many(several):
    lock, under_way, most = threading.Lock(), 0, 0

    def work(i):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.002)
        found = threads.spread(abs, [-i, i]) + threads.side_by_side(abs, [-i], 3)
        with lock:
            under_way -= 1
        return found

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: threads.side_by_side(work, range(9), 3), range(4)))
    assert found == [[[i] * 3 for i in range(9)]] * 4
    assert 1 < most <= 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_makes_threads_of_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert threads.spread(abs, [-1, -2]) == [1, 2]
        child = os.fork()
        if not child:
            os._exit(threads.spread(abs, [-1, -2]) != [1, 2])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(before)
