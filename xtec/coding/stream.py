"""The container: all that one chunk's bytes hold, and a parser that trusts none of it.

Byte layout: docs/format.md, "Layout". Lengths are checked before they are used, memory stays in
proportion to the pixels and to the bytes that are really there, only a StreamError comes out.

Below: errors, masks. Above: codec.
"""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from xtec.coding import masks
from xtec.coding.masks import Mask, Shape
from xtec.errors import CorruptStreamError, InputError, NewerFormatError, TruncatedStreamError

MAGIC = b"XTEC"
FORMAT_VERSION = 1
DIGEST_BYTES = 8
MOST_PIXELS = 1 << 31
LONGEST = (1 << 32) - 1
RANGES = {"uint16": (0, 0xFFFF), "int16": (-0x8000, 0x7FFF)}

HEADER = struct.Struct("<4sBBH8sIIIIHii")
FRAME = struct.Struct("<II")
SECTION = struct.Struct("<BI")
U32 = struct.Struct("<I")
IS_INT16, HAS_NODATA = 1, 2

AGAIN = "Copy it again from where it came, or compress the original again."
"""What to do about damage."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Stream:
    """What the bytes of one chunk say.

    Raises
    ------
    InputError
        A field is out of its range, or two fields contradict each other.
    """

    model_digest: bytes
    """The first 8 bytes of the SHA-256 of the model."""
    dtype: str
    """Type of the pixels: "uint16" or "int16"."""
    shape: Shape
    """(time, band, y, x), each at least 1, together at most 2**31 pixels."""
    bands: tuple[int, ...]
    """Position of each band in the model's own list, 0 to 255, no two alike."""
    level: int
    """The compression setting in the model's own steps, 0 to 65535."""
    nodata: int | None
    """The no-data value in DN, in the range of the pixels; None where there is none."""
    offset: int
    """The radiometric offset that the numbers carry, in DN; 32 bits."""
    invalid: Mask | None
    """Shape as above: pixels without data. None says the same as no pixel at all."""
    saturated: Mask | None
    """Shape as above: saturated pixels. None says the same as no pixel at all."""
    frame_bytes: tuple[int, ...]
    """How many bytes of the payload each frame and those before it need; the last: all."""
    payload: bytes
    """The rANS code of the latents."""
    frame_crcs: tuple[int, ...]
    """`frame_crcs` of the latents: of each frame and those before it."""
    residual: bytes = b""
    """Reserved."""

    def __post_init__(self) -> None:
        """Check every field."""
        _check_shape(self.shape)
        frames, bands, _, _ = self.shape
        _require(
            len(self.model_digest) == DIGEST_BYTES,
            f"The model digest has {len(self.model_digest)} bytes; {DIGEST_BYTES} are needed.",
        )
        _require(
            self.dtype in RANGES, f"Pixels are {self.dtype}; {' or '.join(RANGES)} is allowed."
        )
        _require(
            len(set(self.bands)) == len(self.bands) == bands,
            f"The bands {self.bands} are not {bands} different ones, as the shape says.",
        )
        for band in self.bands:
            _check_range("A band", band, 0, 0xFF)
        _check_range("The level", self.level, 0, 0xFFFF)
        if self.nodata is not None:
            _check_range("The no-data value", self.nodata, *RANGES[self.dtype])
        _check_range("The offset", self.offset, -(1 << 31), (1 << 31) - 1)
        for crc in self.frame_crcs:
            _check_range("A CRC of the latents", crc, 0, (1 << 32) - 1)
        for mask in (self.invalid, self.saturated):
            _require(
                mask is None or (mask.dtype == np.bool_ and mask.shape == self.shape),
                f"A mask must be bool and of shape {self.shape}.",
            )
        _require(
            len(self.frame_bytes) == frames
            and all(before <= after for before, after in pairwise((0, *self.frame_bytes)))
            and self.frame_bytes[-1] == len(self.payload),
            f"The frame ends {self.frame_bytes} must be {frames}, never fall, and end with the "
            f"payload's {len(self.payload)} bytes.",
        )
        _require(
            len(self.frame_crcs) == frames,
            f"There are {len(self.frame_crcs)} CRCs of the latents for {frames} frames.",
        )


def pack(stream: Stream) -> bytes:
    """Write a stream as bytes.

    Raises
    ------
    InputError
        The bytes would be 4 GiB or more.
    """
    frames, bands, height, width = stream.shape
    body = b"".join(
        [
            bytes(stream.bands),
            *(
                FRAME.pack(*each)
                for each in zip(stream.frame_bytes, stream.frame_crcs, strict=True)
            ),
            *_mask_section(stream.invalid),
            *_mask_section(stream.saturated),
            stream.payload,
            U32.pack(len(stream.residual)),
            stream.residual,
        ]
    )
    length = HEADER.size + len(body) + U32.size
    _check_range("The stream's length", length, 0, LONGEST)
    header = HEADER.pack(
        MAGIC,
        FORMAT_VERSION,
        IS_INT16 * (stream.dtype == "int16") | HAS_NODATA * (stream.nodata is not None),
        stream.level,
        stream.model_digest,
        length,
        frames,
        height,
        width,
        bands,
        stream.nodata or 0,
        stream.offset,
    )
    content = header + body
    return content + U32.pack(zlib.crc32(content))


def parse(
    data: bytes | bytearray | memoryview, *, shape: Shape | None = None, dtype: str | None = None
) -> Stream:
    """Read what `pack` wrote.

    Parameters
    ----------
    data : bytes-like
        Exactly one stream.
    shape, dtype : optional
        What the chunk must be, where that is known. Without a shape a forged stream may be of
        2**31 pixels, and its masks take a byte for each.

    Returns
    -------
    Stream
        Its masks are read-only; a mask without any pixel set is None.

    Raises
    ------
    TruncatedStreamError
        There are fewer bytes than the stream says it has.
    NewerFormatError
        The format version is above the one this xtec knows.
    CorruptStreamError
        Anything else: no xtec stream, a wrong checksum, fields that contradict each other, or
        another chunk than was expected.
    """
    content = memoryview(data).tobytes()
    _check_envelope(content)
    try:
        return _read(content, shape, dtype)
    except InputError as error:
        raise CorruptStreamError(f"The stream breaks its format. {error}") from error


def frame_crcs(frames: Iterable[NDArray[np.int32]]) -> tuple[int, ...]:
    """Give the CRC-32 of integers up to the end of each frame, as little-endian int32 in C order.

    Raises
    ------
    InputError
        They are of another type.
    """
    found, crc = [], 0
    for frame in frames:
        _require(frame.dtype == np.int32, f"Frames are {frame.dtype}; give int32.")
        crc = zlib.crc32(frame.astype("<i4").tobytes(), crc)
        found.append(crc)
    return tuple(found)


class _Reader:
    """Cuts pieces from the front of bytes that are known to be undamaged."""

    def __init__(self, content: bytes, place: int) -> None:
        self._content = content
        self._place = place

    def take(self, count: int) -> bytes:
        left = len(self._content) - self._place
        if count > left:
            raise CorruptStreamError(f"A section of {count} bytes has only {left} to lie in.")
        self._place += count
        return self._content[self._place - count : self._place]

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def mask(self, shape: Shape) -> Mask | None:
        kind, length = self.unpack(SECTION)
        return masks.decode(kind, self.take(length), shape)

    def finish(self) -> None:
        left = len(self._content) - self._place
        if left:
            raise CorruptStreamError(f"{left} bytes follow the last section.")


def _check_envelope(content: bytes) -> None:
    """Make sure that these are all the bytes of one undamaged stream of a known version."""
    if len(content) < HEADER.size + U32.size:
        raise TruncatedStreamError(
            f"The stream has {len(content)} bytes; even the header needs {HEADER.size}. {AGAIN}"
        )
    magic, version, _, _, _, length, *_ = HEADER.unpack_from(content)
    if magic != MAGIC:
        raise CorruptStreamError(
            f"The bytes begin with {magic!r}, an xtec stream with {MAGIC!r}. {AGAIN}"
        )
    if len(content) < length:
        raise TruncatedStreamError(f"The stream has {len(content)} of its {length} bytes. {AGAIN}")
    if len(content) > length:
        raise CorruptStreamError(
            f"{len(content) - length} bytes follow the end of the stream. {AGAIN}"
        )
    (written,) = U32.unpack(content[-U32.size :])
    found = zlib.crc32(content[: -U32.size])
    if written != found:
        raise CorruptStreamError(
            f"The checksum of the stream is {found:08x}, but {written:08x} was written: it was "
            f"damaged on its way. {AGAIN}"
        )
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"The stream is of format version {version}; this xtec reads up to {FORMAT_VERSION}. "
            "Update xarray-tec."
        )
    if version < FORMAT_VERSION:
        raise CorruptStreamError(f"Format version {version} does not exist.")


def _read(content: bytes, expected_shape: Shape | None, expected_dtype: str | None) -> Stream:
    """Take the fields apart; rules of single fields are left to `Stream`, as an InputError."""
    _, _, flags, level, digest, _, frames, height, width, bands, nodata, offset = (
        HEADER.unpack_from(content)
    )
    _require(flags <= IS_INT16 | HAS_NODATA, f"The flags {flags:08b} are unknown.")
    _require(bool(flags & HAS_NODATA) or nodata == 0, "A no-data value is given, but not in use.")
    shape = (frames, bands, height, width)
    dtype = "int16" if flags & IS_INT16 else "uint16"
    _check_shape(shape)
    if shape != (expected_shape or shape) or dtype != (expected_dtype or dtype):
        expected = " of ".join(str(known) for known in (expected_shape, expected_dtype) if known)
        raise CorruptStreamError(
            f"a stream holds a chunk of shape {shape} and type {dtype}, where the array's chunks "
            f"are {expected}: it does not belong here."
        )
    reader = _Reader(content[: -U32.size], HEADER.size)
    band_indices = tuple(reader.take(bands))
    table = reader.unpack(struct.Struct(f"<{2 * frames}I"))
    frame_bytes, frame_crcs = table[::2], table[1::2]
    invalid = reader.mask(shape)
    saturated = reader.mask(shape)
    payload = reader.take(frame_bytes[-1])
    (residual_bytes,) = reader.unpack(U32)
    residual = reader.take(residual_bytes)
    reader.finish()
    return Stream(
        model_digest=digest,
        dtype=dtype,
        shape=shape,
        bands=band_indices,
        level=level,
        nodata=nodata if flags & HAS_NODATA else None,
        offset=offset,
        invalid=invalid,
        saturated=saturated,
        frame_bytes=frame_bytes,
        payload=payload,
        frame_crcs=frame_crcs,
        residual=residual,
    )


def _mask_section(mask: Mask | None) -> tuple[bytes, bytes]:
    kind, data = masks.encode(mask)
    return SECTION.pack(kind, len(data)), data


def _check_shape(shape: Shape) -> None:
    _require(
        min(shape) >= 1 and prod(shape) <= MOST_PIXELS,
        f"The shape (time, band, y, x) is {shape}; each must be at least 1 and all together at "
        f"most {MOST_PIXELS} pixels.",
    )


def _check_range(name: str, value: int, lowest: int, highest: int) -> None:
    _require(lowest <= value <= highest, f"{name} is {value}; {lowest} to {highest} is allowed.")


def _require(condition: bool, message: str) -> None:  # noqa: FBT001
    if not condition:
        raise InputError(message)
