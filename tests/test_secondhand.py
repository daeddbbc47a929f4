"""No silent second loss: every way in which decoded pixels come to be encoded again is warned of.

And a plain write, a plain read, and writing whole chunks of an original never are: warnings are
errors here.
"""

import pickle
import subprocess
import sys
import warnings

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import MemoryStore

from xtec import sample, secondhand
from xtec.codec import Settings, decode_chunk, encode_chunk
from xtec.errors import SecondLossWarning
from xtec.zarr_v2 import TecCodec
from xtec.zarr_v3 import TecSerializer

BANDS = ("B02", "B04", "B08")
CHUNK = (4, 3, 32, 32)
FORMATS = [2, 3]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"
)

both_formats = pytest.mark.parametrize("zarr_format", FORMATS)
second_loss = pytest.warns(SecondLossWarning, match="decoded from a compressed store")


@pytest.fixture(scope="module")
def original():
    cube = sample.cube(dates=8, size=(64, 64)).sel(band=list(BANDS))
    del cube.reflectance.attrs["_FillValue"]  # or plain to_zarr into a store that has it refuses
    return cube


def numbers(cube):
    return cube.reflectance.fillna(0).values.astype(np.uint16)


@pytest.fixture(autouse=True)
def no_memory_of_other_tests(monkeypatch):
    monkeypatch.setattr(secondhand, "_table", np.zeros_like(secondhand._table))


@pytest.fixture
def settings(precise):
    return Settings(precise.model, 20)


@pytest.fixture
def store(original, settings, tmp_path):
    """Make a store of the first dates, and forget that it was made."""

    def make(zarr_format, dates=8, name="a.zarr", **more):
        chunks = dict(zip(("time", "y", "x"), (CHUNK[0], *CHUNK[2:]), strict=True))
        original.isel(time=slice(0, dates)).tec.compress(
            tmp_path / name,
            model=settings.model,
            chunks=chunks,
            zarr_format=zarr_format,
            progress=False,
            **more,
        )
        return str(tmp_path / name)

    return make


@pytest.fixture
def array(original, settings):
    """An array of plain zarr with all pixels in it."""

    def make(zarr_format, dates=8):
        codec = (
            {"compressors": [TecCodec(settings)]}
            if zarr_format == 2
            else {"serializer": TecSerializer(settings), "compressors": None}
        )
        pixels = numbers(original)[:dates]
        array = zarr.create_array(
            MemoryStore(), shape=pixels.shape, chunks=CHUNK, dtype="uint16", fill_value=0,
            zarr_format=zarr_format, **codec,
        )  # fmt: skip
        array[:] = pixels
        return array

    return make


# What is noticed


@both_formats
@pytest.mark.parametrize("in_memory", [False, True])
def test_an_opened_store_saved_again_with_its_encoding(store, tmp_path, zarr_format, in_memory):
    opened = xr.open_zarr(store(zarr_format))
    with second_loss:
        (opened.load() if in_memory else opened).to_zarr(
            tmp_path / "b.zarr", zarr_format=zarr_format
        )


@pytest.mark.parametrize(
    "part",
    [
        {"time": slice(3, 5)},
        {"y": slice(5, 47), "x": slice(9, 50)},
        {"time": [1], "y": slice(None, None, -1)},
        {"x": slice(30, 64)},
    ],
    ids=str,
)
def test_a_part_of_an_opened_store(store, tmp_path, part):
    opened = xr.open_zarr(store(3)).isel(part).load()
    with second_loss:
        opened.to_zarr(tmp_path / "b.zarr")


def test_an_opened_store_saved_again_with_shards_and_other_chunks(store, tmp_path):
    opened = xr.open_zarr(store(3)).load()
    opened.reflectance.encoding |= {"chunks": (8, 3, 64, 16), "shards": (8, 3, 64, 64)}
    with second_loss:
        opened.to_zarr(tmp_path / "b.zarr")


def test_what_was_packed_from_reflectance(original, settings, tmp_path):
    reflectance = original.where(original > 0) / 10_000
    reflectance.tec.compress(tmp_path / "a.zarr", model=settings.model, progress=False)
    opened = xr.open_zarr(tmp_path / "a.zarr")
    assert opened.reflectance.dtype.kind == "f"
    with second_loss:
        opened.to_zarr(tmp_path / "b.zarr")


@both_formats
def test_a_region_that_cuts_chunks(store, original, zarr_format):
    path = store(zarr_format)
    part = {"y": slice(8, 40), "x": slice(0, 32)}
    patch = (
        original[["reflectance"]].isel(part).drop_vars(["spatial_ref", "time", "band", "y", "x"])
    )
    with second_loss:  # xarray takes it: it is in memory
        patch.to_zarr(path, region=part)


@both_formats
@pytest.mark.parametrize("shards", [None, (8, 3, 64, 64)])
def test_a_few_pixels_through_plain_zarr(array, original, settings, zarr_format, shards):
    if shards and zarr_format == 2:
        pytest.skip("format 2 has no shards")
    target = array(zarr_format)
    if shards:
        sharded = zarr.create_array(
            MemoryStore(), shape=target.shape, chunks=CHUNK, shards=shards, dtype="uint16",
            serializer=TecSerializer(settings), compressors=None, fill_value=0,
        )  # fmt: skip
        sharded[:] = numbers(original)
        target = sharded
    with second_loss:
        target[5, :, 40:44, 3:9] = 0


@both_formats
def test_an_append_after_a_chunk_that_is_not_full(store, original, zarr_format):
    path = store(zarr_format, dates=6)
    with second_loss:
        original.isel(time=slice(6, 8)).chunk(time=2).to_zarr(path, append_dim="time")


@both_formats
def test_one_old_date_among_new_ones(store, original, zarr_format):
    path = store(zarr_format, dates=5)
    with second_loss:
        original.isel(time=slice(5, 8)).to_zarr(path, append_dim="time")


@both_formats
def test_blocks_that_cut_chunks_without_safe_chunks(original, settings, tmp_path, zarr_format):
    lazy = original.isel(time=slice(0, 4)).tec.compress(
        model=settings.model, chunks={"y": 32, "x": 32}, zarr_format=zarr_format
    )
    cut = lazy.chunk(time=1, x=20)
    with dask.config.set(scheduler="synchronous"), second_loss:
        cut.to_zarr(tmp_path / "a.zarr", safe_chunks=False, zarr_format=zarr_format)


def test_whole_chunks_of_decoded_pixels(array):
    target = array(3)
    block = target[:4, :, :32, :32].copy()
    block[0, :, 3, 4] = 77
    with second_loss:
        target[:4, :, :32, :32] = block


def test_after_a_copy_to_the_other_byte_order(store, settings):
    opened = xr.open_zarr(store(2), mask_and_scale=False).isel(time=slice(0, 2))
    decoded = opened.reflectance.values
    with second_loss:
        TecCodec(settings, ">u2").encode(decoded.astype(">u2"))


# What a warning can do


@both_formats
def test_as_an_error_it_comes_before_anything_is_stored(array, zarr_format):
    target = array(zarr_format)
    before = target[:]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SecondLossWarning)
        with pytest.raises(SecondLossWarning, match=r"ds\.drop_encoding\(\)"):
            target[5, :, 40:44, 3:9] = 0
    np.testing.assert_array_equal(target[:], before)


@both_formats
def test_whoever_compresses_again_is_told_once(store, tmp_path, zarr_format):
    opened = xr.open_zarr(store(zarr_format))
    with pytest.warns(SecondLossWarning) as caught:
        opened.tec.compress(
            tmp_path / "b.zarr", compression=2, zarr_format=zarr_format, progress=False
        )
    assert len(caught) == 1
    assert "was compressed with loss before" in str(caught[0].message)


def test_having_been_told_is_not_stored_and_no_part_of_the_codec(settings):
    for codec in (TecCodec(settings, told=True), TecSerializer(settings, told=True)):
        assert codec == type(codec)(settings)
        assert pickle.loads(pickle.dumps(codec)).told
    assert TecCodec.from_config(TecCodec(settings, told=True).get_config()).told is False
    assert TecSerializer.from_dict(TecSerializer(settings, told=True).to_dict()).told is False


# What is no second loss


@both_formats
def test_copies_without_the_codec_and_copies_of_files(store, tmp_path, zarr_format):
    path = store(zarr_format)
    xr.open_zarr(path).drop_encoding().to_zarr(tmp_path / "b.zarr", zarr_format=zarr_format)
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "b.zarr"), xr.open_zarr(path))


@both_formats
def test_writing_the_original_over_what_was_read(array, original, zarr_format):
    target = array(zarr_format)
    before = target[:]
    target[:] = numbers(original)
    target[4:, :, :32] = numbers(original)[4:, :, :32]
    np.testing.assert_array_equal(target[:], before)


@both_formats
def test_an_append_to_full_chunks(store, original, zarr_format):
    path = store(zarr_format, dates=4)
    before = xr.open_zarr(path).load()
    original.isel(time=slice(4, 8)).chunk(time=4).to_zarr(path, append_dim="time")
    after = xr.open_zarr(path).load()
    xr.testing.assert_equal(after.isel(time=slice(0, 4)), before)


@pytest.mark.parametrize("compression", [0.5, 20, 400, 10_000])
def test_originals_are_not_taken_for_decoded_ones(original, compression):
    settings = Settings(bands=BANDS, compression=compression)
    pixels = numbers(original)
    for place in (np.s_[:], np.s_[:4, :, :32], np.s_[3:4, :, 7:]):
        secondhand.remember([decode_chunk(encode_chunk(pixels[place].copy(), settings))])
    secondhand.warn([pixels, pixels[3:, :, 9:, 5:]])


def test_empty_even_and_narrow_chunks_say_nothing():
    even = [np.full((2, 3, 16, 16), value, np.uint16) for value in (0, 5)]
    narrow = np.arange(2 * 3 * 16 * 7, dtype=np.uint16).reshape(2, 3, 16, 7)
    secondhand.remember([*even, narrow])
    secondhand.warn([*even, narrow])
    assert secondhand.marks(np.zeros(5, np.uint16)).size == 0


# The marks


def test_marks_do_not_depend_on_where_pixels_stand():
    pixels = np.random.default_rng(5).integers(0, 9000, (3, 4, 70, 90)).astype(np.uint16)
    whole = set(secondhand.marks(pixels).tolist())
    part = secondhand.marks(pixels[1:, :, 13:, 22:71])
    assert len(part) > 20
    assert set(part.tolist()) <= whole
    assert set(secondhand.marks(pixels.astype(">u2")).tolist()) == whole
    assert set(secondhand.marks(pixels.astype(np.int16)).tolist()) == whole


def test_marks_differ_where_one_band_differs():
    pixels = np.random.default_rng(6).integers(0, 9000, (1, 4, 64, 64)).astype(np.uint16)
    other = pixels.copy()
    other[:, 1] += 1
    other[:, 2] -= 1  # the sum over the bands stays
    one, two = secondhand.marks(pixels), secondhand.marks(other)
    assert len(one) == len(two) > 10
    assert not set(one.tolist()) & set(two.tolist())


def test_the_memory_is_bounded_and_keeps_what_came_last():
    random = np.random.default_rng(7)
    size = secondhand._table.nbytes
    for _ in range(3):
        chunk = random.integers(0, 9000, (1, 2, 256, 256)).astype(np.uint16)
        secondhand.remember([chunk])
    assert secondhand._table.nbytes == size
    with second_loss:
        secondhand.warn([chunk])


def test_another_process_does_not_know(store):
    """What the page on guarantees says about the limits of this."""
    code = (
        "import sys, zarr; import numpy as np; from xtec.codec import Settings, encode_chunk;"
        "from xtec.zarr_v2 import TecCodec; import warnings; warnings.simplefilter('error');"
        "TecCodec(Settings(bands=('B02', 'B04', 'B08'))).encode(np.load(sys.argv[1]))"
    )
    path = store(3)
    np.save(f"{path}.npy", xr.open_zarr(path, mask_and_scale=False).reflectance.values)
    subprocess.run([sys.executable, "-c", code, f"{path}.npy"], check=True)
