"""Speed and memory of encoding and decoding, beside OpenJPEG on the same cube in the same run.

    python benchmarks/throughput.py                     on the CPU, one thread
    python benchmarks/throughput.py --threads 2
    python benchmarks/throughput.py --device cuda       and streams exchanged with the CPU

MB/s count raw pixels, 2 bytes each (1 MB = 10**6 bytes). Each codec runs in a process of its own,
so that its peak of memory is its own.

Below: coders, coders_jpeg2000, curves, data, common.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from coders import Coder, Learned
from coders_jpeg2000 import LEVEL_OF_PEAK, Bands
from common import about, alone, parser, table
from curves import Point, point

from xtec.codec import Settings
from xtec.models import registry

MB = 1e6


@dataclass(frozen=True)
class Measured:
    """What one codec did to the cube."""

    name: str
    raw_mb: float
    encode_s: tuple[float, ...]
    decode_s: tuple[float, ...]
    first_s: float
    """The first date once through, with everything that is loaded and compiled only once."""
    before_mb: float
    """Memory before that: the interpreter, numpy, the coders' imports and the cube."""
    peak_mb: float
    result: Point

    @property
    def encode_mb_s(self) -> float:
        """Median over the runs."""
        return self.raw_mb / statistics.median(self.encode_s)

    @property
    def decode_mb_s(self) -> float:
        """Median over the runs."""
        return self.raw_mb / statistics.median(self.decode_s)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    options = _parser().parse_args(arguments)
    # Inherited by the processes: the threads, and where a model of one's own is found.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ["XTEC_MODEL_PATH"] = str(registry.resolve(options.model).path.parent)
    print(about(options, "torch", "imagecodecs"))
    settings = Settings(model=options.model, compression=options.compression)
    learned = Learned(settings, threads=options.threads, device=options.device)
    with tempfile.TemporaryDirectory() as folder:
        cube = Path(folder) / "cube.npy"
        shape = alone(_save, options.data, options.cube, options.dates, cube)
        print(f"cube {options.cube}, {shape}, median of {options.repeats} runs\n")
        ours = alone(measure, learned, cube, options.repeats)
        bands = Bands(ours.result.psnr + LEVEL_OF_PEAK, options.threads)
        theirs = alone(measure, bands, cube, options.repeats)
        print(_table(ours, theirs))
        if options.device != "cpu":
            print(alone(exchange, learned, cube))


def measure(coder: Coder, path: Path, repeats: int) -> Measured:
    """Time a codec; to be run in a process of its own."""
    cube = np.load(path)
    before = _peak_mb()
    begin = time.perf_counter()
    coder.decode(coder.encode(cube[:1]), cube[:1].shape)
    first = time.perf_counter() - begin
    encode_s, decode_s = [], []
    for _ in range(repeats):
        begin = time.perf_counter()
        streams = coder.encode(cube)
        middle = time.perf_counter()
        decoded = coder.decode(streams, cube.shape)
        encode_s.append(middle - begin)
        decode_s.append(time.perf_counter() - middle)
    peak = _peak_mb()  # comparing takes memory of its own
    result = point(sum(map(len, streams)), cube, decoded)
    times = tuple(encode_s), tuple(decode_s)
    return Measured(coder.name, cube.nbytes / MB, *times, first, before, peak, result)


def exchange(there: Learned, path: Path) -> str:
    """Encode on a device and decode on the CPU, and the other way round.

    The latents of every stream are compared with their checksum by the decoder, which raises
    where a single one differs; pixels may differ by the rounding of the synthesis.
    """
    cube, here = np.load(path), replace(there, device="cpu")
    rows = []
    for writer, reader in ((there, here), (here, there)):
        streams = writer.encode(cube)
        crossed, same = (coder.decode(streams, cube.shape) for coder in (reader, writer))
        apart = np.abs(crossed.astype(np.int32) - same).max()
        rows.append((writer.device, reader.device, f"all {len(streams)} streams", f"{apart} DN"))
    return table(("written on", "read on", "latents bit-equal", "pixels apart at most"), rows)


def _parser() -> argparse.ArgumentParser:
    made = parser("Speed and memory of the embedded model and of OpenJPEG.")
    made.add_argument("--device", default="cpu", help="a torch device, for example cuda")
    made.add_argument("--compression", type=float, default=20.0)
    made.add_argument("--cube", default="lasvegas", help="part of the name of a cube of val/")
    made.add_argument("--dates", type=int, default=8, help="at most so many of its dates")
    made.add_argument("--repeats", type=int, default=3)
    return made


def _save(data_folder: Path | None, name: str, dates: int, path: Path) -> tuple[int, ...]:
    """Unpack a cube where its memory does not count."""
    import data  # imports torch

    cube = data.one(data_folder, name)[:dates]
    np.save(path, cube)
    return cube.shape


def _peak_mb() -> float:
    """Most memory that this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


def _table(ours: Measured, theirs: Measured) -> str:
    rows: list[tuple[str, ...]] = [
        (
            m.name,
            f"{m.encode_mb_s:.2f}",
            f"{m.decode_mb_s:.2f}",
            f"{m.result.bpppb:.4f} @ {m.result.psnr:.2f}",
            f"{m.peak_mb:.0f} ({m.before_mb:.0f} before)",
            f"{m.first_s:.1f}",
        )
        for m in (ours, theirs)
    ]
    ratios = ours.encode_mb_s / theirs.encode_mb_s, ours.decode_mb_s / theirs.decode_mb_s
    rows.append((f"{ours.name} / {theirs.name}", *(f"{x:.3f}" for x in ratios), "", "", ""))
    head = "codec", "encode MB/s", "decode MB/s", "bpppb @ PSNR", "peak memory MB", "first date s"
    return table(head, rows)


if __name__ == "__main__":
    main()
