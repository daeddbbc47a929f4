"""Karhunen-Loeve transform over the bands, as it stands before JPEG 2000, JPEG XL and x265.

Below: nothing. Above: coders_jpeg2000, coders_jpegxl, coders_video.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xtec.pixels import Pixels

LARGEST_ENTRY = 127


@dataclass(frozen=True, eq=False)
class Basis:
    """Means and directions of the bands, rounded as they are stored.

    The transform is done with the rounded basis and undone with its inverse, so that rounding it
    costs no quality.
    """

    mean: NDArray[np.uint16]
    """DN, shape (band,)."""
    matrix: NDArray[np.int8]
    """Shape (component, band), in steps of 1/127, the strongest component first."""

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Basis":
        """Find the basis of values in DN, shape (band, pixel)."""
        mean = np.rint(values.mean(axis=1)).astype(np.uint16)
        _, vectors = np.linalg.eigh(np.cov(values))
        return cls(mean, np.rint(vectors.T[::-1] * LARGEST_ENTRY).astype(np.int8))

    @classmethod
    def read(cls, stream: bytes, bands: int) -> tuple["Basis", bytes]:
        """Take what `to_bytes` gave off the front of a stream; return the rest too."""
        mean = np.frombuffer(stream, "<u2", bands)
        matrix = np.frombuffer(stream, np.int8, bands**2, mean.nbytes).reshape(bands, bands)
        return cls(mean, matrix), stream[mean.nbytes + matrix.nbytes :]

    def to_bytes(self) -> bytes:
        """195 bytes for 13 bands."""
        return self.mean.astype("<u2").tobytes() + self.matrix.tobytes()

    def forward(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn values (band, pixel) into components (component, pixel), on the scale of DN."""
        turned: NDArray[np.float64] = self._scaled @ (values - self.mean[:, None])
        return turned

    def backward(self, components: NDArray[np.float64]) -> Pixels:
        """Turn components back into digital numbers."""
        values = np.linalg.solve(self._scaled, components) + self.mean[:, None]
        pixels: Pixels = np.clip(np.rint(values), 0, 65535).astype(np.uint16)
        return pixels

    @property
    def _scaled(self) -> NDArray[np.float64]:
        return self.matrix / LARGEST_ENTRY
