"""The Zarr array behind a variable, however it was opened: by path or store, with Dask or without.

xarray keeps the array inside wrappers and Dask inside graphs; this file looks there and nowhere
else in the house is that known.

Below: the sockets. Above: carrying, writing, report.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import xarray as xr
import zarr
from zarr.errors import NodeTypeValidationError

from xtec.codec import Settings
from xtec.zarr_v2 import TecCodec
from xtec.zarr_v3 import TecSerializer


def settings_of(variable: xr.Variable | xr.DataArray) -> Settings | None:
    """Find the settings that a variable was coded with or is going to be; None where it is not."""
    codec = _codec_in(variable.encoding)
    return codec.settings if codec else None


def is_told(variable: xr.Variable) -> bool:
    """Whether the user was told already that what is going to be coded was decoded before."""
    codec = _codec_in(variable.encoding)
    return codec is not None and codec.told


def codec_of_array(array: "zarr.Array[Any]") -> TecCodec | TecSerializer | None:
    """Find the codec of an array; None where it is not ours."""
    return _codec_in({"serializer": array.serializer, "compressors": array.compressors})


def _codec_in(encoding: Mapping[Any, Any]) -> TecCodec | TecSerializer | None:
    codecs = [encoding.get("serializer")]
    for key in ("compressors", "filters"):
        entry = encoding.get(key)
        codecs += entry if isinstance(entry, list | tuple) else [entry]
    return next((c for c in codecs if isinstance(c, TecCodec | TecSerializer)), None)


def arrays_behind(variable: xr.Variable) -> Iterator["zarr.Array[Any]"]:
    """All Zarr arrays that a variable reads from."""
    data = variable._data  # noqa: SLF001 - .data would load what is lazy
    nodes = [data]
    if hasattr(data, "dask"):
        layers = getattr(data.dask, "layers", {})
        # Dask's from_array keeps what it was given in a layer of its own.
        kept = [layer for name, layer in layers.items() if str(name).startswith("original-")]
        nodes = [node for layer in kept for node in layer.values()]
    for node in nodes:
        array = _unwrap(node)
        if array is not None:
            yield array


def array_of(dataset: xr.Dataset, name: Any) -> "zarr.Array[Any] | None":
    """Find the Zarr array that a compressed variable was opened from.

    None where it left no trace, or is yet to be written.
    """
    settings = settings_of(dataset[name])
    for array in arrays_behind(dataset[name].variable):
        if _settings_of_array(array) == settings:
            return array
    source = dataset.encoding.get("source")
    if source is None:
        return None
    try:
        array = zarr.open_array(source, path=str(name), mode="r")
    except (FileNotFoundError, NodeTypeValidationError):
        return None
    return array if _settings_of_array(array) == settings else None


def _settings_of_array(array: "zarr.Array[Any]") -> Settings | None:
    """Find the settings in an array's own metadata."""
    codec = codec_of_array(array)
    return codec.settings if codec else None


def _unwrap(node: Any) -> "zarr.Array[Any] | None":
    """Take off the wrappers of Dask (value) and xarray (array, _array)."""
    for _ in range(20):
        if isinstance(node, zarr.Array):
            return node
        for inside in ("value", "array", "_array"):
            if hasattr(node, inside):
                node = getattr(node, inside)
                break
        else:
            return None
    return None
