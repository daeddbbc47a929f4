"""The residual keeps every bound, is the same everywhere, and fears no bytes."""

import dataclasses
import hashlib
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xtec import residual
from xtec.coding.stream import frame_crcs
from xtec.errors import CorruptStreamError
from xtec.residual import Kind, kernel, section
from xtec.residual.planes import Frame, Plan, Planes
from xtec.residual.section import Section

LIMITS = {"uint16": (0, 65534), "int16": (-32768, 32766)}
KINDS = st.sampled_from(list(Kind))
FEW = settings(max_examples=60)


def coded(pixels, base, skipped, bounds, limits, kind):
    """The section, and what it decodes to."""
    data = residual.encode(pixels, base, skipped, bounds, limits, kind)
    return data, residual.decode(data, None if kind == Kind.ALONE else base, skipped, limits)


def scene(shape=(2, 3, 24, 20), seed=0, spread=20):
    """Correlated pixels, bands on coarser grids among them, and a network that blurs them."""
    random = np.random.default_rng(seed)
    smooth = np.cumsum(random.normal(0, 9, shape[2:]), axis=1) + 3000
    pixels = np.rint(smooth + random.normal(0, spread, shape)).astype(np.int32)
    y, x = np.indices(shape[2:]) // 2 * 2
    pixels[:, 1:2] = pixels[:, 1:2, y, x]
    pixels = np.clip(pixels, 1, 65534)
    base = np.clip(np.rint(smooth).astype(np.int32) + np.zeros(shape, np.int32), 0, 65534)
    return pixels, base, np.zeros(shape, bool)


@st.composite
def cases(draw):
    """Pixels of any kind, a base that may have nothing to do with them, a mask, bounds."""
    side = st.integers(1, 14)
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), side, side))
    lowest, highest = limits = LIMITS[draw(st.sampled_from(list(LIMITS)))]
    random = np.random.default_rng(draw(st.integers(0, 99)))

    def image():
        kind = draw(st.sampled_from(["noise", "smooth", "flat", "coarse", "ends"]))
        found = random.integers(lowest, highest + 1, shape)
        if kind == "smooth":
            found = 2000 + np.cumsum(random.integers(-9, 10, shape), axis=3)
        if kind == "flat":
            found = np.full(shape, draw(st.integers(lowest, highest)))
        if kind == "coarse":
            found = np.repeat(np.repeat(found % 300, 3, 2), 2, 3)[:, :, : shape[2], : shape[3]]
        if kind == "ends":
            found = np.where(found > 0, highest, lowest)
        return np.clip(found, lowest, highest).astype(np.int32)

    bound = st.sampled_from([0, 0, 1, 2, 7, 100, 40000, 65535])
    bounds = draw(st.lists(bound, min_size=shape[1], max_size=shape[1]))
    skipped = draw(hnp.arrays(np.bool_, shape)) if draw(st.booleans()) else np.zeros(shape, bool)
    return image(), image(), skipped, bounds, limits


@FEW
@given(cases(), KINDS)
def test_every_bound_is_kept_by_every_kind(case, kind):
    pixels, base, skipped, bounds, limits = case
    before = pixels.copy(), base.copy()
    _, found = coded(*case, kind)
    error = np.where(skipped, 0, np.abs(found - pixels))
    assert (error.max(axis=(0, 2, 3)) <= bounds).all()
    assert found.dtype == np.int32
    assert limits[0] <= found.min() <= found.max() <= limits[1]
    assert np.array_equal(before, (pixels, base))


@FEW
@given(cases())
def test_the_base_of_another_machine_moves_corrected_pixels_no_further_than_itself(case):
    pixels, base, skipped, bounds, limits = case
    data = residual.encode(*case, Kind.CORRECTIONS)
    moved = np.clip(base + np.random.default_rng(0).integers(-1, 2, base.shape), *limits)
    found = residual.decode(data, moved.astype(np.int32), skipped, limits)
    error = np.where(skipped, 0, np.abs(found - pixels))
    assert (error.max(axis=(0, 2, 3)) <= np.array(bounds) + 1).all()


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("bound", [0, 1, 5, 50])
def test_bounds_are_exhausted_and_larger_ones_cost_less(kind, bound):
    pixels, base, skipped = scene(spread=200)
    data, found = coded(pixels, base, skipped, [bound] * 3, LIMITS["uint16"], kind)
    assert np.abs(found - pixels).max() == bound
    looser = residual.encode(pixels, base, skipped, [2 * bound + 9] * 3, LIMITS["uint16"], kind)
    assert len(looser) < len(data)


def test_what_needs_nothing_costs_next_to_nothing():
    pixels, base, skipped = scene((8, 13, 32, 32))
    near = base + np.random.default_rng(0).integers(-5, 6, base.shape).astype(np.int32)
    data = residual.encode(near, base, skipped, [5] * 13, LIMITS["uint16"], Kind.GUIDED)
    assert len(data) == 1 + 2 + 8 * 8
    near[3, 7, 4, 4] = pixels[3, 7, 4, 4] = 9000
    again = residual.encode(near, base, skipped, [5] * 13, LIMITS["uint16"], Kind.GUIDED)
    assert len(again) < len(data) + 120
    skipped[3, 7, 4, 4] = True
    assert (
        residual.encode(near, base, skipped, [5] * 13, LIMITS["uint16"], Kind.GUIDED)[7:]
        == (data[7:])
    )


def test_bands_on_a_coarser_grid_cost_a_part_of_others():
    shape = (2, 3, 96, 96)
    pixels, base, skipped = scene(shape, spread=60)
    base = np.full_like(base, 3000)
    sizes = []
    for band in range(3):
        some = (x[:, [band]] for x in (pixels, base, skipped))
        sizes.append(len(residual.encode(*some, [0], LIMITS["uint16"], Kind.GUIDED)))
    assert sizes[1] < 0.45 * sizes[0]


def test_bands_and_frames_that_are_alike_help_each_other():
    pixels, base, skipped = scene((1, 1, 64, 64), spread=300)
    for axis in (0, 1):
        twice = [np.repeat(x, 2, axis) for x in (pixels, base, skipped)]
        alone, both = (
            len(residual.encode(*x, [0] * x[0].shape[1], LIMITS["uint16"], Kind.GUIDED))
            for x in ([pixels, base, skipped], twice)
        )
        assert both < 1.1 * alone


def test_flat_planes_refer_to_no_others():
    pixels = np.full((1, 3, 16, 16), 500, np.int32)
    pixels[:, 1] += 40
    base = np.zeros_like(pixels)
    data, found = coded(pixels, base, base > 0, [0] * 3, LIMITS["uint16"], Kind.GUIDED)
    assert np.array_equal(found, pixels)
    assert len(data) < 250


def test_incompressible_pixels_cost_hardly_more_than_themselves():
    pixels = np.random.default_rng(0).integers(0, 65535, (1, 2, 64, 64)).astype(np.int32)
    skipped = np.zeros(pixels.shape, bool)
    data = residual.encode(pixels, None, skipped, [0, 0], LIMITS["uint16"], Kind.ALONE)
    assert len(data) < 1.05 * 2 * pixels.size


def test_what_was_written_once_decodes_for_ever():  # golden: a change needs a new format version
    """Written by hand-made weights: what an encoder chooses may change, what it says may not."""
    data = written_by_hand()
    assert hashlib.sha256(data).hexdigest() == GOLDEN_DIGEST
    found = residual.decode(data, hand_base(), hand_skipped(), LIMITS["uint16"])
    assert hashlib.sha256(found.astype("<i4").tobytes()).hexdigest() == GOLDEN_PIXELS


def test_the_code_means_the_same_without_a_compiler():
    """As plain Python reads it: integers that never outgrow 64 bits."""
    code = (
        "import hashlib; from tests.test_residual import *;"
        "found = residual.decode(written_by_hand(), hand_base(), hand_skipped(), (0, 65534));"
        "print(hashlib.sha256(found.astype('<i4').tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [GOLDEN_PIXELS], done.stderr


def hand_pixels():
    """Integers that any machine makes alike."""
    t, b, y, x = np.indices((2, 3, 12, 10))
    noise = (t * 7919 + b * 104729 + y * 1299709 + x * 15485863) * 2654435761 % 2**32 >> 24
    pixels = 1000 + 40 * y + 7 * x * (b + 1) + noise // 8 + 3 * t
    pixels[:, 2] = pixels[:, 2, y[0, 0] // 2 * 2, x[0, 0] // 2 * 2]
    pixels[1, 0, 3, 3] = 65534
    return pixels.astype(np.int32)


def hand_base():
    return (hand_pixels() // 64 * 64).astype(np.int32)


def hand_skipped():
    return np.indices((2, 3, 12, 10))[2:].sum(axis=0) > 17


def written_by_hand():
    """Every form of a plan, without the encoder's choices."""
    planes, codes, pixels, base = Planes((2, 3, 12, 10)), [], hand_pixels(), hand_base()
    plans = [
        Plan(None, (), np.arange(18) * 9 - 70),
        Plan(None, (0,), np.arange(27) * 5 - 60),
        Plan(0, (0, 1), np.arange(36) * 4 - 70),
        None,
        Plan(None, (1, 0), np.arange(36) * 3 - 50),
        Plan(3, (2,), np.arange(27) * 4 - 50),
    ]
    for t in range(2):
        frame = Frame(planes)
        for b in range(3):
            own = 3 * t + b
            image = pixels[t, b], hand_skipped()[t, b], np.pad(base[t, b], 2, mode="edge")
            if plans[own]:
                near = 3 if own == 5 else 0
                frame.write(own, plans[own], image, (2 * (0, 7, 3)[b] + 1, 0, 65534), 12, near)
            else:
                frame.write_nothing()
        codes.append(frame.finished())
    found = base + planes.residuals[:, 2:-2, 2:-2].reshape(base.shape)
    crcs = frame_crcs(found.astype(np.int32))
    return Section(kind=Kind.GUIDED, bounds=(0, 7, 3), frames=tuple(codes), crcs=crcs).to_bytes()


GOLDEN_DIGEST = "a5347d6aee613cf81865aa50fa4803705a02e694f75802188f6eec7d4b3f1ea5"
GOLDEN_PIXELS = "0918296dd5def74425b239a9fcd3323ac7f933be963c1d1d3788d7e61ccec6c3"


# Damage


@pytest.fixture(scope="module")
def written():
    pixels, base, skipped = scene()
    data = residual.encode(pixels, base, skipped, [0, 1, 5], LIMITS["uint16"], Kind.GUIDED)
    return data, base, skipped


def test_frames_decode_without_those_after_them(written):
    data, base, skipped = written
    read = Section.parse(data, 2, 3)
    whole = residual.decode(data, base, skipped, LIMITS["uint16"])
    first = dataclasses.replace(read, frames=read.frames[:1], crcs=read.crcs[:1]).to_bytes()
    found = residual.decode(first, base[:1], skipped[:1], LIMITS["uint16"])
    assert np.array_equal(found, whole[:1])
    assert np.array_equal(
        residual.decode(data, base[:1], skipped[:1], LIMITS["uint16"], whole=2), whole[:1]
    )
    wrong = dataclasses.replace(read, crcs=(read.crcs[0] ^ 1, read.crcs[1])).to_bytes()
    with pytest.raises(CorruptStreamError, match="another checksum"):
        residual.decode(wrong, base[:1], skipped[:1], LIMITS["uint16"], whole=2)


def test_a_flipped_bit_is_an_error_or_changes_nothing(written):
    """A frame's last byte has bits that mean nothing; the stream's own checksum covers them."""
    data, base, skipped = written
    good, harmless = residual.decode(data, base, skipped, LIMITS["uint16"]), 0
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= 1 << place % 8
        try:
            found = residual.decode(bytes(bad), base, skipped, LIMITS["uint16"])
        except CorruptStreamError:
            continue
        assert np.array_equal(found, good)
        harmless += 1
    assert harmless <= 2


def test_a_cut_anywhere_and_more_bytes_are_errors(written):
    data, base, skipped = written
    for bad in [*(data[:length] for length in range(0, len(data), 7)), data + b"x", b""]:
        with pytest.raises(CorruptStreamError):
            residual.decode(bad, base, skipped, LIMITS["uint16"])


def test_another_base_is_noticed(written):
    data, base, skipped = written
    with pytest.raises(CorruptStreamError, match="another checksum"):
        residual.decode(data, base + 1, skipped, LIMITS["uint16"])


@settings(max_examples=150)
@given(
    code=st.lists(st.binary(min_size=1, max_size=300), min_size=2, max_size=2),
    bounds=st.lists(st.integers(0, 65535), min_size=3, max_size=3),
    kind=st.sampled_from([Kind.CORRECTIONS, Kind.GUIDED]),
)
def test_garbage_is_refused(code, bounds, kind):
    _, base, skipped = scene((2, 3, 7, 5))
    forged = Section(kind=kind, bounds=tuple(bounds), frames=tuple(code), crcs=(0, 0)).to_bytes()
    with pytest.raises(CorruptStreamError):
        residual.decode(forged, base, skipped, LIMITS["uint16"])


def plan_of(*numbers):
    """The code of a frame whose first plan says these numbers."""
    frame = Frame(Planes((1, 2, 4, 4)))
    frame._make_room(100)
    for kind, value in enumerate(numbers):
        frame.number(kind, value)
    frame._take()
    return frame.finished()


def nothing():
    """The code of a frame that says at length that it needs nothing."""
    frame = Frame(Planes((1, 2, 4, 4)))
    for _ in range(2):
        frame.write_nothing()
    return frame.finished()


FORGED = [
    (plan_of(1, 0, 3), "3 references and copies like number 0; 2 and 1 are possible"),
    (plan_of(1, 2, 0), "0 references and copies like number 2; 2 and 1 are possible"),
    (plan_of(1, 0, 1, 5), "refers to number 5 of 0 planes"),
    (nothing() + b"\0", "has 2 bytes, its planes take 1"),
]


@pytest.mark.parametrize(("code", "message"), FORGED)
def test_a_forged_plan_is_named(code, message):
    base = np.zeros((1, 2, 4, 4), np.int32)
    data = Section(kind=Kind.GUIDED, bounds=(0, 0), frames=(code,), crcs=(0,)).to_bytes()
    with pytest.raises(CorruptStreamError, match=message):
        residual.decode(data, base, base > 0, LIMITS["uint16"])


@given(
    kind=KINDS,
    bounds=st.lists(st.integers(0, 65535), min_size=1, max_size=4),
    frames=st.lists(
        st.tuples(st.binary(max_size=5), st.integers(0, 2**32 - 1)), min_size=1, max_size=4
    ),
)
def test_sections_come_back(kind, bounds, frames):
    codes, crcs = zip(*frames, strict=True)
    one = Section(kind=kind, bounds=tuple(bounds), frames=codes, crcs=crcs)
    data = one.to_bytes()
    assert Section.parse(data, len(frames), len(bounds)) == one
    stated = len(bounds) if len(set(bounds)) > 1 else 1
    assert len(data) == 1 + 2 * stated + 8 * len(frames) + sum(map(len, codes))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes; 11 are needed"),
        (bytes([3]) + bytes(30), "flags 00000011"),
        (bytes([8]) + bytes(30), "flags 00001000"),
        (bytes([4]) + bytes(11), "12 bytes; 13 are needed"),
        (bytes(7) + struct.pack("<I", 2) + b"x", "end with its 1 bytes"),
        (bytes(7) + struct.pack("<I", 0) + b"x", "end with its 1 bytes"),
    ],
)
def test_a_forged_section_is_named(data, message):
    with pytest.raises(CorruptStreamError, match=message):
        Section.parse(data, 1, 2)


def test_frame_ends_never_fall():
    data = bytes(3) + struct.pack("<IIII", 5, 0, 3, 0) + b"xyz"
    with pytest.raises(CorruptStreamError, match="never fall"):
        Section.parse(data, 2, 1)


@pytest.mark.parametrize("kind", Kind)
def test_a_residual_goes_with_its_latents(kind):
    pixels, base, skipped = scene((1, 1, 5, 5))
    data = residual.encode(pixels, base, skipped, [0], LIMITS["uint16"], kind)
    other = base if kind == Kind.ALONE else None
    with pytest.raises(CorruptStreamError, match=f"{kind.name} does not go with"):
        residual.decode(data, other, skipped, LIMITS["uint16"])


def test_memory_is_that_of_the_pixels():
    base = np.zeros((4, 4, 64, 64), np.int32)
    data = Section(
        kind=Kind.GUIDED, bounds=(0,) * 4, frames=(b"\x80\x81",) * 4, crcs=(1,) * 4
    ).to_bytes()
    tracemalloc.start()
    with pytest.raises(CorruptStreamError):
        residual.decode(data, base, base > 0, LIMITS["uint16"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * base.size + 1_000_000


# Parts


@given(st.integers(-(2**17) + 1, 2**17 - 2))
def test_folding_is_undone(k):
    assert kernel.unfolded(kernel.folded(k)) == k
    assert 0 <= kernel.folded(k) < 2**18


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2**18 - 2)), max_size=60))
def test_numbers_come_back(numbers):
    writer = Frame(Planes((1, 1, 1, 1)))
    writer._make_room(1000)
    for kind, value in numbers:
        writer.number(kind, value)
    writer._take()
    reader = Frame(Planes((1, 1, 1, 1)), writer.finished())
    assert [reader.number(kind) for kind, _ in numbers] == [value for _, value in numbers]
    reader.check()


def test_models_stay_within_their_bits():
    """However long a bit repeats, its chance stays codable."""
    for value in (0, 2**18 - 2):
        frame = Frame(Planes((1, 1, 1, 1)))
        for _ in range(300):
            frame._make_room(10)
            frame.number(0, value)
        assert frame.planes.models.min() >= 0
        assert frame.planes.models.max() < 1 << 29
    assert max(Kind) < section.BY_BAND
