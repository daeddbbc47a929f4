"""Layers in exact arithmetic, with integer weights.

Below: exact, arithmetic. Above: prior, context_exact.
"""

import copy

import torch
from torch import Tensor, nn

from xtec.errors import ModelError
from xtec.models.arithmetic import Arithmetic
from xtec.models.exact import (
    ATTENTION_LIMIT,
    EXACT_FLOAT64,
    LIMIT,
    ONE,
    Keys,
    Quantised,
    Sums,
    fixed,
    quantise_weights,
)

MOST_TAMED = 8
"""Powers of two that an output is divided by at most."""
SMALLEST = 2.0**-20
"""No gain counts as smaller."""


class Linear:
    """A linear layer with integer weights, one scale per output.

    Parameters
    ----------
    arithmetic : Arithmetic
    layers : torch.nn.Linear
        One or more with the same inputs, evaluated together.
    limit : int
        Largest magnitude of the integers that weights and inputs are rounded to.
    unit : float
        What an input of 1 stands for: 1/1024 for fixed point.
    inputs : Tensor, optional
        What each input was divided by, see `tamed`.

    Raises
    ------
    ModelError
        Too wide for its sums to be exact.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        *layers: nn.Linear,
        limit: int,
        unit: float = 1 / ONE,
        inputs: Tensor | None = None,
    ) -> None:
        self.arithmetic, self.limit = arithmetic, limit
        inner, outer = layers[0].in_features, sum(x.out_features for x in layers)
        kind = arithmetic.carrier(limit, inner)
        self.operands = arithmetic.operands(limit, inner, outer)
        self.weight, largest = quantise_weights(
            [x.weight for x in layers], limit, self.operands, arithmetic.device, inputs
        )
        bias = torch.cat([x.bias for x in layers]).to(arithmetic.device)
        self.scale = (largest.to(kind) * (ONE * unit / limit**2)).squeeze(-1)
        self.bias = fixed(bias).to(kind)

    def __call__(self, x: Tensor | Quantised) -> Tensor:
        """Integers [..., in] to fixed point [..., out]."""
        return self.arithmetic.steps.fixed(self._sums(x))

    def added(self, x: Tensor | Quantised, onto: Tensor) -> Tensor:
        """Add what the layer makes of ``x`` to fixed point ``onto``, within the limit."""
        return self.arithmetic.steps.added(self._sums(x), onto)

    def activated(self, x: Tensor | Quantised, then: "Linear") -> Quantised:
        """Put what the layer makes of ``x`` through GELU, for the layer ``then``."""
        return self.arithmetic.steps.activated(self._sums(x), then.limit, then.operands)

    def heads(self, x: Tensor | Quantised, parts: int, count: int) -> tuple[Quantised, ...]:
        """Make of ``x`` [P, n, in] ``parts`` sets of attention heads, [P, heads, n, width]."""
        return self.arithmetic.steps.heads(self._sums(x), parts, count)

    def quantised(self, x: Tensor) -> Quantised:
        """``x`` as the layer takes it: for several layers with one input and limit."""
        return self.arithmetic.steps.quantise(x, self.limit, self.operands)

    def outputs(self, begin: int, end: int) -> "Linear":
        """The layer with some of its outputs only; it shares the weights."""
        part = copy.copy(self)
        here = slice(begin, end)
        part.weight, part.scale, part.bias = self.weight[here], self.scale[here], self.bias[here]
        return part

    def _sums(self, x: Tensor | Quantised) -> Sums:
        q = self.quantised(x) if isinstance(x, Tensor) else x
        found = self.arithmetic.matmul(q.integers, self.weight.T, self.limit)
        return Sums(found, q.largest, self.scale, self.bias)


class Mlp:
    """Linear, GELU, Linear; ``inputs`` as in `Linear`."""

    def __init__(
        self,
        arithmetic: Arithmetic,
        fc1: nn.Linear,
        fc2: nn.Linear,
        limit: int,
        inputs: Tensor | None = None,
    ) -> None:
        self.fc1 = Linear(arithmetic, fc1, limit=limit, inputs=inputs)
        self.fc2 = Linear(arithmetic, fc2, limit=limit)

    def __call__(self, x: Tensor) -> Tensor:
        """Fixed point to fixed point."""
        return self.fc2(self.fc1.activated(x, self.fc2))

    def added(self, x: Tensor, onto: Tensor) -> Tensor:
        """Add what comes of ``x`` to ``onto``."""
        return self.fc2.added(self.fc1.activated(x, self.fc2), onto)


def tamed(layer: nn.LayerNorm) -> Tensor:
    """Powers of two [D] to divide a norm's outputs by, most of them 1.

    A row's largest number sets the step that all of them are rounded in. So channels of a far
    larger gain or bias than the others come out smaller by the root of that, and the weights
    behind them take the rest. Only exponents are compared, so that it is the same everywhere.
    """
    size = torch.maximum(layer.weight.abs(), layer.bias.abs()).float().cpu()
    exponent = torch.frexp(size.clamp_min(SMALLEST)).exponent  # some machines flush what is tinier
    above = exponent - exponent.sort().values[len(exponent) // 2]
    halves = above.clamp(0, 2 * MOST_TAMED) // 2
    return torch.ones_like(halves).bitwise_left_shift(halves).float()  # ldexp goes by a float pow


class LayerNorm:
    """Layer normalisation; each output is divided by one of the ``outputs``, if there are any."""

    def __init__(
        self, arithmetic: Arithmetic, layer: nn.LayerNorm, outputs: Tensor | None = None
    ) -> None:
        width = layer.weight.shape[0]
        if (2 * LIMIT) ** 2 * width >= EXACT_FLOAT64:
            raise ModelError(f"rows of {width} numbers are too wide to be normalised exactly.")
        self.steps = arithmetic.steps
        weight, bias = (x.to(arithmetic.device) for x in (layer.weight, layer.bias))
        if outputs is not None:
            weight, bias = (x / outputs.to(arithmetic.device) for x in (weight, bias))
        self.weight = weight.double() * ONE
        self.bias = fixed(bias).double()
        self.floor = layer.eps * ONE**2

    def __call__(self, x: Tensor) -> Tensor:
        """Fixed point [..., D] to fixed point [..., D]."""
        return self.steps.normalise(x, self.weight, self.bias, self.floor)


def split(arithmetic: Arithmetic, x: Tensor, count: int) -> Quantised:
    """Fixed point [P, n, D] to quantised heads [P, heads, n, width]."""
    heads = x.unflatten(-1, (count, -1)).transpose(1, 2).contiguous()
    return arithmetic.steps.quantise(heads, ATTENTION_LIMIT, torch.float32)


def attend(arithmetic: Arithmetic, q: Quantised, keys: Keys, *, causal: bool = False) -> Tensor:
    """Softmax attention of queries [P, heads, n, width] to fixed point [P, n, D]."""
    windows, _, n, _ = q.integers.shape
    shared = len(keys.keys.integers) < windows
    if shared:
        # As if all were the queries of one window.
        integers, largest = (x.transpose(0, 1).flatten(1, 2)[None] for x in vars(q).values())
        q = Quantised(integers, largest)

    def product(x: Tensor, y: Tensor) -> Tensor:
        return arithmetic.matmul(x, y, ATTENTION_LIMIT).float()

    scores = product(q.integers, keys.keys.integers.transpose(-2, -1))
    weights, factor = arithmetic.steps.soften(scores, q, keys, causal=causal)
    out = arithmetic.steps.merge(product(weights, keys.values.integers), factor)
    return out.view(windows, n, -1) if shared else out
