"""Where the bits of a stored cube go: by part, by date, by tile. Nothing is decoded.

Of each chunk the header and the lengths are read, some 4 kB; chunks are Dask tasks.

Below: pieces, report, stored, zarr_v3, coding.sections, residual, shelf. Above: plot, accessor.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from xtec.coding.sections import Sections, sections
from xtec.cube.pieces import Extent, Place, extents, grid
from xtec.cube.report import coded_variable, info
from xtec.cube.stored import array_of
from xtec.errors import InputError
from xtec.zarr_v3 import read_stored

if TYPE_CHECKING:
    import zarr

PARTS = ("latents", "residual", "masks", "container")


@dataclass(frozen=True, eq=False)
class Spent:
    """Bytes of the chunk at one place."""

    place: Place
    by_date: NDArray[np.float64]
    """(part, frame)"""


def bits(dataset: xr.Dataset, variable: Hashable | None = None) -> xr.Dataset:
    """Count the stored bytes of a compressed variable.

    Returns
    -------
    xarray.Dataset
        ``bytes`` (part, time, tile_y, tile_x), a tile being what a chunk covers: "latents" are what
        the network codes, "residual" keeps `max_error`, "masks" are no-data and saturated pixels,
        "container" is headers, lengths and checksums. ``values`` (time, tile_y, tile_x): pixels
        times bands. Latents and residual are counted for each date; masks and container are spread
        evenly over the dates of a chunk, and what the codec spends on dates beyond the end of the
        cube goes to its last. Attributes: ``stored_bytes`` of all chunks, which has the indices of
        shards in it, and ``model_bytes``, of the model if the store carries it.

    Raises
    ------
    InputError
        Nothing here is compressed, or it is not stored.
    StreamError
        A chunk contradicts itself: ``ds.tec.verify()`` says more.
    """
    name = coded_variable(dataset, variable)
    array = array_of(dataset, name)
    if array is None:
        raise InputError(
            f"{name!r} is not stored yet, or its store is unknown; write it, then open it with "
            "xr.open_zarr."
        )
    unit = array.shards or array.chunks
    places = np.ndindex(grid(array.shape, unit))
    found = compute(*(delayed(_spent)(array, place) for place in places))  # type: ignore[no-untyped-call]
    count, (_, _, rows, columns) = array.shape[0], grid(array.shape, array.chunks)
    total = np.zeros((len(PARTS), count, rows, columns))
    for spent in (one for several in found for one in several):
        time, _, y, x = spent.place
        first = time * array.chunks[0]
        here = min(spent.by_date.shape[1], count - first)
        total[:, first : first + here, y, x] = spent.by_date[:, :here]
        total[:, first + here - 1, y, x] += spent.by_date[:, here:].sum(axis=1)
    return _dataset(dataset, name, array, total)


def _spent(array: "zarr.Array[Any]", unit: Place) -> list[Spent]:
    """What the chunks of one file spend."""
    return [_of_chunk(array, unit, place, extent) for place, extent in extents(array, unit).items()]


def _of_chunk(array: "zarr.Array[Any]", unit: Place, place: Place, extent: Extent | None) -> Spent:
    first, last = (0, None) if extent is None else extent

    def fetch(begin: int, end: int) -> bytes:
        stop = first + end if last is None else min(first + end, last)
        return read_stored(array, unit, first + begin, stop) or b""

    sizes = sections(fetch)
    frames, bands, *_ = sizes.shape
    by_date = np.zeros((len(PARTS), frames))
    by_date[0] = sizes.latents
    by_date[1] = _residual(fetch, sizes, frames, bands)
    by_date[2], by_date[3] = sizes.masks / frames, sizes.container / frames
    return Spent(place, by_date)


def _residual(fetch: Any, sizes: Sections, frames: int, bands: int) -> Any:
    """Of each frame; the section's own head evenly."""
    if not sizes.residual:
        return 0
    from xtec.residual.section import frame_bytes, head_bytes  # its room brings numba

    head = min(sizes.residual, head_bytes(frames, bands))
    own = np.array(frame_bytes(fetch(sizes.residual_at, sizes.residual_at + head), frames, bands))
    return own + (sizes.residual - own.sum()) / frames


def _dataset(
    dataset: xr.Dataset, name: Hashable, array: "zarr.Array[Any]", total: NDArray[np.float64]
) -> xr.Dataset:
    about = info(dataset, name)
    bands = array.shape[1]
    tiles: list[NDArray[np.int64]] = [
        np.minimum(step, size - step * np.arange(-(-size // step)))
        for size, step in zip(array.shape[2:], array.chunks[2:], strict=True)
    ]
    values = np.broadcast_to(bands * np.outer(*tiles), total.shape[1:])
    made = xr.Dataset(
        {
            "bytes": (("part", "time", "tile_y", "tile_x"), total, {"units": "bytes"}),
            "values": (("time", "tile_y", "tile_x"), values, {"long_name": "pixels times bands"}),
        },
        coords={"part": list(PARTS)},
        attrs={
            "variable": str(name),
            "shape": list(array.shape),
            "chunks": list(array.chunks),
            "stored_bytes": about.stored_bytes or 0,
            "model_bytes": about.model_bytes or 0,
        },
    )
    time = dataset[name].dims[0]
    known = time in dataset.coords and dataset[time].size == array.shape[0]
    return made.assign_coords(time=dataset[time].to_numpy()) if known else made


def bits_per_value(found: xr.Dataset, *kept: str) -> xr.DataArray:
    """Bits per pixel and band along some of the dimensions, all parts together."""
    spent, values = found["bytes"].sum("part"), found["values"]
    rest = [dim for dim in values.dims if dim not in kept]
    result: xr.DataArray = 8 * spent.sum(rest) / values.sum(rest)
    return result.assign_attrs(units="bits per pixel per band")
