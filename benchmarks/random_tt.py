"""A TEC-TT network with random weights that behave as trained ones do, and its checkpoint.

The published weights are not needed to compare speed, memory and bits of two implementations, but
weights as a fresh network has them would not do: their latents round to 0 and their predictions
hardly move. Here latents are integers whose spread differs from channel to channel, and means and
scales follow what the network sees:

* each latent channel has a typical size, 0.15 to 20, evenly on a log scale;
* the scale head gives each channel that size, half of it or twice as much by what it sees;
* the mean head's means spread ``means`` times as far as the channel's size;
* the dequantiser's correction of the latents has a standard deviation of 0.25, that of a step's
  rounding being 0.29; what leaves the synthesis has mean 0 and deviation 1.

Below: xtec.models. Above: side_xtec, vs_terracodec, prior_cost, sampled.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from xtec.models.config import S2L1C, WINDOW, ModelConfig
from xtec.models.network import TemporalTransformer

SMALLEST, LARGEST = 0.15, 20.0
"""Typical sizes of the latents of a channel."""
SWAY = 0.25
"""How much of itself a scale moves by (of 1 / scale, below 1)."""
GAINS = 5, 20
"""Of outliers, times the others'."""
CORRECTION = 0.25
BRANCH = 0.4
"""Gain of what residual branches add: keeps the depths of the network of one magnitude."""
PREFIX = "model."
BOTTLENECK = f"{PREFIX}entropy_model.bottleneck._entropy_model."


@torch.inference_mode()
def network(
    frames: Tensor | None = None,
    *,
    config: ModelConfig = S2L1C,
    means: float = 0.5,
    outliers: int = 0,
    seed: int = 0,
) -> TemporalTransformer:
    """Draw the weights and fit their magnitudes.

    Parameters
    ----------
    frames : float32, shape (T, band, y, x), optional
        Standardised pixels that the latents are fitted on; without them analysis and synthesis
        stay as they were drawn.
    config : ModelConfig
    means : float
        Spread of the predicted means of a channel, in units of its typical scale.
    outliers : int
        Channels of each layer norm whose gain is 5 to 20 times the others': trained transformers
        often have a few, and they are what a product of few bits suffers from.
    seed : int
    """
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        made = TemporalTransformer(config)
    made = made.to_empty(device="cpu").eval().requires_grad_(requires_grad=False)
    for name, parameter in made.named_parameters():
        _draw(name, parameter, random)
    for norm in (layer for layer in made.modules() if outliers and isinstance(layer, nn.LayerNorm)):
        some = torch.randperm(len(norm.weight), generator=random)[:outliers]
        norm.weight[some] *= torch.empty(outliers).uniform_(*GAINS, generator=random)
    c = config.latent_channels
    sizes = torch.logspace(*torch.tensor([SMALLEST, LARGEST]).log10().tolist(), c)
    sizes = sizes[torch.randperm(c, generator=random)]
    if frames is not None:
        _fit_analysis(made, frames, sizes)
    side = 2 * WINDOW
    q = torch.randn(1, 2, c, side, side, generator=random) * sizes[:, None, None]
    z = _fit_heads(made, q.round(), sizes, means)
    if frames is not None:
        _fit_synthesis(made, q.round().flatten(0, 1), z.flatten(0, 1))
    return made


def _draw(name: str, parameter: Tensor, random: torch.Generator) -> None:
    """One parameter's first values."""
    fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
    if ".synthesis_transform." in name and parameter.shape[2:] == (5, 5):
        fan_in = parameter.shape[0] * 25 // 4  # a transposed convolution of stride 2
    if "norm" in name:
        parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.1, generator=random)
    elif name.endswith("bias"):
        parameter.normal_(0, 0.02, generator=random)
    elif name.endswith("_pos"):
        parameter.normal_(0, 0.3, generator=random)
    elif name.endswith(("sym", "maker.weight")):
        parameter.normal_(0, 2, generator=random)
    else:
        branch = name.endswith(("conv.4.weight", "proj.weight", "fc2.weight"))
        before_relu = ".conv.0." in name or ".conv.2." in name or "_head" in name or "fc1" in name
        gain = BRANCH if branch else 2**0.5 if before_relu else 1.0
        parameter.normal_(0, gain * fan_in**-0.5, generator=random)


def _fit_analysis(network: TemporalTransformer, frames: Tensor, sizes: Tensor) -> None:
    """Give each channel of the latents its size, by the last of the strided convolutions."""
    layers = network.transform.analysis_transform.transforms
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
    before, rest = layers[:last](frames), layers[last + 1 :]
    strided = layers[last]
    for _ in range(3):  # the gate behind it is not linear
        _aim(strided, rest(strided(before)).transpose(0, 1).flatten(1), 0.0, sizes)


def _fit_heads(network: TemporalTransformer, q: Tensor, sizes: Tensor, means: float) -> Tensor:
    """Give the predictions their magnitudes; features of the latents q."""
    mean, scale, z = (x.transpose(1, 2).transpose(0, 1).flatten(1) for x in network.prior(q))
    em = network.entropy_model
    _aim(em.mean_head[-1], mean, 0.0, means * sizes)
    raw = torch.where(sizes > 1, sizes - 1, 1 - 1 / sizes)
    _aim(em.scale_head[-1], scale, raw, SWAY * torch.where(sizes > 1, sizes, 1 / sizes))
    return z.unflatten(1, (*q.shape[:2], *q.shape[3:])).movedim(0, 2)


def _fit_synthesis(network: TemporalTransformer, q: Tensor, z: Tensor) -> None:
    """Give the correction of the latents and the pixels their magnitudes."""
    correction = network._dequantizer  # noqa: SLF001
    for _ in range(3):  # its biases do not grow with it
        first = correction.process_conv[0]
        first.weight.mul_(CORRECTION / correction(z).std())
    last = network.transform.synthesis_transform.transforms[-1]
    _aim(last, network.synthesis(q, z).transpose(0, 1).flatten(1), 0.0, torch.tensor(1.0))


def _aim(layer: nn.Module, found: Tensor, mean: Tensor | float, deviation: Tensor) -> None:
    """Change a layer's outputs, of which some were found (channel, n), to a mean and deviation."""
    gain = deviation / found.std(1)
    outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    shape = [-1 if axis == outputs else 1 for axis in range(layer.weight.dim())]
    layer.weight.mul_(gain.view(shape))
    layer.bias.mul_(gain).add_(mean - gain * found.mean(1))


def save(network: TemporalTransformer, path: Path) -> None:
    """Write a checkpoint as TerraCodec 0.3.1 publishes them."""
    torch.save(checkpoint(network), path)


def checkpoint(network: TemporalTransformer) -> dict[str, Tensor]:
    """Parameters under the published names, and the buffers that lie beside them."""
    state = {PREFIX + name: value for name, value in network.state_dict().items()}
    tokens = WINDOW**2
    mask = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    for layer in range(network.config.layers_decoder):
        state[f"{PREFIX}entropy_model.decoder.layers.encoder_layer_{layer}.look_ahead_mask"] = mask
    return state | dict(_buffers())


def _buffers() -> Iterable[tuple[str, Tensor]]:
    """What the reference's coder keeps: tables, empty until it builds them, and bounds."""
    for name in ("_offset", "_quantized_cdf", "_cdf_length"):
        yield BOTTLENECK + name, torch.zeros(0, dtype=torch.int32)
    for name in ("_indexes_table", "_prior_mean", "_prior_scale"):
        yield BOTTLENECK + name, torch.zeros(0)
    bounds = {
        "scale_bound": 0.01,
        "likelihood_lower_bound.bound": 1e-9,
        "lower_bound_scale.bound": 0.01,
        "lower_bound_zero.bound": 0.0,
        "upper_bound_mean.bound": -99.0,
        "upper_bound_scale.bound": -255.0,
    }
    for name, value in bounds.items():
        yield BOTTLENECK + name, torch.tensor([value])


def load(path: Path, config: ModelConfig = S2L1C) -> TemporalTransformer:
    """Read such a checkpoint."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        made = TemporalTransformer(config)
    wanted = made.state_dict()
    made.load_state_dict({k: state[PREFIX + k] for k in wanted}, assign=True)
    return made.eval().requires_grad_(requires_grad=False)
