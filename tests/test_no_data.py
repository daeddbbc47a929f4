"""No data comes back as no data, and only it, whatever its value; where there is none, no bytes."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.models import few
from xtec import sample
from xtec.codec import Settings, decode_chunk, encode_chunk
from xtec.coding.stream import pack, parse

BANDS = ["B02", "B04", "B08"]
CHUNKS = {"time": 2, "y": 16, "x": 16}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"
)


@pytest.fixture(scope="module")
def original():
    """Digital numbers of which none is no data yet."""
    cube = sample.cube(dates=4, size=(32, 20)).sel(band=BANDS)
    del cube.reflectance.attrs["_FillValue"]
    return cube.assign(reflectance=cube.reflectance.clip(1, 9000))


@pytest.fixture
def options(precise):
    return {"model": precise.model, "compression": 1, "chunks": CHUNKS, "progress": False}


def objects(path):
    """Files of chunks of the compressed variable, by number of the chunk."""
    skipped = ("zarr.json", ".zarray", ".zattrs")
    found = [f for f in (path / "reflectance").rglob("*") if f.is_file() and f.name not in skipped]
    return {
        str(f.relative_to(path / "reflectance")).removeprefix("c/").replace("/", "."): f
        for f in found
    }


# A chunk without data leaves nothing in the store


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shards", [None, {"time": 4, "y": 32, "x": 32}])
@pytest.mark.parametrize("nodata", [0, 7])
def test_chunks_without_data_are_not_stored(
    original, options, tmp_path, zarr_format, shards, nodata
):
    if shards and zarr_format == 2:
        pytest.skip("format 2 has no shards")
    pixels = original.reflectance.copy(deep=True)
    pixels[:2, :, 16:, :16] = nodata  # one chunk
    pixels[2:] = nodata  # a date's worth of them
    cube = original.assign(reflectance=pixels.assign_attrs(_FillValue=nodata))
    path = tmp_path / "a.zarr"
    cube.tec.compress(path, zarr_format=zarr_format, shards=shards, **options)
    if shards:
        assert list(objects(path)) == ["0.0.0.0"]
    else:
        assert sorted(objects(path)) == ["0.0.0.0", "0.0.0.1", "0.0.1.1"]
    back = xr.open_zarr(path, mask_and_scale=False).reflectance.values
    np.testing.assert_array_equal(back == nodata, pixels.values == nodata)
    assert np.isnan(xr.open_zarr(path).reflectance.values).sum() == (pixels == nodata).sum()


def test_an_undeclared_value_that_format_2_cannot_fill_with_takes_a_few_bytes(
    original, options, tmp_path
):
    """In format 2 what fills is what xarray masks; digital numbers must not become NaN for it."""
    pixels = original.reflectance.copy(deep=True)
    pixels[2:] = 7
    path = tmp_path / "a.zarr"
    cube = original.assign(reflectance=pixels)
    cube.tec.compress(path, zarr_format=2, nodata=7, **options)
    sizes = {name: f.stat().st_size for name, f in objects(path).items()}
    assert max(size for name, size in sizes.items() if name.startswith("1.")) < 150
    opened = xr.open_zarr(path).reflectance
    assert opened.dtype == np.uint16
    np.testing.assert_array_equal(opened == 7, pixels == 7)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_nan_is_exact_and_costs_nothing_where_there_is_nothing_else(
    original, options, tmp_path, zarr_format
):
    values = (original.reflectance / 10_000).astype(np.float32)
    edge = np.arange(20) < np.arange(32)[:, None] / 2
    values = values.where(~xr.DataArray(edge, dims=("y", "x")))
    values[2:] = np.nan
    values[0, 1, 3, 17] = np.nan  # in one band only
    path = tmp_path / "a.zarr"
    original.assign(reflectance=values).tec.compress(path, zarr_format=zarr_format, **options)
    back = xr.open_zarr(path).reflectance.values
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values.values))
    assert not [name for name in objects(path) if name.startswith("1.")]


def test_an_empty_chunk_is_its_header():
    stream = encode_chunk(np.zeros((8, 13, 256, 256), np.uint16), Settings())
    assert len(stream) == 42 + 13 + 8 * 8 + 5 + 5 + 4 + 4


# Attacks on the no-data value


def around(value, dtype, seed):
    """Pixels that lie so close to a value that many decode to it, and a hole of it."""
    limits = np.iinfo(dtype)
    random = np.random.default_rng(seed)
    shape = (2, 3, 16, 16)
    ramp = np.linspace(-20, 20, shape[3]).round().astype(int)
    pixels = value + ramp + random.integers(-2, 3, shape)
    pixels = pixels.clip(limits.min, limits.max).astype(dtype)
    pixels[pixels == value] = value + 1 if value < limits.max else value - 1
    pixels[:, :, :3] = value
    return pixels


VALUES = [
    ("uint16", 0), ("uint16", 1), ("uint16", 1200), ("uint16", 65534), ("uint16", 65535),
    ("int16", -32768), ("int16", -9999), ("int16", 0), ("int16", 32766), ("int16", 32767),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "value"), VALUES)
@pytest.mark.parametrize("compression", [1, 400, 10_000])
def test_no_pixel_becomes_no_data_by_chance(precise, dtype, value, compression):
    settings = Settings(precise.model, compression, nodata=value)
    pixels = around(value, dtype, 3)
    back = decode_chunk(encode_chunk(pixels, settings))
    np.testing.assert_array_equal(back == value, pixels == value)


def test_the_attack_hits(precise):
    """The same stream without a no-data value decodes to it in valid pixels."""
    pixels = around(1200, "uint16", 3)
    stream = parse(encode_chunk(pixels, Settings(precise.model, 400, nodata=1200)))
    bare = decode_chunk(pack(replace(stream, nodata=None, invalid=None)))
    assert ((bare == 1200) & (pixels != 1200)).sum() > 30


@few
@given(st.data())
def test_any_mask_of_any_value_is_exact(precise, data):
    dtype, value = data.draw(st.sampled_from(VALUES))
    seed = data.draw(st.integers(0, 1 << 20))
    pixels = around(value, dtype, seed)
    random = np.random.default_rng(seed)
    pixels[random.random(pixels.shape) < data.draw(st.sampled_from([0, 0.01, 0.5, 0.99]))] = value
    back = decode_chunk(encode_chunk(pixels, Settings(precise.model, 400, nodata=value)))
    np.testing.assert_array_equal(back == value, pixels == value)
    top = np.iinfo(dtype).max
    if value != top:
        np.testing.assert_array_equal(back == top, pixels == top)
