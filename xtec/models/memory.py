"""How many chunks go through a network together: as many as the device's free memory takes.

What a chunk takes is not computed but measured, on the chunks before it: it depends on the network,
on the chunk's shape and on what torch's libraries need.

Below: nothing. Above: engine.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch

MOST = {"cpu": 8, "cuda": 32}
"""Chunks of one pass at most. On a CPU more would hardly be faster (a prior of 225 M parameters
decodes four chunks in 0.83 of the time of four passes), on a GPU they wait in the host's memory."""
SHARE = 0.7
"""Of the free memory, for one pass."""


class Room:
    """What fits on one device.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.on_cpu = device.type == "cpu"
        self.most = MOST[device.type]
        self._cost: dict[Hashable, float] = {}

    def chunks(self, kind: Hashable) -> int:
        """How many chunks of a kind fit now; 1 of a kind that was never measured."""
        if self.on_cpu:
            return self.most
        cost = self._cost.get(kind)
        if cost is None:
            return 1
        free = torch.cuda.mem_get_info(self._device)[0]
        # What torch holds and does not use is free for us.
        free += torch.cuda.memory_reserved(self._device)
        free -= torch.cuda.memory_allocated(self._device)
        return max(1, min(self.most, int(SHARE * free / max(cost, 1))))

    @contextmanager
    def measured(self, kind: Hashable, count: int) -> Iterator[None]:
        """Learn what so many chunks of a kind take, from a pass that is done within."""
        if self.on_cpu:
            yield
            return
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        yield
        # The last pass counts: a larger one shares what each needs once.
        self._cost[kind] = (torch.cuda.max_memory_allocated(self._device) - before) / count
