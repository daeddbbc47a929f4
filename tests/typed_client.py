"""A program of somebody else, for mypy alone (tests/wheel.sh): xtec's types are seen from outside.

Without `py.typed` everything of xtec would be Any, the error below would not be found, and its
`type: ignore` would be reported as unused.
"""

import xarray as xr

import xtec

opened: xr.Dataset = xtec.open_zarr("demo.zarr")
ratio: float | None = xtec.Tec(opened).info().ratio
bands: tuple[str, ...] = xtec.Settings(max_error=50).bands
wrong: str = xtec.Settings().compression  # type: ignore[assignment]
