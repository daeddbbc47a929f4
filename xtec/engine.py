"""One model per process and device, with many callers.

The engine turns prepared pixels into symbols and table rows, and back. Bytes are none of its
business. The company a chunk travels in changes nothing.

Below: models. Above: codec.
"""

import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from xtec.errors import InputError
from xtec.models import weights
from xtec.models.coded import Coded, Decoded, Read
from xtec.models.context import ContextTransformer
from xtec.models.known_answer import select
from xtec.models.lapped_model import LappedModel
from xtec.models.network import TemporalTransformer
from xtec.models.temporal_model import TemporalModel
from xtec.models.weights import Card

P = ParamSpec("P")
R = TypeVar("R")

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
        return self._model.encode(chunks, level)

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
        return [
            Decoded(found.latents, undisturbed(found.pixels))
            for found in self._model.decode(sources, level, shape)
        ]

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


def default_device() -> str:
    """The device of this process: ``XTEC_DEVICE``, else CUDA where there is one, else the CPU."""
    cuda = torch.cuda.is_available()
    device = os.environ.get(DEVICE) or ("cuda" if cuda else "cpu")
    kind = device.partition(":")[0]
    if kind not in KINDS or (kind == "cuda" and not cuda):
        raise InputError(
            f"{DEVICE}={device!r} is not a device of this machine; allowed are "
            f"{'cpu, cuda and cuda:N' if cuda else 'cpu (torch finds no CUDA here)'}."
        )
    return device


_building = threading.Lock()


def engine(card: Card) -> Engine:
    """The engine of a model in this process; built on first use."""
    with _building:
        return _engine(card, default_device())


@lru_cache(maxsize=4)
def _engine(card: Card, device: str) -> Engine:
    return Engine(card, device)
