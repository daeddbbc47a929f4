"""Ways in and out: products on disk and cubes of other libraries in, GeoTIFF and plain Zarr out.

Every reader gives the same kind of cube: a Dataset whose variable ``reflectance`` holds digital
numbers (time, band, y, x), lazily, with the CF attributes by which ``xarray.decode_cf`` makes
reflectance of them, and a CRS that rioxarray sees. rioxarray is loaded when something is opened.

Below: cube, sentinel2, errors. Above: accessor, cli.
"""

from xtec.io.export import to_geotiff
from xtec.io.geotiffs import open_geotiffs
from xtec.io.native import native
from xtec.io.plain import to_plain_zarr
from xtec.io.recognise import as_cube
from xtec.io.safe import open_safe

__all__ = ["as_cube", "native", "open_geotiffs", "open_safe", "to_geotiff", "to_plain_zarr"]
