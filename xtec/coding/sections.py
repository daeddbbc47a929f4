"""How many bytes each part of a stream has: read from its header and lengths, without decoding.

Only what is looked at is fetched: the front of a stream, the second mask's length, the front of
the residual. Nothing is checked by a checksum here; lengths that contradict each other are refused.

Byte layout: docs/format.md, "Layout".

Below: stream, errors. Above: cube.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from xtec.coding.masks import Shape
from xtec.coding.stream import FRAME, HEADER, MAGIC, SECTION, U32
from xtec.errors import CorruptStreamError, TruncatedStreamError

FRONT = 4096
"""So many bytes are fetched first: more than most streams have before their payload."""
MOST_FRAMES = 1 << 20

Fetch = Callable[[int, int], bytes]
"""Gives the bytes of a stream from one place to another, fewer where it ends."""


@dataclass(frozen=True)
class Sections:
    """Sizes in bytes; together they are the stream."""

    shape: Shape
    """(time, band, y, x)"""
    container: int
    """Header, bands, table of frames, lengths and checksum."""
    masks: int
    """No data and saturated pixels."""
    latents: tuple[int, ...]
    """Of each frame."""
    residual: int
    residual_at: int
    """Where it begins."""


def sections(fetch: Fetch) -> Sections:
    """Take the sizes from a stream.

    Raises
    ------
    TruncatedStreamError, CorruptStreamError
        It is no stream, or its lengths contradict each other.
    """
    front = fetch(0, FRONT)
    if len(front) < HEADER.size:
        raise TruncatedStreamError(
            f"The stream has {len(front)} bytes; even the header needs {HEADER.size}."
        )
    magic, _, _, _, _, length, frames, height, width, bands, _, _ = HEADER.unpack_from(front)
    if magic != MAGIC or not 1 <= frames <= MOST_FRAMES:
        raise CorruptStreamError(
            f"The bytes begin with {magic!r} and tell of {frames} frames; they are no stream."
        )
    place = HEADER.size + bands

    def take(count: int) -> bytes:
        nonlocal place
        begin, place = place, place + count
        data = front[begin:place] if place <= len(front) else fetch(begin, place)
        if len(data) < count:
            raise TruncatedStreamError(f"The stream ends before its byte {place}.")
        return data

    ends = [end for end, _ in FRAME.iter_unpack(take(frames * FRAME.size))]
    masks = 0
    for _ in range(2):
        _, size = SECTION.unpack(take(SECTION.size))
        masks += size
        place += size
    place += ends[-1]
    (residual,) = U32.unpack(take(U32.size))
    latents = tuple(after - before for before, after in pairwise((0, *ends)))
    container = place - masks - ends[-1] + U32.size
    if min(latents) < 0 or container + masks + ends[-1] + residual != length:
        raise CorruptStreamError(
            f"The stream says that it has {length} bytes, and its parts say otherwise."
        )
    return Sections((frames, bands, height, width), container, masks, latents, residual, place)
