"""Pictures of a cube before and after; needs the ``plot`` extra.

Below: sentinel2, errors. Above: cli, notebooks.
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xtec.errors import InputError
from xtec.sentinel2 import NODATA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRUE_COLOUR = ("B04", "B03", "B02")
STRETCH_PERCENT = (1.0, 99.0)
ERROR_RANGE_DN = 300.0


def comparison(original: xr.DataArray, decoded: xr.DataArray, *, time: int = 0) -> "Figure":
    """Draw one date in true colour: original, decoded, and the error of the red band.

    Parameters
    ----------
    original, decoded : DataArray, digital numbers, dimensions (time, band, y, x)
        With a ``band`` coordinate of canonical names.
    time : int
        Position of the date.

    Raises
    ------
    InputError
        The cubes differ in shape, or matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib; pip install 'xarray-tec[plot]'.") from error
    if original.shape != decoded.shape:
        raise InputError(f"cannot compare {original.shape} with {decoded.shape}.")
    before, after = original.isel(time=time), decoded.isel(time=time)
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    stretch = _stretch(before)
    left.imshow(_true_colour(before, stretch))
    middle.imshow(_true_colour(after, stretch))
    red = after.sel(band=TRUE_COLOUR[0]).astype(float) - before.sel(band=TRUE_COLOUR[0])
    image = right.imshow(red, cmap="RdBu", vmin=-ERROR_RANGE_DN, vmax=ERROR_RANGE_DN)
    bar = figure.colorbar(image, ax=right, shrink=0.85, extend="both")
    bar.set_label("decoded - original, B04 (DN)")
    date = np.datetime_as_string(before["time"].to_numpy(), unit="D")
    for axes, title in (
        (left, f"original, {date}"), (middle, "decoded"), (right, "error of the red band"),
    ):  # fmt: skip
        axes.set(title=title, xticks=[], yticks=[])
    return figure


def _stretch(frame: xr.DataArray) -> xr.DataArray:
    """Darkest and brightest digital number to show, per colour."""
    colours = frame.sel(band=list(TRUE_COLOUR)).astype(float)
    low, high = np.array(STRETCH_PERCENT) / 100
    return colours.where(colours > NODATA).quantile([low, high], dim=frame.dims[-2:])


def _true_colour(frame: xr.DataArray, stretch: xr.DataArray) -> NDArray[np.float64]:
    """Red, green, blue from 0 to 1, slightly brightened; no-data is black."""
    colours = frame.sel(band=list(TRUE_COLOUR)).astype(float)
    darkest, brightest = stretch.isel(quantile=0), stretch.isel(quantile=1)
    shown = ((colours - darkest) / (brightest - darkest)).clip(0, 1) ** 0.8
    shown = shown.where(colours > NODATA, 0).transpose(..., "band")
    pixels: NDArray[np.float64] = shown.to_numpy()
    return pixels
