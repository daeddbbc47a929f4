"""Stores that are no folders: fsspec's and obstore's memory, and a local S3.

All of them are written in place; all that `ds.tec` does to a folder it does to them.
"""

import uuid

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.buffer import cpu, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, ObjectStore

from tests.models import BEST
from xtec import aside, codec, sample, zarr_v2, zarr_v3
from xtec.cube import state
from xtec.errors import InputError, UnfinishedStoreWarning
from xtec.shelf import CarryingStore

BANDS = ("B02", "B04", "B08")
CHUNKS = {"time": 2, "y": 16, "x": 16}
DATES = 4

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):",
    "ignore:datetime.datetime.utcnow:DeprecationWarning",  # botocore
)


@pytest.fixture(scope="module")
def original():
    cube = sample.cube(dates=DATES, size=(16, 20)).sel(band=list(BANDS))
    del cube.reflectance.attrs["_FillValue"]
    return cube


@pytest.fixture
def options(precise):
    return {"model": precise.model, "compression": BEST, "chunks": CHUNKS, "progress": False}


@pytest.fixture(scope="module")
def bucket():
    """Address of an S3 of this machine, and a bucket in it."""
    server = pytest.importorskip("moto.server", reason="no moto: pip install 'moto[s3]' flask")
    pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}", "bucket"
    running.stop()


def s3(address):
    import s3fs

    options = {"key": "a", "secret": "b", "endpoint_url": address, "anon": False}
    return s3fs.S3FileSystem(**options, asynchronous=False), options


PLACES = [
    ("fsspec", 2), ("fsspec", 3), ("url", 3), ("obstore", 3), ("s3", 3), ("s3 by obstore", 3),
]  # fmt: skip


@pytest.fixture(params=PLACES, ids=lambda param: f"{param[0]} {param[1]}")
def zarr_format(request):
    return request.param[1]


@pytest.fixture
def place(request, zarr_format):
    """A store, as a user names it, in a place where nothing is yet."""
    name, kind = uuid.uuid4().hex, request.node.callspec.params["zarr_format"][0]
    if kind == "obstore":
        obstore = pytest.importorskip("obstore")
        return ObjectStore(obstore.store.MemoryStore())
    pytest.importorskip("fsspec")
    if kind == "url":
        return f"memory://{name}"
    if kind == "fsspec":
        return FsspecStore.from_url(f"memory://{name}")
    address, bucket = request.getfixturevalue("bucket")
    filesystem, options = s3(address)
    filesystem.makedirs(bucket, exist_ok=True)
    if kind == "s3":
        return FsspecStore.from_url(f"s3://{bucket}/{name}", storage_options=options)
    obstore = pytest.importorskip("obstore")
    return ObjectStore(
        obstore.store.S3Store(
            bucket, prefix=name, endpoint=address, access_key_id="a", secret_access_key="b",
            region="us-east-1", virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )
    )  # fmt: skip


def content(place):
    """All keys of a store, and what they hold."""
    store = zarr.open_group(place, mode="r").store
    prototype = default_buffer_prototype()

    async def read():
        return {k: (await store.get(k, prototype)).to_bytes() async for k in store.list()}

    return sync(read())


@pytest.fixture(scope="module")
def expected(original, precise, tmp_path_factory):
    """What a folder holds, by Zarr format."""
    found = {}
    for zarr_format in (2, 3):
        path = tmp_path_factory.mktemp("expected") / "a.zarr"
        original.tec.compress(
            path, model=precise.model, compression=BEST, chunks=CHUNKS, progress=False,
            zarr_format=zarr_format,
        )  # fmt: skip
        found[zarr_format] = content(path)
    return found


def test_compress_open_info_append_and_write(original, options, place, expected, zarr_format):
    first, rest = original.isel(time=slice(2)), original.isel(time=slice(2, None))
    opened = first.tec.compress(place, **options, zarr_format=zarr_format)
    assert opened.tec.info().stored_bytes > 0
    with pytest.raises(InputError, match="exists"):
        first.tec.compress(place, **options, zarr_format=zarr_format)
    rest.tec.append(place, progress=False)
    found = content(place)
    coded = {k for k in expected[zarr_format] if k.startswith("reflectance/")}
    assert {k: found[k] for k in coded} == {k: expected[zarr_format][k] for k in coded}
    rest.isel(x=slice(16)).tec.write(place, progress=False)
    assert content(place) == found
    for store in (place, zarr.open_group(place, mode="r").store):
        again = xr.open_zarr(store)
        assert again.sizes["time"] == DATES
        info = again.tec.info()
        assert info.stored_bytes == sum(len(v) for k, v in found.items() if _is_chunk(k))
        assert info.model_bytes > 0
        assert np.abs(again.reflectance.astype(int) - original.reflectance.astype(int)).max() < 99
    original.tec.compress(place, **options, zarr_format=zarr_format, overwrite=True)
    assert content(place) == expected[zarr_format]


def test_a_store_made_in_a_thread_of_our_number_is_still_not_ours(bucket):
    address, name = bucket
    filesystem, options = s3(address)
    filesystem.makedirs(name, exist_ok=True)

    async def made():
        return FsspecStore.from_url(f"s3://{name}/{uuid.uuid4().hex}", storage_options=options)

    async def listed(store):
        return [key async for key in aside.own(store).list()]

    store = aside.run(made())
    zarr.create_array(store, shape=1, dtype="uint8")  # so the file system is Zarr's loop's
    for wrapped in (store, CarryingStore(store)):
        assert "zarr.json" in aside.run(listed(wrapped))
    assert aside.own(store).fs is aside.own(store).fs is not store.fs


def _is_chunk(key):
    return key.startswith("reflectance/") and not key.endswith(("json", ".zarray", ".zattrs"))


def test_resume(original, options, place, expected, zarr_format, monkeypatch):
    count = []
    monkeypatch.setattr(zarr_v3, "encode_chunks", _failing(codec.encode_chunks, count, 3))
    monkeypatch.setattr(zarr_v2, "encode_chunk", _failing(codec.encode_chunk, count, 3))
    options["zarr_format"] = zarr_format
    lazy = original.chunk(CHUNKS)
    with dask.config.set(scheduler="synchronous"), pytest.raises(OSError, match="off"):
        lazy.tec.compress(place, **options)
    with pytest.warns(UnfinishedStoreWarning, match="resume=True"):
        assert xr.open_zarr(place, consolidated=False).tec.info().unfinished == "writing"
    keys = [k for k in content(place) if _is_chunk(k)]
    assert len(keys) == 2
    _spoil(place, keys[0])
    count.clear()
    monkeypatch.setattr(zarr_v3, "encode_chunks", _failing(codec.encode_chunks, count))
    monkeypatch.setattr(zarr_v2, "encode_chunk", _failing(codec.encode_chunk, count))
    lazy.tec.compress(place, **options, resume=True)
    assert len(count) == 3
    assert content(place) == expected[zarr_format]
    assert state.ATTRIBUTE not in xr.open_zarr(place).attrs


def _failing(encode, count, at=99):
    """An encoder that counts its calls, and fails at one of them."""

    def call(*arguments):
        count.append(1)
        if len(count) >= at:
            raise OSError("off")
        return encode(*arguments)

    return call


def _spoil(place, key):
    store = zarr.open_group(place, mode="r+").store
    sync(store.set(key, cpu.Buffer.from_bytes(b"XTEC half")))
