"""One chunk to bytes and back: what matters is exact, company changes nothing, damage is named.

The model of these tests is a tiny one of the embedded family: whatever its weights, the step of its
quantiser bounds the error of the valid pixels. See `tests.models.near`.
"""

import dataclasses
import re
import struct
import zlib
from contextlib import suppress
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import (
    BEST,
    LAPPED,
    TINY,
    chunks,
    context_network,
    near,
    network,
    write_weights,
)
from xtec import codec, residual
from xtec.codec import Settings, decode_chunk, decode_chunks, encode_chunk, encode_chunks
from xtec.coding import stream as container
from xtec.errors import (
    BoundError,
    CorruptStreamError,
    InputError,
    StreamError,
    TruncatedStreamError,
    WrongModelError,
    XtecError,
)
from xtec.models import registry
from xtec.pixels import limits
from xtec.residual import Kind


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    return write_weights(path, context_network())


@pytest.fixture(scope="module")
def plain(model):
    return Settings(model, compression=BEST)


def scene(shape=(2, 3, 20, 13), dtype="uint16", seed=0):
    """Digital numbers with a swath edge, another hole and some saturated pixels."""
    random = np.random.default_rng(seed)
    chunk = random.integers(500, 5000, shape).astype(dtype)
    chunk[0][:, np.tri(*shape[2:], dtype=bool)] = 0
    chunk[:, 0, -3:, -2:] = 0
    chunk[-1, 1, 0, :3] = np.iinfo(dtype).max
    return chunk


def check(chunk, found, one):
    """No-data and saturated pixels are exact, and only they; the others are near."""
    top = np.iinfo(chunk.dtype).max
    assert found.dtype == chunk.dtype.newbyteorder("=")
    assert found.shape == chunk.shape
    assert found.flags.c_contiguous
    invalid = chunk == (top + 1 if one.nodata is None else one.nodata)
    assert np.array_equal(found == one.nodata, invalid)
    assert np.array_equal((found == top) & ~invalid, (chunk == top) & ~invalid)
    valid = ~invalid & (chunk != top)
    assert near(found[valid], chunk[valid])


@settings(max_examples=20)
@given(chunk=chunks(), nodata=st.sampled_from([0, 0, None, 2000, 32767]))
def test_a_chunk_comes_back(model, chunk, nodata):
    one = Settings(model, compression=BEST, nodata=nodata)
    check(chunk, decode_chunk(encode_chunk(chunk, one)), one)


@settings(max_examples=15)
@given(data=st.data(), bands=st.permutations(LAPPED.bands), count=st.integers(1, 3))
def test_any_bands_in_any_order_come_back(model, data, bands, count):
    one = Settings(model, compression=BEST, bands=tuple(bands[:count]))
    chunk = data.draw(chunks(bands=count))
    check(chunk, decode_chunk(encode_chunk(chunk, one)), one)


@pytest.mark.parametrize(
    "shape", [(1, 3, 1, 1), (1, 3, 1, 40), (5, 3, 33, 2), (1, 3, 64, 64), (2, 3, 70, 9)]
)
def test_any_size_comes_back(plain, shape):
    chunk = np.random.default_rng(0).integers(1, 9000, shape).astype(np.uint16)
    check(chunk, decode_chunk(encode_chunk(chunk, plain)), plain)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", ">i2"])
def test_byte_order_is_the_callers_business(plain, dtype):
    chunk = scene(dtype=np.dtype(dtype).newbyteorder("=")).astype(dtype)
    data = encode_chunk(chunk, plain)
    assert data == encode_chunk(chunk.astype(chunk.dtype.newbyteorder("=")), plain)
    found = decode_chunk(data)
    assert found.dtype.isnative
    check(chunk, found, plain)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "a view of every second pixel": lambda chunk: np.repeat(chunk, 2, axis=3)[..., ::2],
    "turned round": lambda chunk: np.ascontiguousarray(chunk[:, :, ::-1])[:, :, ::-1],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layout_in_memory_is_the_callers_business_and_nothing_is_modified(plain, layout):
    chunk = scene()
    laid_out = layout(chunk)
    laid_out.flags.writeable = False
    assert encode_chunk(laid_out, plain) == encode_chunk(chunk, plain)
    assert np.array_equal(laid_out, scene())


@pytest.mark.parametrize("data", [bytes, bytearray, memoryview])
def test_streams_come_in_any_kind_of_bytes(plain, data):
    stream = encode_chunk(scene(), plain)
    assert np.array_equal(decode_chunk(data(stream)), decode_chunk(stream))


def test_a_chunk_without_data_costs_next_to_nothing_and_needs_no_model(plain):
    chunk = np.zeros((4, 3, 50, 60), np.int16)
    data = encode_chunk(chunk, plain)
    assert len(data) < 100
    assert container.parse(data).payload == b""
    assert container.parse(data).frame_crcs == (0,) * 4
    lost = dataclasses.replace(container.parse(data), model_digest=bytes(8))
    for found in decode_chunks([data, container.pack(lost)]):
        assert np.array_equal(found, chunk)
        assert found.dtype == np.int16


def test_a_chunk_that_is_saturated_throughout_comes_back(plain):
    chunk = np.full((1, 3, 4, 4), 65535, np.uint16)
    assert np.array_equal(decode_chunk(encode_chunk(chunk, plain)), chunk)


@pytest.mark.parametrize("value", [1, 2, 65533, 65534])
def test_valid_pixels_never_become_no_data_or_saturated(plain, value):
    """They lie within the error of the values that are reserved."""
    chunk = np.full((1, 3, 16, 16), value, np.uint16)
    chunk[:, :, 0, 0] = 0
    chunk[:, :, 1, 1] = 65535
    check(chunk, decode_chunk(encode_chunk(chunk, plain)), plain)


@pytest.mark.parametrize("offset", [1000, -200])
def test_the_offset_is_what_the_numbers_carry(model, plain, offset):
    """The network sees the same pixels, so the latents are the same, and so is the quality."""
    chunk = np.random.default_rng(0).integers(2000, 9000, (2, 3, 16, 16)).astype(np.uint16)
    moved = (chunk.astype(int) + offset).astype(np.uint16)
    one = Settings(model, compression=BEST, offset=offset)
    streams = [container.parse(encode_chunk(*p)) for p in ((chunk, plain), (moved, one))]
    assert streams[0].payload == streams[1].payload
    assert streams[1].offset == offset
    found = decode_chunk(encode_chunk(moved, one)).astype(int)
    assert np.array_equal(found - offset, decode_chunk(encode_chunk(chunk, plain)))


def test_lower_compression_settings_are_smaller_and_worse(model):
    chunk = np.random.default_rng(0).normal(2000, 300, (2, 3, 32, 32)).astype(np.uint16)
    sizes, errors = [], []
    for compression in (1, 20, 400, BEST):
        data = encode_chunk(chunk, Settings(model, compression=compression))
        sizes.append(len(data))
        errors.append(np.abs(decode_chunk(data).astype(float) - chunk).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("frames", [1, 2, 3, 7, None])
def test_first_frames_are_those_of_the_whole(plain, frames):
    chunk = scene(shape=(3, 3, 40, 30))
    chunk[0, :, :9] = 0
    chunk[2] = 65535
    streams = [encode_chunk(c, plain) for c in (chunk, chunk * 0, chunk[:1])]
    found = decode_chunks(streams, frames=[frames, frames, frames])
    for part, whole in zip(found, decode_chunks(streams), strict=True):
        assert len(part) == min(frames or 9, len(whole))
        assert np.array_equal(part, whole[:frames])


def test_first_frames_do_not_touch_the_later_ones(plain):
    """A decoder that read on would meet the damage; one that read too little is found out."""
    stream = container.parse(encode_chunk(scene(shape=(3, 3, 40, 30)), plain))
    second, last = stream.frame_bytes[1:]
    damaged = stream.payload[:second] + bytes(last - second)
    data = container.pack(dataclasses.replace(stream, payload=damaged))
    assert np.array_equal(
        decode_chunks([data], frames=[2])[0], decode_chunk(container.pack(stream))[:2]
    )
    with pytest.raises(CorruptStreamError):
        decode_chunk(data)
    for wrong in (second - 4, second + 4):
        ends = (stream.frame_bytes[0], wrong, last)
        forged = container.pack(dataclasses.replace(stream, frame_bytes=ends))
        with pytest.raises(StreamError):
            decode_chunks([forged], frames=[2])


@settings(max_examples=6)
@given(order=st.permutations(range(7)), count=st.integers(1, 7))
def test_company_changes_no_byte_and_no_pixel(model, order, count):
    one = Settings(model, compression=30)
    batch = [scene(seed=i) for i in range(3)]
    batch += [scene(dtype="int16"), scene(shape=(1, 3, 7, 40)), scene() * 0, scene()[:1]]
    some = [batch[i] for i in order[:count]]
    streams = encode_chunks(some, one)
    assert streams == [encode_chunk(chunk, one) for chunk in some]
    found = decode_chunks(streams)
    assert all(map(np.array_equal, found, map(decode_chunk, streams)))


def test_streams_of_different_settings_are_decoded_together(model):
    chunk = scene()
    two_bands = Settings(model, bands=("B08", "B02"))
    pairs = [(chunk, Settings(model, compression=c)) for c in (1, 50, BEST)]
    pairs += [(chunk[:, :2], two_bands), (chunk[:, :2], Settings(model, bands=("B04", "B08")))]
    streams = [encode_chunk(*pair) for pair in pairs]
    assert all(map(np.array_equal, decode_chunks(streams), map(decode_chunk, streams)))


def test_nothing_is_nothing(plain):
    assert encode_chunks([], plain) == []
    assert decode_chunks([]) == []


BAD_CHUNKS = [
    (np.zeros((1, 3, 2, 2), np.float32), {}, r"float32; .*uint16 or int16.*scale_factor"),
    (np.zeros((1, 3, 2, 2), np.uint8), {}, "uint8"),
    (np.zeros((3, 2, 2), np.uint16), {}, r"shape \(3, 2, 2\); .*\(time, band, y, x\)"),
    (np.zeros((0, 3, 2, 2), np.uint16), {}, "none of them empty"),
    (np.zeros((1, 2, 2, 2), np.uint16), {}, "2 bands .*the settings name 3: .*B08"),
    (np.zeros((1, 3, 2, 2), np.int16), {"nodata": 65535}, "no-data 65535 is not a int16; give -32"),
]


@pytest.mark.parametrize(("chunk", "fields", "message"), BAD_CHUNKS)
def test_a_chunk_that_cannot_be_coded(model, chunk, fields, message):
    with pytest.raises(InputError, match=message):
        encode_chunk(chunk, Settings(model, **fields))


def test_one_bad_chunk_of_several_is_found_before_anything_is_coded(plain, monkeypatch):
    monkeypatch.setattr(codec, "_engine", None)
    with pytest.raises(InputError, match="float64"):
        encode_chunks([scene(), scene().astype(float)], plain)


def small(plain):
    """A stream with both masks, of a few hundred bytes."""
    return encode_chunk(scene((1, 3, 7, 5)), dataclasses.replace(plain, compression=20))


def test_a_flipped_bit_anywhere_is_an_error(plain):
    data = small(plain)
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= 1 << place % 8
        with pytest.raises(StreamError):
            decode_chunk(bytes(bad))


def test_a_truncation_anywhere_is_an_error(plain):
    data = small(plain)
    for length in range(len(data)):
        with pytest.raises(TruncatedStreamError):
            decode_chunk(data[:length])


def test_bytes_behind_the_end_are_an_error(plain):
    with pytest.raises(CorruptStreamError, match="1 bytes follow"):
        decode_chunk(small(plain) + b"x")


def resealed(data):
    """Set the checksum right, as someone would who forges a stream."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def test_a_forged_bit_gives_an_error_or_the_same_latents(plain):
    """Without the outer checksum the one over the latents still stands guard."""
    data = small(plain)
    payload = container.parse(data).payload
    begin = data.index(payload)
    for place in range(begin, begin + len(payload), 29):
        bad = bytearray(data)
        bad[place] ^= 1 << place % 8
        with pytest.raises(StreamError):
            decode_chunk(resealed(bytes(bad)))


@given(seed=st.integers(0, 2**32 - 1), place=st.integers(0, 60))
@settings(max_examples=60)
def test_forged_bytes_never_give_anything_but_a_stream_error(model, seed, place):
    one = Settings(model, compression=BEST)
    data = bytearray(small(one))
    data[place % len(data)] = seed % 256
    with suppress(StreamError):
        decode_chunk(resealed(bytes(data)))


def test_latents_of_another_checksum_are_never_made_into_pixels(plain, monkeypatch):
    """As if the prior had come out otherwise on this machine; the first frames alone are enough."""
    stream = container.parse(encode_chunk(scene(shape=(2, 3, 9, 9)), plain))
    first, second = stream.frame_crcs
    monkeypatch.setattr(codec, "numbers", None)
    for crcs, frames in (((first, second ^ 1), None), ((first ^ 1, second), 1)):
        forged = container.pack(dataclasses.replace(stream, frame_crcs=crcs))
        with pytest.raises(CorruptStreamError, match=r"checksum.*model tiny.*no pixel"):
            decode_chunks([forged], frames=[frames])


def test_a_payload_that_goes_on_after_the_last_symbol(plain):
    """Its latents are right; still, nobody wrote it so."""
    stream = container.parse(small(plain))
    more = stream.payload + bytes(4)
    forged = dataclasses.replace(stream, payload=more, frame_bytes=(len(more),))
    with pytest.raises(CorruptStreamError, match="1 words left"):
        decode_chunk(container.pack(forged))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": LAPPED.levels}, f"setting {LAPPED.levels}"),
        ({"bands": (0, 1, 200)}, "band 200 does not exist in model tiny"),
        ({"nodata": None}, "no value for them"),
        ({"payload": b"", "frame_bytes": (0,)}, "no latents, yet some of its pixels are valid"),
        ({"invalid": None, "payload": b"", "frame_bytes": (0,)}, "no latents"),
        ({"shape": (1, 3, 70, 5), "invalid": None, "saturated": None}, "."),
    ],
)
def test_a_forged_field(plain, change, message):
    good = small(plain)
    forged = container.pack(dataclasses.replace(container.parse(good), **change))
    for streams in ([forged], [good, forged], [forged, good]):
        with pytest.raises(StreamError, match=message):
            decode_chunks(streams)


def test_a_stream_of_a_model_that_is_not_here(plain):
    stream = dataclasses.replace(container.parse(small(plain)), model_digest=bytes(range(8)))
    with pytest.raises(WrongModelError) as caught:
        decode_chunk(container.pack(stream), model="their-model")
    for part in ("0001020304050607", "'their-model'", "Install", registry.SEARCH_PATH):
        assert re.search(re.escape(part), str(caught.value))


def test_settings_of_a_model_that_is_not_here(plain):
    gone = dataclasses.replace(plain, model="gone", model_digest="ab" * 32)
    with pytest.raises(WrongModelError, match="'gone'"):
        encode_chunk(scene(), gone)


def test_every_error_is_ours_and_a_value_error(plain):
    """So that callers can catch either."""
    for error in (InputError, StreamError):
        assert issubclass(error, XtecError)
        assert issubclass(error, ValueError)


# Bounds


@pytest.fixture(scope="module")
def temporal(tmp_path_factory):
    """A TEC-TT network: its pixels may differ by 1 DN on another machine."""
    path = tmp_path_factory.mktemp("models") / "temporal.safetensors"
    return write_weights(path, network(TINY), "temporal")


def calm(seed=0):
    """A scene of little noise, for which a network is worth its bits."""
    chunk = scene((2, 3, 40, 40), seed=seed)
    return np.where((chunk == 0) | (chunk == 65535), chunk, 2000 + chunk // 200)


def check_bound(chunk, found, one):
    top = np.iinfo(chunk.dtype).max
    exact = chunk == top
    if one.nodata is not None:
        exact |= chunk == one.nodata
        assert np.array_equal(found == one.nodata, chunk == one.nodata)
    assert np.array_equal(found[exact], chunk[exact])
    error = np.abs(found.astype(int) - chunk).max(axis=(0, 2, 3))
    assert (error <= one.bounds).all()


BOUNDS = st.sampled_from([0, 1, 2, 20, (0, 5, 300), 65535])
NODATA = st.sampled_from([0, None, 2000, 2001, 32767, 32766])


@settings(max_examples=40)
@given(chunk=chunks(), bound=BOUNDS, nodata=NODATA, compression=st.sampled_from([0.01, 12, BEST]))
def test_a_bound_is_kept(model, chunk, bound, nodata, compression):
    one = Settings(model, compression=compression, nodata=nodata, max_error=bound)
    before = chunk.copy()
    check_bound(chunk, decode_chunk(encode_chunk(chunk, one)), one)
    assert np.array_equal(chunk, before)


@settings(max_examples=40)
@given(
    chunk=chunks(),
    bound=BOUNDS,
    nodata=NODATA,
    seed=st.integers(0, 9),
    good=st.booleans(),
)
def test_a_bound_is_kept_where_a_decoders_network_differs_by_one(
    temporal, chunk, bound, nodata, seed, good
):
    """Of a network that is no good pixels are coded without it; of a good one, corrections."""
    one = Settings(temporal, nodata=nodata, max_error=bound)
    random, exact = np.random.default_rng(seed), codec.numbers
    drawn = random.integers(-3, 4, chunk.shape, np.int32)

    def here(pixels, stream, config):
        found = chunk + drawn if good else exact(pixels, stream, config)
        return np.clip(found, *limits(stream.dtype))

    def there(pixels, stream, config):
        moved = here(pixels, stream, config) + random.integers(-1, 2, chunk.shape, np.int32)
        return np.clip(moved, *limits(stream.dtype))

    with mock.patch.object(codec, "numbers", here):
        data = encode_chunk(chunk, one)
        check_bound(chunk, decode_chunk(data), one)
    with mock.patch.object(codec, "numbers", there):
        check_bound(chunk, decode_chunk(data), one)


def test_corrections_of_a_good_network_are_taken_where_the_bound_leaves_room(temporal, monkeypatch):
    chunk = scene((1, 3, 64, 64))
    near = np.clip(chunk + np.random.default_rng(0).integers(-3, 4, chunk.shape), 0, 65534)
    monkeypatch.setattr(codec, "numbers", lambda *_: near.astype(np.int32))
    for bound, kind in ((0, Kind.ALONE), (1, Kind.CORRECTIONS), (9, Kind.CORRECTIONS)):
        stream = container.parse(encode_chunk(chunk, Settings(temporal, max_error=bound)))
        assert stream.residual[0] == kind
        assert bool(stream.payload) == (kind == Kind.CORRECTIONS)


def test_pixels_without_a_network_need_no_model(temporal):
    exact = container.parse(encode_chunk(scene(), Settings(temporal, max_error=0)))
    lost = dataclasses.replace(exact, model_digest=bytes(8))
    assert np.array_equal(decode_chunk(container.pack(lost)), scene())


@given(seed=st.integers(0, 99), dtype=st.sampled_from(["uint16", "int16"]))
@settings(max_examples=10)
def test_numbers_of_the_full_range_come_back_at_hardly_more_than_their_size(model, seed, dtype):
    limits = np.iinfo(dtype)
    random = np.random.default_rng(seed)
    chunk = random.integers(limits.min, limits.max, (2, 3, 64, 64), dtype, endpoint=True)
    one = Settings(model, max_error=0, nodata=None)
    data = encode_chunk(chunk, one)
    assert np.array_equal(decode_chunk(data), chunk)
    assert len(data) < 1.06 * chunk.nbytes


@pytest.mark.parametrize("nodata", [1000, -1000])
@pytest.mark.parametrize("side", [1, -1])
def test_pixels_next_to_no_data_keep_the_bound_although_no_data_is_evaded(
    model, temporal, nodata, side
):
    random = np.random.default_rng(0)
    chunk = (nodata + side * random.integers(1, 9, (2, 3, 16, 16))).astype(np.int16)
    chunk[0, :, :4] = nodata
    for name in (model, temporal):
        for bound in (0, 1, 2, 6):
            one = Settings(name, compression=1, nodata=nodata, max_error=bound)
            check_bound(chunk, decode_chunk(encode_chunk(chunk, one)), one)


def test_chunks_with_and_without_data_are_bounded_together(model):
    one = Settings(model, compression=12, max_error=3)
    batch = [scene(), scene() * 0, scene(seed=1), scene(dtype="int16"), scene()[:1]]
    streams = encode_chunks(batch, one)
    assert streams == [encode_chunk(chunk, one) for chunk in batch]
    for chunk, found in zip(batch, decode_chunks(streams), strict=True):
        check_bound(chunk, found, one)
    assert len(streams[1]) < 100
    mixed = [encode_chunk(batch[0], Settings(model, compression=12)), *streams]
    assert all(map(np.array_equal, decode_chunks(mixed)[1:], decode_chunks(streams)))


def test_a_bound_without_need_costs_a_few_bytes(model):
    chunk = calm()
    free = encode_chunk(chunk, Settings(model, compression=12))
    bound = encode_chunk(chunk, Settings(model, compression=12, max_error=9000))
    assert len(bound) == len(free) + 1 + 2 + 8 * len(chunk)
    assert np.array_equal(decode_chunk(bound), decode_chunk(free))


def test_a_decoder_that_does_not_keep_the_bound_is_found_while_encoding(model, monkeypatch):
    one = Settings(model, compression=12, max_error=3)
    exact = residual.decode
    monkeypatch.setattr(residual, "decode", lambda *given: exact(*given) + 9)
    with pytest.raises(BoundError, match=r"12, 12, 12\] DN .* \[3, 3, 3\] are allowed"):
        encode_chunk(calm(), one)


def test_no_data_that_moved_is_found_while_encoding(model, monkeypatch):
    one = Settings(model, compression=12, max_error=9000)
    monkeypatch.setattr(codec, "mark", lambda *_: scene() * 0)
    with pytest.raises(BoundError, match="other pixels without data"):
        encode_chunk(scene(), one)


def test_a_flipped_bit_in_a_forged_residual_changes_no_pixel(model):
    """Without the outer checksum that of the residual stands guard."""
    one = Settings(model, compression=12, max_error=1)
    data = encode_chunk(calm(), one)
    good = decode_chunk(data)
    stream = container.parse(data)
    for place in range(0, len(stream.residual), len(stream.residual) // 20):
        bad = bytearray(stream.residual)
        bad[place] ^= 1 << place % 8
        forged = container.pack(dataclasses.replace(stream, residual=bytes(bad)))
        with suppress(StreamError):
            assert np.array_equal(decode_chunk(forged), good)


@pytest.mark.parametrize("keep", ["payload", "residual"])
def test_latents_and_residual_go_together(model, keep):
    """One that needs latents must have them, and one that has none must need none."""
    stream = container.parse(encode_chunk(calm(), Settings(model, compression=12, max_error=1)))
    change = {"payload": b"", "frame_bytes": (0, 0), "frame_crcs": (0, 0)}
    if keep == "payload":
        change = {"residual": bytes([2]) + stream.residual[1:]}
    with pytest.raises(CorruptStreamError, match="does not go with"):
        decode_chunk(container.pack(dataclasses.replace(stream, **change)))


def test_only_checked_needs_no_network_and_misses_no_damage(plain, monkeypatch):
    chunk = scene()
    data = encode_chunk(chunk, plain)
    monkeypatch.setattr(codec, "_engine", None)
    with codec.only_checked():
        found = decode_chunk(data)
        with pytest.raises(CorruptStreamError):
            decode_chunk(data[:60] + bytes([data[60] ^ 4]) + data[61:])
    assert found.shape == chunk.shape
    assert found.dtype == chunk.dtype
    assert not found.any()
    with pytest.raises(TypeError):
        decode_chunk(data)  # the network is asked for again
