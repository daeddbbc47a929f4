"""The engine: one per model and device, for many callers, the same for each in any company."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import TINY, network, write_weights
from xtec import engine as room
from xtec.coding import tables
from xtec.engine import Engine, engine
from xtec.errors import InputError
from xtec.models import weights

LEVEL = 20


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "a.safetensors"
    return weights.read_card(Path(write_weights(path, network(TINY))))


@pytest.fixture(scope="module")
def ours(card):
    return Engine(card, "cpu")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).normal(0, 2, (5, 3, 3, 16, 32)).astype(np.float32)


def replay(coded):
    """A reader that hands out the symbols of some chunks, and checks the rows asked for."""
    shape = len(coded), -1, coded[0].symbols.shape[1] // 16
    symbols, rows = (
        iter(np.stack([getattr(c, name) for c in coded]).reshape(shape).swapaxes(0, 1))
        for name in ("symbols", "rows")
    )

    def read(asked):
        assert np.array_equal(asked, next(rows))
        return np.ascontiguousarray(next(symbols))

    return read


def decode(ours, coded):
    return ours.decode(replay(coded), LEVEL, (len(coded), 3, 16, 32))


def test_latents_are_the_rounded_analysis(ours, pixels):
    coded = ours.encode(pixels[:1], LEVEL)[0]
    x, level = torch.from_numpy(pixels[:1]), torch.tensor([LEVEL])
    expected = ours._network.analysis(x, level)[0]
    assert coded.latents.dtype == np.int32
    assert np.abs(coded.latents - expected.numpy()).max() < 0.51
    assert len(np.unique(coded.latents)) > 10


def test_what_leaves_for_the_coder_is_what_it_takes(ours, pixels):
    for coded in ours.encode(pixels, LEVEL):
        assert coded.latents.shape == (3, 48, 4, 8)
        assert coded.symbols.shape == coded.rows.shape == (3, 48 * 4 * 8)
        assert (coded.symbols.dtype, coded.rows.dtype) == (np.int32, np.uint16)
        assert coded.rows.max() < len(tables.load().sizes)


def test_latents_come_back_and_pixels_on_demand(ours, pixels):
    coded = ours.encode(pixels, LEVEL)
    latents, later = decode(ours, coded)
    assert latents.dtype == np.int32
    assert np.array_equal(latents, np.stack([c.latents for c in coded]))
    found = later()
    assert found.dtype == np.float32
    assert found.shape == pixels.shape


def test_pixels_are_the_synthesis(ours, pixels):
    coded = ours.encode(pixels[:1], LEVEL)
    latents, later = decode(ours, coded)
    q = torch.from_numpy(latents).float()
    with torch.inference_mode():
        _, z = ours._prior.encode(q, LEVEL)
        expected = ours._network.synthesis(q, z, torch.tensor([LEVEL]))
    np.testing.assert_allclose(later(), expected.numpy(), atol=1e-4)


def test_company_changes_nothing(ours, pixels):
    together = ours.encode(pixels, LEVEL)
    order = [3, 0, 4]
    shuffled = ours.encode(np.ascontiguousarray(pixels[order]), LEVEL)
    recon = decode(ours, together)[1]()
    recon_shuffled = decode(ours, shuffled)[1]()
    for place, i in enumerate(order):
        alone = ours.encode(pixels[i : i + 1], LEVEL)[0]
        for other in (together[i], shuffled[place]):
            for field in dataclasses.fields(alone):
                assert np.array_equal(getattr(alone, field.name), getattr(other, field.name))
        recon_alone = decode(ours, [alone])[1]()[0]
        assert np.array_equal(recon_alone, recon[i])
        assert np.array_equal(recon_alone, recon_shuffled[place])


@pytest.mark.parametrize("size", [2, 4])
def test_groups_are_padded_to_one_size(ours, monkeypatch, size):
    """As on a GPU: the library always sees the same shape."""
    monkeypatch.setitem(room.GROUP, "cpu", size)
    seen = []
    frames = torch.arange(5.0).reshape(5, 1)
    found = ours._grouped(lambda x: seen.append(x.shape) or x + 1, frames)
    assert torch.equal(found, frames + 1)
    assert set(seen) == {(size, 1)}


def test_settings_of_the_caller_do_not_reach_the_engine(ours, pixels):
    """Coding inside a training loop with mixed precision, of another default type."""
    expected = ours.encode(pixels[:1], LEVEL)[0]
    recon = decode(ours, [expected])[1]()
    with torch.autocast("cpu"), torch.enable_grad():
        found = ours.encode(pixels[:1], LEVEL)[0]
        latents, later = decode(ours, [found])
        assert np.array_equal(found.rows, expected.rows)
        assert np.array_equal(latents[0], expected.latents)
        assert np.array_equal(later(), recon)


def test_an_engine_built_under_autocast_is_the_same(card, ours, pixels):
    with torch.autocast("cpu"):
        other = Engine(card, "cpu")
    found, expected = (e.encode(pixels[:1], LEVEL)[0] for e in (other, ours))
    assert np.array_equal(found.rows, expected.rows)


def test_an_error_of_the_reader_leaves_the_engine_free(ours, pixels):
    def read(rows):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ours.decode(read, LEVEL, (1, 1, 16, 16))
    assert ours.encode(pixels[:1], LEVEL)


def test_many_callers_share_one_engine(card, pixels, monkeypatch):
    built = []
    init = Engine.__init__
    monkeypatch.setattr(Engine, "__init__", lambda *a: built.append(a) or init(*a))
    room._engine.cache_clear()
    expected = [c.rows for c in Engine(card, "cpu").encode(pixels, LEVEL)]
    built.clear()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: engine(card).encode(pixels[i : i + 1], LEVEL), range(5)))
    assert len(built) == 1
    for i in range(5):
        assert np.array_equal(found[i][0].rows, expected[i])
    room._engine.cache_clear()


def test_the_device_is_chosen_by_the_environment_else_by_what_is_there(monkeypatch):
    monkeypatch.delenv(room.DEVICE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert room.default_device() == "cuda"
    monkeypatch.setenv(room.DEVICE, "cuda:3")
    assert room.default_device() == "cuda:3"
    monkeypatch.delenv(room.DEVICE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert room.default_device() == "cpu"


@pytest.mark.parametrize("device", ["cuda", "mps", "tpu:1"])
def test_a_device_that_is_not_there(monkeypatch, device):
    monkeypatch.setenv(room.DEVICE, device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=f"{device}.* allowed are cpu"):
        room.default_device()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_rows(card, ours, pixels):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gpu = Engine(card, "cuda")
    coded = gpu.encode(pixels, LEVEL)
    assert np.array_equal(decode(ours, coded)[0], np.stack([c.latents for c in coded]))
    coded = ours.encode(pixels, LEVEL)
    latents, later = decode(gpu, coded)
    assert np.array_equal(latents, np.stack([c.latents for c in coded]))
    np.testing.assert_allclose(later(), decode(ours, coded)[1](), atol=1e-3)
