"""Sentinel-2 products as ESA and others deliver them, a few pixels large.

Folders, file names, metadata and file formats are those of real products; pixels are numbered so
that each band, date and place has values of its own.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr
from rasterio.transform import from_origin

from xtec.sentinel2 import BANDS

ROWS, COLUMNS = 18, 24
"""Pixels of 10 m."""

LEFT, TOP = 600000, 5100000

L1C = tuple(band.name for band in BANDS)
L2A = {
    10: ("B02", "B03", "B04", "B08"),
    20: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B09", "B11", "B12"),
}
GSD = {band.name: band.gsd_m for band in BANDS}


def pixels(band, seed=0, resolution=None, rows=ROWS, columns=COLUMNS):
    """Digital numbers of one band at a resolution, some without data and one saturated."""
    factor = (resolution or GSD[band]) // 10
    shape = rows // factor, columns // factor
    rng = np.random.default_rng([seed, L1C.index(band), factor])
    values = rng.integers(1100, 3000, shape).astype(np.uint16)
    values[:, 0] = 0
    values[-1, -1] = 65535
    return values


def repeated(band, seed=0, grid=10, **shape):
    """The same at the band's own resolution, repeated onto a finer grid."""
    factor = GSD[band] // grid
    return pixels(band, seed, **shape).repeat(factor, 0).repeat(factor, 1)


def write_jp2(path, values, resolution, left=LEFT, top=TOP, crs="EPSG:32632"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = values.shape[-2:]
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", dtype=values.dtype, count=1 if values.ndim == 2 else 3,
        height=rows, width=columns, crs=crs, QUALITY=100, REVERSIBLE="YES",
        transform=from_origin(left, top, resolution, resolution),
    ) as raster:  # fmt: skip
        raster.write(values, 1) if values.ndim == 2 else raster.write(values)
    # rasterio leaves the georeferencing of a copy beside it; ESA's stands inside alone.
    path.with_suffix(".jp2.aux.xml").unlink(missing_ok=True)


@dataclass(frozen=True)
class Safe:
    """What a .SAFE product is made of; each field may be made wrong."""

    level: str = "L1C"
    seed: int = 0
    spacecraft: str = "B"
    start: str = "20240103T101329"
    sensed: str = "2024-01-03T10:18:03.604815Z"
    generated: str = "20240103T110304"
    baseline: str = "05.10"
    tile: str = "32TQR"
    offset: int | None = 1000
    quantification: str = "10000"
    datastrip: str = "20240103T101328"
    zone: int = 32
    left: int = LEFT
    leave_out: tuple[str, ...] = ()
    offsets: dict[int, int] = field(default_factory=dict)

    @property
    def name(self):
        number = self.baseline.replace(".", "")
        return (
            f"S2{self.spacecraft}_MSI{self.level}_{self.start}_N{number}_R022_T{self.tile}_"
            f"{self.generated}.SAFE"
        )

    @property
    def granule(self):
        return f"{self.level}_T{self.tile}_A035655_{self.datastrip}"

    def files(self):
        """(band, resolution in metres, file relative to the product), bands and other images."""
        images = f"GRANULE/{self.granule}/IMG_DATA"
        stem = f"T{self.tile}_{self.start}"
        if self.level == "L1C":
            return [(b, GSD.get(b, 10), f"{images}/{stem}_{b}") for b in (*L1C, "TCI")]
        others = {10: ("TCI", "AOT", "WVP"), 20: ("TCI", "AOT", "WVP", "SCL"), 60: ("SCL",)}
        return [
            (band, size, f"{images}/R{size}m/{stem}_{band}_{size}m")
            for size, bands in L2A.items()
            for band in (*bands, *others[size])
        ]

    def write(self, folder):
        root = Path(folder) / self.name
        for band, size, path in self.files():
            if band in self.leave_out:
                continue
            if band in GSD:
                values = pixels(band, self.seed, size)
            else:
                bands = (3,) if band == "TCI" else ()
                values = np.full((*bands, ROWS * 10 // size, COLUMNS * 10 // size), 7, np.uint8)
            crs = f"EPSG:326{self.zone}"
            write_jp2(root / f"{path}.jp2", values, size, left=self.left, crs=crs)
        write(root / f"MTD_MSI{self.level}.xml", self.product_xml())
        write(root / f"GRANULE/{self.granule}/MTD_TL.xml", self.tile_xml())
        write(root / "manifest.safe", '<?xml version="1.0"?><xfdu:XFDU xmlns:xfdu="x"/>')
        write(root / f"DATASTRIP/DS_S{self.datastrip}/MTD_DS.xml", "<Level/>")
        (root / f"GRANULE/{self.granule}/QI_DATA").mkdir()
        return root

    def product_xml(self):
        level, user = self.level[1:], f"Level-{self.level[1:]}_User_Product"
        images = "\n".join(f"<IMAGE_FILE>{path}</IMAGE_FILE>" for _, _, path in self.files())
        offsets = dict.fromkeys(range(13), -(self.offset or 0)) | self.offsets
        tag, group = {
            "L1C": ("RADIO_ADD_OFFSET", "Radiometric_Offset_List"),
            "L2A": ("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST"),
        }[self.level]
        entries = "".join(f'<{tag} band_id="{n}">{o}</{tag}>' for n, o in offsets.items())
        offset = f"<{group}>{entries}</{group}>" if self.offset is not None else ""
        quantification = element("QUANTIFICATION_VALUE", self.quantification)
        if level == "2A":
            boa = element("BOA_QUANTIFICATION_VALUE", self.quantification)
            aot = element("AOT_QUANTIFICATION_VALUE", "1000.0")
            quantification = f"<QUANTIFICATION_VALUES_LIST>{boa}{aot}</QUANTIFICATION_VALUES_LIST>"
        return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{user} xmlns:n1="https://psd-15.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>2024-01-03T10:13:29.024Z</PRODUCT_START_TIME>
      <PRODUCT_URI>{self.name}</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
      <PROCESSING_BASELINE>{self.baseline}</PROCESSING_BASELINE>
      <GENERATION_TIME>{self.generated}</GENERATION_TIME>
      <Datatake datatakeIdentifier="GS2{self.spacecraft}_{self.start}_035655_N{self.baseline}">
        <SPACECRAFT_NAME>Sentinel-2{self.spacecraft}</SPACECRAFT_NAME>
      </Datatake>
      <Product_Organisation><Granule_List><Granule granuleIdentifier="{self.granule}">
        {images}
      </Granule></Granule_List></Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
      {quantification}
      {offset}
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:{user}>
"""

    def tile_xml(self):
        tile = f"Level-{self.level[1:]}_Tile_ID"
        sizes = "".join(
            f'<Size resolution="{r}"><NROWS>{ROWS * 10 // r}</NROWS>'
            f"<NCOLS>{COLUMNS * 10 // r}</NCOLS></Size>"
            for r in (10, 20, 60)
        )
        places = "".join(
            f'<Geoposition resolution="{r}"><ULX>{self.left}</ULX><ULY>{TOP}</ULY>'
            f"<XDIM>{r}</XDIM><YDIM>-{r}</YDIM></Geoposition>"
            for r in (10, 20, 60)
        )
        strip = f"S2{self.spacecraft}_OPER_MSI_{self.level}_DS_2BPS_{self.generated}"
        return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{tile} xmlns:n1="https://psd-15.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">
  <n1:General_Info>
    <TILE_ID metadataLevel="Brief">S2B_OPER_MSI_TL_T{self.tile}_N{self.baseline}</TILE_ID>
    <DATASTRIP_ID>{strip}_S{self.datastrip}_N{self.baseline}</DATASTRIP_ID>
    <SENSING_TIME metadataLevel="Standard">{self.sensed}</SENSING_TIME>
  </n1:General_Info>
  <n1:Geometric_Info>
    <Tile_Geocoding metadataLevel="Brief">
      <HORIZONTAL_CS_NAME>WGS84 / UTM zone {self.zone}N</HORIZONTAL_CS_NAME>
      <HORIZONTAL_CS_CODE>EPSG:326{self.zone}</HORIZONTAL_CS_CODE>
      {sizes}{places}
    </Tile_Geocoding>
  </n1:Geometric_Info>
</n1:{tile}>
"""


def element(name, text):
    return f'<{name} unit="none">{text}</{name}>'


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def zipped(root):
    """A zip file of a product as it is downloaded."""
    return Path(shutil.make_archive(str(root), "zip", root.parent, root.name))


def write_tif(path, values, resolution=10, *, descriptions=(), left=LEFT, crs="EPSG:32632", **more):
    """A GeoTIFF of (band, y, x)."""
    count, rows, columns = values.shape
    tags = {key: more.pop(key) for key in ("scales", "offsets") if key in more}
    with rasterio.open(
        path, "w", driver="GTiff", dtype=values.dtype, count=count, height=rows, width=columns,
        crs=crs, transform=from_origin(left, TOP, resolution, resolution), **more,
    ) as raster:  # fmt: skip
        raster.write(values)
        for key, value in tags.items():
            setattr(raster, key, value)
        for number, text in enumerate(descriptions, 1):
            raster.set_band_description(number, text)
    return path


def eopf(
    path, level="L2A", seed=0, sensed="2026-07-21T10:17:00.698247Z", zarr_format=2, offset=-0.1
):
    """An EOPF product in Zarr; bands of finer groups are repeated in coarser ones in L2A."""
    groups = {
        10: L2A[10],
        20: L2A[20] if level == "L2A" else [b for b in L1C if GSD[b] == 20],
        60: L2A[60] if level == "L2A" else [b for b in L1C if GSD[b] == 60],
    }
    root = {
        "stac_discovery": {
            "id": "S2B_MSIL2A_20260721T100559_N0512_R022_T32TQR_20260721T143508",
            "properties": {
                "datetime": None,
                "start_datetime": "2026-07-21T10:05:59.024Z",
                "platform": "sentinel-2b",
                "product:type": f"S02MSI{level}",
            },
        },
        "other_metadata": {
            "horizontal_CRS_code": "EPSG:32632",
            "mean_sensing_time": sensed,
        },
    }
    nodes = {"/": xr.Dataset(attrs=root)}
    for size, bands in groups.items():
        rows, columns = ROWS * 10 // size, COLUMNS * 10 // size
        coords = {
            "y": ("y", (TOP - size / 2 - size * np.arange(rows)).astype(np.int64)),
            "x": ("x", (LEFT + size / 2 + size * np.arange(columns)).astype(np.int64)),
        }
        variables = {}
        for band in bands:
            attributes = {
                "add_offset": offset,
                "scale_factor": 0.0001,
                "dtype": "<u2",
                "fill_value": 0,
                "long_name": f"BOA reflectance from MSI acquisition at spectral band {band}",
                "units": "digital_counts",
                "valid_min": 1,
                "valid_max": 65535,
            }
            if zarr_format == 2:
                attributes |= {"_FillValue": 0, "proj:epsg": 32632}
            variables[band.lower()] = (("y", "x"), pixels(band, seed, size), attributes)
        nodes[f"measurements/reflectance/r{size}m"] = xr.Dataset(variables, coords)
    nodes["conditions/geometry"] = xr.Dataset({"sun_angles": ("angle", [30.0, 158.0])})
    xr.DataTree.from_dict(nodes).to_zarr(path, zarr_format=zarr_format, consolidated=True)
    return path
