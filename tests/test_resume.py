"""`compress(resume=True)`: what is stored whole stays, all else is written, equal to one run."""

import os
import shutil
from functools import partial
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import MemoryStore

from tests.models import BEST
from tests.test_faults import BANDS, CHUNKS, RUN, elsewhere, files, names  # noqa: F401
from xtec import codec, sample, zarr_v2, zarr_v3
from xtec.cube import places, state
from xtec.errors import InputError

SHARDS = {"time": 4, "y": 16, "x": 32}
LAYOUTS = [{"zarr_format": 2}, {}, {"shards": SHARDS}]
"""In chunks of format 2 and 3: 2 x 2 x 2; in shards of 2 x 2 chunks: 1 x 2 x 1."""

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"
)


@pytest.fixture(scope="module")
def original():
    """Its last chunk along all axes holds no data."""
    cube = sample.cube(dates=4, size=(32, 20)).sel(band=list(BANDS))
    del cube.reflectance.attrs["_FillValue"]
    cube.reflectance[2:, :, 16:, 16:] = 0
    return cube


@pytest.fixture
def options(precise):
    return {"model": precise.model, "compression": BEST, "chunks": CHUNKS, "progress": False}


@pytest.fixture
def coded(monkeypatch):
    """Chunks that are coded, and read, from now on."""
    seen = []

    def many(chunks, settings):
        seen.extend(chunks)
        return codec.encode_chunks(chunks, settings)

    def one(chunk, settings):
        seen.append(chunk)
        return codec.encode_chunk(chunk, settings)

    monkeypatch.setattr(zarr_v3, "encode_chunks", many)
    monkeypatch.setattr(zarr_v2, "encode_chunk", one)
    return seen


def pieces(path):
    """Files of chunks or shards of the compressed variable."""
    return sorted(
        f for f in (path / "reflectance").rglob("*")
        if f.is_file() and not f.name.startswith((".z", "zarr.json"))
    )  # fmt: skip


def interrupted(path, damage=lambda file: file.unlink(), count=1):
    """Make a whole store one that was not finished: its last chunks or shards are damaged."""
    left = path.with_name(f"{path.name}.unfinished-{RUN}")
    path.rename(left)
    unfinished = state.Unfinished(state.WRITING, RUN)
    zarr.open_group(left, mode="r+", use_consolidated=False).attrs.update(unfinished.to_attribute())
    for file in pieces(left)[-count:]:
        damage(file)
    return left


def cut(file):
    file.write_bytes(file.read_bytes()[:-40])


def empty(file):
    file.write_bytes(b"")


def flip(file, place=None):
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 4
    file.write_bytes(data)


def counting(cube, read):
    """A lazy cube that notes which blocks of the source are read."""

    def look(block, block_id=None):
        read.append(block_id)
        return block

    lazy = cube.chunk(CHUNKS)
    data = lazy.reflectance.data.map_blocks(look, dtype="u2", meta=np.empty((0,) * 4, "u2"))
    return lazy.assign(reflectance=lazy.reflectance.copy(data=data))


@pytest.mark.parametrize(
    ("layout", "damage"),
    [
        *((layout, Path.unlink) for layout in LAYOUTS),
        (LAYOUTS[0], cut),
        (LAYOUTS[1], flip),
        (LAYOUTS[2], flip),
        (LAYOUTS[2], empty),
        (LAYOUTS[2], partial(flip, place=-3)),  # the checksum of the shard's index
    ],
)
def test_only_what_is_not_whole_is_written_again(
    original, options, tmp_path, coded, layout, damage
):
    path, read = tmp_path / "a.zarr", []
    original.tec.compress(path, **options, **layout)
    before = files(path)
    stored = len(pieces(path))
    assert stored == (2 if "shards" in layout else 7)
    interrupted(path, damage)
    coded.clear()
    opened = counting(original, read).tec.compress(path, **options, **layout, resume=True)
    assert files(path) == before
    assert names(tmp_path) == ["a.zarr"]
    assert opened.equals(xr.open_zarr(path))
    if "shards" in layout:
        assert (len(coded), len(read)) == (3, 4)  # of its four chunks one holds no data
    else:
        assert len(coded) == 1
        assert sorted(read) == [(1, 0, 1, 0), (1, 0, 1, 1)]  # with the one that is never stored


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_coded_or_read_where_all_is_there(original, options, tmp_path, coded, layout):
    path, read = tmp_path / "a.zarr", []
    original = original.isel(y=slice(16))
    original.tec.compress(path, **options, **layout)
    before = files(path)
    left = interrupted(path, lambda _: None)
    (left / "reflectance" / "0.1234.partial").write_bytes(b"half")
    coded.clear()
    counting(original, read).tec.compress(path, **options, **layout, resume=True)
    assert (coded, read) == ([], [])
    assert files(path) == before


def test_of_a_block_of_many_chunks_only_those_that_are_missing_are_coded(
    original, options, tmp_path, coded
):
    path, other = tmp_path / "a.zarr", tmp_path / "b.zarr"
    whole = original.chunk(time=2)  # a block of two chunks along each axis
    for each in (path, other):
        whole.tec.compress(each, **options)
    interrupted(path, count=3)
    coded.clear()
    whole.tec.compress(path, **options, resume=True)
    assert len(coded) == 3
    assert files(path) == files(other)


def test_killed_and_resumed(elsewhere, original, options, tmp_path, coded):  # noqa: F811
    path, read = tmp_path / "a.zarr", []
    done = elsewhere("dying(cube).tec.compress(folder + '/a.zarr', **options)")
    assert done.returncode == -9, done.stderr
    (left,) = places.leftovers(path)
    there = {f.relative_to(left): f.stat().st_mtime_ns for f in pieces(left)
             if not f.name.endswith(".partial")}  # fmt: skip
    options["compression"] = 1e4  # as `elsewhere`
    counting(original, read).tec.compress(path, **options, resume=True)
    assert 0 < len(there) < 7
    assert len(coded) == 7 - len(there)
    assert len(read) == 8 - len(there)
    after = {f.relative_to(path): f.stat().st_mtime_ns for f in pieces(path)}
    assert after.items() >= there.items()
    original.tec.compress(tmp_path / "b.zarr", **options)
    assert files(path) == files(tmp_path / "b.zarr")
    assert [n for n in names(tmp_path) if "unfinished" in n] == []


def test_what_cannot_be_checked_is_neither_kept_nor_removed(
    original, options, tmp_path, monkeypatch
):
    path = tmp_path / "a.zarr"
    original.tec.compress(path, **options)
    left = interrupted(path)
    before = {k: v for k, v in files(left).items() if "/c/" in k}

    def fail(*arguments, **options):
        raise RuntimeError("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(zarr_v3, "decode_chunks", fail)
        with pytest.raises(RuntimeError, match="connection was lost"):
            original.tec.compress(path, **options, resume=True)
    (left,) = places.leftovers(path)
    assert {k: v for k, v in files(left).items() if "/c/" in k} == before
    original.tec.compress(path, **options, resume=True)
    assert files(path).items() >= before.items()


# What is taken up, and what is not


def test_where_there_is_nothing_it_just_writes(original, options, tmp_path):
    for resume in (False, True):
        original.tec.compress(tmp_path / f"{resume}.zarr", **options, resume=resume)
    assert files(tmp_path / "True.zarr") == files(tmp_path / "False.zarr")
    with pytest.raises(InputError, match="no store was given"):
        original.tec.compress(resume=True)


def test_a_store_that_is_whole(original, options, tmp_path, coded):
    path = tmp_path / "a.zarr"
    original.tec.compress(path, **options)
    before, count = files(path), len(coded)
    opened = original.tec.compress(path, **options, resume=True)
    assert (files(path), len(coded)) == (before, count)
    assert opened.equals(xr.open_zarr(path))
    with pytest.raises(InputError, match=r"was written otherwise.*compression"):
        original.tec.compress(path, **options | {"compression": 1}, resume=True)
    original.tec.compress(path, **options | {"compression": 1}, resume=True, overwrite=True)
    assert len(coded) == 2 * count
    # What was to replace it was killed: it is not what was asked for.
    shutil.copytree(path, tmp_path / "copy")
    interrupted(path)
    (tmp_path / "copy").rename(path)
    with pytest.raises(InputError, match=r"exists; .*overwrite=True"):
        original.tec.compress(path, **options | {"compression": 1}, resume=True)
    original.tec.compress(path, **options | {"compression": 1}, resume=True, overwrite=True)
    assert len(coded) == 2 * count + 1
    assert names(tmp_path) == ["a.zarr"]


OTHERWISE = {
    "compression": lambda cube, options: (cube, options | {"compression": 30}),
    "model_digest": lambda cube, options: (cube, options | {"model": "embedded"}),
    "max_error": lambda cube, options: (cube, options | {"max_error": 99}),
    "offset": lambda cube, options: (cube, options | {"offset": 1000}),
    "nodata": lambda cube, options: (cube, options | {"nodata": 5}),
    r"chunk": lambda cube, options: (cube, options | {"chunks": CHUNKS | {"x": 8}}),
    r"chunk_grid": lambda cube, options: (cube, options | {"shards": SHARDS}),
    "zarr_format: 3 there, 2 here": lambda cube, options: (cube, options | {"zarr_format": 2}),
    "embed_weights": lambda cube, options: (cube, options | {"embed_weights": False}),
    "shape": lambda cube, options: (cube.isel(time=slice(3)), options),
    r"the values of 'x' differ": lambda cube, options: (
        cube.assign_coords(x=cube.x.copy(data=cube.x + 1)), options,
    ),
    r"the values of 'time' differ": lambda cube, options: (
        cube.assign_coords(time=cube.time.copy(data=cube.time + np.timedelta64(1, "D"))), options,
    ),
    "attributes.title: .* there, 'b' here": lambda cube, options: (
        cube.assign_attrs(title="b"), options,
    ),
    "cloud.*nothing": lambda cube, options: (cube.assign(cloud=("time", np.arange(4))), options),
    "int16": lambda cube, options: (cube.astype("int16"), options),
}  # fmt: skip


@pytest.fixture(scope="module")
def begun(original, precise, tmp_path_factory):
    """A store that was not finished."""
    path = tmp_path_factory.mktemp("begun") / "a.zarr"
    original.tec.compress(
        path, model=precise.model, compression=BEST, chunks=CHUNKS, progress=False
    )
    return interrupted(path)


@pytest.mark.parametrize("what", OTHERWISE)
def test_what_was_begun_otherwise_is_refused(original, options, tmp_path, begun, what):
    path = tmp_path / "a.zarr"
    left = tmp_path / begun.name
    shutil.copytree(begun, left)
    before = files(left)
    cube, changed = OTHERWISE[what](original, options)
    with pytest.raises(InputError, match=f"(?s)was begun otherwise than this would be: .*{what}"):
        cube.tec.compress(path, **changed, resume=True)
    assert files(left) == before
    assert names(tmp_path) == [left.name]


def test_of_several_the_last_is_taken_up_and_what_is_none_is_not(original, options, tmp_path):
    path = tmp_path / "a.zarr"
    original.tec.compress(path, **options)
    before = files(path)
    left = interrupted(path)
    (tmp_path / "a.zarr.unfinished-00000000" / "reflectance").mkdir(parents=True)
    older = tmp_path / "a.zarr.unfinished-00000001"
    shutil.copytree(left, older)
    (older / "old").touch()
    os.utime(older, (1, 1))
    original.tec.compress(path, **options, resume=True)
    assert files(path) == before
    assert names(tmp_path) == ["a.zarr"]


def test_a_run_that_is_overtaken_is_told(original, options, tmp_path):
    path, other = tmp_path / "a.zarr", []
    options["chunks"] = CHUNKS | {"time": 4}

    def overtake(block):
        if not other:
            other.append("begun")
            other.append(original.tec.compress(path, **options, resume=True))
        return block

    lazy = original.chunk(options["chunks"])
    data = lazy.reflectance.data.map_blocks(overtake, dtype="u2", meta=np.empty((0,) * 4, "u2"))
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(InputError, match="taken over by another run"),
    ):
        lazy.assign(reflectance=lazy.reflectance.copy(data=data)).tec.compress(path, **options)
    assert xr.open_zarr(path).identical(other[1].drop_encoding().chunk())


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_in_place(original, options, coded, zarr_format):
    """Where no folder can be moved, the attribute says what was begun."""
    store, whole = MemoryStore(), MemoryStore()
    options["zarr_format"] = zarr_format
    original.tec.compress(whole, **options)
    store._store_dict.update(whole._store_dict)
    unfinished = state.Unfinished(state.WRITING, RUN)
    zarr.open_group(store, mode="r+").attrs.update(unfinished.to_attribute())
    for key in [k for k in whole._store_dict if "reflectance/" in k][-2:]:
        del store._store_dict[key]
    coded.clear()
    original.tec.compress(store, **options, resume=True)
    assert len(coded) == 2
    assert content(store) == content(whole)
    zarr.open_group(store, mode="r+").attrs.update(
        state.Unfinished(state.APPENDING, RUN, 4).to_attribute()
    )
    with pytest.raises(InputError, match=r"not finished \(appending\)"):
        original.tec.compress(store, **options, resume=True)


def content(store):
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


@pytest.mark.parametrize("keep", [1, 6])
def test_killed_before_there_was_a_pixel(original, options, keep):
    whole, store = MemoryStore(), MemoryStore()
    original.tec.compress(whole, **options)
    unfinished = state.Unfinished(state.WRITING, RUN)
    keys = [key for key in whole._store_dict if "tec_models" not in key and "/c/" not in key]
    store._store_dict.update({key: whole._store_dict[key] for key in keys[:keep]})
    zarr.open_group(store, mode="r+").attrs.update(unfinished.to_attribute())
    original.tec.compress(store, **options, resume=True)
    assert content(store) == content(whole)


def test_values_of_coordinates_that_are_missing(original, options, tmp_path):
    path = tmp_path / "a.zarr"
    original.tec.compress(path, **options)
    before = files(path)
    left = interrupted(path)
    (left / "time/c/0").unlink()
    original.tec.compress(path, **options, resume=True)
    assert files(path) == before


def test_other_lazy_variables_and_floating_point(original, options, tmp_path, coded):
    path = tmp_path / "a.zarr"
    reflectance = (original.reflectance.where(original.reflectance > 0) * 1e-4).astype("f4")
    cloud = (original.reflectance.isel(band=0) % 7 == 0).drop_vars("band")
    cube = original.assign(reflectance=reflectance, cloud=cloud).chunk(CHUNKS)
    cube = cube.assign_coords(lon=(("y", "x"), da.from_array(np.ones((32, 20)), chunks=16)))
    made = cube.tec.compress(path, **options)
    np.testing.assert_array_equal(made.cloud, cloud)
    np.testing.assert_array_equal(made.lon, 1)
    before = files(path)
    interrupted(path)
    coded.clear()
    cube.tec.compress(path, **options, resume=True)
    assert files(path) == before
    assert len(coded) == 1
