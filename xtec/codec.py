"""One chunk of a cube to bytes and back: the only room that knows both the model and the stream.

Pixels enter and leave as numpy arrays (time, band, y, x), streams as bytes. Importing this file
imports neither torch nor numba; coding a chunk does.

Below: engine, pixels, settings, models, coding. Above: zarr_v2, zarr_v3, cube.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

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

__all__ = [
    "Settings",
    "decode_chunk",
    "decode_chunks",
    "encode_chunk",
    "encode_chunks",
    "only_checked",
]


A = TypeVar("A")
R = TypeVar("R")

DEVICES_DIFFER_DN = 1
"""By how much pixels of a network whose synthesis is not exact may differ between machines."""

HOPELESS = 0.75
"""Bytes per value from which on it is tried what the residual does without the embedded model."""

_only_checked: ContextVar[bool] = ContextVar("only_checked", default=False)


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
    return _each(partial(_encode, settings), native, settings.card)


def decode_chunks(
    streams: Sequence[bytes],
    *,
    model: str | None = None,
    homes: Sequence[Home] | None = None,
    frames: Sequence[int | None] | None = None,
) -> list[Pixels]:
    """Decode chunks, or the first frames of them.

    Parameters
    ----------
    streams : sequence of bytes
        Whole ones: their checksums cover all bytes.
    model : str, optional
        What the model was called where the streams were written; for messages only.
    homes : sequence of Home, optional
        For each stream the array that it stands in. What does not belong there is refused before
        it is decoded. Without it memory follows what a stream claims: up to 2**31 pixels.
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
    places: Sequence[Home | None] = homes or [None] * len(streams)
    parsed = [_parse(data, home) for data, home in zip(streams, places, strict=True)]
    if _only_checked.get():
        return [_unread(stream, home) for stream, home in zip(parsed, places, strict=True)]
    wanted = list(zip(parsed, frames or [None] * len(parsed), strict=True))
    chunks = {i: _alone(*wanted[i], places[i]) for i, s in enumerate(parsed) if not s.payload}
    for digest in {s.model_digest for s in parsed if s.payload}:
        here = [i for i, s in enumerate(parsed) if s.payload and s.model_digest == digest]
        card = _card(parsed[here[0]], places[here[0]], model)
        for i in here:
            _check_bands(parsed[i], places[i], card)
        found = _each(partial(_decode, card), [wanted[i] for i in here], card)
        chunks |= zip(here, found, strict=True)
    return [chunks[i] for i in range(len(parsed))]


@contextlib.contextmanager
def only_checked() -> Iterator[None]:
    """Within this, streams are checked and not decoded: zeros stand for their pixels.

    Checked are all bytes (their checksum), and that the stream was written with the settings of its
    home: model, compression, bands, no-data value, offset. It holds for what the caller's own
    thread asks for, also through Zarr, which takes the caller's context along to its event loop.
    """
    token = _only_checked.set(True)
    try:
        yield
    finally:
        _only_checked.reset(token)


def _unread(stream: Stream, home: Home | None) -> Pixels:
    """Zeros of the chunk's shape, after all checks that need no network."""
    if home is not None:
        home.check_setting(stream)
    return np.zeros(stream.shape, stream.dtype)


def _check(chunk: Pixels, settings: Settings) -> None:
    if chunk.dtype.newbyteorder("=").name not in container.RANGES:
        raise InputError(
            f"a chunk is {chunk.dtype}; the codec takes digital numbers of type "
            f"{' or '.join(container.RANGES)}. Pack reflectance with a scale_factor first."
        )
    if chunk.ndim != 4 or 0 in chunk.shape:
        raise InputError(
            f"a chunk has shape {chunk.shape}; it needs the four dimensions (time, band, y, x), "
            "none of them empty. Reshape it."
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
        return container.pack(_stream(prepared, settings, None))
    (coded,) = _engine(settings.card).encode([prepared.network], settings.level)
    stream = _stream(prepared, settings, coded)
    if settings.bounds is not None:
        stream = _corrected(chunk, stream, _network(settings.card, stream), settings)
    return container.pack(stream)


def _stream(prepared: Prepared, settings: Settings, coded: "Coded | None") -> Stream:
    """The stream of one chunk; without ``coded`` a chunk that has no data at all."""
    from xtec.coding import rans  # numba arrives with the first pixel

    payload, frame_bytes = b"", [0] * prepared.invalid.shape[0]
    crcs = tuple(frame_bytes)
    if coded is not None:
        payload, frame_bytes = rans.encode(coded.symbols, coded.rows, tables.load(), coded.ends)
        crcs = container.frame_crcs(coded.latents)
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
        frame_crcs=crcs,
    )


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
        nothing = (0,) * chunk.shape[0]
        bare = replace(stream, payload=b"", frame_bytes=nothing, frame_crcs=nothing)
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


def _check_bands(stream: Stream, home: Home | None, card: Card) -> None:
    if home is not None:
        home.check_bands(stream, card.config.bands)
    config = card.config
    if stream.level >= config.levels or max(stream.bands) >= len(config.bands):
        raise CorruptStreamError(
            f"setting {stream.level} or band {max(stream.bands)} does not exist in model "
            f"{card.name}."
        )


def _decode(card: Card, wanted: tuple[Stream, int | None]) -> Pixels:
    """So many first frames of a stream with latents."""
    stream, count = wanted
    try:
        return _finished(stream, _network(card, stream, count), count)
    except TruncatedStreamError as error:
        raise CorruptStreamError(
            "the stream is whole, but what it codes is not: it was forged, or is decoded "
            f"otherwise than it was encoded. {error}"
        ) from error


def _network(card: Card, stream: Stream, count: int | None = None) -> Numbers:
    """What the network alone gives, of the first frames or of all."""
    from xtec.coding import rans  # numba arrives with the first pixel

    config, part = card.config, _first(stream, count)
    frames, bands, height, width = part.shape
    bands = len(config.bands) if config.whole else bands
    padded = frames, bands, height + -height % config.tile, width + -width % config.tile
    decoder = rans.Decoder(part.payload, tables.load())
    (decoded,) = _engine(card).decode([decoder.decode], part.level, padded)
    decoder.finish(ended=part is stream)
    if container.frame_crcs(decoded.latents) != part.frame_crcs:
        raise CorruptStreamError(
            f"the latents decode to another checksum than they were written with (model "
            f"{card.name}): no pixel of this chunk can be trusted. Compress the original again; if "
            "that does not help, report it."
        )
    return numbers(decoded.pixels(), part, config)


def _first(stream: Stream, count: int | None) -> Stream:
    """What a stream would be if the chunk ended after some frames; itself where it does.

    Its residual stays whole.
    """
    if count is None or count >= stream.shape[0]:
        return stream
    return replace(
        stream,
        shape=(count, *stream.shape[1:]),
        invalid=None if stream.invalid is None else stream.invalid[:count],
        saturated=None if stream.saturated is None else stream.saturated[:count],
        frame_bytes=stream.frame_bytes[:count],
        frame_crcs=stream.frame_crcs[:count],
        payload=stream.payload[: stream.frame_bytes[count - 1]],
    )


def _alone(stream: Stream, count: int | None, home: Home | None) -> Pixels:
    """A chunk without latents: without data, or all in its residual. It needs no model."""
    if stream.residual and home is not None:
        with contextlib.suppress(WrongModelError):
            home.check_bands(stream, _card(stream, home, None).config.bands)
    return _finished(stream, None, count)


def _finished(stream: Stream, base: Numbers | None, count: int | None = None) -> Pixels:
    """Pixels of what the network gives, or of a chunk without latents; of the first frames."""
    part = _first(stream, count)
    if part.residual:
        from xtec import residual  # numba arrives with the first pixel

        within, frames = limits(part.dtype), stream.shape[0]
        base = residual.decode(part.residual, base, skipped(part), within, frames)
    if base is not None:
        return mark(base, part)
    if part.nodata is None or part.invalid is None or not part.invalid.all():
        raise CorruptStreamError("the stream holds no latents, yet some of its pixels are valid.")
    return np.full(part.shape, part.nodata, part.dtype)
