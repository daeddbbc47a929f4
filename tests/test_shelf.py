"""A store carries its model: written once, found by whoever decodes, believed in nothing.

The model of these tests lies in no folder that is searched; after `forgotten` nobody knows it.
"""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import MemoryStore

import xtec
from tests.models import (
    BEST,
    LAPPED,
    SMALL_L1C,
    TINY,
    context_network,
    near,
    network,
    write_checkpoint,
    write_weights,
)
from xtec import shelf
from xtec.engine import _engine
from xtec.errors import CorruptStreamError, InputError, ModelError, WrongModelError
from xtec.models import registry
from xtec.shelf import GROUP, Shelf

pytestmark = pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3")

KINDS = {
    "format 2": {"zarr_format": 2},
    "format 3": {"zarr_format": 3},
    "shards": {"chunks": {"y": 32, "x": 32}, "shards": {"y": 64, "x": 64}},
}
CRC = "zlib.crc32({}.open_zarr(sys.argv[1]).reflectance.values)"
"""What another process says of the pixels: sums of floats would hang on the order of the chunks."""
same = partial(np.array_equal, equal_nan=True)
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """For each kind of store a model that came from some training."""
    folders = {kind: tmp_path_factory.mktemp("models") for kind in KINDS}
    return {
        kind: write_weights(folder / "theirs.safetensors", context_network(seed=seed), "theirs")
        for seed, (kind, folder) in enumerate(folders.items(), 3)
    }


@pytest.fixture(scope="module")
def weights(models):
    return models["format 3"]


@pytest.fixture(scope="module")
def stores(models, _sample, tmp_path_factory):
    """Stores of every kind, and what comes out of each."""
    folder, cube = tmp_path_factory.mktemp("stores"), _sample.sel(band=list(LAPPED.bands))
    found = {}
    for kind, options in KINDS.items():
        path = folder / f"{kind}.zarr".replace(" ", "-")
        opened = cube.tec.compress(
            path, model=models[kind], compression=BEST, progress=False, **options
        )
        found[kind] = path, opened.reflectance.values
    return found


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Nobody knows the model any more."""
    monkeypatch.setattr(registry, "_used", {})
    monkeypatch.setattr(registry, "_lent", {})
    monkeypatch.setattr(registry, "_shelves", [])
    shelf._copies.cache_clear()
    monkeypatch.delenv(registry.SEARCH_PATH, raising=False)
    _engine.cache_clear()


@pytest.fixture
def copy(stores, tmp_path):
    """A store of a kind that may be spoilt."""

    def copy(kind="format 3"):
        shutil.copytree(stores[kind][0], tmp_path / "copy.zarr")
        return tmp_path / "copy.zarr"

    return copy


def model_in(store):
    (array,) = zarr.open_group(store, path=GROUP, mode="r+").arrays()
    return array[1]


# It is found


def test_plain_open_zarr_finds_the_model_in_a_store_of_format_3(stores):
    path, pixels = stores["format 3"]
    assert same(xr.open_zarr(path).reflectance.values, pixels)


@each_kind
def test_xtecs_open_zarr_finds_it_in_every_store(stores, kind):
    path, pixels = stores[kind]
    assert same(xtec.open_zarr(path).reflectance.values, pixels)


@each_kind
@pytest.mark.parametrize("chunks", [{}, None], ids=["Dask", "no Dask"])
def test_it_is_found_without_dask_too(stores, kind, chunks):
    path, pixels = stores[kind]
    opened = xtec.open_zarr(path, chunks=chunks)
    assert same(opened.reflectance[1:, :, 7:9].values, pixels[1:, :, 7:9])


@pytest.mark.parametrize("kind", ["format 2", "shards"])
def test_where_plain_open_zarr_cannot_see_the_store_one_line_helps(stores, kind):
    path, pixels = stores[kind]
    opened = xr.open_zarr(path)
    with pytest.raises(WrongModelError, match=r"'theirs'.*xtec\.register_store\(store\)"):
        opened.reflectance.load()
    assert xtec.register_store(path) == ["theirs"]
    assert same(opened.reflectance.values, pixels)


def test_other_processes_of_dask_find_it(stores):
    """A worker is a new process that was told nothing but its tasks; each store has its model."""
    arrays = [xtec.open_zarr(path).reflectance.data for path, _ in stores.values()]
    with dask.config.set(scheduler="processes", num_workers=1):
        found = dask.compute(*arrays)
    assert all(map(same, found, (pixels for _, pixels in stores.values())))


def test_a_store_that_was_sent_says_where_its_models_are(stores):
    path, pixels = stores["shards"]
    data = pickle.dumps(xtec.open_zarr(path, chunks=None))
    registry._shelves.clear()
    assert same(pickle.loads(data).reflectance.values, pixels)
    assert len(registry._shelves) == 1
    pickle.loads(data)
    assert len(registry._shelves) == 1


def test_the_stores_opened_last_are_remembered(monkeypatch):
    monkeypatch.setattr(registry, "SHELVES", 3)
    for i in (1, 2, 3, 4, 3):
        registry.offer(Shelf(str(i)))
    assert [shelf.store for shelf in registry._shelves] == ["3", "4", "2"]


def test_a_store_that_is_out_of_reach_hides_no_other(stores):
    """Whatever its error is; it is told where nothing was found."""

    def unreachable(_start):
        raise OSError("the network is down")

    path, pixels = stores["shards"]
    opened = xtec.open_zarr(path, chunks=None)
    registry.offer(unreachable)
    assert same(opened.reflectance.values, pixels)
    with pytest.raises(WrongModelError, match="not be asked: the network is down"):
        registry.find(bytes(8))


def test_all_threads_of_zarr_may_wait_for_one_model(stores, tmp_path):
    """It has one here, which decodes: another must read the model."""
    path, pixels = stores["shards"]
    code = f"import sys, xtec, zlib; print({CRC.format('xtec')})"
    environment = {k: v for k, v in os.environ.items() if k != registry.SEARCH_PATH}
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=environment | {"ZARR_THREADING__MAX_WORKERS": "1"},
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert int(done.stdout) == zlib.crc32(pixels)


def test_a_process_that_never_imports_xtec(stores, tmp_path):
    path, pixels = stores["format 3"]
    code = f"import sys, xarray as xr, zlib; print({CRC.format('xr')})"
    environment = {k: v for k, v in os.environ.items() if k != registry.SEARCH_PATH}
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) == zlib.crc32(pixels)


def test_a_store_in_memory_and_a_cube_in_a_group(stores, weights, cube):
    memory = MemoryStore()
    cube = cube.sel(band=list(LAPPED.bands))
    lazy = cube.tec.compress(model=weights, compression=BEST)
    registry.resolve(weights)
    lazy.to_zarr(memory, group="a/b", consolidated=False)
    zarr.consolidate_metadata(memory)
    assert xtec.embed_model(memory) == ["theirs"]
    assert [name for name, _ in zarr.open_group(memory).groups()] == ["a", GROUP]
    registry._used.clear()
    opened = xr.open_zarr(memory, group="a/b")
    assert same(opened.reflectance.values, stores["format 3"][1])
    info = opened.tec.info()
    assert info.model_bytes == Path(weights).stat().st_size


def test_what_was_opened_can_be_encoded_again(copy):
    """To append to a store needs its model as well."""
    path = copy("format 2")
    xtec.open_zarr(path)
    array = zarr.open_array(path, path="reflectance", mode="r+")
    chunk = np.full(array.chunks, 1000, "uint16")
    array[:] = chunk
    assert near(array[:], chunk)


def test_the_package_is_asked_before_the_store(cube, tmp_path, monkeypatch):
    path = tmp_path / "own.zarr"
    cube.isel(time=[0]).tec.compress(path, progress=False)
    monkeypatch.setattr(Shelf, "__call__", None)
    assert xr.open_zarr(path).reflectance.values.any()


def test_the_store_is_asked_before_the_hub(stores, monkeypatch):
    monkeypatch.setattr(registry, "_candidates", None)
    path, pixels = stores["format 3"]
    assert same(xr.open_zarr(path).reflectance.values, pixels)


def test_a_copy_is_made_once_in_a_process(stores, monkeypatch):
    path, _ = stores["format 3"]
    first = Shelf(str(path))(model_in(path).basename)
    monkeypatch.setattr(Shelf, "_copy", None)
    assert Shelf(str(path))(model_in(path).basename) == first


# What lies in the store


@each_kind
def test_the_file_is_there_once_and_verbatim(stores, kind, models):
    path, _ = stores[kind]
    data = Path(models[kind]).read_bytes()
    array = model_in(path)
    digest = hashlib.sha256(data).hexdigest()
    assert array.basename == digest[:16]
    assert array[:].tobytes() == data
    assert array.attrs["sha256"] == digest
    assert (array.attrs["model"], array.attrs["file"]) == ("theirs", "theirs.safetensors")
    (chunk,) = (p for p in (path / GROUP).rglob("*") if p.name == "0")
    assert chunk.read_bytes() == data  # so that `cp` is enough


def test_a_second_cube_of_one_model_adds_no_second_copy(copy, weights):
    path = copy()
    chunk = path / GROUP / model_in(path).basename / "c" / "0"
    before = chunk.stat().st_mtime_ns
    registry.resolve(weights)
    assert xtec.embed_model(path) == ["theirs"]
    assert chunk.stat().st_mtime_ns == before
    assert Shelf(path).digests() == [model_in(path).basename]


@each_kind
def test_xarray_sees_the_cube_alone_and_a_tree_sees_all(stores, kind):
    path, _ = stores[kind]
    assert list(xr.open_zarr(path).data_vars) == ["reflectance"]
    tree = xr.open_datatree(path, engine="zarr", chunks={})
    (weights,) = tree[GROUP].data_vars.values()
    assert (weights.dims, weights.dtype) == (("byte",), np.dtype("uint8"))


def test_small_weights_go_in_by_default_and_large_ones_on_request(
    weights, cube, tmp_path, monkeypatch
):
    cube = cube.sel(band=list(LAPPED.bands)).isel(time=[0])

    def carried(**options):
        done = cube.tec.compress(
            tmp_path / "a.zarr", model=weights, overwrite=True, progress=False, **options
        )
        return done.tec.info().model_bytes

    size = Path(weights).stat().st_size
    assert carried() == size
    assert carried(embed_weights=False) is None
    monkeypatch.setattr(shelf, "BY_DEFAULT_BYTES", size - 1)
    assert carried() is None
    assert carried(embed_weights=True) == size


def test_info_counts_the_model_apart(stores, weights):
    registry.resolve(weights)
    info = xr.open_zarr(stores["format 3"][0]).tec.info()
    size = Path(weights).stat().st_size
    assert info.model_bytes == size
    assert info.ratio == info.raw_bytes / info.stored_bytes
    assert info.ratio_with_model == info.raw_bytes / (info.stored_bytes + size)
    assert info.to_dict()["ratio_with_model"] == info.ratio_with_model
    assert "more, once per store; with it" in repr(info)


def test_a_lazy_cube_has_no_store_to_put_it_in(cube):
    with pytest.raises(InputError, match=r"xtec\.embed_model\(store\)"):
        cube.tec.compress(embed_weights=True)
    assert cube.tec.compress().tec.info().ratio_with_model is None


def test_large_files_travel_in_parts(tmp_path, monkeypatch):
    """An official checkpoint, .pt: on request."""
    monkeypatch.setattr(shelf, "CHUNK_BYTES", 10_000)
    file = tmp_path / "TerraCodec_v1_TT_S2L1C_lambda-20.pt"
    card = registry.resolve(write_checkpoint(file, network(SMALL_L1C)))
    store = MemoryStore()
    zarr.create_group(store)
    Shelf(store).put(card, 3)
    assert model_in(store).nchunks > 1
    registry._used.clear()
    file.unlink()
    found = registry.find(bytes.fromhex(card.digest)[:8], card.name, Shelf(store))
    assert found == replace(card, path=found.path)
    assert found.path.name == file.name


# It is missing


def test_a_store_whose_model_is_missing_says_which_and_how_to_get_it(copy):
    path = copy()
    name = model_in(path).basename
    shutil.rmtree(path / GROUP)
    with pytest.raises(WrongModelError) as caught:
        xr.open_zarr(path).reflectance.load()
    for part in (name, "'theirs'", registry.SEARCH_PATH, "xarray-tec", "register_store"):
        assert part in str(caught.value)
    with pytest.raises(ModelError, match=r"carries no model.*embed_weights=True.*embed_model"):
        xtec.register_store(path)
    with pytest.raises(ModelError, match="carries no model"):
        xtec.register_store(MemoryStore())


def test_a_model_that_was_not_wholly_written_is_not_there(copy):
    path = copy()
    model_in(path).update_attributes({"sha256": ""})
    assert Shelf(path).stored_bytes(model_in(path).basename) is None
    with pytest.raises(WrongModelError):
        xr.open_zarr(path).reflectance.load()


def test_what_was_half_written_is_written_again(copy, weights):
    path, card = copy(), registry.resolve(weights)
    array = model_in(path)
    array[5:] = 0
    array.update_attributes({"sha256": ""})
    assert xtec.embed_model(path) == ["theirs"]
    assert model_in(path)[:].tobytes() == Path(weights).read_bytes()
    assert Shelf(path).stored_bytes(card.digest) == card.path.stat().st_size


def test_a_store_without_our_pixels_needs_no_model(cube, tmp_path):
    cube.drop_encoding().to_zarr(tmp_path / "plain.zarr", consolidated=False)
    with pytest.raises(InputError, match="only such a store needs a model"):
        xtec.embed_model(tmp_path / "plain.zarr")


def test_weights_that_changed_on_disk_are_not_put_in(tmp_path):
    path = Path(write_weights(tmp_path / "a.safetensors", network(TINY)))
    card = registry.resolve(str(path))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match="no longer the file"):
        Shelf(MemoryStore()).put(card, 3)


# It is hostile


def spoilt(path, spoil):
    """Put something else in the model's place; give what decoding says."""
    array = model_in(path)
    spoil(path, array.basename, array[:], dict(array.attrs))
    with pytest.raises(ModelError) as caught:
        xr.open_zarr(path).reflectance.load()
    return str(caught.value)


def placed(array_options):
    """Something else in the place of the model's array, under its attributes."""

    def place(path, name, data, attributes):
        options = {"shape": data.shape, "dtype": data.dtype, "chunks": data.shape}
        options |= {"compressors": None} | array_options
        group = zarr.open_group(path, path=GROUP, mode="r+")
        made = group.create_array(name, overwrite=True, attributes=attributes, **options)
        if made.shape == data.shape:
            made[:] = data.astype(made.dtype)

    return place


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (1 << 40,), "chunks": (1 << 20,)},
        {"shape": (1 << 25,), "chunks": (1 << 25,)},
        {"shape": (0,), "chunks": (1,)},
        {"shape": (10, 10), "chunks": (10, 10)},
        {"dtype": "float64"},
        {"compressors": "auto"},
    ],
)
def test_an_array_that_is_no_file_is_not_read(copy, options):
    assert "cannot be used as a model" in spoilt(copy(), placed(options))


def test_another_file_than_its_name_says_is_not_opened(copy, monkeypatch):
    def flip(path, name, data, attributes):
        data[1000] ^= 1
        model_in(path)[:] = data

    monkeypatch.setattr(registry, "lend", None)
    assert "its digest is" in spoilt(copy(), flip)


@pytest.mark.parametrize(
    "name", ["../../evil.safetensors", "/tmp/x.pt", "a.py", "", ".pt", "x" * 200 + ".pt", None]
)
def test_a_file_name_leads_nowhere(copy, name):
    def rename(path, *_):
        model_in(path).update_attributes({"file": name})

    assert "its file is called" in spoilt(copy(), rename)


def test_bytes_that_no_writer_of_weights_wrote(tmp_path):
    """A store that is false through and through: pickled code under a digest of its own."""
    data = b"cos\nsystem\n(S'touch /tmp/never'\ntR."
    for file in ("a.safetensors", "a.pt"):
        store, digest = MemoryStore(), hashlib.sha256(data).hexdigest()
        group = zarr.create_group(store).create_group(GROUP)
        attributes = {"file": file, "sha256": digest}
        array = group.create_array(
            digest[:16], shape=(len(data),), dtype="uint8", compressors=None, attributes=attributes
        )
        array[:] = np.frombuffer(data, np.uint8)
        with pytest.raises(ModelError, match=r"not a weights file|not a checkpoint"):
            registry.find(bytes.fromhex(digest)[:8], None, Shelf(store))
    assert not Path("/tmp/never").exists()


def test_a_store_cannot_take_a_name_away_from_another_model(copy, tmp_path):
    """What a store calls its model decides nothing: it may call it what the user trusts."""
    path = Path(write_weights(tmp_path / "a.safetensors", context_network(seed=5), "tt-s2l1c-x"))
    store = MemoryStore()
    zarr.create_group(store)
    Shelf(store).put(registry.resolve(str(path)), 3)
    registry._used.clear()
    assert xtec.register_store(store) == ["tt-s2l1c-x"]
    with pytest.raises(ModelError, match="there is no model 'tt-s2l1c-x'"):
        registry.resolve("tt-s2l1c-x")
    assert "tt-s2l1c-x" not in registry.known()


def test_a_description_beyond_reason_is_refused(tmp_path):
    """Building it would take for ever before its tensors were compared."""
    path = Path(write_weights(tmp_path / "a.safetensors", context_network()))
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    about = json.loads(data[8 : 8 + header])
    inner = json.loads(about["__metadata__"]["xtec"])
    for field, value in (
        ("layers", 10**9),
        ("d_model", 1 << 40),
        ("mlp_ratio", -1),
        ("heads", 2.0),
    ):
        forged = inner | {"config": inner["config"] | {field: value}}
        about["__metadata__"]["xtec"] = json.dumps(forged)
        text = json.dumps(about).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + header :])
        with pytest.raises(ModelError, match=field):
            registry.read_card(path)


# What belongs to another array


def test_chunks_of_another_model_or_band_are_refused(copy, weights, tmp_path):
    registry.resolve(weights)
    path, chunk = copy("format 3"), "reflectance/c/0/0/0/0"
    cube = xr.open_zarr(path, mask_and_scale=False).load().drop_encoding()
    cube.attrs.clear()
    cube.reflectance.attrs.clear()
    other = write_weights(tmp_path / "b.safetensors", context_network(seed=4), "others")
    cases = [
        (cube, {"model": other}, WrongModelError, r"the model of digest .* where .* 'theirs'"),
        (
            cube.isel(band=[2, 1, 0]),
            {},
            CorruptStreamError,
            "holds the bands .*'B08', 'B04', 'B02'",
        ),
        (cube, {"nodata": 9}, CorruptStreamError, "no-data value 9"),
        (cube, {"offset": 1000}, CorruptStreamError, "offset 1000"),
    ]
    for changed, options, error, message in cases:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            changed.tec.compress(
                tmp_path / "other.zarr", progress=False, overwrite=True,
                **{"model": weights, "compression": BEST} | options,
            )  # fmt: skip
        shutil.copy(tmp_path / "other.zarr" / chunk, path / chunk)
        with pytest.raises(error, match=message):
            xr.open_zarr(path).reflectance.load()
