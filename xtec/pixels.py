"""Digital numbers to the network's input and back: masks, filling, bands, standardisation, bounds.

Below: settings, fill, coding.stream, models.config, sentinel2, errors. Above: codec.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xtec.coding.stream import Stream
from xtec.errors import CorruptStreamError
from xtec.fill import fill
from xtec.models.config import Config
from xtec.sentinel2 import SATURATED
from xtec.settings import Settings

Pixels = NDArray[np.uint16 | np.int16]
Mask = NDArray[np.bool_]
Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class Prepared:
    """A chunk as the network takes it, and what stays lossless beside it."""

    network: NDArray[np.float32]
    """Shape (time, band, y, x), y and x multiples of the model's tile: in the model's scale."""
    invalid: Mask
    """Where there is no data, shape of the chunk."""
    saturated: Mask
    """Where a value is saturated, shape of the chunk."""
    dtype: str
    """Type of the chunk."""


def saturated_value(dtype: np.dtype[Any]) -> int:
    """The value of saturated pixels of a type: the largest there is."""
    return SATURATED if dtype == np.uint16 else int(np.iinfo(dtype).max)


def prepare(chunk: Pixels, settings: Settings) -> Prepared:
    """Mask, fill, scale and pad a chunk.

    Parameters
    ----------
    chunk : uint16 or int16, shape (time, band, y, x)
        Native byte order; not modified. Bands that it lacks enter as their mean where the model
        cannot do without.
    settings : Settings
    """
    config, positions, nodata = settings.card.config, list(settings.positions), settings.nodata
    invalid = np.zeros(chunk.shape, bool) if nodata is None else chunk == nodata
    saturated = (chunk == saturated_value(chunk.dtype)) & ~invalid
    mean, std = _statistics(config, positions)
    values = (chunk.astype(np.float32) - (mean + settings.offset)) / std
    hole = invalid | saturated
    if hole.any():
        values = fill(values, hole)
    t, _, h, w = chunk.shape
    bottom, right = -h % config.tile, -w % config.tile
    network = np.pad(values, ((0, 0), (0, 0), (0, bottom), (0, right)), mode="edge")
    if config.whole:
        present = network
        network = np.zeros((t, len(config.bands), *present.shape[2:]), np.float32)
        network[:, positions] = present
    return Prepared(network, invalid, saturated, chunk.dtype.name)


def limits(dtype: str) -> tuple[int, int]:
    """Lowest and highest value of a pixel that is not saturated."""
    return int(np.iinfo(dtype).min), saturated_value(np.dtype(dtype)) - 1


def numbers(network: NDArray[np.float32], stream: Stream, config: Config) -> Numbers:
    """What the network's output means, within the limits, no mask applied."""
    _, _, h, w = stream.shape
    positions = list(stream.bands)
    mean, std = _statistics(config, positions)
    present = network[:, positions] if config.whole else network
    values = np.rint(present[..., :h, :w] * std + (mean + stream.offset))
    found: Numbers = np.clip(values, *limits(stream.dtype)).astype(np.int32, order="C")
    return found


def mark(found: Numbers, stream: Stream) -> Pixels:
    """Pixels from numbers within the limits: no data where a stream says so, and only there.

    Raises
    ------
    CorruptStreamError
        The stream marks pixels as no-data without a value for them.
    """
    lowest, highest = limits(stream.dtype)
    chunk: Pixels = found.astype(stream.dtype, order="C")
    if stream.nodata is not None:
        # A valid pixel must not become no-data by chance: it moves by one.
        chance = chunk == stream.nodata
        chunk[chance] = stream.nodata - 1 if stream.nodata > lowest else lowest + 1
    if stream.saturated is not None:
        chunk[stream.saturated] = highest + 1
    if stream.invalid is not None and stream.invalid.any():
        if stream.nodata is None:
            raise CorruptStreamError("the stream has pixels without data and no value for them.")
        chunk[stream.invalid] = stream.nodata
    return chunk


def skipped(stream: Stream) -> Mask:
    """Where a stream's masks say all there is to say."""
    found = np.zeros(stream.shape, bool)
    for mask in (stream.invalid, stream.saturated):
        if mask is not None:
            found |= mask
    return found


def aims(chunk: Pixels, stream: Stream, bounds: Sequence[int]) -> tuple[int, ...]:
    """The largest error per band, before `mark`, that keeps the bounds after it.

    A number that is no-data by chance moves down by one. That brings it nearer to the true pixel,
    or else the pixel lies above no-data by the bound at most: then the aim is one lower.

    Parameters
    ----------
    chunk : uint16 or int16, shape (time, band, y, x)
    stream : Stream
    bounds : sequence of int
        Per band.

    Returns
    -------
    tuple of int
        Per band.
    """
    nodata, (lowest, _) = stream.nodata, limits(stream.dtype)
    found = []
    for band, bound in enumerate(bounds):
        risky = False
        if nodata is not None and nodata > lowest and bound > 0:
            here = chunk[:, band].astype(np.int32)[~skipped(stream)[:, band]]
            risky = bool(((here > nodata) & (here <= nodata + bound)).any())
        found.append(bound - risky)
    return tuple(found)


def _statistics(config: Config, positions: list[int]) -> tuple[NDArray[np.float32], ...]:
    """Mean and deviation of some bands, shape (band, 1, 1)."""
    both = config.mean, config.std
    return tuple(np.array(x, np.float32)[positions, None, None] for x in both)
