"""TEC-TT in floating point: the trainable network, from pixels to probabilities and back.

Module names are those of the published checkpoints, so that a state dict loads by name.
Letters: B chunks, T frames, C latent channels, h w latent rows and columns, D model width,
P windows of all chunks and frames. Source: TerraCodec 0.3.1 and VCT (Mentzer et al. 2022).

Only analysis and synthesis of this file serve coding; the probabilities a stream is coded with
come from `prior`, which evaluates the same weights in exact arithmetic.

Below: config, windows. Above: prior, weights, train.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xtec.models.config import LEVELS_PER_KNOT, WINDOW, ModelConfig
from xtec.models.windows import context_windows, neighbours, shifted, unwindows, windows

LATENT_DIVISOR = 35.0
REFERENCES = 4
"""Latents a mean may lean on: one and two frames ago, left and above in the window."""


class ResidualUnit(nn.Module):
    """Bottleneck 1x1, 3x3, 1x1 with a skip."""

    def __init__(self, n: int) -> None:
        super().__init__()
        half = n // 2
        self.conv = nn.Sequential(
            nn.Conv2d(n, half, 1), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1), nn.ReLU(),
            nn.Conv2d(half, n, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class AttentionGate(nn.Module):
    """Residual units, gated by a sigmoid of residual units."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv_a = nn.Sequential(*(ResidualUnit(n) for _ in range(3)))
        self.conv_b = nn.Sequential(*(ResidualUnit(n) for _ in range(3)), nn.Conv2d(n, n, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_a(x) * torch.sigmoid(self.conv_b(x)) + x
        return out


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
    """Pixels to latents and back: convolutions, beside a linear patch transform where asked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.stride = config.stride
        self.analysis_transform = Stack(config, synthesis=False)
        self.synthesis_transform = Stack(config, synthesis=True)
        self.linear = None
        if config.linear_path:
            shape = config.latent_channels, len(config.bands), config.stride, config.stride
            self.linear = nn.Parameter(torch.zeros(shape))

    def analysis(self, x: Tensor) -> Tensor:
        """[N, bands, y, x] standardised -> [N, C, h, w]."""
        y: Tensor = self.analysis_transform(x)
        return y if self.linear is None else y + F.conv2d(x, self.linear, stride=self.stride)

    def synthesis(self, y: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, bands, y, x] standardised."""
        x: Tensor = self.synthesis_transform(y)
        if self.linear is None:
            return x
        return x + F.conv_transpose2d(y, self.linear, stride=self.stride)


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


class PadToken(nn.Module):
    """The latents of the frame before the first."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, c, 1, 1)))


def head(d: int, out: int) -> nn.Sequential:
    """Three linear layers with leaky ReLUs between."""
    return nn.Sequential(
        nn.Linear(d, d), nn.LeakyReLU(), nn.Linear(d, d), nn.LeakyReLU(), nn.Linear(d, out)
    )


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
        layers: list[nn.Module] = [nn.Conv2d(config.d_model, config.latent_channels, 1)]
        if config.refine == "conv":
            layers += [nn.LeakyReLU(), ContextConvolutions(config.latent_channels)]
        self.process_conv = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.process_conv(z)
        return out


class EntropyModel(nn.Module):
    """Distribution of every latent, given the frames before and the tokens before."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
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
        self.gates = nn.Linear(d, REFERENCES * c) if config.references else None
        self.rate = nn.Parameter(torch.zeros(config.rate_knots, d)) if config.rate_knots else None

    def latent_input(self, q: Tensor) -> Tensor:
        """Latents as the embeddings see them."""
        if self.config.latent_input == "linear":
            return q / LATENT_DIVISOR
        return q.sign() * torch.log2(1 + q.abs())

    def embed(self, q: Tensor, embedding: nn.Linear) -> Tensor:
        """Latents [..., C] -> normalised embedding [..., D]."""
        x: Tensor = self.post_embedding_layernorm(embedding(self.latent_input(q)))
        return x

    def encode_frame(self, y: Tensor, rate: Tensor | float) -> Tensor:
        """Latents of frames [N, C, h, w] -> what the joint encoder needs of them [P, 64, D]."""
        # Windows overlap fourfold, so latents are embedded before they are cut out.
        x = self.embed(y.movedim(1, -1), self.encoder_embedding)
        x = context_windows(x.movedim(-1, 1)) + rate
        out: Tensor = self.encoder_sep(self.enc_position_sep(x))
        return out

    def decode(self, tokens: Tensor, memory: Tensor, rate: Tensor | float) -> Tensor:
        """Teacher-forced tokens [P, 16, C] -> features [P, 16, D]."""
        x = self.embed(shifted(tokens, self.learned_zero.sym), self.decoder_embedding) + rate
        n = tokens.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool, device=tokens.device).triu(1)
        out: Tensor = self.decoder(self.dec_position(x), memory, mask)
        return out

    def distribution(
        self, z: Tensor, tokens: Tensor, before: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Mean and raw scale [P, 16, C] from features and the latents that means lean on."""
        # Means reach hundreds with a unit that matters: never in half precision.
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            mean: Tensor = self.mean_head(z)
            if self.gates is not None:
                gates = self.gates(z).unflatten(-1, (REFERENCES, -1))
                mean = mean + sum(
                    gates[..., i, :] * reference
                    for i, reference in enumerate((*before, *neighbours(tokens)))
                )
            return mean, self.scale_head(z)


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
