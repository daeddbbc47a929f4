"""The loops of the entropy coder, compiled by Numba and run without the GIL.

The arithmetic is that of docs/format.md, "The rANS coder". Arrays arrive checked: nothing here
looks at a bound twice, and nothing here reads or writes outside the arrays, whatever the payload.

Below: nothing. Above: rans; models.mixing_kernel takes `compiled`.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., object])

State = np.uint64
Words = NDArray[np.uint32]
Arrays = tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
"""cdf, starts, lows and sizes of `xtec.coding.tables.Tables`."""

SYMBOL_LIMIT = 1 << 20
WORDS_PER_SYMBOL = 2
"""The dearest symbol, an escape, takes at most 16 + 1 + 39 bits."""

# Unsigned like the state: Numba would turn a mixture with signed integers into floats.
LOWEST = np.uint64(1 << 31)
WORD_BITS = np.uint64(32)
WORD = np.uint64((1 << 32) - 1)
SLOT_BITS = np.uint64(16)
SLOT = np.uint64((1 << 16) - 1)
CROWDED = np.uint64(47)
HALF = np.uint64(1 << 15)

TAIL_BITS = 19
NARROW = 32
"""Rows up to this wide are searched from the middle outward, others by halving: measured."""


def compiled(function: Function) -> Function:
    """Compile, and keep the result on disk where any place for it can be written.

    The error model spares the check of divisors: no frequency is 0.
    """
    try:
        made = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # a read-only installation and no home: compile in every process
        made = numba.njit(nogil=True, error_model="numpy")(function)
    return cast("Function", made)


@compiled
def encode(
    symbols: NDArray[np.int32],
    rows: NDArray[np.uint16],
    arrays: Arrays,
    ends: NDArray[np.int64],
    words: Words,
    marks: NDArray[np.int64],
) -> tuple[State, int]:
    """Fill ``words`` from its end, and ``marks`` with the place reached at each frame's end.

    Gives the last state and the place of the first word.
    """
    cdf, starts, lows, sizes = arrays
    state, place = LOWEST, len(words)
    for frame in range(len(ends) - 1, -1, -1):
        marks[frame] = place
        begin = ends[frame - 1] if frame else 0
        for i in range(ends[frame] - 1, begin - 1, -1):
            row = rows[i]
            escape = sizes[row] - 1
            entry = symbols[i] - lows[row]
            if entry < 0 or entry >= escape:
                state, place = _put_tail(state, words, place, entry, escape)
                entry = escape
            at = starts[row] + entry
            start = np.uint64(cdf[at])
            state, place = _put(state, words, place, start, np.uint64(cdf[at + 1]) - start)
    return state, place


@compiled
def decode(
    rows: NDArray[np.uint16],
    arrays: Arrays,
    words: Words,
    state: State,
    place: int,
    symbols: NDArray[np.int32],
) -> tuple[State, int, bool]:
    """Fill ``symbols``; give state, place and whether every escape was sound.

    A place beyond the words says that they ran out.
    """
    cdf, starts, lows, sizes = arrays
    for i in range(len(rows)):
        row = rows[i]
        low, escape = lows[row], sizes[row] - 1
        at = starts[row]
        entry = _find(cdf, at, -low, escape, state & SLOT)
        start = np.uint64(cdf[at + entry])
        frequency = np.uint64(cdf[at + entry + 1]) - start
        state, place = _take(state, words, place, start, frequency)
        if entry == escape:
            state, place, entry = _take_tail(state, words, place, escape)
            if abs(low + entry) >= SYMBOL_LIMIT:
                return state, place, False
        symbols[i] = low + entry
    return state, place, True


@compiled
def _put(
    state: State, words: Words, place: int, start: State, frequency: State
) -> tuple[State, int]:
    if state >= frequency << CROWDED:
        place -= 1
        words[place] = state & WORD
        state >>= WORD_BITS
    return ((state // frequency) << SLOT_BITS) + state % frequency + start, place


@compiled
def _take(
    state: State, words: Words, place: int, start: State, frequency: State
) -> tuple[State, int]:
    """Undo `_put`. Behind the last word read zeros and count on: the caller will see."""
    state = frequency * (state >> SLOT_BITS) + (state & SLOT) - start
    if state < LOWEST:
        word = words[place] if place < len(words) else np.uint32(0)
        state = state << WORD_BITS | np.uint64(word)
        place += 1
    return state, place


@compiled
def _find(cdf: NDArray[np.uint32], at: int, middle: int, escape: int, slot: State) -> int:
    """Give the entry of a row that owns a slot; ``middle`` is the entry of the symbol 0."""
    if escape <= NARROW:
        entry = middle
        while cdf[at + entry + 1] <= slot:
            entry += 1
        while cdf[at + entry] > slot:
            entry -= 1
        return entry
    entry, beyond = 0, escape + 1
    while beyond - entry > 1:
        middle = (entry + beyond) >> 1
        if cdf[at + middle] <= slot:
            entry = middle
        else:
            beyond = middle
    return entry


@compiled
def tail_order(escape: int) -> int:
    """Order of the Exp-Golomb code behind an escape: a surprise is as large as its row is wide."""
    order = 0
    while escape + 1 >> (order + 4):
        order += 1
    return order


@compiled
def _put_tail(state: State, words: Words, place: int, entry: int, escape: int) -> tuple[State, int]:
    """Code on which side of the row and how far away an entry lies, the last bit first."""
    beyond = -entry - 1 if entry < 0 else entry - escape
    order = tail_order(escape)
    for shift in range(order):
        state, place = _put_bit(state, words, place, beyond >> shift & 1)
    steps = (beyond >> order) + 1
    length = 0
    while steps >> (length + 1):
        length += 1
    for shift in range(2 * length + 1):  # the bits above the number are the zeros of its length
        state, place = _put_bit(state, words, place, steps >> shift & 1)
    return _put_bit(state, words, place, 1 if entry < 0 else 0)


@compiled
def _put_bit(state: State, words: Words, place: int, bit: int) -> tuple[State, int]:
    return _put(state, words, place, np.uint64(bit) * HALF, HALF)


@compiled
def _take_bit(state: State, words: Words, place: int) -> tuple[State, int, int]:
    bit = state >> np.uint64(15) & np.uint64(1)
    state, place = _take(state, words, place, bit * HALF, HALF)
    return state, place, 1 if bit else 0


@compiled
def _take_tail(state: State, words: Words, place: int, escape: int) -> tuple[State, int, int]:
    """Undo `_put_tail`; one that is too long leads beyond the limit of symbols."""
    state, place, below = _take_bit(state, words, place)
    length = 0
    state, place, bit = _take_bit(state, words, place)
    while not bit and length <= TAIL_BITS:
        length += 1
        state, place, bit = _take_bit(state, words, place)
    steps = 1
    for _ in range(length):
        state, place, bit = _take_bit(state, words, place)
        steps = steps << 1 | bit
    beyond = steps - 1
    for _ in range(tail_order(escape)):
        state, place, bit = _take_bit(state, words, place)
        beyond = beyond << 1 | bit
    return state, place, -1 - beyond if below else escape + beyond
