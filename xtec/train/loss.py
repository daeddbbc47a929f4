"""What the transformer is trained to spend less of: bits.

Below: models.context, coding, batch. Above: state, evaluate.
"""

import torch
from torch import Tensor

from xtec.coding.make_tables import SURPRISES
from xtec.coding.tables import FREQUENCY_BITS
from xtec.models.context import ContextTransformer
from xtec.models.frequencies import SIZES
from xtec.train.batch import Batch

SMALLEST = 1e-9
"""The least probability that the reference knows."""
LEAST = 1e-30
"""That of the loss: large errors still have a gradient."""
ANNOUNCED = 2
"""Bits behind an escape at least: on which side, and how far beyond the table's end."""
REACH = 4
"""Deviations that the tables reach, about."""
NARROWEST, WIDEST = -4.0, 9.0
"""Log2 of the scales that the coder's tables have."""
FEW_BITS = 200
"""Keeps chunks of next to no bits from counting for much."""


def bits(q: Tensor, mean: Tensor, deviation: Tensor, *, smallest: float = SMALLEST) -> Tensor:
    """Ideal code length of each latent under its discretised Gaussian, in bits."""
    v = (q - mean).abs()
    slope = 0.5**0.5 / deviation
    likelihood = (torch.erfc((v - 0.5) * slope) - torch.erfc((v + 0.5) * slope)) / 2
    return -torch.log2(likelihood.clamp_min(smallest))


def cost(q: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Bits of each latent in the coder, which escapes from what its tables lack; scale in log2."""
    deviation = torch.exp2(scale.clamp(NARROWEST, WIDEST))
    likeliest = torch.exp2(-bits(mean.round(), mean, deviation))
    rare = ((1 - likeliest) / SURPRISES).clamp_min(2.0**-FREQUENCY_BITS)
    unit = deviation.clamp_min(1)  # distances are coded in steps of about this
    beyond = ((q - mean).abs() - REACH * deviation).clamp_min(0) / unit
    escape = ANNOUNCED - torch.log2(rare) + torch.log2(unit) + 2 * torch.log2(1 + beyond)
    return torch.minimum(bits(q, mean, deviation, smallest=LEAST), escape)


def spent(network: ContextTransformer, batch: Batch) -> Tensor:
    """Bits of the latents of each chunk, (M,).

    Of an octave of which a batch counts only some frequencies, these speak for all.
    """
    # Only the transformer bears half precision; latents and means are too large for it.
    with autocast(batch.energies.device):
        found = network(
            batch.latents,
            batch.energies,
            batch.level,
            batch.before,
            batch.turns,
            batch.shape,
            batch.some,
        )
    total = torch.zeros(len(batch.level), device=batch.energies.device)
    for octave, (mean, scale) in enumerate(found):
        q = batch.latents[octave][..., batch.some[octave]]
        each = cost(q, mean, scale)
        there = (batch.energies[:, :, octave, : q.shape[3]] > 0).float()
        share = SIZES[octave] / q.shape[-1]
        total = total + share * (each * there[:, :, None, :, None]).sum((1, 2, 3, 4))
    return total


def weighed(spent_bits: Tensor) -> Tensor:
    """Loss of a batch: what one per cent of a chunk's bits is worth, evened out.

    A chunk's bits are set against the mean of its own and those of the batch, so that quiet chunks
    count for more than their bits and less than busy ones.
    """
    own = spent_bits.detach()
    return (spent_bits / (own / 2 + own.mean() / 2 + FEW_BITS)).mean()


def autocast(device: torch.device) -> torch.autocast:
    """Half precision where it is faster: not on CPUs that would have to emulate it."""
    slow = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "AVX512"
    return torch.autocast(device.type, torch.bfloat16, enabled=not slow)
