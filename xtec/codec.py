"""One chunk of a cube to bytes and back: the only room that knows both the model and the stream.

Pixels enter and leave as numpy arrays (time, band, y, x), streams as bytes. Importing this file
imports neither torch nor numba; coding a chunk does.

Below: engine, pixels, settings, models, coding. Above: zarr_v2, zarr_v3, cube.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from xtec.coding import stream as container
from xtec.coding import tables
from xtec.coding.stream import Stream
from xtec.errors import CorruptStreamError, InputError
from xtec.models import registry
from xtec.models.weights import Card
from xtec.pixels import Pixels, Prepared, prepare, restore
from xtec.settings import Settings

if TYPE_CHECKING:
    from xtec.engine import Engine
    from xtec.models.coded import Coded

__all__ = ["Settings", "decode_chunk", "decode_chunks", "encode_chunk", "encode_chunks"]

A = TypeVar("A")
R = TypeVar("R")


def encode_chunk(chunk: Pixels, settings: Settings) -> bytes:
    """Encode one chunk; see `encode_chunks`."""
    return encode_chunks([chunk], settings)[0]


def decode_chunk(data: bytes, *, model: str | None = None) -> Pixels:
    """Decode one chunk; see `decode_chunks`."""
    return decode_chunks([data], model=model)[0]


def encode_chunks(chunks: Sequence[Pixels], settings: Settings) -> list[bytes]:
    """Encode chunks. What they are coded together with does not change their bytes.

    Parameters
    ----------
    chunks : sequence of uint16 or int16, shape (time, band, y, x)
        Digital numbers in either byte order, ``settings.bands`` along the band axis. Not modified.
    settings : Settings

    Returns
    -------
    list of bytes
        One stream per chunk.

    Raises
    ------
    InputError
        A chunk of another type or shape.
    ModelError, WrongModelError
        The weights are damaged or not at hand.
    """
    for chunk in chunks:
        _check(chunk, settings)
    native: list[Pixels] = [
        chunk.astype(chunk.dtype.newbyteorder("="), copy=False) for chunk in chunks
    ]
    return _each(partial(_encode, settings), native, settings.card)


def decode_chunks(
    streams: Sequence[bytes],
    *,
    model: str | None = None,
    frames: Sequence[int | None] | None = None,
) -> list[Pixels]:
    """Decode chunks, or the first frames of them.

    Parameters
    ----------
    streams : sequence of bytes
        Whole ones: their checksums cover all bytes.
    model : str, optional
        What the model was called where the streams were written; for messages only.
    frames : sequence of int or None, optional
        How many of the first frames of each are wanted, at least 1; the others are not decoded.
        None: all of them.

    Returns
    -------
    list of uint16 or int16, shape (time, band, y, x)
        C-contiguous, in native byte order.

    Raises
    ------
    StreamError
        Truncated, corrupt, of a newer format or of a model that is not at hand.
    """
    parsed = [container.parse(data) for data in streams]
    tasks = list(zip(range(len(parsed)), parsed, frames or [None] * len(parsed), strict=True))
    chunks = {i: _empty(_first(s, n)) for i, s, n in tasks if not s.payload}
    for digest in {s.model_digest for s in parsed if s.payload}:
        card = registry.find(digest, model)
        its = [task for task in tasks if task[1].payload and task[1].model_digest == digest]
        found = _each(partial(_decode, card), [(s, n) for _, s, n in its], card)
        chunks |= zip((i for i, _, _ in its), found, strict=True)
    return [chunks[i] for i in range(len(parsed))]


def _check(chunk: Pixels, settings: Settings) -> None:
    if chunk.dtype.newbyteorder("=").name not in container.RANGES:
        raise InputError(
            f"a chunk is {chunk.dtype}; the codec takes digital numbers of type "
            f"{' or '.join(container.RANGES)}. Pack reflectance with a scale_factor first."
        )
    if chunk.ndim != 4 or 0 in chunk.shape:
        raise InputError(
            f"a chunk has shape {chunk.shape}; it needs the four dimensions (time, band, y, x), "
            "none of them empty."
        )
    if chunk.shape[1] != len(settings.bands):
        raise InputError(
            f"a chunk has {chunk.shape[1]} bands along its second axis; the settings name "
            f"{len(settings.bands)}: {list(settings.bands)}."
        )
    low, high = container.RANGES[chunk.dtype.newbyteorder("=").name]
    if settings.nodata is not None and not low <= settings.nodata <= high:
        raise InputError(f"no-data {settings.nodata} is not a {chunk.dtype}; give {low} to {high}.")


def _engine(card: Card) -> "Engine":
    from xtec.engine import engine  # torch arrives with the first pixel

    return engine(card)


def _each(function: Callable[[A], R], items: Sequence[A], card: Card) -> list[R]:
    """Do what chunks need, several at a time, as suits the network."""
    return _engine(card).each(function, items) if items else []


def _encode(settings: Settings, chunk: Pixels) -> bytes:
    prepared = prepare(chunk, settings)
    if prepared.invalid.all():
        return _pack(prepared, settings, None)
    (coded,) = _engine(settings.card).encode([prepared.network], settings.level)
    return _pack(prepared, settings, coded)


def _pack(prepared: Prepared, settings: Settings, coded: "Coded | None") -> bytes:
    """The stream of one chunk; without ``coded`` a chunk that has no data at all."""
    from xtec.coding import rans  # numba arrives with the first pixel

    payload, frame_bytes, crc = b"", [0] * prepared.invalid.shape[0], 0
    if coded is not None:
        payload, frame_bytes = rans.encode(coded.symbols, coded.rows, tables.load(), coded.ends)
        crc = container.latents_crc(coded.latents)
    return container.pack(
        Stream(
            model_digest=bytes.fromhex(settings.model_digest)[: container.DIGEST_BYTES],
            dtype=prepared.dtype,
            shape=prepared.invalid.shape,
            bands=settings.positions,
            level=settings.level,
            nodata=settings.nodata,
            offset=settings.offset,
            invalid=prepared.invalid,
            saturated=prepared.saturated,
            frame_bytes=tuple(frame_bytes),
            payload=payload,
            latents_crc=crc,
        )
    )


def _decode(card: Card, task: tuple[Stream, int | None]) -> Pixels:
    """So many first frames of a stream with latents."""
    from xtec.coding import rans  # numba arrives with the first pixel

    whole, stream, config = task[0], _first(*task), card.config
    if stream.level >= config.levels or max(stream.bands) >= len(config.bands):
        raise CorruptStreamError(
            f"setting {stream.level} or band {max(stream.bands)} does not exist in model "
            f"{card.name}."
        )
    frames, bands, height, width = stream.shape
    bands = len(config.bands) if config.whole else bands
    padded = frames, bands, height + -height % config.tile, width + -width % config.tile
    decoder = rans.Decoder(stream.payload, tables.load())
    (decoded,) = _engine(card).decode([decoder.decode], stream.level, padded)
    decoder.finish(ended=stream is whole)
    # The checksum covers all frames: of some it says nothing.
    if stream is whole and container.latents_crc(decoded.latents) != stream.latents_crc:
        raise CorruptStreamError(
            f"the latents decode to another checksum than they were written with (model "
            f"{card.name}): no pixel of this chunk can be trusted."
        )
    return restore(decoded.pixels(), stream, config)


def _first(stream: Stream, frames: int | None) -> Stream:
    """What a stream would be if the chunk ended after some frames; itself where it does."""
    if frames is None or frames >= stream.shape[0]:
        return stream
    return replace(
        stream,
        shape=(frames, *stream.shape[1:]),
        invalid=None if stream.invalid is None else stream.invalid[:frames],
        saturated=None if stream.saturated is None else stream.saturated[:frames],
        frame_bytes=stream.frame_bytes[:frames],
        payload=stream.payload[: stream.frame_bytes[frames - 1]],
    )


def _empty(stream: Stream) -> Pixels:
    """A chunk without data."""
    if stream.nodata is None or stream.invalid is None or not stream.invalid.all():
        raise CorruptStreamError("the stream holds no latents, yet some of its pixels are valid.")
    return np.full(stream.shape, stream.nodata, stream.dtype)
