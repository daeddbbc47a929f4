"""Which part of what is stored the residuals take, found in a sample of it.

Below: sampling, zarr_v3, coding.stream. Above: report.
"""

import struct
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from xtec.coding import stream
from xtec.cube.sampling import spread
from xtec.zarr_v3 import read_stored

if TYPE_CHECKING:
    import zarr

OBJECTS = 8
"""So many files or objects are read at most, chunks or shards."""
LARGEST = 1 << 26
"""So many bytes of a shard are read at most."""
LENGTH_AT = 16
"""Where a stream says how long it is."""


def residual_share(array: "zarr.Array[Any]") -> float | None:
    """Residuals' part of the bytes of a sample of the chunks; None where there is none."""
    read = residuals = 0
    for data in islice(_objects(array), OBJECTS):
        for one in _streams(data):
            read += len(one)
            residuals += len(stream.parse(one).residual)
    return residuals / read if read else None


def _objects(array: "zarr.Array[Any]") -> Iterator[bytes]:
    """What is stored, spread over the array."""
    unit = array.shards or array.chunks
    grid = tuple(-(-n // c) for n, c in zip(array.shape, unit, strict=True))
    for place in islice(spread(grid), 8 * OBJECTS):
        found = read_stored(array, place, end=LARGEST if array.shards else None)
        if found is not None:
            yield found


def _streams(data: bytes) -> Iterator[bytes]:
    """The chunks that stand in an object one after the other, as far as they are whole."""
    place = 0
    while data.startswith(stream.MAGIC, place):
        (length,) = struct.unpack_from("<I", data, place + LENGTH_AT)
        if length == 0 or place + length > len(data):
            return
        yield data[place : place + length]
        place += length
