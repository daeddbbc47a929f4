"""How far a decoded cube is from the original: xtec.metrics, structural similarity and NDVI.

Every figure follows from sums, so that the cubes of a pool add up, and is plain JSON on request.

Below: xtec.metrics. Above: curves.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from xtec.metrics import PEAK_DN, Comparison, compare
from xtec.pixels import Pixels
from xtec.sentinel2 import BANDS

REVISION = 1
"""To be raised with every change of a definition here: figures in caches are then made anew."""

RANGE_DN = (0, PEAK_DN)
"""Where errors count: both cubes are clipped to it."""
RED, NIR = (next(i for i, b in enumerate(BANDS) if b.name == name) for name in ("B04", "B08"))
NDVI_FROM_DN = 1000
"""Least B04 + B08 of the original: below, in water and shadow, an NDVI means nothing."""

WINDOW_SIGMA, WINDOW_RADIUS = 1.5, 5
STABILISERS = (0.01 * PEAK_DN) ** 2, (0.03 * PEAK_DN) ** 2


@dataclass(frozen=True, eq=False)
class Quality:
    """Sums over the pixels of one cube or of several."""

    errors: Comparison
    similarity: NDArray[np.float64]
    """Sum of SSIM over all windows, per band."""
    windows: NDArray[np.int64]
    """Windows, per band."""
    ndvi_squared: float
    """Sum of squared NDVI errors."""
    ndvi_count: int

    def __add__(self, other: "Quality") -> "Quality":
        """Both together."""
        return Quality(
            self.errors + other.errors,
            self.similarity + other.similarity,
            self.windows + other.windows,
            self.ndvi_squared + other.ndvi_squared,
            self.ndvi_count + other.ndvi_count,
        )

    @property
    def count(self) -> int:
        """Numbers in the cube: pixels times bands times dates."""
        return int(self.errors.count.sum())

    @property
    def psnr_pooled(self) -> float:
        """PSNR in dB over 10,000 DN of the squared error of all bands."""
        return self.errors.psnr_pooled

    @property
    def psnr_mean(self) -> float:
        """Mean of the bands' PSNR in dB."""
        return self.errors.psnr_mean

    @property
    def rmse(self) -> NDArray[np.float64]:
        """Root mean squared error per band in DN."""
        return self.errors.rmse

    @property
    def sam_deg(self) -> float:
        """Mean spectral angle in degrees."""
        return self.errors.sam_deg

    @property
    def ssim(self) -> float:
        """Mean structural similarity of bands and dates."""
        return float((self.similarity / self.windows).mean())

    @property
    def ndvi_rmse(self) -> float:
        """Root mean squared error of the NDVI; NaN without a pixel bright enough."""
        if not self.ndvi_count:
            return float("nan")
        return float(np.sqrt(self.ndvi_squared / self.ndvi_count))

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        fields = dataclasses.asdict(self)
        fields["errors"] = {k: _plain(v) for k, v in fields["errors"].items()}
        return {k: _plain(v) for k, v in fields.items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Quality":
        """Take back what `to_json` gave."""
        errors = Comparison(**{k: _array(v) for k, v in fields["errors"].items()})
        return cls(**{k: _array(v) for k, v in fields.items()} | {"errors": errors})


def assess(original: Pixels, decoded: Pixels) -> Quality:
    """Compare two cubes of digital numbers, shape (time, 13 bands, y, x)."""
    before, after = original.clip(*RANGE_DN), decoded.clip(*RANGE_DN)
    similarity = np.zeros(before.shape[1])
    windows = np.zeros(before.shape[1], np.int64)
    for date in range(len(before)):
        for band in range(before.shape[1]):
            found = ssim_map(before[date, band], after[date, band])
            similarity[band] += found.sum()
            windows[band] += found.size
    off = _ndvi_errors(before, after)
    squared = float(np.square(off).sum())
    return Quality(compare(before, after), similarity, windows, squared, off.size)


def ssim_map(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.float64]:
    """Structural similarity of two images in DN, at every window that lies inside.

    Notes
    -----
    Wang, Bovik, Sheikh and Simoncelli (2004): Gaussian window of 11 x 11 with a deviation of 1.5
    pixels, K1 = 0.01, K2 = 0.03, dynamic range 10,000 DN.
    """
    x, y = before.astype(np.float64), after.astype(np.float64)
    mean_x, mean_y, xx, yy, xy = (_windowed(v) for v in (x, y, x * x, y * y, x * y))
    c1, c2 = STABILISERS
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    variances = xx - mean_x**2 + yy - mean_y**2
    structure = (2 * (xy - mean_x * mean_y) + c2) / (variances + c2)
    found: NDArray[np.float64] = luminance * structure
    return found


def _windowed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = slice(WINDOW_RADIUS, -WINDOW_RADIUS)
    blurred: NDArray[np.float64] = gaussian_filter(image, WINDOW_SIGMA, radius=WINDOW_RADIUS)
    return blurred[inside, inside]


def _ndvi_errors(before: Pixels, after: Pixels) -> NDArray[np.float64]:
    sums, differences = [], []
    for cube in (before, after):
        red, nir = (cube[:, band].astype(np.float64) for band in (RED, NIR))
        sums.append(nir + red)
        differences.append(nir - red)
    bright = sums[0] >= NDVI_FROM_DN
    # A pixel decoded as 0 in both bands has an NDVI of 0.
    was, found = (
        d[bright] / np.maximum(s[bright], 1) for d, s in zip(differences, sums, strict=True)
    )
    error: NDArray[np.float64] = found - was
    return error


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _array(value: Any) -> Any:
    return np.array(value) if isinstance(value, list) else value
