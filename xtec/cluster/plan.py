"""What a long job will take, before it begins: from a few of the cube's own chunks, really coded.

Below: speed, workers, table, cube, codec. Above: accessor.
"""

from collections.abc import Hashable
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xtec.cluster import speed
from xtec.cluster.ready import Wish
from xtec.cluster.table import Table
from xtec.cluster.workers import active_client
from xtec.codec import Settings
from xtec.cube.chunks import Sizes, chunk_shape
from xtec.cube.layout import find_cube
from xtec.cube.packing import packing_of
from xtec.cube.sampling import Sample, take

if TYPE_CHECKING:
    from distributed import Client

HOUR_S = 3600

OFFICIAL_ENCODE, OFFICIAL_DECODE = 1.9e6, 1.5e6
"""Raw bytes per second of a network of the official TEC-TT size on one core, see `MEASURED`."""
MEASURED = "one core of an Intel Xeon with AVX-512 VNNI, torch 2.13.0, 2026-11-23"
"""Where and when; benchmarks/scaling.py prints it, benchmarks/RESULTS.md keeps it."""


@dataclass(frozen=True, repr=False)
class Plan(Table):
    """What it takes to compress a cube. Sizes in bytes, times in hours of the clock."""

    title = "xtec plan"

    model: str
    compression: float
    shape: tuple[int, ...]
    """(time, band, y, x)"""
    chunk: tuple[int, ...]
    chunks: int
    raw_bytes: int
    """As 16-bit digital numbers."""
    expected_bytes: int
    """Of all chunks, if they are like the sample."""
    expected_spread: float
    """Standard error of that, as a part of it, as far as the sample tells; nan for one chunk."""
    sampled_chunks: int
    workers: int
    """Processes that will code."""
    threads: int
    """Their threads."""
    bytes_per_second: float
    """Raw, of all workers together, coding only: reading the source and writing the store come on
    top where they are slower than that."""
    hours: float
    """To code it all, on these workers."""
    core_hours_official_encode: float
    """The same with a network of the official TEC-TT size, at the speed of `MEASURED`."""
    core_hours_official_decode: float
    """And to read it all."""

    @property
    def ratio(self) -> float:
        """How many times smaller."""
        return self.raw_bytes / self.expected_bytes

    @property
    def bits_per_pixel_per_band(self) -> float:
        """Expected bits per value; digital numbers have 16."""
        return 8 * self.expected_bytes / prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """All of it, the derived figures too."""
        derived = {"ratio": self.ratio, "bits_per_pixel_per_band": self.bits_per_pixel_per_band}
        return asdict(self) | derived

    def rows(self) -> list[tuple[str, str]]:
        """As a table for people."""
        some = np.isfinite(self.expected_spread)
        spread = f" +- {100 * self.expected_spread:.0f} %" if some else ""
        who = f"{self.workers} workers" if self.workers > 1 else "1 process"
        speed_mb = f"{self.bytes_per_second / 1e6:.3g} MB/s"
        encode, decode = self.core_hours_official_encode, self.core_hours_official_decode
        size = f"{_size(self.expected_bytes)}{spread}, {self.ratio:.1f} times smaller"
        bits = f"{self.bits_per_pixel_per_band:.3f} per pixel per band"
        official = f"{encode:,.3g} core hours to write, {decode:,.3g} to read"
        return [
            ("model", f"{self.model}, compression {self.compression:g}"),
            ("cube", f"{_by(self.shape)}, {_size(self.raw_bytes)}"),
            ("chunks", f"{self.chunks:,} of {_by(self.chunk)}; {self.sampled_chunks} tried"),
            ("expected", size),
            ("bits", bits),
            ("time", f"{_time(self.hours)} on {who}, {self.threads} threads, {speed_mb}"),
            ("official", f"{official}, with a TEC-TT of 225 M parameters ({MEASURED})"),
        ]


def plan(
    dataset: xr.Dataset,
    *,
    compression: float | None = None,
    model: str = "embedded",
    chunks: Sizes | None = None,
    offset: int | None = None,
    nodata: int | None = None,
    variable: Hashable | None = None,
    client: "Client | None" = None,
) -> Plan:
    """Foretell size and time; parameters are those of `xtec.accessor.Tec.plan`."""
    cube = find_cube(dataset, variable)
    array = cube.variable
    packing = packing_of(array, nodata, offset)
    settings = Settings(
        model=model,
        compression=Settings.compression if compression is None else compression,
        bands=cube.bands,
        nodata=packing.nodata,
        offset=packing.offset,
    )
    chunk = chunk_shape(chunks, array.dims, array.shape)
    sample = take(array.variable, chunk, packing)
    client = client or active_client()
    if client is None:
        found = speed.here(sample.chunks, settings)
    else:
        found = speed.on_workers(client, sample.chunks, Wish(model, settings, None, None))
    return _made(sample, settings, array.shape, chunk, found)


def _made(
    sample: Sample,
    settings: Settings,
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    found: speed.Speed,
) -> Plan:
    sizes = np.array(found.sizes, float)
    raw = 2 * prod(shape)
    # Chunks at the edge are coded at full size: their time is that of the others.
    coded = sample.of * 2 * prod(chunk)
    few = len(sizes) < 2
    spread = np.nan if few else sizes.std(ddof=1) / np.sqrt(len(sizes)) / sizes.mean()
    return Plan(
        model=settings.model,
        compression=settings.compression,
        shape=tuple(shape),
        chunk=tuple(chunk),
        chunks=sample.of,
        raw_bytes=raw,
        expected_bytes=round(sizes.sum() / sample.values * prod(shape)),
        expected_spread=float(spread),
        sampled_chunks=len(sizes),
        workers=found.workers,
        threads=found.threads,
        bytes_per_second=found.bytes_per_second,
        hours=coded / found.bytes_per_second / HOUR_S,
        core_hours_official_encode=coded / OFFICIAL_ENCODE / HOUR_S,
        core_hours_official_decode=coded / OFFICIAL_DECODE / HOUR_S,
    )


def _size(count: float) -> str:
    power = min(max(len(str(int(count))) - 1, 0) // 3, 6)
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    return f"{count / 1000**power:.3g} {units[power]}"


def _time(hours: float) -> str:
    """Hours in the unit that people would say it in."""
    for unit, length in (("years", 365.25 * 24), ("days", 24.0), ("hours", 1.0), ("min", 1 / 60)):
        if hours >= 2 * length:
            return f"{hours / length:.1f} {unit}"
    return f"{hours * HOUR_S:.1f} s"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)
