"""How far a decoded cube is from the original, in figures; numpy only.

Every figure follows from a few sums, and the sums of two parts of a cube add up: a cube of any size
is compared block by block.

Below: nothing. Above: cube, benchmarks.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PEAK_DN = 10_000
"""Digital number of reflectance 1: the peak of every PSNR here."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Sums over valid pixels; one entry per band where nothing else is said. Errors are in DN."""

    count: NDArray[np.int64]
    squared: NDArray[np.float64]
    """Sum of squared errors."""
    largest: NDArray[np.float64]
    """Largest absolute error."""
    angles_deg: float
    """Sum of spectral angles over the pixels that are valid in every band; a single number."""
    angle_count: int
    ndvi: float
    """Sum of absolute NDVI errors; a single number."""
    ndvi_count: int

    def __add__(self, other: "Comparison") -> "Comparison":
        """Both parts together."""
        return Comparison(
            self.count + other.count,
            self.squared + other.squared,
            np.maximum(self.largest, other.largest),
            self.angles_deg + other.angles_deg,
            self.angle_count + other.angle_count,
            self.ndvi + other.ndvi,
            self.ndvi_count + other.ndvi_count,
        )

    @property
    def rmse(self) -> NDArray[np.float64]:
        """Root mean squared error per band; NaN where no pixel is valid."""
        return np.sqrt(_ratio(self.squared, self.count))

    @property
    def psnr(self) -> NDArray[np.float64]:
        """Peak signal-to-noise ratio per band in dB, peak 10,000 DN; infinite without error."""
        return _psnr(_ratio(self.squared, self.count))

    @property
    def psnr_mean(self) -> float:
        """Mean of the bands' PSNR in dB, over the bands that have valid pixels."""
        known = self.psnr[self.count > 0]
        return float(known.mean()) if known.size else float("nan")

    @property
    def psnr_pooled(self) -> float:
        """PSNR in dB of the squared error pooled over all bands."""
        return float(_psnr(_ratio(self.squared.sum(), self.count.sum())))

    @property
    def max_error(self) -> NDArray[np.float64]:
        """Largest absolute error per band; NaN where no pixel is valid."""
        return np.where(self.count > 0, self.largest, np.nan)

    @property
    def sam_deg(self) -> float:
        """Mean spectral angle in degrees; NaN for fewer than two bands."""
        return float(_ratio(self.angles_deg, self.angle_count))

    @property
    def ndvi_error(self) -> float:
        """Mean absolute error of the NDVI; NaN without the bands it needs."""
        return float(_ratio(self.ndvi, self.ndvi_count))


def compare(
    original: NDArray[Any],
    decoded: NDArray[Any],
    *,
    valid: NDArray[np.bool_] | None = None,
    offset: int = 0,
    red_nir: tuple[int, int] | None = None,
) -> Comparison:
    """Compare two cubes, or blocks of them.

    Parameters
    ----------
    original, decoded : integer or floating point, shape (..., band, y, x)
        In digital numbers.
    valid : bool, same shape, optional
        Where both hold data; everywhere by default.
    offset : int
        Radiometric offset that the numbers carry, in DN: angles and NDVI need it taken off.
    red_nir : (int, int), optional
        Where red (B04) and near infrared (B08) stand among the bands.
    """
    before, after = original.astype(np.float64), decoded.astype(np.float64)
    valid = np.ones(before.shape, bool) if valid is None else valid
    axes = tuple(axis for axis in range(before.ndim) if axis != before.ndim - 3)
    error = np.where(valid, np.abs(after - before), 0)
    angles = _angles_deg(before - offset, after - offset, np.asarray(valid.all(axis=-3)))
    ndvi = np.empty(0)
    if red_nir is not None:
        found, was = (_ndvi(cube - offset, valid, red_nir) for cube in (after, before))
        ndvi = np.abs(found - was)[~np.isnan(found - was)]
    return Comparison(
        valid.sum(axis=axes),
        (error**2).sum(axis=axes),
        error.max(axis=axes, initial=0),
        float(angles.sum()),
        angles.size,
        float(ndvi.sum()),
        ndvi.size,
    )


def _angles_deg(
    before: NDArray[np.float64], after: NDArray[np.float64], valid: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Angles between the spectra of valid pixels that are not all zero, in degrees."""
    if before.shape[-3] < 2:
        return np.empty(0)
    lengths = np.sqrt((before**2).sum(axis=-3) * (after**2).sum(axis=-3))
    valid = valid & (lengths > 0)
    cosines = (before * after).sum(axis=-3)[valid] / lengths[valid]
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, -1, 1))))


def _ndvi(
    values: NDArray[np.float64], valid: NDArray[np.bool_], red_nir: tuple[int, int]
) -> NDArray[np.float64]:
    """NDVI of every pixel; NaN where it is invalid or makes no sense."""
    red, nir = (values[..., band, :, :] for band in red_nir)
    usable = valid[..., red_nir[0], :, :] & valid[..., red_nir[1], :, :]
    usable &= (red >= 0) & (nir >= 0) & (red + nir > 0)
    ndvi: NDArray[np.float64] = np.full(red.shape, np.nan)
    ndvi[usable] = (nir - red)[usable] / (nir + red)[usable]
    return ndvi


def _psnr(mean_squared: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(PEAK_DN**2 / mean_squared))


def _ratio(total: Any, count: Any) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.float64(total) / np.asarray(count)
