"""A stored cube beside its original, block by block: errors on the numbers that are stored.

Below: layout, packing, quality, carrying, report, metrics. Above: verify.
"""

from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Self

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from xtec.codec import Settings
from xtec.cube import carrying
from xtec.cube.chunks import cut
from xtec.cube.layout import find_cube
from xtec.cube.packing import Packing, packing_of, snap
from xtec.cube.quality import require_same
from xtec.cube.report import coded_variable
from xtec.cube.stored import settings_of
from xtec.errors import InputError
from xtec.metrics import Comparison, compare

NEVER = -1 << 31
"""A number that no pixel has, where no data has none."""


@dataclass(frozen=True)
class Against:
    """What was found beside the original; errors in digital numbers, PSNR over 10,000."""

    variable: str
    psnr: dict[str, float | None]
    """Per band, in dB; None where the error is 0 or nothing is valid."""
    psnr_pooled: float | None
    """In dB, all bands; None where the error is 0 or nothing is valid."""
    max_error: dict[str, float | None]
    """Largest per band; None where nothing is valid."""
    mask_errors: int
    """Pixels that are no data in only one of the two."""
    bound: dict[str, int] | None
    """What was promised per band; None where nothing was."""
    bound_kept: bool | None

    @property
    def ok(self) -> bool:
        """No pixel lost or gained, and every bound kept."""
        return self.mask_errors == 0 and self.bound_kept is not False

    def __repr__(self) -> str:
        """Return it as text."""
        lines = [f"{'band':>6} {'PSNR, dB':>9} {'largest error, DN':>18}  allowed"]
        for band, largest in self.max_error.items():
            psnr, most = self.psnr[band], self.bound[band] if self.bound else "any"
            shown = "-" if psnr is None else f"{psnr:.1f}"
            error = "-" if largest is None else f"{largest:g}"
            lines.append(f"{band:>6} {shown:>9} {error:>18}  {most}")
        kept = {None: "none promised", True: "kept", False: "BROKEN"}[self.bound_kept]
        pooled = "-" if self.psnr_pooled is None else f"{self.psnr_pooled:.2f} dB"
        lines.append(
            f"PSNR of all bands: {pooled}; error bound: {kept}; no-data pixels that differ: "
            f"{self.mask_errors}"
        )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Part:
    """What one chunk adds."""

    comparison: Comparison
    mask_errors: int

    def __add__(self, other: "Part") -> "Part":
        """Both chunks together."""
        return Part(self.comparison + other.comparison, self.mask_errors + other.mask_errors)


@dataclass(frozen=True, eq=False)
class Pair:
    """The original of one stored array."""

    path: str
    """Of the array in its store."""
    settings: Settings
    stored: Packing
    """What the stored numbers mean."""
    packing: Packing
    """What the original's values mean."""
    before: xr.Variable | None
    """The original, (time, band, y, x); None once its blocks were cut."""

    @classmethod
    def of(cls, root: zarr.Group, original: xr.Dataset, variable: Any) -> Self:
        """Lay an original beside a compressed variable of a store.

        Raises
        ------
        InputError, BandError
            They are not the same cube.
        """
        opened = carrying.open_zarr(root.store, group=root.path or None, chunks=None)
        name = coded_variable(opened, variable)
        after, before = find_cube(opened, name), find_cube(original)
        require_same(after, before)
        settings = settings_of(opened[name])
        assert settings is not None  # noqa: S101 - it is a compressed variable
        nodata = NEVER if settings.nodata is None else settings.nodata
        offset = settings.offset
        numbers = Packing(packing_of(after.variable).dtype, nodata=nodata, offset=offset)
        values = packing_of(before.variable)
        if values.floating and settings.nodata is not None:
            # As the store packs it: by default an original in memory has no packing of its own.
            values = replace(packing_of(after.variable), floating=True)
        values = replace(values, nodata=nodata, offset=offset)
        path = f"{root.path}/{name}" if root.path else str(name)
        return cls(path, settings, numbers, values, before.variable.variable)

    def blocks(self, chunks: tuple[int, ...]) -> Any:
        """The original as delayed blocks, one for each chunk."""
        if self.before is None:
            raise InputError("the blocks of this original were cut before.")
        dims = self.before.dims
        return cut(self.before, dict(zip(dims, chunks, strict=True))).data.to_delayed()

    def compare(self, pixels: NDArray[Any], before: NDArray[Any]) -> Part:
        """Compare one decoded chunk with its block of the original."""
        lost, absent = self.stored.invalid(pixels), self.packing.invalid(before)
        if self.packing.floating:
            before = np.rint(self.packing.numbers(snap(before, self.packing)))
        figures = compare(before, pixels, valid=~(lost | absent), offset=self.stored.offset)
        return Part(figures, int(np.count_nonzero(lost != absent)))

    def judge(self, total: Part) -> Against:
        """Say of all chunks together what they kept."""
        bands, figures = self.settings.bands, total.comparison
        bounds, largest = self.settings.bounds, figures.max_error
        kept = None if bounds is None else not (largest > np.array(bounds)).any()
        return Against(
            variable=self.path,
            psnr=dict(zip(bands, map(_finite, figures.psnr), strict=True)),
            psnr_pooled=_finite(figures.psnr_pooled),
            max_error=dict(zip(bands, map(_finite, largest), strict=True)),
            mask_errors=total.mask_errors,
            bound=None if bounds is None else dict(zip(bands, bounds, strict=True)),
            bound_kept=kept,
        )


def _finite(value: Any) -> float | None:
    return float(value) if isfinite(value) else None
