"""Cubes as stackstac, odc-stac and EOPF make them; their forms were taken from the real libraries
(stackstac 0.5.1, odc-stac 0.5.3, EOPF CPM 2.5 and 2.6)."""

from dataclasses import dataclass

import dask.array as da
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from affine import Affine

import xtec  # noqa: F401  registers .tec
from tests.products import COLUMNS, GSD, L1C, LEFT, ROWS, TOP, eopf, pixels, repeated
from xtec import io
from xtec.errors import BandError, InputError

ZARR = "ignore:(Consolidated metadata|The data type .* does not have a Zarr V3)"
AT = (10, 0, LEFT, 0, -10, TOP)


@dataclass(frozen=True)
class RasterSpec:
    """What stackstac puts among the attributes: nothing that JSON could hold."""

    epsg: int = 32632


def stacked(bands=("B02", "B04", "B8A"), dtype="uint16", corner=True, **coordinates):
    """As `stackstac.stack` makes it."""
    shift = 0 if corner else 5
    numbers = np.stack([[repeated(band, date) for band in bands] for date in (0, 1)])
    values = numbers.astype(dtype)
    if dtype == "float64":
        values[numbers == 0] = np.nan
    return xr.DataArray(
        da.from_array(values, chunks=(1, 1, -1, -1)),
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.array(["2020-01-03T10:18:03", "2024-01-03T10:18:03"], "M8[us]"),
            "band": list(bands),
            "x": LEFT + shift + 10.0 * np.arange(COLUMNS),
            "y": TOP - shift - 10.0 * np.arange(ROWS),
            "id": ("time", ["S2B_0", "S2B_1"]),
            "epsg": 32632,
            "gsd": ("band", [10 for _ in bands]),
            "title": ("band", np.array([None, *["Red"] * (len(bands) - 1)], object)),
            "raster:bands": xr.Variable((), np.array({"nodata": 0}, object)),
            "common_name": ("band", np.array(["blue"] * len(bands), object)),
        }
        | coordinates,
        attrs={
            "spec": RasterSpec(),
            "crs": "epsg:32632",
            "transform": Affine(*AT),
            "resolution": 10,
        },
        name="stackstac-f46843a33a3860249fec5e3d29be28ef",
    )


def baselines(*values):
    return {"s2:processing_baseline": ("time", list(values)) if len(values) > 1 else values[0]}


def numbers_are(cube, dates, bands=("B02", "B04", "B8A")):
    for time, (seed, added) in enumerate(dates):
        for place, band in enumerate(bands):
            expected = repeated(band, seed).astype(int)
            expected[(expected != 0) & (expected != 65535)] += added
            np.testing.assert_array_equal(cube.reflectance.isel(time=time, band=place), expected)


# stackstac


@pytest.mark.parametrize("dtype", ["uint16", "float64"])
@pytest.mark.parametrize("corner", [True, False])
def test_a_stack_of_two_baselines(dtype, corner, nothing_computes, tmp_path):
    stack = stacked(dtype=dtype, corner=corner, **baselines("02.08", "05.10"))
    before = stack.copy()
    with nothing_computes():
        cube = io.as_cube(stack, scale=1 if dtype == "float64" else None)
    xr.testing.assert_identical(stack, before)
    assert cube.reflectance.dtype == "uint16"
    numbers_are(cube, [(0, 1000), (1, 0)])
    assert cube.offset_added.values.tolist() == [1000, 0]
    assert cube.reflectance.attrs["add_offset"] == -0.1
    assert tuple(cube.rio.transform())[:6] == AT
    assert cube.reflectance.rio.crs == "EPSG:32632"
    assert "spec" not in cube.reflectance.attrs
    assert not {"title", "raster:bands"} & set(cube.coords)
    assert cube.common_name.values.tolist() == ["blue"] * 3
    small = cube.isel(band=[0, 1])
    opened = small.tec.compress(tmp_path / "a.zarr", compression=10_000, progress=False)
    assert opened.tec.info().offset == 1000
    assert opened.tec.quality(small).mask_errors.sum() == 0


def test_a_crop_of_a_stack_keeps_its_place():
    cube = io.as_cube(stacked().isel(y=slice(2, 9), x=slice(3, 9)))
    assert tuple(cube.rio.transform())[:6] == (10, 0, LEFT + 30, 0, -10, TOP - 20)


def test_one_baseline_for_all_dates():
    cube = io.as_cube(stacked(**baselines("05.10")))
    numbers_are(cube, [(0, 0), (1, 0)])
    assert cube.reflectance.attrs["add_offset"] == -0.1
    assert "offset_added" not in cube.coords


def test_offsets_that_a_catalogue_took_off():
    taken = {"earthsearch:boa_offset_applied": ("time", [False, True])}
    cube = io.as_cube(stacked(**baselines("04.00", "05.10"), **taken))
    numbers_are(cube, [(0, 0), (1, 1000)])


def test_without_a_baseline_nothing_is_claimed():
    cube = io.as_cube(stacked())
    numbers_are(cube, [(0, 0), (1, 0)])
    assert not {"scale_factor", "add_offset", "units"} & set(cube.reflectance.attrs)
    assert cube.reflectance.attrs["_FillValue"] == 0


@pytest.mark.parametrize(
    ("offset", "added", "says"),
    [(1000, [0, 0], -0.1), (0, [0, 0], 0), ([0, 1000], [1000, 0], -0.1), ((5, 0), [0, 5], -5e-4)],
)
def test_offsets_that_the_user_knows_come_first(offset, added, says):
    cube = io.as_cube(stacked(**baselines("02.08", "05.10")), offset=offset)
    numbers_are(cube, [(0, added[0]), (1, added[1])])
    assert cube.reflectance.attrs.get("add_offset", 0) == says


def test_reflectance_in_floating_point():
    stack = stacked(dtype="float64")
    low = stack * 1e-4 - 0.15  # some below zero, as Earth Search's scale and offset give
    cube = io.as_cube(low.assign_attrs(stack.attrs))
    assert cube.reflectance.attrs["add_offset"] == -0.1
    decoded = xr.decode_cf(cube).reflectance.isel(band=[0, 1])
    expected = low.isel(band=[0, 1]).values
    assert np.nanmin(expected) < 0
    valid = np.isfinite(expected) & (expected < 6)
    np.testing.assert_array_equal(np.isnan(decoded.values), np.isnan(expected))
    np.testing.assert_allclose(decoded.values[valid], expected[valid], atol=6e-5)


def test_numbers_taken_for_reflectance_are_told_when_computed():
    cube = io.as_cube(stacked(dtype="float64"))
    with pytest.raises(InputError, match=r"do not fit.*Digital numbers in floating point"):
        cube.compute()


def test_what_is_no_band_is_left_out_with_a_word():
    stack = xr.concat([stacked(), stacked().isel(band=[0]).assign_coords(band=["SCL"])], "band")
    with pytest.warns(UserWarning, match="SCL among the bands are none of Sentinel-2's"):
        cube = io.as_cube(stack)
    assert cube.band.values.tolist() == ["B02", "B04", "B8A"]
    cube = io.as_cube(stack, bands=["nir08", "red"])
    assert cube.band.values.tolist() == ["B8A", "B04"]
    numbers_are(cube, [(0, 0), (1, 0)], bands=("B8A", "B04"))


def test_an_unknown_baseline_is_asked_for():
    with pytest.raises(InputError, match=r"baseline 'None' is unknown.*offset=0 or 1000"):
        io.as_cube(stacked(**baselines("05.10", "None")))
    with pytest.raises(InputError, match="1 offsets for 2 dates"):
        io.as_cube(stacked(), offset=[1000])
    with pytest.raises(InputError, match=r"offsets \[-5\] are not radiometric offsets"):
        io.as_cube(stacked(), offset=-5)


# odc-stac


def loaded(names=("red", "nir", "B05"), **attributes):
    """As `odc.stac.load` makes it."""
    bands = {"red": "B04", "nir": "B08", "B05": "B05"}
    made = xr.Dataset(
        {
            name: (
                ("time", "y", "x"),
                np.stack([repeated(bands[name], date) for date in (0, 1)]),
                {"nodata": 0} | attributes,
            )
            for name in names
        },
        coords={
            "y": TOP - 5 - 10.0 * np.arange(ROWS),
            "x": LEFT + 5 + 10.0 * np.arange(COLUMNS),
            "time": np.array(["2020-01-03T10:18:03", "2024-01-03T10:18:03"], "M8[us]"),
        },
    )
    made["SCL"] = (made[names[0]] % 12).astype("uint8").drop_attrs()
    made = made.rio.write_crs(32632)
    for name in made.data_vars:
        made[name].encoding["grid_mapping"] = "spatial_ref"
    return made.chunk(time=1)


def test_a_loaded_dataset(tmp_path):
    given = loaded()
    cube = io.as_cube(given, offset=[0, 1000])
    assert list(cube.data_vars) == ["SCL", "reflectance"]
    assert cube.band.values.tolist() == ["red", "nir", "B05"]
    numbers_are(cube, [(0, 1000), (1, 0)], bands=("B04", "B08", "B05"))
    xr.testing.assert_equal(cube.SCL.drop_vars("offset_added"), given.SCL)
    assert tuple(cube.rio.transform())[:6] == AT
    assert cube.rio.crs == "EPSG:32632"
    opened = cube.tec.compress(tmp_path / "a.zarr", compression=10_000, progress=False)
    assert opened.tec.quality(cube).mask_errors.sum() == 0
    assert list(opened.tec.unstack())[:4] == ["red", "nir", "B05", "SCL"]


def test_some_bands_of_a_loaded_dataset():
    cube = io.as_cube(loaded(), bands=["B8", "B4"])
    assert set(cube.band.values) == {"nir", "red"}
    assert "SCL" in cube
    with pytest.raises(BandError, match=r"no band B02; there are red, nir, B05"):
        io.as_cube(loaded(), bands=["B02"])


def test_attributes_that_say_scale_and_offset():
    cube = io.as_cube(loaded(scale_factor=1e-4, add_offset=-0.1))
    assert cube.reflectance.attrs["add_offset"] == -0.1
    with pytest.raises(InputError, match="offset=0 contradicts"):
        io.as_cube(loaded(scale_factor=1e-4, add_offset=-0.1), offset=0)
    with pytest.raises(InputError, match=r"offset=\[0, 1000\] contradicts.*1000; leave"):
        io.as_cube(loaded(scale_factor=1e-4, add_offset=-0.1), offset=[0, 1000])


@pytest.mark.parametrize("names", [("latitude", "longitude"), ("lat", "lon")])
def test_geographic_coordinates(names, tmp_path):
    y, x = names
    given = loaded().drop_vars("spatial_ref").rename({"y": y, "x": x})
    given = given.assign_coords({y: 46 - 1e-4 * np.arange(ROWS), x: 9 + 1e-4 * np.arange(COLUMNS)})
    given = given.rio.set_spatial_dims(x, y).rio.write_crs(4326)
    cube = io.as_cube(given, offset=1000)
    assert cube.reflectance.dims == ("time", "band", y, x)
    numbers_are(cube, [(0, 0), (1, 0)], bands=("B04", "B08", "B05"))
    assert cube.rio.crs == "EPSG:4326"
    assert list(io.native(cube).children) == ["r0_0001m"]
    (first, _) = io.to_geotiff(cube, tmp_path)
    with rasterio.open(first) as file:
        np.testing.assert_allclose(file.bounds.left, 9 - 0.5e-4)
        np.testing.assert_allclose(file.transform.e, -1e-4)
        assert file.crs == "EPSG:4326"


# EOPF


@pytest.fixture(scope="module", params=[("L1C", 2), ("L2A", 2), ("L2A", 3)], ids=str)
def product(request, tmp_path_factory):
    level, zarr_format = request.param
    path = tmp_path_factory.mktemp("eopf") / "a.zarr"
    return eopf(path, level, zarr_format=zarr_format), level


@pytest.mark.filterwarnings(ZARR)
@pytest.mark.parametrize("options", [{}, {"mask_and_scale": False}, {"chunks": {}}], ids=str)
def test_a_product_of_eopf(product, options):
    path, level = product
    cube = io.as_cube(xr.open_datatree(path, engine="zarr", **options))
    bands = [band for band in L1C if level == "L1C" or band != "B10"]
    assert cube.band.values.tolist() == bands
    numbers_are(cube, [(0, 0)], bands)
    assert cube.reflectance.dtype == "uint16"
    assert cube.reflectance.chunks is not None
    assert cube.reflectance.attrs["add_offset"] == -0.1
    assert cube.reflectance.attrs["_FillValue"] == 0
    assert cube.time.values.astype(str).tolist() == ["2026-07-21T10:17:00.698247000"]
    assert cube.rio.crs == "EPSG:32632"
    assert tuple(cube.rio.transform())[:6] == AT
    tree = io.native(cube)
    for name, size in (("r10m", 10), ("r20m", 20), ("r60m", 60)):
        part = tree[name].to_dataset()
        assert tuple(part.rio.transform())[:6] == (size, 0, LEFT, 0, -size, TOP)
        for band in part.band.values:
            assert GSD[band] == size
            np.testing.assert_array_equal(part.reflectance.sel(band=band)[0], pixels(band))


@pytest.mark.filterwarnings(ZARR)
def test_several_products_of_eopf(tmp_path):
    dates = [
        xr.open_datatree(eopf(tmp_path / "b.zarr", seed=1), engine="zarr"),
        xr.open_datatree(
            eopf(tmp_path / "a.zarr", seed=2, sensed="2020-07-21T10:17:00Z", offset=0.0),
            engine="zarr",
        ),
    ]
    cube = io.as_cube(dates, bands=["B02", "B11"])
    numbers_are(cube, [(2, 1000), (1, 0)], ["B02", "B11"])
    assert cube.offset_added.values.tolist() == [1000, 0]
    opened = cube.tec.compress(tmp_path / "c.zarr", compression=10_000, progress=False)
    assert [node.sizes["x"] for node in opened.tec.native().children.values()] == [24, 12]
    with pytest.raises(InputError, match="are of one time"):
        io.as_cube([dates[0], dates[0]])


@pytest.mark.filterwarnings(ZARR)
def test_a_product_of_eopf_that_is_not_whole(tmp_path):
    tree = xr.open_datatree(eopf(tmp_path / "a.zarr"), engine="zarr")
    with pytest.raises(InputError, match="leave offset and scale out"):
        io.as_cube(tree, offset=1000)
    with pytest.raises(BandError, match="has no band B10"):
        io.as_cube(tree, bands=["B10"])
    with pytest.raises(InputError, match=r"no Sentinel-2 product of EOPF.*conditions"):
        io.as_cube(tree.filter(lambda node: "conditions" in node.path))
    bare = tree.copy()
    bare.attrs = {}
    with pytest.raises(InputError, match=r"does not say when it was sensed.*from its root"):
        io.as_cube(bare)


@pytest.mark.filterwarnings(ZARR)
def test_a_group_of_eopf_alone(tmp_path):
    path = eopf(tmp_path / "a.zarr")
    group = xr.open_dataset(path, engine="zarr", group="measurements/reflectance/r10m")
    cube = io.as_cube(group)
    assert cube.band.values.tolist() == ["b02", "b03", "b04", "b08"]
    numbers_are(cube, [(0, 0)], ["B02", "B03", "B04", "B08"])
    assert cube.reflectance.attrs["add_offset"] == -0.1


# Nothing of these


def test_what_is_no_cube():
    with pytest.raises(InputError, match="no band dimension"):
        io.as_cube(xr.Dataset({"a": ("x", [1])}))
    with pytest.raises(InputError, match=r"a list of Dataset is no cube.*Concatenate"):
        io.as_cube([loaded(), loaded()])
    with pytest.raises(InputError, match="nothing to open"):
        io.as_cube([])
    with pytest.raises(InputError, match="is int64; allowed are"):
        io.as_cube(stacked().astype("int64"))
    with pytest.raises(BandError, match="'VV' is unknown"):
        io.as_cube(stacked(bands=("B02",)).assign_coords(band=["VV"]))
