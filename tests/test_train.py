"""Training: it learns, resumes where it was and ends with weights that code; or says why not."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import LAPPED, TINY, context_network, network, write_weights
from xtec.cli import main
from xtec.codec import Settings, decode_chunk, encode_chunk
from xtec.coding import rans, tables
from xtec.errors import InputError, ModelError
from xtec.models import analysis, rounding
from xtec.models.config import BANDS_L1C, LappedConfig
from xtec.models.distribution import Rows
from xtec.models.exact import ONE
from xtec.models.frequencies import SIZES
from xtec.train import evaluate, loop, loss, state
from xtec.train.ahead import ahead
from xtec.train.batch import make, some_frequencies
from xtec.train.data import Cube, read
from xtec.train.journal import Journal
from xtec.train.recipe import Recipe, Shares
from xtec.train.sampler import Draw
from xtec.train.state import State

CPU = torch.device("cpu")
RECIPE = Recipe(
    "trained", steps=4, network=LAPPED, pixels=2 * 64 * 64, learning_rate=3e-3, warm_up=2
)


def scene(dates, bands, seed=0):
    """Smooth and rough, alike on all dates: (time, band, 80, 80)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:80, :80]
    land = 1500 + 800 * np.sin(y / 9) * np.cos(x / 7) + random.normal(0, 150, (bands, 80, 80))
    air = random.normal(0, 30, (dates, bands, 80, 80)) + random.uniform(0, 200, (dates, 1, 1, 1))
    return (land + air).astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two training cubes, one of them without the network's last band, with no-data."""
    folder = tmp_path_factory.mktemp("cubes")
    for name, bands in (("a", LAPPED.bands), ("b", LAPPED.bands[:2])):
        pixels = scene(3, len(bands))
        pixels[1, :, :20, :20] = 0
        np.savez(folder / f"{name}.npz", pixels=pixels, bands=bands)
    return folder


@pytest.fixture
def exactly(monkeypatch):
    """Without half precision."""
    monkeypatch.setattr(loss, "autocast", lambda d: torch.autocast(d.type, enabled=False))


def crops(count, dates=2, bands=3):
    return [scene(dates, bands, seed)[..., :64, :64].astype(np.float32) for seed in range(count)]


def run(folder, out, recipe=RECIPE, **options):
    loop.train(recipe, [folder], out, **options)
    return (out / "model.safetensors").read_bytes()


def rows(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


class CutShortError(Exception):
    pass


def interrupt(patch, after):
    """Let training run for some steps only, and write a checkpoint after each."""
    left, advance = iter(range(after)), State.advance

    def limited(self, batch):
        if next(left, None) is None:
            raise CutShortError
        return advance(self, batch)

    patch.setattr(State, "advance", limited)
    patch.setattr(loop, "CHECKPOINT_EVERY_S", -1)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_resumed_run_ends_where_an_undisturbed_one_does(folder, tmp_path, monkeypatch, steps):
    expected = run(folder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, after=steps)
        with pytest.raises(CutShortError):
            run(folder, tmp_path / "parts")
    assert State(RECIPE, None, CPU).step == 0
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["step"] == steps
    assert run(folder, tmp_path / "parts") == expected
    assert not (tmp_path / "parts" / "checkpoint.new").exists()


def test_batches_made_ahead_are_the_same(folder, tmp_path):
    assert run(folder, tmp_path / "a") == run(folder, tmp_path / "b", workers=2)


def test_what_is_made_ahead_comes_in_order_and_no_further_than_it_must():
    made = []
    found = ahead(lambda n: made.append(n) or n, iter(range(100)), 2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    found.close()
    assert len(made) < 10
    assert list(ahead(str, range(20), 3)) == [str(n) for n in range(20)]

    def broken(_):
        raise CutShortError

    with pytest.raises(CutShortError):
        next(ahead(broken, range(9), 1))


def test_what_is_finished_is_not_done_again(folder, tmp_path, monkeypatch):
    first = run(folder, tmp_path)
    interrupt(monkeypatch, after=0)
    assert run(folder, tmp_path) == first


def test_another_seed_is_another_run(folder, tmp_path):
    other = dataclasses.replace(RECIPE, seed=1)
    assert run(folder, tmp_path / "a") != run(folder, tmp_path / "b", recipe=other)


def test_a_checkpoint_of_another_run_is_not_taken_up(folder, tmp_path):
    run(folder, tmp_path)
    with pytest.raises(InputError, match=r"another run \(steps 4 there, 5 here\); give --out"):
        run(folder, tmp_path, recipe=dataclasses.replace(RECIPE, steps=5))
    with pytest.raises(InputError, match=r"another run \(from the weights None, here [0-9a-f]{64}"):
        run(folder, tmp_path, init=str(tmp_path / "model.safetensors"))


def test_trained_weights_code_chunks(folder, tmp_path):
    run(folder, tmp_path)
    settings = Settings(str(tmp_path / "model.safetensors"), bands=LAPPED.bands, compression=400)
    assert settings.model == "trained"
    chunk = read(folder / "a.npz").pixels[:, :, 10:50, 10:50]
    found = decode_chunk(encode_chunk(chunk, settings))
    assert np.array_equal(found == 0, chunk == 0)
    assert np.abs(found.astype(float) - chunk)[chunk > 0].mean() < 60


def test_tuning_goes_on_from_weights_and_takes_their_network(folder, tmp_path):
    start = write_weights(tmp_path / "start.safetensors", context_network())
    recipe = dataclasses.replace(RECIPE, network=None)
    begun = State(recipe, start, CPU)
    assert begun.network.config == LAPPED
    given = context_network().state_dict()
    for model in (begun.network, begun.average):
        found = model.state_dict()
        assert all(torch.equal(found[k], v.half().float()) for k, v in given.items())
    assert all(p.requires_grad for p in begun.network.parameters())
    assert not any(p.requires_grad for p in begun.average.parameters())
    run(folder, tmp_path / "run", recipe, init=start)
    tuned = Settings(str(tmp_path / "run" / "model.safetensors"), bands=LAPPED.bands)
    chunk = read(folder / "a.npz").pixels[2:, :, :64, :64]
    assert decode_chunk(encode_chunk(chunk, tuned)).shape == chunk.shape


def test_the_embedded_model_can_be_tuned():
    """What the documents say: `--init embedded`."""
    shipped = Recipe.read(Path("finetune"))
    begun = State(shipped, "embedded", CPU)
    assert begun.network.config.bands == BANDS_L1C
    few = dataclasses.replace(begun.network.config, d_model=64, heads=2)
    with pytest.raises(InputError, match=r"has another network than the recipe: .* Leave \[netw"):
        State(dataclasses.replace(shipped, network=few), "embedded", CPU)


def test_weights_that_one_cannot_start_from(tmp_path):
    reference = write_weights(tmp_path / "tec.safetensors", network(TINY))
    with pytest.raises(InputError, match="is tiny, of a family that this version does not train"):
        State(RECIPE, reference, CPU)
    with pytest.raises(ModelError, match=r"cannot read the weights .*nowhere"):
        State(RECIPE, str(tmp_path / "nowhere.safetensors"), CPU)


def test_training_lowers_the_loss():
    recipe = dataclasses.replace(RECIPE, steps=40, ema_decay=0.5)
    found, batch = State(recipe, None, CPU), make(Draw(330, crops(2)), LAPPED)
    bits = [found.advance(batch)[1].sum().item() for _ in range(20)]
    assert bits[-1] < 0.97 * bits[0]
    with torch.no_grad():
        average = loss.spent(found.average, batch).sum().item()
    assert bits[-1] * 0.99 < average < bits[0]


def test_a_spoilt_batch_leaves_the_weights_alone():
    found, batch = State(RECIPE, None, CPU), make(Draw(330, crops(1)), LAPPED)
    before = {k: v.clone() for k, v in found.network.state_dict().items()}
    spoilt = dataclasses.replace(batch, turns=[t * math.nan for t in batch.turns])
    assert math.isnan(found.advance(spoilt)[0])
    assert all(torch.equal(before[k], v) for k, v in found.network.state_dict().items())
    found.advance(batch)
    assert not torch.equal(before["query.weight"], found.network.query.weight)


def test_the_average_follows_quickly_at_first(monkeypatch):
    found = State(dataclasses.replace(RECIPE, ema_decay=0.75), None, CPU)
    given = {k: v.clone() for k, v in found.average.named_parameters()}
    with torch.no_grad():
        for p in found.network.parameters():
            p.add_(1)
    expected = 0.0
    for step, kept in enumerate([1 / 10, 2 / 11, 3 / 12]):
        found.step = step
        found._follow()
        expected += (1 - expected) * (1 - kept)
    found.step = 10_000
    found._follow()
    expected += (1 - expected) * 0.25
    for name, p in found.average.named_parameters():
        torch.testing.assert_close(p, given[name] + expected)


def test_the_speed_rises_then_falls():
    recipe = dataclasses.replace(RECIPE, steps=1000, warm_up=200)
    found = [state.speed(step, recipe) for step in range(1000)]
    top = max(range(1000), key=found.__getitem__)
    assert 150 < top < 250
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert 0.0099 < found[-1] < 0.011


def test_every_parameter_is_trained_once_and_the_static_ones_move_faster():
    model = context_network()
    found = {group["speed"]: group["params"] for group in state.groups(model)}
    ids = [id(p) for group in found.values() for p in group]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert {id(p) for p in found[5.0]} == {id(p) for p in (*model.mix, *model.base)}


def test_code_lengths_of_all_integers_are_those_of_a_distribution():
    q = torch.arange(-60.0, 61.0)
    for mean, deviation in ((0.0, 1.0), (0.3, 0.2), (-7.5, 9.0)):
        total = torch.exp2(-loss.bits(q, torch.tensor(mean), torch.tensor(deviation))).sum()
        assert abs(total - 1) < 1e-5


def test_the_cost_of_a_latent_is_its_code_length_or_an_escape():
    q = torch.arange(0.0, 4000.0)
    mean, scale = torch.zeros(4000), torch.ones(4000)
    found = loss.cost(q, mean, scale)
    assert torch.equal(found[:8], loss.bits(q, mean, torch.tensor(2.0))[:8])
    assert (found.diff() > 0).all()


def test_the_cost_of_a_latent_is_about_what_the_coder_writes():
    random = np.random.default_rng(0)
    mean, scale = random.uniform(-30, 30, 400), random.uniform(-4, 9, 400)
    q = np.rint(mean + 2**scale * random.normal(0, 1, 400) * 2 ** random.uniform(0, 6, 400))
    found = loss.cost(*(torch.tensor(x, dtype=torch.float32) for x in (q, mean, scale)))
    rows = Rows("log2", CPU)(torch.tensor(mean * ONE), torch.tensor(scale * ONE).float())
    symbols = q.astype(np.int32) - rows.centre.numpy()
    copies = 200
    written = []
    for symbol, row in zip(symbols, rows.row.numpy().astype(np.uint16), strict=True):
        alike = np.repeat(symbol, copies), np.repeat(row, copies)
        written.append(8 * len(rans.encode(*alike, tables.load(), [copies])[0]) / copies)
    off = found.numpy() - written
    assert np.abs(off).max() < 4.5  # distances are coded in whole bits, tables end where they end
    assert abs(off.mean()) < 0.5


def test_gradients_of_the_cost_are_finite_everywhere():
    q = torch.tensor([0.0, 1.0, 40.0, 4095.0, 2.0**20]).repeat(7, 1).T.flatten()
    mean = torch.tensor([-(2.0**18), -3.5, 0.0, 1e-9, 0.5, 41.0, 1e4]).repeat(5)
    for at in (-30.0, -4.0, 0.0, 9.0, 30.0):
        mean, scale = mean.detach().requires_grad_(), torch.full((35,), at, requires_grad=True)
        loss.cost(q, mean, scale).sum().backward()
        assert mean.grad.isfinite().all()
        assert scale.grad.isfinite().all()


@pytest.mark.usefixtures("exactly")
def test_what_is_trained_on_is_what_the_coder_spends(tmp_path, monkeypatch):
    """Bits of the loss against bytes of a stream, and nothing but the loss left out of it.

    With bits for nothing, the coder and the guess of `analyse` round alike: to the nearest.
    """
    for room in (analysis, rounding):
        monkeypatch.setattr(room, "BIT", 1e-9)
    path = write_weights(tmp_path / "a.safetensors", context_network())
    (crop,) = crops(1, dates=3)
    with torch.no_grad():
        for compression in (20, 300):
            batch = make(Draw(LAPPED.level(compression), [crop]), LAPPED)
            expected = loss.spent(context_network(), batch).item()
            settings = Settings(path, bands=LAPPED.bands, compression=compression)
            stream = encode_chunk(crop.astype(np.uint16), settings)
            assert 0 < 8 * len(stream) - expected < 0.03 * expected + 2000


@pytest.mark.usefixtures("exactly")
def test_company_and_padding_cost_nothing():
    """Chunks with fewer bands, and so with fewer components, beside others."""
    drawn = [*crops(2), *crops(1, bands=1)]
    model = context_network()
    with torch.no_grad():
        together = loss.spent(model, make(Draw(330, drawn), LAPPED))
        alone = [loss.spent(model, make(Draw(330, [crop]), LAPPED)) for crop in drawn]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=0.1)
    assert together[2] < together[:2].min()


@pytest.mark.usefixtures("exactly")
def test_some_frequencies_speak_for_all():
    batch = make(Draw(380, crops(1)), LAPPED)
    parts = torch.randperm(SIZES[3]).split([40, SIZES[3] - 40])
    with torch.no_grad():
        found = [
            loss.spent(context_network(), dataclasses.replace(batch, some=[*batch.some[:3], part]))
            for part in parts
        ]
        whole = loss.spent(context_network(), batch)
    mean = sum(len(part) * bits for part, bits in zip(parts, found, strict=True)) / SIZES[3]
    torch.testing.assert_close(mean, whole, rtol=1e-4, atol=0.1)
    assert not torch.allclose(found[0], whole)


def test_a_step_looks_at_frequencies_of_its_own():
    one, again, other = (some_frequencies(0, number) for number in (4, 4, 5))
    assert all(map(torch.equal, one, again))
    assert not torch.equal(one[3], other[3])
    for found, size in zip(one, SIZES, strict=True):
        assert len(set(found.tolist())) == len(found)
        assert 0 <= found.min() <= found.max() < size


def test_a_large_and_a_small_chunk_count_alike_for_what_they_spend():
    bits = torch.tensor([100.0, 1e6], requires_grad=True)
    loss.weighed(bits).backward()
    per_bit = bits.grad
    assert per_bit[0] > per_bit[1]  # a bit of the quiet chunk is worth more ...
    assert per_bit[0] * 100 < per_bit[1] * 1e6  # ... one per cent of it is worth less


def test_the_log_tells_of_the_run(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    monkeypatch.setattr(loop, "EVALUATE_EVERY", 3)
    run(folder, tmp_path, val=[folder])
    found = rows(tmp_path)
    trained = [row for row in found if "loss" in row]
    assert [row["step"] for row in trained] == [2, 4]
    for row in trained:
        assert 0 < row["loss"] < 2
        assert 0 < row["bits_per_number"] < 16
        assert 0 < row["learning_rate"] <= RECIPE.learning_rate
        assert row["blocks_per_s"] > 0
    evaluated = [row for row in found if "loss" not in row]
    assert [row["step"] for row in evaluated] == [3, 4]
    for row in evaluated:
        rates = row["val_bits_per_number"]
        assert list(rates) == ["1.8", "16", "140"]
        assert 0 < rates["1.8"] < rates["16"] < rates["140"] < 16


def test_a_log_forgets_what_will_be_done_again(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n')
    Journal(path, 3).add({"step": 4, "new": True})
    assert path.read_text() == '{"step": 2}\n{"step": 4, "new": true}\n'


def test_crops_to_evaluate_on():
    pixels = scene(9, 2)
    pixels[0, :, :5] = 0
    found = evaluate.crop(Cube(pixels, LAPPED.bands[:2]), 64)
    assert found.shape == (6, 2, 64, 64)
    assert found.min() > 0
    assert evaluate.crop(Cube(pixels[..., :63], LAPPED.bands[:2]), 64) is None
    assert evaluate.bits_per_number(context_network(), []) == {}


def recipe_file(tmp_path, **changes):
    lines = [f"{k} = {json.dumps(v)}" for k, v in ({"name": "a", "steps": 9} | changes).items()]
    path = tmp_path / "recipe.toml"
    text = re.sub(r'"(\w+)": ', r"\1 = ", "\n".join(lines))
    path.write_text(text.replace("NaN", "nan").replace("Infinity", "inf"))
    return path


def test_a_recipe_is_read(tmp_path):
    path = recipe_file(tmp_path, compression=[1, 300], network={"layers": 2}, shares={"haze": 1})
    found = Recipe.read(path)
    assert (found.name, found.steps, found.compression) == ("a", 9, (1, 300))
    assert found.network == LappedConfig(BANDS_L1C, layers=2)
    assert found.shares == Shares(haze=1)
    assert Recipe.read(recipe_file(tmp_path)).network is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"network": {"depth": 1}}, "depth"),
        ({"network": {"heads": 5}}, "d_model 192 is not a multiple of 5 heads"),
        ({"network": {"layers": 0}}, "whole numbers above 0"),
        ({"network": {"bands": ["B02", "B77"]}}, "B77"),
        ({"network": 3}, "not int"),
        ({"shares": {"haze": 1.5}}, "the share haze is 1.5; it must lie from 0 to 1"),
        ({"shares": {"rain": 1}}, "rain"),
        ({"steps": 0}, "must be positive"),
        ({"steps": "many"}, "'str'"),
        ({"learning_rate": math.nan}, "must be positive and finite"),
        ({"compression": [1, math.inf]}, "must be positive and finite"),
        ({"steps": 1.5}, "whole numbers"),
        ({"seed": -1}, "must be positive"),
        ({"ema_decay": 1}, "ema_decay 1 and usual 0.6 must lie from 0 to 1"),
        ({"compression": [30, 3]}, "compression from 30 to 3: the lower end comes first"),
        ({"compression": [0, 3]}, "must be positive"),
        ({"compression": [1, 2, 3]}, "too many values"),
        ({"compression": 7}, "int"),
    ],
)
def test_a_bad_recipe(tmp_path, changes, message):
    path = recipe_file(tmp_path, **changes)
    pattern = re.escape(str(path)) + f" is neither a training recipe nor one of .*{message}"
    with pytest.raises(InputError, match=pattern):
        Recipe.read(path)


@pytest.mark.parametrize("text", ["", 'name = "a"', "name =", "steps = 3"])
def test_a_file_that_is_no_recipe(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"recipe\.toml is neither a training recipe nor one of"):
        Recipe.read(path)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere is neither .* one of \['finetune', 'small'\]"):
        Recipe.read(tmp_path / "nowhere")


def test_the_recipes_of_the_package():
    small, finetune = (Recipe.read(Path(name)) for name in ("small", "finetune"))
    assert small.network == LappedConfig(BANDS_L1C)
    assert finetune.network is None
    assert finetune.steps < small.steps
    assert finetune.learning_rate < small.learning_rate


def test_the_command_trains_and_tunes(folder, tmp_path, capsys):
    network = {"bands": LAPPED.bands, "d_model": 16, "heads": 2, "layers": 1}
    recipe = recipe_file(tmp_path, steps=1, pixels=4096, network=network)
    options = ["--data", str(folder), "--threads", "1"]
    assert main(["train", str(recipe), *options, "--out", str(tmp_path / "a")]) == 0
    made = tmp_path / "a" / "model.safetensors"
    assert f"{made} is model 'a'" in capsys.readouterr().out
    recipe = recipe_file(tmp_path, name="b", steps=1, pixels=4096)
    options += ["--init", str(made), "--out", str(tmp_path / "b"), "--val", str(folder)]
    assert main(["train", str(recipe), *options]) == 0
    assert "is model 'b'" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_training_on_a_gpu(folder, tmp_path):
    run(folder, tmp_path, val=[folder], device="cuda")
    assert rows(tmp_path)[-1]["val_bits_per_number"]["16"] > 0
