"""The exact prior: encoder and decoder agree bit for bit, in any company, near the float prior."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import TINY, VARIED, latents, network, prior
from xtec.coding import tables
from xtec.models import exact_blocks
from xtec.models.arithmetic import Arithmetic
from xtec.models.known_answer import select
from xtec.models.prior import ExactPrior, tokens

WAYS = pytest.mark.parametrize("config", VARIED.values(), ids=VARIED)


class Reader:
    """Stands in for the entropy decoder: hands out the true symbols, notes the rows asked for."""

    def __init__(self, distribution, q):
        symbols = tokens(q) - distribution.centre
        # (B, T, P, 16, C) -> one (B, P, C) per step
        self.steps = iter(symbols.permute(1, 3, 0, 2, 4).flatten(0, 1))
        self.rows = []

    def __call__(self, rows):
        self.rows.append(rows)
        return next(self.steps)


def decoded(exact_prior, distribution, q):
    """Latents, features and rows as a decoder finds them."""
    b, t, _, h, w = q.shape
    reader = Reader(distribution, q)
    found, z = exact_prior.decode(reader, (b, t, h, w))
    rows = torch.stack(reader.rows).unflatten(0, (t, 16)).permute(2, 0, 3, 1, 4)
    return found, z, rows


@WAYS
@settings(max_examples=10)
@given(
    b=st.integers(1, 2),
    t=st.integers(1, 4),
    h=st.sampled_from([4, 8]),
    w=st.sampled_from([4, 12]),
    seed=st.integers(0, 99),
)
def test_the_decoder_finds_what_the_encoder_had(config, b, t, h, w, seed):
    q = latents((b, t, config.latent_channels, h, w), seed)
    distribution, z = prior(config).encode(q)
    found, features, rows = decoded(prior(config), distribution, q)
    assert torch.equal(found, q)
    assert torch.equal(features, z)
    assert torch.equal(rows, distribution.row)


@WAYS
@settings(max_examples=10)
@given(order=st.permutations(range(4)), count=st.integers(1, 4), t=st.integers(1, 3))
def test_company_changes_nothing(config, order, count, t):
    q = latents((4, t, config.latent_channels, 4, 8))
    whole, z = prior(config).encode(q)
    some = order[:count]
    part, features = prior(config).encode(q[some])
    assert torch.equal(part.row, whole.row[some])
    assert torch.equal(part.centre, whole.centre[some])
    assert torch.equal(features, z[some])
    found, features, _ = decoded(prior(config), part, q[some])
    assert torch.equal(found, q[some])
    assert torch.equal(features, z[some])


@WAYS
def test_later_frames_change_nothing(config):
    q = latents((1, 4, config.latent_channels, 8, 4))
    whole, z = prior(config).encode(q)
    part, features = prior(config).encode(q[:, :2])
    assert torch.equal(part.row, whole.row[:, :2])
    assert torch.equal(features, z[:, :2])


@WAYS
def test_products_in_float64_give_the_same(config):
    """What a device that fails in float32 falls back to."""
    other = ExactPrior(network(config), Arithmetic(torch.device("cpu"), torch.float64))
    q = latents((1, 3, config.latent_channels, 4, 8))
    (one, z), (two, features) = (p.encode(q) for p in (prior(config), other))
    assert torch.equal(one.row, two.row)
    assert torch.equal(one.centre, two.centre)
    assert torch.equal(z, features)


def described(distribution):
    """Mean and scale level that a distribution stands for, (B, T, P, 16, C)."""
    t = tables.load()
    row = distribution.row.numpy()
    level = np.searchsorted(t.first_row, row, side="right") - 1
    shift = t.shift[level].astype(int)
    group = row - t.first_row[level]
    fraction = (group << shift) + ((1 << shift) - 1) / 2
    return distribution.centre.numpy() + fraction / 64 - 0.5, level


def errors(config, q):
    """How far mean and scale level are from the float network's, within the grids' own steps."""
    mean, scale, z = network(config).prior(q)
    mean, scale = (tokens(x.mul(2**10)).numpy() / 2**10 for x in (mean, scale))
    found, features = prior(config).encode(q)
    found_mean, found_level = described(found)
    edges = tables.load().scale_edges[config.scale_map]
    expected_level = np.searchsorted(edges, scale * 1024, side="right")
    step = (1 << tables.load().shift[found_level].astype(int)) / 64
    wrong = np.maximum(np.abs(found_mean - mean) - step / 2, 0)
    return np.sqrt((wrong**2).mean()), np.abs(found_level - expected_level), (features - z).abs()


@WAYS
def test_the_float_network_is_near(config):
    q = latents((1, 3, config.latent_channels, 8, 8))
    size = network(config).prior(q)[0].std().item()
    mean, level, z = errors(config, q)
    assert mean < 0.03 * size
    assert level.max() <= 1
    assert level.mean() < 0.2
    assert z.mean() < 0.03


def test_more_bits_are_nearer():
    found = []
    for bits in (5, 7, 10, 14):
        config = dataclasses.replace(VARIED["14 bits, deep"], prior_bits=bits)
        mean, _, z = errors(config, latents((1, 3, config.latent_channels, 8, 8)))
        found.append((mean, z.mean().item()))
    assert found == sorted(found, reverse=True)
    assert [z for _, z in found] == sorted((z for _, z in found), reverse=True)
    assert found[-1][1] < 1e-2


def test_gains_far_larger_than_the_others_cost_less(monkeypatch):
    """What is tamed is the same network, nearer to its float self."""
    config = VARIED["no attention"]
    wild = [copy.deepcopy(network(config, seed)) for seed in range(3)]
    for model in wild:
        for name, p in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                p[5] *= 10
    q = latents((1, 3, config.latent_channels, 8, 8))

    def off():
        exact = [ExactPrior(model, select("cpu")).encode(q)[1] for model in wild]
        return sum((z - m.prior(q)[2]).abs().mean() for z, m in zip(exact, wild, strict=True))

    tamed = off()
    monkeypatch.setattr(exact_blocks, "tamed", lambda norm: torch.ones_like(norm.weight))
    assert tamed < 0.85 * off()


def test_frames_make_a_difference():
    """The laws above compare things that could differ."""
    q = latents((1, 3, TINY.latent_channels, 4, 4))
    still = q[:, :1].expand(-1, 3, -1, -1, -1)
    rows = prior(TINY).encode(q)[0].row
    assert not torch.equal(rows[:, 2], prior(TINY).encode(still)[0].row[:, 2])


def test_latents_of_any_size_are_coded():
    """Nothing overflows, and the decoder follows."""
    q = latents((1, 3, TINY.latent_channels, 4, 4)) * 4000
    distribution, _ = prior(TINY).encode(q)
    found, _, _ = decoded(prior(TINY), distribution, q)
    assert torch.equal(found, q)


def test_the_first_context_is_computed_once():
    fresh = ExactPrior(network(TINY), select("cpu"))
    joined = []
    join = fresh._join
    fresh._join = lambda older, newer: joined.append(older.shape) or join(older, newer)
    for shape in ((2, 1, TINY.latent_channels, 4, 4), (1, 1, TINY.latent_channels, 8, 8)):
        fresh.encode(latents(shape))
    assert joined == [(1, 64, TINY.d_model)]
