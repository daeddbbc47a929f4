"""One chunk of a cube to bytes and back: the only room that knows both the model and the stream.

Pixels enter and leave as numpy arrays (time, band, y, x), streams as bytes. Importing this file
imports neither torch nor numba; coding a chunk does.

Below: engine, pixels, settings, models, coding. Above: zarr_v2, zarr_v3, cube.
"""

import contextlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from xtec.coding import stream as container
from xtec.coding import tables
from xtec.coding.stream import Stream
from xtec.errors import (
    BoundError,
    CorruptStreamError,
    InputError,
    TruncatedStreamError,
    WrongModelError,
)
from xtec.home import Home
from xtec.models import registry
from xtec.models.weights import Card
from xtec.pixels import Numbers, Pixels, Prepared, aims, limits, mark, numbers, prepare, skipped
from xtec.settings import Settings

if TYPE_CHECKING:
    from xtec.engine import Engine
    from xtec.models.coded import Coded
    from xtec.residual import Kind

__all__ = ["Settings", "decode_chunk", "decode_chunks", "encode_chunk", "encode_chunks"]


CHUNKS_AT_ONCE = 8
"""Chunks of one pass through the network: bounds memory, changes no byte."""

DEVICES_DIFFER_DN = 1
"""By how much pixels of a network whose synthesis is not exact may differ between machines."""

HOPELESS = 0.75
"""Bytes per value from which on it is tried what the residual does without the embedded model."""


def encode_chunk(chunk: Pixels, settings: Settings) -> bytes:
    """Encode one chunk; see `encode_chunks`."""
    return encode_chunks([chunk], settings)[0]


def decode_chunk(data: bytes, *, model: str | None = None, home: Home | None = None) -> Pixels:
    """Decode one chunk; see `decode_chunks`."""
    return decode_chunks([data], model=model, homes=None if home is None else [home])[0]


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
    BoundError
        What was about to be written does not decode to within ``settings.max_error``.
    """
    for chunk in chunks:
        _check(chunk, settings)
    native: list[Pixels] = [
        chunk.astype(chunk.dtype.newbyteorder("="), copy=False) for chunk in chunks
    ]
    streams: dict[int, bytes] = {}
    for indices in _alike((chunk.dtype.name, chunk.shape) for chunk in native):
        streams |= zip(indices, _encode([native[i] for i in indices], settings), strict=True)
    return [streams[i] for i in range(len(chunks))]


def decode_chunks(
    streams: Sequence[bytes], *, model: str | None = None, homes: Sequence[Home] | None = None
) -> list[Pixels]:
    """Decode chunks.

    Parameters
    ----------
    streams : sequence of bytes
    model : str, optional
        What the model was called where the streams were written; for messages only.
    homes : sequence of Home, optional
        For each stream the array that it stands in. What does not belong there is refused before
        it is decoded. Without it memory follows what a stream claims: up to 2**31 pixels.

    Returns
    -------
    list of uint16 or int16, shape (time, band, y, x)
        C-contiguous, in native byte order.

    Raises
    ------
    StreamError
        Truncated, corrupt, of a newer format or of a model that is not at hand.
    """
    places: Sequence[Home | None] = homes or [None] * len(streams)
    parsed = [_parse(data, home) for data, home in zip(streams, places, strict=True)]
    chunks: dict[int, Pixels] = {}
    for indices in _alike((s.model_digest, s.level, s.shape, not s.payload) for s in parsed):
        some = [parsed[i] for i in indices]
        try:
            found = _decode(some, [places[i] for i in indices], model)
        except TruncatedStreamError as error:
            raise CorruptStreamError(
                "the stream is whole, but what it codes is not: it was forged, or is decoded "
                f"otherwise than it was encoded. {error}"
            ) from error
        chunks |= zip(indices, found, strict=True)
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


def _alike(keys: Iterable[Hashable]) -> list[list[int]]:
    """Indices of equal keys, together."""
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _engine(card: Card) -> "Engine":
    from xtec.engine import engine  # torch arrives with the first pixel

    return engine(card)


def _encode(chunks: list[Pixels], settings: Settings) -> list[bytes]:
    """Chunks of one type and shape."""
    streams: list[bytes] = []
    for begin in range(0, len(chunks), CHUNKS_AT_ONCE):
        some = chunks[begin : begin + CHUNKS_AT_ONCE]
        batch = [prepare(chunk, settings) for chunk in some]
        full = [p.network for p in batch if not p.invalid.all()]
        coded: Iterator[Coded] = iter(())
        if full:
            coded = iter(_engine(settings.card).encode(full, settings.level))
        made = [_stream(p, settings, None if p.invalid.all() else next(coded)) for p in batch]
        if settings.bounds is not None:
            made = _bounded(some, made, settings)
        streams += map(container.pack, made)
    return streams


def _stream(prepared: Prepared, settings: Settings, coded: "Coded | None") -> Stream:
    """The stream of one chunk; without ``coded`` a chunk that has no data at all."""
    from xtec.coding import rans  # numba arrives with the first pixel

    payload, frame_bytes, crc = b"", [0] * prepared.invalid.shape[0], 0
    if coded is not None:
        payload, frame_bytes = rans.encode(coded.symbols, coded.rows, tables.load(), coded.ends)
        crc = container.latents_crc(coded.latents)
    return Stream(
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


def _parse(data: bytes, home: Home | None) -> Stream:
    if home is None:
        return container.parse(data)
    stream = container.parse(data, shape=home.shape, dtype=home.dtype)
    home.check(stream)
    return stream


def _card(stream: Stream, home: Home | None, model: str | None) -> Card:
    """The model that a stream was written with."""
    if home is None:
        return registry.find(stream.model_digest, model)
    return registry.find(stream.model_digest, home.settings.model, home.shelf)


def _bounded(chunks: list[Pixels], streams: list[Stream], settings: Settings) -> list[Stream]:
    """The same streams with what keeps ``settings.max_error``."""
    full = [stream for stream in streams if stream.payload]
    base = iter(_network(full, settings.card) if full else ())
    return [
        _corrected(chunk, stream, next(base), settings) if stream.payload else stream
        for chunk, stream in zip(chunks, streams, strict=True)
    ]


def _corrected(chunk: Pixels, stream: Stream, base: Numbers, settings: Settings) -> Stream:
    """A stream with its residual, in the kind that is shortest of those that keep the bounds."""
    from xtec.residual import Kind

    bounds, exact = settings.bounds or (), settings.card.config.exact_pixels
    aim, made = aims(chunk, stream, bounds), []
    if exact:
        made.append(_with_residual(chunk, stream, base, aim, bounds, Kind.GUIDED))
    else:
        # What the network gives may differ by 1 DN where this is decoded.
        lower, less = (tuple(b - DEVICES_DIFFER_DN for b in each) for each in (aim, bounds))
        if min(lower) >= 0:
            made.append(_with_residual(chunk, stream, base, lower, less, Kind.CORRECTIONS))
    if not exact or len(made[0].payload) + len(made[0].residual) > chunk.size * HOPELESS:
        bare = replace(stream, payload=b"", frame_bytes=(0,) * chunk.shape[0], latents_crc=0)
        made.append(_with_residual(chunk, bare, None, aim, bounds, Kind.ALONE))
    return min(made, key=lambda s: len(s.payload) + len(s.residual))


def _with_residual(
    chunk: Pixels,
    stream: Stream,
    base: Numbers | None,
    aim: Sequence[int],
    bounds: Sequence[int],
    kind: "Kind",
) -> Stream:
    """Add a residual, decode it, and make sure of what comes back."""
    from xtec import residual  # numba arrives with the first pixel

    pixels, within = chunk.astype(np.int32), limits(stream.dtype)
    data = residual.encode(pixels, base, skipped(stream), aim, within, kind)
    made = replace(stream, residual=data)
    found = _finished(made, base)
    error = np.abs(found.astype(np.int32) - pixels).max(axis=(0, 2, 3))
    lost = (found == stream.nodata) != (chunk == stream.nodata)
    if (error > np.array(bounds)).any() or np.any(lost):
        raise BoundError(
            f"a chunk decodes with errors of up to {error.tolist()} DN per band where "
            f"{list(bounds)} are allowed, or with other pixels without data. Nothing was written; "
            "this is a bug: please report it."
        )
    return made


def _decode(streams: list[Stream], homes: list[Home | None], model: str | None) -> list[Pixels]:
    """Streams of one model, setting and shape, all with or all without latents."""
    if not streams[0].payload:
        return [_alone(*pair) for pair in zip(streams, homes, strict=True)]
    card = _card(streams[0], homes[0], model)
    for stream, home in zip(streams, homes, strict=True):
        if home is not None:
            home.check_bands(stream, card.config.bands)
    chunks: list[Pixels] = []
    for begin in range(0, len(streams), CHUNKS_AT_ONCE):
        some = streams[begin : begin + CHUNKS_AT_ONCE]
        chunks += [_finished(s, base) for s, base in zip(some, _network(some, card), strict=True)]
    return chunks


def _network(streams: list[Stream], card: Card) -> list[Numbers]:
    """What the network alone gives."""
    from xtec.coding import rans  # numba arrives with the first pixel

    config, level = card.config, streams[0].level
    band = max(max(s.bands) for s in streams)
    if level >= config.levels or band >= len(config.bands):
        raise CorruptStreamError(
            f"setting {level} or band {band} does not exist in model {card.name}."
        )
    frames, bands, height, width = streams[0].shape
    bands = len(config.bands) if config.whole else bands
    padded = frames, bands, height + -height % config.tile, width + -width % config.tile
    decoders = [rans.Decoder(s.payload, tables.load()) for s in streams]
    chunks = _engine(card).decode([d.decode for d in decoders], level, padded)
    for decoder, stream, decoded in zip(decoders, streams, chunks, strict=True):
        decoder.finish()
        if container.latents_crc(decoded.latents) != stream.latents_crc:
            raise CorruptStreamError(
                f"the latents decode to another checksum than they were written with (model "
                f"{card.name}): no pixel of this chunk can be trusted."
            )
    return [numbers(d.pixels(), s, config) for d, s in zip(chunks, streams, strict=True)]


def _alone(stream: Stream, home: Home | None) -> Pixels:
    """A chunk without latents: without data, or all in its residual. It needs no model."""
    if stream.residual and home is not None:
        with contextlib.suppress(WrongModelError):
            home.check_bands(stream, _card(stream, home, None).config.bands)
    return _finished(stream, None)


def _finished(stream: Stream, base: Numbers | None) -> Pixels:
    """Pixels of what the network gives, or of a chunk without latents."""
    if stream.residual:
        from xtec import residual  # numba arrives with the first pixel

        base = residual.decode(stream.residual, base, skipped(stream), limits(stream.dtype))
    if base is not None:
        return mark(base, stream)
    if stream.nodata is None or stream.invalid is None or not stream.invalid.all():
        raise CorruptStreamError("the stream holds no latents, yet some of its pixels are valid.")
    return np.full(stream.shape, stream.nodata, stream.dtype)
