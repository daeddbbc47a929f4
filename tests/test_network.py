"""The float network is TEC-TT: it reproduces the reference, and looks only where it may."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models import VARIED, latents, network
from xtec.models import windows as layout
from xtec.models.config import S2L1C, ModelConfig
from xtec.models.network import TemporalTransformer, sigma
from xtec.train.loss import bits

REFERENCE = ModelConfig(
    bands=("B01", "B02", "B03", "B04", "B05"),
    mean=(0.0,) * 5,
    std=(1.0,) * 5,
    channels=(8, 8, 16, 16),
    residual_blocks=1,
    d_model=64,
    heads=4,
    layers_separate=2,
    layers_joint=1,
    layers_decoder=2,
    mlp_ratio=2,
)
BUFFERS = ("look_ahead_mask", "bottleneck")


def parity(name):
    """A file of the reference fixture, which the repository does not carry."""
    default = Path(__file__).parents[2] / "shared" / "parity"
    path = Path(os.environ.get("XTEC_PARITY", default)) / name
    if not path.is_file():
        pytest.skip(f"no reference fixture at {path}; set XTEC_PARITY to its directory")
    return path


@pytest.fixture(scope="module")
def reference():
    """What terracodec 0.3.1 computed, by name."""
    with np.load(parity("tt_small_seed0.npz")) as file:
        return {k: torch.from_numpy(v) for k, v in file.items() if v.dtype.kind in "fiub"}


@pytest.fixture(scope="module")
def loaded(reference):
    """Our network with the reference's weights, under the reference's own names."""
    model = TemporalTransformer(REFERENCE)
    weights = {k.removeprefix("sd/"): v for k, v in reference.items() if k.startswith("sd/")}
    mismatch = model.load_state_dict(weights, strict=False)
    assert mismatch.missing_keys == []
    assert [k for k in mismatch.unexpected_keys if not any(b in k for b in BUFFERS)] == []
    return model.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def predicted(loaded, reference):
    return loaded.prior(reference["q"].float())


def test_latents_are_the_references(loaded, reference):
    y = loaded.analysis(reference["x"].float().flatten(0, 1))
    torch.testing.assert_close(y, reference["y"].flatten(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frame", range(4))
@pytest.mark.parametrize(("name", "which"), [("mean", 0), ("scale", 1), ("z", 2)])
def test_distributions_and_features_are_the_references(predicted, reference, frame, name, which):
    found = layout.windows(predicted[which][0, frame : frame + 1])
    torch.testing.assert_close(found, reference[f"{name}{frame}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("frame", range(4))
def test_code_lengths_are_the_references(predicted, reference, frame):
    """Theirs know 256 deviations, from 0.01 to 256, and means up to 0.49 above an integer."""
    mean, scale = (layout.windows(x[0, frame : frame + 1]) for x in predicted[:2])
    q = layout.windows(reference["q"][0, frame : frame + 1].float())
    known = 0.01 * 25601 ** (torch.arange(256) / 255)
    nearest = ((sigma(scale) + 0.01).log()[..., None] - known.log()).abs().argmin(-1)
    mean = mean.round() + (mean - mean.round()).clamp(max=0.49)
    found = bits(q, mean, known[nearest])
    torch.testing.assert_close(found, -reference[f"likelihood{frame}"].log2(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["forward_recon", "decoded_recon"])
def test_the_reconstruction_is_the_references(loaded, reference, predicted, name):
    """The fixture holds every second pixel (its README speaks of a crop)."""
    q, z = reference["q"].float().flatten(0, 1), predicted[2].flatten(0, 1)
    recon = loaded.synthesis(q, z)[..., ::2, ::2]
    expected = reference[name].reshape(recon.shape)
    torch.testing.assert_close(recon, expected, rtol=0, atol=1e-5)


def test_the_official_network_has_the_published_parameters():
    published = {
        entry["key"].removeprefix("model."): tuple(entry["shape"])
        for entry in json.loads(parity("tt_l1c_state_keys.json").read_text())
        if entry["kind"] == "param"
    }
    with torch.device("meta"):
        model = TemporalTransformer(S2L1C)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == published
    assert len(published) == 785
    assert sum(p.numel() for p in model.parameters()) == 225_164_557


@given(n=st.integers(1, 3), c=st.integers(1, 3), h=st.integers(1, 4), w=st.integers(1, 4))
def test_windows_are_undone(n, c, h, w):
    y = torch.arange(n * c * h * w * 16).reshape(n, c, 4 * h, 4 * w)
    tokens = layout.windows(y)
    assert tokens.shape == (n * h * w, 16, c)
    assert torch.equal(layout.unwindows(tokens, 4 * h, 4 * w), y)


def test_windows_and_tokens_go_row_by_row():
    y = torch.arange(8 * 12).reshape(1, 1, 8, 12)
    tokens = layout.windows(y)[..., 0]
    assert tokens[0].reshape(4, 4).tolist() == y[0, 0, :4, :4].tolist()
    assert tokens[1].reshape(4, 4).tolist() == y[0, 0, :4, 4:8].tolist()
    assert tokens[3].reshape(4, 4).tolist() == y[0, 0, 4:, :4].tolist()


@given(h=st.integers(1, 3), w=st.integers(1, 3))
def test_a_context_window_has_its_window_in_the_middle(h, w):
    y = torch.randn(2, 3, 4 * h, 4 * w)
    around = layout.context_windows(y)
    assert around.shape == (2 * h * w, 64, 3)
    middle = around.unflatten(1, (8, 8))[:, 2:6, 2:6].flatten(1, 2)
    assert torch.equal(middle, layout.windows(y))


def test_edges_are_reflected_without_being_repeated():
    y = torch.arange(16.0).reshape(1, 1, 4, 4)
    around = layout.context_windows(y)[0, :, 0].reshape(8, 8)
    rows = torch.tensor([2, 1, 0, 1, 2, 3, 2, 1])
    assert torch.equal(around, y[0, 0][rows][:, rows])


def changes(config, before, after):
    """Where mean, scale or features of some latents differ from those of others."""
    pairs = zip(*(network(config).prior(q) for q in (before, after)), strict=True)
    return torch.stack([(a != b).any(dim=2) for a, b in pairs]).any(dim=0)  # [B, T, h, w]


@pytest.mark.parametrize("config", VARIED.values(), ids=VARIED)
@pytest.mark.parametrize("token", [0, 5, 15])
def test_a_token_is_seen_by_those_after_it_alone(config, token):
    before = latents((1, 1, config.latent_channels, 4, 8))
    after = before.clone()
    after[0, 0, :, token // 4, token % 4] += 5
    changed = layout.windows(changes(config, before, after).float())[..., 0]
    assert not changed[0, : token + 1].any()
    assert changed[0, token + 1 :].all()
    assert not changed[1].any()  # the other window


@pytest.mark.parametrize("config", VARIED.values(), ids=VARIED)
def test_a_frame_is_seen_by_itself_and_the_two_after_it_alone(config):
    before = latents((1, 5, config.latent_channels, 8, 8))
    after = before.clone()
    after[0, 1] += 5
    changed = changes(config, before, after)[0].flatten(1)
    assert changed.any(dim=1).tolist() == [False, True, True, True, False]
    assert not changed[1].all()  # its first tokens are coded before anything of it is known
    assert changed[2:4].all()


@pytest.mark.parametrize("config", VARIED.values(), ids=VARIED)
def test_the_second_frame_sees_the_first_twice(config):
    """A still scene: from the second frame on the context is the same two frames."""
    q = latents((1, 1, config.latent_channels, 4, 4)).expand(1, 4, -1, -1, -1)
    for found in network(config).prior(q):
        torch.testing.assert_close(found[:, 1:], found[:, 1:2].expand_as(found[:, 1:]))
        assert (found[:, 0] - found[:, 1]).abs().max() > 1e-3


def test_scales_become_deviations():
    found = sigma(torch.tensor([-2.0, 0.0, 3.0]))
    torch.testing.assert_close(found, torch.tensor([1 / 3, 1.0, 4.0]))
