"""Streams and stores of every released format version decode for ever (tests/golden/README.md)."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import xtec
from tests.golden import make, read
from xtec import shelf
from xtec.codec import decode_chunk
from xtec.coding.stream import FORMAT_VERSION, parse
from xtec.errors import WrongModelError
from xtec.models import registry

GOLDEN = Path(__file__).parent / "golden"
STREAMS = sorted(GOLDEN.glob("v*/*.stream"))
each_stream = pytest.mark.parametrize(
    "path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}"
)


STORES = sorted(GOLDEN.glob("v*/*.zarr"))
each_store = pytest.mark.parametrize(
    "store", STORES, ids=lambda path: f"{path.parent.name}-{path.stem}"
)


def expected(path):
    return read.digests(path.parent)[path.stem]


@pytest.fixture(autouse=True)
def searched(monkeypatch):
    """Models are found through the search path alone."""
    folders = {str(path.parent) for path in STREAMS}
    for known in ("_used", "_lent"):
        monkeypatch.setattr(registry, known, {})
    monkeypatch.setattr(registry, "_shelves", [])
    shelf._copies.cache_clear()
    monkeypatch.setenv(registry.SEARCH_PATH, os.pathsep.join(sorted(folders)))


def test_every_version_is_here_with_all_its_streams():
    versions = sorted(int(path.name[1:]) for path in GOLDEN.glob("v*"))
    assert versions == list(range(1, FORMAT_VERSION + 1))
    for version in versions:
        folder = GOLDEN / f"v{version}"
        names, stores = read.digests(folder), read.files(folder)
        assert {p.stem for p in STREAMS if p.parent == folder} == set(names)
        assert {p.stem for p in STORES if p.parent == folder} == set(stores) == set(make.STORES)
        assert len(names) >= 14
        assert read.pixels(folder).keys() == names.keys() | stores.keys()


@each_stream
def test_the_file_was_never_touched(path):
    assert hashlib.sha256(path.read_bytes()).hexdigest() == expected(path)["sha256"]


@each_stream
def test_latents_are_those_that_were_written(path):
    """`decode_chunk` compares what it decodes with this number before it gives a pixel."""
    data = path.read_bytes()
    assert [f"{crc:08x}" for crc in parse(data).frame_crcs] == expected(path)["frame_crcs"]
    decode_chunk(data)


@each_stream
def test_pixels_are_those_that_were_decoded_then(path):
    then = read.pixels(path.parent)[path.stem]
    stream = parse(path.read_bytes())
    now = decode_chunk(path.read_bytes())
    assert now.dtype == then.dtype
    assert now.shape == then.shape == stream.shape
    assert np.abs(now.astype(int) - then).max() <= read.tolerance(path.stem)
    for mask in (stream.invalid, stream.saturated):
        if mask is not None:
            assert np.array_equal(now[mask], then[mask])


def test_the_streams_differ_in_what_they_hold():
    everything = {p.stem: parse(p.read_bytes()) for p in STREAMS if p.parent.name == "v1"}
    for prefix in make.FAMILIES:
        found = {key: everything[prefix + key] for key in make.chunks()}
        assert len({stream.model_digest for stream in found.values()}) == 1
        assert found["plain"].invalid is None
        assert len(found["plain"].payload) > 100
        assert found["masked"].bands == (4, 1)
        assert found["masked"].invalid.any()
        assert found["masked"].saturated.any()
        assert (found["offset"].nodata, found["offset"].offset) == (None, -1000)
        assert found["empty"].dtype == "int16"
        assert found["empty"].payload == b""
    assert len({stream.model_digest for stream in everything.values()}) == len(make.FAMILIES)


def test_residuals_are_of_every_kind():
    parsed = {p.stem: parse(p.read_bytes()) for p in STREAMS if p.parent.name == "v1"}
    kinds = {name: one.residual[0] & 3 for name, one in parsed.items() if one.residual}
    assert kinds.keys() == {
        prefix + key for prefix in make.FAMILIES for key in make.bounded_chunks()
    }
    assert set(kinds.values()) == {0, 1, 2}


@pytest.mark.parametrize("name", make.bounded_chunks())
@pytest.mark.parametrize("family", make.FAMILIES)
def test_bounds_that_were_promised_are_kept(family, name):
    """The chunks are drawn anew; their random numbers have stayed the same so far."""
    chunk, fields = make.bounded_chunks()[name]
    found = decode_chunk((GOLDEN / "v1" / f"{family}{name}.stream").read_bytes())
    error = np.abs(found.astype(int) - chunk).max(axis=(0, 2, 3))
    assert (error <= fields["max_error"]).all()


@each_store
def test_a_store_was_never_touched(store):
    found = {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file()
    }
    assert found == read.files(store.parent)[store.stem]


@each_store
def test_a_store_decodes_to_what_it_did_then(store):
    opened = xr.open_zarr(store, mask_and_scale=False)
    then = read.pixels(store.parent)[store.stem]
    now = opened.reflectance.values
    assert (now.dtype, now.shape) == (then.dtype, then.shape)
    assert np.abs(now.astype(int) - then).max() <= read.tolerance(store.stem)
    assert np.array_equal(now == 0, make.cube().reflectance.values == 0)
    xr.testing.assert_identical(
        opened.drop_vars("reflectance").drop_attrs(),
        make.cube().drop_vars("reflectance").drop_attrs(),
    )


@each_store
def test_a_store_that_carries_its_model_needs_no_other(store, monkeypatch):
    monkeypatch.delenv(registry.SEARCH_PATH)
    _, options = make.STORES[store.stem]
    opened = xtec.open_zarr(store, mask_and_scale=False)
    if options["embed_weights"]:
        assert opened.reflectance.values.any()
    else:
        with pytest.raises(WrongModelError, match="golden-lapped-1"):
            opened.reflectance.load()


def test_the_stores_differ_in_what_they_are():
    arrays = {s.stem: zarr.open_array(s, path="reflectance", mode="r") for s in STORES}
    assert {name: a.metadata.zarr_format for name, a in arrays.items()} == {
        "format-2": 2, "format-3": 3, "shards": 3, "tec-tt": 2,
    }  # fmt: skip
    assert {name for name, a in arrays.items() if a.shards} == {"shards"}
    assert all(a.nchunks > 1 for a in arrays.values())


def test_without_the_models_the_error_says_what_to_look_for(monkeypatch):
    monkeypatch.delenv(registry.SEARCH_PATH)
    path = GOLDEN / "v1" / "plain.stream"
    digest = parse(path.read_bytes()).model_digest.hex()
    with pytest.raises(WrongModelError, match=digest):
        decode_chunk(path.read_bytes())


def test_the_helper_neither_overwrites_nor_fills_gaps(tmp_path):
    folder = tmp_path / "v1"
    shutil.copytree(GOLDEN / "v1", folder)
    (folder / "plain.stream").unlink()
    shutil.rmtree(folder / "shards.zarr")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match="never again"):
        make.make(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_helper_makes_a_new_version(tmp_path, monkeypatch):
    monkeypatch.setenv(registry.SEARCH_PATH, "")
    make.make(tmp_path / "v9")
    assert {p.name for p in (tmp_path / "v9").iterdir()} == {
        p.name for p in (GOLDEN / f"v{FORMAT_VERSION}").iterdir()
    }
