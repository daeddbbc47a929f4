"""A small picture of a stored cube for notebooks, where that is cheap.

Below: view, colour, cube, errors. Above: the room's face.
"""

import base64
import html
import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from xtec.cube.layout import find_cube
from xtec.cube.packing import packing_of
from xtec.cube.stored import array_of
from xtec.errors import XtecError
from xtec.plot import colour
from xtec.plot.view import digital, named, shown

VALUES = 1 << 23
"""So many values are decoded at most: nine chunks of the default size, of which one date is wanted,
or one whole chunk where the format gives nothing less. About a second with the embedded model."""
SIDE = 160
"""Pixels a side, at most."""


def thumbnail(dataset: xr.Dataset, variable: Hashable) -> str | None:
    """A picture of one date as HTML; None where there is none to be had, or none that is cheap.

    Shown is the first date of the chunk in the middle of the time axis, since it is decoded without
    the others; of a large cube only the chunks in its middle.
    """
    try:
        from xtec.plot import canvas
    except ImportError:
        return None
    try:
        found = _middle(dataset, variable)
        if found is None:
            return None
        array, what = found
        cube = find_cube(array.to_dataset(name="cube"), "cube")
        chosen = colour.choose(cube.bands)
        pixels = shown(chosen.bands, digital(cube.variable, packing_of(array))[0], cube.bands)
    except (XtecError, OSError):
        return None  # damaged, no model, no network: the table says all that is known
    if np.isnan(pixels).all():
        return None
    step = -(-max(pixels.shape[1:]) // SIDE)
    rgba = colour.to_rgba(pixels[:, ::step, ::step], colour.stretch(pixels))
    data = base64.b64encode(canvas.png(rgba)).decode("ascii")
    caption = html.escape(f"{named(array, 0)}, {what}{chosen}")
    return (
        f"<figure style='margin:0'><img alt='{caption}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _middle(dataset: xr.Dataset, variable: Hashable) -> tuple[xr.DataArray, str] | None:
    """The chunks that are shown, one date of them, and what part of the cube that is."""
    stored, opened = array_of(dataset, variable), dataset[variable]
    if stored is None or stored.shape != opened.shape:
        return None
    depth, bands, high, wide = stored.chunks
    whole = stored.shards is not None or stored.metadata.zarr_format == 2
    budget = VALUES // (bands * high * wide * (depth if whole else 1))
    rows, columns = (-(-n // c) for n, c in zip(stored.shape[2:], (high, wide), strict=True))
    if rows * columns > budget:
        side = math.isqrt(budget)
        wanted_rows, wanted_columns = min(rows, side), min(columns, side)
    else:
        wanted_rows, wanted_columns = rows, columns
    if not wanted_rows * wanted_columns:
        return None
    date = -(-stored.shape[0] // depth) // 2 * depth
    y, x = (
        slice((all_ - some) // 2 * size, ((all_ - some) // 2 + some) * size)
        for all_, some, size in (
            (rows, wanted_rows, high), (columns, wanted_columns, wide),
        )
    )  # fmt: skip
    part: Any = opened[date : date + 1, :, y, x]
    is_part = (wanted_rows, wanted_columns) != (rows, columns)
    return part, "middle of the cube, " if is_part else ""
