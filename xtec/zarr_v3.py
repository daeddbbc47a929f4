"""The socket for Zarr format 3: a serializer that codes whole batches of chunks.

It works alone and as the inner codec of shards. Zarr calls it on its event loop, so the work
happens in a thread. A chunk that does not exist (None) stays None. Of a chunk whose first dates
are read, only these are decoded.

Below: codec. Above: cube.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np
from zarr import config
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON, concurrent_map, parse_named_configuration
from zarr.core.indexing import SelectorTuple

from xtec.codec import Settings, decode_chunks, encode_chunks
from xtec.errors import CorruptStreamError, InputError

NAME = "xarray-tec.tt"
DTYPES = ("uint16", "int16")


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
        """Encode a batch of chunks."""
        batch = list(chunks_and_specs)
        chunks = [chunk.as_numpy_array() for chunk, _ in batch if chunk is not None]
        for chunk in chunks:
            self._check(chunk.shape, chunk.dtype)
        streams = iter(await asyncio.to_thread(encode_chunks, chunks, self.settings))
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
        CorruptStreamError
            A stream holds a chunk of another shape or type than the array's.
        """
        batch = list(chunks_and_specs)
        return await self._decode([(chunk, (), spec) for chunk, spec in batch])

    async def decode_partial(
        self, batch_info: Iterable[tuple[ByteGetter, SelectorTuple, ArraySpec]]
    ) -> list[NDBuffer | None]:
        """Fetch a batch of chunks and decode what is selected of each, up to the last frame.

        All bytes of a chunk are fetched, as its checksum covers them all. What a batch is, Zarr's
        ``codec_pipeline.batch_size`` says.

        Raises
        ------
        CorruptStreamError
            As `decode`.
        """
        batch = list(batch_info)
        stored: list[Buffer | None] = await concurrent_map(
            [(getter, spec.prototype) for getter, _, spec in batch],
            lambda getter, prototype: getter.get(prototype),
            config.get("async.concurrency"),
        )
        return await self._decode(
            [(data, selection, spec)
             for data, (_, selection, spec) in zip(stored, batch, strict=True)]
        )  # fmt: skip

    async def _decode(
        self, batch: list[tuple[Buffer | None, SelectorTuple, ArraySpec]]
    ) -> list[NDBuffer | None]:
        decode = partial(
            decode_chunks,
            [data.to_bytes() for data, _, _ in batch if data is not None],
            model=self.settings.model,
            frames=[_frames(part, spec) for data, part, spec in batch if data is not None],
        )
        chunks = iter(await asyncio.to_thread(decode))
        return [
            None if data is None else spec.prototype.nd_buffer.from_numpy_array(
                _expected(next(chunks), spec, selection)[selection]
            )
            for data, selection, spec in batch
        ]  # fmt: skip

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


def _frames(selection: SelectorTuple, spec: ArraySpec) -> int:
    """How many of a chunk's frames there are up to the last one selected."""
    frames = np.arange(spec.shape[0])
    times: Any = (*selection, slice(None))[0] if isinstance(selection, tuple) else selection
    return int(np.max(frames[times], initial=0)) + 1


def _expected(
    chunk: np.ndarray[Any, Any], spec: ArraySpec, selection: SelectorTuple
) -> np.ndarray[Any, Any]:
    """Return the decoded frames of a chunk if they are what the array's metadata promises."""
    dtype = spec.dtype.to_native_dtype()
    shape = (_frames(selection, spec), *spec.shape[1:])
    if chunk.shape != shape or chunk.dtype != dtype.newbyteorder("="):
        raise CorruptStreamError(
            f"a stream holds a chunk of shape {chunk.shape} and type {chunk.dtype}, where the "
            f"array's chunks are {spec.shape} of {dtype}: it does not belong here."
        )
    return chunk
