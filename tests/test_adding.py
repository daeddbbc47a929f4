"""Appends and region writes: whole chunks, with the store's own settings, or nothing at all."""

import shutil
import warnings
from functools import partial

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore, MemoryStore

from tests.models import BEST, near
from xtec import sample, zarr_v3
from xtec.cube import state
from xtec.errors import BandError, InputError, SecondLossWarning, UnfinishedStoreWarning

BANDS = ["B02", "B04", "B08"]
CHUNKS = {"time": 4, "y": 16, "x": 16}
FORMATS = [2, 3]

both_formats = pytest.mark.parametrize("zarr_format", FORMATS)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"
)


@pytest.fixture(scope="module")
def _original():
    cube = sample.cube(dates=12, size=(24, 20)).sel(band=BANDS)
    del cube.reflectance.attrs["_FillValue"]
    cloud = ("time", np.linspace(0, 1, 12), {"units": "1"})
    scene = (("time", "y", "x"), (cube.reflectance.values[:, 0] % 7).astype(np.uint8))
    height = (("y", "x"), np.arange(24 * 20.0).reshape(24, 20))
    # A few seconds apart from day to day, as satellites are.
    time = cube.time + np.arange(12) * np.timedelta64(1_234_567, "us")
    return cube.assign_coords(time=time, cloud=cloud).assign(scene=scene, height=height)


@pytest.fixture
def original(_original):
    return _original.copy(deep=True)


@pytest.fixture
def options(precise):
    return {"model": precise.model, "compression": BEST, "chunks": CHUNKS, "progress": False}


@pytest.fixture(scope="module")
def written(_original, precise, tmp_path_factory):
    """Stores of the first dates, each written once and copied."""
    folder, known = tmp_path_factory.mktemp("written"), {}

    def give(path, dates=8, **more):
        options = {"model": precise.model, "compression": BEST, "chunks": CHUNKS} | more
        key = repr((dates, options))
        if key not in known:
            known[key] = folder / f"{len(known)}.zarr"
            cube = _original.isel(time=slice(0, dates))
            cube.tec.compress(known[key], progress=False, **options)
        shutil.copytree(known[key], path)
        return path

    return give


@pytest.fixture
def store(written, tmp_path):
    return partial(written, tmp_path / "a.zarr")


def dates(cube, *borders):
    return cube.isel(time=slice(*borders))


def files(path):
    """Every file of a store, name to bytes."""
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def chunks_of(path):
    """What the chunks of the compressed variable hold."""
    found = files(path / "reflectance")
    return {k: v for k, v in found.items() if k not in ("zarr.json", ".zarray", ".zattrs")}


@pytest.fixture
def same_as_at_once(written, tmp_path):
    """A store that was added to is the store that is written at once, chunk by chunk."""

    def compare(path, cube=None, **more):
        whole = written(tmp_path / "whole.zarr", 12, **more)
        assert chunks_of(path) == chunks_of(whole)
        one, other = xr.open_zarr(path).load(), xr.open_zarr(whole).load()
        other = other[list(one.data_vars)] if cube is None else other[list(cube)]
        xr.testing.assert_identical(one.drop_attrs(deep=False), other.drop_attrs(deep=False))
        assert one.attrs == other.attrs

    return compare


def nothing_changes(path, call, error, match):
    before = files(path)
    with pytest.raises(error, match=match):
        call()
    assert files(path) == before


# Appends


@both_formats
@pytest.mark.parametrize("lazy", [False, True])
def test_append_to_full_chunks(store, original, zarr_format, lazy, same_as_at_once):
    path = store(zarr_format=zarr_format)
    new = dates(original, 8, 12)
    (new.chunk(time=1, x=20) if lazy else new).tec.append(path, progress=False)
    same_as_at_once(path, zarr_format=zarr_format)


@both_formats
def test_append_that_leaves_a_short_chunk_and_then_the_rest_of_it(
    store, original, zarr_format, same_as_at_once
):
    path = store(4, zarr_format=zarr_format)
    dates(original, 4, 7).tec.append(str(path), progress=False)
    assert xr.open_zarr(path).sizes["time"] == 7
    nothing_changes(
        path,
        lambda: dates(original, 7, 12).tec.append(path, progress=False),
        InputError,
        r"holds 3 of 4 dates; .*index 4 on.*whose chunks have 1 dates.*multiples of 4",
    )
    dates(original, 4, 12).tec.append(path, progress=False)
    same_as_at_once(path, zarr_format=zarr_format)


def test_append_to_shards(store, original, same_as_at_once):
    shards = {"time": 8, "y": 32, "x": 32}
    path = store(8, shards=shards)
    dates(original, 8, 12).tec.append(path, progress=False)
    same_as_at_once(path, shards=shards)
    with pytest.raises(InputError, match="holds 4 of 8 dates"):
        dates(original, 0, 1).assign_coords(time=[np.datetime64("2031-01-01", "ns")]).tec.append(
            path
        )


def test_append_reflectance(original, options, tmp_path):
    reflectance = original.where(original > 0) / 10_000
    path = tmp_path / "a.zarr"
    dates(reflectance, 0, 4).tec.compress(path, offset=1000, **options)
    dates(reflectance, 4, 8).tec.append(path, progress=False)
    back, given = xr.open_zarr(path).reflectance.values, reflectance.reflectance.values[:8]
    np.testing.assert_array_equal(np.isnan(back), np.isnan(given))
    valid = ~np.isnan(given)
    assert near(back[valid] * 1e4, given[valid] * 1e4)


def test_append_one_variable_per_band(original, options, tmp_path):
    bands = original.reflectance.to_dataset("band").drop_vars("spatial_ref")
    dates(bands, 0, 4).tec.compress(tmp_path / "a.zarr", **options)
    dates(bands, 4, 6).tec.append(tmp_path / "a.zarr", progress=False)
    back = xr.open_zarr(tmp_path / "a.zarr").tec.unstack()
    assert near(back.B04.values[4:], bands.B04.values[4:6])


def test_append_a_single_date_without_time_axis(original, options, tmp_path):
    original = original.drop_vars(["scene", "cloud"])
    dates(original, 0, 4).tec.compress(tmp_path / "a.zarr", **options)
    original.isel(time=4).tec.append(tmp_path / "a.zarr", progress=False)
    opened = xr.open_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(opened.time, original.time[:5])


@both_formats
def test_append_to_other_stores(original, options, zarr_format):
    store = MemoryStore()
    dates(original, 0, 4).tec.compress(store, zarr_format=zarr_format, **options)
    dates(original, 4, 8).tec.append(store, progress=False)
    opened = xr.open_zarr(store)
    assert opened.sizes["time"] == 8
    assert state.ATTRIBUTE not in opened.attrs
    assert near(opened.reflectance.values, original.reflectance.values[:8])


def test_append_encodes_each_new_chunk_once_and_decodes_none(store, original, monkeypatch):
    path = store()
    encoded = []
    plain = zarr_v3.encode_chunks
    monkeypatch.setattr(zarr_v3, "encode_chunks", lambda c, s: encoded.extend(c) or plain(c, s))
    decoded = []
    monkeypatch.setattr(zarr_v3, "decode_chunks", lambda s, **_: decoded.extend(s) or [])
    dates(original, 8, 12).tec.append(path, progress=False)
    assert (len(encoded), len(decoded)) == (2 * 2, 0)


@both_formats
def test_append_keeps_what_is_said_about_the_store(store, original, zarr_format):
    path = store(target_psnr=40, zarr_format=zarr_format, compression=None)
    before = xr.open_zarr(path)
    new = dates(original, 8, 12).assign_attrs(title="other", more=1)
    new.reflectance.attrs["long_name"] = "other"
    new.tec.append(path, progress=False)
    after = xr.open_zarr(path)
    assert after.attrs == before.attrs
    for name in before.variables:
        assert after[name].attrs == before[name].attrs
    assert after.tec.info().calibration == before.tec.info().calibration
    assert after.rio.crs == original.rio.crs


@both_formats
def test_readers_see_the_old_store_until_an_append_is_whole(
    store, original, zarr_format, monkeypatch
):
    path = store(zarr_format=zarr_format)
    before, seen = xr.open_zarr(path).load(), []

    def look(*args, **kwargs):
        seen.append(xr.open_zarr(path).load())
        return require(*args, **kwargs)

    require = state.require_own
    monkeypatch.setattr(state, "require_own", look)
    dates(original, 8, 12).tec.append(path, progress=False)
    (meanwhile,) = seen
    assert state.ATTRIBUTE in meanwhile.attrs
    xr.testing.assert_equal(meanwhile, before)
    assert state.ATTRIBUTE not in xr.open_zarr(path).attrs
    assert xr.open_zarr(path, consolidated=False).sizes["time"] == 12


def test_append_to_a_store_without_consolidated_metadata(
    original, options, tmp_path, same_as_at_once
):
    path = tmp_path / "a.zarr"
    lazy = dates(original, 0, 4).tec.compress(**options)
    lazy.to_zarr(path, consolidated=False)
    dates(original, 4, 12).tec.append(path, progress=False)
    same_as_at_once(path)


@both_formats
@pytest.mark.parametrize("dtype", ["<U8", object])
def test_append_text_and_other_coordinates(original, options, tmp_path, zarr_format, dtype):
    name = ("time", np.array([f"S2A_{n}" for n in range(12)], dtype))
    cube = original.assign_coords(name=name)
    path = tmp_path / "a.zarr"
    dates(cube, 0, 8).tec.compress(path, zarr_format=zarr_format, **options)
    dates(cube, 8, 10).tec.append(path, progress=False)
    assert list(xr.open_zarr(path)["name"].values) == list(cube["name"].values[:10])


# What cannot be appended


def other_grid(cube):
    return cube.assign_coords(x=cube.x + 10)


def other_crs(cube):
    return cube.rio.write_crs("EPSG:3857")


REFUSED = {
    "dates that are there": (lambda c: dates(c, 3, 5), "has 2 of these dates already"),
    "a date that is there": (lambda c: dates(c, 7, 9), "has 1 of these dates already"),
    "bands in another order": (lambda c: c.isel(band=[1, 0, 2]), r"the bands are \['B04'"),
    "fewer bands": (lambda c: c.isel(band=[0, 1]), "select the same bands"),
    "another grid": (other_grid, "the coordinate 'x' is not the store's"),
    "another CRS": (other_crs, "the coordinate 'spatial_ref' is not the store's"),
    "a smaller grid": (lambda c: c.isel(y=slice(0, 16)), "the coordinate 'y' is not the store's"),
    "another type": (lambda c: c.assign(reflectance=c.reflectance.astype("int16")), "'int16'"),
    "reflectance": (lambda c: c.assign(reflectance=c.reflectance / 1e4), "mean something else"),
    "no-data by attribute": (
        lambda c: c.assign(reflectance=c.reflectance.assign_attrs(nodata=7)),
        "'no data': 7",
    ),
    "_FillValue": (
        lambda c: c.assign(reflectance=c.reflectance.assign_attrs(_FillValue=7)),
        "contradicts _FillValue=7",
    ),
    "offset": (
        lambda c: c.assign(
            reflectance=c.reflectance.assign_attrs(add_offset=-0.1, scale_factor=1e-4)
        ),
        "offset",
    ),
    "a name": (lambda c: c.rename(reflectance="dn"), "cannot be added to 'reflectance'"),
    "dimensions": (lambda c: c.rename(time="t"), "rename variable and dimensions"),
    "a variable more": (lambda c: c.assign(more=c.cloud), r"the store has no \['more'\]"),
    "a variable less": (lambda c: c.drop_vars("scene"), r"the store has \['scene'\] along 'time'"),
    "a coordinate less": (lambda c: c.drop_vars("cloud"), r"the store has \['cloud'\] along"),
    "no cube": (lambda c: c[["height"]], "no band dimension"),
    "nanoseconds in a coordinate of microseconds": (
        lambda c: c.assign_coords(time=c.time + np.timedelta64(90, "ns")),
        "'time' cannot be added",
    ),
    "numbers of another type": (
        lambda c: c.assign(scene=c.scene.astype(np.int64) + 999),
        "'scene' cannot be added",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(store, original, case):
    path = store()
    change, match = REFUSED[case]
    new = original if "date" in case else dates(original, 8, 12)
    if "date" not in case:
        assert new.sizes["time"] == 4
    nothing_changes(
        path, lambda: change(new).tec.append(path, progress=False), (InputError, BandError), match
    )


def test_text_that_is_too_long_is_refused(original, options, tmp_path):
    names = ["a", "b", "c", "d", "eeee", "f", "g", "h"]
    path = tmp_path / "a.zarr"
    cube = dates(original, 0, 4).assign_coords(name=("time", np.array(names[:4])))
    cube.tec.compress(path, **options)
    new = dates(original, 4, 8).assign_coords(name=("time", np.array(names[4:])))
    if np.dtype(zarr.open_group(path)["name"].dtype).kind == "U":
        nothing_changes(
            path, lambda: new.tec.append(path, progress=False), InputError, "'name' cannot be added"
        )
    else:  # text of any length
        new.tec.append(path, progress=False)
        assert list(xr.open_zarr(path)["name"].values) == names


def test_where_there_is_nothing_to_add_to(original, options, tmp_path):
    with pytest.raises(InputError, match=r"there is no store .*ds\.tec\.compress"):
        original.tec.append(tmp_path / "none.zarr")
    original.drop_encoding().to_zarr(tmp_path / "plain.zarr")
    with pytest.raises(InputError, match="has 0 compressed variables"):
        original.tec.append(tmp_path / "plain.zarr")
    original.tec.compress(tmp_path / "a.zarr", **options)
    for method in (original.tec.append, original.tec.write, original.tec.compress):
        with pytest.raises(InputError, match="opened to be read only"):
            method(LocalStore(tmp_path / "a.zarr", read_only=True))


def test_decoded_pixels_are_not_appended_unnoticed(store):
    path = store()
    decoded = dates(xr.open_zarr(path).load(), 0, 4)
    decoded = decoded.assign_coords(time=decoded.time + np.timedelta64(9000, "D"))
    with pytest.warns(SecondLossWarning):
        decoded.tec.append(path, progress=False)


# Faults of an append


@both_formats
@pytest.mark.parametrize("when", ["first chunk", "coordinates", "end"])
def test_an_append_that_fails_is_taken_back(store, original, monkeypatch, zarr_format, when):
    path = store(zarr_format=zarr_format)
    before, opened = files(path), xr.open_zarr(path).load()

    class FullError(OSError):
        pass

    def fail(*args, **kwargs):
        raise FullError("no space left")

    new = dates(original, 8, 12)
    if when == "first chunk":
        lazy = new.reflectance.chunk(y=16)
        data = dask.array.map_blocks(
            fail, lazy.data, dtype=np.uint16, meta=np.empty((0,) * 4, "u2")
        )
        new = new.assign(reflectance=lazy.copy(data=data))
    elif when == "coordinates":
        monkeypatch.setattr(xr.Dataset, "to_zarr", fail)
    else:
        calls = iter([fail, state.require_own])
        monkeypatch.setattr(state, "require_own", lambda *a: next(calls)(*a))  # noqa: PLW0108
    with pytest.raises(FullError) as caught:
        new.tec.append(path, progress=False)
    assert "holds what it held before" in caught.value.__notes__[0]
    monkeypatch.undo()
    after = files(path)
    coded = {k for k in before if k.startswith("reflectance/") and k[12] in "c0123456789"}
    assert coded
    assert {k: after[k] for k in coded} == {k: before[k] for k in coded}
    assert set(after) == set(before)
    xr.testing.assert_identical(xr.open_zarr(path).load(), opened)
    xr.testing.assert_identical(xr.open_zarr(path, consolidated=False).load(), opened)


@both_formats
def test_what_a_killed_append_left_is_said_and_removed(
    store, original, zarr_format, monkeypatch, same_as_at_once
):
    path = store(zarr_format=zarr_format)
    opened = xr.open_zarr(path).load()
    with monkeypatch.context() as patch:
        patch.setattr("xtec.cube.adding._undo", lambda *a: None)  # a killed process does not
        patch.setattr(state, "require_own", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            dates(original, 8, 12).tec.append(path, progress=False)
    left = xr.open_zarr(path).load()
    xr.testing.assert_equal(left, opened)  # by the consolidated metadata
    with pytest.warns(UnfinishedStoreWarning, match=r"appending.*recover=True"):
        assert left.tec.info().unfinished == "appending"
    with pytest.raises(InputError, match=r"not finished \(appending\).*recover=True"):
        dates(original, 8, 12).tec.append(path, progress=False)
    dates(original, 8, 12).tec.append(path, recover=True, progress=False)
    same_as_at_once(path, zarr_format=zarr_format)


def test_of_two_appends_the_first_is_told(store, original, monkeypatch):
    path = store()
    plain = state.begin

    def overtaken(where, unfinished):
        plain(where, unfinished)
        plain(where, state.Unfinished(state.APPENDING, "00000000", 8))

    monkeypatch.setattr(state, "begin", overtaken)
    with pytest.raises(InputError, match="taken over by another run") as caught:
        dates(original, 8, 12).tec.append(path, progress=False)
    assert "could not be taken back" in caught.value.__notes__[0]


# Regions


@pytest.fixture
def template(original, options, tmp_path):
    """A store with nothing in it but coordinates."""

    def make(**more):
        path = tmp_path / "a.zarr"
        cube = original[["reflectance"]]
        cube.tec.compress(**(options | more)).to_zarr(
            path, compute=False, zarr_format=more.get("zarr_format", 3)
        )
        return path

    return make


@both_formats
@pytest.mark.parametrize("how", ["auto", "slices", "axes"])
def test_regions_make_the_store_that_is_written_at_once(
    template, original, zarr_format, how, same_as_at_once
):
    path = template(zarr_format=zarr_format)
    cube = original[["reflectance"]]
    for y in (slice(0, 16), slice(16, 24)):
        for x in (slice(0, 16), slice(16, 20)):
            part = cube.isel(y=y, x=x)
            if how == "auto":
                part.chunk(time=3).tec.write(path, progress=False)
            else:
                part = part.drop_vars(["x", "y"]) if how == "slices" else part
                part.tec.write(path, region={"y": y, "x": x}, progress=False)
    same_as_at_once(path, zarr_format=zarr_format)


def test_a_region_of_a_store_that_is_full(store, original):
    path = store(12)
    before = chunks_of(path)
    new = original.copy(deep=True)
    new.reflectance[4:8, :, 16:] = 1234
    part = new.isel(time=slice(4, 8), y=slice(16, 24))
    nothing_changes(
        path,
        lambda: part.tec.write(path, progress=False),
        InputError,
        r"cuts chunks .* of 'scene'.*drop_vars\('scene'\)",
    )
    part.drop_vars(["scene", "height"]).tec.write(path, progress=False)
    after = chunks_of(path)
    assert {k for k in before if before[k] != after[k]} == {f"c/1/0/1/{x}" for x in range(2)}
    assert near(xr.open_zarr(path).reflectance.values, new.reflectance.values)


CUT = {
    "y": ({"y": slice(8, 16)}, r"y=8:16.* cuts chunks .*16\).*Write time=0:12, y=0:16, x=0:20"),
    "time": ({"time": slice(0, 3)}, "Write time=0:4, y=0:24, x=0:20"),
    "the end": ({"x": slice(16, 19)}, "x=16:20"),
}


@pytest.mark.parametrize("case", CUT)
@pytest.mark.parametrize("auto", [False, True])
def test_regions_that_cut_chunks_are_refused(template, original, case, auto):
    path = template()
    region, match = CUT[case]
    part = original[["reflectance"]].isel(region)
    nothing_changes(
        path,
        lambda: part.tec.write(path, region="auto" if auto else region, progress=False),
        InputError,
        match,
    )


def test_regions_that_cut_shards_are_refused(template, original):
    path = template(shards={"time": 4, "y": 32, "x": 32})
    part = original[["reflectance"]].isel(y=slice(0, 16))
    nothing_changes(path, lambda: part.tec.write(path, progress=False), InputError, "y=0:24")


WRONG = {
    "another size": ({"y": slice(0, 24)}, "does not hold the 16 of the cube"),
    "steps": ({"y": slice(0, 32, 2)}, "give a slice"),
    "beyond the end": ({"y": slice(16, 32)}, "does not hold"),
    "bands": ({"band": slice(0, 3)}, "region names"),
    "unknown": ({"z": slice(0, 3)}, "region names"),
    "another place": (
        {"x": slice(0, 20), "y": slice(8, 24)},
        "the coordinate 'y' is not the store's",
    ),
    "a word": ("all", "region='all' is unknown"),
}


@pytest.mark.parametrize("case", WRONG)
def test_regions_that_are_none(template, original, case):
    path = template()
    region, match = WRONG[case]
    part = original[["reflectance"]].isel(y=slice(0, 16))
    nothing_changes(
        path, lambda: part.tec.write(path, region=region, progress=False), InputError, match
    )


def test_coordinates_that_are_nowhere_in_the_store(template, original):
    path = template()
    for part in (
        original.assign_coords(y=original.y + 3),
        original.isel(y=slice(None, None, -1)),
        original.isel(time=[0, 1, 2, 3, 8, 9, 10, 11]),
    ):
        cube = part[["reflectance"]]
        nothing_changes(path, lambda c=cube: c.tec.write(path), InputError, "are not a run of")


def test_no_false_alarm(store, original):
    """Reading, appending, replacing and reading again warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = store()
        xr.open_zarr(path).load()
        dates(original, 8, 12).tec.append(path, progress=False)
        xr.open_zarr(path).load()
        original[["reflectance"]].isel(y=slice(0, 16)).tec.write(path, progress=False)
        xr.open_zarr(path).load()
