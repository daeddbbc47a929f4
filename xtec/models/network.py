"""TEC-TT in floating point: the trainable network, from pixels to probabilities and back.

Module names are those of the published checkpoints, so that a state dict loads by name.
Letters: B chunks, T frames, C latent channels, h w latent rows and columns, D model width,
P windows of all chunks and frames. Source: TerraCodec 0.3.1 and VCT (Mentzer et al. 2022).

Only analysis and synthesis of this file serve coding; the probabilities a stream is coded with
come from `prior`, which evaluates the same weights in exact arithmetic.

Below: transform, transformer, windows, config. Above: prior, weights, train.
"""

import torch
from torch import Tensor, nn

from xtec.models.config import LEVELS_PER_KNOT, WINDOW, ModelConfig
from xtec.models.transform import Dequantizer, Transform
from xtec.models.transformer import EntropyModel
from xtec.models.windows import unwindows, windows


class PadToken(nn.Module):
    """The latents of the frame before the first."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, c, 1, 1)))


class TemporalTransformer(nn.Module):
    """The whole network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transform = Transform(config)
        self.entropy_model = EntropyModel(config)
        self._temporal_pad_token_maker = PadToken(config.latent_channels)
        self._dequantizer = Dequantizer(config)
        self.log_gain = None
        if config.rate_knots:
            self.log_gain = nn.Parameter(torch.zeros(config.rate_knots, config.latent_channels))

    def gain(self, level: Tensor) -> Tensor:
        """Levels [B] -> what latents are multiplied by before rounding [B, C]."""
        if self.log_gain is None:
            return torch.ones(len(level), self.config.latent_channels, device=level.device)
        return interpolate(self.log_gain, level).exp()

    def rate(self, level: Tensor) -> Tensor | float:
        """Levels [B] -> rate embedding [B, D]; 0 where the model has one rate."""
        knots = self.entropy_model.rate
        return 0.0 if knots is None else interpolate(knots, level)

    def analysis(self, x: Tensor, level: Tensor) -> Tensor:
        """Standardised frames [B, T, bands, y, x] -> latents before rounding [B, T, C, h, w]."""
        y: Tensor = self.transform.analysis(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return y * self.gain(level)[:, None, :, None, None]

    def synthesis(self, q: Tensor, z: Tensor, level: Tensor) -> Tensor:
        """Rounded latents [B, T, C, h, w], features [B, T, D, h, w] -> standardised frames."""
        correction = self._dequantizer(z.flatten(0, 1)).unflatten(0, q.shape[:2])
        return self.reconstruct(q + correction, level)

    def reconstruct(self, y: Tensor, level: Tensor) -> Tensor:
        """Latents [B, T, C, h, w] on the scale of ``level`` -> standardised frames."""
        y = y / self.gain(level)[:, None, :, None, None]
        x: Tensor = self.transform.synthesis(y.flatten(0, 1)).unflatten(0, y.shape[:2])
        return x

    def prior(self, q: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher-forced distribution of the latents of whole sequences.

        Parameters
        ----------
        q : float, shape (B, T, C, h, w)
            Rounded latents; h and w are multiples of 4.
        level : int or float, shape (B,)
            Compression setting of each sequence.

        Returns
        -------
        mean, scale : float, shape (B, T, C, h, w)
            Mean, and the scale head's raw output (see ``ModelConfig.scale_map``).
        z : float, shape (B, T, D, h, w)
            The decoder's features, for `synthesis`.
        """
        em = self.entropy_model
        b, t, c, h, w = q.shape
        pad = self._temporal_pad_token_maker.weight.expand(b, c, h, w)
        frames = torch.cat([pad[:, None], q[:, :-1]], dim=1)  # frame t - 1 of each frame t
        per_window = h * w // WINDOW**2
        rate = self.rate(level)
        if isinstance(rate, Tensor):
            rate = rate.repeat_interleave(t * per_window, dim=0)[:, None]
        encoded = em.encode_frame(frames.flatten(0, 1), rate).unflatten(0, (b, t, per_window))
        # Frames 0 and 1 have one frame to look back on; they see it twice.
        older = [encoded[:, max(i - 1, 0) if i != 1 else 1] for i in range(t)]
        context = torch.cat([torch.stack(older, 1), encoded], dim=-2)
        memory = em.encoder_joint(em.enc_position_joint(context.flatten(0, 2)))
        tokens = windows(q.flatten(0, 1))
        z = em.decode(tokens, memory, rate)
        zero = torch.zeros_like(q[:, :1])
        once = torch.cat([zero, q[:, :-1]], dim=1)
        twice = torch.cat([once[:, :2], q[:, :-2]], dim=1)[:, :t]
        before = windows(once.flatten(0, 1)), windows(twice.flatten(0, 1))
        mean, scale = em.distribution(z, tokens, before)
        mean, scale, z = (unwindows(x, h, w).unflatten(0, (b, t)) for x in (mean, scale, z))
        return mean, scale, z


def interpolate(knots: Tensor, level: Tensor) -> Tensor:
    """Linear interpolation between rows of ``knots`` [K, X] at ``level`` [B] -> [B, X]."""
    position = level.to(knots.dtype) / LEVELS_PER_KNOT
    below = position.floor().clamp(0, len(knots) - 2)
    i = below.long()
    fraction = (position - below)[:, None]
    return knots[i] * (1 - fraction) + knots[i + 1] * fraction


def sigma(scale: Tensor, config: ModelConfig) -> Tensor:
    """Standard deviation from the scale head's raw output."""
    if config.scale_map == "log2":
        return torch.exp2(scale)
    return torch.where(scale > 0, scale + 1, 1 / (1 - scale.clamp(max=0)))
