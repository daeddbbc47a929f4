"""Codecs side by side: each turns a cube into byte strings that alone give the cube back.

Whatever a decoder must know beyond the shape is inside the bytes and counted. OpenJPEG is
called through imagecodecs.

Below: xtec.codec. Above: rate_distortion, throughput.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from xtec.codec import Settings, decode_chunks, encode_chunks
from xtec.metrics import PEAK_DN
from xtec.pixels import Pixels

Shape = tuple[int, ...]
LEVEL_OF_PEAK = 20 * math.log10(65535 / PEAK_DN)
"""OpenJPEG's PSNR has 65535 as its peak: its level minus this is a PSNR over 10,000 DN."""


class Coder(Protocol):
    """What every codec can do."""

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
        return encode_chunks([cube[b] for b in self._blocks(cube.shape)], self.settings)

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """Put the chunks together again."""
        self._prepare()
        cube = np.empty(shape, np.uint16)
        for block, chunk in zip(self._blocks(shape), decode_chunks(streams), strict=True):
            cube[block] = chunk
        return cube

    def _blocks(self, shape: Shape) -> Iterator[tuple[slice, ...]]:
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


@dataclass(frozen=True)
class Bands:
    """JPEG 2000, each band of each date its own file, with a PSNR as target."""

    name: ClassVar[str] = "JPEG 2000, each band its own file"
    level: float
    threads: int = 1

    def encode(self, cube: Pixels) -> list[bytes]:
        """One file per date and band."""
        return [self._file(band) for frame in cube for band in frame]

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """All files."""
        bands = [_decompressed(s, self.threads) for s in streams]
        return np.stack(bands).reshape(shape)

    def _file(self, band: NDArray[Any]) -> bytes:
        return _compressed(band, self.level, self.threads)


@dataclass(frozen=True)
class CheckedBands(Bands):
    """The same, decoded again by the encoder.

    On nearly flat bands OpenJPEG misses its target by far: whole scenes come back thousands of DN
    too dark. Such a file is written again with a higher target until it is within 1 dB.
    """

    name: ClassVar[str] = "JPEG 2000, each band its own file, checked"

    def _file(self, band: NDArray[Any]) -> bytes:
        allowed = 65535**2 / 10 ** ((self.level - 1) / 10)
        for more in range(40):
            file = _compressed(band, self.level + more, self.threads)
            error = _decompressed(file, self.threads).astype(float) - band
            if np.square(error).mean() <= allowed:
                break
        return file


@dataclass(frozen=True)
class Components:
    """JPEG 2000, one file of 13 components per date, no colour transform."""

    name: ClassVar[str] = "JPEG 2000, 13 components"
    level: float
    threads: int = 1

    def encode(self, cube: Pixels) -> list[bytes]:
        """One file per date."""
        return [_compressed(frame.transpose(1, 2, 0), self.level, self.threads) for frame in cube]

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """All files."""
        frames = [_decompressed(s, self.threads) for s in streams]
        return np.stack(frames).transpose(0, 3, 1, 2).reshape(shape)


@dataclass(frozen=True)
class Klt:
    """Karhunen-Loeve transform over the bands of each date, then JPEG 2000 of 13 components.

    Means and basis stand before the file in 16 and 8 bits; the transform is done with the
    rounded basis and undone with its inverse, so that rounding it costs no quality.
    """

    name: ClassVar[str] = "KLT over bands, then JPEG 2000"
    level: float
    threads: int = 1

    def encode(self, cube: Pixels) -> list[bytes]:
        """One file per date."""
        return [self._file(frame) for frame in cube]

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """All files."""
        _, bands, height, width = shape
        frames = [self._frame(s, bands) for s in streams]
        return np.stack(frames).reshape(len(frames), bands, height, width)

    def _file(self, frame: Pixels) -> bytes:
        values = frame.reshape(len(frame), -1).astype(np.float64)
        mean = np.rint(values.mean(axis=1)).astype(np.uint16)
        _, vectors = np.linalg.eigh(np.cov(values))
        basis = np.rint(vectors.T[::-1] * 127).astype(np.int8)
        turned = (basis / 127) @ (values - mean[:, None])
        integers = np.clip(np.rint(turned), -32768, 32767).astype(np.int16).reshape(frame.shape)
        file = _compressed(integers.transpose(1, 2, 0), self.level, self.threads)
        stream: bytes = mean.tobytes() + basis.tobytes() + file
        return stream

    def _frame(self, stream: bytes, bands: int) -> Pixels:
        mean = np.frombuffer(stream, np.uint16, bands)
        basis = np.frombuffer(stream, np.int8, bands**2, mean.nbytes).reshape(bands, bands)
        turned = _decompressed(stream[mean.nbytes + basis.nbytes :], self.threads)
        values = np.linalg.solve(basis / 127, turned.reshape(-1, bands).T) + mean[:, None]
        pixels: Pixels = np.clip(np.rint(values), 0, 65535).astype(np.uint16)
        return pixels


def _compressed(image: NDArray[Any], level: float, threads: int) -> bytes:
    """A bare code stream; 9/7 wavelet; a file format around it would add 85 bytes."""
    return bytes(
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(image),
            level=level,  # type: ignore[arg-type]  # the stub says int; it is a float in OpenJPEG
            codecformat="j2k",
            mct=False,
            reversible=False,
            numthreads=threads,
        )
    )


def _decompressed(file: bytes, threads: int) -> NDArray[Any]:
    image: NDArray[Any] = imagecodecs.jpeg2k_decode(file, numthreads=threads)
    return image
