"""The Dataset that Zarr codes when it is written: lazy, and never the caller's own object.

Below: bounds, layout, packing, storable, chunks, target, calibrate, stored, the sockets, codec.
Above: writing, accessor.
"""

import warnings
from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from xtec.codec import Settings
from xtec.cube import state
from xtec.cube.bounds import Bound, bounds_of
from xtec.cube.calibrate import calibrate
from xtec.cube.chunks import Shape, Sizes, block_shape, chunk_shape, cut, shard_shape
from xtec.cube.layout import Cube, find_cube
from xtec.cube.packing import Packing, check, packing_of, snap
from xtec.cube.storable import VALUES, storable_attributes, storable_variable
from xtec.cube.stored import settings_of
from xtec.cube.target import ATTRIBUTE, Calibration, target_of
from xtec.errors import InputError, SecondLossWarning
from xtec.settings import fitted
from xtec.zarr_v2 import TecCodec
from xtec.zarr_v3 import NAME, TecSerializer

INSTALL_HINT = "pip install xarray-tec"


def prepare(  # noqa: PLR0913 - what a user may choose
    dataset: xr.Dataset,
    *,
    compression: float | None = None,
    max_error: Bound | None = None,
    target_psnr: float | None = None,
    target_bpppb: float | None = None,
    model: str = "embedded",
    chunks: Sizes | None = None,
    shards: Sizes | None = None,
    zarr_format: int = 3,
    offset: int | None = None,
    nodata: int | None = None,
    variable: Hashable | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Set everything up that ``.to_zarr`` needs; compute nothing but what a target needs.

    Parameters are those of `xtec.accessor.Tec.compress`; `progress` shows the trials for a target.

    Raises
    ------
    InputError, BandError, ModelError
        Anything that would fail later, as far as it can be known without computing.
    """
    if zarr_format not in (2, 3):
        raise InputError(
            f"zarr_format={zarr_format!r} is unknown; allowed are 2 and 3. Leave it out for 3."
        )
    if shards is not None and zarr_format == 2:
        raise InputError("Zarr format 2 has no shards; leave shards out, or use zarr_format=3.")
    target = target_of(compression, target_psnr=target_psnr, target_bpppb=target_bpppb)
    cube = find_cube(dataset, variable)
    told = warn_of_second_generation(cube)
    packing = packing_of(cube.variable, nodata, offset)
    settings = Settings(
        model=model,
        compression=Settings.compression if compression is None else compression,
        bands=cube.bands,
        nodata=packing.nodata,
        offset=packing.offset,
        max_error=bounds_of(max_error, cube.bands, target),
    )
    if compression is None:
        settings = fitted(settings)
    array = cube.variable
    if 0 in array.shape:
        raise InputError(
            f"{cube.name!r} is empty: {dict(array.sizes)}. A cube has at least one of each; select "
            "a part that holds something."
        )
    chunk = chunk_shape(chunks, array.dims, array.shape)
    shard = shard_shape(shards, array.dims, array.shape, chunk)
    calibration = None
    if target:
        calibration = calibrate(array.variable, chunk, packing, settings, target, progress=progress)
        settings = replace(settings, compression=calibration.compression)
    codec = _codec(packing, settings, chunk, zarr_format, told=told)
    made = _assemble(cube, packing, settings, chunk, shard, codec)
    return _noted(made, cube.name, calibration) if calibration else made


def _assemble(
    cube: Cube,
    packing: Packing,
    settings: Settings,
    chunk: Shape,
    shard: Shape | None,
    codec: dict[str, Any],
) -> xr.Dataset:
    """Put pixels, encoding and attributes together."""
    array = cube.variable
    coded = in_blocks(array.variable, packing, shard or chunk)
    coded.attrs = _attributes(array, packing, settings)
    coded.encoding = {
        **packing.encoding(),
        **_geography(array),
        **codec,
        "chunks": chunk,
    }
    if shard:
        coded.encoding["shards"] = shard
    made = cube.dataset.copy()
    changed = {cube.name: coded}
    for name, variable in made.variables.items():
        if name == cube.name:
            continue
        stored = storable_variable(variable, str(name))
        if name in made.xindexes:  # an index keeps its values; a copy's notes may be changed
            variable.attrs, variable.encoding = stored.attrs, stored.encoding
        else:
            changed[name] = stored
    made = made.assign(changed)
    made.attrs = storable_attributes(made.attrs, "the Dataset") | _about(cube, settings)
    made.attrs.pop(state.ATTRIBUTE, None)  # of the store that the cube comes from
    return made


def in_blocks(variable: xr.Variable, packing: Packing, unit: Shape) -> xr.Variable:
    """Cut pixels into the blocks that are written, on the grid of their digital numbers; lazy."""
    if packing.floating and isinstance(variable._data, np.ndarray):  # noqa: SLF001
        check(variable.values, packing)
    present = [max(sizes) for sizes in variable.chunks] if variable.chunks else variable.shape
    block = block_shape(unit, variable.shape, present)
    variable = cut(variable, dict(zip(variable.dims, block, strict=True)))
    data = variable.data
    if packing.floating:
        dtype = np.promote_types(variable.dtype, np.float32)
        meta = np.empty((0,) * 4, dtype)
        data = data.map_blocks(partial(snap, packing=packing), dtype=dtype, meta=meta)
    else:
        data = data.astype(packing.dtype)
    return xr.Variable(variable.dims, data)


def _codec(
    packing: Packing, settings: Settings, chunk: Shape, zarr_format: int, *, told: bool
) -> dict[str, Any]:
    """The codec, where this Zarr format keeps it."""
    if zarr_format == 2:
        dtype = np.dtype(packing.dtype).newbyteorder("<").str
        return {"compressors": TecCodec(settings, dtype, shape=chunk, told=told)}
    # A chunk that is missing or padded holds fill_value: no data.
    return {
        "serializer": TecSerializer(settings, told=told),
        "compressors": None,
        "fill_value": packing.nodata,
    }


def _geography(array: xr.DataArray) -> dict[str, str]:
    """Name the CRS, and all coordinates so that plain open_zarr makes them such again."""
    names = sorted(str(name) for name in array.coords if name not in array.dims)
    said = {
        "grid_mapping": array.encoding.get("grid_mapping"),
        "coordinates": " ".join(name for name in names if " " not in name),
    }
    return {key: value for key, value in said.items() if value and key not in array.attrs}


def _attributes(array: xr.DataArray, packing: Packing, settings: Settings) -> dict[str, Any]:
    """The variable's own attributes, without packing that the encoding says, and a short note."""
    said = {*VALUES, "missing_value"} if packing.floating else set()
    said |= {ATTRIBUTE}  # of a compression before this one
    own = {key: value for key, value in array.attrs.items() if key not in said}
    note = f"{settings.model}, compression {settings.compression:g}; {settings.promise}"
    note = note if settings.lossless else f"lossy: {note}"
    return storable_attributes(own, repr(array.name)) | {"tec_compression": note}


def _about(cube: Cube, settings: Settings) -> dict[str, Any]:
    """What plain zarr shows to a reader who does not have xtec."""
    return {
        "tec_install": f"{cube.name!r} needs the Zarr codec {NAME!r}: {INSTALL_HINT}",
        "tec_format_version": settings.format_version,
        "tec_model": settings.model,
        "tec_model_digest": settings.model_digest,
        "tec_lossy": f"{cube.name!r} was compressed "
        f"{'without' if settings.lossless else 'with'} loss (compression "
        f"{settings.compression:g}); {settings.promise}, all other variables are lossless",
    }


def _noted(made: xr.Dataset, name: Hashable, calibration: Calibration) -> xr.Dataset:
    """Say what the compression was chosen for and what it reached."""
    made[name].attrs[ATTRIBUTE] = calibration.to_attribute()
    made.attrs["tec_lossy"] += f"; chosen for {calibration}"
    return made


def warn_of_second_generation(cube: Cube) -> bool:
    """Tell who compresses what comes out of a lossy store; whether there was anything to tell."""
    settings = settings_of(cube.variable)
    if settings is not None and settings.lossless:
        return False
    noted = {"tec_compression", "tec_model"} & {*cube.variable.attrs, *cube.dataset.attrs}
    told = bool(noted) or settings is not None
    if told:
        warnings.warn(
            f"{cube.name!r} was compressed with loss before; compressing it again adds to the "
            "loss. Start from the original where there is one.",
            SecondLossWarning,
            stacklevel=2,
        )
    return told
