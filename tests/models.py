"""Tiny networks for tests, and chunks for them."""

import dataclasses
from functools import lru_cache

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xtec.models import weights
from xtec.models.config import S2L1C, S2L2A, LappedConfig, ModelConfig, to_dict
from xtec.models.context import ContextTransformer
from xtec.models.known_answer import select
from xtec.models.lapped_model import LappedModel
from xtec.models.network import TemporalTransformer
from xtec.models.prior import ExactPrior
from xtec.models.spectrum import step_dn

few = settings(max_examples=25, deadline=None)

TINY = ModelConfig(
    bands=("B02", "B04", "B08"),
    mean=(1400.0, 1300.0, 2300.0),
    std=(1000.0, 1000.0, 500.0),
    channels=(4, 12),
    residual_blocks=1,
    attention=False,
    d_model=16,
    heads=2,
    layers_separate=1,
    layers_joint=1,
    layers_decoder=1,
    mlp_ratio=2,
)
"""TEC-TT of stride 4, so of windows of 16 pixels."""

SMALL_L1C, SMALL_L2A = (
    dataclasses.replace(
        official,
        channels=(4, 8, 8, 12),
        residual_blocks=1,
        d_model=16,
        heads=2,
        layers_separate=1,
        layers_joint=1,
        layers_decoder=1,
        mlp_ratio=2,
    )
    for official in (S2L1C, S2L2A)
)
"""The official networks in small: their bands, stride, blocks and names."""

LAPPED = LappedConfig(
    bands=("B02", "B04", "B08"), d_model=16, heads=2, layers=1, mlp_ratio=2, lags=2
)
"""The embedded family, as small as it gets."""

BEST = LAPPED.compression(LAPPED.levels - 1)
"""Its highest compression setting."""
STEP_DN = step_dn(LAPPED.levels - 1)
"""Width of its quantiser at that."""

_other = dataclasses.replace
VARIED = {
    "no attention": TINY,
    "attention": _other(TINY, attention=True, channels=(4, 8, 12), heads=4),
    "8 bits": _other(TINY, channels=(4, 8), prior_bits=8),
    "14 bits, deep": _other(
        TINY,
        channels=(4, 8),
        prior_bits=14,
        layers_separate=2,
        layers_joint=2,
        layers_decoder=3,
    ),
}
"""Networks for every way through the prior."""


@lru_cache
def network(config, seed=0):
    """Random weights whose predictions depend on what they see."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TemporalTransformer(config)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith("sym"):
                    p.normal_(0, 0.3)
                if "_head.4" in name:
                    p.mul_(8)
                if name.endswith("_pos"):
                    p.mul_(50)
            for p in model.transform.analysis_transform.transforms.parameters():
                p.mul_(2)  # else most latents were 0
    return model.eval().requires_grad_(requires_grad=False)


@lru_cache
def context_network(config=LAPPED, seed=0):
    """Random weights whose predictions depend on what they see."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ContextTransformer(config)
        model.initialise()
        with torch.no_grad():
            for p in (*model.heads.parameters(), *model.mix, model.spatial, model.place):
                p.add_(torch.randn_like(p), alpha=0.1)
    return model.eval().requires_grad_(requires_grad=False)


@lru_cache
def lapped_model(config=LAPPED, seed=0):
    return LappedModel(context_network(config, seed), select("cpu"))


def replay(coded):
    """A reader that hands out a chunk's symbols, and checks the rows asked for."""
    position = 0

    def read(rows):
        nonlocal position
        here = slice(position, position + len(rows))
        assert np.array_equal(rows, coded.rows[here])
        position += len(rows)
        return coded.symbols[here]

    return read


@lru_cache
def prior(config, seed=0):
    return ExactPrior(network(config, seed), select("cpu"))


def latents(shape, seed=0, spread=4.0):
    """Integers (B, T, C, h, w), a few of them far away."""
    random = torch.Generator().manual_seed(seed)
    q = torch.randn(shape, generator=random) * spread
    q[torch.rand(shape, generator=random) < 0.01] *= 300
    return q.round()


def near(after, before, step=STEP_DN):
    """Whether pixels came back as well as the embedded family promises with a step.

    Its quantiser is orthonormal and errs by less than a step in each latent: that bounds the error
    of many pixels together, less that of each. A few pixels may bear the error of the whole tile
    that they are padded to.
    """
    error = np.asarray(after, float) - np.asarray(before, float)
    rms = np.sqrt((error**2).mean()) if error.size else 0
    usual, most = (0.6, 4) if error.size > 1000 else (3, 8)
    return rms < usual * step and np.abs(error).max(initial=0) < most * step


def write_weights(path, model, name="tiny"):
    """A weights file; returns its path as a string."""
    weights.save(model, name, path)
    return str(path)


def state_of(model, tables=0):
    """A state dict as the reference saves it: parameters and 17 buffers under its names.

    ``tables`` is the length of its coder's tables: none before they are made, any after.
    """
    coder = "model.entropy_model.bottleneck._entropy_model."
    bounds = (
        "scale_bound", "likelihood_lower_bound.bound", "lower_bound_scale.bound",
        "lower_bound_zero.bound", "upper_bound_mean.bound", "upper_bound_scale.bound",
    )  # fmt: skip
    integers = ("_offset", "_quantized_cdf", "_cdf_length")
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state |= {coder + name: torch.zeros(1) for name in bounds}
    state |= {coder + name: torch.zeros(tables, dtype=torch.int32) for name in integers}
    for name in ("_indexes_table", "_prior_mean", "_prior_scale"):
        state[coder + name] = torch.zeros(tables)
    mask = torch.ones(16, 16, dtype=torch.bool).triu(1)
    for i in range(model.config.layers_decoder):
        state[f"model.entropy_model.decoder.layers.encoder_layer_{i}.look_ahead_mask"] = mask
    return state


def write_checkpoint(path, model, tables=0, name=None):
    """A checkpoint as TerraCodec publishes them; returns its path as a string.

    A network of another than the official size says what it is.
    """
    state = state_of(model, tables)
    if model.config not in (S2L1C, S2L2A):
        about = {"config": to_dict(model.config)} | ({"name": name} if name else {})
        state = {"state_dict": state, "xtec": about}
    torch.save(state, path)
    return str(path)


@st.composite
def chunks(draw, bands=3, dtypes=("uint16", "int16")):
    """Digital numbers with no-data (0) and saturated pixels, of any small shape."""
    shape = (draw(st.integers(1, 3)), bands, draw(st.integers(1, 19)), draw(st.integers(1, 19)))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    chunk = random.normal(2000, draw(st.sampled_from([1, 300, 9000])), shape)
    chunk = np.clip(chunk, max(1, np.iinfo(dtype).min), np.iinfo(dtype).max).astype(dtype)
    for value in (0, np.iinfo(dtype).max):
        kind = draw(st.sampled_from(["none", "some", "frame", "all bands", "all"]))
        chunk[draw(holes(shape, kind))] = value
    return chunk


@st.composite
def holes(draw, shape, kind):
    """A mask of some of the pixels."""
    hole = np.zeros(shape, bool)
    if kind == "some":
        return draw(hnp.arrays(np.bool_, shape))
    if kind == "frame":
        hole[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    if kind == "all bands":
        hole[:] = draw(hnp.arrays(np.bool_, (shape[0], 1, *shape[2:])))
    if kind == "all":
        hole[:] = True
    return hole
