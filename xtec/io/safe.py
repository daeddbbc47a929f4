"""ESA's Sentinel-2 products in .SAFE format, L1C and L2A, in a folder or a zip file.

Below: safe_metadata, scene, sentinel2, errors. Above: the room's face.
"""

import os
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, overload

import xarray as xr

from xtec.errors import InputError
from xtec.io.grid import Grid
from xtec.io.safe_metadata import METADATA, Place, Product, read_product
from xtec.io.scene import Scene, choose, to_cube, to_tree
from xtec.sentinel2 import band as facts

PathLike = str | os.PathLike[str]

STANDARD_NAMES = {
    "L1C": "toa_bidirectional_reflectance",
    "L2A": "surface_bidirectional_reflectance",
}


@overload
def open_safe(
    products: PathLike | Iterable[PathLike],
    *,
    bands: Sequence[str] | None = ...,
    native: Literal[False] = ...,
    offset: int | None = ...,
) -> xr.Dataset: ...
@overload
def open_safe(
    products: PathLike | Iterable[PathLike],
    *,
    bands: Sequence[str] | None = ...,
    native: Literal[True],
    offset: int | None = ...,
) -> xr.DataTree: ...
def open_safe(
    products: PathLike | Iterable[PathLike],
    *,
    bands: Sequence[str] | None = None,
    native: bool = False,
    offset: int | None = None,
) -> xr.Dataset | xr.DataTree:
    """Open Sentinel-2 products of one tile as one cube; lazy.

    Parameters
    ----------
    products : path or paths
        Products of one tile and level, in any order: .SAFE folders, zip files of them, or their
        MTD_MSIL1C.xml or MTD_MSIL2A.xml.
    bands : sequence of str, optional
        Bands to read, by any usual name; by default all, in ESA's order (L2A has no B10).
    native : bool
        Each band at its own resolution, in a DataTree of cubes "r10m", "r20m" and "r60m", instead
        of all bands on the grid of the finest of them.
    offset : int, optional
        Radiometric offset of products that do not state it.

    Returns
    -------
    Dataset or DataTree
        ``reflectance``: uint16 digital numbers (time, band, y, x), sorted by sensing time, 0 where
        there is no data, 65535 where saturated. ``scale_factor`` and ``add_offset`` say what they
        mean: ``xarray.decode_cf`` makes reflectance of them. Coordinates along time name the
        product, its spacecraft and processing baseline.

        Pixels of coarser bands are repeated; `xtec.io.native` takes that back. Where products carry
        different offsets (baselines before and since 04.00), dates with the smaller one are raised;
        ``offset_added`` says by how much.

    Raises
    ------
    InputError, BandError
        A product is incomplete or contradicts itself, or products do not belong together.

    Warns
    -----
    UserWarning
        The same image is there in several processings; the newest baseline is kept.
    """
    if isinstance(products, str | os.PathLike):
        products = [products]
    found = _newest([read_product(_root(Path(path)), offset) for path in products])
    _require_one_series(found)
    chosen = choose([*found[0].images], bands, found[0].name) if found else []
    scenes = [_scene(product, chosen) for product in found]
    level = found[0].level if found else "L1C"
    attributes = {
        "long_name": f"{'top-of-atmosphere' if level == 'L1C' else 'surface'} reflectance",
        "standard_name": STANDARD_NAMES[level],
    }
    if native:
        return to_tree(scenes, attributes)
    cube = to_cube(scenes, attributes)
    cube.attrs = {"title": f"Sentinel-2 {level}, tile {found[0].tile}", "Conventions": "CF-1.11"}
    return cube


def _root(path: Path) -> Place:
    """Find the folder that holds the metadata of the product."""
    path = path.expanduser()
    if not path.exists():
        raise InputError(f"{path} does not exist; give a .SAFE folder or a zip file of one.")
    if path.name in METADATA:
        return path.parent
    place: Place = zipfile.Path(path) if zipfile.is_zipfile(path) else path
    if not place.is_dir():
        raise InputError(
            f"{path} is no .SAFE folder and no zip file of one; give the folder that holds "
            f"{' or '.join(METADATA)}, or the zip file as it was downloaded."
        )
    for folder in (place, *(each for each in place.iterdir() if each.is_dir())):
        if any((folder / name).exists() for name in METADATA):
            return folder
    raise InputError(
        f"{path} holds no {' or '.join(METADATA)}: it is no Sentinel-2 product of level 1C or 2A "
        "in the format used since December 2016. Older ones were processed again by ESA; download "
        "the new version."
    )


def _newest(products: Sequence[Product]) -> list[Product]:
    """Of each image the newest processing; one warning names what is left out."""
    latest: dict[tuple[str, ...], Product] = {}
    left_out = []
    for product in sorted(products, key=lambda p: (p.baseline, p.generated)):
        image = (product.datatake, product.datastrip, product.tile, product.level)
        if image in latest:
            left_out.append(f"{latest[image].name} (baseline {latest[image].baseline})")
        latest[image] = product
    if left_out:
        warnings.warn(
            "the same image in several processings; the newest baseline is kept, left out: "
            f"{', '.join(left_out)}. Leave these files out to be rid of this warning.",
            UserWarning,
            stacklevel=3,
        )
    return list(latest.values())


def _require_one_series(products: Sequence[Product]) -> None:
    """Products of one cube share tile, level and quantification."""
    for what, values in (
        ("tiles", {p.tile for p in products}),
        ("levels", {p.level for p in products}),
        ("quantification values", {p.quantification for p in products}),
    ):
        if len(values) > 1:
            raise InputError(
                f"products of different {what}: {', '.join(map(str, sorted(values)))}. A cube has "
                f"one of them; open each group by itself: {_groups(products)}."
            )


def _groups(products: Sequence[Product]) -> str:
    named = [f"{p.name} ({p.tile}, {p.level}, {p.quantification:g})" for p in products[:4]]
    return "; ".join(named + ["..."] * (len(products) > 4))


def _scene(product: Product, bands: Sequence[str]) -> Scene:
    """Open the files of the bands; their headers are read and compared with the metadata."""
    missing = [band for band in bands if band not in product.images]
    if missing:
        raise InputError(
            f"{product.name} has no {', '.join(missing)}, which other products have; select what "
            "all have: bands=[...]."
        )
    return Scene(
        source=product.name,
        time=product.time,
        bands={band: _open_band(product, band) for band in bands},
        crs=product.crs,
        offset=product.offset,
        scale=1 / product.quantification,
        about={
            "product": product.name,
            "spacecraft": product.spacecraft,
            "processing_baseline": product.baseline,
        },
    )


def _open_band(product: Product, band: str) -> xr.DataArray:
    """Open a band at its own resolution, else at the finest there is."""
    import rasterio
    import rioxarray

    files = product.images[band]
    resolution = facts(band).gsd_m if facts(band).gsd_m in files else min(files)
    place = product.root / files[resolution]
    if not place.exists():
        raise InputError(
            f"{product.name}: the file of {band}, {files[resolution]}, is missing. Download the "
            "product again, or read the bands that are there: bands=[...]."
        )
    try:
        # cache=False: a block is read when it is computed, and forgotten.
        opened = rioxarray.open_rasterio(_address(place), cache=False)
    except rasterio.errors.RasterioIOError as error:
        with rasterio.Env() as gdal:
            remedy = (
                "Download the product again."
                if any(driver.startswith("JP2") for driver in gdal.drivers())
                else "This GDAL has no driver for JPEG 2000; in conda install libgdal-jp2openjpeg."
            )
        raise InputError(
            f"{product.name}: the file of {band}, {files[resolution]}, cannot be read ({error}). "
            f"{remedy}"
        ) from error
    if not isinstance(opened, xr.DataArray):
        raise InputError(f"{product.name}: {files[resolution]} holds more than one raster.")
    array = opened.isel(band=0, drop=True)
    grid = Grid.of(array, f"{band} of {product.name}")
    stated = product.grids.get(resolution)
    if stated is None or not grid.close_to(stated) or array.rio.crs != product.crs:
        raise InputError(
            f"{product.name}: the metadata contradict the file of {band}, {files[resolution]}: "
            f"{stated} in {product.crs} against {grid} in {array.rio.crs}. The product is damaged "
            "or was changed; download it again."
        )
    return array


def _address(place: Place) -> str:
    """How rasterio opens a file, in a folder or in a zip file."""
    if isinstance(place, Path):
        return str(place)
    return f"zip://{Path(place.root.filename or '').resolve()}!/{place.at}"
