"""The bytes of the residual section, and a parser that trusts none of them.

Byte layout: docs/format.md, "The residual".

Below: errors. Above: the package itself.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Self

from xtec.errors import CorruptStreamError

BY_BAND = 4
FRAME = struct.Struct("<II")


class Kind(IntEnum):
    """What the numbers are that a section holds."""

    CORRECTIONS = 0
    """To be added to what the network gives, and coded without a look at it."""
    GUIDED = 1
    """Pixels, coded with a look at what the network gives."""
    ALONE = 2
    """Pixels, without any network."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the section of one chunk says."""

    kind: Kind
    bounds: tuple[int, ...]
    """Per band: half of what its step leaves uncertain, 0 to 65535 DN."""
    frames: tuple[bytes, ...]
    """The code of each frame; empty where no band of it needs anything."""
    crcs: tuple[int, ...]
    """`frame_crcs` of the pixels or corrections that it decodes to."""

    def to_bytes(self) -> bytes:
        """Write it."""
        bounds = self.bounds if len(set(self.bounds)) > 1 else self.bounds[:1]
        ends = accumulate(map(len, self.frames))
        flags = self.kind | BY_BAND * (len(bounds) > 1)
        return b"".join(
            [
                bytes([flags]),
                struct.pack(f"<{len(bounds)}H", *bounds),
                *(FRAME.pack(*each) for each in zip(ends, self.crcs, strict=True)),
                *self.frames,
            ]
        )

    @classmethod
    def parse(cls, data: bytes, frames: int, bands: int) -> Self:
        """Read what `to_bytes` wrote for so many frames and bands.

        Raises
        ------
        CorruptStreamError
            Flags, lengths or frame ends contradict each other.
        """
        flags = data[0] if data else 0
        kind = flags & ~BY_BAND
        if kind > max(Kind):
            raise CorruptStreamError(f"The flags {flags:08b} of the residual are unknown.")
        stated = bands if flags & BY_BAND else 1
        layout = struct.Struct(f"<B{stated}H{2 * frames}I")
        if len(data) < layout.size:
            raise CorruptStreamError(
                f"The residual has {len(data)} bytes; {layout.size} are needed before its code."
            )
        _, *fields = layout.unpack_from(data)
        bounds, table = fields[:stated], fields[stated:]
        ends, crcs = table[::2], table[1::2]
        code = data[layout.size :]
        if any(before > after for before, after in pairwise((0, *ends))) or ends[-1] != len(code):
            raise CorruptStreamError(
                f"The residual's frame ends must never fall and end with its {len(code)} bytes."
            )
        return cls(
            kind=Kind(kind),
            bounds=tuple(bounds) if flags & BY_BAND else tuple(bounds) * bands,
            frames=tuple(code[begin:end] for begin, end in pairwise((0, *ends))),
            crcs=tuple(crcs),
        )


def head_bytes(frames: int, bands: int) -> int:
    """So many bytes stand before the code, at most."""
    return struct.calcsize(f"<B{bands}H{2 * frames}I")


def frame_bytes(head: bytes, frames: int, bands: int) -> tuple[int, ...]:
    """How many bytes the code of each frame has, by the beginning of a section.

    Raises
    ------
    CorruptStreamError
        It is too short, or the frame ends fall.
    """
    several = bands if head and head[0] & BY_BAND else 1
    layout = struct.Struct(f"<B{several}H{2 * frames}I")
    if len(head) < layout.size:
        raise CorruptStreamError(
            f"The residual has {len(head)} bytes; {layout.size} are needed before its code."
        )
    ends = layout.unpack_from(head)[1 + several :: 2]
    sizes = tuple(after - before for before, after in pairwise((0, *ends)))
    if min(sizes) < 0:
        raise CorruptStreamError("The residual's frame ends fall.")
    return sizes
