"""Pixels that come out of the codec and are about to go into it again.

Whoever saves an opened store again, patches a part of a chunk or appends to a chunk that is not
full makes Zarr decode and encode again, and each time a little is lost. Nothing in such a write
says so; the pixels do. Of every chunk that a socket decodes a few marks are kept, hashes of runs
of pixels chosen by what they hold and not by where they stand, so that they are found again in a
crop, in other chunks or beside new pixels. Pixels of an original do not match: decoded ones differ
from them in nearly every run.

Below: errors. Above: the sockets.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from xtec.errors import SecondLossWarning

RUN = 8
"""Pixels of a run along x, all bands of them."""

ONE_OF = 128
"""Of so many runs one is marked."""

SLOTS_LOG2 = 20
"""Marks kept, 8 MiB: those of the last few gigabytes of pixels decoded in this process."""

SHARE, LEAST = 1 / 16, 4
"""Of a chunk's marks so many must be known, and at least so many: one old date of eight is more."""

ODD = [np.uint32(0x9E3779B1 * odd % (1 << 32)) for odd in (1, 3, 5, 7)]
_table: NDArray[np.uint64] = np.zeros(1 << SLOTS_LOG2, np.uint64)
_silent: ContextVar[bool] = ContextVar("silent", default=False)

ADVICE = (
    "pixels that were decoded from a compressed store are encoded again, which loses a little "
    "again. To copy a store, copy its files; to save pixels uncompressed, use ds.drop_encoding(); "
    "to add or replace data, write whole chunks of the original with ds.tec.append(store) or "
    "ds.tec.write(store, region=...). warnings.simplefilter('error', "
    "xtec.errors.SecondLossWarning) makes this an error, before anything is stored."
)


def remember(chunks: Iterable[NDArray[Any]]) -> None:
    """Keep marks of chunks that were decoded, shape (time, band, y, x)."""
    for chunk in chunks:
        found = marks(chunk)
        _table[_slots(found)] = found  # one slot, one mark: whoever comes later stays


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Within this nobody is warned, who asks in this context: the user was told already."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def warn(chunks: Iterable[NDArray[Any]]) -> None:
    """Warn where a chunk that is to be encoded holds pixels that were decoded in this process.

    Warns
    -----
    SecondLossWarning
    """
    if _silent.get():
        return
    for chunk in chunks:
        found = marks(chunk)
        known = np.count_nonzero(_table[_slots(found)] == found)
        if known >= max(LEAST, SHARE * found.size):
            warnings.warn(ADVICE, SecondLossWarning, stacklevel=2)
            return


def marks(chunk: NDArray[Any]) -> NDArray[np.uint64]:
    """Hashes of some runs of pixels of a chunk (time, band, y, x); none of runs that are even."""
    if chunk.ndim != 4 or chunk.shape[3] < RUN:
        return np.empty(0, np.uint64)
    light = chunk.sum(axis=1, dtype=np.uint32)
    hashed = light
    for width, odd in zip((1, 2, 4), ODD[1:], strict=True):
        hashed = hashed[..., :-width] * odd + hashed[..., width:]
    chosen = hashed * ODD[0] < np.uint32((1 << 32) // ONE_OF)
    chosen &= light[..., : 1 - RUN] != light[..., RUN - 1 :]
    t, y, x = np.nonzero(chosen)
    runs = sliding_window_view(chunk, RUN, axis=3)[t, :, y, x].reshape(t.size, RUN * chunk.shape[1])
    return _hash(runs.astype(np.uint64))


def _hash(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    weights = np.random.default_rng(0).integers(1 << 63, size=rows.shape[1], dtype=np.uint64) | 1
    mixed: NDArray[np.uint64] = (rows * weights).sum(axis=1, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(32)
    return mixed * np.uint64(0x9E3779B97F4A7C15)


def _slots(found: NDArray[np.uint64]) -> NDArray[np.intp]:
    return (found >> np.uint64(64 - SLOTS_LOG2)).astype(np.intp)
