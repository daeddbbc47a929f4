"""The curves of the rate-distortion benchmark, drawn; needs the `plot` extra.

Below: measure. Above: page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from measure import Result

if TYPE_CHECKING:
    from curves import Curve
    from matplotlib.axes import Axes

RATES = (0.002, 3.0)
"""Bits per pixel and band that are shown."""
PSNR_DB = (28.0, 52.0)
TICKS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
OURS, OTHER = "#c1121f", ("#777777", "o")
STYLES = {
    "JPEG 2000, each band its own file": ("#a6cbe3", "v"),
    "JPEG 2000, each band its own file, checked": ("#5b9bd0", "s"),
    "JPEG 2000, 13 components": ("#2166ac", "^"),
    "KLT over bands, then JPEG 2000": ("#08306b", "D"),
    "JPEG XL, each band its own file": ("#fdae6b", "P"),
    "KLT over bands, then JPEG XL": ("#d95f0e", "X"),
    "KLT over bands, then x265 along time": ("#1b9e4b", "o"),
    "LERC + zstd": ("#999999", "<"),
    "zfp": ("#555555", ">"),
}
"""Colour and marker: a family of colours for a family of codecs."""


def draw(path: Path, results: Sequence[Result], title: str) -> None:
    """Draw PSNR over bits, both ways of averaging side by side; the first codec stands out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _curves(left, results, [r.curve for r in results])
    _curves(right, results, [r.curve_of_means for r in results])
    left.set(title="all bands pooled", ylabel="PSNR over 10,000 DN (dB)")
    right.set(title="mean of the bands")
    figure.suptitle(title)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def _curves(axes: "Axes", results: Sequence[Result], curves: "Sequence[Curve]") -> None:
    for i, (result, curve) in enumerate(zip(results, curves, strict=True)):
        ours = result.name.startswith("xtec")
        colour, marker = (OURS, "o") if ours else STYLES.get(result.name, OTHER)
        axes.plot(
            [p.bpppb for p in curve.best],
            [curve.psnr_of(p) for p in curve.best],
            color=colour,
            marker=marker,
            linestyle="--" if ours and i else "-",
            markersize=4 if i else 6,
            linewidth=1.2 if i else 2.6,
            zorder=3 if ours else 2,
            label=result.name,
        )
    axes.set(xscale="log", xlim=RATES, ylim=PSNR_DB, xlabel="bits per pixel and band")
    axes.set_xticks(TICKS, [f"{t:g}" for t in TICKS])
    axes.minorticks_off()
    axes.grid(color="#dddddd", linewidth=0.6)
