"""Worst days: many at once, a full disk, a killed process, a store that is read only.

What was there before is still there afterwards, and what is not whole is not taken for whole.
"""

import errno
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

from tests.models import BEST
from xtec import sample
from xtec.codec import Settings, decode_chunk, encode_chunk
from xtec.cube import places, state
from xtec.errors import InputError, UnfinishedStoreWarning
from xtec.zarr_v2 import TecCodec

BANDS = ("B02", "B04", "B08")
CHUNKS = {"time": 2, "y": 16, "x": 16}
RUN = "1a2b3c4d"

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"
)


@pytest.fixture(scope="module")
def original():
    cube = sample.cube(dates=4, size=(32, 20)).sel(band=list(BANDS))
    del cube.reflectance.attrs["_FillValue"]
    return cube


@pytest.fixture
def options(precise):
    return {"model": precise.model, "compression": BEST, "chunks": CHUNKS, "progress": False}


def files(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def with_model(settings):
    """Environment of a process that finds the model of these settings."""
    return os.environ | {"XTEC_MODEL_PATH": str(Path(settings.card.path).parent)}


def names(folder):
    return sorted(each.name for each in folder.iterdir())


# Many at once


def noise(seed):
    random = np.random.default_rng(seed)
    chunk = random.integers(1, 4000, (2, 3, 16, 16)).astype(np.uint16)
    chunk[:, :, : seed % 5] = 0
    return chunk


def code_many(settings):
    """Digests of streams and pixels of 24 chunks that eight threads code at once."""

    def code(seed):
        stream = encode_chunk(noise(seed), settings)
        pixels = decode_chunk(stream)
        return hashlib.sha256(stream).hexdigest(), hashlib.sha256(pixels.tobytes()).hexdigest()

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(code, range(24)))


@pytest.mark.parametrize("model", ["tiny", "embedded"])
def test_eight_threads_and_two_processes_at_once_make_equal_bytes(precise, model):
    settings = precise if model == "tiny" else Settings(bands=BANDS)
    code = (
        "import sys; from tests.test_faults import code_many; from xtec.codec import Settings;"
        "print(code_many(Settings.from_dict(eval(sys.argv[1]))))"
    )
    argument = repr(settings.to_dict())
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, argument],
            stdout=subprocess.PIPE,
            text=True,
            env=with_model(precise),
        )
        for _ in range(2)
    ]
    here = code_many(settings)
    one_by_one = []
    for seed in range(24):
        stream = encode_chunk(noise(seed), settings)
        pixels = decode_chunk(stream).tobytes()
        one_by_one.append((hashlib.sha256(stream).hexdigest(), hashlib.sha256(pixels).hexdigest()))
    assert here == one_by_one
    for process in running:
        printed, _ = process.communicate()
        assert printed.strip() == repr(here)
        assert process.returncode == 0


def test_two_processes_write_their_regions_at_once(original, precise, options, tmp_path):
    cube = original
    (tmp_path / "cube").write_bytes(pickle.dumps(cube))
    cube.tec.compress(**options).to_zarr(tmp_path / "a.zarr", compute=False)
    code = (
        "import pickle, sys, xtec; begin, end = map(int, sys.argv[3:]);"
        "cube = pickle.load(open(sys.argv[1], 'rb')).isel(y=slice(begin, end));"
        "cube.tec.write(sys.argv[2], progress=False)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "cube", tmp_path / "a.zarr", *borders],
            env=with_model(precise),
        )
        for borders in (("0", "16"), ("16", "32"))
    ]
    assert [process.wait() for process in running] == [0, 0]
    cube.tec.compress(tmp_path / "b.zarr", **options)
    one, other = files(tmp_path / "a.zarr"), files(tmp_path / "b.zarr")
    coded = [name for name in other if name.startswith("reflectance/c/")]
    assert len(coded) == 2 * 2 * 2
    assert {k: one[k] for k in coded} == {k: other[k] for k in coded}


# A store is there when it is whole


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_nothing_is_in_its_place_until_it_is_whole(original, options, tmp_path, zarr_format):
    path, seen = tmp_path / "a.zarr", []

    def look(block):
        (place,) = tmp_path.iterdir()
        seen.append((place.name, dict(xr.open_zarr(place, consolidated=False).attrs)))
        return block

    lazy = original.chunk(CHUNKS)
    looked = lazy.reflectance.data.map_blocks(look, dtype=np.uint16, meta=np.empty((0,) * 4, "u2"))
    with dask.config.set(scheduler="synchronous"):
        opened = lazy.assign(reflectance=lazy.reflectance.copy(data=looked)).tec.compress(
            path, zarr_format=zarr_format, **options
        )
    name, attributes = seen[-1]
    assert name.startswith("a.zarr.unfinished-")
    assert '"state": "writing"' in attributes[state.ATTRIBUTE]
    assert "overwrite=True" in attributes[state.ATTRIBUTE]
    assert names(tmp_path) == ["a.zarr"]
    for each in (opened, xr.open_zarr(path), xr.open_zarr(path, consolidated=False)):
        assert state.ATTRIBUTE not in each.attrs
        assert each.attrs.items() >= original.attrs.items()


class FullStore(MemoryStore):
    """A store in a place where no folder can be moved, and that has room for some keys only."""

    room = 10_000

    async def set(self, key, value, *args, **kwargs):
        if len(self._store_dict) >= self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        await super().set(key, value, *args, **kwargs)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_written_in_place_says_that_it_is_not_finished(original, options, zarr_format):
    store = FullStore()
    original.tec.compress(store, zarr_format=zarr_format, **options)
    whole = dict(store._store_dict)
    store = FullStore()
    store.room = len(whole) - 4
    with pytest.raises(OSError, match="No space left") as caught:
        original.tec.compress(store, zarr_format=zarr_format, **options)
    assert "may be incomplete, and then says so" in caught.value.__notes__[0]
    left = xr.open_zarr(store)
    assert (left.reflectance == 0).any()  # it reads as no data
    with pytest.warns(UnfinishedStoreWarning, match=r"not finished \(writing\).*overwrite=True"):
        info = left.tec.info()
    assert info.unfinished == "writing"
    assert "unfinished" in repr(info)
    with pytest.raises(InputError, match=r"is not finished \(writing\)"):
        original.tec.append(store)
    store.room = 10_000
    original.tec.compress(store, zarr_format=zarr_format, overwrite=True, **options)
    assert {k: v.to_bytes() for k, v in store._store_dict.items()} == {
        k: v.to_bytes() for k, v in whole.items()
    }


def test_what_is_made_of_an_unfinished_store_is_not_called_unfinished(original, options, tmp_path):
    marked = original.assign_attrs(state.Unfinished(state.WRITING, RUN).to_attribute())
    with pytest.warns(UnfinishedStoreWarning):
        marked.tec.compress(tmp_path / "a.zarr", **options)
    assert state.ATTRIBUTE not in xr.open_zarr(tmp_path / "a.zarr").attrs


@pytest.mark.parametrize("value", ["soon", '{"state": 5}', "[]", 7, None])
def test_an_attribute_of_another_version_is_taken_seriously(original, value):
    with pytest.warns(UnfinishedStoreWarning, match="not finished"):
        _ = original.assign_attrs({state.ATTRIBUTE: value}).tec.array


# Overwriting


@pytest.mark.parametrize("when", ["layout", "pixels", "end", "exchange"])
def test_what_is_overwritten_stays_until_the_new_is_whole(
    original, options, tmp_path, monkeypatch, when
):
    path = tmp_path / "a.zarr"
    original.tec.compress(path, **options)
    before = files(path)

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    new = original.isel(time=slice(0, 3)).chunk(time=1)
    with monkeypatch.context() as patch:
        if when == "layout":
            patch.setattr(xr.Dataset, "to_zarr", fail)
        elif when == "pixels":
            patch.setattr("xtec.zarr_v3.encode_chunks", fail)
        elif when == "end":
            patch.setattr(state, "end", fail)
        else:
            rename = Path.rename
            patch.setattr(
                Path, "rename", lambda a, b: fail() if "unfinished" in a.name else rename(a, b)
            )
        with (
            # With threads some blocks are still written when the first error is known.
            dask.config.set(scheduler="synchronous"),
            pytest.raises(OSError, match="No space left") as caught,
        ):
            new.tec.compress(path, overwrite=True, **options)
    assert "An incomplete store is left in" in caught.value.__notes__[0]
    assert files(path) == before
    assert [n for n in names(tmp_path) if "replaced" in n] == []
    new.tec.compress(path, overwrite=True, **options)
    assert names(tmp_path) == ["a.zarr"]
    assert xr.open_zarr(path).sizes["time"] == 3


def test_a_store_that_came_to_be_meanwhile_is_not_replaced(original, options, tmp_path):
    path = tmp_path / "a.zarr"

    def meanwhile(block):
        path.mkdir(exist_ok=True)
        (path / "zarr.json").write_text("{}")
        return block

    lazy = original.chunk(CHUNKS)
    data = lazy.reflectance.data.map_blocks(
        meanwhile, dtype=np.uint16, meta=np.empty((0,) * 4, "u2")
    )
    with pytest.raises(InputError, match=r"came to be while.*lies in .*unfinished"):
        lazy.assign(reflectance=lazy.reflectance.copy(data=data)).tec.compress(path, **options)
    assert files(path) == {"zarr.json": b"{}"}
    (left,) = places.leftovers(path)
    assert xr.open_zarr(left).sizes["time"] == 4


def test_into_an_empty_folder_and_through_a_link(original, options, tmp_path):
    (tmp_path / "empty").mkdir()
    original.tec.compress(tmp_path / "empty", **options)
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    original.isel(time=[0]).tec.compress(tmp_path / "link", overwrite=True, **options)
    assert names(tmp_path) == ["empty", "link"]
    assert (tmp_path / "link").is_symlink()
    assert xr.open_zarr(tmp_path / "empty").sizes["time"] == 1
    original.tec.compress(f"file://{tmp_path}/deep/er/a.zarr", **options)
    assert xr.open_zarr(tmp_path / "deep/er/a.zarr").sizes["time"] == 4


def test_a_run_killed_in_the_moment_of_the_exchange(original, options, tmp_path):
    path = tmp_path / "a.zarr"
    original.tec.compress(path, **options)
    before = files(path)
    path.rename(tmp_path / f"a.zarr.replaced-{RUN}")
    shutil.copytree(tmp_path / f"a.zarr.replaced-{RUN}", tmp_path / f"a.zarr.unfinished-{RUN}")
    with pytest.raises(InputError, match="exists; choose another"):
        original.tec.compress(path, **options)
    assert files(path) == before
    original.tec.compress(path, overwrite=True, **options)
    assert names(tmp_path) == ["a.zarr"]


def test_only_what_a_run_left_is_removed(original, options, tmp_path):
    others = [
        f"b.zarr.unfinished-{RUN}",
        f"a.zarr.unfinished-{RUN}0",
        "a.zarr.unfinished-notes",
        f"a_zarr.unfinished-{RUN}",
    ]
    for name in [*others, f"a.zarr.unfinished-{RUN}"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "something").touch()
    (tmp_path / "a.zarr.unfinished-00000000").touch()  # no folder
    original.tec.compress(tmp_path / "a.zarr", **options)
    assert names(tmp_path) == sorted(["a.zarr", "a.zarr.unfinished-00000000", *others])


def test_of_two_runs_to_one_place_the_first_is_told(original, options, tmp_path):
    path = tmp_path / "a.zarr"

    def overtake(block):
        places.tidy(path)  # what another run begins with
        return block

    lazy = original.chunk(CHUNKS)
    data = lazy.reflectance.data.map_blocks(overtake, dtype="u2", meta=np.empty((0,) * 4, "u2"))
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(InputError, match="taken over by another run"),
    ):
        lazy.assign(reflectance=lazy.reflectance.copy(data=data)).tec.compress(path, **options)
    assert not path.exists()


# Killed, full, read only: real ones, in processes of their own


HEAD = """
import os, pickle, signal, sys
import dask, numpy as np, xarray as xr
from zarr.storage import FsspecStore
import xtec
folder, model = sys.argv[1:3]
with open(folder + "/cube", "rb") as file:
    cube = pickle.load(file)
options = {"model": model, "compression": 1e4, "chunks": {"time": 2, "y": 16, "x": 16},
           "progress": False}
dask.config.set(scheduler="synchronous")

def dying(cube):
    count = 0
    def die(block):
        nonlocal count
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return block
    lazy = cube.chunk(time=2, y=16, x=16)
    data = lazy.reflectance.data.map_blocks(die, dtype="u2", meta=np.empty((0,) * 4, "u2"))
    return lazy.assign(reflectance=lazy.reflectance.copy(data=data))
"""


@pytest.fixture
def elsewhere(original, precise, tmp_path):
    """Run code in a process of its own, with `cube`, `options` and `folder`."""
    (tmp_path / "cube").write_bytes(pickle.dumps(original))

    def run(code, *before):
        command = [*before, sys.executable, "-c", HEAD + textwrap.dedent(code)]
        return subprocess.run(
            [*command, tmp_path, precise.model],
            capture_output=True, text=True, check=False, env=with_model(precise),
        )  # fmt: skip

    return run


KILLED = -9


def test_a_killed_write_leaves_nothing_that_looks_whole(elsewhere, original, options, tmp_path):
    done = elsewhere("dying(cube).tec.compress(folder + '/a.zarr', **options)")
    assert done.returncode == KILLED, done.stderr
    assert not (tmp_path / "a.zarr").exists()
    (left,) = places.leftovers(tmp_path / "a.zarr")
    chunks = [f for f in files(left) if f.startswith("reflectance/c/") and "partial" not in f]
    assert 0 < len(chunks) < 8
    with pytest.warns(UnfinishedStoreWarning, match="writing"):
        xr.open_zarr(left, consolidated=False).tec.info()
    original.tec.compress(tmp_path / "a.zarr", **options)
    assert list(places.leftovers(tmp_path / "a.zarr")) == []


def test_a_killed_overwrite_leaves_what_was_there(elsewhere, original, options, tmp_path):
    original.tec.compress(tmp_path / "a.zarr", **options)
    before = files(tmp_path / "a.zarr")
    done = elsewhere("dying(cube).tec.compress(folder + '/a.zarr', overwrite=True, **options)")
    assert done.returncode == KILLED, done.stderr
    assert files(tmp_path / "a.zarr") == before


def test_a_killed_write_in_place_says_so(elsewhere, original, options, tmp_path):
    pytest.importorskip("fsspec")
    done = elsewhere("""
        store = FsspecStore.from_url(f"local://{folder}/a.zarr", {"auto_mkdir": True})
        dying(cube).tec.compress(store, **options)
        """)
    assert done.returncode == KILLED, done.stderr
    left = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert (left.reflectance == 0).any()
    with pytest.warns(UnfinishedStoreWarning, match="writing"):
        left.tec.info()
    with pytest.raises(InputError, match="exists"):
        original.tec.compress(tmp_path / "a.zarr", **options)
    original.tec.compress(tmp_path / "a.zarr", overwrite=True, **options)
    assert state.ATTRIBUTE not in xr.open_zarr(tmp_path / "a.zarr").attrs


def test_a_killed_append_leaves_what_was_there(elsewhere, original, options, tmp_path):
    cube = original
    path = tmp_path / "a.zarr"
    cube.isel(time=slice(0, 2)).tec.compress(path, **options)
    before, opened = files(path), xr.open_zarr(path).load()
    done = elsewhere("dying(cube.isel(time=slice(2, 4))).tec.append(folder + '/a.zarr')")
    assert done.returncode == KILLED, done.stderr
    after = files(path)
    coded = [name for name in before if name.startswith("reflectance/c/")]
    assert len(coded) == 4
    assert {k: after[k] for k in coded} == {k: before[k] for k in coded}
    left = xr.open_zarr(path).load()
    xr.testing.assert_equal(left, opened)
    with pytest.warns(UnfinishedStoreWarning, match="appending"):
        left.tec.info()
    cube.isel(time=slice(2, 4)).tec.append(path, recover=True, progress=False)
    cube.tec.compress(tmp_path / "b.zarr", **options)
    xr.testing.assert_identical(xr.open_zarr(path).load(), xr.open_zarr(tmp_path / "b.zarr").load())


def test_files_that_may_not_grow(elsewhere, original, options, tmp_path):
    """Like a full disk, in the middle of a chunk's file."""
    original.isel(time=slice(0, 2)).tec.compress(tmp_path / "a.zarr", **options)
    before, opened = files(tmp_path / "a.zarr"), xr.open_zarr(tmp_path / "a.zarr").load()
    largest = max(len(data) for name, data in before.items() if "/c/" not in name)
    limit = f"""
        import resource
        cube.reflectance[2:, 0] = np.random.default_rng(1).integers(1, 65000, (2, 32, 20))
        resource.setrlimit(resource.RLIMIT_FSIZE, ({largest + 200}, {largest + 200}))
        """
    for call in (
        "tec.compress(folder + '/a.zarr', overwrite=True, **options)",
        "isel(time=slice(2, 4)).tec.append(folder + '/a.zarr', progress=False)",
    ):
        done = elsewhere(textwrap.dedent(limit) + f"options['chunks'] = None\ncube.{call}\n")
        assert done.returncode == 1
        assert "File too large" in done.stderr, done.stderr
        after = files(tmp_path / "a.zarr")
        assert {k: after[k] for k in before if "/c/" in k} == {
            k: before[k] for k in before if "/c/" in k
        }
        assert set(after) == set(before)
        xr.testing.assert_identical(xr.open_zarr(tmp_path / "a.zarr").load(), opened)


@pytest.fixture
def own_mounts():
    """Command that gives a process mounts of its own, which need not be cleaned up."""
    command = shutil.which("unshare")
    if command is None or subprocess.run([command, "-m", "true"], check=False).returncode:
        pytest.skip("mounts need root")
    return [command, "-m"]


MOUNT = """
import subprocess
def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)
"""


def test_a_full_disk(elsewhere, own_mounts, tmp_path):
    (tmp_path / "disk").mkdir()
    done = elsewhere(
        MOUNT
        + textwrap.dedent("""
        disk = folder + "/disk"
        mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", disk)
        cube.isel(time=slice(0, 2)).tec.compress(disk + "/a.zarr", **options)
        before = xr.open_zarr(disk + "/a.zarr").load()
        with open(disk + "/ballast", "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"x" * 1024)
            except OSError:
                pass
        for call in (lambda: cube.tec.compress(disk + "/a.zarr", overwrite=True, **options),
                     lambda: cube.isel(time=slice(2, 4)).tec.append(disk + "/a.zarr")):
            try:
                call()
            except OSError as error:
                print("an error:", error)
            xr.testing.assert_equal(xr.open_zarr(disk + "/a.zarr").load(), before)
        os.remove(disk + "/ballast")
        cube.tec.compress(disk + "/a.zarr", overwrite=True, **options)
        print(xr.open_zarr(disk + "/a.zarr").sizes["time"], sorted(os.listdir(disk)))
        """),
        *own_mounts,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("an error: [Errno 28] No space left on device") == 2, done.stdout
    assert "4 ['a.zarr']" in done.stdout


def test_a_store_that_is_read_only(elsewhere, original, options, tmp_path, request):
    (tmp_path / "disk").mkdir()
    path = tmp_path / "disk/a.zarr"
    original.isel(time=slice(0, 2)).tec.compress(path, **options)
    before = files(path)
    code = """
        for call in (lambda: cube.tec.compress(folder + "/disk/a.zarr", overwrite=True, **options),
                     lambda: cube.tec.compress(folder + "/disk/b.zarr", **options),
                     lambda: cube.isel(time=slice(2, 4)).tec.append(folder + "/disk/a.zarr"),
                     lambda: cube.isel(time=slice(0, 2)).tec.write(folder + "/disk/a.zarr")):
            try:
                call()
            except OSError as error:
                print("an error:", error)
        """
    if os.geteuid() == 0:  # root may write where modes forbid it, but not to a read-only mount
        mounted = (
            'mount("--bind", folder + "/disk", folder + "/disk")\n'
            'mount("-o", "remount,ro,bind", folder + "/disk")\n'
        )
        code = MOUNT + mounted + textwrap.dedent(code)
        done = elsewhere(code, *request.getfixturevalue("own_mounts"))
    else:
        everything = [tmp_path / "disk", *(tmp_path / "disk").rglob("*")]
        for each in everything:
            each.chmod(each.stat().st_mode & ~0o222)
        done = elsewhere(code)
        for each in everything:
            each.chmod(each.stat().st_mode | 0o200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("an error") == 4, done.stdout
    assert files(path) == before
    assert names(tmp_path / "disk") == ["a.zarr"]


def test_where_a_folder_cannot_be_moved_it_is_written_in_place(
    original, options, tmp_path, monkeypatch
):
    path = tmp_path / "a.zarr"
    monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "a.zarr")
    assert places.beside(path, RUN) is None
    for dates in (2, 4):
        original.isel(time=slice(0, dates)).tec.compress(path, overwrite=True, **options)
        opened = xr.open_zarr(path)
        assert opened.sizes["time"] == dates
        assert state.ATTRIBUTE not in opened.attrs


def test_a_codec_of_numcodecs_in_eight_threads(precise):
    """The socket of format 2 keeps nothing between calls that another thread could disturb."""
    codec = TecCodec(precise)
    with ThreadPoolExecutor(8) as pool:
        streams = list(pool.map(lambda seed: codec.encode(noise(seed)), range(16)))
        pixels = list(pool.map(codec.decode, streams))
    for seed in range(16):
        assert streams[seed] == codec.encode(noise(seed))
        np.testing.assert_array_equal(pixels[seed], codec.decode(streams[seed]))
