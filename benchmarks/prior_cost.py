"""What exactness costs: bits of real payloads against the float network's ideal code length.

    python benchmarks/prior_cost.py                       the model as it is
    python benchmarks/prior_cost.py --bits 7 8 10         other roundings of weights and activations
    python benchmarks/prior_cost.py --full-size           TEC-TT with 225 M random weights

On the latents of tiles of the validation cubes, step by step from the float network to the bytes:

1. ideal    Gaussians with the float32 network's means and scales, far latents at an escape's price
2. exact    the rows of the frequency tables that the exact prior chooses; no coder
3. payload  the bytes that the coder writes, without the spectrum that opens each frame

At full size the latents are drawn from the float network's own distribution (`sampled`), of weights
that `random_tt` makes, and one step more is told apart: the tables with the float network's means
and scales. No predictor is better than the one that the latents come from, so that nothing hides
what is lost.

Below: data, common, random_tt, sampled, xtec.models, xtec.coding, xtec.train.
"""

import argparse
import copy
import dataclasses
from collections.abc import Sequence
from itertools import pairwise, product
from typing import NamedTuple

import data
import numpy as np
import random_tt
import sampled
import torch
from common import about, machine, parser, table
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from xtec.codec import Settings
from xtec.coding import rans
from xtec.coding.tables import FREQUENCY_BITS, load
from xtec.errors import InputError
from xtec.models import weights
from xtec.models.analysis import analyse
from xtec.models.context import ContextTransformer
from xtec.models.distribution import Distribution, Rows
from xtec.models.exact import ONE
from xtec.models.frequencies import SIZES
from xtec.models.known_answer import select
from xtec.models.lapped import SIDE
from xtec.models.lapped_model import LappedModel, Walk
from xtec.models.network import TemporalTransformer, sigma
from xtec.models.prior import ExactPrior, tokens
from xtec.models.spectrum import Latents
from xtec.pixels import Pixels
from xtec.train.batch import Batch, latents_of
from xtec.train.loss import bits as ideal_bits
from xtec.train.loss import spent

COMPRESSIONS = (1.0, 4.0, 20.0, 100.0, 400.0)
TILE = 256
MEANS = (0.5, 2.0)
OUTLIERS = (0, 6)
DRAWN = 3, 8, 8
"""Frames, rows and columns of latents that are drawn: 128 x 128 pixels."""
TINIEST = 1e-300
HEAD = (
    "compression", "prior_bits", "ideal bpppb", "payload bpppb", "exact arithmetic and tables",
    "coder", "together",
)  # fmt: skip
DRAWN_HEAD = (
    "spread of means", "outliers", "scales", "prior_bits", "ideal bits per latent",
    "payload bits per latent", "tables", "exact arithmetic", "coder", "together",
)  # fmt: skip


class Cost(NamedTuple):
    """Bits of the same latents, counted in three ways."""

    ideal: float
    exact: float
    payload: float


class DrawnCost(NamedTuple):
    """Bits of latents drawn from the float network."""

    cost: Cost
    tables: float
    """With the float network's means and scales in the tables."""
    scales: tuple[float, float]
    """Standard deviations that the network predicts, all but a thousandth at either end."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.full_size:
        full_size(options)
        return
    print(about(options, "torch"))
    cubes = [c[:, :, :TILE, :TILE] for c in data.pairs(options.data, quick=options.quick).values()]
    numbers = sum(c.size for c in cubes)
    rows = []
    for compression in tqdm(options.compression, leave=False):
        settings = Settings(model=options.model, compression=compression)
        for bits in options.bits or [settings.card.config.prior_bits]:
            found = Experiment(settings, bits)
            costs = [found.cost(cube, settings.level) for cube in cubes]
            total = Cost(*(sum(column) for column in zip(*costs, strict=True)))
            rows.append((f"{compression:g}", bits, *_row(total, numbers)))
    print(table(HEAD, rows))


def _parser() -> argparse.ArgumentParser:
    made = parser("What exact arithmetic, tables and coder cost in bits.")
    made.add_argument("--quick", action="store_true", help="a third of the cubes")
    made.add_argument("--compression", type=float, nargs="+", default=COMPRESSIONS)
    made.add_argument("--bits", type=int, nargs="+", help="prior_bits to try")
    made.add_argument("--full-size", action="store_true", help="TEC-TT with random weights")
    made.add_argument("--means", type=float, nargs="+", default=MEANS, help="see random_tt")
    made.add_argument("--outliers", type=int, nargs="+", default=OUTLIERS, help="see random_tt")
    return made


def full_size(options: argparse.Namespace) -> None:
    """Cost of TEC-TT for some spreads of the means and some precisions."""
    print(machine(options.threads, "torch"))
    frames, *size = DRAWN
    print(f"random weights; {frames} frames of {size[0]} x {size[1]} latents, drawn\n")
    rows = []
    for means, outliers in product(options.means, options.outliers):
        network = random_tt.network(means=means, outliers=outliers)
        q = sampled.draw(network, *DRAWN)
        for bits in options.bits or [network.config.prior_bits]:
            cost, tables, scales = drawn_cost(network, q, bits)
            span = " to ".join(f"{s:.2g}" for s in scales)
            each = (f"{x / q.numel():.5f}" for x in (cost.ideal, cost.payload))
            steps = _shares(cost.ideal, cost.ideal, tables, cost.exact, cost.payload)
            whole = _shares(cost.ideal, cost.ideal, cost.payload)
            rows.append((f"{means:g}", outliers, span, bits, *each, *steps, *whole))
    print(table(DRAWN_HEAD, rows))


class Experiment:
    """The embedded family's network in floats, and exactly with some precision."""

    def __init__(self, settings: Settings, bits: int) -> None:
        self.network = weights.load(settings.card)
        if not isinstance(self.network, ContextTransformer):
            raise InputError(f"{settings.model} is not of the embedded family.")
        rounded = weights.load(settings.card)
        rounded.config = dataclasses.replace(rounded.config, prior_bits=bits)
        self.exact = LappedModel(rounded, select("cpu"))

    @torch.inference_mode()
    def cost(self, cube: Pixels, level: int) -> Cost:
        """Count the latents of one chunk."""
        pixels = torch.from_numpy(cube.astype(np.float32))
        found = analyse(pixels, level, self.network.config.lags)
        shape = cube.shape[2] // SIDE, cube.shape[3] // SIDE
        whole = [torch.arange(s) for s in SIZES]
        teacher = latents_of([found], level, shape, self.network.config)
        with torch.autocast("cpu", enabled=False):
            ideal = spent(self.network, Batch(*teacher, some=whole, numbers=cube.size))
        symbols, rows = self._walked(found[1], Walk(self.exact, found[0], level, cube.shape))
        payload, _ = rans.encode(symbols, rows, load(), [len(symbols)])
        return Cost(float(ideal.sum()), code_length(symbols, rows).sum(), 8 * len(payload))

    def _walked(
        self, frames: list[Latents], walk: Walk
    ) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
        """Symbols and rows of given latents."""
        symbols: list[NDArray[np.int32]] = []
        rows: list[NDArray[np.uint16]] = []
        for frame in frames:

            def take(
                blocks: Tensor, octaves: Sequence[int], found: Sequence[Distribution],
                frame: Latents = frame,
            ) -> Latents:  # fmt: skip
                wanted = [frame[o][blocks] for o in octaves]
                for q, d in zip(wanted, found, strict=True):
                    symbols.append((q.int() - d.centre).numpy().ravel())
                    rows.append(d.row.numpy().ravel().astype(np.uint16))
                return wanted

            walk.frame(take)
        return np.concatenate(symbols), np.concatenate(rows)


@torch.inference_mode()
def drawn_cost(network: TemporalTransformer, q: Tensor, bits: int) -> DrawnCost:
    """Count latents (B, T, C, h, w) with a TEC-TT network in floats, and with some precision."""
    mean, scale, _ = (x.double() for x in network.prior(q))
    deviation = sigma(scale)
    ideal = ideal_bits(q.double(), mean, deviation, smallest=TINIEST).sum()
    arithmetic, rounded = select("cpu"), copy.copy(network)
    rounded.config = dataclasses.replace(network.config, prior_bits=bits)
    rows = Rows(rounded.config.scale_map, arithmetic.device)
    means, scales = (tokens((x * ONE).round()) for x in (mean, scale))
    in_float = _coded(q, rows(means.double(), scales.float()))
    in_integers = _coded(q, ExactPrior(rounded, arithmetic).encode(q)[0])
    payload, _ = rans.encode(*in_integers, load(), [len(in_integers[0])])
    return DrawnCost(
        Cost(float(ideal), code_length(*in_integers).sum(), 8 * len(payload)),
        tables=code_length(*in_float).sum(),
        scales=tuple(np.quantile(deviation, (0.001, 0.999))),
    )


def _coded(q: Tensor, found: Distribution) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Symbols and rows of whole chunks in coding order."""
    both = ((tokens(q) - found.centre), found.row)
    symbols, rows = (x.transpose(2, 3).flatten().numpy() for x in both)
    return symbols.astype(np.int32), rows.astype(np.uint16)


def code_length(symbols: NDArray[np.int32], rows: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Bits of each symbol at the frequencies of its row, escapes with their tail."""
    t = load()
    entry = symbols - t.lows[rows]
    last = t.sizes[rows] - 1
    escaped = (entry < 0) | (entry >= last)
    beyond = np.where(escaped, np.where(entry < 0, -entry - 1, entry - last), 0)
    at = t.starts[rows] + np.where(escaped, last, entry)
    counts = t.cdf[at + 1].astype(float) - t.cdf[at]
    order = np.maximum(0, np.floor(np.log2(t.sizes[rows])).astype(int) - 3)
    tail = 2 + order + 2 * np.floor(np.log2((beyond >> order) + 1))
    length: NDArray[np.float64] = FREQUENCY_BITS - np.log2(counts) + np.where(escaped, tail, 0)
    return length


def _row(cost: Cost, numbers: int) -> list[str]:
    return [
        f"{cost.ideal / numbers:.5f}",
        f"{cost.payload / numbers:.5f}",
        *_shares(cost.ideal, cost.ideal, cost.exact, cost.payload),
        *_shares(cost.ideal, cost.ideal, cost.payload),
    ]


def _shares(whole: float, *steps: float) -> list[str]:
    """What each step adds to the one before, as shares of the whole."""
    return [f"{100 * (after - before) / whole:+.3f}%" for before, after in pairwise(steps)]


if __name__ == "__main__":
    main()
