"""The exact prior: the transformer's probabilities as integers, the same on every machine.

It evaluates the weights of `network` in the arithmetic of `exact`. The encoder asks for all
frames at once (`ExactPrior.encode`), the decoder walks through them token by token with a cache
(`ExactPrior.decode`); windows, chunks and frames are batched at will. Both give the same bits,
because every number depends on its own row of inputs alone.

What leaves this file are integers: where a latent's distribution is centred, and which row of the
frequency tables describes it.

Letters as in `network`. Tensors hold fixed-point numbers unless they are called latents.

Below: exact_blocks, network, windows, distribution, threads. Above: temporal_model.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor, nn

from xtec.models import threads
from xtec.models.arithmetic import Arithmetic
from xtec.models.config import WINDOW, ModelConfig
from xtec.models.distribution import Distribution, Rows
from xtec.models.exact import ONE, Keys, fixed, leaky_relu
from xtec.models.exact_blocks import DecoderBlock, EncoderBlock
from xtec.models.exact_layers import LayerNorm, Linear
from xtec.models.network import TemporalTransformer
from xtec.models.transformer import LATENT_DIVISOR, Block, Blocks
from xtec.models.windows import context_windows, shifted, unwindows, windows

Kind = TypeVar("Kind", EncoderBlock, DecoderBlock)

HEAD_LIMIT = 8191
"""Operands of the heads: means are large numbers with a unit that matters."""
WINDOWS_AT_ONCE = 4
"""Windows of one pass on a CPU: more only take memory."""


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

        def blocks(kind: type[Kind], stack: Blocks) -> list[Kind]:
            layers = stack.layers.values()
            return [kind(a, b, self.limit) for b in layers if isinstance(b, Block)]

        def head(layers: nn.Sequential) -> list[Linear]:
            linear = (x for x in layers if isinstance(x, nn.Linear))
            return [Linear(a, x, limit=HEAD_LIMIT) for x in linear]

        def weight(x: Tensor) -> Tensor:
            return fixed(x.to(a.device))

        self.separate = blocks(EncoderBlock, em.encoder_sep)
        self.joint = blocks(EncoderBlock, em.encoder_joint)
        self.blocks = blocks(DecoderBlock, em.decoder)
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
        now = windows(q.flatten(0, 1)).unflatten(0, (b, t, -1)).transpose(1, 2).flatten(0, 1)
        before = [self._context(q[:, i]) for i in range(t - 1)]
        _ = self._first_memory  # before the threads, which would each make it

        def some(here: slice) -> list[tuple[Tensor, Tensor, Tensor]]:
            return self._encode(now[here], [x[here] for x in before])

        parts = threads.spread(some, self._parts(len(now)))
        frames = [
            [torch.cat(x) for x in zip(*frame, strict=True)] for frame in zip(*parts, strict=True)
        ]
        centre, row, z = (torch.stack(x, 1) for x in zip(*frames, strict=True))
        # windows of all chunks, frames -> chunks, frames, windows
        centre, row = (x.unflatten(0, (b, -1)).transpose(1, 2) for x in (centre, row))
        z = unwindows(z.transpose(0, 1).flatten(0, 1), h, w).unflatten(0, (t, b)).transpose(0, 1)
        return Distribution(centre, row), z / ONE

    def _parts(self, count: int) -> list[slice]:
        """Windows that are computed together: all on a GPU, a share for each thread of a CPU."""
        size = count
        if self.arithmetic.device.type == "cpu":
            size = min(WINDOWS_AT_ONCE, -(-count // threads.count()))
        return [slice(begin, begin + size) for begin in range(0, count, size)]

    def _encode(self, tokens: Tensor, before: list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Centre, row and features of each frame of some windows.

        ``tokens`` are theirs in all frames, [P, T, 16, C], ``before`` what surrounds them in
        each frame but the last.
        """
        memory: list[Keys] = self._first_memory
        older: Tensor | None = None
        found = []
        for i in range(tokens.shape[1]):
            if i:
                older, memory = self._look_back(older, before[i - 1])
            embedded = self._embed(self.decoder_embedding, tokens[:, i])
            x = shifted(embedded, self.first) + self.position
            for block, keys in zip(self.blocks, memory, strict=True):
                x, _ = block(x, keys, causal=True)
            d = self._distribution(x)
            found.append((d.centre, d.row, x))
        return found

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
        size = b, h * w // WINDOW**2
        memory: list[Keys] = self._first_memory
        older: Tensor | None = None
        frames: list[Tensor] = []
        features = []
        for i in range(t):
            if i:
                older, memory = self._look_back_together(older, self._context(frames[-1]))
            tokens, z = self._decode_frame(read, memory, size)
            frames.append(unwindows(tokens, h, w))
            features.append(unwindows(z, h, w))
        return torch.stack(frames, 1), torch.stack(features, 1) / ONE

    def _decode_frame(
        self, read: Callable[[Tensor], Tensor], memory: list[Keys], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """One frame of (chunks, windows): tokens and features, [P, 16, C] and [P, 16, D]."""
        count = size[0] * size[1]
        shape = count, WINDOW**2, self.config.latent_channels
        tokens = torch.zeros(shape, device=self.arithmetic.device)
        caches: list[Keys | None] = [None] * len(self.blocks)
        features = []
        for j in range(WINDOW**2):
            here = slice(j, j + 1)
            x = self._embed(self.decoder_embedding, tokens[:, j - 1 : j]) if j else self.first
            x = (x + self.position[:, here]).expand(count, 1, -1)
            for n, block in enumerate(self.blocks):
                x, caches[n] = block(x, memory[n], caches[n])
            d = self._distribution(x)
            symbols = read(d.row[:, 0].unflatten(0, size))
            tokens[:, j] = (d.centre[:, 0] + symbols.flatten(0, 1)).float()
            features.append(x)
        return tokens, torch.cat(features, 1)

    def _embed(self, embedding: Linear, q: Tensor) -> Tensor:
        """Latents [..., C] -> normalised embedding [..., D]."""
        return self.norm(embedding(q))

    def _context(self, q: Tensor) -> Tensor:
        """Latents of one frame [B, C, h, w] -> what surrounds its windows, [P, 64, D]."""
        x = self._embed(self.encoder_embedding, q.movedim(1, -1))
        return context_windows(x.movedim(-1, 1))

    def _separate(self, x: Tensor) -> Tensor:
        x = x + self.separate_position
        for block in self.separate:
            x = block(x)
        return x

    @cached_property
    def _first_memory(self) -> list[Keys]:
        """What the first frame sees before it: the same in all windows."""
        encoded = self._separate(self.pad.expand(1, 4 * WINDOW**2, -1))
        return self._join(encoded, encoded)

    def _look_back(self, older: Tensor | None, before: Tensor) -> tuple[Tensor, list[Keys]]:
        """Encode the frame before; give it and the memory of the last two, for each block.

        The second frame sees the first twice.
        """
        encoded = self._separate(before)
        return encoded, self._join(encoded if older is None else older, encoded)

    def _look_back_together(
        self, older: Tensor | None, before: Tensor
    ) -> tuple[Tensor, list[Keys]]:
        """`_look_back` of many windows."""

        def some(here: slice) -> tuple[Tensor, list[Keys]]:
            return self._look_back(None if older is None else older[here], before[here])

        encoded, memory = zip(*threads.spread(some, self._parts(len(before))), strict=True)
        return torch.cat(encoded), [Keys.together(keys) for keys in zip(*memory, strict=True)]

    def _join(self, older: Tensor, newer: Tensor) -> list[Keys]:
        x = torch.cat([older, newer], dim=1) + self.joint_position
        for block in self.joint:
            x = block(x)
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
