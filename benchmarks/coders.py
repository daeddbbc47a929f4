"""Codecs side by side: each turns a cube into byte strings that alone give the cube back.

Whatever a decoder must know beyond the shape is inside the bytes and counted. The model of xtec
stands here; the others in coders_jpeg2000, coders_jpegxl, coders_video and coders_bounded.

Below: xtec.codec. Above: competitors, measure, rate_distortion, throughput.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from xtec.codec import Settings, decode_chunks, encode_chunks
from xtec.pixels import Pixels

Shape = tuple[int, ...]
Block = tuple[slice, ...]


class Coder(Protocol):
    """What every codec can do. Its fields are its settings."""

    name: ClassVar[str]

    def encode(self, cube: Pixels) -> list[bytes]:
        """Encode a cube (time, band, y, x)."""

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """Decode what `encode` gave for a cube of this shape."""


@dataclass(frozen=True)
class Learned:
    """A model of xtec, in chunks as a Zarr store holds them."""

    name: ClassVar[str] = "xtec"
    settings: Settings
    frames: int = 8
    tile: int = 256
    """Side of a chunk in pixels; 0: the whole scene."""
    threads: int = 1
    device: str = "cpu"

    def encode(self, cube: Pixels) -> list[bytes]:
        """One stream per chunk."""
        self._prepare()
        return encode_chunks([cube[b] for b in self.blocks(cube.shape)], self.settings)

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """Put the chunks together again."""
        self._prepare()
        cube = np.empty(shape, np.uint16)
        for block, chunk in zip(self.blocks(shape), decode_chunks(streams), strict=True):
            cube[block] = chunk
        return cube

    def blocks(self, shape: Shape) -> Iterator[Block]:
        """Where the chunks of a cube lie."""
        t, _, h, w = shape
        side = self.tile or max(h, w)
        for frame in range(0, t, self.frames):
            for y in range(0, h, side):
                for x in range(0, w, side):
                    yield (
                        slice(frame, frame + self.frames),
                        slice(None),
                        slice(y, y + side),
                        slice(x, x + side),
                    )

    def _prepare(self) -> None:
        import torch  # not at the top: the memory of the other codecs is measured without

        torch.set_num_threads(self.threads)
        os.environ["XTEC_DEVICE"] = self.device
