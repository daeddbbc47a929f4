"""The maker of the tables: ``python -m xtec.coding.make_tables`` writes ``tables.npz``.

All arithmetic is on Python integers that count units of 2**-160, so that any machine computes the
same rows and the same file. The rules are those of docs/format.md, "The frequency tables".

Below: tables. Above: nothing, but for a number in train.loss; run once per format version, and
again by the tests.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from math import isqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xtec.coding.tables import FILE, FRACTION_BITS, FREQUENCY_BITS, SCALE_BITS, SCALES, geometry

PLACES = 160
ONE = 1 << PLACES
FULL = 1 << FREQUENCY_BITS
PI = 314159265358979323846264338327950288419716939937510582097494459 * ONE // 10**62
BELL = isqrt(2 * PI * ONE)
"""The whole area under exp(-t**2 / 2)."""
RAREST = 4
"""Counts of 2**16 that a symbol of a row's support has at least."""
SURPRISES = 512
"""Latents keep to Gaussians only so far. The less certain the likeliest symbol is, the likelier
is an escape: by this part of what that symbol leaves. With RAREST that costs a true Gaussian
0.07 %."""
FAR = 10 * ONE
"""Beyond this many sigmas lies less than 2**-74 of the area: none, by definition."""


def power_of_two(numerator: int, denominator: int, places: int = PLACES) -> int:
    """Floor of ``2**(numerator/denominator)`` in units of ``2**-places``, exactly."""
    radicand = 1 << numerator + denominator * places
    low, high = 0, 1 << numerator // denominator + places + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**denominator <= radicand else (low, middle)
    return low


def area(z: int) -> int:
    """Integral of exp(-t**2 / 2) from 0 to z, by its Taylor series."""
    if abs(z) > FAR:
        return BELL // 2 if z > 0 else -(BELL // 2)
    half_square = z * z >> PLACES + 1
    power = total = abs(z)
    order = 0
    while power:
        order += 1
        power = (power * half_square >> PLACES) // order
        term = power // (2 * order + 1)
        total += -term if order % 2 else term
    return total if z > 0 else -total


def row(scale: int, fraction_2: int) -> tuple[int, list[int]]:
    """Give the lowest symbol and the counts of one row, the escape's last.

    Parameters
    ----------
    scale : int, 0 to SCALES - 1
        Level of sigma.
    fraction_2 : int, 0 to 126
        Twice the middle of the fractions that share the row.
    """
    inverse_sigma = power_of_two(40 - scale, 10)

    @cache
    def below(symbol: int) -> int:
        """Area between the mean and the lower edge of a symbol."""
        distance_128 = 128 * symbol - fraction_2
        return area(distance_128 * inverse_sigma >> FRACTION_BITS + 1)

    def mass(symbol: int) -> int:
        return below(symbol + 1) - below(symbol)

    def in_support(symbol: int) -> bool:
        return FULL * mass(symbol) >= RAREST * BELL

    low = high = 0
    while in_support(low - 1):
        low -= 1
    while in_support(high + 1):
        high += 1
    masses = [mass(symbol) for symbol in range(low, high + 1)]
    inside = sum(masses)
    escape = max(BELL - inside, (BELL - max(masses)) // SURPRISES)
    return low, apportion([*(m * (BELL - escape) // inside for m in masses), escape])


def apportion(masses: list[int]) -> list[int]:
    """Share 2**16 counts among entries by their masses, at least one to each."""
    counts = [max(1, FULL * mass // BELL) for mass in masses]
    lost = [FULL * mass - BELL * count for mass, count in zip(masses, counts, strict=True)]
    missing = FULL - sum(counts)
    neediest = sorted(range(len(masses)), key=lambda entry: (-lost[entry], entry))
    for entry in neediest[: max(0, missing)]:
        counts[entry] += 1
    counts[counts.index(max(counts))] += min(0, missing)
    return counts


def rows_of_scale(scale: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the rows of one scale, lowest fractions first."""
    shift = int(geometry()[1][scale])
    for group in range(1 << FRACTION_BITS >> shift):
        yield row(scale, (2 * group << shift) + (1 << shift) - 1)


def scale_edges() -> tuple[list[int], list[int]]:
    """Give the edges of the scale levels in the forms "reciprocal" and "log2"."""
    unit = 1 << SCALE_BITS
    exponents_20 = range(-79, -79 + 2 * (SCALES - 1), 2)  # log2 of the edges, in twentieths
    log2 = [-(-unit * exponent // 20) for exponent in exponents_20]
    reciprocal = [
        # sigma = 1 + s  or  1 / (1 - s); the root is irrational, so that the ceiling is floor + 1
        power_of_two(exponent, 20, SCALE_BITS) + 1 - unit
        if exponent > 0
        else unit - power_of_two(-exponent, 20, SCALE_BITS)
        for exponent in exponents_20
    ]
    return reciprocal, log2


def arrays() -> dict[str, NDArray[np.integer]]:
    """Compute everything the file holds, under the names of docs/format.md."""
    rows = [one for scale in range(SCALES) for one in rows_of_scale(scale)]
    reciprocal, log2 = scale_edges()
    return {
        "counts": np.array([count for _, counts in rows for count in counts], "<u2"),
        "sizes": np.array([len(counts) for _, counts in rows], "<u2"),
        "lows": np.array([low for low, _ in rows], "<i2"),
        "reciprocal": np.array(reciprocal, "<i4"),
        "log2": np.array(log2, "<i4"),
    }


def npz(arrays: Mapping[str, NDArray[np.integer]]) -> bytes:
    """Write an npz file without what differs between runs: dates, system, compression."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.create_system = 3
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            archive.writestr(member, content.getvalue())
    return file.getvalue()


def main() -> None:
    """Write the file beside this one and print its digest, for ``SHA256`` in tables.py."""
    data = npz(arrays())
    Path(__file__).with_name(FILE).write_bytes(data)
    print(len(data), "bytes, SHA-256", hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    main()
