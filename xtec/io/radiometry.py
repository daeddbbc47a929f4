"""Digital numbers of several processing baselines brought to one radiometric offset.

Since baseline 04.00 ESA adds 1000 to every valid pixel, so that reflectance below 0 can be told.
Dates without that are raised, never the others lowered: lowering would clip what is below 0.

Below: cube, sentinel2, errors. Above: scene, geotiffs, recognise.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xtec.cube.packing import Packing, packing_of, snap
from xtec.errors import InputError
from xtec.sentinel2 import NODATA, OFFSET_BASELINE_0400, SATURATED, SCALE

FIRST_WITH_OFFSET = 4.0


def offset_of_baseline(baseline: str) -> int | None:
    """Radiometric offset of a processing baseline such as "02.04"; None where it is no baseline.

    Those that ESA does not use for users' products, 99.99 among them, tell nothing.
    """
    try:
        number = float(baseline)
    except ValueError:
        return None
    if not 0 < number < 99:
        return None
    return OFFSET_BASELINE_0400 if number >= FIRST_WITH_OFFSET else 0


def raised(numbers: xr.DataArray, by: int | xr.DataArray, nodata: int) -> xr.DataArray:
    """Add to the valid digital numbers; no data and saturated pixels stay.

    Parameters
    ----------
    numbers : DataArray, uint16 or int16
    by : int or DataArray
        What to add, at least 0; a DataArray says it per date or band.
    nodata : int
        The digital number of pixels without data.

    Returns
    -------
    DataArray, same type
        Sums beyond the range, which no measured reflectance reaches, become the largest valid
        number.
    """
    if not np.any(by):
        return numbers
    most = np.iinfo(numbers.dtype).max
    special = (numbers == nodata) | (numbers == SATURATED)
    last = most - 1 if most == SATURATED else most
    sums = np.minimum(numbers.astype(np.int32) + by, last)
    return numbers.where(special, sums).astype(numbers.dtype)


def one_for_all(offsets: Iterable[int]) -> int:
    """Return the offset that dates of these offsets are brought to: the largest.

    Raises
    ------
    InputError
        An offset that is none.
    """
    found = sorted(set(offsets))
    if not found or found[0] < 0 or found[-1] > SATURATED // 2:
        raise InputError(
            f"offsets {found} are not radiometric offsets; allowed are 0 to {SATURATED // 2} "
            "digital numbers, for ESA's products 0 or 1000."
        )
    return found[-1]


@dataclass(frozen=True)
class Numbers:
    """Digital numbers and what they mean."""

    array: xr.DataArray
    scale: float | None
    """Reflectance of one digital number; None where nobody said."""
    offset: int | None
    """Radiometric offset that they carry; None where nobody said."""
    nodata: int


def digital_numbers(
    array: xr.DataArray, offset: int | None = None, scale: float | None = None
) -> Numbers:
    """Tell digital numbers by their attributes, or make them of floating point; lazy.

    Parameters
    ----------
    array : DataArray
        16-bit integers are digital numbers. Floating point is what its encoding packs, else
        reflectance or, with ``scale=1``, digital numbers with NaN.
    offset : int, optional
        Radiometric offset, where array and encoding do not say it.
    scale : float, optional
        What one digital number means, for floating point that does not say it.

    Raises
    ------
    InputError
        Another type, or arguments that contradict what the array says; when pixels are computed,
        values outside the range.
    """
    if array.dtype.kind != "f":
        packing = packing_of(array, offset=offset)
        said = "scale_factor" in array.attrs or "add_offset" in array.attrs
        known = packing.offset if said or offset is not None else None
        return Numbers(array, array.attrs.get("scale_factor"), known, packing.nodata)
    if scale is None and np.dtype(array.encoding.get("dtype", float)).kind in "iu":
        packing = packing_of(array, offset=offset)
        factor = None if packing.scale == 1 else packing.scale
        known = packing.offset if factor or offset is not None else None
        return Numbers(_unpacked(array, packing), factor, known, packing.nodata)
    if scale == 1:
        return Numbers(_unpacked(array, Packing("uint16", fill=NODATA)), None, offset, NODATA)
    scale, carried = scale or SCALE, OFFSET_BASELINE_0400 if offset is None else offset
    packing = Packing("uint16", scale, -carried * scale, fill=NODATA)
    return Numbers(_unpacked(array, packing), scale, carried, NODATA)


def _unpacked(array: xr.DataArray, packing: Packing) -> xr.DataArray:
    made: xr.DataArray = xr.apply_ufunc(
        partial(_numbers, packing=packing),
        array if array.chunks else array.chunk(),
        dask="parallelized",
        output_dtypes=[packing.dtype],
        keep_attrs=True,
    )
    return made


def _numbers(values: NDArray[Any], packing: Packing) -> NDArray[Any]:
    if packing.fill is None:  # no data is a number among others, and stays that number
        nothing = packing.nodata * packing.scale + packing.add_offset
        values = np.where(np.isnan(values), nothing, values)
    numbers = np.rint(packing.numbers(snap(values, packing)))
    return np.where(np.isnan(numbers), packing.nodata, numbers).astype(packing.dtype)
