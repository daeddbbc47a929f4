"""The loops of the residual coder, compiled by Numba and run without the GIL.

The arithmetic is that of docs/format.md, "The residual": integers only. One loop codes either way,
so that encoder and decoder cannot drift apart. Arrays arrive checked: whatever the code holds,
nothing here reads or writes outside the arrays, and every loop ends.

Below: coding.kernel. Above: planes, fit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xtec.coding.kernel import compiled

Whole = NDArray[np.int64]
Plane = NDArray[np.int32]
Sizes = NDArray[np.uint16]
Copied = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Code = NDArray[np.uint8]
Models = NDArray[np.int32]
Int = Any
"""An integer of 64 bits: numpy's in compiled code, Python's outside."""
Image = tuple[Plane, Mask, Plane]
Known = tuple[Plane, Sizes, Copied]
Terms = tuple[Whole, Whole, Whole]
Coder = tuple[Int, Int, Int, Int]
"""Lowest and highest state, the state that is read, and how many bytes were passed."""

STATE_BYTES = 6
TOP = 8 * (STATE_BYTES - 1)
"""Where the highest byte of a state begins."""
BELOW_TOP = (1 << TOP) - 1
ALL_BITS = (1 << 8 * STATE_BYTES) - 1
HALF = 1 << 15

CHANCE_BITS = 22
COUNT_BITS = 7
MOST_COUNT = (1 << COUNT_BITS) - 1
FRESH = 1 << (CHANCE_BITS - 1 + COUNT_BITS)
"""A model that has seen nothing: one half, count 0."""
RATES = np.array([(2 << 16) // (2 * count + 3) for count in range(MOST_COUNT + 1)], np.int64)
"""How far a model moves towards a bit, in 1/65536, by how many it has seen."""

LENGTHS = 18
"""A number is below 2**18 - 1."""
MODELS = 4 * LENGTHS
"""Models of one context of numbers: their length, then the two bits below the highest."""
ACTIVITIES = 80
MOST_SIZE = (1 << 16) - 1
MOST_REFERENCES = 2
COPY_CONTEXTS = 1 << 14
FIRST_COPY = (MOST_REFERENCES + 1) * ACTIVITIES * MODELS
FIRST_PLAN = FIRST_COPY + 2 * COPY_CONTEXTS
PLAN_NUMBERS = 7
ALL_MODELS = FIRST_PLAN + PLAN_NUMBERS * MODELS
"""Of numbers by how many references there are and how busy it is, of copy flags, of plans."""
BYTES_PER_PIXEL = 48
"""More than two copy flags and a number can take: 351 bits."""

EDGE = 2
"""Rows and columns of zeros round a plane."""
GUIDES = 8
"""Taps on the guide: the last ones."""
WEIGHT_BITS = 8
NONE = 1 << 40
"""A value that no pixel has."""

STEP, LOWEST, HIGHEST, OWN, COPIES, FIRST_MODEL, ROWS, NEAR = range(8)
"""Numbers about a plane: the quantiser's step, the limits of a pixel, which plane it is, whose copy
flags help with its own (-1: it has none), where its models begin; how many rows to code, and what
is near enough for a copy, which only an encoder chooses."""


@compiled
def begin(code: Code) -> Coder:
    """Set a coder to the beginning of a frame's code; of an empty one for writing."""
    state = np.int64(0)
    for i in range(STATE_BYTES):
        state = state << 8 | (np.int64(code[i]) if i < len(code) else np.int64(0))
    return np.int64(0), np.int64(ALL_BITS), state, np.int64(0)


@compiled
def number(
    coder: Coder,
    code: Code,
    reading: bool,  # noqa: FBT001
    models: Models,
    at: Int,
    n: Int,
) -> tuple[Int, Coder]:
    """Code a number from 0 to 2**18 - 2 by its length and its bits. Gives the number."""
    n += 1
    length = 0
    while length < LENGTHS - 1:
        more = 1 if n >> (length + 1) else 0
        more, coder = _learn(coder, code, reading, models, at + length, more)
        if not more:
            break
        length += 1
    found = np.int64(1)
    for i in range(length):
        one = n >> (length - 1 - i) & 1
        if i == 0:
            one, coder = _learn(coder, code, reading, models, at + LENGTHS + length, one)
        elif i == 1:
            second = at + 2 * (LENGTHS + length) + (found & 1)
            one, coder = _learn(coder, code, reading, models, second, one)
        else:
            one, coder = _bit(coder, code, reading, HALF, one)
        found = found << 1 | one
    return found - 1, coder


@compiled
def folded(k: Int) -> Int:
    """0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ..."""
    return 2 * k if k >= 0 else -2 * k - 1


@compiled
def unfolded(z: Int) -> Int:
    """Undo `folded`."""
    return -((z + 1) >> 1) if z & 1 else z >> 1


@compiled
def plane(  # noqa: C901, PLR0912, PLR0915 - calls with arrays cost more than their work
    coder: Coder,
    code: Code,
    reading: bool,  # noqa: FBT001
    models: Models,
    image: Image,
    known: Known,
    terms: Terms,
) -> Coder:
    """Code one band of one frame: read its pixels, or fill them.

    Parameters
    ----------
    coder, code, models
        Of the frame; of models first those of numbers, then those of copy flags.
    reading : bool
        Whether the code is there, and the pixels are wanted.
    image : pixels, skipped, guide
        The first two (y, x); what is skipped is not coded. The guide is what is known of the
        pixels, with its border repeated.
    known : residuals, sizes, copied
        Pixels less guide, magnitude of the number, and from where a pixel was copied (1: left,
        2: above): of all planes (plane, y, x), zeros round each. Those of this plane are filled.
    terms : numbers, taps, looks
        STEP, LOWEST and so on. Offsets and weights: of residuals, then of the guide (2, tap). Where
        to look how busy it is round a pixel, and how much that counts (2, look).
    """
    (pixels, skipped, guide), (numbers, taps, looks) = image, terms
    r, s, c, g = known[0].ravel(), known[1].ravel(), known[2].ravel(), guide.ravel()
    step, lowest, highest = numbers[STEP], numbers[LOWEST], numbers[HIGHEST]
    copies, near, first_model = numbers[COPIES], numbers[NEAR], numbers[FIRST_MODEL]
    width, all_taps = pixels.shape[1], taps.shape[1]
    row = width + 2 * EDGE
    size = row * (pixels.shape[0] + 2 * EDGE)
    first, pattern = numbers[OWN] * size, copies * size
    central = np.int64(0)
    for j in range(all_taps - GUIDES, all_taps):
        central += taps[1, j]
    for y in range(numbers[ROWS]):
        for x in range(width):
            if skipped[y, x]:
                continue
            at = (y + EDGE) * row + x + EDGE
            i = first + at
            here, pixel = np.int64(g[at]), np.int64(pixels[y, x])
            left, above = np.int64(NONE), np.int64(NONE)
            if copies >= 0:
                there = pattern + at
                context = np.int64(c[i - 1]) << 2 | c[i - row]
                context = context << 4 | c[i - row + 1] << 2 | c[i - 2 * row]
                context = context << 4 | c[there] << 2 | c[there + 1]
                context = FIRST_COPY + (context << 2 | c[there + row])
                if x > 0 and not skipped[y, x - 1]:
                    left = np.int64(r[i - 1]) + g[at - 1]
                    same = 1 if pixel == pixels[y, x - 1] or abs(pixel - left) <= near else 0
                    same, coder = _learn(coder, code, reading, models, context, same)
                    if same:
                        if reading:
                            pixels[y, x] = left
                        r[i], s[i], c[i] = left - here, s[i - 1], 1
                        continue
                if y > 0 and not skipped[y - 1, x]:
                    above = np.int64(r[i - row]) + g[at - row]
                    same = 1 if pixel == pixels[y - 1, x] or abs(pixel - above) <= near else 0
                    context += COPY_CONTEXTS
                    same, coder = _learn(coder, code, reading, models, context, same)
                    if same:
                        if reading:
                            pixels[y, x] = above
                        r[i], s[i], c[i] = above - here, s[i - row], 2
                        continue
            total = (1 << (WEIGHT_BITS - 1)) - central * here
            for j in range(all_taps - GUIDES):
                total += taps[1, j] * r[i + taps[0, j]]
            for j in range(all_taps - GUIDES, all_taps):
                total += taps[1, j] * g[at + taps[0, j]]
            expected = min(max(here + (total >> WEIGHT_BITS), lowest), highest)
            busy = np.int64(0)
            for j in range(looks.shape[1]):
                busy += looks[1, j] * s[i + looks[0, j]]
            less, more = np.int64(NONE), np.int64(NONE)
            if step == 1:  # what would have been a copy is no number any more
                less, more = _excluded(left, above, expected)
            k, z = np.int64(0), np.int64(0)
            if not reading:
                k = (pixel - expected + (step >> 1)) // step
                z = folded(k)
                z -= (1 if less < z else 0) + (1 if more < z else 0)
            model = first_model + _activity(busy) * MODELS
            z, coder = number(coder, code, reading, models, model, z)
            if reading:
                z += 1 if less <= z else 0
                z += 1 if more <= z else 0
                k = unfolded(z)
            pixel = min(max(expected + k * step, lowest), highest)
            if reading:
                pixels[y, x] = pixel
            magnitude: Int = min(abs(k), MOST_SIZE)
            r[i], s[i] = pixel - here, magnitude
    return coder


@compiled
def features(
    residuals: Plane,
    guide: Plane,
    wanted: Mask,
    own: int,
    offsets: Whole,
    found: NDArray[np.float64],
) -> None:
    """Fill ``found`` (pixel, tap) with what the taps see at the wanted pixels (y, x)."""
    row = wanted.shape[1] + 2 * EDGE
    first = own * row * (wanted.shape[0] + 2 * EDGE)
    r, g = residuals.ravel(), guide.ravel()
    taps = len(offsets)
    n = 0
    for y in range(wanted.shape[0]):
        for x in range(wanted.shape[1]):
            if wanted[y, x]:
                at = (y + EDGE) * row + x + EDGE
                for j in range(taps - GUIDES):
                    found[n, j] = r[first + at + offsets[j]]
                for j in range(taps - GUIDES, taps):
                    found[n, j] = g[at + offsets[j]] - g[at]
                n += 1


@compiled
def _bit(
    coder: Coder,
    code: Code,
    reading: bool,  # noqa: FBT001
    chance: Int,
    one: Int,
) -> tuple[Int, Coder]:
    """Code one bit; ``chance`` of a 1 in 1/65536, 1 to 65535. Gives the bit."""
    low, high, state, place = coder
    middle = low + ((high - low) >> 16) * chance
    if reading:
        one = 1 if state <= middle else 0
    if one:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) >> TOP == 0:
        if reading:
            at = place + STATE_BYTES
            new = np.int64(code[at]) if at < len(code) else np.int64(0)
            state = (state & BELOW_TOP) << 8 | new
        else:
            code[place] = low >> TOP
        place += 1
        low = (low & BELOW_TOP) << 8
        high = (high & BELOW_TOP) << 8 | 255
    return one, (low, high, state, place)


@compiled
def _learn(
    coder: Coder,
    code: Code,
    reading: bool,  # noqa: FBT001
    models: Models,
    at: Int,
    one: Int,
) -> tuple[Int, Coder]:
    """Code one bit by a model, which learns from it."""
    model = np.int64(models[at])
    p, count = model >> COUNT_BITS, model & MOST_COUNT
    chance = min(max(p >> (CHANCE_BITS - 16), 1), (1 << 16) - 1)
    one, coder = _bit(coder, code, reading, chance, one)
    p += (((one << CHANCE_BITS) - p) * RATES[count]) >> 16
    models[at] = p << COUNT_BITS | min(count + 1, MOST_COUNT)
    return one, coder


@compiled
def _excluded(left: Int, above: Int, expected: Int) -> tuple[Int, Int]:
    """Numbers that are not to be had, in order."""
    less, more = np.int64(NONE), np.int64(NONE)
    if left != NONE:
        less = folded(left - expected)
    if above not in (NONE, left):
        more = folded(above - expected)
    return min(less, more), max(less, more)


@compiled
def _activity(busy: Int) -> Int:
    """How busy it is, 0 to 79: four steps to each doubling."""
    if busy < 4:
        return busy
    length = 2
    while busy >> (length + 1):
        length += 1
    return min(4 * (length - 1) + (busy >> (length - 2) & 3), ACTIVITIES - 1)
