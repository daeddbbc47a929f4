"""Masks as borders: few bytes for the edge of a swath, nothing lost, nothing forged."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtec.coding import masks
from xtec.errors import CorruptStreamError

BORDERS = (masks.SHARED_BORDERS, masks.FULL_BORDERS)


def edge(shape, slope=0.3, stagger=0):
    """No data on one side of a slanted line; frames and, on demand, bands are shifted."""
    frame, band, y, x = np.ogrid[tuple(slice(size) for size in shape)]
    return x < shape[3] / 3 + slope * y + 5 * frame + stagger * (band % 3)


@st.composite
def bordered(draw):
    """Masks with few borders in a row, some of them none at all."""
    shape = draw(st.tuples(*[st.integers(1, 4)] * 2, st.integers(1, 9), st.integers(1, 300)))
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    most = draw(st.integers(0, 9))
    chosen = random.random((*shape[:3], 1)) < draw(st.sampled_from([0.2, 1.0]))
    changes = np.zeros(shape, bool)
    places = random.integers(0, shape[3], (*shape[:3], most))
    np.put_along_axis(changes, places, chosen, axis=3)
    return np.logical_xor.accumulate(changes, axis=3)


@given(bordered())
def test_masks_of_few_borders_come_back(mask):
    kind, data = masks.encode(mask)
    back = masks.decode(kind, data, mask.shape)
    np.testing.assert_array_equal(mask, False if back is None else back)


@given(bordered())
def test_both_ways_to_keep_a_mask_hold_the_same(mask):
    data = masks._deflate_borders(mask)
    if data and mask.any():
        np.testing.assert_array_equal(masks._inflate_borders(data, mask.shape), mask)
        np.testing.assert_array_equal(masks._inflate(masks._deflate(mask), mask.shape), mask)


def test_the_bytes_are_those_of_the_page_on_the_format():
    """Borders of the rows (2), (3), (none), (0 and 4) of six columns, written by hand."""
    mask = np.array(
        [[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]], bool
    )[None, None]
    first, second = [2, 1, 3, -6], [6, 0, 0, -2]
    numbers = np.array(first + second).astype("<u2")
    low, high = (numbers & 0xFF).astype("u1"), (numbers >> 8).astype("u1")
    data = bytes([2]) + zlib.compress(low.tobytes() + high.tobytes())
    for kind in BORDERS:
        np.testing.assert_array_equal(masks.decode(kind, data, mask.shape), mask)
    assert zlib.decompress(masks._deflate_borders(mask)[1:]) == zlib.decompress(data[1:])


def test_an_edge_costs_less_than_its_pixels():
    for mask, most in (
        (edge((8, 13, 256, 256)), 150),
        (edge((8, 13, 256, 256), stagger=3), 700),
        (edge((1, 13, 256, 256)), 50),
    ):
        kind, data = masks.encode(mask)
        assert kind in BORDERS
        assert len(data) < most
        assert len(data) < len(masks._deflate(mask)) / 1.5


def test_scattered_pixels_are_kept_as_pixels():
    mask = np.random.default_rng(2).random((2, 3, 64, 64)) < 0.3
    assert masks.encode(mask)[0] == masks.FULL
    assert masks.encode(np.broadcast_to(mask[:, :1], mask.shape))[0] == masks.SHARED


def test_masks_that_are_too_wide_are_kept_as_pixels():
    mask = np.zeros((1, 1, 2, 1 << 16), bool)
    mask[..., 70:] = True
    kind, data = masks.encode(mask)
    assert kind == masks.SHARED
    np.testing.assert_array_equal(masks.decode(kind, data, mask.shape), mask)


def forged(most, *numbers):
    made = np.array(numbers).astype("<u2")
    return bytes([most]) + zlib.compress(
        (made & 0xFF).astype("u1").tobytes() + (made >> 8).astype("u1").tobytes()
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "up to 0 borders"),
        (b"\0", "up to 0 borders"),
        (forged(9, *range(18)), "up to 9 borders"),
        (forged(1, 7, 0), "do not rise"),  # beyond the width
        (forged(1, 0, 0xFFFF), "do not rise"),
        (forged(2, 3, 0, 3, 0), "do not rise"),  # twice the same
        (forged(2, 3, 0, 2, 0), "do not rise"),
        (forged(2, 6, 0, 3, 0), "do not rise"),  # one more after the last
        (forged(1, 3), "inflate"),
        (forged(1, 3, 0, 0), "inflate"),
        (forged(1, 3, 0) + b"x", "inflate"),
        (forged(1, 3, 0)[:-3], "inflate"),
        (b"\1no zlib", "inflate"),
    ],
)
def test_forged_borders_are_refused(data, message):
    for kind in BORDERS:
        with pytest.raises(CorruptStreamError, match=message):
            masks.decode(kind, data, (1, 1, 2, 6))


@given(st.binary(max_size=40), st.integers(0, 9))
def test_any_bytes_are_a_mask_or_refused(data, most):
    for payload in (data, bytes([most]) + zlib.compress(data)):
        for kind in BORDERS:
            try:
                mask = masks.decode(kind, payload, (2, 1, 2, 5))
            except CorruptStreamError:
                continue
            assert mask.shape == (2, 1, 2, 5)
