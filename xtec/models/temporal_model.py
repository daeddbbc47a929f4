"""A TEC-TT network: standardised pixels to symbols and back. It knows one compression.

Chunks of one shape travel through it together; the company a chunk travels in changes nothing,
because the prior is exact and the convolutions always run on groups of one fixed shape.

Below: network, prior, coded. Above: engine.
"""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xtec.models.coded import Coded, Decoded, Read
from xtec.models.exact import Arithmetic
from xtec.models.network import TemporalTransformer
from xtec.models.prior import ExactPrior, tokens

GROUP = {"cpu": 1, "cuda": 16}
"""Frames per call of the convolutions: always this many, so that a library picks one kernel."""


class TemporalModel:
    """One set of weights on one device.

    Parameters
    ----------
    network : TemporalTransformer
    arithmetic : Arithmetic
        The prior runs where it does.
    device : str
        Where the convolutions run.
    """

    def __init__(self, network: TemporalTransformer, arithmetic: Arithmetic, device: str) -> None:
        self.config = network.config
        self.device = torch.device(device)
        self._prior = ExactPrior(network, arithmetic)
        self._network = network.to(self.device)
        self._lock = threading.Lock()

    def encode(self, chunks: Sequence[NDArray[np.float32]], _level: int) -> list[Coded]:
        """Code standardised chunks (time, band, y, x) of one shape, padded to the tile."""
        with self._lock:
            x = torch.from_numpy(np.stack(chunks)).to(self.device)
            latents = self._grouped(self._network.analysis, x.flatten(0, 1))
            q = latents.round_().unflatten(0, x.shape[:2]).to(self._prior.arithmetic.device)
            found, _ = self._prior.encode(q)
            centred = tokens(q) - found.centre
            symbols, rows = (
                x.transpose(2, 3).flatten(2).cpu().numpy() for x in (centred, found.row)
            )
            everything = q.cpu().numpy().astype(np.int32)
        per_frame = symbols.shape[2]
        ends = tuple(per_frame * (i + 1) for i in range(symbols.shape[1]))
        return [
            Coded(s.ravel().astype(np.int32), r.ravel().astype(np.uint16), ends, latents)
            for s, r, latents in zip(symbols, rows, everything, strict=True)
        ]

    def decode(self, sources: Sequence[Read], _level: int, shape: tuple[int, ...]) -> list[Decoded]:
        """Decode chunks of one padded shape (time, band, y, x) from their readers."""

        def symbols(rows: Tensor) -> Tensor:
            asked = rows.flatten(1).cpu().numpy().astype(np.uint16)
            found = np.stack([read(r) for read, r in zip(sources, asked, strict=True)])
            return torch.from_numpy(found).to(rows.device).view(rows.shape)

        frames, _, *size = shape
        height, width = (n // self.config.stride for n in size)
        with self._lock:
            q, z = self._prior.decode(symbols, (len(sources), frames, height, width))
        return [
            Decoded(latents.cpu().numpy().astype(np.int32), self._pixels(latents, features))
            for latents, features in zip(q, z, strict=True)
        ]

    def reconstruct(self, chunks: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """What `decode` would give of what `encode` gives, without coding a symbol."""
        with self._lock:
            x = torch.from_numpy(np.stack(chunks)).to(self.device)
            latents = self._grouped(self._network.analysis, x.flatten(0, 1))
            q = latents.round_().unflatten(0, x.shape[:2]).to(self._prior.arithmetic.device)
            _, z = self._prior.encode(q)
        return [self._pixels(latents, features)() for latents, features in zip(q, z, strict=True)]

    def _pixels(self, q: Tensor, z: Tensor) -> Callable[[], NDArray[np.float32]]:
        """How one chunk's latents (time, ...) become pixels, on demand."""

        def synthesis(x: Tensor) -> Tensor:
            y, features = x.split([q.shape[1], z.shape[1]], dim=1)
            return self._network.synthesis(y, features)

        def pixels() -> NDArray[np.float32]:
            with self._lock:
                both = torch.cat([q, z], dim=1).to(self.device)
                out: NDArray[np.float32] = self._grouped(synthesis, both).cpu().numpy()
            return out

        return pixels

    def _grouped(self, function: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
        """Apply a function to frames in groups of one fixed size, the last one padded."""
        size = GROUP[self.device.type]
        out = []
        for group in frames.split(size):
            padding = group.new_zeros(size - len(group), *group.shape[1:])
            out.append(function(torch.cat([group, padding]))[: len(group)])
        return torch.cat(out)
