"""The rate-distortion loss, and the cheap prior that the transform is first trained with.

Loss = bits per pixel and band + lambda * mean squared error of the standardised pixels,
divided by sqrt(lambda) so that all compression settings weigh about the same.

Below: models, data. Above: loop.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xtec.models.network import TemporalTransformer, interpolate, sigma
from xtec.train.data import Crops


class FactorizedPrior(nn.Module):
    """One Laplace distribution per channel and rate knot: no context at all."""

    def __init__(self, knots: int, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(knots, channels))
        self.mean = nn.Parameter(torch.zeros(knots, channels))

    def forward(self, y: Tensor, level: Tensor) -> Tensor:
        """Code length in bits of latents (B, T, C, h, w)."""
        shape = (len(level), 1, -1, 1, 1)
        scale = interpolate(self.log_scale, level).view(shape).exp()
        v = (y - interpolate(self.mean, level).view(shape)).abs()
        near = v.clamp(max=0.5)
        inside = 1 - (torch.exp((near - 0.5) / scale) + torch.exp(-(near + 0.5) / scale)) / 2
        outside = torch.exp(-(v - 0.5).clamp_min(0) / scale) * -torch.expm1(-1 / scale) / 2
        return -torch.log2(torch.where(v < 0.5, inside, outside).clamp_min(1e-9))


@dataclass(frozen=True)
class Loss:
    """What one batch costs; scalars with gradient where they have one."""

    total: Tensor
    rate: Tensor
    """Bits per pixel and band that counts."""
    distortion: Tensor
    """Mean squared error of standardised pixels that count."""


def rounded(y: Tensor) -> Tensor:
    """Round; the gradient passes as if nothing had happened."""
    return y + (y.round() - y).detach()


def bits(q: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Ideal code length of each latent under its discretised Gaussian, in bits."""
    v = (q - mean).abs()
    half = 0.5**0.5
    upper = torch.erfc((v - 0.5) * half / deviation)
    lower = torch.erfc((v + 0.5) * half / deviation)
    return -torch.log2((0.5 * (upper - lower)).clamp_min(1e-9))


def rate_distortion(
    model: TemporalTransformer,
    crops: Crops,
    level: Tensor,
    part: str,
    cheap: FactorizedPrior,
) -> Loss:
    """Loss of a batch at the compression settings ``level`` (B,).

    ``part`` "transform" codes with the cheap prior, "prior" leaves the pixels out of the loss
    (and of the work), "joint" is the whole.
    """
    config = model.config
    lam = config.rate_max ** (level.float() / (config.levels - 1))
    y = model.analysis(crops.pixels, level)
    q = rounded(y)
    noisy = y + torch.rand_like(y) - 0.5 if model.training else q
    if part == "transform":
        code_length = cheap(noisy, level)
        recon = model.reconstruct(q, level)
    else:
        # Only the transformer bears half precision; latents and means are too large for it.
        with torch.autocast(q.device.type, dtype=torch.bfloat16):
            mean, scale, z = model.prior(q, level)
        code_length = bits(noisy, mean, sigma(scale, config).clamp(0.05, 1000.0))
        recon = crops.pixels if part == "prior" else model.synthesis(q, z.float(), level)
    count = crops.weight.sum((1, 2, 3, 4)).clamp_min(1.0)
    rate = code_length.sum((1, 2, 3, 4)) / count
    error = ((recon - crops.pixels) ** 2 * crops.weight).sum((1, 2, 3, 4)) / count
    total = ((rate + lam * error) / lam.sqrt()).mean()
    return Loss(total, rate.mean(), error.mean())
