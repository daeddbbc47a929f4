"""What a Sentinel-2 product says of itself: the XML of ESA's .SAFE format.

Two documents are read: MTD_MSIL1C.xml or MTD_MSIL2A.xml (which product, which files, what the
numbers mean) and the granule's MTD_TL.xml (when, where). Namespaces change with the version of the
format and are ignored.

Source: ESA, *Sentinel-2 Products Specification Document*, S2-PDGS-TAS-DI-PSD, issues 14 and 15.

Below: radiometry, grid, sentinel2, errors. Above: safe.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from xtec.errors import InputError
from xtec.io.grid import Grid
from xtec.io.radiometry import offset_of_baseline
from xtec.sentinel2 import NAMES, recognise
from xtec.sentinel2 import band as facts

Place = Path | zipfile.Path

METADATA = {"MTD_MSIL1C.xml": "L1C", "MTD_MSIL2A.xml": "L2A"}

_IMAGE = re.compile(r"_(B\d[\dA])(?:_(10|20|60)m)?$")
_TILE = re.compile(r"_T(\d{1,2}[A-Z]{3})_")
_DATASTRIP = re.compile(r"_S(\d{8}T\d{6})_")


@dataclass(frozen=True)
class Product:
    """One product: one tile on one date, of one processing."""

    name: str
    """PRODUCT_URI: the name that ESA gave it, whatever the folder is called."""
    root: Place
    level: str
    """"L1C" or "L2A"."""
    baseline: str
    """Processing baseline as written: "05.10"."""
    generated: str
    spacecraft: str
    datatake: str
    """Spacecraft, start and orbit of the datatake."""
    datastrip: str
    """Start of the datastrip: a tile may lie on the seam of two."""
    tile: str
    """MGRS tile: "32TQR"."""
    time: np.datetime64
    """When the granule was sensed, UTC."""
    crs: str
    grids: dict[int, Grid]
    """Resolution in metres -> where the pixels lie."""
    images: dict[str, dict[int, str]]
    """Band -> resolution in metres -> file, relative to `root`."""
    quantification: float
    offset: int
    """Digital numbers added to what was measured."""


def read_product(root: Place, offset: int | None = None) -> Product:
    """Read the metadata of the product in this folder.

    Parameters
    ----------
    root : Path or zipfile.Path
        The .SAFE folder.
    offset : int, optional
        Radiometric offset, where the product does not say it.

    Raises
    ------
    InputError
        Something is missing or contradicts itself.
    """
    document = _Document(root, next(name for name in METADATA if (root / name).exists()))
    level = METADATA[document.name]
    images = _images(document)
    granule = next(iter(next(iter(images.values())).values())).rsplit("/IMG_DATA/", 1)[0]
    about = _Document(root, f"{granule}/MTD_TL.xml")
    tile = _TILE.search(f"{granule}_")
    if tile is None:
        raise document.error(f"the granule {granule!r} does not name its tile")
    datatake = document.attribute("Datatake", "datatakeIdentifier")
    strip = _DATASTRIP.search(f"{about.text('DATASTRIP_ID', 'DATASTRIP_ID_2A')}_")
    names = ("QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
    return Product(
        name=document.text("PRODUCT_URI", "PRODUCT_URI_2A", "PRODUCT_URI_1C"),
        root=root,
        level=level,
        baseline=document.text("PROCESSING_BASELINE"),
        generated=document.text("GENERATION_TIME"),
        spacecraft=document.text("SPACECRAFT_NAME"),
        datatake=datatake.rsplit("_N", 1)[0],
        datastrip=strip[1] if strip else "",
        tile=tile[1].zfill(5),
        time=_time(about),
        crs=about.text("HORIZONTAL_CS_CODE"),
        grids=_grids(about),
        images=images,
        quantification=document.number(document.text(*names)),
        offset=_offset(document, images, offset),
    )


class _Document:
    """An XML file, and errors that name it."""

    def __init__(self, root: Place, name: str) -> None:
        self.root, self.name = root, name
        place = root / name
        if not place.exists():
            raise self.error("the file is missing")
        try:
            # expat, which this runs on, limits what entities may grow to.
            self.tree = ET.fromstring(place.read_bytes())  # noqa: S314
        except ET.ParseError as error:
            raise self.error(f"not XML ({error})") from error

    def error(self, problem: str) -> InputError:
        return InputError(
            f"{self.root} is not a whole Sentinel-2 product: {self.name}: {problem}. Unpack or "
            "download it again."
        )

    def all(self, *names: str) -> list[ET.Element]:
        return [each for name in names for each in self.tree.iterfind(f".//{{*}}{name}")]

    def text(self, *names: str) -> str:
        """Text of the first element that has one of these names."""
        found = [each.text.strip() for each in self.all(*names) if each.text and each.text.strip()]
        if not found:
            raise self.error(f"it does not say {names[0]}")
        return found[0]

    def attribute(self, name: str, attribute: str) -> str:
        for each in self.all(name):
            if attribute in each.attrib:
                return each.attrib[attribute]
        raise self.error(f"it does not say {attribute} of {name}")

    def number(self, text: str | None) -> float:
        try:
            return float(text or "")
        except ValueError as error:
            raise self.error(f"{text!r} stands where a number should") from error


def _images(document: _Document) -> dict[str, dict[int, str]]:
    """Find the files of the bands; true colour, classes and the like are left aside."""
    listed = [each.text or "" for each in document.all("IMAGE_FILE", "IMAGE_FILE_2A")]
    images: dict[str, dict[int, str]] = {}
    for path in listed:
        match = _IMAGE.search(path.strip())
        if match and "/IMG_DATA/" in path:
            (band,) = recognise([match[1]])
            resolution = int(match[2]) if match[2] else facts(band).gsd_m
            images.setdefault(band, {})[resolution] = f"{path.strip()}.jp2"
    if not images:
        raise document.error("it lists no image of a band (IMAGE_FILE)")
    granules = {
        path.rsplit("/IMG_DATA/", 1)[0] for files in images.values() for path in files.values()
    }
    if len(granules) > 1:
        raise document.error(f"{len(granules)} granules in one product, a single one is read")
    return {band: images[band] for band in NAMES if band in images}


def _offset(document: _Document, images: dict[str, dict[int, str]], given: int | None) -> int:
    """Digital numbers that were added, as the metadata say: the same to all bands."""
    stated = {
        int(document.number(each.get("band_id"))): -round(document.number(each.text))
        for each in document.all("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET")
    }
    if stated:
        offsets = {stated.get(NAMES.index(band)) for band in images}
        (offset, *others) = offsets
        if offset is None or others:
            raise document.error(f"its bands have no one radiometric offset: {stated}")
        return offset
    baseline = document.text("PROCESSING_BASELINE")
    # A product of baseline 04.00 or later without a list of offsets contradicts itself.
    if given is None and offset_of_baseline(baseline) != 0:
        raise InputError(
            f"{document.root} states no radiometric offset, and its processing baseline "
            f"{baseline!r} does not imply one. If its processor added none (Sen2Cor before 2.10), "
            "say so: offset=0; else offset=1000."
        )
    return given or 0


def _time(document: _Document) -> np.datetime64:
    text = document.text("SENSING_TIME")
    try:
        return np.datetime64(text.removesuffix("Z"), "ns")
    except ValueError as error:
        raise document.error(f"SENSING_TIME {text!r} is no time") from error


def _grids(document: _Document) -> dict[int, Grid]:
    sizes = {each.get("resolution"): each for each in document.all("Size")}
    grids = {}
    for each in document.all("Geoposition"):
        resolution = each.get("resolution") or ""
        fields = {
            child.tag.rpartition("}")[2]: document.number(child.text)
            for child in [*each, *sizes.get(resolution, [])]
        }
        try:
            grids[int(resolution)] = Grid(
                fields["ULX"],
                fields["ULY"],
                fields["XDIM"],
                fields["YDIM"],
                int(fields["NROWS"]),
                int(fields["NCOLS"]),
            )
        except (KeyError, ValueError) as error:
            raise document.error(f"Tile_Geocoding at {resolution!r} m is incomplete") from error
    return grids
