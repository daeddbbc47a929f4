"""Dask's workers: made ready, told apart, and coding the same bytes as one process does."""

import os
import pickle
import platform
import signal
import subprocess
import sys
import time
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from tests.models import BEST, context_network, write_weights
from xtec import cluster, engine
from xtec.cluster import plan as plans
from xtec.cluster import ready, workers
from xtec.cluster.ready import Place, Wish
from xtec.codec import Settings
from xtec.cube import progress, state
from xtec.cube.blocks import Job, Written
from xtec.errors import InputError, ModelError
from xtec.models import weights
from xtec.models.threads import grant

distributed = pytest.importorskip("distributed")

# Older Dask says this also where the caller names the scheduler.
pytestmark = pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler:UserWarning")

BANDS = ["B02", "B04", "B08"]
CHUNKS = {"time": 2, "y": 64, "x": 64}


FAULTS = """
import resource
import numpy as np
from xtec.cluster.ready import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        np.ones(1 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_is_freed_stays_though_dasks_nanny_says_otherwise():
    environment = os.environ | dask.config.get("distributed.nanny.pre-spawn-environ")
    environment = {name: str(value) for name, value in environment.items()}
    assert "MALLOC_TRIM_THRESHOLD_" in environment
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    pages = 100 * (1 << 20) // os.sysconf("SC_PAGE_SIZE")
    before, after = map(int, done.stdout.split())
    assert before >= pages
    assert after < pages / 20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Path of a model that nobody finds by its name."""
    path = tmp_path_factory.mktemp("hidden") / "hidden.safetensors"
    return write_weights(path, context_network(), "hidden")


@pytest.fixture(autouse=True)
def _as_before():
    """What `prepare` sets in this process, for good."""
    threads, environment = torch.get_num_threads(), dict(os.environ)
    batch = zarr.config.get("codec_pipeline.batch_size")
    workers_of_zarr = zarr.config.get("threading.max_workers")
    yield
    grant(None)
    torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(environment)
    settings = {"codec_pipeline.batch_size": batch, "threading.max_workers": workers_of_zarr}
    zarr.config.set(settings)
    dask.config.set({"multiprocessing.initializer": None})


@pytest.fixture(scope="module")
def two_processes():
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0}
    with (
        distributed.LocalCluster(processes=True, dashboard_address=":0", **options) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.fixture
def one_process():
    options = {"n_workers": 1, "threads_per_worker": 3, "memory_limit": 0}
    with (
        distributed.LocalCluster(processes=False, dashboard_address=":0", **options) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.fixture
def no_client(monkeypatch):
    """As if no other test had left one."""
    for room in (workers, plans):
        monkeypatch.setattr(room, "active_client", lambda: None)


def lazy(shape=(4, 3, 256, 256)):
    """A cube that no graph carries: made where it is needed, the same every time."""

    def block(block_info=None):
        begin = [a for a, _ in block_info[None]["array-location"]]
        random = np.random.default_rng(begin)
        base = np.cumsum(random.integers(-9, 10, block_info[None]["chunk-shape"]), axis=-1)
        return (base + 2000).astype(np.uint16)

    chunks = tuple((c,) * (n // c) for n, c in zip(shape, (2, 3, 128, 128), strict=True))
    data = da.map_blocks(block, chunks=chunks, dtype=np.uint16, meta=np.empty((0,) * 4, np.uint16))
    array = xr.DataArray(data, dims=("time", "band", "y", "x"), coords={"band": BANDS}, name="dn")
    return array.to_dataset()


def files(store):
    """Every file of a store that holds pixels, and its bytes."""
    return {p.relative_to(store): p.read_bytes() for p in Path(store).rglob("dn/c/**/*")
            if p.is_file()}  # fmt: skip


@pytest.fixture(scope="module")
def expected(tmp_path_factory, model):
    """The store that one thread writes."""
    store = tmp_path_factory.mktemp("expected") / "a.zarr"
    with dask.config.set(scheduler="synchronous"):
        lazy().tec.compress(store, model=model, compression=BEST, chunks=CHUNKS, progress=False)
    return files(store)


def compress(store, model, **options):
    options = {"progress": False} | options
    made = lazy().tec.compress(store, model=model, compression=BEST, chunks=CHUNKS, **options)
    return files(store), made


def test_workers_of_their_own_processes(two_processes, model, tmp_path, expected):
    found = cluster.prepare(model=model)
    assert [(one.worker, one.device, one.threads) for one in found] == [
        ("0", "cpu", 1), ("1", "cpu", 1),
    ]  # fmt: skip
    assert all(0 < one.seconds < 300 for one in found)
    assert "cpu, threads: 1, ready after" in repr(found)
    assert "<table>" in found._repr_html_()
    stored, opened = compress(tmp_path / "a.zarr", model)
    assert stored == expected
    with dask.config.set(scheduler="synchronous"):
        here = opened.dn.values
    np.testing.assert_array_equal(opened.dn.compute(), here)

    again = cluster.prepare(two_processes, model=model, threads=2)
    assert [one.threads for one in again] == [2, 2]
    two_processes.restart()  # new processes under the old names
    deadline = time.monotonic() + 60
    while len(two_processes.run(workers_ready)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(two_processes.run(workers_ready).values())


def workers_ready(dask_worker):
    from xtec.cluster.plugin import told

    return told(dask_worker) is not None


def test_a_worker_that_cannot_be_made_ready_stays_usable(two_processes, model):
    with pytest.raises(InputError, match="device='cuda:7' is not a device"):
        cluster.prepare(model=model, device="cuda:7")
    assert two_processes.submit(abs, -3).result(timeout=30) == 3
    assert len(cluster.prepare(model=model)) == 2


def test_one_process_of_several_threads(one_process, model, tmp_path, expected):
    (found,) = cluster.prepare(model=model)
    assert (found.device, found.threads) == ("cpu", 3)
    assert engine.threads_now() == 3
    stored, _ = compress(tmp_path / "a.zarr", model)
    assert stored == expected


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_local_schedulers(model, tmp_path, expected, scheduler, zarr_format):
    with dask.config.set(scheduler=scheduler):
        compress(tmp_path / "a.zarr", model, zarr_format=zarr_format)
    stored = {p.read_bytes() for p in (tmp_path / "a.zarr/dn").rglob("*") if p.is_file()}
    assert set(expected.values()) <= stored


def last_line(capsys):
    """What the bar says in the end."""
    return capsys.readouterr().err.split("\r")[-1]


def interrupt(path):
    """Make a whole store one that was not finished; when each chunk that stays was written."""
    left = path.with_name("a.zarr.unfinished-1a2b3c4d")
    path.rename(left)
    unfinished = state.Unfinished(state.WRITING, "1a2b3c4d")
    zarr.open_group(left, mode="r+", use_consolidated=False).attrs.update(unfinished.to_attribute())
    chunks = sorted(p for p in left.rglob("dn/c/**/*") if p.is_file())
    for missing in chunks[::5]:
        missing.unlink()
    chunks[1].write_bytes(b"XTEC half")
    return {p.relative_to(left): p.stat().st_mtime_ns for p in chunks[2:] if p.exists()}


def bar_and_resume(tmp_path, model, expected, capsys, monkeypatch):
    """The last line of the bar holds for the whole store, also where a part of it was there."""
    monkeypatch.setattr(progress, "is_watched", lambda: True)
    path = tmp_path / "a.zarr"
    _, opened = compress(path, model, progress=True)
    said = f"ratio {opened.tec.info().ratio:.1f}"
    raw = 2 * opened.dn.size
    assert f"ratio {raw / sum(map(len, expected.values())):.1f}" == said
    line = last_line(capsys)
    assert "| 32/32 chunks, " in line
    assert said in line
    assert "MB/s in" in line
    times = interrupt(path)
    assert len(times) == 24
    stored, _ = compress(path, model, progress=True, resume=True)
    assert stored == expected
    assert {k: (path / k).stat().st_mtime_ns for k in times} == times
    line = last_line(capsys)
    assert "| 32/32 chunks, " in line
    assert said in line


def test_80_columns_show_all_of_a_large_job(capsys):
    chunk = 2 * 8 * 13 * 256**2
    jobs = [Job([], Written(16_000, 16_000 * chunk)), Job([], Written(1))]
    with progress.Bar(jobs, shown=True) as bar:
        bar.begin -= 1000  # seconds ago
        bar._bar.start_t -= 1000
        bar.add(Written(1234, 1234 * chunk, 1234 * chunk // 160))
    line = last_line(capsys).rstrip()
    end = "| 1234/16001 chunks, 3:19:26 left, 16.8 MB/s in, 0.105 out, ratio 160.0"
    assert line.endswith(end)
    assert len("  8%|") + len(end) < 80  # the bar between shrinks to what is left


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_the_bar_and_resume_with(scheduler, model, tmp_path, expected, capsys, monkeypatch):
    with dask.config.set(scheduler=scheduler):
        bar_and_resume(tmp_path, model, expected, capsys, monkeypatch)


def test_the_bar_and_resume_on_workers(
    two_processes, model, tmp_path, expected, capsys, monkeypatch
):
    cluster.prepare(model=model)
    bar_and_resume(tmp_path, model, expected, capsys, monkeypatch)


@pytest.mark.slow
def test_the_bar_and_resume_with_processes(
    no_client, model, tmp_path, expected, capsys, monkeypatch
):
    cluster.prepare(model=model, threads=1)
    with dask.config.set(scheduler="processes", num_workers=2):
        bar_and_resume(tmp_path, model, expected, capsys, monkeypatch)


def test_an_error_on_a_worker_ends_the_job(two_processes, model, tmp_path):
    cluster.prepare(model=model)

    def fail(block, block_id=None):
        if block_id == (0, 0, 0, 1):
            raise OSError("no such tile")
        return block

    cube = lazy()
    cube["dn"] = cube.dn.copy(data=cube.dn.data.map_blocks(fail, dtype="u2"))
    with pytest.raises(OSError, match="no such tile") as caught:
        cube.tec.compress(tmp_path / "a.zarr", model=model, chunks=CHUNKS)
    assert "resume=True goes on" in caught.value.__notes__[-1]


@pytest.mark.slow
def test_processes_of_dask_itself(no_client, model, tmp_path, expected):
    (found,) = cluster.prepare(model=model, threads=1)
    assert found.worker == workers.HERE
    with dask.config.set(scheduler="processes", num_workers=2):
        stored, opened = compress(tmp_path / "a.zarr", model)
        values = opened.dn.values
    assert stored == expected
    np.testing.assert_array_equal(values, opened.dn.compute(scheduler="synchronous"))


@pytest.mark.filterwarnings("ignore:The data type")
def test_a_worker_that_is_killed_costs_nothing(two_processes, model, tmp_path, expected):
    """Dask starts it again; what it had not finished is done once more, to the same bytes."""
    cluster.prepare(model=model)
    task = lazy().tec.compress(model=model, compression=BEST, chunks=CHUNKS, progress=False)
    written = task.to_zarr(tmp_path / "a.zarr", compute=False, consolidated=False)
    job = two_processes.compute(written)
    while len(files(tmp_path / "a.zarr")) < 4:
        time.sleep(0.01)
    os.kill(next(iter(two_processes.run(os.getpid).values())), signal.SIGKILL)
    distributed.wait(job, timeout=240)
    assert job.status == "finished"
    assert files(tmp_path / "a.zarr") == expected
    two_processes.wait_for_workers(2, timeout=60)


@pytest.mark.filterwarnings("ignore:The data type")
def test_graphs_carry_no_weights(tmp_path):
    """Neither of what is written nor of what is read."""
    settings = Settings("embedded")
    prepared = lazy().tec.compress(chunks=CHUNKS)
    written = prepared.to_zarr(tmp_path / "a.zarr", compute=False, consolidated=False)
    sent = cloudpickle.dumps(written)
    assert len(sent) < 60_000 < settings.card.path.stat().st_size
    assert settings.model_digest.encode() in sent
    read = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert len(cloudpickle.dumps(read)) < 60_000


def test_what_the_plugin_sends_is_small(model):
    from xtec.cluster.plugin import Readiness

    wish = Wish(model, Settings(model), None, None)
    assert len(pickle.dumps(Readiness(wish, {str(i): Place() for i in range(100)}))) < 10_000


def view(name, process, devices=None, host="a", threads=1):
    return {"name": name, "host": host, "process": process, "threads": threads, "devices": devices}


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ([view("0", 9)], [(0, 1, 1)]),
        ([view("0", 9), view("1", 7)], [(1, 2, 1), (0, 2, 1)]),
        ([view("0", 9, host="a"), view("1", 9, host="b")], [(0, 1, 1)] * 2),
        # LocalCUDACluster shows each worker the devices in another order, its own first.
        ([view("0", 7, "0,1"), view("1", 9, "1,0")], [(0, 2, 1), (0, 2, 1)]),
        # Workers of one process share its threads.
        ([view("0", 7, threads=2), view("1", 7, threads=3)], [(0, 1, 5)] * 2),
    ],
)
def test_places(views, expected):
    assert [astuple(place) for place in workers.places(views).values()] == expected


def test_threads_beside_a_gpu_are_a_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(ready, "cores", lambda: 16)
    assert ready._threads(Place(beside=2, threads=1), on_gpu=True) == 8
    assert ready._threads(Place(beside=2, threads=1), on_gpu=False) == 1
    assert ready._threads(Place(beside=32, threads=2), on_gpu=True) == 2


def test_devices_go_round(monkeypatch):
    monkeypatch.delenv(engine.DEVICE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert engine.take_device(None, 5) == engine.default_device() == "cuda:1"
    assert engine.take_device("cuda:3", 0) == engine.default_device() == "cuda:3"
    assert engine.take_device("cpu", 0) == os.environ[engine.DEVICE] == "cpu"
    with pytest.raises(InputError, match="device='tpu'"):
        engine.take_device("tpu", 0)
    assert engine.default_device() == "cpu"


def test_another_model_of_that_name(model, tmp_path, monkeypatch):
    """A file that was replaced since the client looked."""
    path = Path(write_weights(tmp_path / "b.safetensors", context_network(), "b"))
    settings = Settings(str(path))
    other = weights.read_card(Path(model))
    monkeypatch.setattr(ready.registry, "_used", {})
    monkeypatch.setattr(ready.registry, "resolve", lambda *_: other)
    with pytest.raises(ModelError, match=f"another model here .digest {other.digest[:16]}"):
        ready.find_card(Wish(str(path), settings, None, None))


def test_what_prepare_refuses(model):
    with pytest.raises(InputError, match="threads=0; give at least 1"):
        cluster.prepare(threads=0)
    with pytest.raises(InputError, match="asynchronous"):
        cluster.prepare(SimpleNamespace(asynchronous=True), model=model)
    with pytest.raises(InputError, match="no workers yet"):
        cluster.prepare(SimpleNamespace(asynchronous=False, run=lambda _: {}), model=model)


def test_a_plan_of_this_process(no_client, model, tmp_path):
    cube = lazy()
    plan = cube.tec.plan(model=model, compression=BEST, chunks=CHUNKS)
    stored, _ = compress(tmp_path / "a.zarr", model)
    size = sum(map(len, stored.values()))
    assert (plan.chunks, plan.sampled_chunks, plan.shape) == (32, 8, (4, 3, 256, 256))
    assert plan.raw_bytes == 2 * cube.dn.size
    assert abs(plan.expected_bytes / size - 1) < max(0.1, 4 * plan.expected_spread)
    assert plan.hours == pytest.approx(plan.raw_bytes / plan.bytes_per_second / 3600)
    assert plan.to_dict()["ratio"] == plan.raw_bytes / plan.expected_bytes
    for said in ("32 of 2 x 3 x 64 x 64; 8 tried", "1 process", "core hours", "MB/s"):
        assert said in repr(plan)


def test_a_plan_of_two_workers(two_processes, model):
    plan = lazy().tec.plan(model=model, compression=BEST, chunks=CHUNKS)
    assert (plan.workers, plan.threads, plan.sampled_chunks) == (2, 2, 8)
    assert "on 2 workers, 2 threads" in repr(plan)
    with dask.config.set(scheduler="synchronous"):
        assert (
            plan.expected_bytes
            == lazy()
            .tec.plan(model=model, compression=BEST, chunks=CHUNKS, client=two_processes)
            .expected_bytes
        )


def test_a_plan_reads_only_its_sample(no_client, model):
    def fail(block):
        raise AssertionError("more was read than the sample")

    cube = lazy()
    whole = cube.dn.data
    cube["dn"] = cube.dn.copy(
        data=da.concatenate([whole[:2], whole[2:].map_blocks(fail, dtype="u2")])
    )
    with pytest.raises(AssertionError, match="more was read"):
        cube.dn.compute()
    one_chunk = {"time": 2, "y": 256, "x": 256}
    plan = cube.isel(time=slice(2)).tec.plan(model=model, chunks=one_chunk)
    assert (plan.chunks, plan.sampled_chunks) == (1, 1)
    assert np.isnan(plan.expected_spread)
    assert "+-" not in repr(plan)
