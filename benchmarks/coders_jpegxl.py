"""JPEG XL by libjxl: each band, and each component after a KLT.

One greyscale code stream per image, effort 7, a distance; called through imagecodecs. Further
channels of one file it codes without loss up to a distance of 15: there is no 13-channel form.

Below: coders, klt. Above: competitors.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from coders import Shape
from klt import Basis
from numpy.typing import NDArray

from xtec.pixels import Pixels

if not imagecodecs.JPEGXL.available:
    raise ImportError("this imagecodecs was built without libjxl")

EFFORT = 7
KNOB = "distance"
DARK = 8192
"""Added to bands. libjxl quantises finer where it is dark; lifted, all DN count about the same,
which takes 5 to 13 % off the bits at equal PSNR. Numbers from 57,344 DN are clipped."""
MIDDLE = 32768
"""Where a component of value zero is put."""


def version() -> str:
    """Say which library."""
    return f"{imagecodecs.jpegxl_version()}, effort {EFFORT}"


@dataclass(frozen=True)
class Bands:
    """Each band of each date its own file."""

    name: ClassVar[str] = "JPEG XL, each band its own file"
    knob: ClassVar[str] = KNOB
    distance: float
    threads: int = 1

    def encode(self, cube: Pixels) -> list[bytes]:
        """One file per date and band."""
        lifted = np.minimum(cube, 65535 - DARK) + np.uint16(DARK)
        return [_compressed(x, self.distance, self.threads) for frame in lifted for x in frame]

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """All files."""
        lifted = np.stack([_decompressed(s, self.threads) for s in streams])
        pixels: Pixels = (np.maximum(lifted, DARK) - np.uint16(DARK)).reshape(shape)
        return pixels


@dataclass(frozen=True)
class Klt:
    """A KLT over the bands of each date, then each component its own file."""

    name: ClassVar[str] = "KLT over bands, then JPEG XL"
    knob: ClassVar[str] = KNOB
    distance: float
    threads: int = 1

    def encode(self, cube: Pixels) -> list[bytes]:
        """The basis and 13 files per date."""
        return [stream for frame in cube for stream in self._files(frame)]

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """All files."""
        each = 1 + shape[1]
        dates = [streams[i : i + each] for i in range(0, len(streams), each)]
        return np.stack([self._frame(s) for s in dates]).reshape(shape)

    def _files(self, frame: Pixels) -> list[bytes]:
        values = frame.reshape(len(frame), -1).astype(np.float64)
        basis = Basis.of(values)
        lifted = np.clip(np.rint(basis.forward(values)) + MIDDLE, 0, 65535).astype(np.uint16)
        images = lifted.reshape(frame.shape)
        return [basis.to_bytes(), *(_compressed(x, self.distance, self.threads) for x in images)]

    def _frame(self, streams: list[bytes]) -> Pixels:
        basis, _ = Basis.read(streams[0], len(streams) - 1)
        lifted = np.stack([_decompressed(s, self.threads) for s in streams[1:]])
        return basis.backward(lifted.reshape(len(lifted), -1) - float(MIDDLE))


def _compressed(image: NDArray[Any], distance: float, threads: int) -> bytes:
    """A bare code stream."""
    return bytes(
        imagecodecs.jpegxl_encode(
            image, distance=distance, effort=EFFORT, usecontainer=False, numthreads=threads
        )
    )


def _decompressed(file: bytes, threads: int) -> NDArray[Any]:
    image: NDArray[Any] = imagecodecs.jpegxl_decode(file, numthreads=threads)
    return image
