"""Tiny networks for tests, and chunks for them."""

import dataclasses
from functools import lru_cache

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xtec.models import exact, weights
from xtec.models.config import ModelConfig
from xtec.models.network import TemporalTransformer
from xtec.models.prior import ExactPrior

few = settings(max_examples=25)

STEP_DN = 8
"""Width of the pixel model's quantiser at its highest compression setting."""

TINY = ModelConfig(
    bands=("B02", "B04", "B08"),
    mean=(1400.0, 1300.0, 2300.0),
    std=(1000.0, 1000.0, 500.0),
    channels=(4, 48),
    residual_blocks=1,
    attention=False,
    d_model=16,
    heads=2,
    layers_separate=1,
    layers_joint=1,
    layers_decoder=1,
    mlp_ratio=2,
    latent_input="log",
    scale_map="log2",
    linear_path=True,
    references=True,
    refine="linear",
    rate_knots=3,
)
"""Stride 4, so windows of 16 pixels, and as many latents as pixels."""

_other = dataclasses.replace
VARIED = {
    "like the embedded": TINY,
    "like the official": _other(
        TINY,
        attention=True,
        linear_path=False,
        latent_input="linear",
        scale_map="reciprocal",
        references=False,
        refine="conv",
        rate_knots=0,
    ),
    "8 bits": _other(TINY, channels=(4, 8), prior_bits=8, latent_input="linear"),
    "14 bits, deep": _other(
        TINY,
        channels=(4, 8),
        prior_bits=14,
        layers_separate=2,
        layers_joint=2,
        layers_decoder=3,
        refine="conv",
    ),
    "one rate": _other(TINY, channels=(4, 8), scale_map="reciprocal", rate_knots=0),
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
                if name.endswith(("rate", "sym", "linear", "log_gain")):
                    p.normal_(0, 0.3)
                if "_head.4" in name or "gates" in name:
                    p.mul_(8)
                if name.endswith("_pos"):
                    p.mul_(50)
    return model.eval().requires_grad_(requires_grad=False)


@lru_cache
def prior(config, seed=0):
    return ExactPrior(network(config, seed), exact.select("cpu"))


def latents(shape, seed=0, spread=4.0):
    """Integers (B, T, C, h, w), a few of them far away."""
    random = torch.Generator().manual_seed(seed)
    q = torch.randn(shape, generator=random) * spread
    q[torch.rand(shape, generator=random) < 0.01] *= 300
    return q.round()


def pixel_network():
    """A network whose latents are the pixels themselves in steps; all that it loses is the step.

    The convolutions are silent, each latent is one pixel of its 4 x 4 patch. The prior is random.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TemporalTransformer(TINY)
        transform = model.transform
        with torch.no_grad():
            transform.linear.copy_(torch.eye(48).reshape(transform.linear.shape))
            silent = (
                transform.analysis_transform.transforms[-1],
                transform.synthesis_transform.transforms[-1],
                model._dequantizer.process_conv[0],
            )
            for layer in silent:
                for p in layer.parameters():
                    p.zero_()
            # The width of a step where a band's deviation is 1000, at each knot.
            steps_dn = torch.tensor([8.0, 4.0, 1.0]) * STEP_DN
            model.log_gain.copy_((1000 / steps_dn).log()[:, None])
    return model


def write_weights(path, model, name="tiny"):
    """A weights file; returns its path as a string."""
    weights.save(model, name, path)
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
