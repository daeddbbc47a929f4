"""Training: it runs, resumes where it was, and ends with weights that code; bad recipes say why."""

import dataclasses
import json
import math
import re
import zipfile
from itertools import islice

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.models import TINY
from xtec.codec import Settings, decode_chunk, encode_chunk
from xtec.errors import BandError, InputError
from xtec.models import config as configs
from xtec.train import data, loop
from xtec.train.data import Cube, Sampler
from xtec.train.loop import Recipe, Stage
from xtec.train.loss import FactorizedPrior, bits, rate_distortion, rounded

STAGES = tuple(
    Stage(train=part, steps=3, batch=2, crop_px=16, frames=2, learning_rate=1e-3)
    for part in loop.PARTS
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A network to name in recipes, and few patches to start it from."""
    monkeypatch.setattr(configs, "TINY", TINY, raising=False)
    components = loop.principal_components
    monkeypatch.setattr(
        loop, "principal_components", lambda cubes, config: components(cubes, config, batches=4)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two training cubes: smooth scenes, one without its last band, one with no-data."""
    folder = tmp_path_factory.mktemp("cubes")
    random = np.random.default_rng(0)
    y, x = np.mgrid[:80, :80]
    for name, bands in (("a", TINY.bands), ("b", TINY.bands[:2])):
        noise = random.normal(0, 60, (3, len(bands), 80, 80))
        pixels = (1500 + 800 * np.sin(y / 9) * np.cos(x / 7) + noise).astype(np.uint16)
        pixels[1, :, :20, :20] = 0
        np.savez(folder / f"{name}.npz", pixels=pixels, bands=bands)
    return folder


@pytest.fixture
def recipe(tiny):
    return Recipe(name="trained", model="TINY", stages=STAGES, ema_decay=0.5)


def run(recipe, folder, out, val=()):
    loop.train(recipe, [folder], out, device="cpu", val=list(val))
    return (out / "model.safetensors").read_bytes()


class CutShortError(Exception):
    pass


def interrupt(monkeypatch, after):
    """Let training run for some steps only, and write a checkpoint after each."""
    clock, left, loss = iter(range(0, 10**9, 1000)), iter(range(after)), loop.rate_distortion

    def limited(*args):
        if next(left, None) is None:
            raise CutShortError
        return loss(*args)

    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(loop, "rate_distortion", limited)


def test_trained_weights_code_chunks(recipe, folder, tmp_path):
    run(recipe, folder, tmp_path)
    settings = Settings(str(tmp_path / "model.safetensors"), compression=400)
    assert settings.model == "trained"
    chunk = data.read(folder / "a.npz").pixels[:, :, 10:50, 10:50]
    found = decode_chunk(encode_chunk(chunk, settings))
    assert np.array_equal(found == 0, chunk == 0)
    # It starts from principal components, all of them: near at once, however short it trains.
    assert np.abs(found[chunk > 0].astype(float) - chunk[chunk > 0]).mean() < 100


def test_a_log_tells_of_every_stage(recipe, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "VALIDATION_PX", 32)
    run(recipe, folder, tmp_path, val=[folder])
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == list(loop.PARTS)
    for row in rows:
        assert row["step"] == 3
        assert math.isfinite(row["loss"])
        assert row["bpppb_400"] > row["bpppb_4"] > 0
    assert "snr_db_400" in rows[0]
    assert "snr_db_400" not in rows[1]  # the transformer alone: pixels do not change
    assert rows[2]["snr_db_400"] > rows[2]["snr_db_4"] > 0


def test_what_is_finished_is_not_done_again(recipe, folder, tmp_path, monkeypatch):
    first = run(recipe, folder, tmp_path)
    interrupt(monkeypatch, after=0)
    assert run(recipe, folder, tmp_path) == first


@pytest.mark.parametrize("steps", [3, 6])
def test_a_run_resumed_between_stages_ends_where_an_undisturbed_one_does(
    recipe, folder, tmp_path, monkeypatch, steps
):
    expected = run(recipe, folder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, after=steps)
        with pytest.raises(CutShortError):
            run(recipe, folder, tmp_path / "parts")
    assert run(recipe, folder, tmp_path / "parts") == expected


def test_a_run_resumed_within_a_stage_goes_on_from_there(recipe, folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, after=4)
        with pytest.raises(CutShortError):
            run(recipe, folder, tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (saved["stage"], saved["step"]) == (1, 1)
    states = []
    for _ in range(2):
        state = loop._State(recipe, torch.device("cpu"), data.read_all([folder]))
        state.resume(tmp_path / "checkpoint.pt")
        assert (state.stage, state.step) == (1, 1)
        assert all(torch.equal(v, saved["model"][k]) for k, v in state.model.state_dict().items())
        state.run(recipe.stages[1], data.read_all([folder]), tmp_path, [])
        assert state.step == 3
        states.append(state.average().state_dict())
    assert all(torch.equal(states[0][k], v) for k, v in states[1].items())


def test_a_stage_goes_on_from_the_averaged_weights(recipe, folder, tmp_path):
    cubes = data.read_all([folder])
    state = loop._State(recipe, torch.device("cpu"), cubes)
    state.run(recipe.stages[0], cubes, tmp_path, [])
    averaged = {k: v.clone() for k, v in state.average().state_dict().items()}
    assert not all(torch.equal(averaged[k], v) for k, v in state.model.state_dict().items())
    state.next_stage()
    for model in (state.model, state.average()):
        assert all(torch.equal(averaged[k], v) for k, v in model.state_dict().items())


def test_a_checkpoint_of_another_network_is_not_taken_up(recipe, folder, tmp_path, monkeypatch):
    run(dataclasses.replace(recipe, stages=STAGES[:1]), folder, tmp_path)
    monkeypatch.setattr(configs, "OTHER", TINY, raising=False)
    with pytest.raises(InputError, match=r"checkpoint.pt is a checkpoint of TINY"):
        run(dataclasses.replace(recipe, model="OTHER"), folder, tmp_path)


@pytest.mark.parametrize("part", loop.PARTS)
def test_a_stage_trains_its_part_alone(recipe, folder, part):
    state = loop._State(
        dataclasses.replace(recipe, stages=[s for s in STAGES if s.train == part]),
        torch.device("cpu"),
        data.read_all([folder]),
    )
    before = {k: v.clone() for k, v in state.model.state_dict().items()}
    crops = next(Sampler(data.read_all([folder]), TINY, size=16, frames=2, seed=0).batches(2))
    level = torch.tensor([3.0, 20.0])
    rate_distortion(state.model, crops, level, part, state.cheap).total.backward()
    state.optimizer.step()
    moved = {k.split(".")[0] for k, v in state.model.state_dict().items() if (v != before[k]).any()}
    prior = {"entropy_model", "_temporal_pad_token_maker"}
    expected = {"transform": {"transform", "log_gain"}, "prior": prior}
    assert moved <= expected.get(part, {name.split(".")[0] for name in before})
    assert ("log_gain" in moved) == (part != "prior")
    assert ("entropy_model" in moved) == (part != "transform")


def recipe_file(tmp_path, **changes):
    fields = {"name": "a", "model": "TINY", "seed": 7} | changes
    stage = {"train": "joint", "steps": 1, "batch": 1, "crop_px": 16, "frames": 1}
    stage |= {"learning_rate": 0.1} | fields.pop("stage", {})
    lines = [f"{k} = {json.dumps(v)}" for k, v in fields.items()]
    lines += ["[[stages]]"] + [f"{k} = {json.dumps(v)}" for k, v in stage.items()]
    path = tmp_path / "recipe.toml"
    path.write_text("\n".join(lines))
    return path


def test_a_recipe_is_read(tmp_path):
    recipe = Recipe.read(recipe_file(tmp_path))
    assert (recipe.name, recipe.seed, recipe.config) == ("a", 7, TINY)
    assert recipe.stages == (Stage("joint", 1, 1, 16, 1, 0.1),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "HUGE"}, r"no network 'HUGE'; there are \[.*'SMALL'.*\]"),
        ({"model": "ModelConfig"}, "no network 'ModelConfig'"),
        ({"colour": "red"}, "colour"),
        ({"stage": {"train": "all"}}, r"one of \['transform', 'prior', 'joint'\], not 'all'"),
        ({"stage": {"speed": 1}}, "speed"),
        ({"stage": {"steps": 0}}, "must be positive"),
        ({"stage": {"steps": "many"}}, "not a training recipe"),
        ({"stage": {"crop_px": 20}}, r"multiple of 16 pixels; this one has \[20\]"),
    ],
)
def test_a_bad_recipe(tmp_path, changes, message):
    path = recipe_file(tmp_path, **changes)
    with pytest.raises(InputError, match=re.escape(str(path)) + f" is not .*{message}|{message}"):
        Recipe.read(path)


@pytest.mark.parametrize(
    "text", ['name = "a"', 'name = "a"\nmodel = "TINY"\nstages = []', "name ="]
)
def test_a_file_that_is_no_recipe(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"recipe\.toml is not a training recipe"):
        Recipe.read(path)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.toml is not a training recipe"):
        Recipe.read(tmp_path / "nowhere.toml")


def test_a_network_that_this_training_cannot_start(recipe, folder, tmp_path, monkeypatch):
    plain = dataclasses.replace(TINY, linear_path=False)
    monkeypatch.setattr(configs, "PLAIN", plain, raising=False)
    with pytest.raises(InputError, match="PLAIN has no linear path or no rate knots"):
        run(dataclasses.replace(recipe, model="PLAIN"), folder, tmp_path)


def test_the_committed_recipe_is_one():
    path = loop.__file__.replace("loop.py", "small.toml")
    assert Recipe.read(loop.Path(path)).config == configs.SMALL


def zigzag(pixels):
    """Differences along x with the sign in the lowest bit; low bytes, then high bytes."""
    steps = np.diff(pixels.astype(np.int32), axis=-1, prepend=0)
    folded = ((steps << 1) ^ (steps >> 31)).ravel()
    return (folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()


def test_cubes_of_every_kind_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 32768, (2, 3, 4, 5)).astype(np.uint16)
    names = ["B2", "red", "b08"]
    np.savez(tmp_path / "a.npz", pixels=pixels, bands=names)
    with zipfile.ZipFile(tmp_path / "b.cube", "w") as file:
        file.writestr("meta.json", json.dumps({"shape": pixels.shape, "bands": names}))
        file.writestr("delta.bin", zigzag(pixels))
    dims = ("time", "band", "y", "x")
    stored = xr.Dataset({"dn": (dims, pixels), "other": ("time", [1, 2])}, {"band": names})
    stored.to_zarr(tmp_path / "c.zarr", zarr_format=2)
    (tmp_path / "README.md").write_text("not a cube")
    cubes = data.read_all([tmp_path])
    assert len(cubes) == 3
    for cube in cubes:
        assert cube.bands == TINY.bands
        assert np.array_equal(cube.pixels, pixels)


def test_folders_without_cubes(tmp_path):
    with pytest.raises(InputError, match=r"no \.npz, \.cube, \.zarr or \.nc in"):
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


def cube(shape=(3, 2, 20, 20), bands=("B02", "B08")):
    pixels = np.arange(1, 1 + np.prod(shape), dtype=np.uint16).reshape(shape)
    pixels[:, :, :4, :4] = 0
    pixels[:, 0, -4:, -4:] = 65535
    return Cube(pixels, bands)


def test_crops_that_no_cube_can_give():
    with pytest.raises(InputError, match="as large as the crops of 32 pixels"):
        Sampler([cube()], TINY, size=32, frames=1, seed=0)
    with pytest.raises(InputError, match=r"none of the training cubes has all of the bands"):
        loop.principal_components([cube()], TINY)


@given(st.integers(0, 999))
def test_crops_count_what_is_there_and_nothing_else(seed):
    crops = next(Sampler([cube()], TINY, size=16, frames=3, seed=seed).batches(3))
    assert crops.pixels.shape == crops.weight.shape
    assert crops.pixels.shape[0] == 3
    assert 2 <= crops.pixels.shape[1] <= 3
    assert crops.pixels.shape[2:] == (3, 16, 16)
    assert not crops.weight[:, :, 1].any()  # a band that the cube lacks
    assert set(crops.weight.unique().tolist()) <= {0.0, 1.0}
    assert not crops.pixels[crops.weight == 0].any()
    # Values are those of the cube, brightened by at most 15 %.
    there = crops.pixels[:, :, 0][crops.weight[:, :, 0] == 1] * TINY.std[0] + TINY.mean[0]
    assert there.min() >= 0.8
    assert there.max() <= 1.16 * cube().pixels.size


def test_samplers_of_one_seed_agree():
    one, two, other = (
        [c.pixels for c in islice(Sampler([cube()], TINY, size=16, frames=1, seed=s).batches(2), 5)]
        for s in (1, 1, 2)
    )
    assert all(map(torch.equal, one, two))
    assert not all(map(torch.equal, one, other))


def test_rounding_lets_the_gradient_through():
    y = torch.tensor([0.4, 1.6], requires_grad=True)
    q = rounded(y)
    (q * torch.tensor([2.0, 3.0])).sum().backward()
    assert q.tolist() == [0.0, 2.0]
    assert y.grad.tolist() == [2.0, 3.0]


def test_code_lengths_of_all_integers_are_those_of_a_distribution():
    q = torch.arange(-60.0, 61.0)
    for mean, deviation in ((0.0, 1.0), (0.3, 0.2), (-7.5, 9.0)):
        total = torch.exp2(-bits(q, torch.tensor(mean), torch.tensor(deviation))).sum()
        assert abs(total - 1) < 1e-5


def test_the_cheap_prior_is_a_distribution_of_each_channel():
    cheap = FactorizedPrior(3, 2)
    with torch.no_grad():
        cheap.log_scale.copy_(torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5]]))
        cheap.mean.copy_(torch.tensor([[0.2, 0.0], [-3.0, 0.4], [0.0, 0.0]]))
    y = torch.arange(-99.0, 100.0).reshape(1, 1, 1, 1, -1).expand(2, 1, 2, 1, -1)
    total = torch.exp2(-cheap(y, torch.tensor([0.0, 16.0]))).sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-3, atol=1e-3)


def test_the_speed_rises_then_falls():
    found = [loop.schedule(step, 1000) for step in range(1000)]
    top = max(range(1000), key=found.__getitem__)
    assert 150 < top < 250
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert 0 < found[-1] < 0.02
