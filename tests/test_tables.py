"""The tables are Gaussians, exact, frozen, cheap to code with, and can be made again."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtec.coding import make_tables, tables
from xtec.errors import TableError

TABLES = tables.load()
FULL = 1 << 16


def counts_of(row):
    start = TABLES.starts[row]
    return np.diff(TABLES.cdf[start : start + TABLES.sizes[row] + 1].astype(np.int64))


def sigma_of(scale):
    return 2 ** (-4 + scale / 10)


def upper_tail(z):
    """The Gaussian's share above z, precise in both tails; an oracle apart from make_tables."""
    return np.vectorize(math.erfc)(z / math.sqrt(2)) / 2


def gaussian(symbols, mean, sigma):
    edges = np.append(symbols - 0.5, symbols[-1] + 0.5)
    above = upper_tail(np.abs(edges - mean) / sigma)
    cumulative = np.where(edges > mean, 1 - above, above)
    same_side = np.sign(edges[:-1] - mean) * np.sign(edges[1:] - mean) > 0
    return np.where(same_side, np.abs(np.diff(above)), np.diff(cumulative))


def test_every_row_fills_the_range_and_leaves_no_entry_out():
    ends = TABLES.starts + TABLES.sizes
    assert (TABLES.cdf[TABLES.starts] == 0).all()
    assert (TABLES.cdf[ends] == FULL).all()
    steps = np.diff(TABLES.cdf.astype(np.int64))
    assert (np.delete(steps, ends[:-1]) >= 1).all()
    assert len(TABLES.cdf) == TABLES.sizes.sum() + len(TABLES.sizes)


def test_every_row_holds_the_symbol_zero():
    assert (TABLES.lows <= 0).all()
    assert (TABLES.lows + TABLES.sizes - 2 >= 0).all()


def test_every_scale_and_fraction_has_its_own_row():
    scale, fraction = np.divmod(np.arange(tables.SCALES * 64), 64)
    rows = TABLES.rows(scale.astype(np.uint8), fraction.astype(np.int32))
    assert rows.dtype == np.uint16
    assert set(np.diff(rows.astype(int))) == {0, 1}  # in order, and none left out
    assert (rows[0], rows[-1]) == (0, len(TABLES.sizes) - 1)
    sharing = np.bincount(rows)
    assert np.bincount(sharing).nonzero()[0].tolist() == [1, 4, 16, 64]
    corners = np.array([(39, 63), (40, 0), (69, 63), (70, 0), (99, 63), (100, 0), (100, 63)])
    assert TABLES.rows(*corners.T).tolist() == [2559, 2560, 3039, 3040, 3159, 3160, 3160]


@pytest.mark.parametrize("scale", [0, 10, 25, 39, 40, 55, 69, 70, 90, 99, 100, 115, 130])
def test_counts_are_those_of_a_gaussian(scale):
    shift = int(TABLES.shift[scale])
    for group in range(64 >> shift):
        row = int(TABLES.first_row[scale]) + group
        mean = np.mean([(group << shift), ((group + 1) << shift) - 1]) / 64 - 0.5
        counts = counts_of(row)
        symbols = TABLES.lows[row] + np.arange(len(counts) - 1)
        share = gaussian(symbols, mean, sigma_of(scale))
        escape = max(1 - share.sum(), (1 - share.max()) / 512)
        ideal = FULL * np.append(share * (1 - escape) / share.sum(), escape)
        assert (np.abs(counts - ideal) < 1.5).all()
        assert FULL * share.min() > 3.999
        outside = np.array([symbols[0] - 1, *symbols, symbols[-1] + 1])
        assert (FULL * gaussian(outside, mean, sigma_of(scale))[[0, -1]] < 4.001).all()


def test_the_shares_of_the_whole_are_rounded_fairly():
    whole = make_tables.BELL
    assert make_tables.apportion([whole // 2, whole - whole // 2]) == [FULL // 2, FULL // 2]
    third = whole // 3
    assert make_tables.apportion([third, third, whole - 2 * third]) == [21845, 21845, 21846]
    few = 11 * whole // (20 * FULL)  # 0.55 of a count each: all are raised to one
    assert make_tables.apportion([few, few, few, whole - 3 * few]) == [1, 1, 1, FULL - 3]
    assert make_tables.apportion([0, 0, whole]) == [1, 1, FULL - 2]


def test_areas_agree_with_the_error_function():
    for z in (-12, -3, -0.5, 0, 0.125, 1, 4, 9.5, 40):
        expected = math.copysign(math.erf(abs(z) / math.sqrt(2)) / 2, z)
        area = make_tables.area(int(z * 8) * make_tables.ONE // 8)
        assert area / make_tables.BELL == pytest.approx(expected, rel=1e-14)


def exceeds(form, s, exponent_20):
    """Whether sigma(s) >= 2**(exponent/20), in exact arithmetic."""
    x = Fraction(s, 1024)
    if form == "log2":
        return x >= Fraction(exponent_20, 20)
    sigma = 1 + x if x > 0 else 1 / (1 - x)
    return sigma**20 >= Fraction(2) ** exponent_20


@pytest.mark.parametrize("form", ["reciprocal", "log2"])
def test_edges_of_scales_are_exact(form):
    edges = TABLES.scale_edges[form].tolist()
    assert len(edges) == tables.SCALES - 1
    for level, edge in enumerate(edges):
        middle = 2 * level + 1 - 80
        assert exceeds(form, edge, middle)
        assert not exceeds(form, edge - 1, middle)


@given(s=st.integers(-(1 << 20), 1 << 20))
def test_a_scale_goes_to_the_nearest_level(s):
    for form in ("reciprocal", "log2"):
        level = np.searchsorted(TABLES.scale_edges[form], s, side="right")
        x = s / 1024
        wanted = x if form == "log2" else math.log2(1 + x if x > 0 else 1 / (1 - x))
        wanted = min(max(wanted, -4.0), 9.0)
        assert abs(wanted - (-4 + level / 10)) <= 0.05 + 1e-9


def quantised(mean, sigma):
    """Row and centre, as a model would ask for them."""
    on_grid = round(mean * 64) + 32
    scale = np.searchsorted(
        TABLES.scale_edges["log2"], math.floor(math.log2(sigma) * 1024 + 0.5), side="right"
    )
    return TABLES.rows(np.array([scale]), np.array([on_grid & 63]))[0], on_grid >> 6


def code_length(row, symbols):
    """Bits of each symbol, the escape's tail included."""
    counts = counts_of(row)
    escape = len(counts) - 1
    entry = symbols - TABLES.lows[row]
    inside = (entry >= 0) & (entry < escape)
    beyond = np.where(inside, 0, np.where(entry < 0, -entry - 1, entry - escape))
    order = max(0, math.floor(math.log2(len(counts))) - 3)
    tail = np.where(inside, 0, 2 + order + 2 * np.floor(np.log2((beyond >> order) + 1)))
    return 16 - np.log2(counts[np.where(inside, entry, escape)]) + tail


def test_coding_costs_little_more_than_the_gaussians_own_entropy():
    random = np.random.default_rng(2)
    ideal = coded = 0.0
    for _ in range(1500):  # most sigmas below 1, as in a trained prior; any mean
        mean, sigma = random.uniform(-3, 3), np.exp(random.normal(-1, 1)).clip(1 / 16, 512)
        row, centre = quantised(mean, sigma)
        reach = int(8 * sigma) + 5
        symbols = np.arange(-reach, reach + 1)
        share = gaussian(symbols, mean - centre, sigma)
        ideal -= (share * np.log2(np.maximum(share, 1e-300))).sum()
        coded += (share * code_length(row, symbols)).sum()
    assert 0 < coded / ideal - 1 < 0.0012  # 0.11 %, as docs/format.md says


def test_the_file_is_what_its_maker_makes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_tables, "__file__", str(tmp_path / "make_tables.py"))
    make_tables.main()
    assert tables.SHA256 in capsys.readouterr().out
    shipped = tables.files("xtec.coding").joinpath(tables.FILE).read_bytes()
    assert (tmp_path / tables.FILE).read_bytes() == shipped
    assert len(shipped) < 300_000


def test_rows_are_frozen():  # golden: a change here needs a new format version
    assert counts_of(0).tolist() == [32736, 32736, 64]
    assert counts_of(32).tolist() == [65535, 1]
    assert counts_of(1400).tolist() == [36, 44474, 20985, 41]
    assert counts_of(2568).tolist() == [14, 366, 3798, 15481, 25059, 16164, 4141, 418, 16, 79]
    assert TABLES.lows[[0, 32, 1400, 2568]].tolist() == [-1, 0, -1, -4]
    assert TABLES.scale_edges["log2"][[0, 1, -1]].tolist() == [-4044, -3942, 9165]
    assert TABLES.scale_edges["reciprocal"][[0, 39, 40, -1]].tolist() == [-14801, -36, 37, 505405]


def test_no_array_can_be_written_to():
    for name in ("cdf", "starts", "lows", "sizes", "first_row", "shift"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(TABLES, name)[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        TABLES.scale_edges["log2"][0] = 0
    with pytest.raises(TypeError):
        TABLES.scale_edges["log2"] = None


def test_a_damaged_file_is_refused(monkeypatch):
    monkeypatch.setattr(tables, "SHA256", "0" * 64)
    tables.load.cache_clear()
    try:
        with pytest.raises(TableError, match=r"SHA-256 [0-9a-f]{64}.*needs 0{64}.*install"):
            tables.load()
    finally:
        tables.load.cache_clear()


def imports_numba(module):
    code = f"import sys, xtec.coding.{module}; print('numba' in sys.modules)"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "True"


def test_only_the_coder_imports_numba():
    assert not imports_numba("tables")
    assert not imports_numba("stream")
    assert imports_numba("rans")  # so that this test can fail
