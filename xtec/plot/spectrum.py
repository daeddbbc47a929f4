"""Spectra of one pixel, before and after.

Below: view, sentinel2, errors. Above: comparison.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xtec.errors import InputError
from xtec.plot.view import View
from xtec.sentinel2 import band as facts

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Pixel:
    """One of the pixels that are shown."""

    row: int
    column: int
    why: str
    """Why this one, for the picture."""


def choose(view: View, pixel: tuple[Any, Any] | None) -> Pixel | None:
    """Choose the pixel whose spectra are drawn; None where nothing is valid.

    Parameters
    ----------
    view : View
    pixel : (x, y), optional
        Coordinates; the nearest pixel that is shown. By default the one with the most vegetation:
        the largest difference of near infrared (B08, else B8A) and red. Without these bands the
        valid one nearest to the centre.

    Raises
    ------
    InputError
        The pixel lies outside the cube.
    """
    if pixel is not None:
        column, row = (
            _nearest(axis, value, name)
            for axis, value, name in zip((view.x, view.y), pixel, "xy", strict=True)
        )
        return Pixel(row, column, "as asked for")
    valid = ~np.isnan(view.before).any(axis=0) & ~np.isnan(view.after).any(axis=0)
    if not valid.any():
        return None
    near = next((name for name in ("B08", "B8A") if name in view.bands), None)
    if near and "B04" in view.bands:
        score = view.before[view.band(near)] - view.before[view.band("B04")]
        why = f"most vegetation: largest {near} - B04"
    else:
        rows, columns = np.indices(valid.shape)
        middle_row, middle_column = (np.array(valid.shape) - 1) / 2
        score = -np.hypot(rows - middle_row, columns - middle_column)
        why = "valid and nearest to the centre"
    best = np.unravel_index(np.where(valid, score, -np.inf).argmax(), valid.shape)
    return Pixel(int(best[0]), int(best[1]), why)


def draw(axes: "Axes", view: View, pixel: Pixel | None) -> None:
    """Draw both spectra over the central wavelengths."""
    axes.set(xlabel="central wavelength (nm)", ylabel="digital number")
    if pixel is None:
        axes.set_title("spectra: no pixel of this date is valid", fontsize=9)
        axes.set(xticks=[], yticks=[])
        return
    order = np.argsort([facts(band).centre_wavelength_nm for band in view.bands])
    waves = np.array([facts(band).centre_wavelength_nm for band in view.bands])[order]
    before, after = (cube[order, pixel.row, pixel.column] for cube in (view.before, view.after))
    axes.plot(waves, before, "o-", color="0.2", markersize=5, label="original")
    axes.plot(waves, after, "x--", color="tab:orange", markersize=6, label="decoded")
    axes.legend(loc="best", frameon=False, fontsize=8)
    axes.margins(y=0.3)
    for band, wave in zip(np.array(view.bands)[order], _apart(waves), strict=True):
        axes.text(
            wave, 0.02, band, transform=axes.get_xaxis_transform(), rotation=90, fontsize=6.5,
            ha="center", va="bottom", color="0.35",
        )  # fmt: skip
    x, y = view.x[pixel.column], view.y[pixel.row]
    axes.set_title(f"spectra at x = {x:.10g}, y = {y:.10g} (+)\n{pixel.why}", fontsize=9)


def _apart(waves: Any, least: float = 42.0) -> list[float]:
    """Places of labels: those of the bands, moved to the right where they would overlap."""
    places: list[float] = []
    for wave in waves:
        places.append(max(float(wave), places[-1] + least) if places else float(wave))
    return places


def _nearest(axis: Any, value: Any, name: str) -> int:
    step = abs(float(axis[1] - axis[0])) if len(axis) > 1 else 1.0
    low, high = float(min(axis)), float(max(axis))
    if not low - step <= value <= high + step:
        raise InputError(
            f"pixel=(x, y) has {name}={value}, but {name} runs from {low:.10g} to {high:.10g}; "
            "give coordinates, not positions."
        )
    return int(np.abs(np.asarray(axis, float) - value).argmin())
