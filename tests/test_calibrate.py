"""Targets: the compression is found on a sample of the cube's own chunks, and the store says so."""

import dataclasses
import json
import math
import sys
from itertools import islice

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tests.models import TINY, network, write_weights
from xtec import sample
from xtec.codec import Settings
from xtec.cube import sampling
from xtec.cube.bracket import nearest
from xtec.cube.calibrate import at
from xtec.cube.packing import Packing
from xtec.cube.sampling import spread, take
from xtec.cube.target import ATTRIBUTE, Calibration, target_of
from xtec.errors import InputError
from xtec.models import registry

CHUNKS = {"time": 2, "y": 48, "x": 48}
ZARR = "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"

pytestmark = [pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")]


@pytest.fixture(scope="module")
def _large():
    return sample.cube(dates=4, size=(190, 170))


@pytest.fixture
def large(_large):
    """32 chunks of CHUNKS, those at two edges not full."""
    return _large.copy(deep=True)


@pytest.fixture
def options(precise):
    """A tiny model, about 0.1 dB from level to level, and chunks of the small cube."""
    chunks = {"time": 2, "y": 32, "x": 27}
    return {"model": precise.model, "chunks": chunks, "progress": False}


@pytest.fixture
def small(cube):
    """The synthetic cube with the bands of the precise model: 8 chunks, so all are sampled."""
    return cube.sel(band=["B02", "B04", "B08"])


def counted(array, blocks):
    """The same array in Dask blocks that note when they are computed."""
    seen = []

    def note(block, block_info=None):
        if block_info:  # none while Dask looks for the type
            seen.append(block_info[0]["chunk-location"])
        return block

    data = dask.array.from_array(array.values, blocks).map_blocks(note, dtype=array.dtype)
    return array.copy(data=data), seen


# The search


def look(curve, goal, start, slope=0.1, tolerance=0.05):
    """What `nearest` finds on a curve given by its values, and how often it looked."""
    looks = []

    def miss(level):
        looks.append(level)
        return curve[level] - goal

    found = nearest(miss, len(curve) - 1, start=start, slope=slope, tolerance=tolerance)
    assert len(set(looks)) == len(looks)
    return found, len(looks)


@given(
    curve=st.lists(st.floats(0, 100), min_size=2, max_size=300).map(sorted),
    goal=st.floats(-10, 110),
    data=st.data(),
)
def test_any_rising_curve_gives_its_nearest_level(curve, goal, data):
    start = data.draw(st.integers(0, len(curve) - 1))
    found, looks = look(curve, goal, start)
    assert looks <= 6 + math.ceil(math.log2(len(curve)))
    if found is None:
        assert goal < curve[0] - 0.05 or goal > curve[-1] + 0.05
    else:
        least = min(abs(value - goal) for value in curve)
        assert abs(curve[found] - goal) <= max(least, 0.05)


@given(
    first=st.floats(25, 40),
    gain=st.floats(8, 25),
    bend=st.floats(-0.35, 0.35),
    steepness=st.floats(0.5, 2),
    count=st.integers(30, 300),
    share=st.floats(0, 1),
    start=st.floats(0, 1),
)
def test_curves_like_those_of_models_take_few_looks(
    first, gain, bend, steepness, count, share, start
):
    x = np.linspace(0, 1, count)
    curve = first + gain * (x + bend * x * (1 - x))
    goal = first + gain * share
    slope = steepness * gain / (count - 1)
    found, looks = look(curve, goal, round(start * (count - 1)), slope, tolerance=0.1)
    assert abs(curve[found] - goal) <= max(0.1, np.diff(curve).max() / 2)
    assert looks <= 7


@pytest.mark.parametrize("start", [0, 3, 9])
def test_curves_that_end_in_infinity_or_do_not_rise(start):
    lossless = [30, 31, 32, 33, 34, 35, *[math.inf] * 4]
    assert look(lossless, 33.01, start)[0] == 3
    assert look(lossless, 60, start)[0] == 5
    assert look([math.inf] * 10, 60, start)[0] is None
    assert look([5] * 10, 5, start)[0] == start
    assert look([5] * 10, 6, start)[0] is None


# The sample


@given(st.tuples(*[st.integers(1, 7)] * 3))
def test_every_chunk_comes_once(grid):
    time, y, x = grid
    places = list(spread((time, 1, y, x)))
    assert len(places) == len(set(places)) == time * y * x
    assert set(places) == {(t, 0, i, j) for t in range(time) for i in range(y) for j in range(x)}


@given(st.tuples(*[st.integers(8, 1000)] * 3))
def test_the_first_chunks_lie_in_all_parts_of_the_cube(grid):
    time, y, x = grid
    places = np.array(list(islice(spread((time, 1, y, x)), 8)))
    for size, along in ((time, places[:, 0]), (y, places[:, 2]), (x, places[:, 3])):
        thirds = set(along * 3 // size)
        assert thirds == {0, 1, 2}


def test_the_first_chunks_are_frozen():
    """Another sample would choose another compression for the same cube."""
    assert list(islice(spread((10, 1, 10, 10)), 4)) == [
        (5, 0, 3, 2), (2, 0, 6, 4), (7, 0, 1, 6), (1, 0, 4, 8),
    ]  # fmt: skip


def test_chunks_are_those_that_are_stored(large):
    chunk = (2, 13, 48, 48)
    variable = large.reflectance.variable
    taken = take(variable, chunk, Packing("uint16"))
    assert (len(taken.chunks), taken.of) == (8, 32)
    inside = 0
    for (t, _, y, x), found in zip(spread((2, 1, 4, 4)), taken.chunks, strict=False):
        there = variable.values[2 * t :, :, 48 * y :, 48 * x :][:2, :, :48, :48]
        inside += there.size
        np.testing.assert_array_equal(found[:, :, : there.shape[2], : there.shape[3]], there)
        assert found.shape == chunk
        assert not found[:, :, there.shape[2] :].any()
    assert taken.values == inside < 8 * math.prod(chunk)


def test_large_chunks_are_fewer(large, monkeypatch):
    monkeypatch.setattr(sampling, "VALUES", 3 * 2 * 13 * 48 * 48)
    variable = large.reflectance.variable
    assert len(take(variable, (2, 13, 48, 48), Packing("uint16")).chunks) == 3
    assert len(take(variable, (4, 13, 190, 170), Packing("uint16")).chunks) == 1


def test_chunks_without_data_are_passed_over(large):
    numbers = large.reflectance.where(large.x > large.x[150], 0)
    numbers = numbers.variable.astype("uint16")
    taken = take(numbers, (2, 13, 48, 48), Packing("uint16"))
    assert len(taken.chunks) == 8  # all there are: 2 x 4 of 32
    assert all((found > 0).any() for found in taken.chunks)
    only = numbers.copy()
    only[:, :, 100:] = 0
    assert len(take(only, (2, 13, 48, 48), Packing("uint16")).chunks) == 6


def test_a_cube_without_data(small, options):
    with pytest.raises(InputError, match=r"8 of the cube's 8 chunks.*none holds data.*compression"):
        (small * 0).astype("uint16").tec.compress(target_psnr=40, **options)


def test_only_the_sample_is_computed(large, nothing_computes):
    array, seen = counted(large.reflectance, (2, 13, 48, 48))
    lazy = array.tec.compress(target_bpppb=0.2, chunks=CHUNKS, progress=False)
    assert sorted(seen) == sorted(islice(spread((2, 1, 4, 4)), 8))
    with nothing_computes():
        assert lazy.tec.info().calibration.sampled_chunks == 8


def test_blocks_of_other_sizes_are_computed_once(large):
    array, seen = counted(large.reflectance, (1, 5, 190, 170))
    array.tec.compress(target_bpppb=0.2, chunks=CHUNKS, progress=False)
    assert len(seen) == len(set(seen)) == 4 * 3


def test_without_a_target_nothing_is_computed(large, nothing_computes):
    with nothing_computes():
        made = large.chunk(time=1).tec.compress(compression=30)
        assert made.tec.info().compression == 30
        assert large.chunk(time=1).tec.compress().tec.info().compression == 20
    assert made.tec.info().calibration is None
    assert "chosen" not in made.attrs["tec_lossy"]


# What is reached


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("target", [{"target_psnr": 58.0}, {"target_bpppb": 5.0}])
def test_a_sample_of_all_chunks_tells_the_truth(small, options, tmp_path, target, zarr_format):
    opened = small.tec.compress(tmp_path / "a.zarr", zarr_format=zarr_format, **options, **target)
    info, quality = opened.tec.info(), opened.tec.quality(small)
    reached = info.calibration
    assert (reached.sampled_chunks, reached.chunks) == (8, 8)
    assert {reached.target: reached.value} == target
    assert reached.compression == info.compression
    assert reached.bpppb == pytest.approx(info.bits_per_pixel_per_band, rel=1e-5)
    assert reached.psnr == pytest.approx(float(quality.psnr_pooled), abs=1e-3)
    # The tiny chunks' PSNR is no smooth function of the level.
    assert abs(reached.psnr - 58) < 0.25 or "target_psnr" not in target
    assert reached.bpppb == pytest.approx(5, rel=0.05) or "target_bpppb" not in target


def test_the_embedded_model_reaches_what_is_asked_for(large, tmp_path):
    large, chosen = large.isel(time=slice(2)), []
    for psnr in (40.0, 43.0):
        opened = large.tec.compress(
            tmp_path / "a.zarr", target_psnr=psnr, chunks=CHUNKS, progress=False, overwrite=True
        )
        reached = opened.tec.info().calibration
        assert reached.psnr == pytest.approx(psnr, abs=0.25)
        chosen.append(reached)
    assert float(opened.tec.quality(large).psnr_pooled) == pytest.approx(psnr, abs=0.75)
    assert chosen[0].compression < chosen[1].compression
    assert chosen[0].bpppb < chosen[1].bpppb


def test_the_embedded_model_spends_what_it_may(large, tmp_path):
    chosen = []
    for bits in (0.15, 0.3):
        opened = large.tec.compress(
            tmp_path / "a.zarr", target_bpppb=bits, chunks=CHUNKS, progress=False, overwrite=True
        )
        info = opened.tec.info()
        assert info.calibration.bpppb == pytest.approx(bits, rel=0.05)
        assert info.bits_per_pixel_per_band == pytest.approx(bits, rel=0.25)
        chosen.append(info.calibration)
    assert chosen[0].compression < chosen[1].compression
    assert chosen[0].psnr < chosen[1].psnr


@pytest.mark.filterwarnings(ZARR)
def test_eager_lazy_and_floating_cubes_choose_alike(small, options, tmp_path):
    reflectance = small.where(small > 0) * 1e-4
    lazy = small.chunk(time=1, y=17)
    made = [
        each.tec.compress(target_psnr=58.0, **options)
        for each in (small, small, lazy, reflectance, reflectance.chunk(x=11))
    ]
    notes = {each.reflectance.attrs[ATTRIBUTE] for each in made}
    assert len(notes) == 1
    compression = json.loads(notes.pop())["compression"]
    made[2].to_zarr(tmp_path / "lazy.zarr")
    small.tec.compress(tmp_path / "plain.zarr", compression=compression, **options)
    for name in ("0/0/0/0", "1/0/1/1"):
        one, other = (
            (tmp_path / store / "reflectance/c" / name).read_bytes()
            for store in ("lazy.zarr", "plain.zarr")
        )
        assert one == other


@given(st.data())
def test_every_level_has_a_short_compression(data):
    settings = Settings()
    config = settings.card.config
    level = data.draw(st.integers(0, config.levels - 1))
    chosen = at(settings, config, level)
    assert chosen.level == level
    assert len(f"{chosen.compression:g}") <= 7
    assert chosen == Settings(compression=chosen.compression)


# What a store says of it


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_store_says_what_was_aimed_at_and_reached(small, options, tmp_path, zarr_format):
    store = tmp_path / "a.zarr"
    small.tec.compress(store, target_psnr=60, zarr_format=zarr_format, **options)
    opened = xr.open_zarr(store)
    info = opened.tec.info()
    reached = info.calibration
    assert f"target_psnr=60; reached {reached.psnr:.2f} dB and {reached.bpppb:.3g} bits" in repr(
        info
    )
    assert "on 8 of 8 chunks" in info._repr_html_()
    assert info.to_dict()["calibration"] == dataclasses.asdict(reached)
    same = [opened.isel(time=0), opened.reflectance, opened.compute()]
    assert [each.tec.info().calibration for each in same] == [reached] * 3
    group = zarr.open_group(store, mode="r")
    assert f"chosen for {reached}" in group.attrs["tec_lossy"]
    assert json.loads(group["reflectance"].attrs[ATTRIBUTE]) == dataclasses.asdict(reached)


def test_what_was_reached_once_is_not_said_of_another_compression(small, options, tmp_path):
    opened = small.tec.compress(tmp_path / "a.zarr", target_psnr=60, **options)
    with pytest.warns(UserWarning, match="compressed with loss before"):
        again = opened.tec.compress(compression=3, **options)
    assert again.tec.info().calibration is None
    assert ATTRIBUTE not in again.reflectance.attrs
    assert "chosen" not in again.attrs["tec_lossy"]
    note = opened.reflectance.attrs[ATTRIBUTE]
    compression = opened.tec.info().compression
    assert Calibration.from_attribute(note, compression) is not None
    assert Calibration.from_attribute(note, compression + 1) is None


@pytest.mark.parametrize(
    "note", [None, 7, "", "nonsense", "[]", "{}", '{"target": "target_psnr"}', '{"a": 1}', "null"]
)
def test_a_note_that_is_none_is_passed_over(note):
    assert Calibration.from_attribute(note, 20.0) is None


def test_a_note_with_something_else_in_it_is_passed_over():
    good = Calibration("target_psnr", 40.0, 20.0, 40.01, 0.1, 8, 9)
    assert Calibration.from_attribute(good.to_attribute(), 20.0) == good
    for field, wrong in (("target", "size"), ("psnr", "high"), ("chunks", None)):
        bad = dataclasses.asdict(good) | {field: wrong}
        assert Calibration.from_attribute(json.dumps(bad), 20.0) is None


def test_trials_are_shown(small, options, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    small.tec.compress(target_psnr=60, **options | {"progress": True})
    assert "choosing for target_psnr=60" in capsys.readouterr().err
    small.tec.compress(target_psnr=60, **options)
    assert capsys.readouterr().err == ""


# Refusals


@pytest.mark.parametrize("value", [0, -0.0, -1, float("nan"), float("inf"), True, "40", 1j, [40]])
@pytest.mark.parametrize("name", ["target_psnr", "target_bpppb"])
def test_targets_that_are_none(large, name, value, nothing_computes):
    with nothing_computes(), pytest.raises(InputError, match=rf"{name} is .*give a positive"):
        large.chunk().tec.compress(**{name: value})


@pytest.mark.parametrize(
    "given",
    [
        {"compression": 20, "target_psnr": 40},
        {"compression": 20.0, "target_bpppb": 0.2},
        {"target_psnr": 40, "target_bpppb": 0.2},
        {"compression": 20, "target_psnr": 40, "target_bpppb": 0.2},
    ],
)
def test_more_than_one_of_them(large, given, nothing_computes):
    with nothing_computes(), pytest.raises(InputError, match="decides alone; give one") as caught:
        large.chunk().tec.compress(**given)
    for name, value in given.items():
        assert f"{name}={value}" in str(caught.value)


def test_numbers_of_any_kind_are_targets():
    for value in (40, 40.0, np.float32(40), np.int64(40)):
        assert target_of(None, target_psnr=value, target_bpppb=None).value == 40.0
    assert target_of(20, target_psnr=None, target_bpppb=None) is None


@pytest.mark.parametrize(
    "target",
    [{"target_psnr": 10}, {"target_psnr": 90}, {"target_bpppb": 1e-4}, {"target_bpppb": 50}],
)
def test_a_target_out_of_reach_says_what_is_in_reach(small, options, tmp_path, target):
    message = r"cannot be met: on 8 of this cube's 8 chunks model precise gives .* Aim between"
    with pytest.raises(InputError, match=message) as caught:
        small.tec.compress(tmp_path / "a.zarr", **options, **target)
    assert not (tmp_path / "a.zarr").exists()
    config = registry.resolve(options["model"]).config
    for level in (0, config.levels - 1):
        assert f"compression {config.compression(level):g}, its" in str(caught.value)


def test_a_model_with_one_compression_leaves_no_choice(small, options, tmp_path):
    one = write_weights(tmp_path / "one.safetensors", network(TINY), "one")
    with pytest.raises(InputError, match=r"model one knows one compression.*target_psnr=40"):
        small.tec.compress(target_psnr=40, **options | {"model": one})
