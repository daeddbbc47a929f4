"""The exact prior: the transformer's probabilities as integers, the same on every machine.

It evaluates the weights of `network` in the arithmetic of `exact`. The encoder asks for all
frames at once (`ExactPrior.encode`), the decoder walks through them token by token with a cache
(`ExactPrior.decode`); windows, chunks and frames are batched at will. Both give the same bits,
because every number depends on its own row of inputs alone.

What leaves this file are integers: where a latent's distribution is centred, and which row of the
frequency tables describes it.

Letters as in `network`. Tensors hold fixed-point numbers unless they are called latents.

Below: exact, network, windows, coding.tables. Above: engine.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from xtec.models.config import WINDOW, ModelConfig
from xtec.models.distribution import Distribution, Rows
from xtec.models.exact import (
    ONE,
    Arithmetic,
    Keys,
    LayerNorm,
    Linear,
    add,
    fixed,
    leaky_relu,
)
from xtec.models.network import TemporalTransformer
from xtec.models.transformer import LATENT_DIVISOR, Attention, Block, Blocks
from xtec.models.windows import context_windows, shifted, unwindows, windows

HEAD_LIMIT = 8191
"""Operands of the heads: means are large numbers with a unit that matters."""


class _Attention:
    """Attention layers share their inputs: queries, keys and values in one product."""

    def __init__(self, a: Arithmetic, layer: Attention, limit: int) -> None:
        self.arithmetic, self.heads = a, layer.heads
        d = layer.q.out_features
        self.qkv = Linear(a, layer.q, layer.k, layer.v, limit=limit)
        self.q, self.kv = self.qkv.outputs(0, d), self.qkv.outputs(d, 3 * d)
        self.proj = Linear(a, layer.proj, limit=limit)

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[P, n, parts * D] -> parts of [P, heads, n, hd]."""
        x = x.unflatten(-1, (parts, self.heads, -1))
        return x.permute(2, 0, 3, 1, 4).contiguous().unbind()

    def memory(self, x: Tensor) -> Keys:
        return Keys.of(*self._split(self.kv(x), 2))

    def itself(
        self, x: Tensor, mask: Tensor | None = None, past: Keys | None = None
    ) -> tuple[Tensor, Keys]:
        """Attention of tokens to themselves and to a cache; the grown cache."""
        q, k, v = self._split(self.qkv(x), 3)
        keys = Keys.of(k, v)
        keys = keys if past is None else past.then(keys)
        return self._out(q, keys, mask), keys

    def to(self, x: Tensor, keys: Keys) -> Tensor:
        """Attention of tokens to a memory."""
        (q,) = self._split(self.q(x), 1)
        return self._out(q, keys, None)

    def _out(self, q: Tensor, keys: Keys, mask: Tensor | None) -> Tensor:
        out = self.arithmetic.attend(q, keys, mask)
        return self.proj(out.transpose(1, 2).flatten(2))


class _Block:
    """One block of the transformer."""

    def __init__(self, a: Arithmetic, block: Block, limit: int) -> None:
        norms = block.norm1a, block.norm1b, block.norm2a, block.norm2b
        self.norm1a, self.norm1b, self.norm2a, self.norm2b = (LayerNorm(a, n) for n in norms)
        self.self_attention = _Attention(a, block.self_attention, limit)
        self.cross_attention = _Attention(a, block.cross_attention, limit)
        self.mlp1, self.mlp2 = (
            (Linear(a, m.fc1, limit=limit), Linear(a, m.fc2, limit=limit))
            for m in (block.mlp1, block.mlp2)
        )
        self.gelu = a.gelu

    def __call__(
        self,
        x: Tensor,
        memory: Keys | None = None,
        mask: Tensor | None = None,
        past: Keys | None = None,
    ) -> tuple[Tensor, Keys]:
        """Tokens after the block, and the cache of its self-attention."""
        out, keys = self.self_attention.itself(self.norm1a(x), mask, past)
        x = add(x, out)
        x = add(x, self._mlp(self.mlp1, self.norm1b(x)))
        n = self.norm2a(x)
        cross = self.cross_attention
        x = add(x, cross.itself(n)[0] if memory is None else cross.to(n, memory))
        return add(x, self._mlp(self.mlp2, self.norm2b(x))), keys

    def _mlp(self, layers: tuple[Linear, Linear], x: Tensor) -> Tensor:
        return layers[1](self.gelu(layers[0](x)))


class ExactPrior:
    """The prior of one network on one device.

    Parameters
    ----------
    network : TemporalTransformer
        Its weights are copied; the network itself is not kept.
    arithmetic : Arithmetic
        Chosen by `exact.select`.

    Raises
    ------
    ModelError
        A layer is too wide for its sums to be exact.
    """

    def __init__(self, network: TemporalTransformer, arithmetic: Arithmetic) -> None:
        self.config: ModelConfig = network.config
        self.arithmetic = a = arithmetic
        self.limit = 2 ** (self.config.prior_bits - 1) - 1
        em = network.entropy_model

        def blocks(stack: Blocks) -> list[_Block]:
            layers = stack.layers.values()
            return [_Block(a, b, self.limit) for b in layers if isinstance(b, Block)]

        def head(layers: torch.nn.Sequential) -> list[Linear]:
            linear = (x for x in layers if isinstance(x, torch.nn.Linear))
            return [Linear(a, x, limit=HEAD_LIMIT) for x in linear]

        def weight(x: Tensor) -> Tensor:
            return fixed(x.to(a.device))

        self.separate, self.joint = blocks(em.encoder_sep), blocks(em.encoder_joint)
        self.blocks = blocks(em.decoder)
        self.mean_head, self.scale_head = head(em.mean_head), head(em.scale_head)
        self.norm = LayerNorm(a, em.post_embedding_layernorm)
        self.separate_position = weight(em.enc_position_sep._pos)
        self.joint_position = weight(em.enc_position_joint._pos)
        self.position = weight(em.dec_position._pos)
        self.encoder_embedding, self.decoder_embedding = (
            Linear(a, x, limit=self.limit, unit=1 / LATENT_DIVISOR)
            for x in (em.encoder_embedding, em.decoder_embedding)
        )
        # What stands before the first frame and the first token is a real vector, not latents.
        before = network._temporal_pad_token_maker.weight[:, :, 0, 0], em.learned_zero.sym[None]
        self.pad, self.first = (
            self.norm(Linear(a, layer, limit=self.limit)(weight(x.double() / LATENT_DIVISOR)))
            for layer, x in zip((em.encoder_embedding, em.decoder_embedding), before, strict=True)
        )
        self.rows = Rows(self.config.scale_map, a.device)

    @torch.inference_mode()
    def encode(self, q: Tensor) -> tuple[Distribution, Tensor]:
        """Distributions of the latents of whole chunks, all tokens of a frame at once.

        Parameters
        ----------
        q : integer values, shape (B, T, C, h, w)
            Latents on this prior's device; h and w are multiples of 4.

        Returns
        -------
        distribution : of shape (B, T, P, 16, C)
            In coding order: frame, token, window, channel is axis 1, 3, 2, 4.
        z : float32, shape (B, T, D, h, w)
            The decoder's features, for the synthesis.
        """
        b, t, _, h, w = q.shape
        q = q.float()
        mask = torch.ones(WINDOW**2, WINDOW**2, dtype=torch.bool, device=q.device).triu(1)
        past: list[Tensor] = []
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for i in range(t):
            tokens = windows(q[:, i])
            embedded = self._embed(self.decoder_embedding, tokens)
            x = shifted(embedded, self.first) + self.position
            for block, memory in zip(self.blocks, self._memory(past, len(tokens)), strict=True):
                x, _ = block(x, memory, mask)
            d = self._distribution(x)
            found.append((d.centre, d.row, x))
            if i + 1 < t:
                past = [*past[-1:], self._encode_frame(q[:, i])]
        centre, row, z = (torch.stack(x, 1) for x in zip(*found, strict=True))
        # windows of all chunks, frames -> chunks, frames, windows
        centre, row = (x.unflatten(0, (b, -1)).transpose(1, 2) for x in (centre, row))
        z = unwindows(z.transpose(0, 1).flatten(0, 1), h, w).unflatten(0, (t, b)).transpose(0, 1)
        return Distribution(centre, row), z / ONE

    @torch.inference_mode()
    def decode(
        self, read: Callable[[Tensor], Tensor], shape: tuple[int, int, int, int]
    ) -> tuple[Tensor, Tensor]:
        """Latents of whole chunks, token by token.

        Parameters
        ----------
        read : callable
            Takes the rows of one token of all windows, int32 (B, P, C), and gives the decoded
            symbols, int32 of the same shape.
        shape : (B, T, h, w)
            Chunks, frames, latent rows and columns.

        Returns
        -------
        q : float32, integer values, shape (B, T, C, h, w)
        z : float32, shape (B, T, D, h, w)
        """
        b, t, h, w = shape
        past: list[Tensor] = []
        frames, features = [], []
        for i in range(t):
            tokens, z = self._decode_frame(read, past, (b, h * w // WINDOW**2))
            q = unwindows(tokens, h, w)
            frames.append(q)
            features.append(unwindows(z, h, w))
            if i + 1 < t:
                past = [*past[-1:], self._encode_frame(q)]
        return torch.stack(frames, 1), torch.stack(features, 1) / ONE

    def _decode_frame(
        self, read: Callable[[Tensor], Tensor], past: list[Tensor], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """One frame of (chunks, windows): tokens and features, [P, 16, C] and [P, 16, D]."""
        count = size[0] * size[1]
        memory = self._memory(past, count)
        shape = count, WINDOW**2, self.config.latent_channels
        tokens = torch.zeros(shape, device=self.arithmetic.device)
        caches: list[Keys | None] = [None] * len(self.blocks)
        features = []
        for j in range(WINDOW**2):
            here = slice(j, j + 1)
            x = self._embed(self.decoder_embedding, tokens[:, j - 1 : j]) if j else self.first
            x = (x + self.position[:, here]).expand(count, 1, -1)
            for n, block in enumerate(self.blocks):
                x, caches[n] = block(x, memory[n], None, caches[n])
            d = self._distribution(x)
            symbols = read(d.row[:, 0].unflatten(0, size))
            tokens[:, j] = (d.centre[:, 0] + symbols.flatten(0, 1)).float()
            features.append(x)
        return tokens, torch.cat(features, 1)

    def _embed(self, embedding: Linear, q: Tensor) -> Tensor:
        """Latents [..., C] -> normalised embedding [..., D]."""
        return self.norm(embedding(q))

    def _encode_frame(self, q: Tensor) -> Tensor:
        """Latents of one frame [B, C, h, w] -> what the joint encoder needs of it [P, 64, D]."""
        x = self._embed(self.encoder_embedding, q.movedim(1, -1))
        return self._separate(context_windows(x.movedim(-1, 1)))

    def _separate(self, x: Tensor) -> Tensor:
        x = x + self.separate_position
        for block in self.separate:
            x, _ = block(x)
        return x

    def _memory(self, past: list[Tensor], count: int) -> list[Keys]:
        """Keys and values of the last two frames, for each block of the decoder.

        The second frame sees the first twice, the first one sees what stands before it.
        """
        if past:
            return self._join(past[0], past[-1])
        return [keys.expand(count) for keys in self._first_memory]

    @cached_property
    def _first_memory(self) -> list[Keys]:
        encoded = self._separate(self.pad.expand(1, 4 * WINDOW**2, -1))
        return self._join(encoded, encoded)

    def _join(self, older: Tensor, newer: Tensor) -> list[Keys]:
        x = torch.cat([older, newer], dim=1) + self.joint_position
        for block in self.joint:
            x, _ = block(x)
        return [block.cross_attention.memory(x) for block in self.blocks]

    def _distribution(self, z: Tensor) -> Distribution:
        mean, scale = (_head(layers, z) for layers in (self.mean_head, self.scale_head))
        return self.rows(mean.double(), scale)


def tokens(q: Tensor) -> Tensor:
    """Latents (B, T, C, h, w) in the layout of a distribution of whole chunks, int32."""
    found: Tensor = windows(q.flatten(0, 1)).unflatten(0, (*q.shape[:2], -1))
    return found.int()


def _head(layers: list[Linear], x: Tensor) -> Tensor:
    return layers[2](leaky_relu(layers[1](leaky_relu(layers[0](x)))))
