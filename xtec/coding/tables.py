"""The frequency tables: the only form of probability a coder may see.

Floats stop here. A row holds integer frequencies of a Gaussian with one of 131 scales and one of
at most 64 means; the rows are part of the format (docs/format.md) and never change within a
version of it.

Below: errors. Above: rans, models.prior, codec.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from xtec.errors import TableError

Kind = TypeVar("Kind", bound=np.generic)

FRACTION_BITS = 6
SCALE_BITS = 10
FREQUENCY_BITS = 16
FILE = "tables.npz"
SHA256 = "fff93a7a04c894b7c0fd725a179c7348e35ae6f29ffa5bb6aac47c2b6f68a3c0"

LEVELS_PER_SHIFT = {0: 40, 2: 30, 4: 30, 6: 31}
SCALES = sum(LEVELS_PER_SHIFT.values())


@dataclass(frozen=True, eq=False)
class Tables:
    """All rows, laid end to end, and the way from a scale and a mean to a row.

    Row r has ``sizes[r]`` entries: the symbols from ``lows[r]`` upward, then the escape. Entry k
    owns the counts from ``cdf[starts[r] + k]`` to before ``cdf[starts[r] + k + 1]``.
    No array can be written to.
    """

    cdf: NDArray[np.uint32]
    """Cumulative frequencies, 0 to 2**16 in every row; ``sizes[r] + 1`` numbers for row r."""
    starts: NDArray[np.int32]
    """Shape (row,): where each row begins in ``cdf``."""
    lows: NDArray[np.int32]
    """Shape (row,): the lowest symbol of each row, 0 or less."""
    sizes: NDArray[np.int32]
    """Shape (row,): the number of entries, the escape included; at least 2."""
    first_row: NDArray[np.uint16]
    """Shape (scale,): the first row of each scale."""
    shift: NDArray[np.uint8]
    """Shape (scale,): how many low bits of the fraction a scale ignores."""
    scale_edges: Mapping[str, NDArray[np.int32]]
    """Shape (scale - 1,), unit 1/1024: edges for the forms "reciprocal" and "log2" of a scale.

    The scale index of s is ``searchsorted(edges, s, side="right")``.
    """

    def rows(
        self, scale_index: NDArray[np.integer], fraction: NDArray[np.integer]
    ) -> NDArray[np.uint16]:
        """Give the row of each symbol.

        Parameters
        ----------
        scale_index : integer array, 0 to SCALES - 1
            Level of sigma; level i stands for ``2**(-4 + i/10)``.
        fraction : integer array, same shape, 0 to 63
            The symbol's mean is ``fraction/64 - 1/2``.

        Returns
        -------
        uint16, same shape
            Row numbers, as `xtec.coding.rans` takes them.
        """
        group = fraction.astype(np.uint16) >> self.shift[scale_index]
        rows: NDArray[np.uint16] = self.first_row[scale_index] + group
        return rows


@lru_cache(maxsize=1)
def load() -> Tables:
    """Read the tables that came with the package.

    Raises
    ------
    TableError
        The file is not the one this version was released with.
    """
    data = files("xtec.coding").joinpath(FILE).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise TableError(
            f"{FILE} has the SHA-256 {digest}, but this version of xtec needs {SHA256}: "
            "the file is damaged or of another version; install xarray-tec again."
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return assemble(**arrays)


def geometry() -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Give ``first_row`` and ``shift`` of every scale, each of shape (scale,)."""
    shift = np.repeat(list(LEVELS_PER_SHIFT), list(LEVELS_PER_SHIFT.values()))
    ends = np.cumsum((1 << FRACTION_BITS) >> shift)
    first_row = np.concatenate(([0], ends[:-1]))
    return first_row.astype(np.uint16), shift.astype(np.uint8)


def assemble(
    counts: NDArray[np.uint16],
    sizes: NDArray[np.uint16],
    lows: NDArray[np.int16],
    reciprocal: NDArray[np.int32],
    log2: NDArray[np.int32],
) -> Tables:
    """Lay out for the coder what the file holds (docs/format.md lists the arrays)."""
    row = np.arange(len(sizes))
    ends = np.cumsum(sizes, dtype=np.int64)
    begins = ends - sizes
    steps = np.insert(counts.astype(np.int64), begins, 0)
    cdf = np.cumsum(steps) - np.repeat(row << FREQUENCY_BITS, sizes.astype(np.int64) + 1)
    first_row, shift = geometry()
    return Tables(
        cdf=_frozen(cdf, np.uint32),
        starts=_frozen(begins + row, np.int32),
        lows=_frozen(lows, np.int32),
        sizes=_frozen(sizes, np.int32),
        first_row=_frozen(first_row, np.uint16),
        shift=_frozen(shift, np.uint8),
        scale_edges=MappingProxyType(
            {"reciprocal": _frozen(reciprocal, np.int32), "log2": _frozen(log2, np.int32)}
        ),
    )


def _frozen(array: NDArray[np.integer], kind: type[Kind]) -> NDArray[Kind]:
    array_of_kind = array.astype(kind)
    array_of_kind.flags.writeable = False
    return array_of_kind
