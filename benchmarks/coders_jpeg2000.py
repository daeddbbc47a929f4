"""JPEG 2000 by OpenJPEG: each band, 13 components, and 13 components after a KLT.

9/7 wavelet, one layer, a target PSNR, bare code streams; called through imagecodecs.

Below: coders, klt. Above: competitors, throughput.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from coders import Shape
from klt import Basis
from numpy.typing import NDArray

from xtec.metrics import PEAK_DN
from xtec.pixels import Pixels

if not imagecodecs.JPEG2K.available:
    raise ImportError("this imagecodecs was built without OpenJPEG")

LEVEL_OF_PEAK = 20 * math.log10(65535 / PEAK_DN)
"""OpenJPEG's PSNR has 65535 as its peak: its level minus this is a PSNR over 10,000 DN."""
KNOB = "target PSNR, peak 65535"


def version() -> str:
    """Say which library."""
    return f"OpenJPEG {imagecodecs.jpeg2k_version().split()[-1]}"


@dataclass(frozen=True)
class Bands:
    """Each band of each date its own file, with a PSNR as target."""

    name: ClassVar[str] = "JPEG 2000, each band its own file"
    knob: ClassVar[str] = KNOB
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
    """One file of 13 components per date, no colour transform."""

    name: ClassVar[str] = "JPEG 2000, 13 components"
    knob: ClassVar[str] = KNOB
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
    """A KLT over the bands of each date, then 13 components; the basis stands before the file."""

    name: ClassVar[str] = "KLT over bands, then JPEG 2000"
    knob: ClassVar[str] = KNOB
    level: float
    threads: int = 1

    def encode(self, cube: Pixels) -> list[bytes]:
        """One file per date."""
        return [self._file(frame) for frame in cube]

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """All files."""
        frames = [self._frame(s, shape[1]) for s in streams]
        return np.stack(frames).reshape(shape)

    def _file(self, frame: Pixels) -> bytes:
        values = frame.reshape(len(frame), -1).astype(np.float64)
        basis = Basis.of(values)
        components = np.clip(np.rint(basis.forward(values)), -32768, 32767).astype(np.int16)
        image = components.reshape(frame.shape).transpose(1, 2, 0)
        return basis.to_bytes() + _compressed(image, self.level, self.threads)

    def _frame(self, stream: bytes, bands: int) -> Pixels:
        basis, file = Basis.read(stream, bands)
        image = _decompressed(file, self.threads)
        return basis.backward(image.reshape(-1, bands).T.astype(np.float64))


def _compressed(image: NDArray[Any], level: float, threads: int) -> bytes:
    """A bare code stream; a file format around it would add 85 bytes."""
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
