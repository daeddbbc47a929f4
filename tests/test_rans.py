"""The coder is lossless, near the ideal length, forward-readable, and calm before hostile bytes."""

import importlib.util
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import SYMBOL_LIMIT, coded_frames, rows
from xtec.coding import kernel, rans, tables
from xtec.errors import CorruptStreamError, InputError, StreamError, TruncatedStreamError

TABLES = tables.load()


def encode(symbols, rows, ends=None):
    return rans.encode(
        np.array(symbols, np.int32), np.array(rows, np.uint16), TABLES, ends or [len(rows)]
    )


def decode(payload, rows):
    decoder = rans.Decoder(payload, TABLES)
    symbols = decoder.decode(np.array(rows, np.uint16))
    decoder.finish()
    return symbols


def sample(count, sigma, seed=4):
    """Symbols that follow their rows, as after a good prior."""
    random = np.random.default_rng(seed)
    mean = random.integers(-32, 32, count) / 64
    scale = np.searchsorted(
        TABLES.scale_edges["log2"], np.full(count, round(1024 * np.log2(sigma))), side="right"
    )
    symbols = np.rint(random.normal(mean, sigma)).astype(np.int32)
    return symbols, TABLES.rows(scale, (64 * mean + 32).astype(int))


@given(coded_frames())
def test_what_was_coded_comes_back(frames):
    symbols, rows, ends = frames
    payload, lengths = rans.encode(symbols, rows, TABLES, ends)
    assert lengths[-1] == len(payload)
    decoder = rans.Decoder(payload, TABLES)
    for begin, end in pairwise((0, *ends)):
        assert decoder.decode(rows[begin:end]).tolist() == symbols[begin:end].tolist()
    decoder.finish()


@given(coded_frames())
def test_the_first_frames_need_only_their_own_bytes(frames):
    symbols, rows, ends = frames
    payload, lengths = rans.encode(symbols, rows, TABLES, ends)
    assert lengths == sorted(lengths)
    for end, length in zip(ends, lengths, strict=True):
        decoder = rans.Decoder(payload[:length], TABLES)
        assert decoder.decode(rows[:end]).tolist() == symbols[:end].tolist()


@pytest.mark.parametrize("sigma", [0.07, 0.3, 1, 5, 30, 300])
def test_the_payload_has_the_length_that_the_frequencies_promise(sigma):
    symbols, rows = sample(20_000, sigma)
    payload, _ = encode(symbols, rows)
    at = TABLES.starts[rows] + np.clip(symbols - TABLES.lows[rows], 0, TABLES.sizes[rows] - 1)
    inside = (symbols >= TABLES.lows[rows]) & (symbols < TABLES.lows[rows] + TABLES.sizes[rows] - 1)
    bits = (16 - np.log2(TABLES.cdf[at + 1] - TABLES.cdf[at]))[inside].sum()
    tails = 56 * np.count_nonzero(~inside)
    assert bits <= 8 * len(payload) <= 1.0001 * bits + 96 + tails


def test_every_row_codes_the_farthest_symbols():
    rows = np.repeat(np.arange(len(TABLES.sizes)), 2)
    symbols = np.tile([SYMBOL_LIMIT - 1, 1 - SYMBOL_LIMIT], len(TABLES.sizes))
    payload, _ = encode(symbols, rows)
    assert decode(payload, rows).tolist() == symbols.tolist()


def test_every_entry_of_every_row_is_found():
    highs = TABLES.lows + TABLES.sizes - 2
    runs = [np.arange(low - 2, high + 3) for low, high in zip(TABLES.lows, highs, strict=True)]
    rows = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    symbols = np.concatenate(runs)
    payload, _ = encode(symbols, rows)
    assert decode(payload, rows).tolist() == symbols.tolist()


def test_payloads_are_frozen():  # golden: a change here needs a new format version
    rows = [32, 0, 1400, 2568, 700, 2570, 2600, 2601, 3190, 3190]
    symbols = [0, -1, 1, 0, 0, 2, -3, 40, 0, -100_000]
    payload, lengths = encode(symbols, rows, [0, 4, 10])
    assert payload.hex() == "ac0376d6e31b0000b4ff9c25a0ff0f95"
    assert lengths == [8, 8, 16]
    assert decode(payload, rows).tolist() == symbols


def decode_by_the_page(payload, rows):
    """A second decoder, written from docs/format.md alone, in unbounded integers."""
    x = int.from_bytes(payload[:8], "little")
    words = iter(np.frombuffer(payload[8:], "<u4").tolist())

    def take(intervals):
        nonlocal x
        slot = x & 0xFFFF
        entry, start, frequency = next(
            (entry, start, frequency)
            for entry, (start, frequency) in enumerate(intervals)
            if start <= slot < start + frequency
        )
        x = frequency * (x >> 16) + slot - start
        if x < 1 << 31:
            x = x << 32 | next(words)
        return entry

    def bit():
        return take([(0, 1 << 15), (1 << 15, 1 << 15)])

    symbols = []
    for row in rows:
        begin, size, low = TABLES.starts[row], int(TABLES.sizes[row]), int(TABLES.lows[row])
        cdf = TABLES.cdf[begin : begin + size + 1].tolist()
        entry = take([(start, end - start) for start, end in pairwise(cdf)])
        if entry == size - 1:
            below, n, q, k = bit(), 0, 1, max(0, size.bit_length() - 4)
            while not bit():
                n += 1
            for _ in range(n):
                q = 2 * q + bit()
            e = (q - 1 << k) + sum(bit() << k - 1 - i for i in range(k)) + 1
            entry = -e if below else size - 2 + e
        symbols.append(low + entry)
    assert (x, list(words)) == (1 << 31, [])
    return symbols


@given(coded_frames())
def test_the_page_describes_the_payload(frames):
    symbols, rows, ends = frames
    payload, _ = rans.encode(symbols, rows, TABLES, ends)
    assert decode_by_the_page(payload, rows) == symbols.tolist()


def test_nothing_at_all_takes_the_state_alone():
    payload, lengths = encode([], [], [0, 0])
    assert (payload, lengths) == ((1 << 31).to_bytes(8, "little"), [8, 8])
    assert decode(payload, []).tolist() == []


def test_arguments_may_be_views_and_read_only():
    symbols, rows = sample(1000, 0.5)
    expected = encode(symbols, rows)
    sparse_symbols, sparse_rows = np.repeat(symbols, 2)[::2], np.repeat(rows, 2)[::2]
    sparse_symbols.flags.writeable = False
    assert rans.encode(sparse_symbols, sparse_rows, TABLES, [1000]) == expected
    decoder = rans.Decoder(expected[0], TABLES)
    assert (decoder.decode(sparse_rows) == symbols).all()


def test_threads_do_not_disturb_each_other():
    chunks = [sample(5000, 0.5, seed) for seed in range(8)]
    payloads = [encode(*chunk)[0] for chunk in chunks]
    with ThreadPoolExecutor(4) as pool:
        decoded = pool.map(decode, payloads, [rows for _, rows in chunks])
    for (symbols, _), back in zip(chunks, decoded, strict=True):
        assert (back == symbols).all()


# Hostile payloads


@given(coded_frames(), st.data())
def test_a_cut_payload_never_passes(frames, data):
    symbols, rows, ends = frames
    payload, _ = rans.encode(symbols, rows, TABLES, ends)
    cut = payload[: data.draw(st.integers(0, len(payload) - 1))]
    with pytest.raises(TruncatedStreamError):
        decode(cut, rows)


@given(coded_frames(), st.binary(min_size=1, max_size=12))
def test_a_longer_payload_never_passes(frames, extra):
    symbols, rows, ends = frames
    payload, _ = rans.encode(symbols, rows, TABLES, ends)
    with pytest.raises(StreamError):
        decode(payload + extra, rows)


@given(st.binary(max_size=400), st.data())
def test_garbage_gives_symbols_or_a_stream_error(payload, data):
    wanted = data.draw(rows(data.draw(st.integers(0, 300))))
    try:
        symbols = rans.Decoder(payload, TABLES).decode(wanted)
    except StreamError:
        return
    assert (np.abs(symbols) < SYMBOL_LIMIT).all()


@given(coded_frames(), st.data())
def test_a_damaged_payload_gives_symbols_or_a_stream_error(frames, data):
    symbols, rows, ends = frames
    payload = bytearray(rans.encode(symbols, rows, TABLES, ends)[0])
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        back = decode(bytes(payload), rows)
    except StreamError:
        return
    assert (np.abs(back) < SYMBOL_LIMIT).all()


def test_an_endless_supply_of_symbols_ends():
    with pytest.raises(TruncatedStreamError, match="after 1 words"):
        decode(b"\x01" * 7 + b"\x00" + b"\x01" * 4, np.zeros(2_000_000))


def payload_of(row, bits):
    """An escape in a row and then raw bits that no encoder would write."""
    words = np.empty(len(bits) + 9, np.uint32)
    state, place = kernel.LOWEST, len(words)
    for bit in reversed(bits):
        state, place = kernel._put_bit(np.uint64(state), words, place, bit)
    at = TABLES.starts[row] + TABLES.sizes[row]
    start, end = np.uint64(TABLES.cdf[at - 1]), np.uint64(TABLES.cdf[at])
    state, place = kernel._put(np.uint64(state), words, place, start, end - start)
    return int(state).to_bytes(8, "little") + words[place:].tobytes()


def test_a_crafted_escape_is_read():
    distance = 5  # gamma code 00101
    payload = payload_of(32, [1, 0, 0, 1, 0, 1])
    assert decode(payload, [32]).tolist() == [TABLES.lows[32] - distance]
    assert payload == encode([-5], [32])[0]


def test_behind_a_wide_row_the_lowest_bits_of_a_distance_come_as_they_are():
    """40 entries, so of order 2: 21 = 5 * 4 + 1, and 5 + 1 has the gamma code 00110."""
    row = int(np.flatnonzero(TABLES.sizes == 40)[0])
    payload = payload_of(row, [0, 0, 0, 1, 1, 0, 0, 1])
    symbol = TABLES.lows[row] + 38 + 22
    assert decode(payload, [row]).tolist() == [symbol]
    assert payload == encode([symbol], [row])[0]


@pytest.mark.parametrize(
    ("row", "bits"),
    [
        (32, [0] + [0] * 60),  # never ends
        (32, [1] + [0] * 20 + [1] + [0] * 20),  # one bit too long
        (3190, [0] + [0] * 11 + [1] * 20),  # beyond the row's own end
        (3190, [1] + [0] * 11 + [1] * 20),
    ],
)
def test_an_escape_beyond_the_limit_is_refused(row, bits):
    with pytest.raises(CorruptStreamError, match=r"beyond \+-1048575"):
        decode(payload_of(row, bits), [row])


@pytest.mark.parametrize("length", [0, 7, 9, 11])
def test_a_payload_that_ends_within_a_word_is_cut(length):
    with pytest.raises(TruncatedStreamError, match=f"after {length} bytes"):
        rans.Decoder(b"\x01" * length, TABLES)


@pytest.mark.parametrize("state", [0, (1 << 31) - 1, 1 << 63, (1 << 64) - 1])
def test_a_state_out_of_range_is_refused(state):
    with pytest.raises(CorruptStreamError, match=f"state {state}; {1 << 31} to {(1 << 63) - 1}"):
        rans.Decoder(state.to_bytes(8, "little"), TABLES)


def test_a_payload_that_is_not_read_to_its_end_is_refused():
    payload, _ = encode([1, 2, 3, 40], [32, 32, 32, 32])
    with pytest.raises(CorruptStreamError, match=r"2 words left"):
        rans.Decoder(payload, TABLES).finish()
    payload, _ = encode([0, 1], [1400, 1400])
    with pytest.raises(CorruptStreamError, match=r"0 words left and the state \d+, not 0 and"):
        decode(payload, [1400])


# Arguments


@pytest.mark.parametrize(
    ("symbols", "rows", "ends", "message"),
    [
        (np.zeros(2, np.int64), np.zeros(2, np.uint16), [2], r"int64 of shape \(2,\); give int32"),
        (np.zeros(2, np.int32), np.zeros(3, np.uint16), [3], r"int32 of shape \(2,\).*\(3,\)"),
        (np.zeros(2, np.int32), np.zeros(2, np.int32), [2], "Rows are int32.*give uint16"),
        (np.zeros(1, np.int32), np.zeros((1, 1), np.uint16), [1], r"shape \(1, 1\)"),
        (np.zeros(1, np.int32), np.array([3191], np.uint16), [1], "Row 3191.* last is 3190"),
        (np.array([1 << 20], np.int32), np.zeros(1, np.uint16), [1], "0 to 1048576; .*1048575"),
        (np.array([-(1 << 31)], np.int32), np.zeros(1, np.uint16), [1], "-2147483648 to 0"),
        (np.zeros(2, np.int32), np.zeros(2, np.uint16), [1], r"\[1\].*end with 2"),
        (np.zeros(2, np.int32), np.zeros(2, np.uint16), [3, 2], r"\[3, 2\] must never fall"),
        (np.zeros(2, np.int32), np.zeros(2, np.uint16), [-1, 2], r"\[-1, 2\] must never fall"),
        (np.zeros(0, np.int32), np.zeros(0, np.uint16), [], r"\[\].*end with 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(symbols, rows, ends, message):
    with pytest.raises(InputError, match=message):
        rans.encode(symbols, rows, TABLES, ends)


def test_a_decoder_refuses_rows_that_do_not_exist():
    payload, _ = encode([0], [0])
    with pytest.raises(InputError, match="Row 65535 does not exist"):
        decode(payload, [65535])


# The compiler


@pytest.fixture
def plain(monkeypatch):
    """The coder in plain Python, as on a machine where Numba finds no place for its cache."""

    def njit(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        assert options == {"nogil": True, "error_model": "numpy"}
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    spec = importlib.util.spec_from_file_location("plain_kernel", kernel.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(rans, "kernel", module)


def test_machine_code_and_python_agree(request):
    symbols = np.concatenate([sample(300, sigma)[0] for sigma in (0.1, 1, 9, 99)])
    rows = np.concatenate([sample(300, sigma)[1] for sigma in (0.1, 1, 9, 99)])
    symbols[::37] *= -500  # some escapes
    compiled = encode(symbols, rows, [500, 1200])
    request.getfixturevalue("plain")
    assert rans.kernel is not kernel
    assert encode(symbols, rows, [500, 1200]) == compiled
    assert (decode(compiled[0], rows) == symbols).all()
    with pytest.raises(TruncatedStreamError):
        decode(compiled[0][:-4], rows)
    with pytest.raises(CorruptStreamError):
        decode(payload_of(32, [0] * 60), [32])


def test_it_works_where_no_cache_can_be_written(tmp_path):
    package = Path(rans.__file__).parents[1]
    copy = tmp_path / "xtec"
    shutil.copytree(package / "coding", copy / "coding", ignore=shutil.ignore_patterns("__py*"))
    shutil.copy(package / "errors.py", copy)
    (copy / "__init__.py").touch()
    nowhere = copy / "coding" / "__pycache__"
    nowhere.touch()  # a file where a folder would have to be: nobody can write there, not even root
    code = """
import numpy as np
from xtec.coding import kernel, rans, tables
assert type(kernel.encode._cache).__name__ == "NullCache"
rows = np.zeros(3, np.uint16)
payload, _ = rans.encode(np.array([1, 2, 3], np.int32), rows, tables.load(), [3])
print(*rans.Decoder(payload, tables.load()).decode(rows))
"""
    environment = {**os.environ, "HOME": str(nowhere), "XDG_CACHE_HOME": str(nowhere)}
    environment |= {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (run.stdout.strip(), run.stderr) == ("1 2 3", "")
