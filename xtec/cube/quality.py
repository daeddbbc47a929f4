"""What compression did to a cube: figures per band, computed block by block.

Below: layout, packing, stored, metrics. Above: accessor.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from xtec.cube.chunks import cut
from xtec.cube.layout import Cube, find_cube
from xtec.cube.packing import Packing, packing_of
from xtec.cube.stored import settings_of
from xtec.errors import InputError
from xtec.metrics import Comparison, compare

BLOCK = {"time": 8, "y": 512, "x": 512}
"""Blocks of cubes that are in memory as a whole."""


def quality(
    decoded: xr.Dataset, original: xr.Dataset, variable: Hashable | None = None
) -> xr.Dataset:
    """Compare a cube that went through compression with the original.

    Parameters
    ----------
    decoded, original : xarray.Dataset
        Of the same shape, bands and coordinates; lazy ones are never in memory as a whole.
    variable : hashable, optional
        Which variable of `decoded`, where several have a band axis.

    Returns
    -------
    xarray.Dataset
        Per band ``rmse``, ``psnr`` and ``max_error``; ``psnr_pooled``, ``psnr_mean``, ``sam``,
        ``ndvi_error`` and ``mask_errors``: how many values are no data in only one of the two.

    Raises
    ------
    InputError, BandError
        The two are not the same cube.
    """
    after, before = find_cube(decoded, variable), find_cube(original)
    require_same(after, before)
    meanings = packings(after.variable, before.variable)
    bands = [after.bands.index(b) for b in ("B04", "B08") if b in after.bands]
    red_nir = (bands[0], bands[1]) if len(bands) == 2 else None
    blocks, blocks_before = _aligned(after.variable.variable, before.variable.variable)
    work = [
        delayed(_compare_blocks)(a, b, *meanings, red_nir)
        for a, b in zip(blocks, blocks_before, strict=True)
    ]
    parts = compute(*work)  # type: ignore[no-untyped-call]
    total = reduce(add, (comparison for comparison, _ in parts))
    return _table(total, sum(masks for _, masks in parts), after.variable)


def require_same(after: Cube, before: Cube) -> None:
    """Make sure that two cubes show the same bands, places and dates.

    Raises
    ------
    InputError
        They differ in bands, shape or coordinates.
    """
    if after.bands != before.bands:
        raise InputError(
            f"the bands differ: {list(after.bands)} here, {list(before.bands)} in the original. "
            "Select the same bands in the same order."
        )
    here, there = after.variable, before.variable
    if here.shape != there.shape:
        raise InputError(
            f"the shapes differ: {dict(here.sizes)} here, {dict(there.sizes)} in the original. "
            "Select the same part of both."
        )
    for dim, other in zip(here.dims, there.dims, strict=True):
        if dim == here.dims[1] or dim not in here.coords or other not in there.coords:
            continue
        if not np.array_equal(here[dim].values, there[other].values):
            raise InputError(
                f"the coordinates along {dim!r} differ: {here[dim].values[[0, -1]]} here, "
                f"{there[other].values[[0, -1]]} in the original (first and last). Select the same "
                "part of both."
            )


def packings(after: xr.DataArray, before: xr.DataArray) -> tuple[Packing, Packing]:
    """What the values of both mean; the settings of the codec know best."""
    here = packing_of(after)
    there = here if here.floating and before.dtype.kind == "f" else packing_of(before)
    settings = settings_of(after)
    if settings is None or settings.nodata is None:
        return here, there
    nodata, offset = settings.nodata, settings.offset
    return (
        replace(here, nodata=nodata, offset=offset),
        replace(there, nodata=nodata, offset=offset),
    )


def _aligned(after: xr.Variable, before: xr.Variable) -> tuple[list[Any], list[Any]]:
    """Blocks of all bands, at the same places in both."""
    sizes: dict[Hashable, int] = {after.dims[1]: -1}
    if not after.chunks:
        time, _, y, x = after.dims
        sizes |= {time: BLOCK["time"], y: BLOCK["y"], x: BLOCK["x"]}
    after = cut(after, sizes)
    before = cut(before, dict(zip(before.dims, after.chunks or (), strict=True)))
    return list(after.data.to_delayed().flat), list(before.data.to_delayed().flat)


def _compare_blocks(
    after: NDArray[Any],
    before: NDArray[Any],
    packing: Packing,
    packing_before: Packing,
    red_nir: tuple[int, int] | None,
) -> tuple[Comparison, int]:
    """Compare two blocks; also count values that are no data in only one of them."""
    lost, absent = packing.invalid(after), packing_before.invalid(before)
    dates = (  # one by one: the figures need several times the memory of the pixels
        compare(
            packing_before.numbers(before[date]),
            np.rint(packing.numbers(after[date])),
            valid=~(lost[date] | absent[date]),
            offset=packing.offset,
            red_nir=red_nir,
        )
        for date in range(len(after))
    )
    return reduce(add, dates), int(np.count_nonzero(lost != absent))


@dataclass(frozen=True)
class _Column:
    """One figure of the table."""

    value: Any
    units: str
    long_name: str

    def variable(self, dims: tuple[Hashable, ...]) -> xr.Variable:
        about = {"units": self.units, "long_name": self.long_name}
        return xr.Variable(dims, self.value, about)


def _table(total: Comparison, mask_errors: int, array: xr.DataArray) -> xr.Dataset:
    band = array.dims[1]
    per_band = {
        "rmse": _Column(total.rmse, "DN", "root mean squared error"),
        "psnr": _Column(total.psnr, "dB", "peak signal-to-noise ratio, peak 10,000 DN"),
        "max_error": _Column(total.max_error, "DN", "largest absolute error"),
    }
    single = {
        "psnr_pooled": _Column(total.psnr_pooled, "dB", "PSNR of all bands' pooled error"),
        "psnr_mean": _Column(total.psnr_mean, "dB", "mean of the bands' PSNR"),
        "sam": _Column(total.sam_deg, "degree", "mean spectral angle"),
        "ndvi_error": _Column(total.ndvi_error, "1", "mean absolute error of the NDVI"),
        "mask_errors": _Column(mask_errors, "1", "values that are no data in only one cube"),
    }
    figures = {name: column.variable((band,)) for name, column in per_band.items()}
    figures |= {name: column.variable(()) for name, column in single.items()}
    return xr.Dataset(figures, coords={band: array[band].values})
