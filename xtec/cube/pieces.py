"""Where each chunk of an array is stored: in a file of its own, or in a part of a shard.

A shard ends (or begins) with an index: for each of its chunks in C order where it begins and how
many bytes it has, both as little-endian u64, all bits set where there is none.

Below: zarr_v3, errors. Above: bits, verify.
"""

import itertools
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from xtec.errors import InputError
from xtec.zarr_v3 import read_stored

if TYPE_CHECKING:
    import zarr

Place = tuple[int, ...]
"""A chunk, or a shard, counted along each axis."""
Extent = tuple[int, int]
"""Where the bytes of a chunk begin in its file, and where they end."""

ABSENT = (1 << 64) - 1
CHECKSUM_BYTES = 4


def places(array: "zarr.Array[Any]") -> Iterator[Place]:
    """Every chunk that an array has, stored or not."""
    return itertools.product(*map(range, grid(array.shape, array.chunks)))


def grid(shape: tuple[int, ...], unit: tuple[int, ...]) -> tuple[int, ...]:
    """How many chunks, or shards, there are along each axis."""
    return tuple(-(-size // step) for size, step in zip(shape, unit, strict=True))


def region(shape: tuple[int, ...], unit: tuple[int, ...], place: Place) -> tuple[slice, ...]:
    """What a chunk, or a shard, holds of an array; beyond its edge there is nothing."""
    return tuple(
        slice(number * step, min((number + 1) * step, size))
        for number, step, size in zip(place, unit, shape, strict=True)
    )


def object_of(array: "zarr.Array[Any]", place: Place) -> Place:
    """Which file, or object, a chunk lies in: itself, or its shard."""
    if array.shards is None:
        return place
    per = _per_shard(array)
    return tuple(number // count for number, count in zip(place, per, strict=True))


def file_of(array: "zarr.Array[Any]", place: Place) -> str:
    """Name of the file that a chunk lies in, below the store's root."""
    key = array.metadata.encode_chunk_key(object_of(array, place))
    return f"{array.path}/{key}" if array.path else key


def is_stored(array: "zarr.Array[Any]", place: Place) -> bool:
    """Whether there is anything for a chunk; what is not stored reads as the fill value."""
    if array.shards is None:
        return read_stored(array, place, end=1) is not None
    return place in extents(array, object_of(array, place))


def extents(array: "zarr.Array[Any]", unit: Place) -> dict[Place, Extent | None]:
    """The chunks that are stored in one file; None stands for the whole of it.

    Parameters
    ----------
    array : zarr.Array
    unit : tuple of int
        A shard or, in an array without shards, a chunk.

    Raises
    ------
    InputError
        The shard has an index of another kind, or none.
    """
    if array.shards is None:
        return {unit: None} if is_stored(array, unit) else {}
    per = _per_shard(array)
    count = prod(per)
    data = _index(array, unit, 2 * 8 * count)
    if data is None:
        return {}
    first = [number * step for number, step in zip(unit, per, strict=True)]
    entries = np.frombuffer(data, "<u8").reshape(count, 2).tolist()
    inner = itertools.product(*map(range, per))
    return {
        tuple(map(sum, zip(first, place, strict=True))): (begin, begin + size)
        for place, (begin, size) in zip(inner, entries, strict=True)
        if (begin, size) != (ABSENT, ABSENT)
    }


def _per_shard(array: "zarr.Array[Any]") -> tuple[int, ...]:
    return grid(array.shards or array.chunks, array.chunks)


def _index(array: "zarr.Array[Any]", shard: Place, size: int) -> bytes | None:
    """Read the index of a shard; None where there is no shard."""
    codecs: Any = getattr(array.metadata, "codecs", ())
    sharding = next((codec for codec in codecs if isinstance(codec, ShardingCodec)), None)
    kinds = [type(codec) for codec in sharding.index_codecs] if sharding else []
    if sharding is None or kinds[:1] != [BytesCodec] or kinds[1:] not in ([], [Crc32cCodec]):
        raise InputError(
            f"the shards of {array.path!r} have an index made by {[k.__name__ for k in kinds]}; "
            "allowed are plain bytes with or without CRC-32C, as Zarr writes them."
        )
    whole = size + CHECKSUM_BYTES * (len(kinds) - 1)
    at_the_end = sharding.index_location.value == "end"
    found = read_stored(array, shard, -whole) if at_the_end else read_stored(array, shard, 0, whole)
    if found is not None and len(found) < whole:
        raise InputError(f"{array.path!r}: the shard {shard} is shorter than its index.")
    return None if found is None else found[:size]
