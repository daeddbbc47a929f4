"""Rounding by error and bits: one of the two integers next to a component, and the better one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models import few
from xtec.coding import tables
from xtec.models import rounding
from xtec.models.analysis import BIT
from xtec.models.distribution import Distribution
from xtec.models.rounding import rounded

ROWS = len(tables.load().sizes)


def wild(seed, count=400):
    """Components of any size, near to where they are expected and far from it."""
    random = np.random.default_rng(seed)
    centre = random.integers(-3000, 3000, count) * random.integers(0, 2, count)
    spread = 2.0 ** random.uniform(-3, 9, count)
    y = centre + random.normal(0, 1, count) * spread
    return y.astype(np.float32), centre.astype(np.int32), random.integers(0, ROWS, count, np.int32)


def chosen(y, centre, row):
    shape = len(y), 1, 1
    found = Distribution(*(torch.from_numpy(x).view(shape) for x in (centre, row)))
    return rounded(torch.from_numpy(y).view(shape), found).numpy().ravel()


def bits(symbol, row):
    """What the table says, straight from its frequencies."""
    t = tables.load()
    counts = np.diff(t.cdf[t.starts[row] : t.starts[row] + t.sizes[row] + 1].astype(int))
    entry = symbol - t.lows[row]
    if 0 <= entry < len(counts) - 1:
        return 16 - np.log2(counts[entry])
    beyond = -entry - 1 if entry < 0 else entry - len(counts) + 1
    order = max(0, len(counts).bit_length() - 4)
    return 16 - np.log2(counts[-1]) + 2 + order + 2 * np.log2(beyond // 2**order + 1)


@few
@given(st.integers(0, 999))
def test_it_is_the_better_of_the_two_next_to_it(seed):
    y, centre, row = wild(seed)
    for value, q, c, r in zip(y, chosen(y, centre, row), centre, row, strict=True):
        near = np.floor(value), np.ceil(value)
        losses = [(value - n) ** 2 + BIT * bits(int(n) - c, r) for n in near]
        assert q in near
        assert losses[near.index(q)] <= min(losses) + 1e-3


def test_without_a_price_it_is_the_nearest(monkeypatch):
    monkeypatch.setattr(rounding, "BIT", 0)
    y, centre, row = wild(1)
    assert np.array_equal(chosen(y, centre, row), np.rint(y))


@pytest.mark.parametrize(("centre", "expected"), [(0, 0), (1, 1), (-3, 0)])
def test_what_is_expected_is_favoured(centre, expected):
    narrow = int(tables.load().first_row[20]) + 32  # sigma 1/4, its mean in the middle
    y = np.array([0.55], np.float32)
    assert chosen(y, np.array([centre], np.int32), np.array([narrow], np.int32)) == expected
