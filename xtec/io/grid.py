"""Where the pixels of a raster lie, and how a coarse raster is repeated onto a finer grid.

Repetition is exact both ways: each pixel of the finer grid is a copy of the coarse pixel around it.
`to_attribute` says where the coarse pixels were, and `native` makes them again.

Below: errors. Above: scene, native, safe, recognise.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import dask.array as da
import xarray as xr
from numpy.typing import NDArray

from xtec.errors import InputError

NATIVE = "tec_native"
"""Attribute that says where the pixels of repeated bands were: band -> six numbers, as GDAL's."""

TOLERANCE = 1e-3
"""Pixels that edges may be off before two grids count as different."""


@dataclass(frozen=True)
class Grid:
    """Edges and steps of a raster that is not turned, in units of its CRS."""

    left: float
    top: float
    width: float
    """Step from one column to the next."""
    height: float
    """Step from one row to the next; negative where north is up."""
    rows: int
    columns: int

    @classmethod
    def of(cls, array: xr.DataArray, name: str) -> Self:
        """Read the grid of an array with dimensions (..., y, x); `name` is for the message.

        Raises
        ------
        InputError
            The raster is turned or has no coordinates.
        """
        import rioxarray  # noqa: F401 - registers .rio

        y, x = array.dims[-2:]
        if not {x, y} <= set(array.indexes):
            raise InputError(
                f"{name} has no coordinates along {x} and {y}: its pixels are turned against the "
                "axes of its CRS, or it is not georeferenced. Warp it to a grid first "
                "(.rio.reproject, gdalwarp)."
            )
        at = array.rio.set_spatial_dims(x, y).rio.transform()
        return cls(at.c, at.f, at.a, at.e, *array.shape[-2:])

    def __str__(self) -> str:
        return (
            f"{self.rows} x {self.columns} pixels of {self.width:g} x {self.height:g} from "
            f"({self.left:.12g}, {self.top:.12g})"
        )

    @property
    def geotransform(self) -> tuple[float, ...]:
        """The six numbers that GDAL and CF call GeoTransform."""
        return (self.left, self.width, 0.0, self.top, 0.0, self.height)

    def close_to(self, other: Self) -> bool:
        """Whether this is the same grid."""
        same = (self.rows, self.columns) == (other.rows, other.columns)
        return same and self.inside(other) == (1, 0, 0)

    def inside(self, coarse: Self) -> tuple[int, int, int] | None:
        """Find this grid in a coarser one.

        Returns
        -------
        int, int, int or None
            Pixels of this grid along each side of a coarse pixel, and the first row and column of
            the repeated coarse raster that belong to this grid. None where the two do not fit.
        """
        ratio = coarse.width / self.width
        factor = round(ratio)
        row, column = (self.top - coarse.top) / self.height, (self.left - coarse.left) / self.width
        fits = (
            factor >= 1
            and math.isclose(ratio, factor, rel_tol=1e-6)
            and math.isclose(coarse.height / self.height, factor, rel_tol=1e-6)
            and abs(row - round(row)) < TOLERANCE
            and abs(column - round(column)) < TOLERANCE
            and 0 <= round(row) <= coarse.rows * factor - self.rows
            and 0 <= round(column) <= coarse.columns * factor - self.columns
        )
        return (factor, round(row), round(column)) if fits else None


def repeat(pixels: da.Array, place: tuple[int, int, int], grid: Grid) -> da.Array:
    """Copy each coarse pixel to all pixels of a finer grid that lie in it.

    Parameters
    ----------
    pixels : dask array (y, x)
    place : int, int, int
        As `Grid.inside` found it.
    grid : Grid
        The finer grid.
    """
    factor, row, column = place
    if factor > 1:
        chunks = tuple(tuple(factor * size for size in sizes) for sizes in pixels.chunks)
        copied = partial(_repeat_block, factor=factor)
        pixels = da.map_blocks(  # type: ignore[no-untyped-call]
            copied, pixels, chunks=chunks, dtype=pixels.dtype
        )
    cropped: da.Array = pixels[row : row + grid.rows, column : column + grid.columns]
    return cropped


def _repeat_block(block: NDArray[Any], factor: int) -> NDArray[Any]:
    return block.repeat(factor, 0).repeat(factor, 1)


def to_attribute(native: Mapping[str, Grid]) -> str:
    """Say where the pixels of repeated bands were."""
    return json.dumps({band: grid.geotransform for band, grid in native.items()})


def from_attribute(text: Any) -> dict[str, tuple[float, float, float, float]]:
    """Read band -> (left, width, top, height); InputError where that is not what stands there."""
    try:
        return {
            band: (float(six[0]), float(six[1]), float(six[3]), float(six[5]))
            for band, six in json.loads(text).items()
        }
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"the attribute {NATIVE!r} is damaged ({error}); it maps each repeated band to the six "
            "numbers of its GeoTransform. Delete it to treat all bands as they are."
        ) from error
