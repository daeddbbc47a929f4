"""The synthetic cube: deterministic, aligned, and close enough to what a satellite sees."""

from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xtec import sample
from xtec.errors import InputError
from xtec.sample.land import INDEX, KINDS, SPECTRA, survey
from xtec.sample.noise import (
    cells,
    fractal,
    gradient_noise,
    hashed,
    key,
    normal,
    smoothstep,
    uniform,
)
from xtec.sample.sky import CIRRUS, CLOUD, PATH, SKYLIGHT, TRANSMISSION
from xtec.sentinel2 import BANDS, NAMES

SIZE = 420


@pytest.fixture(scope="module")
def cube():
    return sample.cube(size=SIZE)


@pytest.fixture(scope="module")
def kinds():
    line = np.arange(SIZE, dtype=np.float64)
    return survey(line[:, None], line[None, :], seed=0).kind


def ndvi(cube, date):
    one = cube.reflectance.isel(time=date).astype(float)
    red, nir = one.sel(band="B04"), one.sel(band="B08")
    return ((nir - red) / (nir + red).where(nir + red > 0)).values


def test_what_comes(cube):
    assert list(cube.data_vars) == ["reflectance"]
    assert cube.reflectance.dims == ("time", "band", "y", "x")
    assert cube.reflectance.shape == (6, 13, SIZE, SIZE)
    assert cube.reflectance.dtype == np.uint16
    assert tuple(cube.band.values) == NAMES
    assert np.unique(np.diff(cube.time.values)) == np.timedelta64(35, "D")


def test_where_it_lies(cube):
    assert cube.rio.crs.to_epsg() == 32632
    assert cube.reflectance.rio.crs.to_epsg() == 32632
    assert cube.rio.transform()[:6] == (10, 0, 651240, 0, -10, 5352480)
    assert cube.x.values[0] == 651245
    assert cube.y.values[0] == 5352475
    assert cube.reflectance.rio.nodata == 0


def test_numbers_are_raw(cube):
    for names in (cube.reflectance.attrs, cube.reflectance.encoding):
        assert not {"scale_factor", "add_offset"} & names.keys()
    assert cube.reflectance.attrs["_FillValue"] == 0
    assert cube.reflectance.max() < 32768


def test_the_same_bits_everywhere():  # golden: only additions, products, quotients and roots inside
    small = sample.cube(dates=6, size=(50, 70), seed=5)
    assert crc32(small.reflectance.values.astype("<u2").tobytes()) == 1473200686


def test_same_arguments_same_cube_other_seed_other_place():
    first = sample.cube(dates=2, size=48, seed=3)
    assert first.identical(sample.cube(dates=2, size=48, seed=3))
    other = sample.cube(dates=2, size=48, seed=4)
    assert (first.reflectance != other.reflectance).mean() > 0.7


def test_a_smaller_cube_is_the_corner_of_a_larger(cube):
    small = sample.cube(dates=3, size=(70, 101)).reflectance.values
    corner = cube.reflectance.values[:3, :, :70, :101]
    both = (small > 0) & (corner > 0)
    assert both[[0, 2]].all()
    assert (small == corner)[both].all()


@settings(max_examples=12)
@given(dates=st.integers(1, 3), rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_any_size(dates, rows, columns):
    made = sample.cube(dates=dates, size=(rows, columns)).reflectance
    assert made.shape == (dates, 13, rows, columns)
    assert (made == 0).any() == (made.isel(time=min(1, dates - 1)) == 0).any()
    assert (made == 0).any()


def test_no_data_lies_beyond_one_slanted_edge(cube):
    empty = (cube.reflectance == 0).values
    assert not empty[[0, 2, 3, 4, 5]].any()
    assert (empty[1] == empty[1, :1]).all()  # in all bands alike
    edge = empty[1, 0]
    assert (np.diff(edge.astype(int), axis=1) <= 0).all()  # from the left
    width = edge.sum(axis=1)
    assert (np.diff(width) <= 0).all()
    assert width[0] > width[-1] > 0
    assert 0.15 < edge.mean() < 0.4


def test_coarse_bands_are_repeated_on_the_fine_grid(cube):
    for band in BANDS:
        step = band.gsd_m // 10
        values = cube.reflectance.sel(band=band.name).values
        blocks = values.reshape(6, SIZE // step, step, SIZE // step, step)
        assert (blocks == blocks[:, :, :1, :, :1]).all()
        assert (np.diff(values.astype(int), axis=2)[:, :, step - 1 :: step] != 0).mean() > 0.5


def test_plants_water_and_roofs_look_like_themselves(cube, kinds):
    july = ndvi(cube, 3)
    middle = {kind.name: np.median(july[kinds == n]) for n, kind in enumerate(KINDS)}
    assert middle["water"] < 0
    assert middle["broadleaves"] > 0.7
    assert middle["conifers"] > 0.5
    assert middle["beet"] > 0.6
    assert middle["meadow"] > 0.5
    assert middle["tiles"] < 0.35
    assert middle["road"] < 0.3


def test_seasons_pass(cube, kinds):
    wheat, maize, trees = (kinds == INDEX[n] for n in ("wheat", "maize", "broadleaves"))
    march, july, september = ndvi(cube, 0), ndvi(cube, 3), ndvi(cube, 5)
    assert np.median(march[trees]) + 0.25 < np.median(july[trees])
    assert np.median(march[maize]) + 0.3 < np.median(july[maize])
    assert np.median(ndvi(cube, 2)[wheat]) > np.median(september[wheat]) + 0.3


def test_the_air_is_in_the_numbers(cube):
    clear = cube.reflectance.isel(time=0)
    middle = dict(zip(NAMES, clear.median(("y", "x")).values, strict=True))
    assert 1200 < middle["B01"] < 1600
    assert middle["B01"] > middle["B02"] > middle["B03"]  # blue sky
    assert 5 < middle["B10"] < 30  # water vapour lets nothing through at 1375 nm
    assert clear.sel(band="B10").max() < 60
    assert middle["B09"] < 0.6 * middle["B8A"]
    veiled = cube.reflectance.isel(time=5).sel(band="B10")
    assert veiled.median() > 50  # but cirrus is above the vapour


def test_clouds_and_shadows_come_on_their_days(cube):
    blue, nir = cube.reflectance.sel(band="B02"), cube.reflectance.sel(band="B08")
    cloudy = (blue > 4000).mean(("y", "x")).values
    assert cloudy[4] > 0.1
    assert 0 < cloudy[2] < cloudy[4]
    assert (cloudy[[0, 1, 3]] < 0.001).all()
    lost = nir.isel(time=4).astype(float) < 0.6 * nir.isel(time=3)
    assert lost.mean() > 0.01


def test_surface_reflectance_has_no_air_and_no_cirrus_band(cube):
    surface = sample.cube(dates=1, size=SIZE, level="L2A").reflectance
    assert tuple(surface.band.values) == tuple(name for name in NAMES if name != "B10")
    top = cube.reflectance.isel(time=0)
    seen = (surface.isel(time=0) > 0).values
    blue, above = (each.sel(band="B02").values[seen[0]] for each in (surface.isel(time=0), top))
    assert np.median(blue) < 0.6 * np.median(above)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"dates": 0}, "dates=0 and size=512 must be at least 1"),
        ({"size": (4, 0)}, r"size=\(4, 0\) must be at least 1"),
        ({"level": "L1B"}, "level='L1B' is unknown; allowed are 'L1C' and 'L2A'"),
    ],
)
def test_bad_arguments(arguments, complaint):
    with pytest.raises(InputError, match=complaint):
        sample.cube(**arguments)


def test_tables_have_one_number_per_band():
    tables = [*SPECTRA.values(), PATH, TRANSMISSION, SKYLIGHT, CLOUD, CIRRUS, sample.NOISE_DN]
    assert {len(table) for table in tables} == {len(BANDS)}


def test_calendars_run_from_new_year_to_new_year():
    for kind in KINDS:
        for knots in (kind.cover, kind.ripe):
            days, shares = zip(*knots, strict=True)
            assert (days[0], days[-1], list(days)) == (0, 365, sorted(set(days)))
            assert shares[0] == shares[-1]
            assert 0 <= min(shares) <= max(shares) <= 1


def test_hashes_are_evenly_spread_and_normal_noise_is_normal():
    h = hashed(key(1, "test"), np.arange(300)[:, None], np.arange(300)[None, :])
    assert len(np.unique(h)) == h.size
    for draw in range(4):
        part = uniform(h, draw)
        assert 0 <= part.min() <= part.max() < 1
        assert abs(part.mean() - 0.5) < 0.005
        assert abs(np.corrcoef(part[:, 1:].ravel(), part[:, :-1].ravel())[0, 1]) < 0.015
    noise = normal(h)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_keys_and_places_far_away_work():
    assert key(0, "a") != key(0, "b") != key(1, "b")
    far = np.array([[1e6, 1e6 + 50]])
    assert np.isfinite([fractal(far, -far, 30, key(9, "far"))]).all()
    assert hashed(-5, np.array([-3])).dtype == np.uint64


def test_noise_is_continuous_and_vanishes_on_the_lattice():
    line = np.linspace(0, 40, 2001)[None, :]
    values = gradient_noise(0.3 + 0 * line, line, 8, 7)
    assert np.abs(np.diff(values)).max() < 0.02
    assert values.std() > 0.1
    grid = np.arange(0, 80, 8.0)
    assert (gradient_noise(grid[:, None], grid[None, :], 8, 7) == 0).all()


def test_smoothstep_rises_and_falls():
    values = np.array([-1.0, 0, 0.5, 1, 2])
    assert smoothstep(0, 1, values).tolist() == [0, 0, 0.5, 1, 1]
    assert smoothstep(1, 0, values).tolist() == [1, 1, 0.5, 0, 0]


def test_cells_know_their_nearest_point():
    y, x = np.mgrid[0:60, 0:60].astype(float)
    found = cells(y, x, 12, 5)
    points = {
        (name, round(py, 6), round(px, 6))
        for name, py, px in zip(
            found.name.ravel(), (y - found.y).ravel(), (x - found.x).ravel(), strict=True
        )
    }
    assert len(points) == len({name for name, _, _ in points})  # one point per cell
    nearest = np.min([np.hypot(y - py, x - px) for _, py, px in points], axis=0)
    assert np.abs(found.distance - nearest).max() < 1e-5
    assert found.border.min() >= 0
