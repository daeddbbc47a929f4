"""``xtec bench``: how fast and how well this machine codes, without any disk.

Below: opening, options, codec, cube, metrics. Above: the room's face.
"""

import argparse
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add as plus

import numpy as np

from xtec.cli.opening import open_cube
from xtec.cli.options import Commands, add_codec, add_json, add_meaning, bound, command, show
from xtec.cluster.table import Table
from xtec.codec import Settings, decode_chunks, encode_chunks
from xtec.cube.bounds import bounds_of
from xtec.cube.chunks import chunk_shape
from xtec.cube.layout import find_cube
from xtec.cube.packing import packing_of
from xtec.cube.sampling import take
from xtec.metrics import compare
from xtec.pixels import Pixels
from xtec.settings import fitted

EXAMPLES = """\
  xtec bench
  xtec bench cube.zarr --compression 50 --json
  OMP_NUM_THREADS=1 xtec bench --size 256 --dates 8"""


@dataclass(frozen=True, repr=False)
class Bench(Table):
    """What was measured; megabytes are 10^6 bytes of pixels with 16 bits."""

    title = "xtec bench"

    cube: str
    model: str
    compression: float
    chunks: int
    chunk: tuple[int, ...]
    encode_mb_per_s: float
    decode_mb_per_s: float
    bits_per_pixel_per_band: float
    """Of the sampled chunks, without what lies beyond the cube's edge."""
    psnr_pooled: float
    """In dB over 10,000 DN, all bands, valid pixels."""
    max_error: float
    """Largest of any valid pixel, in DN."""
    machine: str
    cores: int
    threads: int
    """Of torch."""

    def rows(self) -> list[tuple[str, str]]:
        """As a table for people."""
        shape = " x ".join(map(str, self.chunk))
        return [
            ("cube", f"{self.cube}; {self.chunks} chunks of {shape}"),
            ("model", f"{self.model}, compression {self.compression:g}"),
            ("encode", f"{self.encode_mb_per_s:.3g} MB of pixels per second"),
            ("decode", f"{self.decode_mb_per_s:.3g} MB of pixels per second"),
            ("bits", f"{self.bits_per_pixel_per_band:.4f} per pixel per band"),
            ("PSNR", f"{self.psnr_pooled:.2f} dB over 10,000 DN, all bands"),
            ("max error", f"{self.max_error:g} DN"),
            ("machine", f"{self.machine}, {self.cores} cores, {self.threads} threads"),
        ]


def add(commands: Commands) -> None:
    """Add the command."""
    about = "measure speed, size and error on this machine, on the sample cube or one of yours"
    parser = command(commands, "bench", about, EXAMPLES, run)
    parser.add_argument("path", nargs="*", metavar="PATH", help="as IN of xtec compress")
    add_codec(parser)
    parser.add_argument("--max-error", type=bound, metavar="DN", help="as of xtec compress")
    parser.add_argument("--size", type=int, default=512, help="rows and columns of the sample cube")
    parser.add_argument("--dates", type=int, default=8, help="of the sample cube")
    add_meaning(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Measure."""
    from xtec import sample

    if options.path:
        source, name = open_cube(options.path), " ".join(options.path)
    else:
        source = sample.cube(dates=options.dates, size=options.size)
        name = f"the sample cube, {options.dates} dates of {options.size} x {options.size}"
    cube = find_cube(source, options.variable)
    packing = packing_of(cube.variable, options.nodata, options.offset)
    settings = Settings(
        model=options.model,
        compression=Settings.compression if options.compression is None else options.compression,
        bands=cube.bands,
        nodata=packing.nodata,
        offset=packing.offset,
        max_error=bounds_of(options.max_error, cube.bands, None),
    )
    if options.compression is None:
        settings = fitted(settings)
    chunk = chunk_shape(options.chunks, cube.variable.dims, cube.variable.shape)
    sample_of = take(cube.variable.variable, chunk, packing)
    found = measure(sample_of.chunks, settings, name, sample_of.values)
    show(found, asdict(found), as_json=options.json)


def measure(chunks: Sequence[Pixels], settings: Settings, cube: str, values: int) -> Bench:
    """Encode and decode chunks, once to load and compile, then once to be timed.

    Parameters
    ----------
    chunks : sequence of uint16 or int16, shape (time, band, y, x)
    settings : Settings
    cube : str
        What they are of.
    values : int
        How many of their values lie inside the cube.
    """
    from xtec.engine import threads_now

    corner = np.ascontiguousarray(chunks[0][:2, :, :64, :64])
    decode_chunks(encode_chunks([corner], settings))
    begin = time.perf_counter()
    streams = encode_chunks(chunks, settings)
    encoded = time.perf_counter()
    decoded = decode_chunks(streams)
    done = time.perf_counter()
    total = reduce(
        plus,
        (
            compare(one, other, valid=one != settings.nodata, offset=settings.offset)
            for before, after in zip(chunks, decoded, strict=True)
            for one, other in zip(before, after, strict=True)
        ),
    )
    megabytes = sum(chunk.nbytes for chunk in chunks) / 1e6
    return Bench(
        cube=cube,
        model=settings.model,
        compression=settings.compression,
        chunks=len(chunks),
        chunk=chunks[0].shape,
        encode_mb_per_s=megabytes / (encoded - begin),
        decode_mb_per_s=megabytes / (done - encoded),
        bits_per_pixel_per_band=8 * sum(map(len, streams)) / values,
        psnr_pooled=total.psnr_pooled,
        max_error=float(np.nanmax(total.max_error)),
        machine=_machine(),
        cores=os.cpu_count() or 1,
        threads=threads_now(),
    )


def _machine() -> str:
    """Name of the processor, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return (names or [platform.processor() or platform.machine()])[0]
