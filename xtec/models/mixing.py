"""From the transformer's heads to distributions, latent by latent.

A mean is what the network says plus gates times earlier frames; a scale is what it says plus static
weights times what is known of this very latent: its component's energy, the same latent in earlier
frames and in neighbouring blocks. On a CPU one compiled loop does it (`mixing_kernel`), elsewhere
tensor operations; both give the same integers.

Letters: n blocks of a group, K components, S frequencies, Z zones. Fixed point where not said.

Below: mixing_kernel, distribution, exact, frequencies, layout. Above: context_exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from xtec.errors import ModelError
from xtec.models import mixing_kernel
from xtec.models.arithmetic import Arithmetic
from xtec.models.distribution import Distribution, Rows
from xtec.models.exact import EXACT_FLOAT32, ONE, fixed
from xtec.models.frequencies import ZONE
from xtec.models.layout import DeviceGroup
from xtec.models.spectrum import ENERGY_ZERO

MIX_UNIT = 64
"""Steps per 1 of the static weights of the scale: their sums stay exact in float32."""
PAST_UNIT = 64
"""Steps per 1 of earlier latents in the components of this frame."""
LARGEST_LOG = 18 * ONE


@dataclass(frozen=True, eq=False)
class Mixture:
    """What enters for the blocks of a group in one octave."""

    offset: Tensor
    """Float64, (n, K, Z): the network's own mean."""
    heads: Tensor
    """(n, K, Z, lags + 1): a gate per earlier frame, then the network's own scale."""
    energies: Tensor
    """Int64, (K,)."""
    past: Sequence[Tensor]
    """Int32, (N, K, S) per earlier frame, in 1/64."""
    here: Tensor
    """Float32 with integer values, (N + 1, K, S): latents of this frame, as far as known."""


class Mixing:
    """The static weights of one octave on one device.

    Parameters
    ----------
    mix : (lags + 2, components, Z)
        Weights of the energy, of each earlier frame and of the neighbours.
    base : (components, S)
    octave : int
    scale_map : str
    arithmetic : Arithmetic
    """

    def __init__(
        self, mix: nn.Parameter, base: nn.Parameter, octave: int, scale_map: str, a: Arithmetic
    ) -> None:
        self.arithmetic = a
        self.mix = fixed(mix.to(a.device) * (MIX_UNIT / ONE))
        if float(self.mix.abs().sum(0).max()) * LARGEST_LOG >= EXACT_FLOAT32:
            raise ModelError("the static weights of the scale are too large for exact sums.")
        self.base = fixed(base.to(a.device))
        self.zone = torch.from_numpy(ZONE[octave]).to(a.device)
        self.rows = Rows(scale_map, a.device)
        if a.device.type == "cpu":
            self._statics = self.mix.int().numpy(), self.base.int().numpy()
            self._tables = self._for_kernel()

    def __call__(self, mixture: Mixture, group: DeviceGroup) -> Distribution:
        """Distributions of shape (n, K, S)."""
        if self.arithmetic.device.type == "cpu":
            return self._compiled(mixture, group)
        return self.tensors(mixture, group)

    def tensors(self, m: Mixture, group: DeviceGroup) -> Distribution:
        """The same as `mixing_kernel`, in tensor operations."""
        k, a = len(m.energies), self.arithmetic
        *gates, scale = m.heads.movedim(-1, 0)[..., self.zone]
        earlier = [past.index_select(0, group.blocks) for past in m.past]
        before = torch.zeros_like(scale, dtype=torch.float64)
        for gate, past in zip(gates, earlier, strict=True):
            before += gate.double() * past
        energy, *shares, share_around = self.mix[:, :k][:, :, self.zone]
        static = energy * ((m.energies.float() - ENERGY_ZERO) * (ONE // 2))[:, None]
        for share, past in zip(shares, earlier, strict=True):
            static = static + share * a.log2(past.abs(), PAST_UNIT)
        static = static + share_around * a.log2(group.around(m.here.abs()))
        scale = scale + self.base[:k] + (static / MIX_UNIT).round_()
        return self.rows(m.offset[..., self.zone] + (before / PAST_UNIT).round_(), scale)

    def _compiled(self, m: Mixture, group: DeviceGroup) -> Distribution:
        n, k = m.offset.shape[:2]
        shares, base = self._statics
        found = np.empty((2, n, k, len(self.zone)), np.int32)
        energies = ((m.energies - ENERGY_ZERO) * (ONE // 2)).int().numpy()
        mixing_kernel.mix(
            m.offset.to(torch.int64).numpy(),
            m.heads.int().contiguous().numpy(),
            group.blocks.numpy(),
            tuple(past.numpy() for past in m.past),
            (
                self.zone.to(torch.int64).numpy(),
                m.here.numpy(),
                group.neighbours.numpy(),
                group.factor.to(torch.int64).numpy(),
            ),
            (shares, base, energies),
            self._tables,
            (found[0], found[1]),
        )
        centre, row = torch.from_numpy(found)
        return Distribution(centre, row)

    def _for_kernel(self) -> mixing_kernel.Tables:
        """Table of logarithms, level of each scale, and what makes a row of it."""
        lowest, highest = int(self.rows.edges[0]) - 1, int(self.rows.edges[-1])
        scales = torch.arange(lowest, highest + 1, dtype=torch.float32)
        level = torch.bucketize(scales, self.rows.edges, right=True)
        log, first_row, shift = self.arithmetic.tables.log, self.rows.first_row, self.rows.shift
        return log.int().numpy(), level.int().numpy(), first_row.numpy(), shift.numpy(), lowest
