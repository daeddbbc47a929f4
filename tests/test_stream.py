"""The container gives back what was put in, or an error that names the cause."""

import dataclasses
import struct
import tracemalloc
import zlib
from contextlib import suppress
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import masks, streams
from xtec.coding import masks as mask_coder
from xtec.coding import stream
from xtec.coding.stream import Stream, pack, parse
from xtec.errors import (
    CorruptStreamError,
    InputError,
    NewerFormatError,
    StreamError,
    TruncatedStreamError,
)

HEADER_BYTES = 42
MASKS = ("invalid", "saturated")

GOLDEN = bytes.fromhex("""
    58544543 01 02 1400 0001020304050607 5b000000
    02000000 04000000 05000000 0300 00000000 e8030000
    01070c 08000000 efbeadde 0c000000 edfecefa
    00 00000000  01 00000000
    7061796c6f61642068657265 00000000 31031c7c
""")
GOLDEN_MASKS = bytes.fromhex("""
    58544543 01 01 1400 0001020304050607 7f000000
    02000000 04000000 05000000 0300 00000000 e8030000
    01070c 08000000 efbeadde 0c000000 edfecefa
    02 0e000000 78da6b7050106800620009e801e1
    03 11000000 78da6b7050106840c30c40000047a804b1
    7061796c6f61642068657265 05000000 6c61746572 7f2d66af
""")


def small(**changes):
    fields = {
        "model_digest": bytes(range(8)),
        "dtype": "uint16",
        "shape": (2, 3, 4, 5),
        "bands": (1, 7, 12),
        "level": 20,
        "nodata": 0,
        "offset": 1000,
        "invalid": None,
        "saturated": np.ones((2, 3, 4, 5), np.bool_),
        "frame_bytes": (8, 12),
        "payload": b"payload here",
        "frame_crcs": (0xDEADBEEF, 0xFACEFEED),
    }
    return Stream(**(fields | changes))


def triangle(shape=(2, 3, 4, 5)):
    """The edge of a swath, alike in every band."""
    return np.broadcast_to(np.tri(*shape[2:], dtype=np.bool_), shape)


def content(one):
    """All fields as plain values; a mask without a pixel set is None."""
    fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    for name in MASKS:
        mask = fields[name]
        fields[name] = None if mask is None or not mask.any() else mask.tolist()
    return fields


def resealed(data):
    """Set the length and the checksum right, as someone would who forges a stream."""
    data = bytearray(data)
    struct.pack_into("<I", data, 16, len(data))
    struct.pack_into("<I", data, len(data) - 4, zlib.crc32(data[:-4]))
    return bytes(data)


def changed(data, offset, layout, value):
    """Forge one field."""
    data = bytearray(data)
    struct.pack_into(layout, data, offset, value)
    return resealed(data)


@given(streams())
def test_what_was_packed_comes_back(one):
    assert content(parse(pack(one))) == content(one)


@given(streams())
def test_packing_again_gives_the_same_bytes(one):
    data = pack(one)
    assert pack(parse(data)) == data


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, "u1")]
)
def test_any_kind_of_bytes_is_read(kind):
    assert content(parse(kind(pack(small())))) == content(small())


def test_streams_are_frozen():  # golden: a change here needs a new format version
    data = pack(small())
    assert data == GOLDEN
    assert content(parse(data)) == content(small())


def test_coded_masks_are_frozen():  # only read: zlib libraries differ in what they write
    invalid, saturated = triangle(), triangle().copy()
    saturated[1, 2] = False
    expected = small(
        invalid=invalid, saturated=saturated, dtype="int16", nodata=None, residual=b"later"
    )
    assert content(parse(GOLDEN_MASKS)) == content(expected)


def test_the_crcs_of_latents_are_frozen():
    latents = np.array([[0, -1], [1 << 20, 7]], np.int32)
    first, both = stream.frame_crcs(latents)
    assert first == zlib.crc32(bytes.fromhex("00000000 ffffffff"))
    assert both == zlib.crc32(bytes.fromhex("00000000 ffffffff 00001000 07000000"))
    assert stream.frame_crcs(latents.T) == stream.frame_crcs(latents.T.copy())
    assert stream.frame_crcs([latents[0], latents[:0], latents[1]]) == (first, first, both)
    assert stream.frame_crcs([latents[:0]]) == (0,)
    with pytest.raises(InputError, match="int64; give int32"):
        stream.frame_crcs(latents.astype(np.int64))


# Masks


@given(st.data(), st.tuples(*[st.integers(1, 20)] * 4))
def test_masks_come_back(data, shape):
    mask = data.draw(masks(shape))
    kind, coded = mask_coder.encode(mask)
    back = mask_coder.decode(kind, coded, shape)
    if back is None:
        assert mask is None or not mask.any()
    else:
        assert (back.dtype, back.shape) == (np.bool_, shape)
        assert (back == mask).all()
        assert not back.flags.writeable


def test_a_mask_alike_in_every_band_costs_as_much_as_one_band():
    one_band, all_bands = triangle((2, 1, 64, 64)), triangle((2, 13, 64, 64))
    assert mask_coder.encode(all_bands) == mask_coder.encode(one_band)
    different = all_bands.copy()
    different[0, 3] ^= np.random.default_rng(1).random((64, 64)) < 0.5
    assert [mask_coder.encode(mask)[0] for mask in (None, ~triangle() & triangle())] == [0, 0]
    assert mask_coder.encode(triangle() | True) == (1, b"")
    assert mask_coder.encode(different)[0] == 3


def test_the_edge_of_a_swath_is_cheap():
    _, data = mask_coder.encode(triangle((8, 13, 256, 256)))
    assert len(data) < 150


# Damage


@pytest.fixture(scope="module")
def packed():
    return pack(small(invalid=triangle(), residual=b"later"))


def test_one_flipped_bit_anywhere_is_noticed(packed):
    for bit in range(8 * len(packed)):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((CorruptStreamError, TruncatedStreamError)):
            parse(damaged)


def test_a_cut_anywhere_is_named_a_cut(packed):
    for length in range(len(packed)):
        with pytest.raises(TruncatedStreamError, match=f"has {length} "):
            parse(packed[:length])


@given(streams(), st.binary(min_size=1, max_size=50))
def test_more_bytes_are_refused(one, extra):
    with pytest.raises(CorruptStreamError, match=f"{len(extra)} bytes follow the end"):
        parse(pack(one) + extra)


def test_other_bytes_are_not_taken_for_a_stream():
    with pytest.raises(CorruptStreamError, match=r"begin with b'PK\\x03\\x04', .* b'XTEC'"):
        parse(b"PK\x03\x04" + bytes(100))


def test_a_damaged_stream_is_told_from_a_cut_one(packed):
    damaged = packed.replace(b"payload", b"payloat")
    with pytest.raises(CorruptStreamError, match=r"checksum .* damaged on its way"):
        parse(damaged)


def test_a_newer_format_is_named(packed):
    with pytest.raises(NewerFormatError, match=r"version 2; .* up to 1\. Update xarray-tec"):
        parse(changed(packed, 4, "<B", 2))
    with pytest.raises(CorruptStreamError, match="version 0 does not exist"):
        parse(changed(packed, 4, "<B", 0))


# Forgery: checksums are right, contents are not


@given(streams(), st.data())
def test_a_forged_stream_is_refused_or_means_something(one, data):
    forged = bytearray(pack(one))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(5, len(forged) - 5))
        match data.draw(st.sampled_from(["set", "insert", "delete"])):
            case "set":
                forged[place] = data.draw(st.integers(0, 255))
            case "insert":
                forged[place:place] = data.draw(st.binary(min_size=1, max_size=5))
            case "delete":
                del forged[place : place + data.draw(st.integers(1, 5))]
    try:
        back = parse(resealed(forged + bytes(max(0, 50 - len(forged)))))
    except StreamError:
        return
    if prod(back.shape) < 100_000:  # a huge shape is allowed; its masks are views of one value
        assert content(parse(pack(back))) == content(back)


@given(st.binary(max_size=200))
def test_a_forged_body_of_garbage_is_refused_or_means_something(body):
    header = pack(small())[:HEADER_BYTES]
    with suppress(StreamError):
        parse(resealed(header + body + bytes(4)))


FORGED = [
    (5, "<B", 4, "flags 00000100 are unknown"),
    (20, "<I", 0, r"is \(0, 3, 4, 5\); each must be at least 1"),
    (24, "<I", 0, r"is \(2, 3, 0, 5\)"),
    (28, "<I", 0xFFFFFFFF, "at most 2147483648 pixels"),
    (20, "<I", 1 << 25, "268435456 bytes has only"),
    (32, "<H", 0, r"is \(2, 0, 4, 5\)"),
    (34, "<i", -1, "no-data value is -1; 0 to 65535"),
    (42, "<B", 7, r"\(7, 7, 12\) are not 3 different ones"),
    (45, "<I", 13, r"\(13, 12\) must be 2, never fall"),
    (53, "<I", 11, "101 bytes has only 1 to lie in"),
    (53, "<I", 1 << 31, "2147483648 bytes has only"),
    (61, "<B", 6, "mask is of kind 6; 0 to 5"),
    (62, "<I", 1, "kind 0 has 1 bytes instead of 0"),
    (66, "<B", 2, "does not inflate to its 8 bytes"),
    (83, "<I", 1, "1 bytes has only 0"),
]


def test_forged_fields_are_where_they_are_thought_to_be():
    data = pack(small())
    assert data[42:45] == bytes([1, 7, 12])
    assert data[45:61] == struct.pack("<IIII", 8, 0xDEADBEEF, 12, 0xFACEFEED)
    assert data[61:71] == struct.pack("<BIBI", 0, 0, 1, 0)
    assert data[71:83] == b"payload here"
    assert len(data) == 91


@pytest.mark.parametrize(("offset", "layout", "value", "message"), FORGED)
def test_a_forged_field_is_named(offset, layout, value, message):
    with pytest.raises(CorruptStreamError, match=message):
        parse(changed(pack(small()), offset, layout, value))


def test_a_no_data_value_that_is_not_in_use_must_be_zero():
    with pytest.raises(CorruptStreamError, match="not in use"):
        parse(changed(pack(small(nodata=9)), 5, "<B", 0))


def test_bytes_between_the_sections_and_the_checksum_are_refused():
    with pytest.raises(CorruptStreamError, match="3 bytes follow the last section"):
        parse(resealed(pack(small()) + b"abc"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not inflate"),
        (b"no zlib", "cannot be inflated"),
        (zlib.compress(bytes(7)), "does not inflate to its 8 bytes"),
        (zlib.compress(bytes(9)), "does not inflate to its 8 bytes"),
        (zlib.compress(bytes(8))[:-1], "does not inflate to its 8 bytes"),
        (zlib.compress(bytes(8)) + b"x", "does not inflate to its 8 bytes"),
    ],
)
def test_a_mask_must_inflate_to_its_pixels_exactly(data, message):
    with pytest.raises(CorruptStreamError, match=message):
        mask_coder.decode(mask_coder.SHARED, data, (2, 3, 4, 5))


def peak_bytes(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def forged_with_mask(shape, kind, mask_data):
    """A stream of a huge shape and hardly any bytes."""
    frames, bands, height, width = shape
    header = bytearray(pack(small())[:HEADER_BYTES])
    struct.pack_into("<IIIH", header, 20, frames, height, width, bands)
    body = bytes(range(bands)) + bytes(8 * frames)
    body += struct.pack("<BI", kind, len(mask_data)) + mask_data
    return resealed(bytes(header) + body + struct.pack("<BI", 0, 0) + bytes(4 + 4))


@pytest.mark.parametrize(
    ("shape", "kind", "mask_data"),
    [
        ((1, 1, 1, 1), 3, zlib.compress(bytes(50_000_000))),  # a bomb
        ((1, 1, 1 << 15, 1 << 16), 2, zlib.compress(bytes(1000))),
        ((2, 255, 2048, 2048), 3, b""),
        ((1, 200, 3200, 3200), 3, zlib.compress(b"")),
        ((1, 1, 1 << 11, 1 << 16), 4, b"\1" + zlib.compress(bytes(1000))),
        ((1, 4, 1 << 13, 1 << 12), 5, b"\x08" + zlib.compress(bytes(1000))),
    ],
)
def test_memory_follows_the_bytes_that_are_there(shape, kind, mask_data):
    forged = forged_with_mask(shape, kind, mask_data)

    def refuse():
        with pytest.raises(CorruptStreamError, match=r"inflate|too large"):
            parse(forged)

    assert peak_bytes(refuse) < 1_000_000


def test_a_full_mask_of_a_huge_shape_takes_no_memory():
    forged = forged_with_mask((1, 2, 1 << 15, 1 << 15), 1, b"")
    assert peak_bytes(lambda: parse(forged)) < 100_000
    assert parse(forged).invalid.shape == (1, 2, 1 << 15, 1 << 15)


# Arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_digest": b"short"}, "has 5 bytes; 8 are needed"),
        ({"dtype": "float32"}, "float32; uint16 or int16 is allowed"),
        ({"shape": (2, 3, 0, 5)}, "at least 1"),
        ({"shape": (1 << 10, 2, 1 << 10, (1 << 10) + 1)}, "at most 2147483648 pixels"),
        ({"bands": (1, 2)}, "3 different ones"),
        ({"bands": (1, 2, 2)}, "3 different ones"),
        ({"bands": (1, 2, 256)}, "A band is 256; 0 to 255"),
        ({"level": -1}, "The level is -1; 0 to 65535"),
        ({"nodata": 65536}, "The no-data value is 65536; 0 to 65535"),
        ({"nodata": 40000, "dtype": "int16"}, "-32768 to 32767"),
        ({"offset": 1 << 31}, "The offset is 2147483648"),
        ({"frame_crcs": (-1, 0)}, "CRC of the latents is -1"),
        ({"frame_crcs": (1, 2, 3)}, "3 CRCs of the latents for 2 frames"),
        ({"invalid": np.zeros((2, 3, 4, 5), np.uint8)}, "must be bool"),
        ({"saturated": np.zeros((2, 1, 4, 5), np.bool_)}, r"of shape \(2, 3, 4, 5\)"),
        ({"frame_bytes": (12,)}, "must be 2, never fall, and end with the payload's 12 bytes"),
        ({"frame_bytes": (12, 11)}, "never fall"),
        ({"frame_bytes": (-1, 12)}, "never fall"),
        ({"frame_bytes": (1, 2)}, "end with the payload's 12 bytes"),
    ],
)
def test_fields_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        small(**changes)


def test_a_stream_of_four_gibibytes_is_refused(monkeypatch):
    monkeypatch.setattr(stream, "LONGEST", 80)
    with pytest.raises(InputError, match="length is 91; 0 to 80 is allowed"):
        pack(small())
