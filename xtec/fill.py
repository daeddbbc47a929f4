"""Pixels under a mask, guessed from their neighbours.

What stands under no-data never comes back; it only has to be cheap and must not ring into the
pixels beside it.

Below: nothing. Above: codec.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt


def fill(pixels: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Copy the nearest valid pixel of a frame into each hole.

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
    for band in range(pixels.shape[1]):
        whole = hole[:, band].all(axis=(1, 2))
        for t in np.flatnonzero(hole[:, band].any(axis=(1, 2)) & ~whole):
            out[t, band] = _nearest(pixels[t, band], hole[t, band])
        valid = np.flatnonzero(~whole)
        for t in np.flatnonzero(whole) if valid.size else ():
            earlier = valid[valid < t]
            out[t, band] = out[earlier[-1] if earlier.size else valid[0], band]
    return out


def _nearest(frame: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    y, x = distance_transform_edt(hole, return_distances=False, return_indices=True)
    filled: NDArray[np.float32] = frame[y, x]
    return filled
