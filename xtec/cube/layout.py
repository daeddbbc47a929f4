"""The one variable of a Dataset that is going to be coded, or was.

Below: axes, stacking, errors. Above: prepare, quality, accessor.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import xarray as xr

from xtec.cube.axes import band_names, in_order, roles
from xtec.cube.stacking import stack
from xtec.errors import InputError


@dataclass(frozen=True)
class Cube:
    """A Dataset with the one variable that is going to be coded."""

    dataset: xr.Dataset
    name: Hashable
    bands: tuple[str, ...]
    """Canonical names, in the order of the band axis."""

    @property
    def variable(self) -> xr.DataArray:
        """The variable, (time, band, y, x)."""
        return self.dataset[self.name]


def find_cube(dataset: xr.Dataset, variable: Hashable | None = None) -> Cube:
    """Find what is to be coded, and bring it into the order (time, band, y, x).

    Parameters
    ----------
    dataset : xarray.Dataset
        Either one variable has a band axis, or each band is a variable of its own.
    variable : hashable, optional
        The variable with a band axis, where there are several.

    Raises
    ------
    InputError, BandError
        There is nothing to code, several things, or something that cannot be recognised.
    """
    if variable is not None and variable not in dataset.data_vars:
        raise InputError(
            f"there is no variable {variable!r}; the Dataset has {list(dataset.data_vars)}. "
            "Name one of these."
        )
    with_bands = [n for n in dataset.data_vars if "band" in roles(dataset[n].dims)]
    if variable is None and not with_bands:
        dataset, variable = stack(dataset)
    if variable is None and len(with_bands) > 1:
        raise InputError(
            f"several variables have a band axis: {with_bands}. Name the one to compress: "
            f"variable={with_bands[0]!r}."
        )
    name = with_bands[0] if variable is None else variable
    array = in_order(dataset[name])
    return Cube(dataset.assign({name: array}), name, band_names(array))
