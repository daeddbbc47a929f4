"""Damage is found wherever it is, and the right chunk named."""

import itertools
import pickle
import shutil
from dataclasses import replace

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

from tests.models import BEST
from xtec import sample
from xtec.cube.pairing import Pair
from xtec.cube.verify import _look as look_at
from xtec.cube.verify import _open as open_root
from xtec.cube.verify import verify
from xtec.errors import InputError

BANDS = ["B02", "B04", "B08"]
CHUNKS = {"time": 1, "y": 16, "x": 16}
KINDS = {
    "v2": {"zarr_format": 2},
    "v3": {"zarr_format": 3},
    "sharded": {"zarr_format": 3, "shards": {"time": 2, "y": 32, "x": 16}},
}
GRID = (2, 1, 2, 3)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"
)


@pytest.fixture(scope="module")
def original():
    cube = sample.cube(dates=2, size=(30, 48)).sel(band=BANDS)
    cube.reflectance[1, :, :, 15] = 900  # so that no chunk is without any data
    return cube


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def whole(kind, original, precise, tmp_path_factory):
    """A store of 2 x 2 x 3 chunks that nobody harmed."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    options = {"model": precise.model, "compression": BEST, "max_error": 5, "progress": False}
    original.tec.compress(path, chunks=CHUNKS, **options, **KINDS[kind])
    return path


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "b.zarr")


def file_of(store, kind, place):
    """The file of a chunk, found without the code under test."""
    if kind == "sharded":
        time, band, y, x = place
        place = time // 2, band, y // 2, x
    name = {"v2": ".".join(map(str, place))}.get(kind, "/".join(["c", *map(str, place)]))
    return store / "reflectance" / name


def extent_of(data, kind, place):
    """Where a chunk begins and ends in its file."""
    if kind != "sharded":
        return 0, len(data)
    time, _, y, _ = place
    begin, size = np.frombuffer(data[-68:-4], "<u8").reshape(2, 2, 2)[time % 2, y % 2].tolist()
    return begin, begin + size


def flip(path, byte, bit):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def test_a_whole_store_is_well(whole, original):
    verdict = verify(whole, original)
    assert verdict.ok
    assert verdict.chunks == 12 + 5  # coordinates and the CRS
    assert verdict.stored == 12 + 4  # the CRS is its fill value
    assert verdict.missing == verdict.faults == ()
    assert verdict.against.bound == dict.fromkeys(BANDS, 5)
    assert verdict.against.bound_kept
    assert max(verdict.against.max_error.values()) <= 5
    assert "everything is well" in repr(verdict)


def test_its_figures_are_those_of_quality(whole, original):
    against = verify(whole, original).against
    quality = xr.open_zarr(whole).tec.quality(original)
    np.testing.assert_allclose(list(against.psnr.values()), quality.psnr)
    np.testing.assert_allclose(list(against.max_error.values()), quality.max_error)
    np.testing.assert_allclose(against.psnr_pooled, quality.psnr_pooled)
    assert against.mask_errors == quality.mask_errors == 0


def test_a_flipped_bit_is_found_in_every_chunk_and_the_chunk_named(store, kind):
    random = np.random.default_rng(0)
    for number, place in enumerate(itertools.product(*map(range, GRID))):
        path = file_of(store, kind, place)
        data = path.read_bytes()
        begin, end = extent_of(data, kind, place)
        assert data[begin:end].startswith(b"XTEC")
        flip(path, int(random.integers(begin, end)), number % 8)
        verdict = verify(store)
        path.write_bytes(data)
        assert not verdict.ok
        (fault,) = verdict.faults
        assert (fault.variable, fault.chunk) == ("reflectance", place)
        assert store / fault.file == path
        assert len(fault.reason) > 20
    assert verify(store).ok


def test_the_index_of_a_shard_is_part_of_its_chunks(store, kind):
    if kind != "sharded":
        pytest.skip("only shards have an index")
    path = file_of(store, kind, (0, 0, 0, 1))
    flip(path, -20, 3)
    faults = verify(store).faults
    assert {fault.chunk for fault in faults} == {(t, 0, y, 1) for t in (0, 1) for y in (0, 1)}
    path.write_bytes(b"short")
    assert len(verify(store).faults) == 4


def test_a_truncated_chunk_and_a_chunk_in_anothers_place_are_found(store, kind):
    if kind == "sharded":
        pytest.skip("shards are tried above")
    first, second = (file_of(store, kind, (0, 0, 0, x)) for x in (0, 1))
    first.write_bytes(second.read_bytes()[:-1])
    second.write_bytes(b"")
    assert {f.chunk for f in verify(store).faults} == {(0, 0, 0, 0), (0, 0, 0, 1)}


def test_swapped_chunks_are_found_beside_the_original_alone(store, kind, original):
    if kind == "sharded":
        pytest.skip("chunks of a shard have one file")
    first, second = (file_of(store, kind, (0, 0, 0, x)) for x in (1, 2))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    assert verify(store).ok  # as docs/command_line.md says
    assert not verify(store, original).ok


def test_a_task_can_be_sent_to_another_process(whole, original):
    root = open_root(whole, "")
    pair = Pair.of(root, original, None)
    block = pair.blocks((1, 3, 16, 16))[0, 0, 0, 1].compute()
    task = root["reflectance"], (0, 0, 0, 1), replace(pair, before=None), block
    look = look_at(*pickle.loads(pickle.dumps(task)))
    assert look.stored
    assert look.fault is None
    assert look.part.mask_errors == 0


def test_missing_chunks_are_reported_and_are_damage_beside_the_original(store, kind, original):
    file_of(store, kind, (1, 0, 0, 2)).unlink()
    gone = {(t, 0, y, 2) for t in (0, 1) for y in (0, 1)} if kind == "sharded" else {(1, 0, 0, 2)}
    verdict = verify(store)
    assert verdict.ok  # a chunk without any data is not stored either
    assert {place for _, place in verdict.missing} == gone
    assert "no data" in repr(verdict)
    beside = verify(store, original)
    assert not beside.ok
    assert {fault.chunk for fault in beside.faults} <= gone
    assert beside.faults
    assert beside.against.mask_errors > 0


def test_a_damaged_model_coordinate_and_unfinished_store_are_found(store, original):
    model = next((store / "tec_models").glob("[0-9a-f]*"))
    chunk = next(path for path in model.rglob("*") if path.name in ("0", "c0"))
    flip(chunk, 5000, 1)
    (fault,) = verify(store).faults
    assert fault.variable == "model"
    assert model.name in fault.file
    flip(chunk, 5000, 1)
    next(path for path in (store / "x").rglob("*") if path.name == "0").write_bytes(b"no zstd")
    verdict = verify(store, original)
    assert [fault.variable for fault in verdict.faults] == ["x"]
    assert verdict.against is None  # there is nothing to compare places by


@pytest.mark.parametrize("damage", [b"{", b'{"zarr_format": 7, "node_type": "group"}'])
def test_metadata_that_cannot_be_read_are_damage(store, kind, damage):
    (store / (".zgroup" if kind == "v2" else "zarr.json")).write_bytes(damage)
    (store / ".zmetadata").unlink(missing_ok=True)
    verdict = verify(store)
    assert not verdict.ok
    assert verdict.faults[0].variable == "metadata"


def test_an_unfinished_store_is_not_well(store):
    zarr.open_group(store, mode="r+").attrs["tec_unfinished"] = '{"state": "writing"}'
    assert verify(store).unfinished == "writing"
    assert not verify(store).ok


def test_a_broken_bound_and_a_lost_pixel_are_found(whole, original):
    other = original.copy(deep=True)
    other.reflectance[0, 1, 3, 40] += np.uint16(500)
    against = verify(whole, other).against
    assert against.bound_kept is False
    assert against.max_error["B04"] > 400
    assert "BROKEN" in repr(against)
    other = original.copy(deep=True)
    other.reflectance[0, 1, 3, 40] = 0
    verdict = verify(whole, other)
    assert verdict.against.mask_errors == 1
    assert not verdict.ok


def test_from_an_opened_cube_lazily_and_with_a_lazy_original(whole, original):
    opened = xr.open_zarr(whole)
    assert opened.tec.verify(original.chunk(y=7), progress=False).ok
    assert opened.isel(time=0).tec.verify(progress=False).chunks == 17
    with pytest.raises(InputError, match="bands differ"):
        opened.tec.verify(original.isel(band=[1, 0, 2]), progress=False)


def test_reflectance_in_floating_point_keeps_its_bound(precise, original, tmp_path):
    floating = (original.reflectance.where(original.reflectance > 0) * 1e-4).drop_attrs()
    options = {"model": precise.model, "compression": BEST, "max_error": 2, "progress": False}
    floating.tec.compress(tmp_path / "f.zarr", chunks=CHUNKS, **options)
    verdict = verify(tmp_path / "f.zarr", floating.to_dataset(name="reflectance"))
    assert verdict.against.bound_kept
    assert verdict.ok


def test_one_chunk_is_in_memory_at_a_time(whole, original):
    """Each task is one chunk of the store and the same part of the original."""
    sizes = []

    def compute(graph, keys, **kwargs):
        found = dask.get(graph, keys, **kwargs)
        sizes.append(len(found))
        return found

    asked = []

    def block(block_info=None):
        asked.append(block_info[None]["chunk-shape"])
        return np.zeros(block_info[None]["chunk-shape"], np.uint16)

    lazy = dask.array.map_blocks(block, chunks=((1, 1), (3,), (16, 14), (16,) * 3), dtype="uint16")
    with dask.config.set(scheduler=compute):
        verify(whole, original.assign(reflectance=original.reflectance.copy(data=lazy)))
    assert sizes[-1] == 12
    assert {shape[0] for shape in asked} == {1}


def _plain(path):
    xr.Dataset({"a": ("x", [1])}).to_zarr(path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nowhere.zarr", "no Zarr store"),
        (lambda path: _plain(path / "p.zarr"), "compressed"),
    ],
)
def test_what_is_no_compressed_store_is_an_error(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        verify(make(tmp_path))


def test_what_is_not_stored_cannot_be_verified(original, precise):
    lazy = original.tec.compress(model=precise.model, compression=BEST)
    with pytest.raises(InputError, match="not stored"):
        lazy.tec.verify()
