"""Axes, bands, packing, chunks and what a store can hold: all that needs no pixel coded."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xtec.cube.chunks import block_shape, chunk_shape, shard_shape
from xtec.cube.layout import find_cube
from xtec.cube.packing import Packing, check, packing_of, snap
from xtec.cube.prepare import prepare
from xtec.cube.stacking import STACKED, stack, unstack
from xtec.cube.storable import storable_attributes, storable_variable
from xtec.cube.stored import settings_of
from xtec.errors import BandError, InputError, ModelError

DIMS = ("time", "band", "y", "x")
NAMES = ["B02", "B04", "B08"]


def array(dims=DIMS, dtype="uint16", bands=NAMES, **options):
    sizes = dict(zip(DIMS, (2, len(bands), 5, 4), strict=True))
    shape = [sizes.get(dim, sizes.get({"latitude": "y", "lon": "x"}.get(dim), 3)) for dim in dims]
    data = np.arange(1, np.prod(shape) + 1).reshape(shape).astype(dtype)
    coords = {"band": bands} if "band" in dims else {}
    return xr.DataArray(data, dims=dims, coords=coords, name="dn", **options)


def per_band(dims=("time", "y", "x"), dtype="uint16", names=("blue", "red", "nir"), **more):
    one = array(dims, dtype)
    arrays = {name: (one + number).astype(dtype) for number, name in enumerate(names)}
    return xr.Dataset(arrays | more)


# Axes and bands


@pytest.mark.parametrize(
    "dims",
    [DIMS, ("band", "time", "y", "x"), ("x", "y", "band", "time"), ("time", "y", "x", "band")],
)
def test_axes_are_brought_into_order(dims):
    cube = find_cube(array(dims).to_dataset())
    assert cube.variable.dims == DIMS
    xr.testing.assert_identical(cube.variable.transpose(*dims), array(dims))


@pytest.mark.parametrize(
    ("dims", "kept"),
    [
        (("t", "bands", "latitude", "longitude"), ("t", "bands", "latitude", "longitude")),
        (("X", "Y", "Band", "Time"), ("Time", "Band", "Y", "X")),
        (("band", "lat", "lon"), ("time", "band", "lat", "lon")),
    ],
)
def test_names_of_axes_stay_the_users(dims, kept):
    data = xr.DataArray(np.ones([3] * len(dims), "u2"), dims=dims, name="v")
    band = next(d for d in dims if d.lower().startswith("band"))
    data = data.assign_coords({band: NAMES})
    assert find_cube(data.to_dataset()).variable.dims == kept


def test_a_cube_of_one_date_takes_its_date_along():
    date = np.datetime64("2020-05-01", "ns")
    one = array(("band", "y", "x")).assign_coords(time=date)
    cube = find_cube(one.to_dataset())
    assert cube.variable.shape == (1, 3, 5, 4)
    assert cube.variable.time.values.tolist() == [date.astype(int)]


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        (("time", "y", "x"), "no band dimension"),
        (("time", "band", "y"), "no x dimension"),
        (("time", "band", "row", "col"), "no y dimension; no x dimension; 'row' is unknown"),
        (("time", "band", "y", "x", "sensor"), "'sensor' is unknown"),
        (("band", "y", "lat", "x"), "'y' and 'lat' are both the y axis"),
    ],
)
def test_axes_that_cannot_be_told(dims, message):
    data = xr.DataArray(np.ones([3] * len(dims), "u2"), dims=dims, name="v")
    with pytest.raises(InputError, match=message):
        find_cube(data.to_dataset(), "v" if "band" in dims else None)


def test_bands_are_recognised_in_their_order():
    assert find_cube(array(bands=["nir", "b2_10m", "B4"]).to_dataset()).bands == (
        "B08",
        "B02",
        "B04",
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["B02", "B04", "VV"], "'VV' is unknown"),
        (["B02", "blue", "B08"], "B02 and blue are all B02"),
        (["rededge", "B04", "B08"], "'rededge' may be B05, B06, B07"),
        ([1, 2, 3], "1 is a position or something else, not a name"),
    ],
)
def test_bands_that_cannot_be_told(names, message):
    with pytest.raises(BandError, match=message):
        find_cube(array(bands=names).to_dataset())


def test_bands_without_names():
    with pytest.raises(BandError, match=r"3 bands along 'band' have no names.*assign_coords"):
        find_cube(array().drop_vars("band").to_dataset())


def test_which_variable():
    both = xr.Dataset({"a": array(), "b": array()})
    with pytest.raises(InputError, match=r"\['a', 'b'\].*variable='a'"):
        find_cube(both)
    assert find_cube(both, "b").name == "b"
    with pytest.raises(InputError, match=r"no variable 'c'.*\['a', 'b'\]"):
        find_cube(both, "c")


# Many variables or one


def test_stacking_and_back():
    scl = xr.DataArray(np.ones((2, 5, 4), "u1"), dims=("time", "y", "x"))
    dataset = per_band(SCL=scl)[["red", "SCL", "nir", "blue"]]
    dataset["red"].attrs = {"long_name": "Red", "units": "1"}
    dataset["nir"].attrs = {"long_name": "NIR", "units": "1"}
    dataset["blue"].attrs = {"units": "1"}
    cube = find_cube(dataset)
    assert cube.name == "reflectance"
    assert cube.bands == ("B04", "B08", "B02")
    assert cube.variable.band.values.tolist() == ["red", "nir", "blue"]
    assert cube.variable.attrs.keys() == {"units", STACKED}
    assert list(cube.dataset.data_vars) == ["SCL", "reflectance"]
    back = unstack(cube.dataset, cube.name)
    xr.testing.assert_identical(back, dataset)
    assert list(back) == list(dataset)


@pytest.mark.parametrize("dims", [("y", "x"), ("y", "x", "time"), ("x", "y")])
def test_dimensions_come_back_as_they_were(dims):
    dataset = per_band(dims)
    cube = find_cube(dataset)
    assert cube.variable.dims == DIMS
    xr.testing.assert_identical(unstack(cube.dataset, cube.name), dataset)


def test_a_scalar_date_comes_back():
    dataset = per_band(("y", "x")).assign_coords(time=np.datetime64("2020-05-01", "ns"))
    cube = find_cube(dataset)
    xr.testing.assert_identical(unstack(cube.dataset, cube.name), dataset)


def test_digital_numbers_come_back_after_masking():
    dataset = per_band()
    for name in dataset:
        dataset[name].attrs["_FillValue"] = 7
    dataset["red"][0, 0, 0] = 7
    cube = find_cube(dataset)
    decoded = xr.decode_cf(cube.dataset)
    assert decoded.reflectance.dtype == "float32"
    back = unstack(decoded, cube.name)
    assert back.red.dtype == "uint16"
    xr.testing.assert_identical(back, dataset)


def test_a_variable_that_always_was_one_can_be_split():
    dataset = array(attrs={"units": "1"}).to_dataset()
    split = unstack(dataset, "dn")
    assert list(split) == NAMES
    np.testing.assert_array_equal(split.B04, dataset.dn[:, 1])
    assert split.B04.attrs == {"units": "1"}


def test_a_leftover_scalar_band_is_no_obstacle():
    dataset = per_band().assign_coords(band=1)
    assert stack(dataset)[0].reflectance.band.values.tolist() == ["blue", "red", "nir"]


def test_bands_that_are_not_alike():
    coarse = array(("time", "y", "x"))[:, ::2, ::2].rename(y="lat", x="lon")
    with pytest.raises(InputError, match=r"not alike: blue is uint16.*swir1 is uint16.*'lat': 3"):
        find_cube(per_band(swir1=coarse))
    with pytest.raises(InputError, match=r"blue is uint16.*swir1 is float64"):
        find_cube(per_band(swir1=array(("time", "y", "x"), float)))


def test_only_what_lies_on_the_grid_is_a_band():
    assert find_cube(per_band(B11=xr.DataArray(3))).bands == ("B02", "B04", "B08")


def test_an_ambiguous_variable_does_not_slip_by():
    with pytest.raises(BandError, match="'rededge' may be"):
        find_cube(per_band(rededge=array(("time", "y", "x"))))
    with pytest.raises(BandError, match="blue and B02 are all B02"):
        find_cube(per_band(B02=array(("time", "y", "x"))))


def test_no_bands_at_all():
    with pytest.raises(InputError, match=r"no band dimension.*'temperature': \('time', 'y', 'x'\)"):
        find_cube(xr.Dataset({"temperature": array(("time", "y", "x"))}))


# Packing


def test_integers_are_digital_numbers():
    assert packing_of(array()) == Packing("uint16")
    assert packing_of(array(dtype="int16")) == Packing("int16")
    assert packing_of(array(dtype=">u2")) == Packing("uint16")


@pytest.mark.parametrize(
    ("attrs", "encoding", "nodata", "expected"),
    [
        ({}, {}, None, 0),
        ({"_FillValue": 5}, {}, None, 5),
        ({}, {"_FillValue": 6}, None, 6),
        ({"nodata": 7}, {}, None, 7),
        ({"nodata": np.nan}, {}, None, 0),
        ({"_FillValue": 5, "nodata": 7}, {}, None, 5),
        ({"nodata": 7}, {}, 8, 8),
    ],
)
def test_no_data(attrs, encoding, nodata, expected):
    data = array(attrs=attrs)
    data.encoding = encoding
    assert packing_of(data, nodata).nodata == expected


def test_the_offset_follows_from_the_packing():
    raw = array(attrs={"scale_factor": 1e-4, "add_offset": -0.1})
    assert packing_of(raw).offset == 1000
    assert packing_of(array(), offset=1000).offset == 1000
    decoded = array(dtype="f4")
    decoded.encoding = {"dtype": "u2", "scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}
    packing = packing_of(decoded)
    assert (packing.offset, packing.add_offset, packing.fill) == (1000, -0.1, 0)


def test_reflectance_is_packed_to_digital_numbers():
    packing = packing_of(array(dtype="f4"))
    assert packing == Packing("uint16", scale=1e-4, fill=0, floating=True)
    assert packing.encoding() == {"dtype": "uint16", "scale_factor": 1e-4, "_FillValue": 0}
    assert packing_of(array(dtype="f4"), offset=1000).add_offset == -0.1
    assert packing_of(array(dtype="f4"), nodata=65535).fill == 65535


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool", "complex64"])
def test_types_that_cannot_be_coded(dtype):
    with pytest.raises(InputError, match=f"'dn' is {dtype}; allowed are.*uint16 or int16"):
        packing_of(array(dtype=dtype))


def test_packings_that_contradict():
    filled = array(attrs={"_FillValue": 0})
    with pytest.raises(InputError, match="nodata=5 contradicts _FillValue=0"):
        packing_of(filled, nodata=5)
    raw = array(attrs={"scale_factor": 1e-4, "add_offset": -0.1})
    with pytest.raises(InputError, match=r"offset=500 contradicts.*1000 DN"):
        packing_of(raw, offset=500)
    with pytest.raises(
        InputError, match=r"no-data -9999 is not in the range of uint16 \(0 to 65535"
    ):
        packing_of(array(), nodata=-9999)
    with pytest.raises(InputError, match=r"0.5 is not a whole number"):
        packing_of(array(attrs={"_FillValue": 0.5}))
    other = array(dtype="f4")
    other.encoding = {"dtype": "int32", "scale_factor": 1e-4}
    with pytest.raises(InputError, match="packs it to int32; only uint16 and int16"):
        packing_of(other)


reflectances = st.lists(st.floats(0, 6.5, width=32) | st.just(np.nan), min_size=1, max_size=20)


@given(values=reflectances, dtype=st.sampled_from(["f2", "f4", "f8"]), offset=st.integers(0, 1000))
def test_snapped_values_are_what_comes_back(values, dtype, offset):
    values = np.array(values, dtype)
    cube = xr.DataArray(values)
    packing = packing_of(cube, offset=offset) if values.size else None
    if np.nanmax(values, initial=0) > 6.55 - offset * 1e-4:
        return
    snapped = snap(values, packing)
    variable = xr.Variable("x", snapped, encoding=packing.encoding())
    packed = xr.conventions.encode_cf_variable(variable)
    assert packed.dtype == "uint16"
    np.testing.assert_array_equal(packed.values == packing.fill, np.isnan(values))
    decoded = xr.conventions.decode_cf_variable("v", packed).values
    np.testing.assert_allclose(decoded, snapped, atol=2e-6)
    step = np.finfo(dtype).eps * 6.5 if dtype == "f2" else 0
    off = np.abs(snapped - values)[~np.isnan(values)]
    assert (off <= 1.01e-4 + step).all()


def test_valid_zero_does_not_become_no_data():
    packing = packing_of(array(dtype="f4"))
    snapped = snap(np.array([0, 1e-5, np.nan, 1e-4], "f4"), packing)
    np.testing.assert_allclose(snapped, [1e-4, 1e-4, np.nan, 1e-4])
    high = packing_of(array(dtype="f4"), nodata=65535)
    assert snap(np.array([6.5535], "f8"), high) == pytest.approx(6.5534)


@pytest.mark.parametrize("values", [[0.1, 7.0], [-0.01, 0.1], [np.inf, 0.1], [3000, np.nan]])
def test_values_that_do_not_fit(values):
    packing = packing_of(array(dtype="f8"))
    for function in (snap, check):
        with pytest.raises(InputError, match=r"do not fit in 0 to 6.5535.*offset=1000.*'uint16'"):
            function(np.array(values), packing)


def test_nan_needs_a_fill_value():
    data = array(dtype="f4")
    data.encoding = {"dtype": "uint16", "scale_factor": 1e-4}
    packing = packing_of(data)
    assert snap(np.array([0.5]), packing) == 0.5
    for function in (snap, check):
        with pytest.raises(InputError, match=r"NaN.*no _FillValue.*nodata=0"):
            function(np.array([0.5, np.nan]), packing)
    assert packing_of(data, nodata=0).fill == 0


# Chunks, shards, blocks


def test_chunks_are_capped_and_never_split_bands():
    assert chunk_shape(None, DIMS, (30, 13, 824, 716)) == (8, 13, 256, 256)
    assert chunk_shape(None, DIMS, (3, 12, 90, 700)) == (3, 12, 90, 256)
    assert chunk_shape({"time": 4, "x": -1}, DIMS, (30, 13, 824, 716)) == (4, 13, 256, 716)
    assert chunk_shape((4, -1, 64, 64), DIMS, (30, 13, 824, 716)) == (4, 13, 64, 64)
    assert chunk_shape({"t": 2, "lat": 9}, ("t", "band", "lat", "lon"), (3, 3, 99, 99)) == (
        2,
        3,
        9,
        99,
    )


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ({"z": 3}, "does not name sizes of the cube's axes"),
        ({"x": 0}, "four positive integers"),
        ({"x": 2.5}, "four positive integers"),
        ((1, 2, 3), "does not name four sizes"),
        ({"band": 1}, "needs all bands of a pixel together"),
    ],
)
def test_chunks_that_cannot_be(chunks, message):
    with pytest.raises(InputError, match=message):
        chunk_shape(chunks, DIMS, (30, 13, 824, 716))


def test_shards_are_whole_chunks():
    shape, chunk = (30, 13, 824, 716), (8, 13, 256, 256)
    assert shard_shape(None, DIMS, shape, chunk) is None
    assert shard_shape({"y": 512}, DIMS, shape, chunk) == (8, 13, 512, 256)
    assert shard_shape({"time": -1, "x": -1}, DIMS, shape, chunk) == (32, 13, 256, 768)
    with pytest.raises(InputError, match="not whole chunks"):
        shard_shape({"y": 300}, DIMS, shape, chunk)


sizes = st.tuples(*[st.integers(1, 99)] * 4)


@given(shape=sizes, present=sizes, unit=sizes)
def test_blocks_never_split_what_is_written_at_once(shape, present, unit):
    block = block_shape(unit, shape, present)
    for b, u, s in zip(block, unit, shape, strict=True):
        assert b % u == 0 or b == s


def test_blocks_grow_within_what_is_there():
    unit, shape = (8, 13, 256, 256), (80, 13, 5000, 5000)
    assert block_shape(unit, shape, (1, 1, 100, 100)) == unit
    assert block_shape(unit, shape, (80, 13, 5000, 5000)) == (8, 13, 512, 512)


# What a store can hold


class Foreign:
    def __str__(self):
        return "something foreign"


def test_attributes_become_json():
    given = {"a": np.float32(2), "b": np.arange(2), 3: (1, 2), "c": {"d": [None, "e"]}}
    assert storable_attributes(given, "v") == {"a": 2.0, "b": [0, 1], "3": (1, 2), "c": given["c"]}
    with pytest.warns(UserWarning, match=r"attributes of v .* as text: 'spec' \(Foreign\)"):
        assert storable_attributes({"spec": Foreign()}, "v") == {"spec": "something foreign"}


def test_python_objects_become_text():
    text = xr.Variable("band", np.array(["a", "b"], object))
    xr.testing.assert_identical(storable_variable(text, "v"), text)
    objects = xr.Variable("band", np.array([Foreign(), None], object))
    with pytest.warns(UserWarning, match="'v' holds Python objects"):
        assert storable_variable(objects, "v").values.tolist() == ["something foreign", "None"]


def test_only_encoding_that_says_what_numbers_mean_is_kept():
    variable = xr.Variable("x", np.arange(3.0))
    variable.encoding = {"dtype": "i2", "scale_factor": 2.0, "chunks": (1,), "zlib": True}
    assert storable_variable(variable, "v").encoding == {"dtype": "i2", "scale_factor": 2.0}
    assert variable.encoding["zlib"]


def test_a_crs_is_named_once():
    variable = xr.Variable("x", np.arange(3), {"grid_mapping": "a"}, {"grid_mapping": "a"})
    assert storable_variable(variable, "v").encoding == {}
    cube = array(attrs={"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"})
    cube.encoding = {"grid_mapping": "spatial_ref"}
    made = prepare(cube.to_dataset()).dn
    assert made.attrs["grid_mapping"] == "spatial_ref"
    assert {"grid_mapping", "coordinates"}.isdisjoint(made.encoding)


def test_no_data_is_declared_once():
    cube = array(attrs={"_FillValue": 5, "missing_value": 5})
    cube.encoding = {"_FillValue": 6}
    made = prepare(cube.to_dataset()).dn
    assert "_FillValue" not in made.encoding
    assert made.attrs["_FillValue"] == settings_of(made).nodata == 5
    cube = array(dtype="f4", attrs={"_FillValue": np.nan, "missing_value": np.nan}) / 1000
    made = prepare(cube.to_dataset()).dn
    assert made.encoding["_FillValue"] == 0
    assert {"_FillValue", "missing_value"}.isdisjoint(made.attrs)


def test_uneven_blocks_become_even():
    variable = xr.Variable("x", np.arange(10)).chunk({"x": (3, 5, 2)})
    assert storable_variable(variable, "v").chunks == ((5, 5),)


# The Dataset that is going to be written


def test_prepared_lazily_and_beside_the_original(nothing_computes, precise):
    dataset = array(dtype="f4").to_dataset().chunk(x=3) / 1000
    dataset = dataset.assign_coords(time=pd.date_range("2020", periods=2), extra=("x", range(4)))
    dataset.dn.encoding = {"chunks": (1, 1, 1, 1), "_FillValue": np.nan, "dtype": "f4"}
    dataset.time.attrs = {"spec": (1, 2)}
    before = dataset.copy(deep=True)
    encoding = dict(dataset.dn.encoding)
    with nothing_computes():
        made = prepare(dataset, model=precise.model, chunks={"x": 2})
    assert dataset.dn.encoding == encoding
    xr.testing.assert_identical(dataset, before)
    assert made.dn.chunks == ((2,), (3,), (5,), (2, 2))
    assert settings_of(made.dn).bands == tuple(NAMES)
    assert made.dn.encoding["chunks"] == (2, 3, 5, 2)
    assert made.dn.encoding["dtype"] == "uint16"
    assert made.dn.encoding["coordinates"] == "extra"
    assert set(made.coords) == set(dataset.coords)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"zarr_format": 4}, InputError, "allowed are 2 and 3"),
        ({"zarr_format": 2, "shards": {"x": 4}}, InputError, "format 2 has no shards"),
        ({"model": "nonsense"}, ModelError, "no model 'nonsense'"),
        ({"compression": -1}, InputError, "compression is -1"),
    ],
)
def test_options_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        prepare(array().to_dataset(), **options)


def test_an_empty_cube():
    with pytest.raises(InputError, match="'dn' is empty"):
        prepare(array()[:0].to_dataset())
