"""Masks of pixels, kept without loss in a few bytes.

The edge of a swath or a cloud looks alike from row to row: each row is kept as its difference from
the row above, of its pixels or, where they change seldom, of the columns where they change, and
zlib does the rest. Byte layout: docs/format.md, "Masks".

Below: errors. Above: stream.
"""

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from xtec.errors import CorruptStreamError

ABSENT, ALL, SHARED, FULL, SHARED_BORDERS, FULL_BORDERS = range(6)

MOST_BORDERS = 8
"""Of a row, where borders are kept."""

WIDEST, MOST_PIXELS = 0xFFFF, 1 << 27
"""Of a mask whose borders are kept: a few bytes must not become gigabytes."""

Shape = tuple[int, int, int, int]
Mask = NDArray[np.bool_]


def encode(mask: Mask | None) -> tuple[int, bytes]:
    """Choose the shortest kind for a mask.

    Parameters
    ----------
    mask : bool, shape (time, band, y, x), or None
        None says the same as a mask without any pixel set.

    Returns
    -------
    kind : int, 0 to 5
    data : bytes
        Empty for kinds 0 (absent) and 1 (all).
    """
    if mask is None or not mask.any():
        return ABSENT, b""
    if mask.all():
        return ALL, b""
    pixels, borders = FULL, FULL_BORDERS
    if (mask == mask[:, :1]).all():
        pixels, borders, mask = SHARED, SHARED_BORDERS, mask[:, :1]
    kept = [(pixels, _deflate(mask)), (borders, _deflate_borders(mask))]
    return min((each for each in kept if each[1]), key=lambda each: len(each[1]))


def decode(kind: int, data: bytes, shape: Shape) -> Mask | None:
    """Undo `encode`.

    Parameters
    ----------
    kind, data
        What `encode` gave.
    shape : (time, band, y, x)

    Returns
    -------
    bool, shape (time, band, y, x), read-only, or None
        Kinds 1, 2 and 4 are views that repeat what is stored once; they take no memory per band.

    Raises
    ------
    CorruptStreamError
        The kind is unknown, or the data are not those of one mask of this shape.
    """
    if kind in (ABSENT, ALL):
        if data:
            raise CorruptStreamError(f"A mask of kind {kind} has {len(data)} bytes instead of 0.")
        return None if kind == ABSENT else np.broadcast_to(np.True_, shape)
    if kind not in (SHARED, FULL, SHARED_BORDERS, FULL_BORDERS):
        raise CorruptStreamError(f"A mask is of kind {kind}; {ABSENT} to {FULL_BORDERS} are known.")
    frames, bands, height, width = shape
    stored = frames, bands if kind in (FULL, FULL_BORDERS) else 1, height, width
    inflate = _inflate if kind in (SHARED, FULL) else _inflate_borders
    return np.broadcast_to(inflate(data, stored), shape)


def _deflate(mask: Mask) -> bytes:
    rows = np.packbits(mask, axis=-1)
    rows[..., 1:, :] ^= rows[..., :-1, :]
    return zlib.compress(rows.tobytes(), 9)


def _inflate(data: bytes, shape: Shape) -> Mask:
    *images, width = shape
    rows = _unzip(data, (*images, -(-width // 8)))
    rows = np.bitwise_xor.accumulate(rows, axis=2)
    return np.unpackbits(rows, axis=-1, count=width).view(np.bool_)


def _deflate_borders(mask: Mask) -> bytes:
    """Borders of every row; empty where there are too many of them."""
    width = mask.shape[3]
    if width > WIDEST or mask.size > MOST_PIXELS:
        return b""
    changes = np.diff(mask, axis=3, prepend=False)
    most = int(changes.sum(axis=3).max())
    if most > MOST_BORDERS:
        return b""
    slots = np.cumsum(changes, axis=3, dtype=np.uint8)[changes] - 1
    frame, band, row, column = np.nonzero(changes)
    borders = np.full((most, *mask.shape[:3]), width, np.uint16)
    borders[slots, frame, band, row] = column
    borders[..., 1:] -= borders[..., :-1].copy()
    halves = np.stack([borders & 0xFF, borders >> 8]).astype(np.uint8)
    return bytes([most]) + zlib.compress(halves.tobytes(), 9)


def _inflate_borders(data: bytes, shape: Shape) -> Mask:
    *images, width = shape
    most = data[0] if data else 0
    if width > WIDEST or math.prod(shape) > MOST_PIXELS:
        raise CorruptStreamError(f"A mask of shape {shape} is too large for a mask of borders.")
    if not 1 <= most <= min(MOST_BORDERS, width):
        raise CorruptStreamError(
            f"A mask says that its rows have up to {most} borders; 1 to {MOST_BORDERS} are allowed."
        )
    low, high = _unzip(data[1:], (2, most, *images)).astype(np.uint16)
    borders = np.add.accumulate(low | high << 8, axis=3, dtype=np.uint16)
    inside = borders < width
    rising = (borders[1:] > borders[:-1]) | ~inside[1:] & ~inside[:-1]
    if (borders > width).any() or not rising.all():
        raise CorruptStreamError("The borders of a row of a mask do not rise.")
    changes = np.zeros(shape, np.bool_)
    _, frame, band, row = np.nonzero(inside)
    changes[frame, band, row, borders[inside]] = True
    return np.logical_xor.accumulate(changes, axis=3)


def _unzip(data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Bytes of a zlib stream that holds exactly as many as this shape has."""
    size = math.prod(shape)
    inflater = zlib.decompressobj()
    try:
        packed = inflater.decompress(data, size + 1)  # memory grows with what is really there
    except zlib.error as error:
        raise CorruptStreamError(f"A mask cannot be inflated: {error}.") from error
    if len(packed) != size or not inflater.eof or inflater.unused_data:
        raise CorruptStreamError(f"A mask does not inflate to its {size} bytes exactly.")
    return np.frombuffer(packed, np.uint8).reshape(shape)
