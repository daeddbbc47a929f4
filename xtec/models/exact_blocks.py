"""The blocks of a TEC-TT's transformer in exact arithmetic.

Below: exact_layers, transformer. Above: prior.
"""

from torch import Tensor

from xtec.models.arithmetic import Arithmetic
from xtec.models.exact import Keys
from xtec.models.exact_layers import LayerNorm, Linear, Mlp, attend, tamed
from xtec.models.transformer import Attention, Block


class _SelfAttention:
    """Queries, keys and values share their inputs: one product. ``inputs`` as in `Linear`."""

    def __init__(self, a: Arithmetic, layer: Attention, limit: int, inputs: Tensor) -> None:
        self.arithmetic, self.count = a, layer.heads
        self.qkv = Linear(a, layer.q, layer.k, layer.v, limit=limit, inputs=inputs)
        self.proj = Linear(a, layer.proj, limit=limit)

    def __call__(
        self, n: Tensor, onto: Tensor, past: Keys | None = None, *, causal: bool = False
    ) -> tuple[Tensor, Keys]:
        """Add tokens' attention to themselves and to a cache; the sum and the grown cache."""
        q, k, v = self.qkv.heads(n, 3, self.count)
        keys = Keys(k, v) if past is None else past.then(Keys(k, v))
        return self.proj.added(attend(self.arithmetic, q, keys, causal=causal), onto), keys


class _CrossAttention:
    """Queries of tokens, keys and values of a memory."""

    def __init__(self, a: Arithmetic, layer: Attention, limit: int, inputs: Tensor) -> None:
        self.arithmetic, self.count = a, layer.heads
        self.q = Linear(a, layer.q, limit=limit, inputs=inputs)
        self.kv = Linear(a, layer.k, layer.v, limit=limit)
        self.proj = Linear(a, layer.proj, limit=limit)

    def memory(self, x: Tensor) -> Keys:
        return Keys(*self.kv.heads(x, 2, self.count))

    def __call__(self, n: Tensor, onto: Tensor, keys: Keys) -> Tensor:
        """Add tokens' attention to a memory."""
        (q,) = self.q.heads(n, 1, self.count)
        return self.proj.added(attend(self.arithmetic, q, keys), onto)


class _Block:
    """What blocks of the encoders and of the decoder have in common."""

    def __init__(self, a: Arithmetic, block: Block, limit: int) -> None:
        norms = block.norm1a, block.norm1b, block.norm2a, block.norm2b
        by = [tamed(n) for n in norms]
        self.norm1a, self.norm1b, self.norm2a, self.norm2b = (
            LayerNorm(a, n, outputs) for n, outputs in zip(norms, by, strict=True)
        )
        self.self_attention = _SelfAttention(a, block.self_attention, limit, by[0])
        self.mlp1, self.mlp2 = (
            Mlp(a, m.fc1, m.fc2, limit, inputs)
            for m, inputs in ((block.mlp1, by[1]), (block.mlp2, by[3]))
        )


class EncoderBlock(_Block):
    """Its second attention is to the tokens themselves, too."""

    def __init__(self, a: Arithmetic, block: Block, limit: int) -> None:
        super().__init__(a, block, limit)
        self.again = _SelfAttention(a, block.cross_attention, limit, tamed(block.norm2a))

    def __call__(self, x: Tensor) -> Tensor:
        x, _ = self.self_attention(self.norm1a(x), x)
        x = self.mlp1.added(self.norm1b(x), x)
        x, _ = self.again(self.norm2a(x), x)
        return self.mlp2.added(self.norm2b(x), x)


class DecoderBlock(_Block):
    """Its second attention is to the context."""

    def __init__(self, a: Arithmetic, block: Block, limit: int) -> None:
        super().__init__(a, block, limit)
        self.cross_attention = _CrossAttention(a, block.cross_attention, limit, tamed(block.norm2a))

    def __call__(
        self, x: Tensor, memory: Keys, past: Keys | None = None, *, causal: bool = False
    ) -> tuple[Tensor, Keys]:
        """Tokens after the block, and the cache of its self-attention."""
        x, keys = self.self_attention(self.norm1a(x), x, past, causal=causal)
        x = self.mlp1.added(self.norm1b(x), x)
        x = self.cross_attention(self.norm2a(x), x, memory)
        return self.mlp2.added(self.norm2b(x), x), keys
