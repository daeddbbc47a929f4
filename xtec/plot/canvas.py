"""The one file that imports matplotlib: an empty picture, and pixels as PNG.

Below: nothing of ours. Above: comparison, bits, thumbnail, which load it when they draw.
"""

import io
from typing import Any

from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

DPI = 90
"""Of pictures in notebooks: they are kept with their outputs."""


class Picture(Figure):
    """A figure that notebooks show by themselves, with or without pyplot."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", dpi=DPI)
        return data.getvalue()


def empty(width_in: float, height_in: float) -> Picture:
    """A picture without anything in it, sizes in inches."""
    return Picture(figsize=(width_in, height_in), layout="constrained")


def png(pixels: NDArray[Any]) -> bytes:
    """Pixels (y, x, red-green-blue-alpha), 0 to 1, as a PNG file."""
    data = io.BytesIO()
    imsave(data, pixels, format="png")
    return data.getvalue()
