"""How many operations the matrix products and convolutions of one TEC-TT pass take.

Counted, not estimated: torch notes every product while the network runs on tensors without
numbers. A product of M x K by K x N is 2 M N K operations, whatever kind of number it is made of.

Below: xtec.models. Above: vs_terracodec.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from xtec.models.config import WINDOW, ModelConfig
from xtec.models.network import TemporalTransformer

TOKENS = WINDOW**2
"""Of a window."""


@dataclass(frozen=True)
class Products:
    """GFLOP of each part of the network for one frame."""

    analysis: float
    synthesis: float
    """With the dequantiser."""
    separate: float
    """A frame's encoder."""
    joint: float
    """The encoder of the context frames together."""
    memory: float
    """Keys and values of the context, for all blocks of the decoder."""
    decoder: float
    """Blocks and heads, all tokens in one pass."""
    cached: float
    """The same token by token: no score of a token with a later one."""

    def encode(self, frames: int) -> float:
        """One pass over a chunk; the first frame's context is known, the last frame is none's."""
        return frames * (self.analysis + self.decoder) + (frames - 1) * self.context

    def decode(self, frames: int) -> float:
        """Token by token with a cache."""
        return frames * (self.synthesis + self.cached) + (frames - 1) * self.context

    @property
    def context(self) -> float:
        """What a frame costs those that follow it."""
        return self.separate + self.joint + self.memory


def count(config: ModelConfig, height: int, width: int) -> Products:
    """Count for frames of height x width pixels."""
    with torch.device("meta"):
        network = TemporalTransformer(config)
        em = network.entropy_model
        h, w = height // config.stride, width // config.stride
        windows = h * w // TOKENS
        c, d = config.latent_channels, config.d_model
        pixels = torch.empty(1, len(config.bands), height, width)
        q, z = torch.empty(1, c, h, w), torch.empty(1, d, h, w)
        context = torch.empty(windows, 4 * TOKENS * config.context_frames, d)
        tokens, features = torch.empty(windows, TOKENS, c), torch.empty(windows, TOKENS, d)
        blocks = [b.cross_attention for b in em.decoder.layers.values()]
        memory = sum(_gflop(f, context) for b in blocks for f in (b.k, b.v))
        decoder = _gflop(em.decode, tokens, context) - memory
        decoder += _gflop(em.mean_head, features) + _gflop(em.scale_head, features)
        # Scores and sums: two products of 16 x 16 for each window, block and channel.
        later = windows * len(blocks) * 2 * 2 * d * (TOKENS * (TOKENS - 1) // 2) / 1e9
        return Products(
            analysis=_gflop(network.analysis, pixels),
            synthesis=_gflop(network.synthesis, q, z),
            separate=_gflop(em.encode_frame, q),
            joint=_gflop(em.encoder_joint, context),
            memory=memory,
            decoder=decoder,
            cached=decoder - later,
        )


@torch.inference_mode()
def _gflop(function: nn.Module, *inputs: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops() / 1e9
