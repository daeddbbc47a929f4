"""The serializer of Zarr format 3, used through plain zarr."""

import asyncio
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.buffer import default_buffer_prototype
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArrayConfig
from zarr.storage import MemoryStore

from tests.models import near
from xtec import codec, zarr_v3
from xtec.codec import Settings
from xtec.errors import BandError, CorruptStreamError, InputError, NewerFormatError, StreamError
from xtec.zarr_v3 import NAME, TecSerializer

BANDS = ("B02", "B04", "B08")
CHUNK = (2, 3, 32, 27)


@pytest.fixture
def pixels(cube):
    """uint16 (3, 3, 50, 43) with a corner of no data."""
    pixels = cube.reflectance.sel(band=list(BANDS)).values.copy()
    pixels[:, :, -9:, -7:] = 0
    return pixels


@pytest.fixture
def create(precise):
    def create(store, shape, **options):
        fields = {"shape": shape, "chunks": CHUNK, "dtype": "uint16", "fill_value": 0, "name": "v"}
        fields |= {"serializer": TecSerializer(precise), "compressors": None} | options
        return zarr.create_array(store, **fields)

    return create


def close(decoded, original):
    """No data where there was, and pixels near enough to be the same picture."""
    assert decoded.shape == original.shape
    np.testing.assert_array_equal(decoded == 0, original == 0)
    assert near(decoded[original != 0], original[original != 0])


def test_there_and_back(pixels, precise, create):
    store = MemoryStore()
    array = create(store, pixels.shape)
    array[:] = pixels
    reopened = zarr.open_array(store, path="v", mode="r")
    assert reopened.serializer == TecSerializer(precise)
    close(reopened[:], pixels)
    np.testing.assert_array_equal(reopened[1:, 1, 5:9, 20:], reopened[:][1:, 1, 5:9, 20:])


def test_as_inner_codec_of_shards(pixels, create):
    plain, sharded = (
        create({}, pixels.shape),
        create({}, pixels.shape, shards=(4, 3, 64, 54)),
    )
    plain[:] = sharded[:] = pixels
    assert isinstance(sharded.metadata.codecs[0], ShardingCodec)
    np.testing.assert_array_equal(sharded[:], plain[:])


def test_one_pixel_of_a_shard_decodes_one_chunk(pixels, monkeypatch, create):
    array = create({}, pixels.shape, shards=(4, 3, 64, 54))
    array[:] = pixels
    decoded = []
    monkeypatch.setattr(
        zarr_v3, "decode_chunks", lambda s, **k: decoded.extend(s) or codec.decode_chunks(s, **k)
    )
    assert array[0, 0, 0, 0] > 0
    assert len(decoded) == 1


class Count:
    """What the codec was asked to decode: each stream, and how many of its frames."""

    def __init__(self, monkeypatch):
        self.calls = []
        monkeypatch.setattr(zarr_v3, "decode_chunks", self)

    def __call__(self, streams, *, frames, **options):
        self.calls.append(list(zip(streams, frames, strict=True)))
        return codec.decode_chunks(streams, frames=frames, **options)

    @property
    def frames(self):
        return sorted(n for call in self.calls for _, n in call)

    @property
    def streams(self):
        return [s for call in self.calls for s, _ in call]


TIMES = [
    (0, [1]), (1, [2]), (slice(0, 1), [1]), (slice(1, 2), [2]), (slice(0, 2), [2]),
    (slice(0, 3), [1, 2]), (slice(2, 3), [1]), ([0, 2], [1, 1]), ([1], [2]),
]  # fmt: skip


@pytest.mark.parametrize("shards", [None, (4, 3, 64, 54)])
@pytest.mark.parametrize(("times", "expected"), TIMES)
def test_dates_after_the_wanted_ones_are_not_decoded(
    pixels, monkeypatch, create, times, expected, shards
):
    array = create({}, pixels.shape, shards=shards)
    array[:] = pixels
    whole = array[:]
    count = Count(monkeypatch)
    found = array.oindex[times, 1:, 3:20, 4:20]
    np.testing.assert_array_equal(found, whole[times, 1:, 3:20, 4:20])
    assert count.frames == expected


def test_other_ways_to_select(pixels, monkeypatch, create):
    array = create({}, pixels.shape)
    array[:] = pixels
    whole = array[:]
    count = Count(monkeypatch)
    pick = [0, 2, 0], [0, 1, 2], [5, 5, 40], [1, 2, 42]
    np.testing.assert_array_equal(array.vindex[pick], whole[pick])
    assert count.frames == [1, 1, 1]
    mask = np.zeros(pixels.shape, bool)
    mask[1, 0, 0, 0] = True
    np.testing.assert_array_equal(array.vindex[mask], whole[mask])
    assert array[0, 0, 0, 0] == whole[0, 0, 0, 0]
    np.testing.assert_array_equal(array[::2, ..., ::7], whole[::2, ..., ::7])
    assert array[0:0].shape == (0, *pixels.shape[1:])
    assert array.blocks[0, 0, 1, 1].shape == (2, 3, 18, 16)


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("shards", [None, (4, 3, 64, 54)])
def test_no_chunk_is_decoded_twice_for_one_read(pixels, monkeypatch, create, batch, shards):
    with zarr.config.set({"codec_pipeline.batch_size": batch}):
        array = create({}, pixels.shape, shards=shards)
        array[:] = pixels
        count = Count(monkeypatch)
        array[:, :, 10:, 10:]
    assert len(count.streams) == len(set(count.streams)) == 8
    assert max(map(len, count.calls)) == min(batch, 8)


def test_dask_blocks_of_many_chunks_decode_each_chunk_once_and_together(
    cube, precise, monkeypatch, tmp_path
):
    cube.sel(band=list(BANDS)).tec.compress(
        tmp_path / "a.zarr",
        model=str(precise.card.path),
        compression=precise.compression,
        chunks={"time": 2, "y": 16, "x": 16},
        progress=False,
    )
    count = Count(monkeypatch)
    with zarr.config.set({"codec_pipeline.batch_size": 8}):
        opened = xr.open_zarr(tmp_path / "a.zarr", chunks={"time": 2, "y": 32, "x": 32})
        loaded = opened.load()
    assert len(count.streams) == len(set(count.streams)) == 2 * 4 * 3
    assert max(map(len, count.calls)) == 4
    assert loaded.reflectance.shape == (3, 3, 50, 43)


def test_whole_batches_reach_the_codec(pixels, monkeypatch, create):
    sizes = []
    monkeypatch.setattr(
        zarr_v3, "encode_chunks", lambda c, s: sizes.append(len(c)) or codec.encode_chunks(c, s)
    )
    with zarr.config.set({"codec_pipeline.batch_size": 8}):
        array = create({}, pixels.shape)
        array[:] = pixels
    assert max(sizes) == 8


def test_a_missing_chunk_stays_missing(pixels, create):
    array = create({}, pixels.shape)
    array[:2] = pixels[:2]
    assert array.nchunks_initialized == 4
    assert not array[2:].any()


def test_a_batch_keeps_its_gaps_and_order(pixels, precise, create):
    buffers = default_buffer_prototype()
    spec = create({}, pixels.shape).metadata.get_chunk_spec(
        (0, 0, 0, 0), ArrayConfig.from_dict({}), buffers
    )
    chunk = buffers.nd_buffer.from_numpy_array(pixels[:2, :, :32, :27].copy())
    serializer = TecSerializer(precise)
    streams = asyncio.run(serializer.encode([(None, spec), (chunk, spec), (None, spec)]))
    assert [s is None for s in streams] == [True, False, True]
    chunks = asyncio.run(serializer.decode([(streams[1], spec), (None, spec)]))
    assert [c is None for c in chunks] == [False, True]
    close(chunks[0].as_numpy_array(), chunk.as_numpy_array())


def test_input_is_not_touched(pixels, create):
    before = pixels.copy()
    pixels.flags.writeable = False
    create({}, pixels.shape)[:] = pixels
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2"])
def test_types_and_memory_orders(pixels, dtype, order, create):
    pixels = np.asarray(np.minimum(pixels, 30000), dtype, order=order)
    array = create({}, pixels.shape, dtype=dtype)
    array[:] = pixels
    close(array[:], pixels.astype(int))


def test_int16_keeps_negative_no_data(pixels, precise, create):
    serializer = TecSerializer(replace(precise, nodata=-9999))
    pixels = np.where(pixels == 0, -9999, np.minimum(pixels, 30000)).astype("int16")
    array = create({}, pixels.shape, dtype="int16", serializer=serializer, fill_value=-9999)
    array[:] = pixels
    np.testing.assert_array_equal(array[:] == -9999, pixels == -9999)


def test_metadata_say_all_that_a_reader_needs(pixels, precise, create):
    store = MemoryStore()
    create(store, pixels.shape)
    about = json.loads(store._store_dict["v/zarr.json"].to_bytes())["codecs"]
    assert about == [{"name": NAME, "configuration": precise.to_dict()}]
    assert about[0]["configuration"]["model"] == precise.model != "embedded"
    assert len(about[0]["configuration"]["model_digest"]) == 64
    assert TecSerializer.from_dict(about[0]) == TecSerializer(precise)


def test_pickles_are_small_and_equal(precise):
    serializer = TecSerializer(precise)
    data = pickle.dumps(serializer)
    assert len(data) < 1000
    assert pickle.loads(data) == serializer
    assert hash(pickle.loads(data)) == hash(serializer)


def test_without_configuration_all_is_default():
    assert TecSerializer.from_dict({"name": NAME}) == TecSerializer()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (3, 50, 43), "chunks": (3, 32, 27)}, r"four dimensions \(time, band, y, x\)"),
        ({"dtype": "float32", "fill_value": 0.0}, "float32 cannot be coded.*uint16 or int16"),
        ({"dtype": "uint8"}, "uint8 cannot be coded"),
        ({"shape": (3, 4, 50, 43)}, r"4 bands.*name 3: \['B02', 'B04', 'B08'\]"),
        ({"chunks": (2, 1, 32, 27)}, "1 bands.*A chunk holds all bands"),
        ({"chunks": (2, 1, 32, 27), "shards": (2, 3, 32, 27)}, "A chunk holds all bands"),
    ],
)
def test_what_cannot_be_coded_is_refused_at_creation(options, message, create):
    store = MemoryStore()
    with pytest.raises(InputError, match=message):
        create(store, **{"shape": (3, 3, 50, 43)} | options)[:] = 1
    assert not any("/c/" in key for key in store._store_dict)


def test_settings_that_cannot_work(precise):
    with pytest.raises(BandError):
        TecSerializer(Settings(bands=("B02", "B99")))
    configuration = precise.to_dict() | {"lambda": 3}
    with pytest.raises(InputError, match="lambda"):
        TecSerializer.from_dict({"name": NAME, "configuration": configuration})


def test_a_newer_format_is_named(precise):
    configuration = precise.to_dict() | {"format_version": 99}
    with pytest.raises(NewerFormatError, match=r"99.*install a newer xarray-tec"):
        TecSerializer.from_dict({"name": NAME, "configuration": configuration})


def test_a_store_opens_though_its_model_is_not_at_hand(pixels, precise, create):
    store = MemoryStore()
    create(store, pixels.shape)[:] = pixels
    known, other = precise.model_digest, "0123456789abcdef" * 4
    text = store._store_dict["v/zarr.json"].to_bytes().decode().replace(known, other)
    store._store_dict["v/zarr.json"] = default_buffer_prototype().buffer.from_bytes(text.encode())
    assert zarr.open_array(store, path="v", mode="r").shape == pixels.shape


@pytest.mark.parametrize("shape", [(2, 3, 27, 32), (1, 3, 32, 27)])
def test_a_chunk_of_another_array_is_refused(pixels, shape, precise, create):
    store = MemoryStore()
    array = create(store, pixels.shape)
    stranger = codec.encode_chunk(np.full(shape, 1000, "uint16"), precise)
    store._store_dict["v/c/0/0/0/0"] = default_buffer_prototype().buffer.from_bytes(stranger)
    with pytest.raises(CorruptStreamError, match=r"where the array's chunks are \(2, 3, 32, 27\)"):
        array[:]


def test_a_chunk_of_another_type_is_refused(pixels, precise, create):
    store = MemoryStore()
    array = create(store, pixels.shape)
    stranger = codec.encode_chunk(np.full(CHUNK, 1000, "int16"), precise)
    store._store_dict["v/c/0/0/0/0"] = default_buffer_prototype().buffer.from_bytes(stranger)
    with pytest.raises(CorruptStreamError, match="type int16"):
        array[:]


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_damage_is_an_error_and_never_pixels(pixels, damage, create):
    store = MemoryStore()
    array = create(store, pixels.shape)
    array[:] = pixels
    stream = bytearray(store._store_dict["v/c/0/0/0/0"].to_bytes())
    if damage == "truncate":
        del stream[-9:]
    else:
        stream[len(stream) // 2] ^= 4
    store._store_dict["v/c/0/0/0/0"] = default_buffer_prototype().buffer.from_bytes(bytes(stream))
    with pytest.raises(StreamError):
        array[:]
    close(array[2:], pixels[2:])
