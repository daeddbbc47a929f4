"""Latents drawn from the distribution that a TEC-TT network itself predicts.

No predictor beats the one that the latents were drawn from, so that every error of an approximation
of it costs bits: there is no harder test of one.

Below: xtec.models. Above: prior_cost.
"""

import torch
from torch import Tensor

from xtec.models.config import WINDOW
from xtec.models.network import TemporalTransformer, sigma
from xtec.models.windows import unwindows


@torch.inference_mode()
def draw(
    network: TemporalTransformer, frames: int, height: int, width: int, seed: int = 0
) -> Tensor:
    """Draw frames of latents, token by token as a decoder goes through them.

    Parameters
    ----------
    network : TemporalTransformer
        In floats.
    frames, height, width : int
        Height and width in latents, multiples of 4 and at least 8.
    seed : int

    Returns
    -------
    float32, integer values, shape (1, frames, channel, height, width)
    """
    random = torch.Generator().manual_seed(seed)
    em = network.entropy_model
    shape = 1, network.config.latent_channels, height, width
    past = [em.encode_frame(network._temporal_pad_token_maker.weight.expand(shape))]  # noqa: SLF001
    drawn: list[Tensor] = []
    for _ in range(frames):
        context = torch.cat([past[0], past[-1]], dim=1)
        memory = em.encoder_joint(em.enc_position_joint(context))
        tokens = torch.zeros(len(memory), WINDOW**2, shape[1])
        for j in range(WINDOW**2):
            z = em.decode(tokens, memory)[:, j]
            noise = torch.randn(tokens[:, j].shape, generator=random)
            tokens[:, j] = (em.mean_head(z) + noise * sigma(em.scale_head(z))).round()
        drawn.append(unwindows(tokens, height, width))
        encoded = em.encode_frame(drawn[-1])
        # What stands before the first frame is left behind with it.
        past = [past[-1], encoded] if len(drawn) > 1 else [encoded]
    return torch.stack(drawn, 1)
