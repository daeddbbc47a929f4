"""One model per process and device, with many callers.

The engine turns prepared pixels into symbols and table rows, and back. Bytes are none of its
business. The company a chunk travels in changes nothing, so concurrent callers are collected into
batches where a network is the faster for it.

Below: models. Above: codec.
"""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from xtec.errors import InputError
from xtec.models import threads, weights
from xtec.models.coded import Coded, Decoded, Read, Replayed
from xtec.models.collector import Collector
from xtec.models.context import ContextTransformer
from xtec.models.known_answer import select
from xtec.models.lapped_model import LappedModel
from xtec.models.memory import Room
from xtec.models.network import TemporalTransformer
from xtec.models.temporal_model import TemporalModel
from xtec.models.weights import Card

P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")

Kind = tuple[str, int, tuple[int, ...]]
"""What may travel together: what is asked for, compression setting, shape of the chunk."""

DEVICE = "XTEC_DEVICE"
KINDS = ("cpu", "cuda")


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """Compute without gradients, in the precision that is written, whatever the caller does."""
    for device in KINDS:
        function = torch.autocast(device, enabled=False)(function)
    return wraps(function)(torch.inference_mode()(function))


class Engine:
    """One network on one device.

    Parameters
    ----------
    source : Card or TemporalTransformer
        A network is taken over: it moves to the device.
    device : str
        A torch device. Where it cannot compute exactly, what must be exact runs on the CPU.
    """

    @undisturbed
    def __init__(self, source: Card | TemporalTransformer, device: str) -> None:
        network = weights.load(source) if isinstance(source, Card) else source
        arithmetic = select(device)
        self._model: LappedModel | TemporalModel
        if isinstance(network, ContextTransformer):
            self._model = LappedModel(network, arithmetic)
        else:
            self._model = TemporalModel(network, arithmetic, device)
        self._room = Room(torch.device(device))
        self._collector = Collector[Any, Kind, Any](self._travel, self._room.chunks)

    def each(self, function: Callable[[A], R], items: Iterable[A]) -> list[R]:
        """Do all that chunks need, for each of them, several at a time.

        What ``function`` asks of this engine may travel with what it asks for others; meanwhile
        others again do what needs no network. Callers share the threads, so there is a limit to
        the chunks that are under way in a process.

        Parameters
        ----------
        function : callable
            Calls `encode` or `decode` once, for one chunk, or not at all.
        items : iterable
        """
        if isinstance(self._model, LappedModel):  # a chunk by itself, from pixels to bytes
            return threads.spread(function, items)

        def announced(item: A) -> R:
            with self._collector.coming():
                return function(item)

        # On a GPU one batch is made ready while another is under way.
        width = self._room.most * (1 if self._room.on_cpu else 2)
        return threads.side_by_side(announced, items, width)

    @undisturbed
    def encode(self, chunks: Sequence[NDArray[np.float32]], level: int) -> list[Coded]:
        """Prepared pixels to symbols and their distributions.

        Parameters
        ----------
        chunks : sequence of float32, shape (time, band, y, x)
            As `xtec.pixels.prepare` makes them; of one shape.
        level : int
            Compression setting.
        """
        if isinstance(self._model, LappedModel):
            return self._model.encode(chunks, level)
        return self._collector(chunks, ("encode", level, chunks[0].shape)) if chunks else []

    @undisturbed
    def decode(self, sources: Sequence[Read], level: int, shape: tuple[int, ...]) -> list[Decoded]:
        """Symbols to latents, and on demand to pixels.

        Parameters
        ----------
        sources : sequence of callables
            One per chunk: takes rows, gives their symbols.
        level : int
            Compression setting.
        shape : (time, band, y, x)
            Of each chunk, padded.
        """
        if isinstance(self._model, LappedModel):
            decoded = self._model.decode(sources, level, shape)
        else:
            decoded = self._collector([Replayed(s) for s in sources], ("decode", level, shape))
        return [Decoded(found.latents, undisturbed(found.pixels)) for found in decoded]

    def _travel(self, items: list[Any], kind: Kind) -> Sequence[Any]:
        """One batch."""
        what, level, shape = kind
        with self._room.measured(kind, len(items)):
            if what == "encode":
                return self._model.encode(items, level)
            for source in items:
                source.rewind()
            return self._model.decode(items, level, shape)

    @undisturbed
    def reconstruct(self, chunks: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Pixels as they would come back, without coding: TEC-TT only.

        Parameters
        ----------
        chunks : sequence of float32, shape (time, band, y, x)
            Standardised, padded to the tile, of one shape; what is returned too.
        """
        if isinstance(self._model, LappedModel):
            raise TypeError("only a TEC-TT network reconstructs without coding.")
        return self._model.reconstruct(chunks)


def default_device(wish: str | None = None) -> str:
    """The device of this process: ``XTEC_DEVICE``, else CUDA where there is one, else the CPU.

    Or what is wished for, if it is there.
    """
    cuda = torch.cuda.is_available()
    device = wish or os.environ.get(DEVICE) or ("cuda" if cuda else "cpu")
    kind = device.partition(":")[0]
    if kind not in KINDS or (kind == "cuda" and not cuda):
        said = f"device={device!r}" if wish else f"{DEVICE}={device!r}"
        raise InputError(
            f"{said} is not a device of this machine; allowed are "
            f"{'cpu, cuda and cuda:N' if cuda else 'cpu (torch finds no CUDA here)'}."
        )
    return device


def take_device(wish: str | None, seat: int) -> str:
    """Choose the device of this process, for good.

    Parameters
    ----------
    wish : str, optional
        A torch device; without it `default_device`.
    seat : int
        Of several CUDA devices this process takes the one that its seat falls on, in turn.
    """
    device = default_device(wish)
    if wish is None and device == "cuda" and torch.cuda.device_count() > 1:
        device = f"cuda:{seat % torch.cuda.device_count()}"
    os.environ[DEVICE] = device
    return device


def use_threads(count: int) -> None:
    """Give torch so many threads in this process; `Engine.each` takes no more either."""
    threads.grant(count)


def threads_now() -> int:
    """How many threads there are for the work of this process."""
    return threads.count()


_building = threading.Lock()


def engine(card: Card) -> Engine:
    """The engine of a model in this process; built on first use."""
    with _building:
        return _engine(card, default_device())


@lru_cache(maxsize=4)
def _engine(card: Card, device: str) -> Engine:
    return Engine(card, device)
