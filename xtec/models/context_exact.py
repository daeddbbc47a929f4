"""The exact prior of the embedded model: `context` in integers, the same on every machine.

Encoder and decoder take the same steps: frame by frame, in a frame the five groups of `grid`, in
a group three passes over the octaves. At each pass somebody is given the distributions and gives
back the latents: the encoder looks them up, the decoder reads them from its stream. Every number
depends on its own row of inputs alone, so both see the same.

Letters: N blocks, n blocks of a group, K components, S frequencies, Z zones, P windows, D width.
Tensors hold fixed-point numbers unless they are called latents.

Below: context, exact, layout, mixing, frequencies, distribution. Above: lapped_model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xtec.models.arithmetic import Arithmetic
from xtec.models.context import (
    ENERGY_MIDDLE,
    ENERGY_UNIT,
    LEVEL_UNIT,
    PASSES,
    ContextTransformer,
    Layer,
)
from xtec.models.distribution import Distribution
from xtec.models.exact import ONE, Keys, add, fixed
from xtec.models.exact_layers import LayerNorm, Linear, Mlp, attend, split
from xtec.models.frequencies import LOW, SIZES, ZONE, ZONES
from xtec.models.grid import COMMON, REACH
from xtec.models.layout import DeviceGroup, Layout, layout
from xtec.models.mixing import PAST_UNIT, Mixing, Mixture
from xtec.models.spectrum import Latents

LOW_HEAD_LIMIT, HEAD_LIMIT = 8191, 255
"""Operands of the heads: low latents are large numbers with a unit that matters."""
PAST_LIMIT = 2**26

Take = Callable[[Tensor, Sequence[int], Sequence[Distribution]], Latents]
"""Gets the blocks, their octaves and how each is distributed, (n, K, S); gives the latents."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What later blocks and frames need of a frame; a last block, N, holds nothing."""

    latents: list[Tensor]
    """Per octave, (N + 1, K, S)."""
    content: Tensor
    """(N + 1, D)."""
    memory: list[Tensor]
    """Per layer, keys and values (N + 1, 2D)."""


@dataclass(frozen=True, eq=False)
class Past:
    """An earlier frame, as a frame sees it."""

    seen: Seen
    latents: list[Tensor]
    """Per octave, int32 (N, K, S): in 1/64, in the components of the frame that looks."""


class ExactContext:
    """The prior of one network on one device.

    Parameters
    ----------
    network : ContextTransformer
        Its weights are copied.
    arithmetic : Arithmetic
        Chosen by `exact.select`.

    Raises
    ------
    ModelError
        A layer is too wide for its sums to be exact.
    """

    @torch.no_grad()
    def __init__(self, network: ContextTransformer, arithmetic: Arithmetic) -> None:
        self.config, self.arithmetic = network.config, arithmetic
        a, limit = arithmetic, 2 ** (network.config.prior_bits - 1) - 1

        def weight(x: Tensor) -> Tensor:
            return fixed(x.to(a.device))

        self.content = Mlp(a, network.content.fc1, network.content.fc2, limit)
        self.content_norm = LayerNorm(a, network.content_norm)
        self.about = Mlp(a, network.about.fc1, network.about.fc2, limit)
        self.query = Linear(a, network.query, limit=limit)
        self.layers = [_Layer(a, layer, limit) for layer in network.layers]
        self.norms = [LayerNorm(a, layer) for layer in network.norms]
        self.own = [Mlp(a, layer.fc1, layer.fc2, limit) for layer in network.own]
        limits = LOW_HEAD_LIMIT, HEAD_LIMIT, HEAD_LIMIT
        self.heads = [
            Linear(a, head, limit=largest)
            for head, largest in zip(network.heads, limits, strict=True)
        ]
        self.none, self.place = weight(network.none), weight(network.place)
        self.none_memory = [layer.kv(self.none) for layer in self.layers]
        self.mixing = [
            Mixing(mix, base, octave, self.config.scale_map, a)
            for octave, (mix, base) in enumerate(zip(network.mix, network.base, strict=True))
        ]
        self.spatial = weight(network.spatial).double().flatten(1, 2)  # group, (4 9), 9
        self.zone = [torch.from_numpy(z).to(a.device) for z in ZONE]

    def nothing(self, counts: Sequence[int], blocks: int) -> Seen:
        """A frame of which nothing is known; ``counts`` are its components per octave."""
        device = self.arithmetic.device
        return Seen(
            [
                torch.zeros(blocks + 1, k, s, device=device)
                for k, s in zip(counts, SIZES, strict=True)
            ],
            self.none.expand(blocks + 1, -1).clone(),
            [m.expand(blocks + 1, -1).clone() for m in self.none_memory],
        )

    def past(self, seen: Seen, turns: Sequence[tuple[NDArray[np.int64], int]]) -> Past:
        """See an earlier frame in the components of another one.

        ``turns`` are per octave integers (K, K') and the bits that they are shifted by.
        """
        latents = []
        for q, (turn, bits) in zip(seen.latents, turns, strict=True):
            matrix = torch.from_numpy(turn).to(q.device, torch.float64)
            turned = (matrix @ q[:-1].double()).mul_(PAST_UNIT * 2.0**-bits).round_()
            latents.append(turned.clamp_(-PAST_LIMIT, PAST_LIMIT).int())
        return Past(seen, latents)

    def learn(self, seen: Seen, blocks: Tensor, latents: Latents) -> None:
        """Enter the latents (n, K, S) of some blocks."""
        a = self.arithmetic
        for known, q in zip(seen.latents, latents, strict=True):
            known[blocks] = q
        low = torch.cat([self.full(q) for q in latents[:2]], -1)
        magnitudes = [a.log(self.zones(q, octave)) for octave, q in enumerate(latents)]
        features = torch.cat([a.log(low), *magnitudes], -1).flatten(1)
        content = self.content_norm(self.content(features))
        seen.content[blocks] = content
        for memory, layer in zip(seen.memory, self.layers, strict=True):
            memory[blocks] = layer.kv(content)

    def walk(
        self,
        energies: Tensor,
        level: int,
        shape: tuple[int, int],
        past: Sequence[Past],
        take: Take,
    ) -> Seen:
        """Code one frame.

        Parameters
        ----------
        energies : int, shape (octave, component)
            0 where the frame lacks a component.
        level : int
        shape : (rows, columns) of blocks
        past : sequence of Past
            The frame before, the one before that, ...
        take : callable
        """
        made = layout(*shape, self.arithmetic.device)
        here = self.nothing([int((row > 0).sum()) for row in energies], shape[0] * shape[1])
        memories = [
            layer.past([p.seen.memory[i] for p in past], made)
            for i, layer in enumerate(self.layers)
        ]
        about = self._about(energies, level)
        for number, group in enumerate(made.groups):
            x = self._query(about, past, here, group)
            for layer, memory, own in zip(self.layers, memories, here.memory, strict=True):
                x = layer(x, memory, own, made, group)
            step = _Step(self, energies, past, here, group, number)
            self.learn(here, group.blocks, step.passes(x, take))
        return here

    def _about(self, energies: Tensor, level: int) -> Tensor:
        """What is known of a whole frame, [1, D]."""
        numbers = [n * (ONE // ENERGY_UNIT) for n in energies.flatten().tolist()]
        numbers.append(level * (ONE // LEVEL_UNIT))
        x = torch.tensor([numbers], dtype=torch.float32, device=self.arithmetic.device)
        return self.about(x - ENERGY_MIDDLE * ONE)

    def _query(self, about: Tensor, past: Sequence[Past], here: Seen, group: DeviceGroup) -> Tensor:
        """What the blocks of a group begin with, [n, D]."""
        parts = [p.seen.content[group.blocks] - self.none for p in past]
        around = group.around(here.content - self.none).div_(COMMON).round_()
        x = add(self.query(torch.cat([*parts, around], -1)), about)
        return add(x, self.place[group.places])

    def full(self, q: Tensor) -> Tensor:
        """Latents with zeros for the components that are not there."""
        return functional.pad(q, (0, 0, 0, self.config.components - q.shape[-2]))

    def zones(self, q: Tensor, octave: int) -> Tensor:
        """Sum of magnitudes per zone, with zeros for the components that are not there."""
        if ZONES[octave] == SIZES[octave]:
            return self.full(q.abs())
        out = q.new_zeros(*q.shape[:-1], ZONES[octave])
        return self.full(out.index_add_(-1, self.zone[octave], q.abs()))


class _Layer:
    """One layer of the transformer."""

    def __init__(self, a: Arithmetic, layer: Layer, limit: int) -> None:
        self.arithmetic, self.heads = a, layer.heads
        self.norm1, self.norm2 = LayerNorm(a, layer.norm1), LayerNorm(a, layer.norm2)
        self.q, self.kv, self.proj = (
            Linear(a, x, limit=limit) for x in (layer.q, layer.kv, layer.proj)
        )
        self.mlp = Mlp(a, layer.fc1, layer.fc2, limit)
        place = fixed(layer.place.to(a.device)).unflatten(0, (-1, REACH**2))
        self.place = functional.pad(place, (0, place.shape[-1]))
        """Only keys are told where they stand; lag, place, 2D."""

    def past(self, memories: Sequence[Tensor], made: Layout) -> Keys:
        """What all windows see of the frames before."""
        seen = [
            add(memory[made.reach], place)
            for memory, place in zip(memories, self.place, strict=False)
        ]
        return self._keys(torch.cat(seen, 1))

    def __call__(
        self, x: Tensor, past: Keys, memory: Tensor, made: Layout, group: DeviceGroup
    ) -> Tensor:
        """Blocks [n, D] of a group, windows one after the other."""
        n, d = x.shape
        x = x.reshape(len(made.reach), -1, d)
        if len(group.known):
            seen = add(memory[made.reach[:, group.known]], self.place[-1][group.known])
            past = past.then(self._keys(seen))
        (q,) = self.q.heads(self.norm1(x), 1, self.heads)
        x = self.proj.added(attend(self.arithmetic, q, past), x)
        return self.mlp.added(self.norm2(x), x).reshape(n, d)

    def _keys(self, seen: Tensor) -> Keys:
        """Keys and values of [P, places, 2D]."""
        return Keys(*(split(self.arithmetic, x, self.heads) for x in seen.chunk(2, dim=-1)))


class _Step:
    """The passes over one group of blocks."""

    def __init__(
        self,
        prior: ExactContext,
        energies: Tensor,
        past: Sequence[Past],
        here: Seen,
        group: DeviceGroup,
        number: int,
    ) -> None:
        self.prior, self.energies, self.past, self.here = prior, energies, past, here
        self.group, self.number = group, number
        self.counts = [q.shape[1] for q in here.latents]

    def passes(self, x: Tensor, take: Take) -> Latents:
        """Features [n, D] to the latents of all octaves, (n, K, S)."""
        prior, blocks, log = self.prior, self.group.blocks, self.prior.arithmetic.log
        z = prior.norms[0](x)
        found = self._low(z)
        latents = list(take(blocks, PASSES[0], found))
        low = torch.cat([prior.full(q) for q in latents], -1)
        centre = torch.cat([prior.full(d.centre.float()) for d in found], -1)
        own = torch.cat([log(low), log(low - centre)], -1)
        for octave in (2, 3):
            z = prior.norms[octave - 1](add(z, prior.own[octave - 2](own.flatten(1))))
            latents += take(blocks, (octave,), [self._zoned(z, octave)])
            own = log(prior.zones(latents[2], 2))
        return latents

    def _low(self, z: Tensor) -> list[Distribution]:
        most, parts = max(self.counts[o] for o in PASSES[0]), len(self.past) + 3
        head = self.prior.heads[0].outputs(0, most * LOW * parts)
        heads = head(z).unflatten(-1, (most, LOW, parts))
        share = heads[..., 1].double()
        mean = heads[..., 0].double() + (share * self._spatial(most) / ONE).round_()
        out, begin = [], 0
        for octave in PASSES[0]:
            k, zones = self.counts[octave], slice(begin, begin + ZONES[octave])
            out.append(self._mixed(mean[:, :k, zones], heads[:, :k, zones, 2:], octave))
            begin += ZONES[octave]
        return out

    def _spatial(self, most: int) -> Tensor | float:
        """The lowest latents, foretold from those of the neighbours: (n, K, 9)."""
        if not self.number:
            return 0.0
        low = torch.cat([self.prior.full(q)[:, :most] for q in self.here.latents[:2]], -1)
        seen = low[self.group.neighbours]  # n 4 K 9
        mean = (seen.sum(1) * self.group.factor[:, None, None] / COMMON).round_()
        seen = torch.where(self.group.missing[..., None, None], mean[:, None], seen)
        flat = seen.transpose(1, 2).flatten(2).double()  # n K (4 9)
        return flat @ self.prior.spatial[self.number - 1]

    def _zoned(self, z: Tensor, octave: int) -> Distribution:
        k, parts = self.counts[octave], len(self.past) + 1
        head = self.prior.heads[octave - 1].outputs(0, k * ZONES[octave] * parts)
        heads = head(z).unflatten(-1, (k, ZONES[octave], parts))
        return self._mixed(torch.zeros_like(heads[..., 0]).double(), heads, octave)

    def _mixed(self, mean: Tensor, heads: Tensor, octave: int) -> Distribution:
        energies = self.energies[octave, : self.counts[octave]]
        past = [p.latents[octave] for p in self.past]
        mixture = Mixture(mean, heads, energies, past, self.here.latents[octave])
        return self.prior.mixing[octave](mixture, self.group)
