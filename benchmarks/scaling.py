"""From one process to many: throughput, memory, faults, and what Dask and Zarr cost.

    python benchmarks/scaling.py                       all but the last; minutes, on a quiet machine
    python benchmarks/scaling.py --parts workers memory
    python benchmarks/scaling.py --parts official      a network of the official TEC-TT size

Every ratio is of two runs beside each other in one call; what it must reach stands beside it. MB/s
count raw pixels, 2 bytes each (1 MB = 10**6 bytes). The cube is the synthetic one of
`xtec.sample`, 4 dates of 1,024 x 1,024 pixels, repeated to its full size and read block by block
from a file, so that no graph and no memory holds it.

Below: common, random_tt.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from common import about, alone, parser, table

import xtec.cluster
from xtec.codec import Settings, decode_chunk, decode_chunks, encode_chunk, encode_chunks
from xtec.sentinel2 import BANDS

MB = 1e6
DATES, TILE, SIDE, LARGE = 4, 256, 1024, 4096
CONCURRENT = 16
PARTS = ("workers", "together", "memory", "killed", "overhead", "official")


@dataclass(frozen=True)
class Line:
    """One figure and what it must reach."""

    what: str
    figure: str
    must: str = ""
    reached: bool | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    options = _parser().parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"  # of what starts from here; parts say otherwise
    print(about(options, "torch", "dask", "distributed", "zarr"))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), options.side, options.tile, options.model, options.compression)
        alone(job.draw)
        lines: list[Line] = []
        for part in options.parts:
            lines += globals()[part](job, options)
        print(table(("", "measured", "must reach", ""), [_cells(line) for line in lines]))


def _parser() -> argparse.ArgumentParser:
    made = parser("Many workers, many chunks, large cubes.")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:-1])
    made.add_argument("--compression", type=float, default=20.0)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--side", type=int, default=SIDE, help="pixels of the small cube")
    made.add_argument("--large", type=int, default=LARGE, help="pixels of the large cube")
    made.add_argument("--tile", type=int, default=TILE, help="pixels of a chunk")
    return made


@dataclass(frozen=True)
class Job:
    """A cube of any size to compress."""

    folder: Path
    side: int
    tile: int
    model: str
    compression: float

    def draw(self) -> None:
        """Draw the scene that is repeated."""
        from xtec import sample

        np.save(self._scene, sample.cube(dates=DATES, size=self.side).reflectance.to_numpy())

    @property
    def _scene(self) -> Path:
        return self.folder / "scene.npy"

    @property
    def settings(self) -> Settings:
        """What chunks are coded with."""
        return Settings(self.model, self.compression)

    def cube(self, side: int) -> xr.Dataset:
        """The scene, repeated to a size; lazy."""
        tiles = -(-side // self.tile)
        chunks = (DATES,), (len(BANDS),), (self.tile,) * tiles, (self.tile,) * tiles
        block = partial(_block, str(self._scene), self.side, self.tile)
        meta = np.empty((0,) * 4, np.uint16)
        data = da.map_blocks(block, chunks=chunks, dtype=np.uint16, meta=meta)
        names = np.array([band.name for band in BANDS], dtype=object)
        array = xr.DataArray(data, dims=("time", "band", "y", "x"), coords={"band": names})
        return array.to_dataset(name="dn")

    def write(self, side: int, name: str, *, resume: bool = False) -> tuple[float, Path]:
        """Compress; MB/s and the store."""
        cube, store = self.cube(side), self.folder / name
        begin = time.perf_counter()
        cube.tec.compress(
            store,
            model=self.model,
            compression=self.compression,
            chunks={"time": DATES, "y": self.tile, "x": self.tile},
            overwrite=True,
            resume=resume,
            progress=False,
        )
        return cube.dn.nbytes / MB / (time.perf_counter() - begin), store

    def chunks(self, count: int) -> list[np.ndarray[Any, Any]]:
        """Some chunks of the scene, in memory."""
        scene = np.load(self._scene, mmap_mode="r")
        side = self.side // self.tile
        places = [(n // side % side, n % side) for n in range(count)]
        return [_cut(scene, self.tile, y, x) for y, x in places]


def _block(path: str, side: int, tile: int, block_info: Any = None) -> Any:
    """One block of the repeated scene."""
    place = block_info[None]["chunk-location"]
    tiles = side // tile
    return _cut(np.load(path, mmap_mode="r"), tile, place[2] % tiles, place[3] % tiles)


def _cut(scene: Any, tile: int, y: int, x: int) -> Any:
    return np.array(scene[:, :, y * tile : (y + 1) * tile, x * tile : (x + 1) * tile])


@contextmanager
def cluster(workers: int, job: Job) -> Iterator[Any]:
    """Single-threaded workers that are ready."""
    from distributed import Client, LocalCluster

    options = {"n_workers": workers, "threads_per_worker": 1, "processes": True}
    with (
        environment(),  # Dask leaves in it what it sets for its workers
        LocalCluster(**options, memory_limit=0, dashboard_address=":0") as local,
        Client(local) as client,
    ):
        xtec.cluster.prepare(client, job.model)
        yield client


@contextmanager
def environment(**changes: str) -> Iterator[None]:
    """Variables for processes that start within; afterwards all are what they were before."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def workers(job: Job, options: argparse.Namespace) -> list[Line]:
    """Two workers beside one."""
    speeds = {}
    for count in (1, 2):
        with cluster(count, job):
            runs = [job.write(job.side, "workers.zarr")[0] for _ in range(options.repeats)]
        speeds[count] = statistics.median(runs)
    ratio = speeds[2] / speeds[1]
    return [
        Line("one single-threaded worker", f"{speeds[1]:.2f} MB/s"),
        Line("two single-threaded workers", f"{speeds[2]:.2f} MB/s"),
        Line("two / one", f"{ratio:.2f}", ">= 1.70", ratio >= 1.7),
    ]


def together(job: Job, options: argparse.Namespace) -> list[Line]:
    """Sixteen concurrent chunks beside chunk after chunk, in one process of two threads."""
    with environment(OMP_NUM_THREADS="2"):
        found = alone(_together, job, options.repeats)
    lines = []
    for what, (one_by_one, at_once) in found.items():
        lines += [
            Line(f"{what}, chunk after chunk", f"{one_by_one:.2f} MB/s"),
            Line(f"{what}, {CONCURRENT} concurrent chunks", f"{at_once:.2f} MB/s"),
            Line(f"{what}, concurrent / one by one", f"{at_once / one_by_one:.2f}", ">= 1.15",
                 at_once / one_by_one >= 1.15),
        ]  # fmt: skip
    return lines


def _together(job: Job, repeats: int) -> dict[str, tuple[float, float]]:
    settings, chunks = job.settings, job.chunks(CONCURRENT)
    streams = encode_chunks(chunks, settings)
    encode = partial(encode_chunk, settings=settings)
    raw = sum(chunk.nbytes for chunk in chunks) / MB

    def speeds(function: Callable[[Any], Any], items: Sequence[Any]) -> tuple[float, float]:
        def at_once() -> None:
            with ThreadPoolExecutor(CONCURRENT) as pool:
                list(pool.map(function, items))

        times = [(_seconds(lambda: list(map(function, items))), _seconds(at_once))
                 for _ in range(repeats)]  # fmt: skip
        before, after = (raw / statistics.median(x) for x in zip(*times, strict=True))
        return before, after

    assert encode_chunks(chunks, settings) == streams  # noqa: S101 - a benchmark of equal bytes
    return {"encode": speeds(encode, chunks), "decode": speeds(decode_chunk, streams)}


def memory(job: Job, options: argparse.Namespace) -> list[Line]:
    """A large cube beside a small one: peak of memory of a worker, and throughput."""
    found = {}
    for side in (job.side, options.large):
        with cluster(2, job) as client:
            job.write(job.side, "warm.zarr")
            speed, _ = job.write(side, "memory.zarr")
            found[side] = speed, max(client.run(_peak_mb).values())
    (small, small_mb), (large, large_mb) = found[job.side], found[options.large]
    names = [f"{DATES} x {len(BANDS)} x {s} x {s}" for s in (job.side, options.large)]
    return [
        Line(names[0], f"{small:.2f} MB/s, {small_mb:.0f} MB"),
        Line(names[1], f"{large:.2f} MB/s, {large_mb:.0f} MB"),
        Line("memory per worker, large / small", f"{large_mb / small_mb:.2f}", "<= 1.10",
             large_mb <= 1.1 * small_mb),
        Line("throughput, large / small", f"{large / small:.2f}", ">= 0.90",
             large >= 0.9 * small),
    ]  # fmt: skip


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def killed(job: Job, _options: argparse.Namespace) -> list[Line]:
    """A worker dies in the middle of a job, then a client."""
    with cluster(2, job) as client, ThreadPoolExecutor(1) as pool:
        _, store = job.write(job.side, "whole.zarr")
        expected = _files(store)
        running = pool.submit(job.write, job.side, "worker.zarr")
        before = _wait_for(job.folder, "worker.zarr", len(expected) // 4)
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        _, other = running.result()
    equal = _files(other) == expected
    return [
        Line("a worker killed with", f"{len(before)} of {len(expected)} chunks stored"),
        Line("the store", "equal" if equal else "different", "equal", equal),
        *_client_killed(job, expected),
    ]


def _client_killed(job: Job, expected: dict[str, bytes]) -> list[Line]:
    client = multiprocessing.get_context("spawn").Process(
        target=job.write, args=(job.side, "client.zarr")
    )
    client.start()
    _wait_for(job.folder, "client.zarr", len(expected) // 4)
    client.kill()
    client.join()
    before = _wait_for(job.folder, "client.zarr", 0)
    _, store = job.write(job.side, "client.zarr", resume=True)
    after = _wait_for(job.folder, "client.zarr", 0)
    again = sum(after[name] != written for name, written in before.items())
    equal = _files(store) == expected
    return [
        Line("a client killed with", f"{len(before)} of {len(expected)} chunks stored"),
        Line("of these, written again by resume=True", str(again), "0", again == 0),
        Line("the store", "equal" if equal else "different", "equal", equal),
    ]


def _wait_for(folder: Path, store: str, count: int) -> dict[str, int]:
    """The chunks of a store, finished or not, once there are so many; when they were written."""
    while True:
        places = (p for p in folder.glob(f"{store}*/dn/c/**/*") if p.suffix != ".partial")
        found = {str(p).partition("/dn/c/")[2]: p.stat().st_mtime_ns for p in places if p.is_file()}
        if len(found) >= count:
            return found
        time.sleep(0.02)


def _files(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.glob("dn/c/**/*")
            if p.is_file()}  # fmt: skip


def overhead(job: Job, options: argparse.Namespace) -> list[Line]:
    """The same chunks through Dask and Zarr and directly, one thread."""
    direct, through, direct_back, back = alone(_overhead, job, options.repeats)
    write, read = through / direct - 1, back / direct_back - 1
    return [
        Line("encode directly", f"{direct:.2f} s"),
        Line("through Dask and Zarr", f"{through:.2f} s"),
        Line("write overhead", f"{100 * write:.1f} %", "<= 10 %", write <= 0.1),
        Line("decode directly", f"{direct_back:.2f} s"),
        Line("through Dask and Zarr", f"{back:.2f} s"),
        Line("read overhead", f"{100 * read:.1f} %", "<= 10 %", read <= 0.1),
    ]


def _overhead(job: Job, repeats: int) -> tuple[float, ...]:
    settings, chunks = job.settings, job.chunks((job.side // job.tile) ** 2)
    streams = encode_chunks(chunks, settings)
    store = job.folder / "overhead.zarr"

    def read() -> None:
        for block in xr.open_zarr(store, consolidated=False).dn.data.to_delayed().ravel():
            block.compute()

    with dask.config.set(scheduler="synchronous"):
        times = [
            (
                _seconds(lambda: [encode_chunk(c, settings) for c in chunks]),
                _seconds(lambda: job.write(job.side, store.name)),
                _seconds(lambda: [decode_chunks([s]) for s in streams]),
                _seconds(read),
            )
            for _ in range(repeats)
        ]
    return tuple(statistics.median(x) for x in zip(*times, strict=True))


def official(_job: Job, options: argparse.Namespace) -> list[Line]:
    """A network of the official size with random weights, two dates, one thread."""
    encode, decode = alone(_official, options.repeats)
    return [
        Line("TEC-TT of the official size, encode", f"{encode:.2f} MB/s per core"),
        Line("TEC-TT of the official size, decode", f"{decode:.2f} MB/s per core"),
    ]


def _official(repeats: int) -> tuple[float, float]:
    from random_tt import network

    from xtec.coding import rans, tables
    from xtec.engine import Engine

    engine = Engine(network(), "cpu")
    pixels = np.random.default_rng(0).normal(0, 1, (2, 13, TILE, TILE)).astype(np.float32)
    (coded,) = engine.encode([pixels], 0)
    payload, _ = rans.encode(coded.symbols, coded.rows, tables.load(), coded.ends)

    def decode() -> None:
        reader = rans.Decoder(payload, tables.load())
        engine.decode([reader.decode], 0, pixels.shape)[0].pixels()

    raw = 2 * pixels.size / MB
    there = [_seconds(lambda: engine.encode([pixels], 0)) for _ in range(repeats)]
    back = [_seconds(decode) for _ in range(repeats)]
    return raw / statistics.median(there), raw / statistics.median(back)


def _seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _cells(line: Line) -> tuple[str, ...]:
    reached = {None: "", True: "reached", False: "missed"}[line.reached]
    return line.what, line.figure, line.must, reached


if __name__ == "__main__":
    main()
