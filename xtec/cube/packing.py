"""What the numbers mean: digital numbers, reflectance, no data, and the way between them.

The codec takes 16-bit digital numbers. Reflectance in floating point is moved onto the grid of such
numbers here and stays floating point; xarray packs it by the CF attributes when it is written.

Below: storable, sentinel2, errors. Above: prepare, quality.
"""

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xtec.errors import InputError
from xtec.sentinel2 import NODATA, SCALE

DTYPES = ("uint16", "int16")


@dataclass(frozen=True)
class Packing:
    """How values and digital numbers belong together: value = number * scale + add_offset."""

    dtype: str
    """Type of the digital numbers, "uint16" or "int16"."""
    scale: float = 1.0
    add_offset: float = 0.0
    fill: int | None = None
    """The digital number that NaN becomes; None where NaN is not allowed."""
    nodata: int = NODATA
    """The digital number of pixels without data."""
    offset: int = 0
    """The radiometric offset that digital numbers carry."""
    floating: bool = False
    """Whether the values are floating point."""

    def numbers(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Values on the scale of digital numbers, unrounded."""
        scaled: NDArray[np.float64] = (values.astype(np.float64) - self.add_offset) / self.scale
        return scaled

    def invalid(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Where there is no data."""
        found: NDArray[np.bool_] = np.isnan(values) if self.floating else values == self.nodata
        return found

    def encoding(self) -> dict[str, Any]:
        """What tells xarray to pack so."""
        fields: dict[str, Any] = {"dtype": self.dtype}
        if self.scale != 1:
            fields["scale_factor"] = self.scale
        if self.add_offset != 0:
            fields["add_offset"] = self.add_offset
        return fields if self.fill is None else fields | {"_FillValue": self.fill}


def packing_of(
    array: xr.DataArray, nodata: int | None = None, offset: int | None = None
) -> Packing:
    """Read from type, encoding and attributes what an array's values mean.

    Parameters
    ----------
    array : xarray.DataArray
        16-bit integers are digital numbers. Floating point is what its encoding packs to 16 bits
        or, without such an encoding, reflectance: packed with 1e-4 to uint16, NaN to `nodata`.
    nodata : int, optional
        Digital number of pixels without data; by default ``_FillValue``, else the attribute
        ``nodata``, else 0.
    offset : int, optional
        Radiometric offset that the digital numbers carry; by default what ``add_offset`` says
        (-0.1 with a scale of 1e-4 is 1000), else 0.

    Raises
    ------
    InputError
        Another type, a packing that is not to 16 bits, or arguments that contradict it.
    """
    name, offset_said = array.dtype.newbyteorder("=").name, 0
    if name in DTYPES:
        known = _whole(array.attrs.get("_FillValue", array.encoding.get("_FillValue")))
        # What the attributes say already must not be said again by the encoding.
        packing = Packing(name, fill=None if "_FillValue" in array.attrs else known)
        offset_said = _offset(array.attrs.get("scale_factor"), array.attrs.get("add_offset"))
    elif name in ("float16", "float32", "float64"):
        packing = _floating(array, nodata, offset or 0)
        known = packing.fill
        offset_said = _offset(packing.scale, packing.add_offset)
    else:
        raise InputError(
            f"{array.name!r} is {array.dtype}; allowed are digital numbers of type uint16 or int16 "
            "and reflectance of type float32 or float64. If the values are digital numbers, cast "
            "them: .astype('uint16')."
        )
    if offset is not None and offset_said not in (0, offset):
        raise InputError(
            f"offset={offset} contradicts the packing, whose add_offset says {offset_said} DN; "
            "leave offset out."
        )
    if nodata is not None and known is not None and nodata != known:
        raise InputError(f"nodata={nodata} contradicts _FillValue={known}; leave nodata out.")
    said = (nodata, known, _whole(array.attrs.get("nodata")), NODATA)
    nodata = next(number for number in said if number is not None)
    limits = np.iinfo(packing.dtype)
    if not limits.min <= nodata <= limits.max:
        raise InputError(
            f"no-data {nodata} is not in the range of {packing.dtype} ({limits.min} to "
            f"{limits.max}); give another: nodata=0."
        )
    return replace(packing, nodata=nodata, offset=offset_said if offset is None else offset)


def _floating(array: xr.DataArray, nodata: int | None, offset: int) -> Packing:
    """How floating-point values are packed: as their encoding says, else as reflectance."""
    encoding = array.encoding
    dtype = np.dtype(encoding.get("dtype", float)).newbyteorder("=").name
    if dtype not in DTYPES and ("scale_factor" in encoding or "add_offset" in encoding):
        raise InputError(
            f"{array.name!r} has an encoding that packs it to {dtype}; only uint16 and int16 can "
            "be coded. Drop it (.drop_encoding()) to pack reflectance with a scale of 1e-4, or set "
            "another: .encoding = {'dtype': 'uint16', 'scale_factor': 1e-4, '_FillValue': 0}."
        )
    if dtype not in DTYPES:
        fill = NODATA if nodata is None else nodata
        return Packing("uint16", SCALE, 0.0 - offset * SCALE, fill, floating=True)
    fill_said = _whole(encoding.get("_FillValue"))
    return Packing(
        dtype,
        float(encoding.get("scale_factor", 1)),
        float(encoding.get("add_offset", 0)),
        nodata if fill_said is None else fill_said,
        floating=True,
    )


def _offset(scale: Any, add_offset: Any) -> int:
    """Digital numbers that stand for zero: -0.1 with a scale of 1e-4 is 1000."""
    return round(-float(add_offset or 0) / float(scale or 1))


def snap(values: NDArray[Any], packing: Packing) -> NDArray[Any]:
    """Move floating-point values onto the grid of their digital numbers.

    Valid values that would become the fill value move by one digital number, so that NaN and only
    NaN comes back as NaN.

    Parameters
    ----------
    values : floating point, any shape
        Not modified.

    Returns
    -------
    floating point, at least 32 bits, same shape

    Raises
    ------
    InputError
        Values outside the range, or NaN where there is no fill value.
    """
    numbers = np.rint(packing.numbers(values))
    invalid = np.isnan(numbers)
    if packing.fill is None and invalid.any():
        raise InputError(
            "there are NaN among the values, but their packing has no _FillValue to stand for "
            "them; give one: nodata=0."
        )
    limits = np.iinfo(packing.dtype)
    inside = (numbers >= limits.min) & (numbers <= limits.max)
    if not (inside | invalid).all():
        raise _outside(values, packing)
    if packing.fill is not None:
        numbers[numbers == packing.fill] = packing.fill + (1 if packing.fill < limits.max else -1)
    dtype = np.promote_types(values.dtype, np.float32)
    snapped: NDArray[Any] = (numbers * packing.scale + packing.add_offset).astype(dtype)
    return snapped


def check(values: NDArray[Any], packing: Packing) -> None:
    """Raise what `snap` would raise for these values, at the cost of finding their extremes."""
    extremes = [np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)]
    if np.isnan(values).any():
        extremes.append(np.nan)
    snap(np.array(extremes), packing)


def _outside(values: NDArray[Any], packing: Packing) -> InputError:
    limits = np.iinfo(packing.dtype)
    least, most = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    low, high = (n * packing.scale + packing.add_offset for n in (limits.min, limits.max))
    return InputError(
        f"values from {least:g} to {most:g} do not fit in {low:g} to {high:g}, what "
        f"{packing.dtype} holds with scale_factor={packing.scale:g} and "
        f"add_offset={packing.add_offset:g}. Negative reflectance: offset=1000 leaves room down "
        "to -0.1. Digital numbers in floating point: say so with .encoding = {'dtype': 'uint16', "
        "'_FillValue': 0}."
    )


def _whole(value: Any) -> int | None:
    """A fill value as an integer; None for NaN and for none."""
    if not isinstance(value, Real) or math.isnan(float(value)):
        return None
    if not float(value).is_integer():
        raise InputError(f"the no-data value {value} is not a whole number.")
    return int(float(value))
