"""Open whatever a user names: Zarr, NetCDF, products in .SAFE format, GeoTIFFs.

Below: io, cube, errors. Above: the commands.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from xtec import io
from xtec.cube.carrying import open_zarr
from xtec.errors import InputError

NETCDF = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".he5")
RASTER = (".tif", ".tiff", ".jp2", ".vrt")


def open_cube(
    paths: Sequence[str], *, bands: Sequence[str] | None = None, time: str | None = None
) -> xr.Dataset:
    """Open what the paths name as one cube; lazy.

    Parameters
    ----------
    paths : sequence of str
        One Zarr store or NetCDF file, or one or several products or GeoTIFFs; for GeoTIFFs a
        pattern may stand for many.
    bands : sequence of str, optional
        Bands to take, by any usual name; of GeoTIFFs the names of a file's bands.
    time : str, optional
        Regular expression whose first group is the date in the name of a GeoTIFF.

    Raises
    ------
    InputError, BandError
        It is none of these, or cannot be read as a cube.
    """
    kinds = {_kind(path) for path in paths}
    if len(kinds) > 1:
        raise InputError(f"{' and '.join(sorted(kinds))} at once are no cube; name one kind.")
    (kind,) = kinds
    if kind != "GeoTIFF" and time is not None:
        raise InputError(f"--time finds dates in the names of GeoTIFFs; {paths[0]} is {kind}.")
    if kind == "GeoTIFF":
        files = paths[0] if len(paths) == 1 else paths
        return io.open_geotiffs(files, time=time, bands=bands)
    if kind == "SAFE":
        return io.open_safe(paths, bands=bands)
    if len(paths) > 1:
        raise InputError(f"{len(paths)} files of {kind} were named; one is a cube.")
    opened = _open_netcdf(paths[0]) if kind == "NetCDF" else _open_zarr(paths[0])
    return opened if bands is None else io.as_cube(opened, bands=bands)


def open_store(path: str, *, chunked: bool = False, raw: bool = False) -> xr.Dataset:
    """Open a compressed store; its models are found in it.

    Parameters
    ----------
    path : str
    chunked : bool
        As Dask blocks, to be computed in parallel.
    raw : bool
        As the digital numbers that are stored.

    Raises
    ------
    InputError
        There is none.
    """
    chunks: dict[str, int] | None = {} if chunked else None
    try:
        return open_zarr(path, chunks=chunks, mask_and_scale=not raw, decode_coords="all")
    except FileNotFoundError as error:
        raise InputError(f"there is no Zarr store {path}.") from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be opened: {type(error).__name__}: {error} "
            f"If it is damaged, this says where: xtec verify {path}"
        ) from error


def _kind(path: str) -> str:
    suffix = Path(path.rstrip("/")).suffix.lower()
    if suffix in NETCDF:
        return "NetCDF"
    if suffix in RASTER:
        return "GeoTIFF"
    if suffix == ".safe" or Path(path).name.startswith("MTD_MSI") or _is_zipped_safe(path):
        return "SAFE"
    return "Zarr"


def _is_zipped_safe(path: str) -> bool:
    if not path.lower().endswith(".zip") or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(".SAFE/" in name for name in archive.namelist())


def _open_netcdf(path: str) -> xr.Dataset:
    try:
        return xr.open_dataset(path, chunks={}, decode_coords="all")
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read as NetCDF: {error} pip install netCDF4 or h5netcdf reads "
            "NetCDF 4; version 3 needs nothing more."
        ) from error


def _open_zarr(path: str) -> xr.Dataset:
    """A cube in the root of a store, or else in its groups as EOPF has them."""
    opened = open_store(path, chunked=True)
    if opened.data_vars:
        return opened
    return io.as_cube(xr.open_datatree(path, engine="zarr", chunks={}))
