"""GeoTIFFs in, one file per date or per band and date; and decoded cubes out again."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
import xarray as xr

import xtec
from tests.products import GSD, LEFT, TOP, pixels, repeated, write_tif
from xtec import io
from xtec.errors import InputError

BANDS = ("B02", "B03", "B04", "B08")
DATES = ("20200103", "20240103")
AT = (10, 0, LEFT, 0, -10, TOP)


def numbers(seed=0, bands=BANDS):
    return np.stack([pixels(band, seed) for band in bands])


@pytest.fixture
def dates(tmp_path):
    """One file per date with all bands, as Earth Engine and many scripts write them."""
    return [
        write_tif(tmp_path / f"place_{day}.tif", numbers(n), descriptions=BANDS, nodata=0)
        for n, day in enumerate(DATES)
    ]


@pytest.fixture
def apart(tmp_path):
    """One file per band and date, at its own resolution, as browsers of archives give them."""
    return [
        write_tif(tmp_path / f"T32TQR_{day}T101329_{band}_{GSD[band]}m.tif", pixels(band, n)[None],
                  GSD[band], nodata=0)
        for band in ("B8A", "B02", "B01")
        for n, day in enumerate(DATES)
    ]  # fmt: skip


def times(cube):
    return cube.time.values.astype("datetime64[s]").astype(str).tolist()


# In


def test_one_file_per_date(dates, tmp_path, nothing_computes):
    with nothing_computes():
        cube = io.open_geotiffs(reversed(dates))
    assert times(cube) == ["2020-01-03T00:00:00", "2024-01-03T00:00:00"]
    assert cube.band.values.tolist() == list(BANDS)
    assert cube.reflectance.dtype == "uint16"
    np.testing.assert_array_equal(cube.reflectance, [numbers(0), numbers(1)])
    assert tuple(cube.rio.transform())[:6] == AT
    assert cube.reflectance.rio.crs == "EPSG:32632"
    assert cube.reflectance.rio.nodata == 0
    assert "scale_factor" not in cube.reflectance.attrs  # nobody said
    xr.testing.assert_identical(cube, io.open_geotiffs(str(tmp_path / "*.tif")))
    opened = cube.tec.compress(tmp_path / "a.zarr", compression=10_000, progress=False)
    assert opened.tec.quality(cube).mask_errors.sum() == 0


def test_one_file_per_band_and_date(apart):
    cube = io.open_geotiffs(apart)
    assert times(cube) == ["2020-01-03T10:13:29", "2024-01-03T10:13:29"]
    assert cube.band.values.tolist() == ["B01", "B02", "B8A"]
    for place, band in enumerate(cube.band.values):
        for date in (0, 1):
            np.testing.assert_array_equal(cube.reflectance[date, place], repeated(band, date))
    assert list(io.native(cube).children) == ["r10m", "r20m", "r60m"]


@pytest.mark.parametrize(
    "time",
    [
        ["2020-01-03", "2024-01-03"],
        [dt.date(2020, 1, 3), dt.datetime(2024, 1, 3, tzinfo=dt.UTC)],
        [np.datetime64("2020-01-03"), pd.Timestamp("2024-01-03T01:00+01:00")],
        r"_(\d{8})\.",
        lambda path: path.stem.rpartition("_")[2],
    ],
    ids=["text", "datetime", "numpy and zone", "regular expression", "function"],
)
def test_ways_to_say_the_time(time, dates):
    cube = io.open_geotiffs(dates, time=time)
    assert times(cube) == ["2020-01-03T00:00:00", "2024-01-03T00:00:00"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("S2B_MSIL2A_20240103T101329_N0510_R022_T32TQR_20240103T110304.tif", "2024-01-03T10:13:29"),
        ("2024-01-03_x.tif", "2024-01-03T00:00:00"),
        ("x-20240103_101329.tif", "2024-01-03T10:13:29"),
        ("SENTINEL2B_20240103-101329-000_L2A.tif", "2024-01-03T10:13:29"),
        ("12345678_20240103.tif", "2024-01-03T00:00:00"),
    ],
)
def test_dates_in_names(name, found, tmp_path):
    path = write_tif(tmp_path / name, numbers(), descriptions=BANDS)
    assert times(io.open_geotiffs(path)) == [found]


@pytest.mark.parametrize(
    ("descriptions", "bands"),
    [
        (("blue", "Green", "b4", "NIR"), None),
        (("B2, central wavelength 490 nm", "B3", "B4", "B8"), None),
        ((), ["B02", "B03", "B04", "B08"]),
        (("1", "2", "3", "4"), lambda path: ["blue", "green", "red", "nir"]),
    ],
)
def test_ways_to_say_the_bands(descriptions, bands, tmp_path):
    path = write_tif(tmp_path / "20240103.tif", numbers(), descriptions=descriptions)
    assert io.open_geotiffs(path, bands=bands).band.values.tolist() == list(BANDS)


def test_scale_and_offset_of_the_files_are_those_of_the_cube(tmp_path):
    paths = [
        write_tif(tmp_path / f"{day}.tif", numbers(n), descriptions=BANDS, nodata=0,
                  scales=(1e-4,) * 4, offsets=(offset,) * 4)
        for n, (day, offset) in enumerate(zip(DATES, (0, -0.1), strict=True))
    ]  # fmt: skip
    cube = io.open_geotiffs(paths)
    assert cube.offset_added.values.tolist() == [1000, 0]
    assert cube.reflectance.attrs["add_offset"] == -0.1
    np.testing.assert_array_equal(cube.reflectance[1], numbers(1))
    valid = (numbers(0) > 0) & (numbers(0) < 65535)
    np.testing.assert_array_equal(cube.reflectance.values[0][valid], numbers(0)[valid] + 1000)


def test_offsets_that_the_user_knows(dates):
    cube = io.open_geotiffs(dates, offset=lambda path: 1000 if "2024" in path.name else 0)
    assert cube.offset_added.values.tolist() == [1000, 0]
    assert cube.reflectance.attrs["scale_factor"] == 1e-4
    cube = io.open_geotiffs(dates, offset=0)
    assert "add_offset" not in cube.reflectance.attrs


@pytest.mark.parametrize("fill", [None, -9999.0])
def test_reflectance_in_floating_point(fill, tmp_path):
    values = (numbers().astype("float32") - 1200) / 10_000
    values[numbers() == 0] = np.nan if fill is None else fill
    values = np.minimum(values, 1.5)
    path = write_tif(tmp_path / "20240103.tif", values, descriptions=BANDS, nodata=fill)
    cube = io.open_geotiffs(path)
    assert cube.reflectance.dtype == "uint16"
    decoded = xr.decode_cf(cube).reflectance.values[0]
    np.testing.assert_array_equal(np.isnan(decoded), numbers() == 0)
    valid = numbers() > 0
    np.testing.assert_allclose(decoded[valid], values[valid], atol=1e-6)


def test_signed_numbers_with_another_fill(tmp_path):
    values = np.where(numbers() == 0, -9999, numbers().clip(0, 9000)).astype("int16")
    path = write_tif(tmp_path / "20240103.tif", values, descriptions=BANDS, nodata=-9999)
    cube = io.open_geotiffs(path)
    assert cube.reflectance.rio.nodata == -9999
    np.testing.assert_array_equal(cube.reflectance[0], values)


# What cannot be read


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"name": "place.tif"}, {}, "place.tif: no date in the name; say it with time="),
        ({}, {"time": ["2024"] * 2}, "2 dates for 1 files"),
        ({}, {"time": [None]}, "is no date"),
        ({}, {"time": ["soon"]}, "'soon' is no date"),
        ({}, {"time": r"(\d{9})"}, "does not match the name"),
        ({}, {"time": r"\d+"}, "no regular expression with a group"),
        ({}, {"time": "("}, "no regular expression with a group"),
        ({"descriptions": ()}, {}, r"of 4 bands: no descriptions.*bands=\['B02'"),
        ({"descriptions": ("B02", "B03", "B04", "SCL")}, {}, "not all are bands. Say what"),
        ({"descriptions": ("B02", "B03", "B04", "B2")}, {}, "B02 and B2 are all B02"),
        ({}, {"bands": ["B02"]}, "has 4 bands and 1 names, B02"),
        ({}, {"bands": ["B02", "B03", "B04", "X"]}, "'X' is unknown"),
        ({"dtype": "uint8"}, {}, "is uint8; allowed are"),
        ({"scales": (1e-4, 1, 1, 1)}, {}, "bands differ in scale or offset"),
        ({"crop": np.s_[:1], "descriptions": ()}, {}, "of 1 bands.*its name speaks of none"),
        (
            {"crop": np.s_[:1], "descriptions": (), "name": "20240103_B02_red.tif"}, {},
            "its name speaks of B02 and red",
        ),
    ],
)  # fmt: skip
def test_files_that_cannot_be_told(change, options, message, tmp_path):
    change = {
        "name": "20240103.tif",
        "descriptions": BANDS,
        "dtype": "uint16",
        "crop": ...,
    } | change
    values = numbers().astype(change.pop("dtype"))[change.pop("crop")]
    path = write_tif(tmp_path / change.pop("name"), values, **change)
    with pytest.raises(InputError, match=message):
        io.open_geotiffs(path, **options)


def test_files_that_do_not_fit_together(dates, tmp_path):
    copy = write_tif(tmp_path / "copy_20240103.tif", numbers(), descriptions=BANDS, nodata=0)
    with pytest.raises(
        InputError, match=r"B02, B03, B04, B08 of 2024-01-03T00:00:00 is there twice"
    ):
        io.open_geotiffs([*dates, copy])
    cases = [
        ({"left": LEFT + 10}, "differ in the grid of B02"),
        ({"crs": "EPSG:32633"}, "differ in crs"),
        ({"nodata": 7}, "differ in nodata: 0; 7"),
        ({"scales": (1e-4,) * 4}, r"differ in scale: None; 0.0001"),
    ]
    for more, message in cases:
        options = {"descriptions": BANDS, "nodata": 0} | more
        other = write_tif(tmp_path / "other_20250103.tif", numbers(), **options)
        with pytest.raises(InputError, match=message):
            io.open_geotiffs([*dates, other])
    fewer = write_tif(tmp_path / "fewer_20250103.tif", numbers()[:3], descriptions=BANDS[:3])
    with pytest.raises(InputError, match="differ in bands"):
        io.open_geotiffs([*dates, fewer])


def test_a_missing_band_file(apart):
    with pytest.raises(InputError, match=r"differ in bands: B01, B02, B8A; B01, B02\. Select"):
        io.open_geotiffs([p for p in apart if "B8A" not in p.name or "2020" in p.name])


def test_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match="no file matches"):
        io.open_geotiffs(tmp_path / "*.tif")
    with pytest.raises(InputError, match="the list of files is empty"):
        io.open_geotiffs([])
    (tmp_path / "20240103.tif").write_bytes(b"no raster")
    with pytest.raises(InputError, match=r"20240103.tif cannot be read as a raster"):
        io.open_geotiffs(tmp_path / "20240103.tif")


# Out


@pytest.fixture
def decoded(tmp_path, apart):
    """A store of bands of three resolutions, opened plainly."""
    cube = io.open_geotiffs(apart, offset=1000)
    cube.tec.compress(tmp_path / "a.zarr", compression=10_000, progress=False)
    return xr.open_zarr(tmp_path / "a.zarr")


def raw(decoded):
    """Digital numbers in the store behind it."""
    path = decoded.encoding["source"]
    return xr.open_zarr(path, mask_and_scale=False).reflectance.values


def described(path):
    with rasterio.open(path) as file:
        return {
            "crs": file.crs.to_string(),
            "transform": tuple(file.transform)[:6],
            "nodata": file.nodata,
            "dtype": {*file.dtypes},
            "scales": {*file.scales},
            "offsets": {*file.offsets},
        }


TRUE = {
    "crs": "EPSG:32632", "transform": AT, "nodata": 0, "dtype": {"uint16"},
    "scales": {1e-4}, "offsets": {-0.1},
}  # fmt: skip


def test_rioxarray_writes_a_decoded_cube(decoded, tmp_path):
    decoded.reflectance.isel(time=0).rio.to_raster(tmp_path / "a.tif")
    assert described(tmp_path / "a.tif") == TRUE
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(), raw(decoded)[0])


def test_rioxarray_writes_digital_numbers(decoded, tmp_path):
    plain = xr.open_zarr(decoded.encoding["source"], mask_and_scale=False)
    plain.reflectance.isel(time=1).rio.to_raster(tmp_path / "a.tif")
    assert described(tmp_path / "a.tif") == TRUE
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(), raw(decoded)[1])


def test_rioxarray_writes_a_dataset_of_bands(decoded, tmp_path):
    plain = xr.open_zarr(decoded.encoding["source"], mask_and_scale=False)
    plain.tec.unstack().isel(time=0).rio.to_raster(tmp_path / "a.tif")
    assert described(tmp_path / "a.tif") == TRUE
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(), raw(decoded)[0])


def test_rioxarray_writes_a_dataset_of_reflectance(decoded, tmp_path):
    """Without encoding: rioxarray 0.19 writes that of a Dataset, but does not apply it."""
    bands = decoded.tec.unstack().isel(time=0).drop_encoding()
    bands.rio.write_crs(decoded.rio.crs).rio.to_raster(tmp_path / "a.tif", dtype="float32")
    found = described(tmp_path / "a.tif")
    assert found | {"nodata": 0, "dtype": {"uint16"}} == TRUE | {"scales": {1.0}, "offsets": {0.0}}
    with rasterio.open(tmp_path / "a.tif") as file:
        expected = decoded.reflectance.values[0].astype("float32")
        np.testing.assert_array_equal(file.read(), expected)


@pytest.mark.parametrize("cog", [False, True])
def test_export_and_in_again(decoded, cog, tmp_path):
    files = io.to_geotiff(decoded, tmp_path / "out", cog=cog)
    assert [path.name for path in files] == ["20200103T101329.tif", "20240103T101329.tif"]
    assert sorted((tmp_path / "out").iterdir()) == files
    for path in files:
        assert described(path) == TRUE
        with rasterio.open(path) as file:
            assert file.descriptions == ("B01", "B02", "B8A")
            assert (file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == cog
            assert file.tags()["TIFFTAG_DATETIME"].startswith(f"{path.name[:4]}:01:03 10:13:29")
    back = io.open_geotiffs(files)
    np.testing.assert_array_equal(back.reflectance, raw(decoded))
    np.testing.assert_array_equal(back.time, decoded.time)
    xr.testing.assert_equal(back.x, decoded.x)
    xr.testing.assert_equal(back.y, decoded.y)


def test_each_band_at_its_own_resolution(decoded, tmp_path):
    files = io.to_geotiff(decoded, tmp_path, native=True, prefix="place_")
    assert [path.name for path in files[:3]] == [
        f"place_20200103T101329_{name}.tif" for name in ("r10m", "r20m", "r60m")
    ]
    assert [described(path)["transform"][0] for path in files[:3]] == [10, 20, 60]
    back = io.native(io.open_geotiffs(files))
    own = io.native(decoded)
    for name in own.children:
        ours = (own[name].reflectance / 1e-4 + 1000).fillna(0).round().astype(int)
        # Where the mean of copies lies between two numbers, arithmetic decides.
        np.testing.assert_allclose(back[name].reflectance, ours, atol=1)


@pytest.mark.parametrize("form", ["digital numbers", "reflectance", "lazy", "no time", "array"])
def test_cubes_of_any_kind_are_exported(form, cube, tmp_path):
    given = {
        "digital numbers": cube,
        "reflectance": (cube.where(cube.reflectance > 0) * 1e-4).astype("float32"),
        "lazy": cube.chunk(time=2, y=20, x=13),
        "no time": cube.isel(time=0),
        "array": cube.reflectance,
    }[form]
    given = given.assign_coords(spatial_ref=cube.spatial_ref)
    files = io.to_geotiff(given, tmp_path)
    assert len(files) == (1 if form == "no time" else 3)
    for number, path in enumerate(files):
        assert described(path)["crs"] == "EPSG:32632"
        assert described(path)["nodata"] == 0
        with rasterio.open(path) as file:
            expected = cube.reflectance[number].values
            if form == "reflectance":
                expected = np.where(expected > 0, expected + 1000, 0)
                assert set(file.offsets) == {-0.1}
            np.testing.assert_array_equal(file.read(), expected)


def test_what_does_not_fit_is_no_file(cube, tmp_path):
    with pytest.raises(InputError, match="do not fit"):
        io.to_geotiff(cube.astype("float32").drop_attrs(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_chunks_of_a_store_are_decoded_once(decoded, tmp_path, monkeypatch):
    decoded_streams = []
    real = xtec.zarr_v3.decode_chunks

    def counted(streams, **options):
        decoded_streams.extend(streams)
        return real(streams, **options)

    monkeypatch.setattr(xtec.zarr_v3, "decode_chunks", counted)
    io.to_geotiff(decoded, tmp_path / "out")
    assert len(decoded_streams) == 1  # both dates lie in one chunk


def test_files_are_not_overwritten_unasked(decoded, tmp_path):
    (first, *_) = io.to_geotiff(decoded, tmp_path)
    first.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"already holds 20200103T101329.tif.*overwrite=True"):
        io.to_geotiff(decoded, tmp_path)
    assert first.read_bytes() == b"mine"
    io.to_geotiff(decoded, tmp_path, overwrite=True)
    assert described(first) == TRUE


def test_a_failed_export_leaves_nothing_behind(decoded, tmp_path, monkeypatch):
    store = Path(decoded.encoding["source"])
    for chunk in store.rglob("reflectance/c/**/*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:-7])
    with pytest.raises(xtec.StreamError):
        io.to_geotiff(decoded, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_dates_within_one_second(cube, tmp_path):
    close = cube.assign_coords(time=cube.time.values[0] + np.array([0, 1, 2], "timedelta64[ms]"))
    with pytest.raises(InputError, match="lie within one second"):
        io.to_geotiff(close, tmp_path)
    bare = cube.drop_vars("time")
    assert [path.name for path in io.to_geotiff(bare, tmp_path)] == [
        "0000.tif", "0001.tif", "0002.tif"
    ]  # fmt: skip
