"""Pixels under a mask, guessed from their neighbours.

What stands under no-data never comes back; it only has to be cheap and must not ring into the
pixels beside it. So the nearest valid pixels go on for a while, and further out they blur: texture
there would cost bits. `benchmarks/masks.py` prints what comes of it.

Below: nothing. Above: pixels.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, uniform_filter

COPIED, BLURRED = 8, 16
"""Distances from a valid pixel: up to the first it is copied, from the second on it is blurred."""

WIDTH = 17
"""Of the blur, in pixels; applied twice."""


def fill(pixels: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Continue the valid pixels of each frame into its holes.

    Parameters
    ----------
    pixels : float32, shape (time, band, y, x)
    hole : bool, same shape
        A frame of a band that is all hole takes the nearest earlier frame, else the nearest
        later one, else 0.

    Returns
    -------
    float32, same shape
        A new array.
    """
    out = np.where(hole, np.float32(0), pixels)
    surroundings: Surroundings | None = None
    whole = np.all(hole, axis=(2, 3))
    for t, band in np.argwhere(hole.any(axis=(2, 3)) & ~whole):
        if surroundings is None or not surroundings.belong_to(hole[t, band]):
            surroundings = Surroundings.of(hole[t, band])  # most often the same in every band
        out[t, band] = surroundings.fill(pixels[t, band])
    for t, band in np.argwhere(whole):
        valid = np.flatnonzero(~whole[:, band])
        if valid.size:
            earlier = valid[valid < t]
            out[t, band] = out[earlier[-1] if earlier.size else valid[0], band]
    return out


@dataclass(frozen=True)
class Surroundings:
    """Where the pixels of a hole come from."""

    hole: NDArray[np.bool_]
    nearest: tuple[NDArray[np.intp], NDArray[np.intp]]
    """Row and column of the nearest valid pixel, of each pixel of a frame."""
    blurred: NDArray[np.float32]
    """How much of a pixel is blur: 0 to 1."""

    @classmethod
    def of(cls, hole: NDArray[np.bool_]) -> Self:
        """Find them for a hole, shape (y, x), that leaves some pixel."""
        distance, (y, x) = distance_transform_edt(hole, return_indices=True)
        blurred = np.clip((distance - COPIED) / (BLURRED - COPIED), 0, 1).astype(np.float32)
        return cls(hole, (y, x), blurred)

    def belong_to(self, hole: NDArray[np.bool_]) -> bool:
        """Whether this is the same hole."""
        return np.array_equal(hole, self.hole)

    def fill(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fill the hole of a frame, shape (y, x)."""
        copied = frame[self.nearest]
        if not self.blurred.any():
            return copied
        blur = uniform_filter(uniform_filter(copied, WIDTH, mode="nearest"), WIDTH, mode="nearest")
        filled: NDArray[np.float32] = copied + self.blurred * (blur - copied)
        return filled
