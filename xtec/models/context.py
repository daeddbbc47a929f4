"""The transformer of the embedded model in floating point: what is trained.

It predicts mean and scale of every latent from the three frames before and from the blocks of the
same frame that were coded earlier (`grid`). A stream is coded with the probabilities of
`context_exact`, which evaluates the same weights in exact arithmetic; the two say the same thing
twice and are held together by a test.

It may run under autocast: what latents are multiplied with, and the outputs, stay in float32.

Letters: M chunks, T frames, N blocks, K components, S frequencies, Z zones, P windows, D width.

Below: config, frequencies, grid. Above: context_exact, weights, train.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from xtec.models.config import LappedConfig
from xtec.models.frequencies import LOW, OCTAVES, SIZES, ZONE, ZONES
from xtec.models.grid import COMMON, REACH, WINDOW, grid, whole
from xtec.models.spectrum import ENERGY_ZERO

MOST_MAGNITUDE = 4095
"""Magnitudes that enter the network end here."""
FEATURES = LOW + sum(ZONES)
"""What is told of a component of a block: its lowest latents, and a magnitude per zone."""
PASSES = ((0, 1), (2,), (3,))
"""Octaves of a block that are coded together; a pass knows the passes before it."""
ENERGY_UNIT, ENERGY_MIDDLE = 8, 2
"""An energy e enters as e / 8 - 2, a level l as l / 128 - 2."""
LEVEL_UNIT = 128


class Layer(nn.Module):
    """Blocks look at the contents of known blocks, then think on their own."""

    def __init__(self, config: LappedConfig) -> None:
        super().__init__()
        d = config.d_model
        self.heads, self.lags = config.heads, config.lags
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.q, self.kv, self.proj = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.place = nn.Parameter(torch.empty((config.lags + 1) * REACH**2, d))
        self.fc1 = nn.Linear(d, config.mlp_ratio * d)
        self.fc2 = nn.Linear(config.mlp_ratio * d, d)

    def forward(self, x: Tensor, contents: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        """Let blocks look round.

        Parameters
        ----------
        x : [MTP, 16, D]
            The blocks of windows.
        contents : [MTN + 1, D]
            What is known of all blocks, and last what is known of nothing.
        seen : int [MTP (lags + 1) 36]
            Which of these a window attends to.
        hidden : bool [16, (lags + 1) 36]
            What a block of a window must not see.
        """
        k, v = self.kv(contents).chunk(2, dim=-1)
        # Relative to nothing: this moves all scores of a query alike, and leaves zeros to gather.
        nothing = v[-1]
        k, v = (self._split(self._gathered(y, seen, len(x))).contiguous() for y in (k, v))
        q = self._split(self.q(self.norm1(x)))
        place = self._split(self.place)
        scores = (q @ k.mT + torch.einsum("phbd,hsd->phbs", q, place)) * q.shape[-1] ** -0.5
        out = scores.masked_fill(hidden, -1e4).softmax(-1) @ v
        x = x + self.proj(out.transpose(1, 2).flatten(2) + nothing)
        x = x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))
        return x

    @staticmethod
    def _gathered(y: Tensor, seen: Tensor, windows: int) -> Tensor:
        rows = functional.pad(y[:-1] - y[-1], (0, 0, 0, 1)).index_select(0, seen)
        return rows.view(windows, -1, y.shape[-1])

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(-3, -2)


class Mlp(nn.Module):
    """Two layers."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        y: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return y


class ContextTransformer(nn.Module):
    """The whole network."""

    def __init__(self, config: LappedConfig) -> None:
        super().__init__()
        self.config = config
        d, k, lags = config.d_model, config.components, config.lags
        self.content = Mlp(k * FEATURES, 2 * d, d)
        self.content_norm = nn.LayerNorm(d)
        self.none = nn.Parameter(torch.empty(d))
        self.about = Mlp(k * OCTAVES + 1, d, d)
        self.place = nn.Parameter(torch.empty(WINDOW**2, d))
        self.query = nn.Linear((lags + 1) * d, d)
        layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.layers = cast("Sequence[Layer]", layers)
        norms = nn.ModuleList(nn.LayerNorm(d) for _ in PASSES)
        self.norms = cast("Sequence[nn.LayerNorm]", norms)
        own = k * LOW * 2, k * ZONES[2]
        self.own = cast("Sequence[Mlp]", nn.ModuleList(Mlp(inputs, d, d) for inputs in own))
        outputs = LOW * (lags + 3), ZONES[2] * (lags + 1), ZONES[3] * (lags + 1)
        heads = nn.ModuleList(nn.Linear(d, k * n) for n in outputs)
        self.heads = cast("Sequence[nn.Linear]", heads)
        self.mix = nn.ParameterList(torch.empty(lags + 2, k, z) for z in ZONES)
        self.base = nn.ParameterList(torch.empty(k, s) for s in SIZES)
        self.spatial = nn.Parameter(torch.empty(4, 4, LOW, LOW))

    @torch.no_grad()
    def initialise(self) -> None:
        """Begin where scales follow the energies and the lowest latents their neighbours."""
        for p in (self.none, self.place, *(layer.place for layer in self.layers)):
            p.normal_(std=0.02)
        for head in self.heads:
            head.weight.normal_(std=1e-3)
            head.bias.zero_()
        for own in self.own:
            own.fc2.weight.normal_(std=0.01)
        shares = 0.7, 0.15, *[0.05] * (self.config.lags - 1), 0.2
        for mix, base in zip(self.mix, self.base, strict=True):
            mix.copy_(torch.tensor(shares)[:, None, None].expand_as(mix))
            base.fill_(-1)
        self.spatial.zero_()[:, :, 0, 0] = 1 / 4

    def forward(
        self,
        latents: Sequence[Tensor],
        energies: Tensor,
        level: Tensor,
        before: Tensor,
        turns: Sequence[Tensor],
        shape: tuple[int, int],
        some: Sequence[Tensor] | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Mean and log2 of the scale of the latents of whole chunks.

        Parameters
        ----------
        latents : per octave, float with integer values, shape (M, T, N, K, S)
        energies : int, shape (M, T, octave, component)
            0 where a frame lacks a component.
        level : int, shape (M,)
        before : int, shape (M, T, lags)
            The earlier frames that foretell each frame, the best first; -1 where there is none.
        turns : per octave, float, shape (M, T, lags, K, K)
            What turns the components of these into those of the frame; 0 where there is none.
        shape : (rows, columns) of blocks, N together
        some : per octave, int, optional
            The frequencies of interest; all where it is left out.

        Returns
        -------
        per octave: mean, scale
            Each of the shape of the latents of interest.
        """
        frame = _Frame(self, latents, energies, before, turns, shape, some)
        low = torch.cat([self._all(x) for x in latents[:2]], -1)
        zones = [self._all(_zones(q, o)).clamp(max=MOST_MAGNITUDE) for o, q in enumerate(latents)]
        features = torch.cat([signed_log(low), *(torch.log2(1 + z) for z in zones)], -1)
        content = self.content_norm(self.content(features.flatten(3))).float()
        x = self._seen(content, energies, level, frame)
        z = self.norms[0](x)
        heads = self.heads[0](z).float().unflatten(-1, (-1, LOW, self.config.lags + 3))
        out = frame.low(heads, low)
        centre = torch.cat([self._all(mean) for mean, _ in out], -1).detach().round()
        own = torch.cat([signed_log(low), signed_log(low - centre)], -1)
        for octave, own_features in ((2, own), (3, torch.log2(1 + zones[2]))):
            z = self.norms[octave - 1](z + self.own[octave - 2](own_features.flatten(3)))
            parts = -1, ZONES[octave], self.config.lags + 1
            heads = self.heads[octave - 1](z).float().unflatten(-1, parts)
            out.append(frame.zoned(heads, octave))
        return out

    def _all(self, x: Tensor) -> Tensor:
        """Latents with zeros for the components that are not there."""
        return functional.pad(x, (0, 0, 0, self.config.components - x.shape[-2]))

    def _seen(self, content: Tensor, energies: Tensor, level: Tensor, frame: "_Frame") -> Tensor:
        """The transformer proper: [M, T, N, D]."""
        about = energies.flatten(2) / ENERGY_UNIT - ENERGY_MIDDLE
        setting = (level / LEVEL_UNIT - ENERGY_MIDDLE)[:, None, None].expand_as(about[..., :1])
        about = torch.cat([about, setting], 2)
        new = content - self.none
        parts = earlier(new, frame.before)
        around = frame.around(new) / COMMON
        x = self.query(torch.cat([*parts, around], -1)) + self.about(about)[:, :, None]
        x = (x[:, :, frame.layout.windows] + self.place).flatten(0, 2)
        contents = torch.cat([content.flatten(0, 2), self.none[None]])
        seen = frame.layout.seen(frame.before)
        for layer in self.layers:
            x = layer(x, contents, seen, frame.layout.hidden)
        found: Tensor = x.view(content.shape)[:, :, frame.layout.order].float()
        return found


class _Frame:
    """What the heads' outputs are combined with: latents known before, and static weights."""

    def __init__(
        self,
        network: ContextTransformer,
        latents: Sequence[Tensor],
        energies: Tensor,
        before: Tensor,
        turns: Sequence[Tensor],
        shape: tuple[int, int],
        some: Sequence[Tensor] | None,
    ) -> None:
        self.network, self.energies = network, energies
        self.before, self.turns = before, turns
        device = str(energies.device)
        self.layout = _layout(*shape, network.config.lags, device)
        self.zone = [torch.from_numpy(z).to(device) for z in ZONE]
        self.latents = list(latents)
        if some is not None:
            self.zone = [z[f] for z, f in zip(self.zone, some, strict=True)]
            self.latents = [q[..., f] for q, f in zip(latents, some, strict=True)]
        self.some = [slice(None)] * OCTAVES if some is None else some

    def around(self, x: Tensor) -> Tensor:
        """12 times the mean over the known neighbours, [M, T, N, ...]."""
        return self._neighbours(x).sum(3) * self.layout.factor.view(-1, *[1] * (x.dim() - 3))

    def _neighbours(self, x: Tensor) -> Tensor:
        """The four neighbours, 0 where one is missing, [M, T, N, 4, ...]."""
        none = torch.zeros_like(x[:, :, :1])
        return torch.cat([x, none], 2)[:, :, self.layout.neighbours]

    def low(self, heads: Tensor, low: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Mean and scale of the first two octaves; heads [M, T, N, components, 9, lags + 3]."""
        spatial = self._spatial(low)
        out, begin = [], 0
        for octave in PASSES[0]:
            k, zones = self.latents[octave].shape[-2], slice(begin, begin + ZONES[octave])
            here = heads[..., :k, zones, :]
            mean = here[..., 0] + here[..., 1] * spatial[..., :k, zones]
            out.append(self._with_lags(mean, here[..., 2:].unbind(-1), octave))
            begin += ZONES[octave]
        return out

    def _spatial(self, low: Tensor) -> Tensor:
        """The lowest latents, foretold from those of the four neighbours."""
        seen = self._neighbours(low)
        mean = self.around(low) / COMMON
        seen = torch.where(self.layout.missing[..., None, None], mean[:, :, :, None], seen)
        weights = functional.pad(self.network.spatial, (0, 0, 0, 0, 0, 0, 1, 0))
        with torch.autocast(low.device.type, enabled=False):
            return torch.einsum("mtnjkf,njfg->mtnkg", seen, weights[self.layout.group])

    def zoned(self, heads: Tensor, octave: int) -> tuple[Tensor, Tensor]:
        """Mean and scale of a higher octave; heads [M, T, N, components, Z, lags + 1]."""
        k = self.latents[octave].shape[-2]
        parts = heads[..., :k, :, :].movedim(-1, 0)[..., self.zone[octave]]
        return self._with_lags(heads.new_zeros(()), parts.unbind(), octave)

    def _with_lags(
        self, mean: Tensor, parts: Sequence[Tensor], octave: int
    ) -> tuple[Tensor, Tensor]:
        """Gates times earlier frames on top of a mean; the scale from its own part and theirs."""
        *gates, scale = parts
        q, zone, network = self.latents[octave], self.zone[octave], self.network
        k = q.shape[-2]
        energy, *shares = network.mix[octave][:, :k][..., zone]
        known = (self.energies[:, :, octave, :k].float() - ENERGY_ZERO) / 2
        static = network.base[octave][:k][:, self.some[octave]]
        scale = scale + (static + energy * known[:, :, None, :, None])
        for past, gate, share in zip(self._past(octave), gates, shares, strict=False):
            mean = torch.addcmul(mean, gate, past)
            scale = torch.addcmul(scale, share, torch.log2(1 + past.abs()))
        return mean, torch.addcmul(scale, shares[-1], torch.log2(1 + self.around(q.abs())))

    def _past(self, octave: int) -> list[Tensor]:
        """The latents of the earlier frames, in a frame's own components."""
        # In float32 also under autocast: the lowest latents are large.
        q = self.latents[octave]
        with torch.autocast(q.device.type, enabled=False):
            return [
                torch.einsum("mtkj,mtnjs->mtnks", turn, known)
                for turn, known in zip(
                    self.turns[octave].unbind(2), earlier(q, self.before), strict=True
                )
            ]


@dataclass(frozen=True, eq=False)
class _Layout:
    """`grid.Whole` on a device."""

    neighbours: Tensor
    missing: Tensor
    """Bool, (N, 4): neighbours that are none."""
    factor: Tensor
    group: Tensor
    windows: Tensor
    order: Tensor
    """Where each block stands among the blocks of the windows."""
    reach: Tensor
    """(P, 36): the blocks that a window attends to in each frame, N where the frame ends."""
    hidden: Tensor
    """(16, (lags + 1) 36)."""

    def seen(self, before: Tensor) -> Tensor:
        """What windows attend to: earlier frames, then their own; among MTN blocks."""
        chunks, frames, _ = before.shape
        n, nothing = len(self.group), chunks * frames * len(self.group)
        first = torch.arange(chunks * frames, device=self.reach.device).view(chunks, frames, 1, 1)
        rows = torch.where(self.reach == n, nothing, first * n + self.reach)
        none = torch.full_like(rows[:, :1], nothing)
        return torch.cat([*earlier(rows, before, none), rows], -1).flatten()


@lru_cache(maxsize=32)
def _layout(rows: int, columns: int, lags: int, device: str) -> _Layout:
    made, reach = whole(rows, columns), grid(rows, columns).reach

    def there(x: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(x).to(device)

    return _Layout(
        neighbours=there(made.neighbours),
        missing=there(made.neighbours == rows * columns),
        factor=there(made.factor).float(),
        group=there(made.group),
        windows=there(made.windows),
        order=there(np.argsort(made.windows.ravel())),
        reach=there(reach),
        hidden=functional.pad(there(made.hidden), (REACH**2 * lags, 0)),
    )


def earlier(x: Tensor, before: Tensor, none: Tensor | None = None) -> list[Tensor]:
    """For each of the earlier frames [M, T, lags] what they have of x [M, T, ...]; else 0."""
    last = torch.zeros_like(x[:, :1]) if none is None else none
    known = torch.cat([x, last.expand(len(x), 1, *x.shape[2:])], 1)
    chunk = torch.arange(len(x), device=x.device)[:, None]
    return [known[chunk, number] for number in before.unbind(2)]  # -1 is the last: nothing


def signed_log(q: Tensor) -> Tensor:
    """sign(q) log2(1 + |q|)."""
    return q.sign() * torch.log2(1 + q.abs().clamp(max=MOST_MAGNITUDE))


def _zones(q: Tensor, octave: int) -> Tensor:
    """Sum of the magnitudes in each zone, [..., S] -> [..., Z]."""
    out = q.new_zeros(*q.shape[:-1], ZONES[octave])
    return out.index_add_(-1, torch.from_numpy(ZONE[octave]).to(q.device), q.abs())
