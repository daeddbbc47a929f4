"""The engine: one per model and device, for many callers, the same for each in any company."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import TINY, VARIED, context_network, network, replay, write_weights
from xtec import engine as room
from xtec.coding import tables
from xtec.engine import Engine, engine
from xtec.errors import InputError
from xtec.models import temporal_model, weights
from xtec.models.known_answer import select

FAMILIES = {
    "tec-tt": (lambda: network(VARIED["attention"]), 0),
    "lapped": (context_network, 330),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def card(tmp_path_factory, family):
    path = tmp_path_factory.mktemp("models") / "a.safetensors"
    return weights.read_card(Path(write_weights(path, FAMILIES[family][0]())))


@pytest.fixture(scope="module")
def level(family):
    return FAMILIES[family][1]


@pytest.fixture(scope="module")
def ours(card):
    return Engine(card, "cpu")


@pytest.fixture(scope="module")
def pixels(family):
    random = np.random.default_rng(0)
    if family == "tec-tt":
        return random.normal(0, 2, (5, 3, 3, 32, 64)).astype(np.float32)
    return random.normal(2000, 400, (5, 3, 3, 64, 128)).astype(np.float32)


def decode(ours, coded, level, pixels):
    return ours.decode([replay(c) for c in coded], level, pixels.shape[1:])


def equal(a, b):
    """Field for field; of the latents frame for frame."""
    return all(
        all(map(np.array_equal, *pair)) if isinstance(pair[0], tuple) else np.array_equal(*pair)
        for pair in ((getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    )


def test_what_leaves_for_the_coder_is_what_it_takes(ours, pixels, level):
    for coded in ours.encode(list(pixels), level):
        assert coded.symbols.shape == coded.rows.shape == (coded.ends[-1],)
        assert list(coded.ends) == sorted(coded.ends)
        assert len(coded.ends) == pixels.shape[1]
        assert (coded.symbols.dtype, coded.rows.dtype) == (np.int32, np.uint16)
        assert coded.rows.max() < len(tables.load().sizes)


def test_latents_come_back_and_pixels_on_demand(ours, pixels, level):
    coded = ours.encode(list(pixels), level)
    for decoded, c in zip(decode(ours, coded, level, pixels), coded, strict=True):
        assert {frame.dtype for frame in decoded.latents} == {np.dtype(np.int32)}
        assert all(map(np.array_equal, decoded.latents, c.latents))
        found = decoded.pixels()
        assert found.dtype == np.float32
        assert found.shape == pixels.shape[1:]


def test_company_changes_nothing(ours, pixels, level):
    together = ours.encode(list(pixels), level)
    order = [3, 0, 4]
    shuffled = ours.encode([pixels[i] for i in order], level)
    recon = [d.pixels() for d in decode(ours, together, level, pixels)]
    for place, i in enumerate(order):
        alone = ours.encode([pixels[i]], level)
        assert equal(alone[0], together[i])
        assert equal(alone[0], shuffled[place])
        (decoded,) = decode(ours, alone, level, pixels)
        assert np.array_equal(decoded.pixels(), recon[i])


@pytest.mark.parametrize("count", [1, 2])
def test_chunks_of_many_callers_are_coded_as_if_alone(card, ours, pixels, level, count):
    """However many threads torch has, and however small the batches are."""
    alone = [ours.encode([p], level)[0] for p in pixels]
    recon = [decode(ours, [c], level, pixels)[0].pixels() for c in alone]
    other, before = Engine(card, "cpu"), torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        for most in (1, 2, 8):
            other._room.most = most
            found = other.each(lambda p: other.encode([p], level)[0], pixels)
            assert all(map(equal, found, alone))
            (*both,) = other.each(lambda c: decode(other, [c], level, pixels)[0].pixels(), alone)
            assert all(map(np.array_equal, both, recon))
    finally:
        torch.set_num_threads(before)


def test_concurrent_chunks_travel_together_where_it_pays(card, pixels, level, family, monkeypatch):
    other, sizes = Engine(card, "cpu"), []
    coded = type(other._model).encode

    def encode(self, chunks, level):
        sizes.append(len(chunks))
        return coded(self, chunks, level)

    monkeypatch.setattr(type(other._model), "encode", encode)
    ready = threading.Barrier(len(pixels))

    def one(p):
        if family == "tec-tt":
            ready.wait()
        return other.encode([p], level)

    other.each(one, pixels)
    assert sizes == ([len(pixels)] if family == "tec-tt" else [1] * len(pixels))


def test_an_error_of_one_reader_reaches_its_caller_alone(card, ours, pixels, level):
    coded = ours.encode(list(pixels[:3]), level)

    def broken(rows):
        raise ZeroDivisionError

    def one(number):
        read = broken if number == 1 else replay(coded[number])
        try:
            return ours.decode([read], level, pixels.shape[1:])[0].latents
        except ZeroDivisionError:
            return None

    first, second, third = ours.each(one, range(3))
    assert second is None
    for found, c in ((first, coded[0]), (third, coded[2])):
        assert all(map(np.array_equal, found, c.latents))


@pytest.mark.parametrize("size", [2, 4])
def test_groups_are_padded_to_one_size(monkeypatch, size):
    """As on a GPU: the library always sees the same shape."""
    monkeypatch.setitem(temporal_model.GROUP, "cpu", size)
    seen = []
    frames = torch.arange(5.0).reshape(5, 1, 1, 1)
    model = temporal_model.TemporalModel(network(TINY), select("cpu"), "cpu")
    found = model._grouped(lambda x: seen.append(x.shape) or x + 1, frames)
    assert torch.equal(found, frames + 1)
    assert set(seen) == {(size, 1, 1, 1)}


def test_settings_of_the_caller_do_not_reach_the_engine(ours, pixels, level):
    """Coding inside a training loop with mixed precision."""
    expected = ours.encode(list(pixels[:1]), level)
    recon = decode(ours, expected, level, pixels)[0].pixels()
    with torch.autocast("cpu"), torch.enable_grad():
        found = ours.encode(list(pixels[:1]), level)
        (decoded,) = decode(ours, found, level, pixels)
        assert equal(found[0], expected[0])
        assert np.array_equal(decoded.pixels(), recon)


def test_an_engine_built_under_autocast_is_the_same(card, ours, pixels, level):
    with torch.autocast("cpu"):
        other = Engine(card, "cpu")
    found, expected = (e.encode(list(pixels[:1]), level)[0] for e in (other, ours))
    assert equal(found, expected)


def test_an_error_of_the_reader_leaves_the_engine_free(ours, pixels, level):
    def read(rows):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ours.decode([read], level, pixels.shape[1:])
    assert ours.encode(list(pixels[:1]), level)


def test_many_callers_share_one_engine(card, pixels, level, monkeypatch):
    built = []
    init = Engine.__init__
    monkeypatch.setattr(Engine, "__init__", lambda *a: built.append(a) or init(*a))
    room._engine.cache_clear()
    expected = Engine(card, "cpu").encode(list(pixels), level)
    built.clear()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda p: engine(card).encode([p], level)[0], pixels))
    assert len(built) == 1
    assert all(equal(*both) for both in zip(found, expected, strict=True))
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
def test_a_gpu_gives_the_same_rows(card, ours, pixels, level):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gpu = Engine(card, "cuda")
    for writer, reader in ((gpu, ours), (ours, gpu)):
        coded = writer.encode(list(pixels), level)
        for decoded, c, own in zip(
            decode(reader, coded, level, pixels), coded,
            decode(writer, coded, level, pixels), strict=True,
        ):  # fmt: skip
            assert all(map(np.array_equal, decoded.latents, c.latents))
            np.testing.assert_allclose(decoded.pixels(), own.pixels(), atol=1e-3)
