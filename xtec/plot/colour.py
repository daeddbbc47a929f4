"""Bands into colours: true colour where there is red, green and blue, else what comes near.

Below: sentinel2. Above: view, comparison, thumbnail.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xtec.sentinel2 import band as facts

TRUE_COLOUR = ("B04", "B03", "B02")
STRETCH_PERCENT = (1.0, 99.0)
GAMMA = 0.8
"""Brightens the middle a little."""


@dataclass(frozen=True)
class Colours:
    """Which bands are shown as red, green and blue; one alone is grey."""

    bands: tuple[str, ...]
    kind: str

    def __str__(self) -> str:
        """As it stands on a picture: "true colour (B04, B03, B02)"."""
        return f"{self.kind} ({', '.join(self.bands)})"


def choose(bands: Sequence[str]) -> Colours:
    """Choose the bands to show, by canonical names: at best what the eye sees."""
    if all(band in bands for band in TRUE_COLOUR):
        return Colours(TRUE_COLOUR, "true colour")
    ordered = sorted(bands, key=lambda band: -facts(band).centre_wavelength_nm)
    if len(ordered) < 3:
        return Colours((ordered[-1],), "grey")
    return Colours((ordered[0], ordered[len(ordered) // 2], ordered[-1]), "false colour")


def stretch(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Darkest and brightest value to show, per band.

    Parameters
    ----------
    pixels : float64, shape (band, y, x)
        NaN where there is no data.

    Returns
    -------
    float64, shape (2, band)
    """
    flat = pixels.reshape(len(pixels), -1)
    found = np.zeros((2, len(pixels)))
    for band, values in enumerate(flat):
        known = values[~np.isnan(values)]
        if known.size:
            found[:, band] = np.percentile(known, STRETCH_PERCENT)
    found[1] = np.maximum(found[1], found[0] + 1)
    return found


def to_rgba(pixels: NDArray[np.float64], limits: NDArray[np.float64]) -> NDArray[Any]:
    """Red, green, blue and opacity from 0 to 1; what has no data is transparent.

    Parameters
    ----------
    pixels : float64, shape (1 or 3 bands, y, x)
        NaN where there is no data.
    limits : float64, shape (2, 1 or 3)
        Of `stretch`.

    Returns
    -------
    float64, shape (y, x, 4)
    """
    darkest, brightest = limits[:, :, None, None]
    shown = np.clip((pixels - darkest) / (brightest - darkest), 0, 1) ** GAMMA
    shown = np.broadcast_to(shown, (3, *pixels.shape[1:]))
    valid = np.asarray(~np.isnan(pixels).any(axis=0))
    rgba: NDArray[Any] = np.concatenate([np.where(valid, shown, 0), valid[None]]).transpose(1, 2, 0)
    return rgba
