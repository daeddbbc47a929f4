"""The half of ``.tec`` that looks at what compression did, and changes nothing.

Each method is one call down.

Below: plot, cube. Above: accessor.
"""

from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import xarray as xr

from xtec.cube import bits, quality, report, stacking, state
from xtec.cube.report import Info
from xtec.cube.stored import settings_of
from xtec.cube.verify import Verdict, verify_behind
from xtec.plot import Explanation, comparison, thumbnail
from xtec.plot.view import view

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Seeing:
    """What `xtec.accessor.Tec` can say and show."""

    def __init__(self, cube: xr.Dataset | xr.DataArray) -> None:
        self._cube = cube

    @property
    def _dataset(self) -> xr.Dataset:
        # Made at every call: xarray keeps the accessor while its object may change.
        dataset = as_dataset(self._cube)
        state.warn(dataset.attrs)
        return dataset

    def info(self, variable: Hashable | None = None) -> Info:
        """Describe how a cube is compressed: model, chunks, sizes, bits per pixel per band.

        In notebooks a table, with a small picture of one date where decoding that is cheap: from a
        store, and with matplotlib.

        Raises
        ------
        InputError
            Nothing here is compressed.
        """
        dataset = self._dataset
        found = report.info(dataset, variable)
        return replace(found, thumbnail=partial(thumbnail, dataset, found.variable))

    def quality(
        self, original: xr.Dataset | xr.DataArray, variable: Hashable | None = None
    ) -> xr.Dataset:
        """Compare with the original: RMSE, PSNR and largest error per band, SAM, NDVI error.

        Computed block by block. Errors are in digital numbers; the peak of PSNR is 10,000.

        Raises
        ------
        InputError
            The two differ in shape, bands or coordinates.
        """
        return quality.quality(self._dataset, as_dataset(original), variable)

    def verify(
        self,
        original: xr.Dataset | xr.DataArray | None = None,
        variable: Hashable | None = None,
        *,
        progress: bool = True,
    ) -> Verdict:
        """Read every chunk of the store that this was opened from, and check every checksum.

        Chunks are read one by one, on Dask's workers where there is a client; each that is damaged
        is named, with its place, its file and the reason. What a chunk of another codec than
        xtec's is checked by depends on that codec.

        Parameters
        ----------
        original : Dataset or DataArray, optional
            The whole cube that was compressed: what comes back is compared with it.
        variable : hashable, optional
            Which compressed variable is to be compared, where there are several.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        Verdict
            ``.ok``, ``.faults``, ``.against``; shown as text; ``.to_dict()`` for programs.

        Raises
        ------
        InputError
            Nothing here was opened from a compressed store, or the original is another cube.
        WrongModelError
            The model is neither in the store nor on this machine: nothing can be told.
        """
        beside = None if original is None else as_dataset(original)
        return verify_behind(self._dataset, beside, variable=variable, progress=progress)

    def plot(
        self,
        original: xr.Dataset | xr.DataArray,
        date: Any = None,
        pixel: tuple[Any, Any] | None = None,
        *,
        band: str | None = None,
        variable: Hashable | None = None,
    ) -> "Figure":
        """Draw one date beside the original: colours, error, PSNR of each band, spectra.

        Only that date is computed; of cubes above 512 pixels a side every second, third, ... pixel
        is drawn and counted, which the picture says. Select a part with ``.isel`` or ``.sel`` of
        both to see more of it. What has no data is black.

        Parameters
        ----------
        original : Dataset or DataArray
            Of the same shape, bands and coordinates.
        date : int, str or datetime64, optional
            Position along time, or the date that is nearest; by default the one in the middle.
        pixel : (x, y), optional
            Coordinates of the pixel whose spectra are drawn; by default the one with the most
            vegetation, else the one nearest to the centre. The picture says which.
        band : str, optional
            Canonical name of the band whose error is drawn; by default the one shown as red.
        variable : hashable, optional
            Which variable, where several have a band axis.

        Returns
        -------
        matplotlib.figure.Figure
            Shown by notebooks; ``.savefig(path)`` writes it.

        Raises
        ------
        InputError
            The two are not the same cube, there is no such date, pixel or band, or matplotlib is
            missing.

        Notes
        -----
        Bands without B04, B03 and B02 are shown in false colour, fewer than three in grey. The
        scale of the error is symmetric and holds 99 % of the pixels; arrows at its ends say that
        there are larger ones.
        """
        dataset = self._dataset
        found = view(dataset, as_dataset(original), date, variable)
        return comparison(found, heading=_heading(dataset, variable), band=band, pixel=pixel)

    def explain(self, variable: Hashable | None = None) -> Explanation:
        """Say where the bits of a stored cube go: by part, on each date, on each tile.

        Nothing is decoded: of each chunk the header and the lengths are read.

        Returns
        -------
        Explanation
            Shown as a table; ``.plot()`` draws it, ``.bytes`` holds the figures as a Dataset.

        Raises
        ------
        InputError
            Nothing here is compressed, or it is not stored.
        StreamError
            A chunk contradicts itself; `verify` says which.
        """
        return Explanation(bits.bits(self._dataset, variable))


def as_dataset(cube: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """A DataArray as the only variable of a Dataset; it gets a name where it has none."""
    if isinstance(cube, xr.Dataset):
        return cube
    return cube.to_dataset(name=stacking.DEFAULT_NAME if cube.name is None else cube.name)


def _heading(dataset: xr.Dataset, variable: Hashable | None) -> str:
    """How the cube was compressed, in one line; nothing where that is not known."""
    coded = [name for name in dataset.data_vars if settings_of(dataset[name]) is not None]
    wanted = [name for name in coded if variable in (None, name)]
    if len(wanted) != 1:
        return ""
    found = report.info(dataset, wanted[0])
    size = ""
    if found.ratio:
        bits_each = f"{found.bits_per_pixel_per_band:.3f} bits per pixel per band"
        size = f"; {found.ratio:.1f} times smaller, {bits_each}"
    bound = "" if found.max_error is None else f", max_error {found.max_error}"
    return f"{found.model}, compression {found.compression:g}{bound}{size}"
