"""The entropy coder: integer symbols to bytes and back, given a table row for each.

One rANS state per chunk. The encoder works from the last symbol to the first, so that the decoder
reads forward and may stop after any frame. Importing this file imports Numba.

Below: errors, tables, kernel. Above: codec.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xtec.coding import kernel
from xtec.coding.kernel import LOWEST, SYMBOL_LIMIT
from xtec.coding.tables import Tables
from xtec.errors import CorruptStreamError, InputError, TruncatedStreamError

STATE_BYTES = 8
WORD_BYTES = 4
HIGHEST = int(LOWEST << kernel.WORD_BITS)


def encode(
    symbols: NDArray[np.int32], rows: NDArray[np.uint16], tables: Tables, ends: Sequence[int]
) -> tuple[bytes, list[int]]:
    """Code symbols.

    Parameters
    ----------
    symbols : int32, shape (n,)
        Centred latents, all nearer to 0 than 2**20. Those far from their row cost an escape.
    rows : uint16, shape (n,)
        The table row of each symbol.
    tables : Tables
        What the rows are of.
    ends : sequence of int
        How many symbols there are up to the end of each frame; never falling, the last is n.

    Returns
    -------
    payload : bytes
        The code of all symbols.
    lengths : list of int
        How many bytes of the payload a decoder has read at the end of each frame; the last is
        all of them.

    Raises
    ------
    InputError
        A symbol or a row is out of range, or the arguments do not belong together.
    """
    rows = _checked_rows(rows, tables)
    symbols = _checked_symbols(symbols, len(rows))
    bounds = _checked_ends(ends, len(rows))
    words = np.empty(kernel.WORDS_PER_SYMBOL * len(rows), np.uint32)
    marks = np.empty(len(bounds), np.int64)
    state, begin = kernel.encode(symbols, rows, _arrays(tables), bounds, words, marks)
    payload = int(state).to_bytes(STATE_BYTES, "little") + words[begin:].astype("<u4").tobytes()
    lengths = STATE_BYTES + WORD_BYTES * (marks - begin)
    return payload, [int(length) for length in lengths]


class Decoder:
    """Reads symbols from the front of a payload; the state lives on between calls.

    Not to be used after an error, and by one thread at a time.

    Parameters
    ----------
    payload : bytes
        All of it, or as much as the wanted frames need (the lengths that `encode` gave).
    tables : Tables
        The tables it was coded with.

    Raises
    ------
    TruncatedStreamError
        The payload cannot hold a state, or ends within a word.
    CorruptStreamError
        The payload begins with a state that no encoder leaves.
    """

    def __init__(self, payload: bytes, tables: Tables) -> None:
        if len(payload) < STATE_BYTES or len(payload) % WORD_BYTES:
            raise TruncatedStreamError(
                f"The payload ends after {len(payload)} bytes; a whole one has {STATE_BYTES} "
                f"bytes and then words of {WORD_BYTES}."
            )
        state = int.from_bytes(payload[:STATE_BYTES], "little")
        if not LOWEST <= state < HIGHEST:
            raise CorruptStreamError(
                f"The payload begins with the state {state}; {LOWEST} to {HIGHEST - 1} is allowed."
            )
        self._tables = tables
        self._words = np.frombuffer(payload, "<u4", offset=STATE_BYTES).astype(np.uint32)
        self._state = np.uint64(state)
        self._place = 0

    def decode(self, rows: NDArray[np.uint16]) -> NDArray[np.int32]:
        """Read the next symbols.

        Parameters
        ----------
        rows : uint16, shape (n,)
            The table row of each, as the encoder had it.

        Returns
        -------
        int32, shape (n,)
            Centred latents.

        Raises
        ------
        InputError
            The tables have no such row.
        TruncatedStreamError
            The payload ends before the last of these symbols.
        CorruptStreamError
            The payload holds a symbol beyond the limit.
        """
        rows = _checked_rows(rows, self._tables)
        symbols = np.empty(len(rows), np.int32)
        state, self._place, sound = kernel.decode(
            rows, _arrays(self._tables), self._words, self._state, self._place, symbols
        )
        self._state = np.uint64(state)
        if self._place > len(self._words):
            raise TruncatedStreamError(
                f"The payload ends after {len(self._words)} words, before the last symbol."
            )
        if not sound:
            raise CorruptStreamError(
                f"The payload holds a symbol beyond +-{SYMBOL_LIMIT - 1}: it is damaged, or was "
                "written with other rows."
            )
        return symbols

    def finish(self, *, ended: bool = True) -> None:
        """Make sure that all of the payload was read and that it ended as the encoder began.

        Parameters
        ----------
        ended : bool
            False where the payload is only that of the first frames: all of it must have been
            read then, too, but the state may be any.

        Raises
        ------
        CorruptStreamError
            It did not: the payload is damaged, or was written with other rows.
        """
        left = len(self._words) - self._place
        if left or (ended and self._state != LOWEST):
            raise CorruptStreamError(
                f"After the last symbol the payload has {left} words left and the state "
                f"{self._state}, not 0 and {LOWEST}: it is damaged, or was written with other rows."
            )


def _arrays(tables: Tables) -> kernel.Arrays:
    return tables.cdf, tables.starts, tables.lows, tables.sizes


def _checked_rows(rows: NDArray[np.uint16], tables: Tables) -> NDArray[np.uint16]:
    if rows.dtype != np.uint16 or rows.ndim != 1:
        raise InputError(f"Rows are {rows.dtype} of shape {rows.shape}; give uint16 of one axis.")
    if rows.max(initial=0) >= len(tables.sizes):
        raise InputError(f"Row {rows.max()} does not exist; the last is {len(tables.sizes) - 1}.")
    return np.ascontiguousarray(rows)


def _checked_symbols(symbols: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    if symbols.dtype != np.int32 or symbols.shape != (count,):
        raise InputError(
            f"Symbols are {symbols.dtype} of shape {symbols.shape}; give int32 of shape "
            f"({count},), one for each row."
        )
    lowest, highest = int(symbols.min(initial=0)), int(symbols.max(initial=0))
    if max(-lowest, highest) >= SYMBOL_LIMIT:
        raise InputError(
            f"Symbols run from {lowest} to {highest}; +-{SYMBOL_LIMIT - 1} is allowed."
        )
    return np.ascontiguousarray(symbols)


def _checked_ends(ends: Sequence[int], count: int) -> NDArray[np.int64]:
    bounds = np.array(ends, np.int64)
    if not len(bounds) or bounds[-1] != count or (np.diff(bounds, prepend=0) < 0).any():
        raise InputError(f"Frame ends {list(ends)} must never fall and end with {count}.")
    return bounds
