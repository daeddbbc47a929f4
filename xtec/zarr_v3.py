"""The socket for Zarr format 3: a serializer that codes whole batches of chunks.

It works alone and as the inner codec of shards. Zarr calls it on its event loop, so the work
happens in a thread. A chunk that does not exist (None) stays None. Of a chunk whose first dates
are read, only these are decoded.

A codec is not told in which store its array is. Where Zarr reads an array that has no shards, it
offers codecs that can decode a part of a chunk to fetch the bytes themselves, and hands them the
store for that. This one takes the offer, fetches the whole chunk, and so finds a model that the
store carries; on any machine, whoever opened the array.

Below: codec, home, secondhand, shelf. Above: cube.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from zarr import Array, config
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter, ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer, default_buffer_prototype
from zarr.core.common import JSON, concurrent_map, parse_named_configuration
from zarr.core.indexing import SelectorTuple
from zarr.core.sync import sync
from zarr.storage import StorePath

from xtec import secondhand
from xtec.codec import Settings, decode_chunks, encode_chunks
from xtec.errors import InputError
from xtec.home import Home
from xtec.pixels import Pixels
from xtec.shelf import Shelf

NAME = "xarray-tec.tt"
DTYPES = ("uint16", "int16")

LONGEST = 1 << 62
"""Beyond the end of any object."""

Wanted = tuple[Buffer | None, SelectorTuple, ArraySpec]
"""A chunk's bytes, what is selected of the chunk, and what it is said to be."""


@dataclass(frozen=True)
class TecSerializer(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Code chunks (time, band, y, x) of uint16 or int16 with a Temporal Transformer.

    Use it as the ``serializer`` of an array, with ``compressors=None``: there is nothing left to
    compress. It holds its settings and no model, so it can be pickled and costs nothing.

    Examples
    --------
    >>> codec = TecSerializer(Settings(bands=("B04", "B08"), compression=50))
    >>> encoding = {"serializer": codec, "compressors": None, "chunks": (8, 2, 256, 256)}
    """

    settings: Settings = field(default_factory=Settings)
    told: bool = field(default=False, kw_only=True, compare=False)
    """Whether the user was told already that the pixels are decoded ones. Not stored."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Read the form that stands in the array's metadata."""
        _, fields = parse_named_configuration(data, NAME, require_configuration=False)
        if not isinstance(fields, Mapping):
            return cls()
        return cls(Settings.from_dict(dict(fields)))

    def to_dict(self) -> dict[str, JSON]:
        """Name and settings, as JSON."""
        return {"name": NAME, "configuration": self.settings.to_dict()}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known beforehand."""
        raise NotImplementedError

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: object) -> None:
        """Refuse arrays that cannot be coded, when they are created.

        Raises
        ------
        InputError
            Not four dimensions, not uint16 or int16, or not as many bands as the settings name.
        """
        del chunk_grid  # of another type in every minor version of Zarr
        self._check(shape, dtype.to_native_dtype())

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """Refuse chunks that cannot be coded, before the first is; change nothing."""
        self._check(array_spec.shape, array_spec.dtype.to_native_dtype())
        return self

    async def encode(
        self, chunks_and_specs: Iterable[tuple[NDBuffer | None, ArraySpec]]
    ) -> list[Buffer | None]:
        """Encode a batch of chunks.

        Warns
        -----
        SecondLossWarning
            Some of the pixels were decoded by xtec in this process.
        """
        batch = list(chunks_and_specs)
        chunks = [chunk.as_numpy_array() for chunk, _ in batch if chunk is not None]
        for chunk in chunks:
            self._check(chunk.shape, chunk.dtype)
        streams = iter(await asyncio.to_thread(self._encode, chunks))
        return [
            None if chunk is None else spec.prototype.buffer.from_bytes(next(streams))
            for chunk, spec in batch
        ]

    async def decode(
        self, chunks_and_specs: Iterable[tuple[Buffer | None, ArraySpec]]
    ) -> list[NDBuffer | None]:
        """Decode a batch of chunks.

        Raises
        ------
        StreamError
            A chunk is damaged, or of another array: of another shape, type, model or band.
        """
        batch: list[Wanted] = [(chunk, (), spec) for chunk, spec in chunks_and_specs]
        return await self._decoded(batch, None)

    async def decode_partial(
        self, batch_info: Iterable[tuple[ByteGetter, SelectorTuple, ArraySpec]]
    ) -> list[NDBuffer | None]:
        """Fetch a batch of chunks and decode what is selected of each, up to the last frame.

        All bytes of a chunk are fetched, as its checksum covers them all. What a batch is, Zarr's
        ``codec_pipeline.batch_size`` says.

        Raises
        ------
        StreamError
            As `decode`.
        """
        batch = list(batch_info)
        stored: list[Buffer | None] = await concurrent_map(
            [(getter, spec.prototype) for getter, _, spec in batch],
            lambda getter, prototype: getter.get(prototype),
            config.get("async.concurrency"),
        )
        places = [getter for getter, *_ in batch if isinstance(getter, StorePath)]
        shelf = Shelf(places[0].store, places[0].path) if places else None
        wanted = [
            (data, selection, spec)
            for data, (_, selection, spec) in zip(stored, batch, strict=True)
        ]
        return await self._decoded(wanted, shelf)

    async def _decoded(self, batch: list[Wanted], shelf: Shelf | None) -> list[NDBuffer | None]:
        there = [(d.to_bytes(), selection, spec) for d, selection, spec in batch if d is not None]
        streams = [data for data, *_ in there]
        homes = [self._home(spec, shelf) for *_, spec in there]
        frames = [_frames(selection, spec) for _, selection, spec in there]
        chunks = iter(await asyncio.to_thread(self._decode, streams, homes, frames))
        return [
            None if data is None
            else spec.prototype.nd_buffer.from_numpy_array(next(chunks)[selection])
            for data, selection, spec in batch
        ]  # fmt: skip

    def _home(self, spec: ArraySpec, shelf: Shelf | None) -> Home:
        dtype = spec.dtype.to_native_dtype()
        time, band, y, x = spec.shape
        return Home(self.settings, dtype.newbyteorder("=").name, (time, band, y, x), shelf)

    def _encode(self, chunks: list[Pixels]) -> list[bytes]:
        if not (self.told or self.settings.lossless):
            secondhand.warn(chunks)
        return encode_chunks(chunks, self.settings)

    def _decode(self, streams: list[bytes], homes: list[Home], frames: list[int]) -> list[Pixels]:
        chunks = decode_chunks(streams, homes=homes, frames=frames)
        if not self.settings.lossless:
            secondhand.remember(chunks)
        return chunks

    def _check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if len(shape) != 4:
            raise InputError(
                f"an array of shape {shape} cannot be coded by {NAME}; it needs the four "
                "dimensions (time, band, y, x)."
            )
        if dtype.newbyteorder("=").name not in DTYPES:
            raise InputError(
                f"an array of type {dtype} cannot be coded by {NAME}; it takes digital numbers of "
                f"type {' or '.join(DTYPES)}. Pack reflectance with scale_factor and dtype first."
            )
        if shape[1] != len(self.settings.bands):
            raise InputError(
                f"{shape[1]} bands in an array or chunk of shape {shape}, but the codec's settings "
                f"name {len(self.settings.bands)}: {list(self.settings.bands)}. A chunk holds all "
                "bands of its array."
            )


def read_stored(
    array: "Array[Any]", place: tuple[int, ...], begin: int = 0, end: int | None = None
) -> bytes | None:
    """Read what is stored for one chunk or shard, of either format, as it is.

    Parameters
    ----------
    array : zarr.Array
    place : tuple of int
        Which one, counted along each axis.
    begin, end : int
        Which of its bytes; a negative `begin` counts from the end, and then there is no `end`.

    Returns
    -------
    bytes, or None where nothing is stored
        Fewer than asked for, where there are no more.
    """
    part: ByteRequest | None = None
    if begin < 0:
        part = SuffixByteRequest(-begin)
    elif begin or end is not None:
        part = RangeByteRequest(begin, LONGEST if end is None else end)
    path = array.store_path / array.metadata.encode_chunk_key(place)
    found = sync(path.get(default_buffer_prototype(), part))
    return None if found is None else found.to_bytes()


def places_stored(array: "Array[Any]") -> dict[tuple[int, ...], str]:
    """Find the chunks or shards for which something is stored, of either format, and their keys."""
    unit = array.shards or array.chunks
    grid = tuple(-(-n // u) for n, u in zip(array.shape, unit, strict=True))
    path = array.store_path
    keys = ((place, array.metadata.encode_chunk_key(place)) for place in np.ndindex(grid))
    found = frozenset(sync(_keys(path)))
    return {place: (path / key).path for place, key in keys if (path / key).path in found}


async def _keys(path: StorePath) -> list[str]:
    return [key async for key in path.store.list_prefix(f"{path.path}/" if path.path else "")]


def stored_size(array: "Array[Any]", key: str) -> int:
    """Size in bytes of what is stored under a key."""
    return sync(array.store_path.store.getsize(key))


def remove_stored(array: "Array[Any]", key: str) -> None:
    """Remove what is stored under a key."""
    sync(array.store_path.store.delete(key))


def _frames(selection: SelectorTuple, spec: ArraySpec) -> int:
    """How many of a chunk's frames there are up to the last one selected."""
    frames = np.arange(spec.shape[0])
    times: Any = (*selection, slice(None))[0] if isinstance(selection, tuple) else selection
    return int(np.max(frames[times], initial=0)) + 1
