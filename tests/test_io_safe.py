"""Products in .SAFE format: read as they are, put into cubes, refused where they are not whole."""

import dataclasses
import re

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
import xarray as xr

import xtec  # noqa: F401  registers .tec
from tests.products import GSD, L1C, L2A, LEFT, ROWS, TOP, Safe, pixels, repeated, write_jp2, zipped
from xtec import io
from xtec.errors import BandError, InputError
from xtec.io.radiometry import offset_of_baseline

BEFORE = {
    "start": "20200103T101329",
    "sensed": "2020-01-03T10:18:05.000000Z",
    "datastrip": "20200103T101328",
    "baseline": "02.08",
    "offset": None,
}
"""A date before offsets were added."""

LEVELS = {"L1C": L1C, "L2A": tuple(b for b in L1C if b != "B10")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("products")


@pytest.fixture(scope="module")
def l1c(folder):
    return Safe().write(folder)


@pytest.fixture(scope="module")
def l2a(folder):
    return Safe(level="L2A", seed=1).write(folder)


@pytest.fixture(scope="module")
def old(folder):
    return Safe(seed=2, **BEFORE).write(folder)


def numbers_are_those_of(cube, seed, time=0, grid=10, added=0):
    for band in cube.band.values:
        expected = repeated(band, seed, grid).astype(int)
        valid = (expected != 0) & (expected != 65535)
        expected[valid] += added
        np.testing.assert_array_equal(cube.reflectance.sel(band=band).isel(time=time), expected)


# As they are


@pytest.mark.parametrize("level", ["L1C", "L2A"])
@pytest.mark.parametrize("form", ["folder", "zip", "xml", "folder around"])
def test_a_product(level, form, l1c, l2a, tmp_path):
    root = l1c if level == "L1C" else l2a
    if form == "folder around":
        (tmp_path / "unpacked").mkdir()
        (tmp_path / "unpacked" / root.name).symlink_to(root)
    path = {
        "folder": root,
        "zip": zipped(root) if form == "zip" else None,
        "xml": root / f"MTD_MSI{level}.xml",
        "folder around": tmp_path / "unpacked",
    }[form]
    cube = io.open_safe(path)
    assert cube.reflectance.dims == ("time", "band", "y", "x")
    assert cube.reflectance.dtype == "uint16"
    assert tuple(cube.band.values) == LEVELS[level]
    numbers_are_those_of(cube, seed=0 if level == "L1C" else 1)
    assert cube.time.values.tolist() == [
        np.datetime64("2024-01-03T10:18:03.604815", "ns").astype(int)
    ]
    assert cube.rio.crs == cube.reflectance.rio.crs == "EPSG:32632"
    assert tuple(cube.rio.transform())[:6] == (10, 0, LEFT, 0, -10, TOP)
    assert cube.reflectance.rio.nodata == 0
    assert cube.reflectance.attrs["scale_factor"] == 1e-4
    assert cube.reflectance.attrs["add_offset"] == -0.1
    assert cube.product.values.tolist() == [root.name]
    assert cube.processing_baseline.values.tolist() == ["05.10"]
    assert cube.spacecraft.values.tolist() == ["Sentinel-2B"]
    assert level in cube.attrs["title"]


def test_decoding_by_cf_gives_reflectance(l1c):
    decoded = xr.decode_cf(io.open_safe(l1c, bands=["B02"])).reflectance.values[0, 0]
    numbers = pixels("B02")
    np.testing.assert_array_equal(np.isnan(decoded), numbers == 0)
    expected = (numbers.astype(float) - 1000) / 10_000
    np.testing.assert_allclose(decoded[numbers > 0], expected[numbers > 0], atol=1e-6)


def test_nothing_is_read_before_it_is_computed(l1c, old, nothing_computes):
    with nothing_computes():
        cube = io.open_safe([l1c, old])
        io.native(cube)
    assert cube.reflectance.chunks is not None


def test_bands_in_the_order_asked_for_and_the_grid_of_the_finest(l1c):
    cube = io.open_safe(l1c, bands=["swir16", "B1", "B8A"])
    assert cube.band.values.tolist() == ["B11", "B01", "B8A"]
    assert cube.reflectance.shape[2:] == (9, 12)
    assert tuple(cube.rio.transform())[:6] == (20, 0, LEFT, 0, -20, TOP)
    numbers_are_those_of(cube, seed=0, grid=20)


def test_native_opens_each_band_at_its_own_resolution(l2a):
    tree = io.open_safe(l2a, native=True)
    assert list(tree.children) == ["r10m", "r20m", "r60m"]
    for name, size in (("r10m", 10), ("r20m", 20), ("r60m", 60)):
        part = tree[name].to_dataset()
        assert {GSD[band] for band in part.band.values} == {size}
        assert tuple(part.rio.transform())[:6] == (size, 0, LEFT, 0, -size, TOP)
        assert part.rio.crs == "EPSG:32632"
        for band in part.band.values:
            np.testing.assert_array_equal(part.reflectance.sel(band=band)[0], pixels(band, 1))
    assert sum(tree[name].sizes["band"] for name in tree.children) == 12


def test_a_band_that_is_not_there_at_its_own_resolution_is_read_at_the_finest(tmp_path, l2a):
    root = Safe(level="L2A").write(tmp_path)
    document = root / "MTD_MSIL2A.xml"
    document.write_text(re.sub(r"<IMAGE_FILE>[^<]*_B05_20m</IMAGE_FILE>", "", document.read_text()))
    cube = io.open_safe(root, bands=["B05"])
    np.testing.assert_array_equal(cube.reflectance[0, 0], pixels("B05", 0, 60))


# Several dates


def test_dates_are_sorted_and_brought_to_one_offset(l1c, old):
    cube = io.open_safe([l1c, old])
    assert np.diff(cube.time.values.astype(int)) > 0
    numbers_are_those_of(cube, seed=2, time=0, added=1000)
    numbers_are_those_of(cube, seed=0, time=1)
    assert cube.offset_added.values.tolist() == [1000, 0]
    assert cube.reflectance.attrs["add_offset"] == -0.1


def test_dates_without_any_offset_stay_without(old, tmp_path):
    later = {**BEFORE, "start": "20200108T101329", "sensed": "2020-01-08T10:18:05Z"}
    cube = io.open_safe([old, Safe(seed=3, **later).write(tmp_path)])
    numbers_are_those_of(cube, seed=2)
    numbers_are_those_of(cube, seed=3, time=1)
    assert "offset_added" not in cube.coords
    assert "add_offset" not in cube.reflectance.attrs


def test_of_two_processings_the_newest_is_kept(old, tmp_path):
    again = {**BEFORE, "baseline": "05.00", "offset": 1000, "generated": "20230301T000000"}
    newer = Safe(seed=4, **again).write(tmp_path)
    for order in ([old, newer], [newer, old]):
        with pytest.warns(UserWarning, match=rf"newest baseline.*{old.name} \(baseline 02.08\)"):
            cube = io.open_safe(order)
        assert cube.product.values.tolist() == [newer.name]
        numbers_are_those_of(cube, seed=4)


def test_two_parts_of_a_tile_on_the_seam_of_datastrips_are_both_kept(l1c, tmp_path):
    seam = Safe(seed=5, datastrip="20240103T101640", sensed="2024-01-03T10:18:17Z")
    cube = io.open_safe([l1c, seam.write(tmp_path)], bands=["B02"])
    assert cube.sizes["time"] == 2


# There and back


def test_through_the_codec_and_back(l1c, old, tmp_path):
    cube = io.open_safe([l1c, old])
    cube.tec.compress(tmp_path / "a.zarr", compression=10_000, progress=False)
    opened = xr.open_zarr(tmp_path / "a.zarr")
    assert opened.tec.info().offset == 1000
    assert opened.rio.crs == cube.rio.crs
    assert opened.reflectance.rio.transform() == cube.reflectance.rio.transform()
    for name in ("time", "product", "processing_baseline", "offset_added", "band"):
        np.testing.assert_array_equal(opened[name], cube[name])
    quality = opened.tec.quality(cube)
    assert quality.mask_errors.sum() == 0
    assert quality.max_error.max() < 100
    tree = opened.tec.native()
    assert [tree[name].sizes["y"] for name in tree.children] == [ROWS, ROWS // 2, ROWS // 6]
    own = xr.decode_cf(io.open_safe([l1c, old], native=True)["r60m"].to_dataset())
    error = tree["r60m"].reflectance - own.reflectance
    assert float(abs(error).max()) < 100e-4
    saturated = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False).reflectance == 65535
    np.testing.assert_array_equal(saturated, cube.reflectance == 65535)


# What is not whole


def spoil(folder, name, old, new):
    """A product with a text of its metadata replaced."""
    root = Safe(level="L2A").write(folder)
    (document,) = root.rglob(name)
    text = document.read_text()
    assert re.search(old, text)
    document.write_text(re.sub(old, new, text))
    return root


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("MTD_MSIL2A.xml", "</n1:General_Info>", "", r"MTD_MSIL2A.xml: not XML.*download it again"),
        ("MTD_MSIL2A.xml", "IMAGE_FILE", "IMAGE", r"lists no image of a band"),
        ("MTD_MSIL2A.xml", "PROCESSING_BASELINE", "X", "does not say PROCESSING_BASELINE"),
        ("MTD_MSIL2A.xml", "datatakeIdentifier", "x", "does not say datatakeIdentifier"),
        ("MTD_MSIL2A.xml", ">10000<", ">ten<", "'ten' stands where a number should"),
        ("MTD_MSIL2A.xml", 'band_id="3">-1000', 'band_id="3">-500', "no one radiometric offset"),
        ("MTD_MSIL2A.xml", 'band_id="3"', 'band_id="14"', "no one radiometric offset"),
        ("MTD_MSIL2A.xml", "L2A_T32TQR_A035655", "L2A_T32TQR_A0", "MTD_TL.xml: the file is"),
        ("MTD_TL.xml", "SENSING_TIME", "TIME", "does not say SENSING_TIME"),
        ("MTD_TL.xml", "2024-01-03T10:18", "soon", "'soon.*' is no time"),
        ("MTD_TL.xml", "NROWS", "ROWS", "Tile_Geocoding at '10' m is incomplete"),
        ("MTD_TL.xml", "<NROWS>18", "<NROWS>19", r"contradict the file of B02.*19 x 24 .*18 x 24"),
        ("MTD_TL.xml", "EPSG:32632", "EPSG:32633", r"contradict.*EPSG:32633 against.*EPSG:32632"),
        ("MTD_TL.xml", "<ULX>600000", "<ULX>600010", r"contradict the file.*600010.*600000"),
    ],
)  # fmt: skip
def test_wrong_metadata(name, old, new, message, tmp_path):
    root = spoil(tmp_path, name, old, new)
    with pytest.raises(InputError, match=message) as caught:
        io.open_safe(root, bands=["B02"])
    assert str(root) in str(caught.value) or root.name in str(caught.value)


def test_a_missing_file_and_a_way_round_it(tmp_path):
    root = Safe(leave_out=("B05",)).write(tmp_path)
    with pytest.raises(InputError, match=r"file of B05, GRANULE.*_B05.jp2, is missing.*bands="):
        io.open_safe(root)
    with pytest.raises(InputError, match=r"file of B05.*is missing"):
        io.open_safe(zipped(root))
    assert io.open_safe(root, bands=["B04", "B08"]).sizes["band"] == 2


def test_a_damaged_file(tmp_path, monkeypatch):
    root = Safe().write(tmp_path)
    next(root.rglob("*_B02.jp2")).write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"file of B02.*cannot be read.*Download the product"):
        io.open_safe(root)
    monkeypatch.setattr(rasterio.Env, "drivers", lambda self: {"GTiff": "GeoTIFF"})
    with pytest.raises(InputError, match=r"cannot be read.*conda install libgdal-jp2openjpeg"):
        io.open_safe(root)


def test_entities_that_grow_without_end(tmp_path):
    root = Safe().write(tmp_path)
    lines = [
        '<!ENTITY a0 "sentinel">',
        *(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9)),
    ]
    text = f"<?xml version='1.0'?><!DOCTYPE x [{''.join(lines)}]><x>&a9;</x>"
    (root / "MTD_MSIL1C.xml").write_text(text)
    with pytest.raises(InputError, match=r"not XML \(.*amplification"):
        io.open_safe(root)


def test_an_image_of_another_size(tmp_path):
    root = Safe().write(tmp_path)
    write_jp2(next(root.rglob("*_B02.jp2")), pixels("B02", rows=12), 10)
    with pytest.raises(InputError, match=r"contradict the file of B02.*18 x 24.*12 x 24"):
        io.open_safe(root)


def test_a_band_that_the_level_has_not(l2a):
    with pytest.raises(BandError, match=r"no band B10; it has B01, B02"):
        io.open_safe(l2a, bands=["B02", "B10"])
    with pytest.raises(BandError, match="'SCL' is unknown"):
        io.open_safe(l2a, bands=["SCL"])


@pytest.mark.parametrize(
    ("baseline", "implied"),
    [
        ("02.08", 0), ("03.01", 0), ("04.00", 1000), ("05.11", 1000), ("99.99", None),
        ("00.00", None), ("", None), ("N0400", None), ("nan", None), ("inf", None),
    ],
)  # fmt: skip
def test_what_a_baseline_implies(baseline, implied):
    assert offset_of_baseline(baseline) == implied


@pytest.mark.parametrize("baseline", ["04.00", "99.99", "unknown"])
def test_an_unknown_offset_is_asked_for(baseline, tmp_path):
    root = Safe(level="L2A", baseline=baseline, offset=None).write(tmp_path)
    with pytest.raises(InputError, match=rf"states no.*offset.*'{baseline}'.*offset=0.*=1000"):
        io.open_safe(root, bands=["B02"])
    for offset in (0, 1000):
        cube = io.open_safe(root, bands=["B02"], offset=offset)
        assert cube.reflectance.attrs.get("add_offset", 0) == -offset / 10_000


def test_products_that_do_not_belong_together(l1c, l2a, tmp_path):
    other = Safe(tile="32TQS").write(tmp_path)
    with pytest.raises(InputError, match=r"different tiles: 32TQR, 32TQS.*open each group"):
        io.open_safe([l1c, other])
    with pytest.raises(InputError, match=r"different levels: L1C, L2A"):
        io.open_safe([l1c, l2a])
    odd = Safe(**{**BEFORE, "quantification": "1000"}).write(tmp_path)
    with pytest.raises(InputError, match=r"different quantification values: 1000.0, 10000.0"):
        io.open_safe([l1c, odd])
    moved = dataclasses.replace(Safe(**BEFORE), left=LEFT + 60).write(tmp_path / "moved")
    with pytest.raises(InputError, match=r"differ in the grid of B01.*Open places apart"):
        io.open_safe([l1c, moved])


def test_what_is_no_product(tmp_path):
    with pytest.raises(InputError, match=r"does not exist; give a .SAFE folder or a zip"):
        io.open_safe(tmp_path / "none.SAFE")
    (tmp_path / "empty.SAFE").mkdir()
    with pytest.raises(InputError, match=r"holds no MTD_MSIL1C.xml or MTD_MSIL2A.xml.*2016"):
        io.open_safe(tmp_path / "empty.SAFE")
    (tmp_path / "file.tif").write_bytes(b"II")
    with pytest.raises(InputError, match=r"no .SAFE folder and no zip file"):
        io.open_safe(tmp_path / "file.tif")
    with pytest.raises(InputError, match="the list of files is empty"):
        io.open_safe([])


def test_the_products_are_true_to_form(l1c, l2a):
    """The canary: were all bands of one size or value, the tests above would prove little."""
    assert len({pixels(band).tobytes() for band in L1C}) == 13
    assert len(list(l1c.rglob("IMG_DATA/*.jp2"))) == 14
    assert {p.parent.name for p in l2a.rglob("*.jp2")} == {"R10m", "R20m", "R60m"}
    assert [len(L2A[size]) for size in (10, 20, 60)] == [4, 10, 11]
