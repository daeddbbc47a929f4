"""Training data: cubes of every kind are read, and varied without leaving what a chunk can be."""

import json
import zipfile

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter

from tests.models import LAPPED, few
from xtec.errors import BandError, InputError
from xtec.fill import fill
from xtec.train import augment, data, series
from xtec.train.data import Cube
from xtec.train.recipe import Recipe, Shares
from xtec.train.sampler import FRAMES, SIDES, Sampler

seeds = st.integers(0, 9999)
NEVER = Shares(**dict.fromkeys(vars(Shares()), 0))


def always(*names):
    return Shares(**dict.fromkeys(vars(Shares()), 0) | dict.fromkeys(names, 1))


def rng(seed):
    return np.random.default_rng(seed)


def pixels(shape, seed=0):
    return rng(seed).integers(1, 3000, shape).astype(np.uint16)


def zigzag(values):
    """Differences along x with the sign in the lowest bit; low bytes, then high bytes."""
    steps = np.diff(values.astype(np.int32), axis=-1, prepend=0)
    folded = ((steps << 1) ^ (steps >> 31)).ravel()
    return (folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()


def test_cubes_of_every_kind_are_read(tmp_path):
    values = rng(0).integers(0, 32768, (2, 3, 4, 5)).astype(np.uint16)
    names = ["B2", "red", "b08"]
    np.savez(tmp_path / "a.npz", pixels=values, bands=names)
    with zipfile.ZipFile(tmp_path / "b.cube", "w") as file:
        file.writestr("meta.json", json.dumps({"shape": values.shape, "bands": names}))
        file.writestr("delta.bin", zigzag(values))
    dims = ("time", "band", "y", "x")
    stored = xr.Dataset({"dn": (dims, values), "other": ("time", [1, 2])}, {"band": names})
    stored.to_zarr(tmp_path / "c.zarr", zarr_format=2)
    (tmp_path / "README.md").write_text("not a cube")
    cubes = data.read_all([tmp_path])
    assert len(cubes) == 3
    for cube in cubes:
        assert cube.bands == ("B02", "B04", "B08")
        assert np.array_equal(cube.pixels, values)


def test_cubes_in_netcdf_are_read(tmp_path):
    for name in ("h5netcdf", "h5py"):
        pytest.importorskip(name, reason="needs the extra train")
    values, dims = pixels((2, 3, 4, 5)), ("time", "band", "y", "x")
    stored = xr.Dataset({"dn": (dims, values)}, {"band": ["B02", "B04", "B08"]})
    stored.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    (cube,) = data.read_all([tmp_path])
    assert cube.bands == ("B02", "B04", "B08")
    assert np.array_equal(cube.pixels, values)


def test_bands_that_the_network_does_not_know_are_left_out(tmp_path):
    values = pixels((1, 3, 2, 2))
    np.savez(tmp_path / "a.npz", pixels=values, bands=["B08", "B11", "B02"])
    (cube,) = data.read_all([tmp_path], LAPPED.bands)
    assert cube.bands == ("B08", "B02")
    assert np.array_equal(cube.pixels, values[:, [0, 2]])
    with pytest.raises(InputError, match=r"a\.npz has the bands .*'B11'.*, none of \('B05',\)"):
        data.read_all([tmp_path], ("B05",))


def test_folders_without_cubes(tmp_path):
    with pytest.raises(InputError, match=r"no \.cube, \.nc, \.npz, \.zarr in"):
        data.read_all([tmp_path])


def test_cubes_that_cannot_be_used(tmp_path):
    np.savez(tmp_path / "float.npz", pixels=np.zeros((1, 1, 2, 2)), bands=["B02"])
    with pytest.raises(InputError, match="float64 of 4 dimensions; training needs uint16"):
        data.read(tmp_path / "float.npz")
    np.savez(tmp_path / "b.npz", pixels=np.zeros((1, 1, 2, 2), np.uint16), bands=["B77"])
    with pytest.raises(BandError):
        data.read(tmp_path / "b.npz")
    xr.Dataset({"dn": ("time", [1, 2])}).to_zarr(tmp_path / "c.zarr", zarr_format=2)
    with pytest.raises(InputError, match=r"c\.zarr has no variable of four dimensions"):
        data.read(tmp_path / "c.zarr")


def test_a_square_has_eight_ways_to_lie():
    values = pixels((2, 3, 4, 4))
    found = {augment.placed(values, rng(seed)).tobytes() for seed in range(100)}
    expected = {
        np.rot90(mirrored, turns, (2, 3)).tobytes()
        for mirrored in (values, values[..., ::-1])
        for turns in range(4)
    }
    assert found == expected


@given(st.integers(1, 12), st.integers(1, 8), seeds)
def test_dates_are_those_of_the_cube(there, wanted, seed):
    found = augment.dates(there, wanted, Shares(), rng(seed))
    assert len(found) == wanted
    assert set(found) <= set(range(there))


@given(st.integers(1, 8), st.integers(0, 4), seeds)
def test_dates_follow_each_other(wanted, more, seed):
    there = wanted + more
    steps = np.diff(augment.dates(there, wanted, NEVER, rng(seed)))
    assert (steps == 1).all()
    steps = np.diff(augment.dates(there, wanted, always("scattered", "backwards"), rng(seed)))
    assert (steps < 0).all()


@given(st.integers(2, 8), seeds)
def test_a_date_comes_again_beside_itself(wanted, seed):
    found = augment.dates(12, wanted, always("repeated"), rng(seed))
    assert np.count_nonzero(np.diff(found) == 0) == 1
    assert len(set(found)) == wanted - 1


@given(st.integers(1, 13), seeds)
def test_some_bands_are_in_order_and_not_too_few(there, seed):
    found = augment.some_bands(there, always("bands"), rng(seed))
    assert (np.diff(found) > 0).all()
    assert set(found) <= set(range(there))
    assert len(found) >= min(3, there)
    assert np.array_equal(augment.some_bands(there, NEVER, rng(seed)), np.arange(there))


def test_light_that_stays_as_it_is():
    values = pixels((2, 3, 8, 8)).astype(np.float32)
    values[0, 0, 0, :2] = 0, 65535
    found = augment.lit(values, NEVER, rng(0), again=False)
    assert found.dtype == np.float32
    assert np.array_equal(found, values.clip(1, 65534))


@given(seeds)
def test_brightness_is_one_gain(seed):
    values = pixels((2, 3, 8, 8)).astype(np.float32)
    ratio = augment.lit(values, always("brightness"), rng(seed), again=False) / values
    bright = values > 2
    assert np.ptp(ratio[bright]) < 1e-5
    assert 0.7 <= ratio[bright][0] <= 1.3


@given(seeds)
def test_haze_differs_from_date_to_date(seed):
    values = np.repeat(pixels((1, 3, 8, 8)).astype(np.float32), 3, axis=0)
    found = augment.lit(values, always("haze"), rng(seed), again=False)
    assert not any(np.allclose(found[0], later) for later in found[1:])
    assert 1 <= found.min() <= found.max() <= 3000 * 1.1 + 150 + 6 * 40


@pytest.mark.parametrize("identical", [False, True])
def test_a_date_that_comes_again(identical):
    values = np.repeat(pixels((1, 3, 8, 8)).astype(np.float32), 2, axis=0)
    shares = always("identical") if identical else NEVER
    found = augment.lit(values, shares, rng(1), again=True)
    assert np.array_equal(found[0], found[1]) == identical


@given(st.integers(1, 8), seeds)
def test_the_edge_of_a_swath_is_a_line(frames, seed):
    gaps = augment.gaps((frames, 32, 32), always("swath"), rng(seed))
    there = gaps[gaps.any((1, 2))]
    assert 1 <= len(there) <= frames
    assert (there == there[0]).all()  # the same in all frames that have it
    assert 0 < there[0].sum() < there[0].size
    # Half way between two points of the hole is hole: a half plane is convex.
    ends = rng(seed).choice(np.argwhere(there[0]), (50, 2)).sum(1)
    assert there[0][tuple(ends[(ends % 2 == 0).all(1)].T // 2)].all()


@given(st.integers(2, 8), seeds)
def test_a_missing_date_is_missing_altogether(frames, seed):
    gaps = augment.gaps((frames, 8, 8), always("missing"), rng(seed))
    assert gaps.all((1, 2)).sum() == 1
    assert gaps.any((1, 2)).sum() == 1
    assert not augment.gaps((frames, 8, 8), NEVER, rng(seed)).any()
    assert not augment.gaps((1, 8, 8), always("missing"), rng(seed)).any()


@pytest.mark.parametrize("seed", range(20))
def test_days_that_never_were_are_days_of_the_place(seed, monkeypatch):
    y, x = np.mgrid[:64, :64] / 3
    place = (1000 + 500 * np.sin([y, x, x + y])).astype(np.float32)
    found = series.made_up(place, place, 4, rng(seed))
    assert found.shape == (4, 3, 64, 64)
    assert found.dtype == np.float32
    assert 1 <= found.min() <= found.max() <= 20_000
    assert not any(np.allclose(found[0], later) for later in found[1:])
    assert np.array_equal(found, series.made_up(place, place, 4, rng(seed)))
    # But for clouds, weather and light are smooth: the place shows through.
    monkeypatch.setattr(series, "CLOUDY", 0)
    days = series.made_up(place, place, 4, rng(seed))
    details = [day - gaussian_filter(day, (0, 8, 8)) for day in (place, *days)]
    assert min(np.corrcoef(details[0].ravel(), day.ravel())[0, 1] for day in details[1:]) > 0.9


shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))


@given(st.data(), shapes, seeds)
def test_holes_are_filled_as_the_codec_fills_them(draw, shape, seed):
    hole = draw.draw(hnp.arrays(np.bool_, shape))
    alike = draw.draw(st.booleans())
    hole = np.broadcast_to(hole[:, :1], shape) if alike else hole
    values = pixels(shape, seed).astype(np.float32)
    assert np.array_equal(augment.filled(values, hole), fill(values, hole))


def cube(dates=2, bands=3, side=80, seed=0):
    values = pixels((dates, bands, side, side), seed)
    values[:, :, :10, :10] = 0
    values[:, 0, -10:, -10:] = 65535
    return Cube(values, ("B02", "B04", "B08", "B11")[:bands])


def sampler(cubes, **changes):
    return Sampler(cubes, Recipe("a", steps=1, **{"pixels": 4 * 64 * 64} | changes), LAPPED)


@few
@given(seeds)
def test_crops_are_what_a_chunk_can_be(number):
    recipe = {"seed": 3, "compression": (2, 300), "usual_compression": (10, 20)}
    draw = sampler([cube(3), cube(1, 2), cube(9, 1)], **recipe).draw(number)
    assert LAPPED.level(2) <= draw.level <= LAPPED.level(300)
    for crop in draw.crops:
        assert crop.dtype == np.float32
        assert crop.flags.c_contiguous
        assert crop.shape[0] in FRAMES
        assert 1 <= crop.shape[1] <= 3
        assert crop.shape[2:] == (64, 64)
        assert 1 <= crop.min() <= crop.max() <= 65534
        assert crop.max() < 30_000  # nothing saturated is left
    frames = len(draw.crops[0])
    assert len({crop.shape[0] for crop in draw.crops}) == 1
    assert len(draw.crops) * frames <= max(4, frames)


def test_a_fine_setting_takes_half_the_pixels():
    def crops_at(compression, number):
        both = {"compression": (compression,) * 2, "usual_compression": (compression,) * 2}
        made = sampler([cube(8)], pixels=48 * 64 * 64, fine_from=20.0, **both)
        return len(made.draw(number).crops)

    for number in range(9):
        assert crops_at(40, number) == crops_at(10, number) / 2


def test_draws_depend_on_the_seed_and_their_number_alone():
    cubes = [cube(3), cube(1)]

    def drawn(number, **changes):
        found = sampler(cubes, **changes).draw(number)
        return found.level, [crop.tobytes() for crop in found.crops]

    one = sampler(cubes)
    one.draw(0)
    again = one.draw(5)
    assert drawn(5) == (again.level, [crop.tobytes() for crop in again.crops])
    assert drawn(5) != drawn(6)
    assert drawn(5) != drawn(5, seed=1)


def test_pairs_are_drawn_again_for_longer_sequences_and_single_dates_are_not():
    def frames(cubes, *, made_up):
        return {kind.frames for kind in sampler(cubes).kinds if kind.made_up == made_up}

    assert frames([cube(1)], made_up=False) == {1}
    assert frames([cube(2)], made_up=False) == {1, 2, 3, 4}
    assert frames([cube(8)], made_up=False) == set(FRAMES)
    assert frames([cube(1)], made_up=True) == set(FRAMES) - {1}
    assert not any(kind.made_up for kind in sampler([cube(2)], shares=NEVER).kinds)
    assert {kind.side for kind in sampler([cube(2, side=200)]).kinds} == {64, 128, 192}
    assert sum(sampler([cube(2)]).shares) == pytest.approx(1)


def test_strangers_come_from_cubes_with_the_same_bands():
    """Each cube has one value; a crop of two is one with a stranger."""
    cubes = [Cube(np.full((8, bands, 64, 64), value, np.uint16), LAPPED.bands[:bands])
             for value, bands in ((100, 3), (200, 3), (300, 2))]  # fmt: skip

    def values(shares):
        made = sampler(cubes, pixels=64 * 64 * 64, shares=shares)
        found = [made.draw(number) for number in range(12)]
        return {frozenset(np.unique(crop).astype(int)) for draw in found for crop in draw.crops}

    alone = {frozenset({value}) for value in (100, 200, 300)}
    assert values(NEVER) == alone
    assert values(always("strangers")) == alone | {frozenset({100, 200})}


def test_cubes_that_are_too_small():
    with pytest.raises(InputError, match=f"smallest crop of {min(SIDES)} pixels"):
        sampler([cube(side=63)])
