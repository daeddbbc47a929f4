"""The lapped transform: orthonormal, local, and exact on the way back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models import few
from xtec.errors import ModelError
from xtec.models import lapped

UNIT = 16


def images(shape, seed=0, spread=3000.0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64) * spread


sizes = st.sampled_from([16, 32, 64, 112])


@few
@given(sizes, sizes, st.integers(0, 9))
def test_energy_is_kept(height, width, seed):
    x = images((2, height, width), seed)
    y = lapped.forward(x)
    assert y.shape == x.shape
    assert torch.allclose(y.square().sum((1, 2)), x.square().sum((1, 2)), rtol=1e-12)


@few
@given(sizes, sizes, st.integers(0, 9))
def test_the_way_back_is_exact_to_a_few_units(height, width, seed):
    x = images((3, height, width), seed) * UNIT
    back = lapped.inverse(lapped.forward(x).round())
    assert torch.equal(back, back.round())
    assert (back - x).abs().max() < 6
    assert (back - x).square().mean().sqrt() < 1.5


def test_a_flat_image_has_one_frequency_in_blocks_away_from_the_border():
    y = lapped.forward(torch.full((96, 96), 100.0, dtype=torch.float64))
    inner = y[32:-32, 32:-32].unflatten(0, (-1, 16)).unflatten(2, (-1, 16))
    assert torch.allclose(inner[:, 0, :, 0], torch.tensor(1600.0, dtype=torch.float64))
    inner[:, 0, :, 0] = 0
    assert inner.abs().max() < 1e-9


def test_a_coefficient_reaches_half_a_block_into_its_neighbours():
    y = torch.zeros(112, 112, dtype=torch.float64)
    y[3 * 16 + 2, 3 * 16 + 5] = 2**20
    rows = torch.nonzero(lapped.inverse(y).abs().amax(1)).ravel()
    assert (rows.min(), rows.max()) == (3 * 16 - 8, 4 * 16 + 7)


def test_an_error_is_as_large_in_the_pixels():
    y = lapped.forward(images((64, 64)) * UNIT).round()
    noise = torch.randint(-900, 900, y.shape, generator=torch.Generator().manual_seed(1))
    difference = lapped.inverse(y + noise) - lapped.inverse(y)
    expected = noise.double().square().mean().item()
    assert difference.square().mean().item() == pytest.approx(expected, rel=1e-4)


def test_company_changes_nothing():
    y = lapped.forward(images((4, 48, 64)) * UNIT).round()
    assert torch.equal(lapped.inverse(y)[2], lapped.inverse(y[2:3])[0])


def test_hostile_magnitudes_stay_exact():
    y = torch.full((32, 32), 2.0**40, dtype=torch.float64)
    assert torch.equal(lapped.inverse(y), lapped.inverse(torch.full_like(y, lapped.LIMIT)))
    assert lapped.LIMIT * lapped.MATRIX_UNIT * 4 * lapped.SIDE**0.5 < 2**53


def test_no_entry_lies_near_a_tie():
    for matrix in lapped._matrices():
        steps = matrix * lapped.MATRIX_UNIT
        assert ((steps - steps.floor()) - 0.5).abs().min() > 1e-3


def test_a_broken_mathematical_library_is_told(monkeypatch):
    lapped._integer_matrices.cache_clear()
    overlap, dct = lapped._matrices()
    monkeypatch.setattr(lapped, "_matrices", lambda: (overlap, dct * (1 + 1e-4)))
    with pytest.raises(ModelError, match="mathematical library"):
        lapped.inverse(torch.zeros(16, 16, dtype=torch.float64))
    lapped._integer_matrices.cache_clear()
