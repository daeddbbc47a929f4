"""A compressed cube as Zarr that every reader reads: pixels as they decode, losslessly compressed.

Below: cube, errors. Above: cli.
"""

from pathlib import Path
from typing import Any

import xarray as xr

from xtec.cube.progress import of_tasks
from xtec.cube.storable import KEPT
from xtec.cube.stored import settings_of
from xtec.cube.writing import quiet, refuse_to_spoil
from xtec.errors import InputError

NEEDLESS = ("tec_install", "tec_format_version", "tec_model", "tec_model_digest")
"""Attributes of a compressed store that are not true of a plain one."""


def to_plain_zarr(
    cube: xr.Dataset,
    store: str | Path | Any,
    *,
    zarr_format: int = 3,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Write a cube without xtec's codec, with Zarr's own lossless compression.

    Parameters
    ----------
    cube : Dataset
        Opened from a compressed store, or a part of one. Lazy ones are computed block by block.
    store : path, URL or Zarr store
    zarr_format : {3, 2}
    overwrite : bool
        Whether an existing store may be replaced.
    progress : bool
        Whether to show a bar.

    Raises
    ------
    InputError
        The store exists, or nothing here was compressed.

    Notes
    -----
    Chunks stay, packing stays, and the notes by which ``ds.tec.unstack`` and ``ds.tec.native`` know
    the bands. That the pixels went through a loss stays in the attributes.
    """
    coded = [name for name in cube.data_vars if settings_of(cube[name]) is not None]
    if not coded:
        raise InputError(
            f"none of {list(cube.data_vars)} was compressed by xtec; write it with .to_zarr()."
        )
    refuse_to_spoil(cube, store, overwrite=overwrite)
    plain = cube.copy()
    for name, variable in plain.variables.items():
        kept = (*KEPT, "chunks") if name in coded else KEPT
        variable.encoding = {
            key: variable.encoding[key] for key in kept if key in variable.encoding
        }
        if variable.chunks and "chunks" in variable.encoding:
            variable.encoding["chunks"] = tuple(sizes[0] for sizes in variable.chunks)
    plain.attrs = {key: value for key, value in cube.attrs.items() if key not in NEEDLESS}
    target = str(store) if isinstance(store, Path) else store
    with quiet(), of_tasks("exporting", shown=progress):
        plain.to_zarr(target, mode="w" if overwrite else "w-", zarr_format=_version(zarr_format))


def _version(zarr_format: int) -> Any:
    if zarr_format not in (2, 3):
        raise InputError(f"zarr_format={zarr_format!r} is unknown; allowed are 2 and 3.")
    return zarr_format
