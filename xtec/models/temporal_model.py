"""A TEC-TT network: standardised pixels to symbols and back. It knows one compression.

Chunks of one shape travel through it together; the company a chunk travels in changes nothing,
because the prior is exact and the convolutions always run on groups of one fixed shape, on a CPU
in one thread each.

Below: network, prior, coded, threads. Above: engine.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xtec.models import threads
from xtec.models.arithmetic import Arithmetic
from xtec.models.coded import Coded, Decoded, Read
from xtec.models.network import TemporalTransformer
from xtec.models.prior import ExactPrior, tokens

Each = Callable[[Callable[[Tensor], Tensor], Iterable[Tensor]], list[Tensor]]

GROUP = {"cpu": 1, "cuda": 16}
"""Frames per call of the convolutions: always this many, so that a library picks one kernel."""


class TemporalModel:
    """One set of weights on one device.

    Parameters
    ----------
    network : TemporalTransformer
        Only its convolutions are kept.
    arithmetic : Arithmetic
        The prior runs where it does.
    device : str
        Where the convolutions run.
    """

    def __init__(self, network: TemporalTransformer, arithmetic: Arithmetic, device: str) -> None:
        self.config = network.config
        self.device = torch.device(device)
        self._prior = ExactPrior(network, arithmetic)
        self._transform = network.transform.to(self.device)
        # A fifth faster on a CPU. Torch's annotations do not know this argument.
        self._transform.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._dequantizer = network._dequantizer.to(self.device)
        # A GPU's memory holds one batch; on a CPU callers share the threads instead.
        on_cpu = self.device.type == "cpu"
        self._turn = contextlib.nullcontext() if on_cpu else threading.Lock()
        self._each: Each = threads.spread if on_cpu else _one_by_one

    def encode(self, chunks: Sequence[NDArray[np.float32]], _level: int) -> list[Coded]:
        """Code standardised chunks (time, band, y, x) of one shape, padded to the tile."""
        with self._turn:
            q = self._latents(chunks)
            found, _ = self._prior.encode(q)
            centred = tokens(q) - found.centre
            symbols, rows = (
                x.transpose(2, 3).flatten(2).cpu().numpy() for x in (centred, found.row)
            )
            everything = q.cpu().numpy().astype(np.int32)
        per_frame = symbols.shape[2]
        ends = tuple(per_frame * (i + 1) for i in range(symbols.shape[1]))
        return [
            Coded(s.ravel().astype(np.int32), r.ravel().astype(np.uint16), ends, tuple(latents))
            for s, r, latents in zip(symbols, rows, everything, strict=True)
        ]

    def decode(self, sources: Sequence[Read], _level: int, shape: tuple[int, ...]) -> list[Decoded]:
        """Decode chunks of one padded shape (time, band, y, x) from their readers."""
        frames, _, *size = shape
        height, width = (n // self.config.stride for n in size)

        def some(part: Sequence[Read]) -> list[Decoded]:
            found = self._prior.decode(_reader(part), (len(part), frames, height, width))
            return [
                Decoded(tuple(q.cpu().numpy().astype(np.int32)), self._pixels(q, features))
                for q, features in zip(*found, strict=True)
            ]

        with self._turn:
            if self.device.type != "cpu" or len(sources) == 1:
                return some(sources)
            share = -(-len(sources) // threads.count())
            parts = [sources[i : i + share] for i in range(0, len(sources), share)]
            return [chunk for part in threads.spread(some, parts) for chunk in part]

    def reconstruct(self, chunks: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """What `decode` would make of what `encode` gives, without coding it."""
        with self._turn:
            q = self._latents(chunks)
            _, z = self._prior.encode(q)
        return [self._pixels(*both)() for both in zip(q, z, strict=True)]

    def _latents(self, chunks: Sequence[NDArray[np.float32]]) -> Tensor:
        """Rounded latents (B, T, C, h, w), where the prior runs."""
        x = torch.from_numpy(np.stack(chunks)).to(self.device)
        q = self._grouped(self._transform.analysis, x.flatten(0, 1)).round_()
        latents: Tensor = q.unflatten(0, x.shape[:2]).to(self._prior.arithmetic.device)
        return latents

    def _pixels(self, q: Tensor, z: Tensor) -> Callable[[], NDArray[np.float32]]:
        """How one chunk's latents (time, ...) become pixels, on demand."""

        def synthesis(x: Tensor) -> Tensor:
            y, features = x.split([q.shape[1], z.shape[1]], dim=1)
            found: Tensor = self._transform.synthesis(y + self._dequantizer(features))
            return found

        def pixels() -> NDArray[np.float32]:
            with self._turn:
                both = torch.cat([q, z], dim=1).to(self.device)
                out: NDArray[np.float32] = self._grouped(synthesis, both).cpu().numpy()
            return out

        return pixels

    def _grouped(self, function: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
        """Apply a function to frames in groups of one fixed size, the last one padded."""
        size = GROUP[self.device.type]
        frames = frames.contiguous(memory_format=torch.channels_last)

        def padded(group: Tensor) -> Tensor:
            padding = group.new_zeros(size - len(group), *group.shape[1:])
            found: Tensor = function(torch.cat([group, padding]))
            return found[: len(group)]

        return torch.cat(self._each(padded, frames.split(size)))


def _one_by_one(function: Callable[[Tensor], Tensor], items: Iterable[Tensor]) -> list[Tensor]:
    return [function(item) for item in items]


def _reader(sources: Sequence[Read]) -> Callable[[Tensor], Tensor]:
    """Read a token of several chunks, as `ExactPrior.decode` asks for it."""

    def symbols(rows: Tensor) -> Tensor:
        asked = rows.flatten(1).cpu().numpy().astype(np.uint16)
        found = np.stack([read(r) for read, r in zip(sources, asked, strict=True)])
        return torch.from_numpy(found).to(rows.device).view(rows.shape)

    return symbols
