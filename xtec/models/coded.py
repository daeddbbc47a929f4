"""What passes between a model and the entropy coder.

Below: nothing. Above: lapped_model, temporal_model, engine.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Read = Callable[[NDArray[np.uint16]], NDArray[np.int32]]
"""Gets the table rows of the next symbols, gives the symbols."""


@dataclass(frozen=True, eq=False)
class Coded:
    """One chunk, ready for the entropy coder."""

    symbols: NDArray[np.int32]
    """Centred latents in coding order."""
    rows: NDArray[np.uint16]
    """The table row of each symbol."""
    ends: tuple[int, ...]
    """How many symbols each frame and those before it take."""
    latents: NDArray[np.int32]
    """What the checksum runs over."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """One chunk, back from the entropy coder."""

    latents: NDArray[np.int32]
    """What the checksum runs over; to be checked before a pixel is believed."""
    pixels: Callable[[], NDArray[np.float32]]
    """Gives the pixels (time, band, y, x), in the network's bands, scale and padding."""
