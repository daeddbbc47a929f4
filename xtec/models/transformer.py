"""The transformer: blocks of attention, and the heads for the distribution of every latent.

Module names are those of the published checkpoints. Letters as in `network`.

Below: config, windows. Above: network, prior.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xtec.models.config import WINDOW, ModelConfig
from xtec.models.windows import context_windows, shifted

LATENT_DIVISOR = 35.0
"""Latents enter the transformer divided by this."""


class Attention(nn.Module):
    """Multi-head attention with separate projections."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(d, d) for _ in range(4))

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f, x in ((self.q, query), (self.k, memory), (self.v, memory))
        )
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(mask, -torch.inf)
        out: Tensor = self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, hidden), nn.Linear(hidden, d)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Two attentions and two MLPs, pre-norm; without memory the second attends to itself too."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, hidden = config.d_model, config.d_model * config.mlp_ratio
        self.norm1a, self.norm1b, self.norm2a, self.norm2b = (
            nn.LayerNorm(d, eps=1e-6) for _ in range(4)
        )
        self.self_attention = Attention(d, config.heads)
        self.cross_attention = Attention(d, config.heads)
        self.mlp1, self.mlp2 = Mlp(d, hidden), Mlp(d, hidden)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        n = self.norm1a(x)
        x = x + self.self_attention(n, n, mask)
        x = x + self.mlp1(self.norm1b(x))
        n = self.norm2a(x)
        x = x + self.cross_attention(n, n if memory is None else memory)
        out: Tensor = x + self.mlp2(self.norm2b(x))
        return out


class Blocks(nn.Module):
    """A stack of blocks under the checkpoint's names."""

    def __init__(self, config: ModelConfig, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({f"encoder_layer_{i}": Block(config) for i in range(count)})

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        for block in self.layers.values():
            x = block(x, memory, mask)
        return x


class Position(nn.Module):
    """A learned vector per token."""

    def __init__(self, tokens: int, d: int) -> None:
        super().__init__()
        self._pos = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, tokens, d), std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        return x + self._pos


class Symbol(nn.Module):
    """The latents that stand before the first token."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.sym = nn.Parameter(torch.zeros(c))


def head(d: int, out: int) -> nn.Sequential:
    """Three linear layers with leaky ReLUs between."""
    return nn.Sequential(
        nn.Linear(d, d), nn.LeakyReLU(), nn.Linear(d, d), nn.LeakyReLU(), nn.Linear(d, out)
    )


class EntropyModel(nn.Module):
    """Distribution of every latent, given the frames before and the tokens before."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, d = config.latent_channels, config.d_model
        now, past = WINDOW**2, 4 * WINDOW**2
        self.encoder_sep = Blocks(config, config.layers_separate)
        self.encoder_joint = Blocks(config, config.layers_joint)
        self.decoder = Blocks(config, config.layers_decoder)
        self.learned_zero = Symbol(c)
        self.enc_position_sep = Position(past, d)
        self.enc_position_joint = Position(past * config.context_frames, d)
        self.dec_position = Position(now, d)
        self.post_embedding_layernorm = nn.LayerNorm(d, eps=1e-6)
        self.encoder_embedding, self.decoder_embedding = nn.Linear(c, d), nn.Linear(c, d)
        self.mean_head, self.scale_head = head(d, c), head(d, c)

    def embed(self, q: Tensor, embedding: nn.Linear) -> Tensor:
        """Latents [..., C] -> normalised embedding [..., D]."""
        x: Tensor = self.post_embedding_layernorm(embedding(q / LATENT_DIVISOR))
        return x

    def encode_frame(self, y: Tensor) -> Tensor:
        """Latents of frames [N, C, h, w] -> what the joint encoder needs of them [P, 64, D]."""
        # Windows overlap fourfold, so latents are embedded before they are cut out.
        x = self.embed(y.movedim(1, -1), self.encoder_embedding)
        x = context_windows(x.movedim(-1, 1))
        out: Tensor = self.encoder_sep(self.enc_position_sep(x))
        return out

    def decode(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Teacher-forced tokens [P, 16, C] -> features [P, 16, D]."""
        x = self.embed(shifted(tokens, self.learned_zero.sym), self.decoder_embedding)
        n = tokens.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool, device=tokens.device).triu(1)
        out: Tensor = self.decoder(self.dec_position(x), memory, mask)
        return out
