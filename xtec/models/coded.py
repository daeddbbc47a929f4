"""What passes between a model and the entropy coder.

Below: nothing. Above: lapped_model, temporal_model, engine.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Read = Callable[[NDArray[np.uint16]], NDArray[np.int32]]
"""Gets the table rows of the next symbols, gives the symbols."""

Frames = tuple[NDArray[np.int32], ...]
"""The integers of each frame, in the order that is stated with the model."""


@dataclass(frozen=True, eq=False)
class Coded:
    """One chunk, ready for the entropy coder."""

    symbols: NDArray[np.int32]
    """Centred latents in coding order."""
    rows: NDArray[np.uint16]
    """The table row of each symbol."""
    ends: tuple[int, ...]
    """How many symbols each frame and those before it take."""
    latents: Frames
    """What the checksums run over."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """One chunk, back from the entropy coder."""

    latents: Frames
    """What the checksums run over; to be checked before a pixel is believed."""
    pixels: Callable[[], NDArray[np.float32]]
    """Gives the pixels (time, band, y, x), in the network's bands, scale and padding."""


class Replayed:
    """A reader of one chunk that can begin again, for a batch that failed because of another.

    Parameters
    ----------
    read : callable
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._said: list[NDArray[np.int32]] = []
        self._error: Exception | None = None
        self._place = 0

    def __call__(self, rows: NDArray[np.uint16]) -> NDArray[np.int32]:
        """As `Read`; an error comes again each time."""
        if self._place == len(self._said):
            if self._error is not None:
                raise self._error
            try:
                self._said.append(self._read(rows))
            except Exception as error:
                self._error = error
                raise
        self._place += 1
        return self._said[self._place - 1]

    def rewind(self) -> None:
        """Begin again. The rows will be the same: company changes nothing."""
        self._place = 0
