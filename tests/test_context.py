"""The embedded model's prior: exact, causal, the same for encoder and decoder, close to floats."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models import LAPPED, context_network, few, lapped_model, replay
from tests.test_spectrum import scene
from xtec.coding import rans, tables
from xtec.errors import StreamError
from xtec.models.analysis import analyse
from xtec.models.arithmetic import Arithmetic
from xtec.models.context_exact import ExactContext
from xtec.models.frequencies import OCTAVES, SIZES, ZONES
from xtec.models.known_answer import select
from xtec.models.lapped_model import LappedModel
from xtec.models.layout import layout
from xtec.models.mixing import Mixture
from xtec.train.batch import latents_of  # the teacher's view of a chunk

CPU = torch.device("cpu")


def chunk(shape, seed=0):
    return scene(shape, seed, noise=150).numpy()


shapes = st.tuples(
    st.integers(1, 4), st.integers(1, 3), st.sampled_from([64, 128]), st.sampled_from([64, 128])
)


@few
@given(shapes, st.sampled_from([100, 250, 400]), st.integers(0, 9))
def test_the_decoder_sees_what_the_encoder_saw(shape, level, seed):
    model, pixels = lapped_model(), chunk(shape, seed)
    (coded,) = model.encode([pixels], level)
    assert coded.symbols.dtype == np.int32
    assert coded.rows.dtype == np.uint16
    assert coded.ends[-1] == len(coded.symbols) == len(coded.rows)
    assert len(coded.ends) == shape[0]
    (decoded,) = model.decode([replay(coded)], level, shape)
    assert all(map(np.array_equal, decoded.latents, coded.latents))
    assert np.cumsum([q.size for q in decoded.latents]).tolist() == list(coded.ends)
    assert decoded.pixels().shape == shape


def test_through_the_coder_and_back():
    model, pixels = lapped_model(), chunk((3, 3, 64, 128))
    (coded,) = model.encode([pixels], 380)
    payload, _ = rans.encode(coded.symbols, coded.rows, tables.load(), coded.ends)
    decoder = rans.Decoder(payload, tables.load())
    (decoded,) = model.decode([decoder.decode], 380, pixels.shape)
    decoder.finish()
    assert np.sqrt(np.square(decoded.pixels() - pixels).mean()) < 200


def test_the_first_frames_alone():
    """Frames do not know of later ones."""
    model, pixels = lapped_model(), chunk((4, 3, 64, 64))
    (whole,) = model.encode([pixels], 350)
    (first,) = model.encode([pixels[:2]], 350)
    assert whole.ends[:2] == first.ends
    # The chunk's shifts, said first, are an average over its frames.
    shifts = 2 * OCTAVES
    n = first.ends[-1]
    assert np.array_equal(whole.rows[shifts:n], first.rows[shifts:])
    assert np.array_equal(whole.symbols[shifts:n], first.symbols[shifts:])


def test_company_and_threads_change_nothing():
    model = lapped_model()
    chunks = [chunk((2, 3, 64, 64), seed) for seed in range(3)]
    together = model.encode(chunks, 350)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    alone = [model.encode([c], 350)[0] for c in chunks]
    torch.set_num_threads(threads)
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(a.symbols, b.symbols)
        assert np.array_equal(a.rows, b.rows)


@few
@given(st.integers(0, 99), st.integers(0, OCTAVES - 1), st.integers(0, 3), st.integers(0, 4))
def test_the_compiled_loop_and_the_tensors_agree(seed, octave, components, number):
    """Whatever the numbers; also those that only a hostile stream holds."""
    random = np.random.default_rng(seed)
    mixing, group = lapped_model().prior.mixing[octave], layout(8, 4, CPU).groups[number]
    k, n, zones, size = components, len(group.blocks), ZONES[octave], SIZES[octave]

    def wild(shape, most):
        """Integers of every magnitude, ties among them."""
        spread = 2.0 ** random.uniform(0, np.log2(most), shape)
        return torch.from_numpy(np.rint(random.uniform(-1, 1, shape) * spread))

    mixture = Mixture(
        wild((n, k, zones), 2**26),
        wild((n, k, zones, 3), 2**14).float(),
        torch.from_numpy(random.integers(1, 64, k)),
        [wild((32, k, size), 2**26).int() for _ in range(2)],
        wild((33, k, size), 2**14).float(),
    )
    compiled, tensors = mixing(mixture, group), mixing.tensors(mixture, group)
    assert torch.equal(compiled.centre, tensors.centre)
    assert torch.equal(compiled.row, tensors.row)


def test_products_in_float64_give_the_same():
    """What a device does whose float32 is not exact."""
    pixels = chunk((3, 3, 64, 64))
    found = [
        LappedModel(context_network(), arithmetic).encode([pixels], 350)[0]
        for arithmetic in (select("cpu"), Arithmetic(torch.device("cpu"), torch.float64))
    ]
    assert np.array_equal(found[0].rows, found[1].rows)


@pytest.mark.parametrize("seed", range(3))
def test_floats_say_nearly_the_same(seed):
    """The network that is trained and the one that codes: two descriptions, one model."""
    model, pixels = lapped_model(seed=seed), chunk((4, 3, 64, 128), seed)
    level = 330
    spectrum, frames = analyse(torch.from_numpy(pixels), level, LAPPED.lags)
    exact = _walked(model, spectrum, frames, level, pixels)
    network = context_network(seed=seed)
    with torch.no_grad():
        teacher = latents_of([(spectrum, frames)], level, (4, 8), LAPPED)
        found = network(*teacher)
    for octave, (mean, scale) in enumerate(found):
        for t, (centre_and_row) in enumerate(exact):
            blocks, d = centre_and_row[octave]
            k = d.row.shape[1]
            if not d.row.numel():
                continue
            there = mean[0, t, blocks, :k], scale[0, t, blocks, :k]
            assert (d.centre - there[0]).abs().max() < 0.75 + 0.02 * there[0].abs().max()
            expected = model.prior.mixing[octave].rows(there[0].double() * 1024, there[1] * 1024)
            bits = [_bits(rows) for rows in (d.row, expected.row)]
            assert abs(bits[0].mean() - bits[1].mean()) < 0.02 * abs(bits[1]).mean() + 0.02


def _bits(rows):
    """Entropy of each row."""
    t = tables.load()
    found = {}
    for row in np.unique(rows.numpy()):
        counts = np.diff(t.cdf[t.starts[row] : t.starts[row] + t.sizes[row] + 1].astype(float))
        p = counts / counts.sum()
        found[row] = -(p * np.log2(p)).sum()
    return np.vectorize(found.get)(rows.numpy())


def _walked(model, spectrum, frames, level, pixels):
    """Per frame and octave the blocks in coding order and their distributions."""
    from xtec.models.lapped_model import Walk

    out = []
    walk = Walk(model, spectrum, level, (len(frames), 3, *pixels.shape[2:]))
    for frame in frames:
        blocks_of, found_of = [[] for _ in range(OCTAVES)], [[] for _ in range(OCTAVES)]

        def take(blocks, octaves, found, frame=frame, blocks_of=blocks_of, found_of=found_of):
            for octave, d in zip(octaves, found, strict=True):
                blocks_of[octave].append(blocks)
                found_of[octave].append(d)
            return [frame[o][blocks] for o in octaves]

        walk.frame(take)
        out.append([
            (torch.cat(b), dataclasses.replace(
                f[0], centre=torch.cat([d.centre for d in f]), row=torch.cat([d.row for d in f])
            ))
            for b, f in zip(blocks_of, found_of, strict=True)
        ])  # fmt: skip
    return out


def test_blocks_do_not_know_of_later_ones():
    """Change one block of the last group: only its own symbols change in its frame."""
    model, pixels, level = lapped_model(), chunk((2, 3, 64, 64)), 350
    spectrum, frames = analyse(torch.from_numpy(pixels), level, LAPPED.lags)
    before = _walked(model, spectrum, frames, level, pixels)
    changed = [[q.clone() for q in frame] for frame in frames]
    for q in changed[0]:
        q[1] += 3  # block 1 is of the last group
    after = _walked(model, spectrum, changed, level, pixels)
    for octave in range(OCTAVES):
        (blocks, a), (_, b) = before[0][octave], after[0][octave]
        others = blocks != 1
        assert torch.equal(a.row[others], b.row[others])
    assert any(
        not torch.equal(a.row, b.row) for (_, a), (_, b) in zip(before[1], after[1], strict=True)
    )


@few
@given(st.lists(st.integers(0, 2**32 - 1), max_size=100), st.sampled_from([0, 300, 640]))
def test_hostile_payloads_end_in_stream_errors(words, level):
    payload = b"".join(w.to_bytes(4, "little") for w in (1 << 31, 0, *words))
    decoder = rans.Decoder(payload, tables.load())
    with contextlib.suppress(StreamError):
        (decoded,) = lapped_model().decode([decoder.decode], level, (2, 3, 64, 64))
        decoder.finish()
        assert np.isfinite(decoded.pixels()).all()


def test_wide_networks_are_refused():
    from xtec.errors import ModelError

    wide = dataclasses.replace(LAPPED, d_model=2048)
    with torch.device("cpu"), pytest.raises(ModelError, match="too"):
        ExactContext(context_network(wide), select("cpu"))
