"""``.tec`` end to end: into a store of either format and back through plain open_zarr."""

import sys
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
import zarr
from zarr.storage import MemoryStore

import xtec
from tests.models import BEST, STEP_DN, near
from xtec.cube.stored import settings_of
from xtec.errors import BandError, InputError, ModelError

BANDS = ["B02", "B04", "B08"]
CHUNKS = {"time": 2, "y": 32, "x": 27}
AFFINE = "ignore:Use `@` matmul:PendingDeprecationWarning"
ZARR = "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"

pytestmark = [pytest.mark.filterwarnings(AFFINE)]


@pytest.fixture
def small(cube):
    """The synthetic cube with the bands of the precise model."""
    return cube.sel(band=BANDS)


@pytest.fixture
def options(precise):
    return {"model": precise.model, "compression": BEST, "chunks": CHUNKS, "progress": False}


def numbers(array):
    """Digital numbers as int, 0 for no data."""
    return array.fillna(0).round().astype(int).values


def close(decoded, original, step=STEP_DN):
    assert decoded.dims == original.dims
    before, after = numbers(original), numbers(decoded)
    np.testing.assert_array_equal(after == 0, before == 0)
    assert near(after[before != 0], before[before != 0], step)


def near_reflectance(after, before):
    valid = before.notnull().values
    return near(after.values[valid] * 1e4, before.values[valid] * 1e4)


def coordinates_equal(one, other):
    assert set(one.coords) == set(other.coords)
    for name in other.coords:
        xr.testing.assert_identical(one[name].load(), other[name].load())


def listing(path):
    return sorted(str(each) for each in Path(path).rglob("*"))


# There and back


@pytest.mark.parametrize("blocks", [None, {"time": 1, "band": 1, "y": 30, "x": (20, 13, 10)}])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_there_and_back(small, options, tmp_path, zarr_format, blocks):
    given = small if blocks is None else small.chunk(blocks)
    store = tmp_path / "cube.zarr"
    returned = given.tec.compress(store, zarr_format=zarr_format, **options)
    opened = xr.open_zarr(store)
    assert (store / "zarr.json").exists() == (zarr_format == 3)
    for each in (returned, opened):
        close(each.reflectance, small.reflectance)
        coordinates_equal(each, small)
        assert each.rio.crs == small.rio.crs
        assert each.reflectance.rio.crs == small.rio.crs
        assert each.reflectance.rio.transform() == small.rio.transform()
        assert small.attrs.items() <= each.attrs.items()
        kept = {k: v for k, v in small.reflectance.attrs.items() if k != "_FillValue"}
        assert kept.items() <= each.reflectance.attrs.items()
        assert each.reflectance.encoding["chunks"] == (2, 3, 32, 27)
        assert each.reflectance.chunks is not None


def test_what_is_written_does_not_depend_on_blocks_or_sockets(small, options, tmp_path):
    small.tec.compress(tmp_path / "a.zarr", **options)
    small.chunk(time=1, x=13).tec.compress(tmp_path / "b.zarr", **options)
    small.tec.compress(tmp_path / "c.zarr", zarr_format=2, **options)
    for name in ("0/0/0/0", "1/0/1/1"):
        one = (tmp_path / "a.zarr/reflectance/c" / name).read_bytes()
        assert one == (tmp_path / "b.zarr/reflectance/c" / name).read_bytes()
        assert one == (tmp_path / "c.zarr/reflectance" / name.replace("/", ".")).read_bytes()


def test_shards(small, options, tmp_path):
    store = tmp_path / "cube.zarr"
    opened = small.tec.compress(store, shards={"y": -1, "x": 54}, **options)
    close(opened.reflectance, small.reflectance)
    assert opened.tec.info().shards == (2, 3, 64, 54)
    assert len([f for f in (store / "reflectance" / "c").rglob("*") if f.is_file()]) == 2


def test_nothing_is_encoded_twice(small, options, tmp_path, monkeypatch):
    encoded = []
    plain = xtec.zarr_v3.encode_chunks
    monkeypatch.setattr(
        xtec.zarr_v3, "encode_chunks", lambda c, s: encoded.extend(c) or plain(c, s)
    )
    small.chunk(time=1, y=17, x=40).tec.compress(tmp_path / "a.zarr", **options)
    assert len(encoded) == 2 * 2 * 2


@pytest.mark.filterwarnings(ZARR)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_lazily(small, options, tmp_path, nothing_computes, zarr_format):
    with nothing_computes():
        lazy = small.chunk(time=1, y=30).tec.compress(zarr_format=zarr_format, **options)
        shown = repr(lazy) + repr(lazy.tec.info())
    assert "not stored" in shown
    lazy.to_zarr(tmp_path / "cube.zarr", zarr_format=zarr_format)
    close(xr.open_zarr(tmp_path / "cube.zarr").reflectance, small.reflectance)


@pytest.mark.filterwarnings(ZARR)
def test_lazily_from_memory(small, options, tmp_path, nothing_computes):
    with nothing_computes():
        lazy = (small.where(small > 0) / 10_000).tec.compress(**options)
    lazy.to_zarr(tmp_path / "cube.zarr")
    close(xr.open_zarr(tmp_path / "cube.zarr").reflectance * 10_000, small.reflectance)


def test_the_guard_against_computing_can_sing(small, nothing_computes):
    with nothing_computes(), pytest.raises(AssertionError, match="stayed lazy"):
        small.chunk().mean().compute()


def test_the_callers_object_stays(small, options, tmp_path):
    small.reflectance.encoding = {"chunks": (1, 1, 1, 1), "grid_mapping": "spatial_ref"}
    before, encoding = (
        small.copy(deep=True),
        {n: dict(v.encoding) for n, v in small.variables.items()},
    )
    small.tec.compress(tmp_path / "cube.zarr", **options)
    xr.testing.assert_identical(small, before)
    assert {n: dict(v.encoding) for n, v in small.variables.items()} == encoding


def test_into_a_store_object(small, options):
    store = MemoryStore()
    opened = small.tec.compress(store, **options)
    close(opened.reflectance, small.reflectance)
    assert opened.tec.info().stored_bytes > 0
    with pytest.raises(InputError, match="overwrite=True"):
        small.tec.compress(store, **options)
    small.tec.compress(store, overwrite=True, **options)


def test_a_progress_bar_where_it_is_seen(small, options, tmp_path, capsys, monkeypatch):
    small.tec.compress(tmp_path / "log.zarr", **options | {"progress": True})
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    small.tec.compress(tmp_path / "a.zarr", **options | {"progress": True})
    assert "100%" in capsys.readouterr().err
    small.tec.compress(tmp_path / "b.zarr", **options)
    assert capsys.readouterr().err == ""


# Values


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lazy", [False, True])
def test_reflectance_and_nan_come_back(small, options, tmp_path, zarr_format, dtype, lazy):
    reflectance = (small.reflectance.where(small.reflectance > 0) * 1e-4).astype(dtype)
    reflectance[0, :, 30:40, 5:9] = 0  # valid, and nearly the value of no data
    reflectance.attrs["_FillValue"] = np.nan
    given = reflectance.chunk(time=1, x=20) if lazy else reflectance
    opened = given.tec.compress(tmp_path / "a.zarr", zarr_format=zarr_format, **options)
    assert opened.reflectance.dtype == dtype
    plain = xr.open_zarr(tmp_path / "a.zarr").reflectance
    for each in (opened.reflectance, plain):
        np.testing.assert_array_equal(np.isnan(each), np.isnan(reflectance))
        assert near_reflectance(each, reflectance)
    raw = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False).reflectance
    assert raw.dtype == "uint16"
    assert raw.attrs["scale_factor"] == 1e-4
    assert raw.attrs["_FillValue"] == 0


def test_negative_reflectance_with_an_offset(small, options, tmp_path):
    reflectance = small.reflectance.where(small.reflectance > 0) * 1e-4 - 0.09
    assert reflectance.min() < -0.01
    with pytest.raises(InputError, match=r"do not fit.*offset=1000"):
        reflectance.tec.compress(tmp_path / "a.zarr", **options)
    assert not (tmp_path / "a.zarr").exists()
    opened = reflectance.tec.compress(tmp_path / "a.zarr", offset=1000, **options)
    np.testing.assert_array_equal(np.isnan(opened.reflectance), np.isnan(reflectance))
    assert near_reflectance(opened.reflectance, reflectance)
    assert opened.tec.info().offset == 1000


def test_a_packing_of_the_users_own_stays(small, options, tmp_path):
    packed = small.drop_attrs()
    packed.reflectance.attrs = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}
    decoded = xr.decode_cf(packed)
    opened = decoded.tec.compress(tmp_path / "a.zarr", **options)
    raw = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False).reflectance
    close(raw, small.reflectance)
    assert raw.attrs["add_offset"] == -0.1
    assert opened.tec.info().offset == 1000
    np.testing.assert_allclose(opened.reflectance, xr.open_zarr(tmp_path / "a.zarr").reflectance)


def test_digital_numbers_in_floating_point(small, options, tmp_path):
    masked = small.reflectance.where(small.reflectance > 0)
    for given in (masked, masked.chunk(time=1)):
        with pytest.raises(InputError, match=r"do not fit.*'dtype': 'uint16'"):
            given.tec.compress(tmp_path / "a.zarr", **options)
        assert not (tmp_path / "a.zarr").exists()
    masked.encoding = {"dtype": "uint16", "_FillValue": 0}
    close(masked.tec.compress(tmp_path / "a.zarr", **options).reflectance, masked)


def test_what_is_found_out_late_says_that_the_store_is_incomplete(small, options, tmp_path):
    late = (small / 10_000).chunk(time=1, x=20)
    late = late.where((late.x > late.x[0]) | (late.time > late.time[0]), 99.0)
    with pytest.raises(InputError, match="do not fit") as caught:
        late.tec.compress(tmp_path / "a.zarr", **options)
    assert "incomplete" in caught.value.__notes__[0]


def test_big_endian_numbers(small, options, tmp_path):
    swapped = small.astype(">u2")
    for zarr_format in (2, 3):
        opened = swapped.tec.compress(
            tmp_path / "a.zarr", zarr_format=zarr_format, overwrite=True, **options
        )
        close(opened.reflectance, small.reflectance)


def test_without_no_data_declared_integers_stay_integers(small, options, tmp_path):
    del small.reflectance.attrs["_FillValue"]
    opened = small.tec.compress(tmp_path / "a.zarr", **options)
    assert opened.reflectance.dtype == "uint16"
    close(opened.reflectance, small.reflectance)


# Shapes of cubes


def test_one_variable_per_band(small, options, tmp_path):
    names = {"B02": "blue", "B04": "red", "B08": "nir"}
    split = small.reflectance.to_dataset("band").rename(names)
    for number, name in enumerate(names.values()):
        split[name].attrs = {"units": "1", "number": number, "_FillValue": 0}
        split[name].encoding["grid_mapping"] = "spatial_ref"
    scl = (split.blue % 12).astype("uint8").drop_attrs().assign_attrs(meaning="scene class")
    split = split.assign(SCL=scl)[["red", "SCL", "nir", "blue"]]
    split.SCL.encoding = {"chunks": (1, 7, 7), "compressors": None}
    split = split.chunk(y=(30, 15, 5))
    opened = split.tec.compress(tmp_path / "a.zarr", **options)
    assert opened.reflectance.band.values.tolist() == ["red", "nir", "blue"]
    assert opened.tec.info().bands == ("B04", "B08", "B02")
    xr.testing.assert_equal(opened.SCL, scl)
    assert scl.attrs.items() <= opened.SCL.attrs.items()
    back = xr.open_zarr(tmp_path / "a.zarr").tec.unstack()
    assert list(back) == ["red", "SCL", "nir", "blue"]
    for name in names.values():
        close(back[name], split[name])
        assert split[name].attrs.items() <= back[name].attrs.items()  # _FillValue among them
        assert back[name].dtype == "uint16"
        assert back[name].rio.crs == split.rio.crs
        assert settings_of(back[name]) is None
    assert opened.tec.quality(split).rmse.max() < STEP_DN


def test_one_variable_per_band_of_reflectance_on_one_date(small, options, tmp_path):
    split = small.reflectance.isel(time=0).to_dataset("band").map(lambda a: a.where(a > 0) * 1e-4)
    split = split.astype("float32")
    opened = split.tec.compress(tmp_path / "a.zarr", **options)
    assert dict(opened.sizes) == {"time": 1, "band": 3, "y": 50, "x": 43}
    back = opened.tec.unstack()
    assert back.time.ndim == 0
    for name in BANDS:
        assert back[name].dims == ("y", "x")
        assert back[name].dtype == "float32"
        np.testing.assert_array_equal(np.isnan(back[name]), np.isnan(split[name]))
        assert near_reflectance(back[name], split[name])


def test_other_orders_and_names(small, options, tmp_path):
    turned = small.rename(time="t", y="latitude", x="longitude").reflectance
    turned = turned.transpose("latitude", "longitude", "band", "t").rename(None)
    opened = turned.tec.compress(tmp_path / "a.zarr", **options)
    assert opened.reflectance.dims == ("t", "band", "latitude", "longitude")
    close(opened.reflectance, turned.transpose("t", "band", "latitude", "longitude"))
    assert opened.reflectance.encoding["chunks"] == (2, 3, 32, 27)


def test_a_cube_of_one_date(small, options, tmp_path):
    one = small.reflectance.isel(time=1)
    opened = one.tec.compress(tmp_path / "a.zarr", **options)
    assert opened.time.values == one.time.values
    close(opened.reflectance[0], one)
    assert opened.tec.quality(one).mask_errors == 0


def test_array_gives_the_cube_in_order(small):
    split = small.reflectance.to_dataset("band")
    xr.testing.assert_equal(split.tec.array, small.reflectance)
    assert small.reflectance.transpose(..., "time").tec.array.dims == small.reflectance.dims


def test_coordinates_of_every_kind(small, options, tmp_path):
    small = small.assign_coords(
        tile=("time", ["a", "bc", "def"]),
        cloud=("time", [0.1, np.nan, 0.3]),
        wavelength=("band", [492.4, 664.6, 832.8], {"units": "nm"}),
        elevation=(("y", "x"), np.random.default_rng(0).normal(size=(50, 43))),
        platform="sentinel-2a",
    ).chunk(y=(30, 15, 5))
    small["elevation"].encoding = {"zlib": True, "chunksizes": (9, 9)}
    for zarr_format in (2, 3):
        store = tmp_path / f"{zarr_format}.zarr"
        small.tec.compress(store, zarr_format=zarr_format, **options)
        coordinates_equal(xr.open_zarr(store), small)


class RasterSpec:
    """As stackstac leaves it in the attributes."""

    def __repr__(self):
        return "RasterSpec(epsg=32632)"


def test_attributes_and_coordinates_that_are_python_objects(small, options, tmp_path):
    cube = small.reflectance.assign_attrs(spec=RasterSpec())
    cube = cube.assign_coords(assets=("band", np.array([{"a": 1}, None, "b"], object)))
    with pytest.warns(UserWarning, match="stored as text") as caught:
        opened = cube.tec.compress(tmp_path / "a.zarr", **options)
    assert len(caught) == 2
    assert opened.reflectance.attrs["spec"] == "RasterSpec(epsg=32632)"
    assert opened.assets.values.tolist() == ["{'a': 1}", "None", "b"]


# What a store says of itself


def test_plain_zarr_shows_what_a_reader_without_xtec_needs(small, options, precise, tmp_path):
    small.tec.compress(tmp_path / "a.zarr", **options)
    attributes = dict(zarr.open_group(tmp_path / "a.zarr", mode="r").attrs)
    assert "pip install xarray-tec" in attributes["tec_install"]
    assert "'xarray-tec.tt'" in attributes["tec_install"]
    assert attributes["tec_format_version"] == 1
    assert attributes["tec_model"] == "precise"
    assert attributes["tec_model_digest"] == precise.model_digest
    assert "loss" in attributes["tec_lossy"]
    assert attributes["title"] == small.attrs["title"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("chunks", ["default", None])
def test_info(small, options, precise, tmp_path, zarr_format, chunks):
    store = tmp_path / "a.zarr"
    small.tec.compress(store, zarr_format=zarr_format, **options)
    opened = xr.open_zarr(store, **{} if chunks else {"chunks": None})
    info = opened.tec.info()
    streams = [f for f in (store / "reflectance").rglob("*") if f.is_file()]
    size = sum(f.stat().st_size for f in streams if f.name[0] != "." and f.suffix != ".json")
    assert info.stored_bytes == size
    assert info.raw_bytes == small.reflectance.nbytes
    assert info.ratio == info.raw_bytes / size
    assert info.bits_per_pixel_per_band == 8 * size / small.reflectance.size
    assert (info.model, info.model_digest) == ("precise", precise.model_digest)
    assert (info.format_version, info.zarr_format) == (1, zarr_format)
    assert (info.shape, info.chunks, info.shards) == ((3, 3, 50, 43), (2, 3, 32, 27), None)
    assert info.to_dict()["ratio"] == info.ratio
    for text in (repr(info), info._repr_html_()):
        assert "precise" in text
        assert "2 x 3 x 32 x 27" in text
    same = [opened.isel(time=0), opened.reflectance, opened.chunk(x=10), opened.compute()]
    assert [each.tec.info() == info for each in same] == [True] * 4
    alone = opened.reflectance.compute().tec.info()  # an array that left its store behind
    assert (alone.stored_bytes, alone.ratio) == (None, None)


@pytest.mark.filterwarnings(ZARR)
def test_info_finds_groups_and_says_where_it_cannot(small, options, tmp_path):
    store = tmp_path / "a.zarr"
    small.tec.compress(**options).to_zarr(store, group="deep/inside")
    opened = xr.open_zarr(store, group="deep/inside")
    streams = [f for f in (store / "deep/inside/reflectance/c").rglob("*") if f.is_file()]
    assert opened.tec.info().stored_bytes == sum(f.stat().st_size for f in streams)
    loaded = opened.load().tec.info()  # knows the file, and no more its group
    assert loaded.stored_bytes is None
    assert "unknown" in repr(loaded)


def test_info_of_what_was_never_compressed(small, options, tmp_path):
    with pytest.raises(InputError, match=r"nothing here was compressed.*\['reflectance'\]"):
        small.tec.info()
    opened = small.tec.compress(tmp_path / "a.zarr", **options)
    with pytest.raises(InputError, match="Arithmetic"):
        (opened + 1).tec.info()
    with pytest.raises(InputError, match="'v' was compressed"):
        opened.tec.info("v")
    with pytest.raises(InputError, match=r"several.*\['reflectance', 'other'\]"):
        opened.assign(other=opened.reflectance).tec.info()


# Quality


def test_quality_against_figures_made_by_hand(small, options, tmp_path):
    opened = small.chunk(x=11).tec.compress(tmp_path / "a.zarr", **options)
    quality = opened.tec.quality(small)
    before, after = numbers(small.reflectance), numbers(opened.reflectance)
    error, valid = (after - before).astype(float), before > 0
    rmse = [np.sqrt((error[:, b][valid[:, b]] ** 2).mean()) for b in range(3)]
    np.testing.assert_allclose(quality.rmse, rmse)
    np.testing.assert_allclose(quality.psnr, 20 * np.log10(10_000 / np.array(rmse)))
    np.testing.assert_allclose(quality.max_error, np.abs(error).max(axis=(0, 2, 3)))
    pooled = 10 * np.log10(1e8 / (error[valid] ** 2).mean())
    assert float(quality.psnr_pooled) == pytest.approx(pooled)
    assert float(quality.psnr_mean) == pytest.approx(float(quality.psnr.mean()))
    assert 0 < quality.sam < 1
    assert 0 < quality.ndvi_error < 0.05
    assert quality.mask_errors == 0
    assert quality.band.values.tolist() == BANDS
    assert quality.rmse.attrs["units"] == "DN"
    split = small.chunk(time=1, x=7)
    xr.testing.assert_allclose(opened.chunk(y=30).tec.quality(split), quality)
    loaded = opened.load()
    xr.testing.assert_allclose(loaded.tec.quality(small), quality)
    xr.testing.assert_allclose(loaded.reflectance.tec.quality(small.reflectance), quality)


def test_quality_of_reflectance_is_in_digital_numbers(small, options, tmp_path):
    small.tec.compress(tmp_path / "dn.zarr", **options)
    reflectance = small.where(small > 0) * 1e-4 - 0.05
    opened = reflectance.tec.compress(tmp_path / "a.zarr", offset=1000, **options)
    quality = opened.tec.quality(reflectance)
    assert quality.max_error.max() <= 4 * STEP_DN
    assert 0.5 < float(quality.rmse.mean()) < STEP_DN
    assert quality.mask_errors == 0


def test_quality_finds_lost_no_data(small, options, tmp_path):
    opened = small.tec.compress(tmp_path / "a.zarr", **options)
    opened["reflectance"] = opened.reflectance.fillna(7)
    lost = int((small.reflectance == 0).sum())
    assert lost > 0
    assert opened.tec.quality(small).mask_errors == lost


def test_quality_of_two_different_cubes(small, options, tmp_path):
    opened = small.tec.compress(tmp_path / "a.zarr", **options)
    with pytest.raises(InputError, match=r"shapes differ.*'x': 43.*'x': 42"):
        opened.tec.quality(small.isel(x=slice(42)))
    with pytest.raises(InputError, match=r"bands differ.*'B08'\] here"):
        opened.tec.quality(small.isel(band=[0, 1]))
    with pytest.raises(InputError, match="coordinates along 'x' differ"):
        opened.tec.quality(small.assign_coords(x=small.x + 10))
    part = {"x": slice(3, 30), "time": slice(1, 3)}
    assert opened.isel(part).tec.quality(small.isel(part)).mask_errors == 0


# Refusals, with nothing written


@pytest.mark.parametrize(
    ("change", "wrong", "error", "message"),
    [
        (lambda d: d.astype("int64"), {}, InputError, "int64; allowed are"),
        (lambda d: d.assign_coords(band=["B02", "B04", "VV"]), {}, BandError, "'VV' is unknown"),
        (lambda d: d.assign_coords(band=["B02", "blue", "nir"]), {}, BandError, "all B02"),
        (lambda d: d.isel(band=0, drop=True), {}, InputError, "no band dimension"),
        (lambda d: d.rename(y="row"), {}, InputError, "'row' is unknown"),
        (lambda d: d, {"model": "nonsense"}, ModelError, "nonsense"),
        (lambda d: d, {"compression": 0}, InputError, "compression is 0"),
        (lambda d: d, {"chunks": {"band": 1}}, InputError, "needs all bands"),
        (lambda d: d, {"nodata": -1}, InputError, "contradicts"),
        (lambda d: d.assign_coords(band=["B02", "B04", "B11"]), {}, BandError, "B11"),
        (lambda d: d / 10, {}, InputError, "do not fit"),
    ],
)
def test_refused_before_anything_is_written(
    small, options, tmp_path, change, wrong, error, message
):
    with pytest.raises(error, match=message):
        change(small).tec.compress(tmp_path / "a.zarr", **options | wrong)
    assert listing(tmp_path) == []


def test_an_existing_store(small, options, tmp_path):
    store = tmp_path / "a.zarr"
    small.tec.compress(store, **options)
    before = listing(store)
    with pytest.raises(InputError, match=r"a.zarr exists; .*overwrite=True"):
        small.isel(time=[0]).tec.compress(store, **options)
    assert listing(store) == before
    small.isel(time=[0]).tec.compress(store, overwrite=True, **options)
    assert xr.open_zarr(store).sizes["time"] == 1


def test_what_is_no_store_is_never_deleted(small, options, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/thesis.tex").touch()
    (tmp_path / "file").touch()
    before = listing(tmp_path)
    for name in ("folder", "file"):
        with pytest.raises(InputError, match="is no Zarr store"):
            small.tec.compress(tmp_path / name, overwrite=True, **options)
    assert listing(tmp_path) == before


def test_the_source_is_never_overwritten(small, options, tmp_path):
    store = tmp_path / "a.zarr"
    small.drop_vars("band").assign_coords(band=np.array(BANDS, object)).to_zarr(
        store, zarr_format=2
    )
    for source in (xr.open_zarr(store), xr.open_zarr(store, chunks=None)):
        with pytest.raises(InputError, match="holds the cube that is to be compressed"):
            source.tec.compress(str(store), overwrite=True, **options)
    with pytest.raises(InputError, match="holds the cube"):
        (xr.open_zarr(store) + 1).tec.compress(str(store), overwrite=True, **options)
    np.testing.assert_array_equal(numbers(xr.open_zarr(store).reflectance), small.reflectance)


def test_a_second_generation_is_warned_of(small, options, tmp_path):
    opened = small.tec.compress(tmp_path / "a.zarr", **options)
    with pytest.warns(UserWarning, match="compressed with loss before"):
        again = opened.tec.compress(tmp_path / "b.zarr", **options)
    close(again.reflectance, small.reflectance, step=2 * STEP_DN)
    assert again.tec.info().stored_bytes > 0


# Real cubes


def test_real_places(real_cubes, tmp_path):
    cube = real_cubes("val/oscd__norcia.cube").isel(y=slice(0, 130), x=slice(0, 200))
    for zarr_format in (2, 3):
        store = tmp_path / f"{zarr_format}.zarr"
        cube.tec.compress(store, zarr_format=zarr_format, progress=False)
        opened = xr.open_zarr(store)
        quality = opened.tec.quality(cube)
        assert quality.mask_errors == 0
        assert quality.psnr_pooled > 30
        assert opened.tec.info().ratio > 10
