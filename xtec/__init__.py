"""Learned compression of Sentinel-2 datacubes inside xarray, Dask and Zarr.

Importing this package registers ``.tec`` on Dataset and DataArray. It imports no torch: the network
is loaded when the first pixel is coded. ``xr.open_zarr`` reads compressed stores without this
import, as Zarr finds the codec by itself.

``terracodec_v1_tt_s2l1c`` and ``terracodec_v1_tt_s2l2a`` are here too, and bring torch when asked
for.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from xtec.accessor import Tec
from xtec.cube.carrying import embed_model, open_zarr
from xtec.cube.report import Info
from xtec.errors import BandError, BoundError, InputError, ModelError, StreamError, XtecError
from xtec.settings import Settings
from xtec.shelf import register_store
from xtec.zarr_v2 import TecCodec
from xtec.zarr_v3 import TecSerializer

if TYPE_CHECKING:
    from xtec.terracodec import terracodec_v1_tt_s2l1c as terracodec_v1_tt_s2l1c
    from xtec.terracodec import terracodec_v1_tt_s2l2a as terracodec_v1_tt_s2l2a

__all__ = [
    "BandError",
    "BoundError",
    "Info",
    "InputError",
    "ModelError",
    "Settings",
    "StreamError",
    "Tec",
    "TecCodec",
    "TecSerializer",
    "XtecError",
    "embed_model",
    "open_zarr",
    "register_store",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("xarray-tec")
    if name in ("terracodec_v1_tt_s2l1c", "terracodec_v1_tt_s2l2a"):
        from xtec import terracodec

        return getattr(terracodec, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
