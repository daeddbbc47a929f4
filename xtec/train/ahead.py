"""Batches made by other threads while one is trained on.

Below: nothing. Above: loop.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Made = TypeVar("Made")


def ahead(make: Callable[[int], Made], numbers: Iterable[int], workers: int) -> Iterator[Made]:
    """Give ``make(n)`` for each number, in order.

    Parameters
    ----------
    make : callable
        What it gives depends on the number alone.
    numbers : iterable of int
    workers : int
        Threads that work ahead; 0: none, each is made when it is asked for.
    """
    if not workers:
        yield from map(make, numbers)
        return
    waiting: deque[Future[Made]] = deque()
    # Each with one thread of its own, or they would get in each other's way.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for number in numbers:
            waiting.append(pool.submit(make, number))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
