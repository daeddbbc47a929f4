"""What a picture shows of two cubes: one date, thinned; nothing else of them is computed.

Below: cube, sentinel2, errors. Above: comparison, spectrum, thumbnail.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from xtec.cube.layout import Cube, find_cube
from xtec.cube.packing import Packing
from xtec.cube.quality import packings, require_same
from xtec.errors import InputError

SIDE = 512
"""Pictures have at most so many pixels a side."""


@dataclass(frozen=True, eq=False)
class View:
    """One date of two cubes, in digital numbers; NaN where there is no data."""

    before: NDArray[np.float64]
    """(band, y, x)"""
    after: NDArray[np.float64]
    bands: tuple[str, ...]
    """Canonical names."""
    date: str
    y: NDArray[Any]
    """Coordinates of the rows; numbers of rows where there are none."""
    x: NDArray[Any]
    step: int
    """Every so manieth row and column is shown."""
    offset: int
    """The radiometric offset that the numbers carry."""

    @property
    def error(self) -> NDArray[np.float64]:
        """Decoded minus original, (band, y, x)."""
        return self.after - self.before

    def band(self, name: str) -> int:
        """Position of a band."""
        return self.bands.index(name)


def view(
    decoded: xr.Dataset, original: xr.Dataset, date: Any, variable: Hashable | None = None
) -> View:
    """Take one date out of two cubes.

    Parameters
    ----------
    decoded, original : Dataset
        Of the same shape, bands and coordinates.
    date : int, str or datetime64, optional
        Position along time, or the date that is nearest; by default the one in the middle.
    variable : hashable, optional
        Which variable of `decoded`, where several have a band axis.

    Raises
    ------
    InputError, BandError
        The two are not the same cube, or there is no such date.
    """
    after, before = find_cube(decoded, variable), find_cube(original)
    require_same(after, before)
    number = position(after.variable, date)
    step = max(1, -(-max(after.variable.shape[2:]) // SIDE))
    parts = [_thinned(cube, number, step) for cube in (after, before)]
    meanings = packings(after.variable, before.variable)
    found = [
        _numbers(values, packing)
        for values, packing in zip(compute(*parts), meanings, strict=True)  # type: ignore[no-untyped-call]
    ]
    return View(
        before=found[1],
        after=np.rint(found[0]),
        bands=after.bands,
        date=named(after.variable, number),
        y=along(after.variable, 2)[::step],
        x=along(after.variable, 3)[::step],
        step=step,
        offset=meanings[0].offset,
    )


def position(array: xr.DataArray, date: Any) -> int:
    """Position of a date along time."""
    time, count = array.dims[0], array.shape[0]
    if date is None:
        return count // 2
    if isinstance(date, int | np.integer):
        if not -count <= date < count:
            raise InputError(f"date={date} is none of the {count} dates; give 0 to {count - 1}.")
        return int(date) % count
    if time not in array.coords or array[time].dtype.kind != "M":
        raise InputError(f"date={date!r}: this cube has no dates along {time!r}; give a position.")
    try:
        wanted = np.datetime64(date, "ns")
    except ValueError as error:
        raise InputError(f"date={date!r} is no date; write it as 2024-01-31.") from error
    return int(np.abs(array[time].to_numpy().astype("M8[ns]") - wanted).argmin())


def named(array: xr.DataArray, number: int) -> str:
    """A date as it stands on a picture; its number where there are no dates."""
    time = array.dims[0]
    if time not in array.coords or array[time].dtype.kind != "M":
        return f"date {number}"
    return str(np.datetime_as_string(array[time].to_numpy()[number], unit="D"))


def along(array: xr.DataArray, axis: int) -> NDArray[Any]:
    """Coordinates along an axis, or positions where there are none."""
    dim = array.dims[axis]
    return array[dim].to_numpy() if dim in array.coords else np.arange(array.shape[axis])


def digital(array: xr.DataArray, packing: Packing) -> NDArray[np.float64]:
    """Digital numbers of a small array, NaN where there is no data."""
    return _numbers(array.variable, packing)


def _thinned(cube: Cube, number: int, step: int) -> xr.Variable:
    return cube.variable.variable[number, :, ::step, ::step]


def _numbers(values: xr.Variable, packing: Packing) -> NDArray[np.float64]:
    pixels = values.to_numpy()
    return np.where(packing.invalid(pixels), np.nan, packing.numbers(pixels))


def shown(names: Sequence[str], pixels: NDArray[Any], bands: Sequence[str]) -> NDArray[Any]:
    """Some of the bands, in the order asked for."""
    return pixels[[list(bands).index(name) for name in names]]
