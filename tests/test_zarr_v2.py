"""The numcodecs codec: by itself, and through Zarr format 2."""

import json
import pickle

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from tests.models import near
from xtec import codec
from xtec.errors import CorruptStreamError, InputError, StreamError, TruncatedStreamError
from xtec.zarr_v2 import DTYPES, TecCodec

BANDS = ("B02", "B04", "B08")


@pytest.fixture
def chunk(cube):
    """uint16 (2, 3, 33, 31) with a corner of no data."""
    chunk = cube.reflectance.sel(band=list(BANDS)).values[:2, :, :33, :31].copy()
    chunk[:, :, -9:, -7:] = 0
    return chunk


@pytest.fixture
def stream(chunk, precise):
    return TecCodec(precise).encode(chunk)


def close(decoded, original):
    assert decoded.shape == original.shape
    np.testing.assert_array_equal(decoded == 0, original == 0)
    assert near(decoded[original != 0], original[original != 0])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_comes_back_in_its_own_type_and_order(chunk, dtype, order, precise):
    chunk = np.minimum(chunk, 30000).astype(dtype, order=order)
    one = TecCodec(precise, dtype, order)
    decoded = one.decode(one.encode(chunk))
    assert decoded.dtype.str == dtype
    assert decoded.flags[f"{order}_CONTIGUOUS"]
    close(decoded, chunk)


def test_byte_order_and_layout_change_no_byte(chunk, stream, precise):
    assert TecCodec(precise, order="F").encode(np.asfortranarray(chunk)) == stream
    assert TecCodec(precise, ">u2").encode(chunk.astype(">u2")) == stream
    strided = np.repeat(chunk, 2, axis=3)[..., ::2]
    assert not strided.flags.c_contiguous
    assert TecCodec(precise).encode(strided) == stream


@pytest.mark.parametrize(("order", "other"), ["CF", "FC"])
def test_the_other_order_is_refused(chunk, order, other, precise):
    with pytest.raises(InputError, match=f"{other} order met a codec for {order} order"):
        TecCodec(precise, order=order).encode(chunk.copy(order=other))
    with pytest.raises(InputError, match="'A'"):
        TecCodec(precise, order="A")


def test_input_is_not_touched(chunk, stream, precise):
    before = chunk.copy()
    chunk.flags.writeable = False
    assert TecCodec(precise).encode(chunk) == stream
    np.testing.assert_array_equal(chunk, before)


@pytest.mark.parametrize(
    "form", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)]
)
def test_decodes_from_every_kind_of_buffer(chunk, stream, form, precise):
    close(TecCodec(precise).decode(form(stream)), chunk)


def test_decodes_into_what_it_is_given(chunk, stream, precise):
    out = np.empty_like(chunk)
    assert TecCodec(precise).decode(stream, out) is out
    close(out, chunk)


def test_config_goes_through_json_and_the_registry(precise):
    one = TecCodec(precise, ">u2")
    config = json.loads(json.dumps(one.get_config()))
    about = {"id": "xarray-tec.tt", "dtype": ">u2", "order": "C"}
    assert config == about | precise.to_dict()
    numcodecs.register_codec(TecCodec)
    assert numcodecs.get_codec(config) == one
    assert TecCodec.from_config({}) == TecCodec()


def test_pickles_are_small_and_equal(precise):
    one = TecCodec(precise)
    data = pickle.dumps(one)
    assert len(data) < 1000
    assert pickle.loads(data) == one


def test_another_type_than_the_codec_is_for_is_refused(chunk, precise):
    with pytest.raises(InputError, match=r">u2 met a codec for <u2.*dtype="):
        TecCodec(precise).encode(chunk.astype(">u2"))
    with pytest.raises(InputError, match=r"<f4 met a codec for <u2"):
        TecCodec(precise).encode(chunk.astype("f4"))


@pytest.mark.parametrize("dtype", ["f4", "u4", "|u1", "nonsense"])
def test_types_that_cannot_be_coded(dtype, precise):
    with pytest.raises(InputError, match="<u2, <i2, >u2, >i2"):
        TecCodec(precise, dtype)


def test_another_shape_is_refused(chunk, precise):
    with pytest.raises(InputError, match=r"four dimensions"):
        TecCodec(precise).encode(chunk[0])
    with pytest.raises(InputError, match=r"2 bands"):
        TecCodec(precise).encode(chunk[:, :2])


def test_a_stream_of_another_type_is_refused(stream, precise):
    with pytest.raises(CorruptStreamError, match=r"uint16, where the array's chunks are int16"):
        TecCodec(precise, "<i2").decode(stream)


def test_damage_is_an_error_and_never_pixels(stream, precise):
    with pytest.raises(TruncatedStreamError):
        TecCodec(precise).decode(stream[:-1])
    damaged = bytearray(stream)
    damaged[60] ^= 1
    with pytest.raises(StreamError):
        TecCodec(precise).decode(damaged)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_through_zarr_format_2(chunk, dtype, order, precise):
    store = MemoryStore()
    array = zarr.create_array(
        store,
        name="v",
        shape=chunk.shape,
        chunks=(2, 3, 20, 20),
        dtype=dtype,
        order=order,
        zarr_format=2,
        compressors=TecCodec(precise, dtype, order),
        filters=None,
        fill_value=0,
    )
    array[:] = chunk.astype(dtype)
    reopened = zarr.open_array(store, path="v", mode="r")
    close(reopened[:], chunk)
    assert reopened.compressors == (TecCodec(precise, dtype, order),)


def test_both_sockets_write_the_same_streams(chunk, stream, precise):
    assert codec.encode_chunk(chunk, precise) == stream
