"""Digital numbers to the network's input and back: what is masked is exact, the rest is near."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.models import TINY, chunks, network, write_weights
from xtec.coding.stream import Stream
from xtec.errors import CorruptStreamError
from xtec.fill import BLURRED, COPIED, fill
from xtec.pixels import mark, numbers, prepare, saturated_value
from xtec.settings import Settings

holes = hnp.arrays(np.bool_, st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 8)] * 2))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("models") / "a.safetensors", network(TINY))


def stream_of(prepared, settings, **changes):
    """What the codec would write beside the latents."""
    fields = {
        "model_digest": bytes(8),
        "dtype": prepared.dtype,
        "shape": prepared.invalid.shape,
        "bands": settings.positions,
        "level": 0,
        "nodata": settings.nodata,
        "offset": settings.offset,
        "invalid": prepared.invalid,
        "saturated": prepared.saturated,
        "frame_bytes": (0,) * prepared.invalid.shape[0],
        "payload": b"",
        "frame_crcs": (0,) * prepared.invalid.shape[0],
    }
    return Stream(**fields | changes)


def restore(network, stream, config):
    return mark(numbers(network, stream, config), stream)


@given(
    chunk=chunks(bands=2),
    bands=st.sampled_from([("B02", "B04"), ("B08", "B02")]),
    nodata=st.sampled_from([None, 0, 65535, 32767, 2000]),
    offset=st.sampled_from([0, 1000, -300]),
)
def test_a_network_that_loses_nothing_gives_the_chunk_back(model, chunk, bands, nodata, offset):
    settings = Settings(model, bands=bands, nodata=nodata, offset=offset)
    if nodata is not None and nodata > np.iinfo(chunk.dtype).max:
        nodata = None
        settings = dataclasses.replace(settings, nodata=None)
    before = chunk.copy()
    prepared = prepare(chunk, settings)
    assert np.array_equal(chunk, before)
    found = restore(prepared.network, stream_of(prepared, settings), TINY)
    assert found.dtype == chunk.dtype
    assert np.array_equal(found, chunk)


@given(chunk=chunks())
def test_the_network_sees_finite_numbers_of_whole_tiles(model, chunk):
    prepared = prepare(chunk, Settings(model))
    t, bands, height, width = prepared.network.shape
    assert (t, bands) == (len(chunk), 3)
    assert height % TINY.tile == width % TINY.tile == 0
    assert 0 <= height - chunk.shape[2] < TINY.tile
    assert prepared.network.dtype == np.float32
    assert np.isfinite(prepared.network).all()


def test_padding_repeats_the_edge(model):
    chunk = np.arange(1, 1 + 3 * 5 * 7, dtype=np.uint16).reshape(1, 3, 5, 7)
    network = prepare(chunk, Settings(model)).network
    assert (network[..., 5:, :7] == network[..., 4:5, :7]).all()
    assert (network[..., 7:] == network[..., 6:7]).all()


def test_pixels_are_standardised_and_the_offset_is_taken_off(model):
    chunk = np.full((1, 3, 16, 16), 4300, np.uint16)
    network = prepare(chunk, Settings(model, offset=1000)).network
    expected = [(3300 - 1400) / 1000, (3300 - 1300) / 1000, (3300 - 2300) / 500]
    np.testing.assert_allclose(network[0, :, 3, 3], expected, rtol=1e-6)


def test_missing_bands_enter_as_their_mean(model):
    chunk = np.full((1, 1, 16, 16), 5000, np.uint16)
    network = prepare(chunk, Settings(model, bands=("B04",))).network
    assert network[:, 1].min() == np.float32(3.7)
    assert not network[:, [0, 2]].any()


@pytest.mark.parametrize(("dtype", "value"), [("uint16", 65535), ("int16", 32767)])
def test_the_largest_value_is_saturated_unless_it_is_no_data(model, dtype, value):
    assert saturated_value(np.dtype(dtype)) == value
    chunk = np.full((1, 3, 2, 2), 500, dtype)
    chunk[0, 0, 0, 0] = value
    assert prepare(chunk, Settings(model)).saturated.sum() == 1
    without = prepare(chunk, Settings(model, nodata=value))
    assert without.saturated.sum() == 0
    assert without.invalid.sum() == 1


LIMITS = [
    # type, no-data, decoded value, what it becomes
    ("uint16", 0, -50, 1),
    ("uint16", 0, 0, 1),
    ("uint16", None, -50, 0),
    ("uint16", 0, 1e9, 65534),
    ("uint16", 65534, 65534, 65533),
    ("uint16", 65535, 65535, 65534),
    ("uint16", 700, 700, 699),
    ("int16", 0, 0, -1),
    ("int16", 0, -50, -50),
    ("int16", -32768, -1e9, -32767),
    ("int16", -9999, 1e9, 32766),
]


@pytest.mark.parametrize(("dtype", "nodata", "value", "expected"), LIMITS)
def test_a_valid_pixel_stays_valid_and_in_its_type(model, dtype, nodata, value, expected):
    """Saturated and no-data values are reserved for pixels that the masks name."""
    settings = Settings(model, bands=("B02",), nodata=nodata)
    prepared = prepare(np.full((1, 1, 1, 1), 500, dtype), settings)
    network = np.full_like(prepared.network, (value - 1400) / 1000)
    found = restore(network, stream_of(prepared, settings), TINY)
    assert found.dtype == dtype
    assert found.item() == expected


def test_no_data_without_a_value_is_refused(model):
    settings = Settings(model)
    prepared = prepare(np.zeros((1, 3, 2, 2), np.uint16), settings)
    with pytest.raises(CorruptStreamError, match="no value for them"):
        restore(prepared.network, stream_of(prepared, settings, nodata=None), TINY)


@given(holes)
def test_only_holes_are_filled_and_with_values_that_are_there(hole):
    pixels = np.arange(1, 1 + hole.size, dtype=np.float32).reshape(hole.shape)
    before = pixels.copy()
    found = fill(pixels, hole)
    assert np.array_equal(pixels, before)
    assert np.array_equal(found[~hole], pixels[~hole])
    for band in range(hole.shape[1]):
        there = set(pixels[:, band][~hole[:, band]].tolist()) or {0.0}
        assert set(found[:, band].ravel().tolist()) <= there


@given(holes)
def test_a_hole_takes_the_nearest_pixel_of_its_frame(hole):
    pixels = np.arange(1, 1 + hole.size, dtype=np.float32).reshape(hole.shape)
    found = fill(pixels, hole)
    for t, band in np.ndindex(*hole.shape[:2]):
        valid = np.argwhere(~hole[t, band])
        for y, x in np.argwhere(hole[t, band]) if len(valid) else ():
            distance = ((valid - (y, x)) ** 2).sum(1)
            nearest = valid[distance == distance.min()]
            assert found[t, band, y, x] in pixels[t, band][tuple(nearest.T)]


def test_a_large_hole_blurs_far_from_its_edge():
    pixels = np.random.default_rng(3).random((2, 3, 50, 70), np.float32)
    hole = np.broadcast_to(np.arange(70) >= 30, pixels.shape)
    found = fill(pixels, hole)
    near = pixels[..., [29]].repeat(COPIED, 3)
    np.testing.assert_array_equal(found[..., 30 : 30 + COPIED], near)
    assert found[..., 29 + BLURRED :].std(axis=2).max() < 0.5 * near.std(axis=2).min()
    assert found.min() >= pixels.min() - 1e-6
    assert found.max() <= pixels.max() + 1e-6


def test_each_band_has_its_own_hole():
    pixels = np.random.default_rng(4).random((1, 3, 40, 40), np.float32)
    hole = np.zeros(pixels.shape, bool)
    hole[0, 0, :30] = hole[0, 1, :, 20:] = True
    found = fill(pixels, hole)
    for band in range(3):
        alone = fill(pixels[:, [band]], hole[:, [band]])
        np.testing.assert_array_equal(found[:, [band]], alone)


def test_a_frame_without_data_takes_the_frame_before_else_the_one_after():
    pixels = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1).repeat(2, 3)
    for empty, expected in (((1, 2), [0, 0, 0, 3, 4]), ((0, 1, 4), [2, 2, 2, 3, 3])):
        hole = np.zeros(pixels.shape, bool)
        hole[list(empty)] = True
        assert fill(pixels, hole)[:, 0, 0, 0].tolist() == expected


def test_garbage_under_a_hole_does_not_get_out():
    pixels = np.array([1, np.nan, np.inf, 2], np.float32).reshape(1, 1, 1, 4)
    assert np.isfinite(fill(pixels, ~np.isfinite(pixels))).all()
