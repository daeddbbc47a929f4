"""One date of a cube before and after: colours, error, PSNR of each band, spectra of a pixel.

Below: view, colour, spectrum, metrics, errors. Above: the room's face.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xtec.errors import InputError
from xtec.metrics import PEAK_DN
from xtec.plot import colour, spectrum
from xtec.plot.view import View, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROBUST_PERCENT = 99.0
"""The error's scale ends where so many percent of the pixels lie within."""
NO_DATA_COLOUR = "black"


def comparison(
    view: View, *, heading: str = "", band: str | None = None, pixel: tuple[Any, Any] | None = None
) -> "Figure":
    """Draw what a view holds.

    Parameters
    ----------
    view : View
    heading : str
        What stands above all.
    band : str, optional
        Whose error is shown, by its canonical name; by default the one that is shown as red.
    pixel : (x, y), optional
        Whose spectra are shown; see `xtec.plot.spectrum.choose`.

    Raises
    ------
    InputError
        There is no such band or pixel, or matplotlib is missing.
    """
    canvas = drawing()
    chosen = colour.choose(view.bands)
    band = chosen.bands[0] if band is None else band
    if band not in view.bands:
        raise InputError(f"band={band!r} is none of {list(view.bands)}.")
    place = spectrum.choose(view, pixel)
    figure: Figure = canvas.empty(10.5, 6.4)
    if heading:
        figure.suptitle(heading, fontsize=10)
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    above, below = halves
    left, middle, right = above.subplots(1, 3)
    limits = colour.stretch(shown(chosen.bands, view.before, view.bands))
    for axes, pixels, title in (
        (left, view.before, f"original, {view.date}"),
        (middle, view.after, "decoded"),
    ):
        rgba = colour.to_rgba(shown(chosen.bands, pixels, view.bands), limits)
        _picture(axes, rgba, f"{title}\n{chosen}")
    _error(right, view, band)
    _notes(left, view)
    bars, spectra = below.subplots(1, 2, width_ratios=(1, 1.25))
    _psnr(bars, view)
    spectrum.draw(spectra, view, place)
    if place is not None:
        for axes in (left, middle, right):
            axes.plot(place.column, place.row, "+", color="red", markersize=12, markeredgewidth=1.5)
    return figure


def drawing() -> Any:
    """The file that draws; an InputError where matplotlib is missing."""
    try:
        from xtec.plot import canvas
    except ImportError as error:
        raise InputError("pictures need matplotlib; pip install 'xarray-tec[plot]'.") from error
    return canvas


def _picture(axes: "Axes", pixels: NDArray[Any], title: str, **options: Any) -> Any:
    axes.set(xticks=[], yticks=[], facecolor=NO_DATA_COLOUR)
    axes.set_title(title, fontsize=9)
    return axes.imshow(pixels, interpolation="nearest", **options)


def _error(axes: "Axes", view: View, band: str) -> None:
    """Signed error of one band, on a symmetric scale that a few pixels do not stretch."""
    error = view.error[view.band(band)]
    known = np.abs(error[~np.isnan(error)])
    most = max(1.0, float(np.percentile(known, ROBUST_PERCENT))) if known.size else 1.0
    beyond = bool(known.size) and float(known.max()) > most
    title = f"error of {band}\ndecoded - original"
    image = _picture(axes, error, title, cmap="RdBu_r", vmin=-most, vmax=most)
    extend = "both" if beyond else "neither"
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.9, extend=extend)
    bar.set_label("error (DN)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    if beyond:
        axes.set_xlabel(
            f"scale: {ROBUST_PERCENT:g} % of the pixels; largest {known.max():.4g} DN", fontsize=8
        )


def _notes(axes: "Axes", view: View) -> None:
    """What the pictures leave out, below the first of them."""
    notes = []
    if np.isnan(view.before).any() or np.isnan(view.after).any():
        notes.append(f"{NO_DATA_COLOUR}: no data")
    if view.step > 1:
        notes.append(f"one pixel in {view.step} x {view.step}")
    axes.set_xlabel("; ".join(notes), fontsize=8)


def _psnr(axes: "Axes", view: View) -> None:
    """PSNR of each band on this date."""
    squared = view.error**2
    known = [values[~np.isnan(values)] for values in squared]
    means = np.array([values.mean() if values.size else np.nan for values in known])
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(PEAK_DN**2 / means)
    finite = psnr[np.isfinite(psnr)]
    top = finite.max() if finite.size else 1.0
    places = np.arange(len(psnr))
    axes.bar(places, np.where(np.isfinite(psnr), psnr, 0), color="steelblue")
    for at, value in enumerate(psnr.tolist()):
        text = "exact" if np.isposinf(value) else "no data" if np.isnan(value) else f"{value:.1f}"
        height = value if np.isfinite(value) else 0
        axes.text(at, height, f" {text}", ha="center", va="bottom", fontsize=6.5, rotation=90)
    axes.set_xticks(places, view.bands, rotation=90, fontsize=8)
    axes.set(ylabel="PSNR (dB over 10,000 DN)", ylim=(0, 1.25 * top))
    if not finite.size:
        axes.set_yticks([])
    what = "this date" if view.step == 1 else "the pixels shown"
    pooled = np.concatenate(known).mean() if any(map(len, known)) else np.nan
    all_bands = f"; all bands {10 * np.log10(PEAK_DN**2 / pooled):.1f} dB" if pooled > 0 else ""
    axes.set_title(f"PSNR of {what}{all_bands}", fontsize=9)
