"""Masks of pixels, kept without loss in a few bytes.

The edge of a swath or a cloud looks alike from row to row: each row is kept as its difference from
the row above, and zlib does the rest. Byte layout: docs/format.md, "Masks".

Below: errors. Above: stream.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from xtec.errors import CorruptStreamError

ABSENT, ALL, SHARED, FULL = range(4)

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
    kind : int, 0 to 3
    data : bytes
        Empty for kinds 0 (absent) and 1 (all).
    """
    if mask is None or not mask.any():
        return ABSENT, b""
    if mask.all():
        return ALL, b""
    if (mask == mask[:, :1]).all():
        return SHARED, _deflate(mask[:, :1])
    return FULL, _deflate(mask)


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
        Kinds 1 and 2 are views that repeat what is stored once; they take no memory per band.

    Raises
    ------
    CorruptStreamError
        The kind is unknown, or the data are not those of one mask of this shape.
    """
    if kind in (ABSENT, ALL):
        if data:
            raise CorruptStreamError(f"A mask of kind {kind} has {len(data)} bytes instead of 0.")
        return None if kind == ABSENT else np.broadcast_to(np.True_, shape)
    if kind == SHARED:
        frames, _, height, width = shape
        return np.broadcast_to(_inflate(data, (frames, 1, height, width)), shape)
    if kind == FULL:
        mask = _inflate(data, shape)
        mask.flags.writeable = False
        return mask
    raise CorruptStreamError(f"A mask is of kind {kind}; {ABSENT} to {FULL} are known.")


def _deflate(mask: Mask) -> bytes:
    rows = np.packbits(mask, axis=-1)
    rows[..., 1:, :] ^= rows[..., :-1, :]
    return zlib.compress(rows.tobytes(), 9)


def _inflate(data: bytes, shape: Shape) -> Mask:
    frames, bands, height, width = shape
    row_bytes = -(-width // 8)
    size = frames * bands * height * row_bytes
    inflater = zlib.decompressobj()
    try:
        packed = inflater.decompress(data, size + 1)  # memory grows with what is really there
    except zlib.error as error:
        raise CorruptStreamError(f"A mask cannot be inflated: {error}.") from error
    if len(packed) != size or not inflater.eof or inflater.unused_data:
        raise CorruptStreamError(f"A mask does not inflate to its {size} bytes exactly.")
    rows = np.frombuffer(packed, np.uint8).reshape(frames, bands, height, row_bytes)
    rows = np.bitwise_xor.accumulate(rows, axis=2)
    return np.unpackbits(rows, axis=-1, count=width).view(np.bool_)
