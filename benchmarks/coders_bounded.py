"""Codecs that promise a largest error in DN: LERC and zfp, called through imagecodecs.

Each in the arrangement that needs the fewest bits on the validation cubes.

Below: coders. Above: competitors.
"""

from dataclasses import dataclass
from typing import ClassVar

import imagecodecs
import numpy as np
from coders import Shape

from xtec.pixels import Pixels

if not (imagecodecs.LERC.available and imagecodecs.ZFP.available):
    raise ImportError("this imagecodecs was built without LERC or zfp")

KNOB = "largest error, DN"
ZSTD_LEVEL = 19


def version() -> str:
    """Say which libraries."""
    return f"{imagecodecs.lerc_version()} with {imagecodecs.zstd_version()}, " + (
        imagecodecs.zfp_version()
    )


@dataclass(frozen=True)
class Lerc:
    """All bands of a date in one file, zstd over it as TIFF has it."""

    name: ClassVar[str] = "LERC + zstd"
    knob: ClassVar[str] = KNOB
    error_dn: float
    threads: int = 1

    def encode(self, cube: Pixels) -> list[bytes]:
        """One file per date."""
        return [
            bytes(
                imagecodecs.lerc_encode(
                    frame,
                    level=self.error_dn,
                    planar=True,
                    compression="zstd",
                    compressionargs={"level": ZSTD_LEVEL},
                )
            )
            for frame in cube
        ]

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """All files."""
        return np.stack([imagecodecs.lerc_decode(s) for s in streams]).reshape(shape)


@dataclass(frozen=True)
class Zfp:
    """Each date as one array (band, y, x) of float32, blocks of 4 x 4 x 4."""

    name: ClassVar[str] = "zfp"
    knob: ClassVar[str] = KNOB
    error_dn: float
    threads: int = 1

    def encode(self, cube: Pixels) -> list[bytes]:
        """One stream per date."""
        return [
            bytes(
                imagecodecs.zfp_encode(
                    frame.astype(np.float32),
                    level=self.error_dn,  # type: ignore[arg-type]  # a float in this mode
                    mode="accuracy",
                )
            )
            for frame in cube
        ]

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """All streams."""
        values = np.stack([imagecodecs.zfp_decode(s) for s in streams]).reshape(shape)
        pixels: Pixels = np.clip(np.rint(values), 0, 65535).astype(np.uint16)
        return pixels
