"""Figures of comparison: golden values by hand, and the law that parts add up to the whole."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xtec.metrics import compare

SHAPE = (2, 3, 4, 5)
cubes = hnp.arrays(np.uint16, SHAPE)


def spectra(*values):
    """Shape (band, 1, 1)."""
    return np.array(values, float)[:, None, None]


def test_rmse_psnr_and_largest_error_of_two_bands():
    found = compare(np.zeros((2, 1, 2)), np.array([[[3, 4]], [[100, 0]]]))
    assert found.rmse == pytest.approx([12.5**0.5, 5000**0.5])
    assert found.psnr == pytest.approx([69.0309, 43.0103], abs=1e-4)
    assert found.psnr_mean == pytest.approx((69.0309 + 43.0103) / 2, abs=1e-4)
    assert found.psnr_pooled == pytest.approx(10 * np.log10(1e8 / (10025 / 4)))
    assert found.max_error.tolist() == [4, 100]


def test_an_error_of_one_dn_is_80_db():
    assert compare(spectra(5), spectra(6)).psnr == pytest.approx([80])


def test_without_error_psnr_is_infinite():
    assert compare(spectra(5), spectra(5)).psnr.tolist() == [np.inf]


def test_unsigned_numbers_do_not_wrap():
    found = compare(spectra(1).astype(np.uint16), spectra(3).astype(np.uint16))
    assert found.max_error.tolist() == [2]


def test_spectral_angle():
    assert compare(spectra(1, 0), spectra(1, 1)).sam_deg == pytest.approx(45)
    assert compare(spectra(1, 2), spectra(10, 20)).sam_deg == pytest.approx(0, abs=1e-5)
    assert np.isnan(compare(spectra(1), spectra(2)).sam_deg)  # one band has no direction


def test_spectral_angle_needs_the_offset():
    here, there = spectra(1001, 1000), spectra(1001, 1001)
    assert compare(here, there, offset=1000).sam_deg == pytest.approx(45)
    assert compare(here, there).sam_deg < 0.1


def test_ndvi_error():
    found = compare(spectra(1000, 3000), spectra(1000, 1000), red_nir=(0, 1))
    assert found.ndvi_error == pytest.approx(0.5)
    shifted = compare(spectra(2000, 4000), spectra(2000, 2000), red_nir=(0, 1), offset=1000)
    assert shifted.ndvi_error == pytest.approx(0.5)
    assert np.isnan(compare(spectra(1, 2), spectra(1, 2)).ndvi_error)


def test_pixels_without_data_do_not_count():
    before, after = np.full((2, 1, 2), 100.0), np.full((2, 1, 2), 101.0)
    after[0, 0, 0] = 0
    valid = np.ones(before.shape, bool)
    valid[0, 0, 0] = False
    found = compare(before, after, valid=valid, red_nir=(0, 1))
    assert found.count.tolist() == [1, 2]
    assert found.max_error.tolist() == [1, 1]
    assert found.angle_count == found.ndvi_count == 1
    assert found.ndvi_error == 0


def test_a_band_without_any_data_is_nan_and_spoils_no_mean():
    valid = np.array([True, False])[:, None, None]
    found = compare(spectra(1, 1), spectra(2, 2), valid=valid)
    assert np.isnan(found.rmse[1])
    assert np.isnan(found.max_error[1])
    assert found.psnr_mean == found.psnr_pooled == pytest.approx(80)


def test_nothing_valid_is_nan_everywhere():
    found = compare(spectra(1, 1), spectra(2, 2), valid=np.zeros((2, 1, 1), bool))
    assert np.isnan([found.psnr_mean, found.psnr_pooled, found.sam_deg]).all()


@given(before=cubes, after=cubes, valid=hnp.arrays(bool, SHAPE), cut=st.integers(0, 5))
def test_parts_add_up_to_the_whole(before, after, valid, cut):
    whole = compare(before, after, valid=valid, red_nir=(0, 2))
    parts = [np.s_[t, :, :, x] for t in (0, 1) for x in (slice(cut), slice(cut, None))]
    total = reduce(
        add, (compare(before[p], after[p], valid=valid[p], red_nir=(0, 2)) for p in parts)
    )
    for name in ("rmse", "psnr", "psnr_mean", "psnr_pooled", "max_error", "sam_deg", "ndvi_error"):
        np.testing.assert_allclose(getattr(total, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
