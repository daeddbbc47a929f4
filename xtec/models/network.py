"""TEC-TT in floating point: the network from pixels to probabilities and back.

Module names are those of the published checkpoints, so that a state dict loads by name.
Letters: B chunks, T frames, C latent channels, h w latent rows and columns, D model width,
P windows of all chunks and frames. Source: TerraCodec 0.3.1 and VCT (Mentzer et al. 2022).

Only analysis and synthesis of this file serve coding; the probabilities a stream is coded with
come from `prior`, which evaluates the same weights in exact arithmetic.

Below: transform, transformer, windows, config. Above: prior, weights.
"""

import torch
from torch import Tensor, nn

from xtec.models.config import WINDOW, ModelConfig
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

    def analysis(self, x: Tensor) -> Tensor:
        """Standardised frames [N, bands, y, x] -> latents before rounding [N, C, h, w]."""
        return self.transform.analysis(x)

    def synthesis(self, q: Tensor, z: Tensor) -> Tensor:
        """Rounded latents [N, C, h, w], features [N, D, h, w] -> standardised frames."""
        return self.transform.synthesis(q + self._dequantizer(z))

    def prior(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher-forced distribution of the latents of whole sequences.

        Parameters
        ----------
        q : float, shape (B, T, C, h, w)
            Rounded latents; h and w are multiples of 4.

        Returns
        -------
        mean, scale : float, shape (B, T, C, h, w)
            Mean, and the scale head's raw output (see `sigma`).
        z : float, shape (B, T, D, h, w)
            The decoder's features, for `synthesis`.
        """
        em = self.entropy_model
        b, t, c, h, w = q.shape
        pad = self._temporal_pad_token_maker.weight.expand(b, c, h, w)
        frames = torch.cat([pad[:, None], q[:, :-1]], dim=1)  # frame t - 1 of each frame t
        per_window = h * w // WINDOW**2
        encoded = em.encode_frame(frames.flatten(0, 1)).unflatten(0, (b, t, per_window))
        # Frames 0 and 1 have one frame to look back on; they see it twice.
        older = [encoded[:, max(i - 1, 0) if i != 1 else 1] for i in range(t)]
        context = torch.cat([torch.stack(older, 1), encoded], dim=-2)
        memory = em.encoder_joint(em.enc_position_joint(context.flatten(0, 2)))
        z = em.decode(windows(q.flatten(0, 1)), memory)
        found = em.mean_head(z), em.scale_head(z), z
        mean, scale, z = (unwindows(x, h, w).unflatten(0, (b, t)) for x in found)
        return mean, scale, z


def sigma(scale: Tensor) -> Tensor:
    """Standard deviation from the scale head's raw output."""
    return torch.where(scale > 0, scale + 1, 1 / (1 - scale.clamp(max=0)))
