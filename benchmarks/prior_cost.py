"""What exactness costs: bits of real payloads against the float network's ideal code length.

    python benchmarks/prior_cost.py                       the model as it is
    python benchmarks/prior_cost.py --bits 7 8 10 14      other roundings of weights and activations

On the latents of the validation cubes, step by step from the float network to the bytes:

1. ideal    Gaussians with the float32 network's means and deviations; no table, no coder
2. escapes  symbols beyond the support of their table row at the price of an escape, which is
            below the Gaussian's own where the network was surprised
3. tables   all other symbols at the price of the nearest row of the frequency tables
4. exact    rows chosen by the exact prior, in integers; still without a coder
5. payload  the bytes that the codec writes

Below: data, common, xtec.engine, xtec.models, xtec.coding.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import data
import numpy as np
import torch
from common import about, parser, table
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from xtec.codec import Settings
from xtec.coding import rans
from xtec.coding.tables import FRACTION_BITS, FREQUENCY_BITS, SCALE_BITS, load
from xtec.engine import Engine
from xtec.models import exact, weights
from xtec.models.network import TemporalTransformer, sigma
from xtec.models.prior import ExactPrior
from xtec.pixels import Pixels, prepare
from xtec.train.loss import bits

COMPRESSIONS = (1.0, 3.0, 10.0, 30.0, 100.0, 400.0)
QUICK_COMPRESSIONS = (10.0, 100.0)
TILE = 256
HEAD = (
    "compression", "prior_bits", "ideal bpppb", "payload bpppb",
    "escapes", "tables", "exact arithmetic", "coder", "together",
)  # fmt: skip

Floats = NDArray[np.float64]


class Cost(NamedTuple):
    """Bits of the same latents, counted in five ways."""

    ideal: float
    escapes: float
    tables: float
    exact: float
    payload: float

    def shares(self) -> list[float]:
        """What each step adds to the one before, and all together, in parts of the ideal."""
        steps = [after - before for before, after in pairwise(self)]
        return [x / self.ideal for x in (*steps, self.payload - self.ideal)]


class Experiment:
    """One model on the CPU, with its exact prior in several precisions.

    Parameters
    ----------
    settings : Settings
        Names the model.
    precisions : sequence of int
        Bits that weights and activations are rounded to; empty: the model's own.
    """

    def __init__(self, settings: Settings, precisions: Sequence[int]) -> None:
        card = settings.card
        self.engine = Engine(card, "cpu")
        self.network = weights.load(card)
        self.edges = load().scale_edges[card.config.scale_map]
        self.priors = {
            b: ExactPrior(_with_precision(weights.load(card), b), exact.select("cpu"))
            for b in precisions or [card.config.prior_bits]
        }

    @torch.inference_mode()
    def costs(self, chunk: Pixels, settings: Settings) -> dict[int, Cost]:
        """Cost of one chunk (time, band, y, x) for each precision."""
        level = settings.level
        coded = self.engine.encode(prepare(chunk, settings).network[None], level)[0]
        q = torch.from_numpy(coded.latents)[None]
        before = self._float_costs(q, level)
        found = {}
        for precision, prior in self.priors.items():
            distribution, _ = prior.encode(q, level)
            symbols = (distribution.tokens(q) - distribution.centre).numpy().ravel()
            rows = distribution.row.numpy().astype(np.uint16).ravel()
            length, _ = code_length(symbols, rows)
            payload, _ = rans.encode(symbols, rows, load(), [len(symbols)])
            found[precision] = Cost(*before, length.sum().item(), 8.0 * len(payload))
        return found

    def _float_costs(self, q: Tensor, level: int) -> tuple[float, float, float]:
        """Ideal code length, with escapes, and with the tables for all symbols."""
        mean, scale, _ = self.network.prior(q.float(), torch.tensor([level]))
        q, mean, scale = (x.double().flatten() for x in (q, mean, scale))
        ideal = bits(q, mean, sigma(scale, self.network.config)).numpy()
        symbols, rows = quantised(q.numpy(), mean.numpy(), scale.numpy(), self.edges)
        length, escaped = code_length(symbols, rows)
        with_escapes = np.where(escaped, length, ideal)
        return ideal.sum().item(), with_escapes.sum().item(), length.sum().item()


def quantised(
    q: Floats, mean: Floats, scale: Floats, edges: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Symbols and table rows for real means and raw scales, as docs/format.md says."""
    steps = 1 << FRACTION_BITS
    shifted = np.floor(mean * steps + 0.5).astype(np.int64) + steps // 2
    scale_index = np.searchsorted(edges, np.rint(scale * (1 << SCALE_BITS)), side="right")
    symbols = (q - (shifted >> FRACTION_BITS)).astype(np.int32)
    return symbols, load().rows(scale_index, shifted & steps - 1)


def code_length(
    symbols: NDArray[np.int32], rows: NDArray[np.uint16]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Bits that a perfect coder spends on each symbol, and which of them are escapes."""
    tables = load()
    escape = tables.sizes[rows] - 1
    entry = symbols - tables.lows[rows]
    escaped = (entry < 0) | (entry >= escape)
    at = tables.starts[rows] + np.where(escaped, escape, entry)
    count = tables.cdf[at + 1] - tables.cdf[at]
    distance = np.where(escaped, np.maximum(-entry, entry - escape + 1), 1)
    tail = escaped * (2 * np.floor(np.log2(distance)) + 2)
    return FREQUENCY_BITS - np.log2(count) + tail, escaped


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(about(options, "torch"))
    experiment = Experiment(Settings(model=options.model), options.bits)
    cubes = data.pairs(options.data, quick=options.quick)
    count = sum(cube.size for cube in cubes.values())
    rows: list[tuple[object, ...]] = []
    compressions = options.compression or (QUICK_COMPRESSIONS if options.quick else COMPRESSIONS)
    for compression in tqdm(compressions, desc="prior", leave=False):
        settings = Settings(model=options.model, compression=compression)
        chunks = [experiment.costs(chunk, settings) for chunk in _chunks(cubes)]
        for precision in experiment.priors:
            cost = Cost(*map(sum, zip(*(c[precision] for c in chunks), strict=True)))
            rates = (f"{x / count:.5f}" for x in (cost.ideal, cost.payload))
            shares = (f"{x:+.3%}" for x in cost.shares())
            rows.append((f"{compression:g}", precision, *rates, *shares))
    print(table(HEAD, rows))


def _parser() -> argparse.ArgumentParser:
    made = parser("Bits of the exact prior against the float network's ideal code length.")
    made.add_argument("--quick", action="store_true", help="a third of the cubes, two settings")
    made.add_argument("--compression", type=float, nargs="+")
    made.add_argument("--bits", type=int, nargs="+", default=[], help="prior_bits to try")
    return made


def _chunks(cubes: dict[str, Pixels]) -> Iterator[Pixels]:
    for cube in cubes.values():
        for y in range(0, cube.shape[2], TILE):
            for x in range(0, cube.shape[3], TILE):
                yield cube[:, :, y : y + TILE, x : x + TILE]


def _with_precision(network: TemporalTransformer, prior_bits: int) -> TemporalTransformer:
    network.config = dataclasses.replace(network.config, prior_bits=prior_bits)
    return network


if __name__ == "__main__":
    main()
