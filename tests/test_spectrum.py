"""Bands decorrelated and quantised: what comes back, what it costs, what it adapts to."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models import few
from xtec.coding import rans, tables
from xtec.errors import CorruptStreamError
from xtec.models import analysis as room
from xtec.models.analysis import analyse
from xtec.models.config import LARGEST_STEP_DN, LEVELS_PER_HALVING, LappedConfig
from xtec.models.frequencies import FREQUENCIES, OCTAVES, SIZES, ZONE, ZONES
from xtec.models.spectrum import Spectrum, step_dn, step_units, synthesise
from xtec.models.spectrum_code import Listener, Teller, say_frame, say_shifts

LEVELS = LappedConfig(bands=("B02",)).levels


def scene(shape, seed=0, noise=20.0):
    """Smooth structures that the bands share, and noise that they do not."""
    t, b, h, w = shape
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / 16
    parts = np.stack([np.sin(y * f + x * g + random.uniform(0, 6)) for f, g in ((1, 0), (2, 3))])
    weights = random.normal(0, 400, (b, 2))
    pixels = 2000 + np.tensordot(weights, parts, 1)[None] * random.uniform(0.8, 1.2, (t, 1, 1, 1))
    return torch.from_numpy(pixels + random.normal(0, noise, shape)).float()


def error(x, level):
    spectrum, latents = analyse(x, level)
    return (synthesise(spectrum, latents, level, _grid(x)) - x).square().mean().sqrt().item()


def _grid(x):
    return x.shape[2] // 16, x.shape[3] // 16


def test_frequencies_are_each_in_one_octave():
    assert np.array_equal(np.sort(np.concatenate(FREQUENCIES)), np.arange(256))
    assert (SIZES, ZONES) == ((1, 8, 55, 192), (1, 8, 16, 24))
    assert all(set(z) == set(range(n)) for z, n in zip(ZONE, ZONES, strict=True))


def test_steps_halve_and_lie_away_from_ties():
    steps = [step_units(level) for level in range(LEVELS)]
    assert steps[0] == LARGEST_STEP_DN * 256
    assert steps == sorted(set(steps), reverse=True)
    assert steps[3 * LEVELS_PER_HALVING] * 8 == steps[0]
    exact = [LARGEST_STEP_DN * 256 * 2.0 ** (-i / LEVELS_PER_HALVING) for i in range(LEVELS)]
    assert min(abs(x % 1 - 0.5) for x in exact) > 1e-3


@few
@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from([16, 64]), st.integers(0, 9))
def test_the_error_follows_the_step(frames, bands, width, seed):
    x = scene((frames, bands, 32, width), seed)
    errors = [error(x, level) for level in (128, 256, 384, 640)]
    for level, found in zip((128, 256, 384, 640), errors, strict=True):
        assert found < 0.8 * step_dn(level)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 8


def test_a_flat_frame_is_its_mean_and_nothing_else():
    x = torch.full((2, 3, 32, 32), 1234.0)
    level = 400
    spectrum, latents = analyse(x, level)
    assert all(q.shape[1] == 0 for frame in latents for q in frame)
    back = synthesise(spectrum, latents, level, _grid(x))
    assert (back - x).abs().max() < step_dn(level) / 16


def test_bands_that_say_the_same_cost_one_component():
    x = scene((1, 1, 64, 64), noise=0).expand(1, 6, -1, -1)
    _, latents = analyse(x, 300)
    assert max(q.shape[1] for q in latents[0]) == 1


def test_a_coarse_band_needs_no_high_frequencies_of_its_own():
    """A band of 20 m, copied to 10 m, is alone in the lower octaves."""
    random = np.random.default_rng(0)
    fine = random.normal(2000, 300, (64, 64))
    coarse = np.kron(random.normal(2000, 300, (32, 32)), np.ones((2, 2)))
    x = torch.from_numpy(np.stack([fine, coarse])[None]).float()
    spectrum, latents = analyse(x, 450)
    assert latents[0][2].shape[1] == latents[0][3].shape[1] == 2
    strong = [abs(spectrum.basis(0, o)[0][0]) for o in (2, 3)]
    assert strong[0].argmax() == 1  # the low octaves hold all of the coarse band
    assert strong[1].argmax() == 0


def test_an_equal_frame_takes_over_the_basis():
    x = scene((1, 4, 64, 64)).expand(3, -1, -1, -1)
    spectrum, _ = analyse(x, 350)
    assert all(len(bases) == 1 for bases in spectrum.bases)
    assert {f.choices for f in spectrum.frames} == {(0,) * OCTAVES}
    turn, bits = spectrum.turn(0, 2, 0)
    assert np.array_equal(turn, np.eye(len(turn), dtype=int))
    assert bits == 0


def test_another_frame_brings_its_own_and_turns_the_old():
    x = torch.cat([scene((1, 4, 128, 128), 1, 300), scene((1, 4, 128, 128), 2, 300).flip(1)])
    spectrum, latents = analyse(x, 450)
    octave = next(o for o in range(OCTAVES) if len(spectrum.bases[o]) == 2)
    turn, bits = spectrum.turn(octave, 1, 0)
    assert turn.shape == (latents[1][octave].shape[1], latents[0][octave].shape[1])
    assert np.abs(np.linalg.norm(turn * 2.0**-bits, axis=1) - 1).max() < 0.2


def test_frames_are_told_of_those_most_like_them():
    random = torch.Generator().manual_seed(0)
    place = scene((1, 4, 64, 64), 1, 100)
    other = 2000 + 300 * torch.randn(place.shape, generator=random)
    near = place + 30 * torch.randn(place.shape, generator=random)
    spectrum, _ = analyse(torch.cat([place, other, near, place]), 350)
    told = [f.references for f in spectrum.frames]
    assert told[:2] == [(), ()]
    assert told[2] == (0,)
    assert told[3][:2] == (0, 2)
    one, _ = analyse(torch.cat([place, near, place]), 350, 1)
    assert [f.references for f in one.frames] == [(), (0,), (0,)]


def test_the_way_back_is_the_same_on_any_number_of_threads():
    x = scene((2, 13, 64, 64), noise=200)
    spectrum, latents = analyse(x, 400)
    threads = torch.get_num_threads()
    found = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        found.append(synthesise(spectrum, latents, 400, _grid(x)))
    torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)
    assert torch.equal(found[0] * 16, (found[0] * 16).round())


def test_latents_are_drawn_to_zero_where_ones_are_rare():
    quiet = torch.zeros(16, 1, 192)
    quiet[3, 0, 5] = 0.8
    busy = torch.full((16, 1, 192), 2.0)
    busy[3, 0, 5] = 0.8
    for y, expected in ((quiet, 0), (busy, 1)):
        q = room._quantise(y, room._bits(y, (4, 4)))
        assert q[3, 0, 5] == expected


@few
@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from([0, 200, 400, 640]), st.integers(0, 9))
def test_a_spectrum_is_read_as_it_was_told(frames, bands, level, seed):
    spectrum, _ = analyse(scene((frames, bands, 32, 32), seed, 100), level)
    teller = Teller()
    say_shifts(teller, spectrum)
    for number in range(frames):
        say_frame(teller, spectrum, number, bands)
    symbols, rows = np.concatenate(teller.symbols), np.concatenate(teller.rows)
    payload, _ = rans.encode(symbols, rows, tables.load(), [len(symbols)])
    decoder = rans.Decoder(payload, tables.load())
    heard = Spectrum(np.zeros((OCTAVES, 2), np.int64))
    say_shifts(Listener(decoder.decode), heard)
    for number in range(frames):
        say_frame(Listener(decoder.decode), heard, number, bands)
    decoder.finish()
    assert np.array_equal(heard.shifts, spectrum.shifts)
    assert [f.references for f in heard.frames] == [f.references for f in spectrum.frames]
    for octave in range(OCTAVES):
        assert len(heard.bases[octave]) == len(spectrum.bases[octave])
        for number in range(frames):
            (rows, bits), (told, told_bits) = (s.basis(number, octave) for s in (heard, spectrum))
            assert np.array_equal(rows, told)
            assert bits == told_bits or not len(rows)
            energies = (s.frames[number].energies[octave] for s in (heard, spectrum))
            assert np.array_equal(*energies)


@pytest.mark.parametrize("value", [-(2**19), -70, -7, 7, 70, 2**19])
def test_numbers_no_spectrum_has_are_refused(value):
    listener = Listener(lambda rows: np.full(len(rows), value, np.int32))

    def hear():
        heard = Spectrum(np.zeros((OCTAVES, 2), np.int64))
        say_shifts(listener, heard)
        for number in range(3):
            say_frame(listener, heard, number, 4)

    with pytest.raises(CorruptStreamError, match="not written by xtec"):
        hear()
