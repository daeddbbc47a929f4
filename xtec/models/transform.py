"""Pixels to latents and back: the convolutions of analysis and synthesis.

Module names are those of the published checkpoints. Letters as in `network`.

Below: config. Above: network.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from xtec.models.config import ModelConfig


class ResidualUnit(nn.Module):
    """Bottleneck 1x1, 3x3, 1x1 with a skip."""

    def __init__(self, n: int) -> None:
        super().__init__()
        half = n // 2
        self.conv = nn.Sequential(
            nn.Conv2d(n, half, 1), nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(half, n, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out.add_(x).relu_()


class AttentionGate(nn.Module):
    """Residual units, gated by a sigmoid of residual units."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv_a = nn.Sequential(*(ResidualUnit(n) for _ in range(3)))
        self.conv_b = nn.Sequential(*(ResidualUnit(n) for _ in range(3)), nn.Conv2d(n, n, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_a(x) * self.conv_b(x).sigmoid_()
        return out.add_(x)


class Stack(nn.Module):
    """The convolutions of one direction."""

    def __init__(self, config: ModelConfig, *, synthesis: bool) -> None:
        super().__init__()
        widths = (len(config.bands), *config.channels)
        layers: list[nn.Module] = []
        last = len(config.channels)
        for stage in range(1, last + 1):
            units: list[nn.Module] = []
            if stage < last:
                units = [ResidualUnit(widths[stage]) for _ in range(config.residual_blocks)]
            gate: list[nn.Module] = []
            if config.attention and stage in {2, last}:
                gate = [AttentionGate(widths[stage])]
            if synthesis:
                layers = [
                    *gate, *units,
                    nn.ConvTranspose2d(widths[stage], widths[stage - 1], 5, 2, 2, 1), *layers,
                ]  # fmt: skip
            else:
                layers += [nn.Conv2d(widths[stage - 1], widths[stage], 5, 2, 2), *units, *gate]
        self.transforms = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.transforms(x)
        return out


class Transform(nn.Module):
    """Pixels to latents and back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.analysis_transform = Stack(config, synthesis=False)
        self.synthesis_transform = Stack(config, synthesis=True)

    def analysis(self, x: Tensor) -> Tensor:
        """[N, bands, y, x] standardised -> [N, C, h, w]."""
        y: Tensor = self.analysis_transform(x)
        return y

    def synthesis(self, y: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, bands, y, x] standardised."""
        x: Tensor = self.synthesis_transform(y)
        return x


class ContextConvolutions(nn.Module):
    """Two 3x3 convolutions with a leaky ReLU after both, and a skip."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(c, c, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x)))) + x


class Dequantizer(nn.Module):
    """The decoder's features to a correction of the quantised latents."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config.latent_channels
        self.process_conv = nn.Sequential(
            nn.Conv2d(config.d_model, c, 1), nn.LeakyReLU(), ContextConvolutions(c)
        )

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.process_conv(z)
        return out
