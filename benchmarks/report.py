"""The tables of the rate-distortion benchmark, in Markdown.

Below: measure, curves, seams, common. Above: rate_distortion, page.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from common import table
from curves import Curve, bd_rate, bd_rate_or_point
from measure import Result
from seams import MARGIN, Seams

from xtec.sentinel2 import BANDS

BD_RANGE = (33.0, 44.0)
EQUAL_PSNR = 36.0
EQUAL_BPPPB = 0.1
NONE = "–"


def curves(results: Iterable[Result]) -> str:
    """Every setting of every codec, all cubes pooled."""
    rows = []
    for result in results:
        points = sorted(result.pooled, key=lambda p: p.bpppb)
        pooled = " · ".join(f"{p.bpppb:.4f} @ {p.psnr:.2f}" for p in points)
        means = " · ".join(f"{p.bpppb:.4f} @ {p.psnr_mean:.2f}" for p in points)
        rows.append((result.name, pooled, means))
    head = "codec", "bpppb @ PSNR of all bands pooled", "bpppb @ mean PSNR of the bands"
    return table(head, rows)


def against(ours: Result, others: Iterable[Result]) -> str:
    """One codec against each of the others, all cubes pooled."""
    rows = []
    for other in others:
        pair = ours.curve, other.curve
        found = bd_rate(*pair, *BD_RANGE)
        means = bd_rate(ours.curve_of_means, other.curve_of_means, *BD_RANGE)
        rows.append((other.name, _ratio(*pair), found, found.worst_point, means))
    head = (
        f"{ours.name} against",
        f"bits at {EQUAL_PSNR:g} dB",
        "BD-rate, PSNR of all bands pooled",
        "worst in that range",
        "BD-rate, mean PSNR of the bands",
    )
    return table(head, rows)


def against_series(ours: Result, others: Iterable[Result]) -> str:
    """One codec against each of the others, over all of the range that both reach."""
    rows = []
    for other in others:
        found = bd_rate(ours.curve, other.curve)
        means = bd_rate(ours.curve_of_means, other.curve_of_means)
        rows.append((other.name, found, found.worst_point, means))
    head = (
        f"{ours.name}, against",
        "BD-rate, PSNR of all bands pooled",
        "worst in that range",
        "BD-rate, mean PSNR of the bands",
    )
    return table(head, rows)


def cubes(ours: Result, anchor: Result) -> str:
    """Cube by cube against one codec, over all of the range that both reach."""
    rows = []
    for name in ours.points[0]:
        pair = ours.of(name), anchor.of(name)
        found = bd_rate_or_point(*pair)
        rows.append((name, *(c.ends for c in pair), found, found.worst_point))
    return table(("cube", ours.name, anchor.name, "BD-rate", "worst in that range"), rows)


def cubes_against_all(ours: Result, others: Sequence[Result]) -> str:
    """Cube by cube against every codec: the BD-rate alone."""
    rows = []
    for name in ours.points[0]:
        found = [bd_rate_or_point(ours.of(name), other.of(name)) for other in others]
        cells = [f"{d.rate:+.0%}" + "*" * (d.low == d.high) for d in found]
        rows.append((name, *cells))
    return table(("cube", *(o.name for o in others)), rows)


def at_equal_bits(results: Iterable[Result]) -> str:
    """Other measures than PSNR, all cubes pooled, interpolated to the same bits."""
    rows = []
    for result in results:
        curve = result.curve
        cells = (
            _at(curve, "{:.2f}", lambda p: p.psnr),
            _at(curve, "{:.2f}", lambda p: p.psnr_mean),
            _at(curve, "{:.2f}", lambda p: p.quality.sam_deg),
            _at(curve, "{:.4f}", lambda p: p.quality.ssim),
            _at(curve, "{:.4f}", lambda p: p.quality.ndvi_rmse),
        )
        rows.append((result.name, *cells))
    head = "codec", "PSNR, dB", "mean PSNR, dB", "SAM, degrees", "SSIM", "NDVI, RMSE"
    return table(head, rows)


def bands_at_equal_bits(results: Iterable[Result]) -> str:
    """RMSE of each band, all cubes pooled, interpolated to the same bits."""
    rows = []
    for result in results:
        found = result.curve.at_rate(EQUAL_BPPPB, lambda p: p.quality.rmse)
        rows.append((result.name, *(_number("{:.0f}", x) for x in found)))
    return table(("RMSE in DN", *(band.name for band in BANDS)), rows)


def everything(results: Iterable[Result]) -> str:
    """Every point of every codec, all cubes pooled, with every measure."""
    rows = []
    for result in results:
        for setting, p in zip(result.settings, result.pooled, strict=True):
            q = p.quality
            figures = (
                f"{p.bpppb:.4f}",
                f"{p.psnr:.2f}",
                f"{p.psnr_mean:.2f}",
                f"{q.sam_deg:.2f}",
                f"{q.ssim:.4f}",
                f"{q.ndvi_rmse:.4f}",
            )
            bands = " ".join(f"{x:.0f}" for x in q.rmse)
            rows.append((result.name, f"{result.knob} {setting:g}", *figures, bands))
    head = "codec", "setting", "bpppb", "PSNR", "mean PSNR", "SAM", "SSIM", "NDVI", "RMSE by band"
    return table(head, rows)


def seams(found: dict[float, Seams]) -> str:
    """Errors along the borders of chunks against those inside."""
    rows = []
    for setting, s in found.items():
        ratios = s.borders.rmse / s.inside.rmse, s.between.rmse / s.inside_several.rmse
        rmse = (f"{m.rmse:.1f}" for m in (s.borders, s.inside))
        rows.append((f"{setting:g}", *rmse, *(_number("{:.3f}", r) for r in ratios)))
    head = (
        "compression",
        f"RMSE within {MARGIN} px of a border, DN",
        "inside, DN",
        "ratio",
        "ratio, borders between chunks only",
    )
    return table(head, rows)


def _ratio(ours: Curve, theirs: Curve) -> str:
    mine, other = ours.rate(EQUAL_PSNR), theirs.rate(EQUAL_PSNR)
    if math.isnan(mine + other):
        return "not reached by both"
    return f"{mine / other:.3f} ({mine:.4f} / {other:.4f})"


def _at(curve: Curve, form: str, figure: Any) -> str:
    return _number(form, float(curve.at_rate(EQUAL_BPPPB, figure)))


def _number(form: str, value: float) -> str:
    return NONE if math.isnan(value) else form.format(value)
