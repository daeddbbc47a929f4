"""Bands repeated onto a finer grid, and their own pixels again, exactly."""

import json

import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xtec  # noqa: F401  registers .tec
from xtec import io
from xtec.errors import InputError
from xtec.io.grid import NATIVE, Grid, repeat
from xtec.io.radiometry import raised
from xtec.io.scene import BLOCK, Scene, to_cube, to_tree

few = settings(max_examples=8)
"""Each example computes a handful of lazy cubes."""

STEPS = {"B02": 10, "B05": 20, "B01": 60}


def band(values, step, left=600000, top=5100000):
    rows, columns = values.shape
    return xr.DataArray(
        values,
        dims=("y", "x"),
        coords={
            "y": top - step / 2 - step * np.arange(rows, dtype=float),
            "x": left + step / 2 + step * np.arange(columns, dtype=float),
        },
    )


def scene(rows=3, columns=4, seed=0, dtype="uint16", **more):
    rng = np.random.default_rng(seed)
    bands = {
        name: band(rng.integers(0, 6000, (rows * 60 // s, columns * 60 // s)).astype(dtype), s)
        for name, s in STEPS.items()
    }
    when = np.datetime64("2024-01-03T10:18:03", "ns") + np.timedelta64(seed, "D")
    return Scene(f"scene {seed}", when, bands, "EPSG:32632", 0, **more)


def same(tree, other):
    assert list(tree.children) == list(other.children)
    for name in tree.children:
        one, two = (each[name].to_dataset().load() for each in (tree, other))
        xr.testing.assert_identical(one, two)
        assert one.rio.transform() == two.rio.transform()
        assert one.rio.crs == two.rio.crs == "EPSG:32632"


# Laws


@few
@given(
    rows=st.integers(2, 4),
    columns=st.integers(2, 4),
    dtype=st.sampled_from(["uint16", "int16"]),
    chunk=st.integers(1, 30),
)
def test_there_and_back_is_exact(rows, columns, dtype, chunk):
    scenes = [scene(rows, columns, seed, dtype) for seed in (0, 1)]
    cube = to_cube(scenes, {"long_name": "reflectance"})
    expected = to_tree(scenes, {"long_name": "reflectance"})
    same(io.native(cube), expected)
    same(io.native(cube.load()), expected)
    same(io.native(cube.chunk(y=chunk, x=chunk)), expected)


@few
@given(data=st.data(), dtype=st.sampled_from(["uint16", "float32", "float64"]))
def test_pixels_of_any_crop_are_those_of_the_whole(data, dtype):
    cube = to_cube([scene()], {})
    cube["reflectance"] = cube.reflectance.astype(dtype) * (1 if dtype == "uint16" else 1 / 3)
    whole = io.native(cube)
    crop = {}
    for dim in ("y", "x"):
        start = data.draw(st.integers(0, cube.sizes[dim] - 2))
        crop[dim] = slice(start, data.draw(st.integers(start + 2, cube.sizes[dim])))
    part = io.native(cube.isel(crop))
    for name in whole.children:
        cropped, own = part[name].to_dataset(), whole[name].to_dataset()
        xr.testing.assert_equal(cropped.reflectance, own.reflectance.sel(y=cropped.y, x=cropped.x))


@few
@given(seed=st.integers(0, 99), bound=st.integers(0, 50))
def test_the_mean_errs_no_more_than_its_copies(seed, bound):
    cube = to_cube([scene()], {}).load()
    rng = np.random.default_rng(seed)
    before = cube.reflectance.astype(int)
    noise = rng.integers(-bound, bound + 1, before.shape)
    coded = cube.assign(reflectance=(before + noise).clip(0, 65535).astype("uint16"))
    coded.reflectance.attrs = cube.reflectance.attrs
    error = abs(coded.reflectance.astype(int) - before)
    for name, own in io.native(cube).children.items():
        made = io.native(coded)[name].reflectance.astype(int)
        off = abs(made - own.to_dataset().reflectance.astype(int))
        assert int(off.max()) <= bound
        copies = float((error.sel(band=made.band) ** 2).mean())
        # A rounded mean may lie half a digital number further off than the mean itself.
        assert float((off.astype(float) ** 2).mean()) <= (copies**0.5 + 0.5) ** 2


def test_averaging_pays():
    """The canary of the law above: errors of many copies cancel."""
    cube = to_cube([scene(8, 8)], {}).load()
    noise = np.random.default_rng(0).normal(0, 30, cube.reflectance.shape).round().astype(int)
    before = cube.reflectance.astype(int) + 1000
    coded = cube.assign(reflectance=(before + noise).astype("uint16"))
    coded.reflectance.attrs = cube.reflectance.attrs
    made = io.native(coded)["r60m"].reflectance.astype(int)
    own = io.native(cube)["r60m"].reflectance.astype(int) + 1000
    assert float((made - own).std()) < 8


def test_on_real_pixels_the_mean_is_nearer_than_one_copy(real_cubes, tmp_path):
    """In this cube pixels of 20 m are copied 2 x 2 times, those of 60 m otherwise."""
    bands = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
    pixels = real_cubes("val/oscd__lasvegas.cube").sel(band=bands)[:1, :, :96, :96]
    twenty = [name for name in bands if name not in ("B02", "B03", "B04", "B08")]
    scene = Scene(
        "Las Vegas",
        np.datetime64("2018-01-01", "ns"),
        {
            name: band(one.values[:: 1 + (name in twenty), :: 1 + (name in twenty)],
                       20 if name in twenty else 10)
            for name, one in zip(bands, pixels[0], strict=True)
        },
        "EPSG:32611",
        0,
        scale=None,
    )  # fmt: skip
    cube = to_cube([scene], {})
    np.testing.assert_array_equal(cube.reflectance, pixels)  # real copies, as we make them
    opened = cube.tec.compress(tmp_path / "a.zarr", progress=False)
    own = io.native(cube)["r20m"].reflectance.astype(float).values
    mean = io.native(opened)["r20m"].reflectance.values
    first = opened.reflectance.sel(band=twenty).values[:, :, ::2, ::2]
    assert ((mean - own) ** 2).mean() < 0.85 * ((first - own) ** 2).mean()


def test_no_data_and_nan_stay():
    for dtype in ("float32", "float64"):
        cube = to_cube([scene()], {})
        values = cube.reflectance.astype(dtype)
        cube["reflectance"] = values.where(values > 3000)
        made = io.native(cube)["r60m"].reflectance.values
        own = to_tree([scene()], {})["r60m"].reflectance.values.astype(dtype)
        np.testing.assert_array_equal(made, np.where(own > 3000, own, np.nan))


def test_time_band_and_other_coordinates_go_along():
    cube = to_cube([scene(seed=n, about={"product": f"p{n}"}) for n in (1, 0)], {})
    tree = io.native(cube.sel(band=["B05", "B01"]))
    assert list(tree.children) == ["r20m", "r60m"]
    for node in tree.children.values():
        assert node["product"].values.tolist() == ["p0", "p1"]
        assert node.sizes["time"] == 2
        assert NATIVE not in node["reflectance"].attrs


def test_a_cube_of_one_resolution_is_its_own():
    cube = to_cube([scene()], {})[["reflectance"]].sel(band=["B02"])
    tree = io.native(cube.reflectance)
    assert list(tree.children) == ["r10m"]
    np.testing.assert_array_equal(tree["r10m"].reflectance, cube.reflectance)


# What does not fit


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (band(np.ones((9, 12), "u2"), 20, left=600005), "B05 of s lies on.*does not fit the grid"),
        (band(np.ones((8, 12), "u2"), 20), "does not fit the grid"),
        (band(np.ones((9, 12), "u2"), 20, top=5099980), "does not fit the grid"),
        (band(np.ones((12, 16), "u2"), 15), "does not fit the grid"),
        (
            band(np.ones((9, 12), "u2"), 20).drop_vars(["x", "y"]),
            r"B05 of s has no coordinates along x and y.*Warp it",
        ),
    ],
)
def test_grids_that_do_not_fit(other, message):
    bands = {"B02": band(np.ones((18, 24), "u2"), 10), "B05": other}
    odd = Scene("s", np.datetime64("2024-01-03", "ns"), bands, "EPSG:32632", 0)
    with pytest.raises(InputError, match=message):
        to_cube([odd], {})


def test_a_coarse_band_may_reach_further():
    bands = {
        "B02": band(np.ones((10, 9), "u2"), 10, left=600010, top=5099990),
        "B05": band(np.arange(108, dtype="u2").reshape(9, 12), 20),
    }
    cube = to_cube([Scene("s", np.datetime64("2024-01-03", "ns"), bands, None, 0)], {})
    expected = bands["B05"].values.repeat(2, 0).repeat(2, 1)[1:11, 1:10]
    np.testing.assert_array_equal(cube.reflectance.sel(band="B05")[0], expected)
    part = io.native(cube)["r20m"].reflectance
    np.testing.assert_array_equal(part[0, 0], bands["B05"].values[:6, :5])


@pytest.mark.parametrize("text", ["{", '{"B05": 3}', '["B05"]', '{"B05": [1, 2, 3]}', 7])
def test_a_damaged_attribute(text):
    cube = to_cube([scene()], {})
    cube.reflectance.attrs[NATIVE] = text
    with pytest.raises(InputError, match=r"the attribute 'tec_native' is damaged.*Delete it"):
        io.native(cube)


def test_pixels_that_are_no_neighbours():
    cube = to_cube([scene()], {})
    for crop in ({"x": [0, 1, 2, 9, 10, 11]}, {"y": slice(None, None, -1)}, {"x": slice(0, 24, 5)}):
        with pytest.raises(InputError, match=r"does not run along the pixels of"):
            io.native(cube.isel(crop))
    moved = json.loads(cube.reflectance.attrs[NATIVE])
    assert set(moved) == {"B05", "B01"}


# The parts


def test_blocks_of_repeated_bands_are_those_of_the_grid():
    """Real tiles: each Dask block of 60 m pixels becomes one block of the cube's."""
    fine, coarse = (Grid(600000, 5100000, s, -s, 109800 // s, 109800 // s) for s in (10, 60))
    pixels = da.zeros((1830, 1830), chunks=BLOCK // 6, dtype="u2")
    chunks = repeat(pixels, fine.inside(coarse), fine).chunks
    assert chunks[0][:-1] == (BLOCK,) * 7
    assert BLOCK % 256 == BLOCK % 6 == 0


@few
@given(
    values=st.lists(st.integers(0, 65535), min_size=1, max_size=20),
    by=st.integers(0, 32767),
    nodata=st.sampled_from([0, 7]),
)
def test_raising_an_offset(values, by, nodata):
    made = raised(xr.DataArray(np.array(values, "u2"), dims="x"), by, nodata).values.tolist()
    for before, after in zip(values, made, strict=True):
        special = before in (nodata, 65535)
        assert after == (before if special or not by else min(before + by, 65534))
