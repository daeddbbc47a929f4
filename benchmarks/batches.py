"""TEC-TT of the published size, one chunk and many at once: frames a second on any device.

    python benchmarks/batches.py                         on the CPU
    python benchmarks/batches.py --device cuda           and streams exchanged with the CPU

Weights are random (`random_tt`), chunks synthetic, 256 x 256 pixels. Timed is what a store's chunks
go through, without masks and container: standardised pixels to the entropy code and back, chunks
collected into batches by the engine.

Below: random_tt, vs_terracodec, side_xtec, common, xtec.engine. Above: nothing.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import random_tt
import torch
from common import machine, table
from numpy.typing import NDArray
from side_xtec import Payload
from vs_terracodec import standardised

from xtec import sample
from xtec.coding import rans, stream, tables
from xtec.engine import Engine
from xtec.models.config import S2L1C, ModelConfig

EXCHANGED = 2
"""Chunks that go from one device to another and back."""

Chunk = NDArray[np.float32]


def main(arguments: Sequence[str] | None = None, config: ModelConfig = S2L1C) -> None:
    """Run from the command line."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    cuda = options.device.startswith("cuda")
    card = torch.cuda.get_device_name(options.device) if cuda else "no GPU used"
    print(f"{machine(options.threads, 'torch')}; {card}")
    chunks = cut(max(*options.chunks, EXCHANGED), options.frames, options.size)
    network = random_tt.network(torch.from_numpy(chunks[0][:1]), config=config)
    engine = Engine(copy.deepcopy(network), options.device)
    print(f"chunks of {' x '.join(map(str, chunks[0].shape))}; median of {options.runs} runs\n")
    rows = [speed(engine, chunks[:count], options.runs) for count in options.chunks]
    print(table(("chunks at once", "encode, frames/s", "decode, frames/s"), rows))
    if cuda:
        sides = {options.device: engine, "cpu": Engine(network, "cpu")}
        print(exchange(sides, chunks[:EXCHANGED]))


def cut(count: int, frames: int, size: int) -> list[Chunk]:
    """Standardised chunks of a synthetic cube."""
    across = int(np.ceil(np.sqrt(count)))
    cube = sample.cube(dates=frames, size=across * size).reflectance.to_numpy()
    places = [divmod(n, across) for n in range(count)]
    tiles = (cube[..., y * size :, x * size :][..., :size, :size] for y, x in places)
    return [np.ascontiguousarray(standardised(tile)) for tile in tiles]


def encode(engine: Engine, chunks: Sequence[Chunk]) -> list[Payload]:
    """All at once, as a writer of a store does it."""

    def one(chunk: Chunk) -> Payload:
        (coded,) = engine.encode([chunk], 0)
        code, ends = rans.encode(coded.symbols, coded.rows, tables.load(), coded.ends)
        return Payload(code, ends, stream.frame_crcs(coded.latents), chunk.shape)

    return engine.each(one, chunks)


def decode(engine: Engine, payloads: Sequence[Payload]) -> list[Chunk]:
    """Undo it; what is not the latents that were coded is an error."""

    def one(payload: Payload) -> Chunk:
        reader = rans.Decoder(payload.code, tables.load())
        (decoded,) = engine.decode([reader.decode], 0, payload.shape)
        reader.finish()
        if stream.frame_crcs(decoded.latents) != payload.crcs:
            raise RuntimeError("the latents came back wrong")
        return decoded.pixels()

    return engine.each(one, payloads)


def speed(engine: Engine, chunks: Sequence[Chunk], runs: int) -> tuple[int, str, str]:
    """Frames a second each way; once before that to compile, and to learn what a chunk takes."""
    payloads = encode(engine, chunks)
    decode(engine, payloads)
    frames = len(chunks) * len(chunks[0])
    rates = (
        frames / statistics.median(_seconds(function, engine, items) for _ in range(runs))
        for function, items in ((encode, chunks), (decode, payloads))
    )
    found = [f"{rate:.2f}" for rate in rates]
    return len(chunks), found[0], found[1]


def exchange(sides: dict[str, Engine], chunks: Sequence[Chunk]) -> str:
    """Encode on each device, decode on the other. Decoding fails where a latent differs."""
    rows = []
    for writer, reader in (tuple(sides), tuple(sides)[::-1]):
        payloads = encode(sides[writer], chunks)
        crossed, same = (decode(sides[name], payloads) for name in (reader, writer))
        apart = np.abs(np.array(crossed) - same).max()
        rows.append((writer, reader, f"all {len(payloads)} streams", f"{apart:.1e}"))
    return table(("written on", "read on", "latents bit-equal", "pixels apart, deviations"), rows)


def _seconds(function: Callable[[Engine, Any], Any], engine: Engine, items: Any) -> float:
    begin = time.perf_counter()
    function(engine, items)  # what it gives lies in the host's memory: the device is done
    return time.perf_counter() - begin


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="TEC-TT of the published size, in batches.")
    made.add_argument("--device", default="cpu", help="a torch device, for example cuda")
    made.add_argument("--chunks", type=int, nargs="+", default=[1, 16], help="at once")
    made.add_argument("--frames", type=int, default=4, help="dates of a chunk")
    made.add_argument("--size", type=int, default=256, help="rows and columns of a chunk")
    made.add_argument("--runs", type=int, default=3)
    made.add_argument("--threads", type=int, default=2)
    return made


if __name__ == "__main__":
    main()
