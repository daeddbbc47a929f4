"""One model per process and device, with many callers.

The engine turns standardised pixels into latents and table rows, and back. Bytes are none of its
business. Chunks of one shape travel through it together; the company a chunk travels in changes
nothing, because the prior is exact and the convolutions always run on groups of one fixed shape.

Below: models. Above: codec.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xtec.errors import InputError
from xtec.models import exact, weights
from xtec.models.prior import ExactPrior
from xtec.models.weights import Card

P = ParamSpec("P")
R = TypeVar("R")

DEVICE = "XTEC_DEVICE"
GROUP = {"cpu": 1, "cuda": 16}
"""Frames per call of the convolutions: always this many, so that a library picks one kernel."""


@dataclass(frozen=True)
class Coded:
    """One chunk, ready for the entropy coder."""

    latents: NDArray[np.int32]
    """Shape (time, channel, y, x)."""
    symbols: NDArray[np.int32]
    """Centred latents in coding order, shape (time, symbol)."""
    rows: NDArray[np.uint16]
    """The table row of each symbol, same shape."""


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """Compute in the precision that is written here, whatever the caller's autocast says."""
    for device in GROUP:
        function = torch.autocast(device, enabled=False)(function)
    return function


class Engine:
    """The network of one weights file on one device.

    Parameters
    ----------
    card : Card
    device : str
        A torch device. Where it cannot compute exactly, the prior runs on the CPU instead.
    """

    @undisturbed
    def __init__(self, card: Card, device: str) -> None:
        self.device = torch.device(device)
        self.config = card.config
        network = weights.load(card)
        self._prior = ExactPrior(network, exact.select(device))
        self._network = network.to(self.device)
        self._lock = threading.Lock()

    @undisturbed
    @torch.inference_mode()
    def encode(self, pixels: NDArray[np.float32], level: int) -> list[Coded]:
        """Pixels to latents and their distributions.

        Parameters
        ----------
        pixels : float32, shape (chunk, time, band, y, x)
            Standardised, in the model's bands; y and x are multiples of ``config.tile``.
        level : int
            Compression setting.
        """
        with self._lock:
            x = torch.from_numpy(pixels).to(self.device)
            gain = self._network.gain(torch.tensor([level], device=self.device))
            latents = self._grouped(self._network.transform.analysis, x.flatten(0, 1))
            latents = (latents * gain[0, :, None, None]).round_().unflatten(0, x.shape[:2])
            q = latents.to(self._prior.arithmetic.device)
            found, _ = self._prior.encode(q, level)
            tokens = found.tokens(q) - found.centre
            symbols, rows = (x.transpose(2, 3).flatten(2) for x in (tokens, found.row))
            arrays = (
                q.cpu().numpy().astype(np.int32),
                symbols.cpu().numpy().astype(np.int32),
                rows.cpu().numpy().astype(np.uint16),
            )
        return [Coded(*chunk) for chunk in zip(*arrays, strict=True)]

    @undisturbed
    @torch.inference_mode()
    def decode(
        self,
        read: Callable[[NDArray[np.uint16]], NDArray[np.int32]],
        level: int,
        shape: tuple[int, int, int, int],
    ) -> tuple[NDArray[np.int32], Callable[[], NDArray[np.float32]]]:
        """Table rows to latents, and on demand to pixels.

        Parameters
        ----------
        read : callable
            Takes rows (chunk, symbol) of the next token, gives its symbols, same shape.
        level : int
            Compression setting.
        shape : (chunk, time, y, x)
            In pixels; y and x are multiples of ``config.tile``.

        Returns
        -------
        latents : int32, shape (chunk, time, channel, y, x)
            To be checked before any pixel is believed.
        pixels : callable
            Gives the standardised pixels, float32, shape (chunk, time, band, y, x).
        """

        def symbols(rows: Tensor) -> Tensor:
            found = read(rows.flatten(1).cpu().numpy().astype(np.uint16))
            return torch.from_numpy(found).to(rows.device).view(rows.shape)

        b, t, height, width = shape
        latent = self.config.stride
        with self._lock:
            q, z = self._prior.decode(symbols, level, (b, t, height // latent, width // latent))

        @undisturbed
        @torch.inference_mode()
        def pixels() -> NDArray[np.float32]:
            def synthesis(x: Tensor) -> Tensor:
                y, features = x.split([q.shape[2], z.shape[2]], dim=1)
                out = self._network.synthesis(y[:, None], features[:, None], levels)
                return out[:, 0]

            with self._lock:
                levels = torch.tensor([level], device=self.device)
                both = torch.cat([q, z], dim=2).flatten(0, 1).to(self.device)
                out = self._grouped(synthesis, both)
            found: NDArray[np.float32] = out.unflatten(0, (b, t)).cpu().numpy()
            return found

        return q.cpu().numpy().astype(np.int32), pixels

    def _grouped(self, function: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
        """Apply a function to frames in groups of one fixed size, the last one padded."""
        size = GROUP[self.device.type]
        out = []
        for group in frames.split(size):
            padding = group.new_zeros(size - len(group), *group.shape[1:])
            out.append(function(torch.cat([group, padding]))[: len(group)])
        return torch.cat(out)


def default_device() -> str:
    """The device of this process: ``XTEC_DEVICE``, else CUDA where there is one, else the CPU."""
    cuda = torch.cuda.is_available()
    device = os.environ.get(DEVICE) or ("cuda" if cuda else "cpu")
    kind = device.partition(":")[0]
    if kind not in GROUP or (kind == "cuda" and not cuda):
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
