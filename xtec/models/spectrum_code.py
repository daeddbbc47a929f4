"""A chunk's `Spectrum` as symbols of the entropy coder: they open the payload and each frame.

Encoder and decoder say the same things in the same order; what is said next may depend on what was
said before. `Teller` says what is there and notes it down, `Listener` says what it reads.

Below: spectrum, coded, coding.tables, errors. Above: lapped_model.
"""

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np

from xtec.coding.tables import FRACTION_BITS, SCALES, load
from xtec.errors import CorruptStreamError
from xtec.models.coded import Read
from xtec.models.frequencies import OCTAVES
from xtec.models.spectrum import (
    LEAST_BASIS_BITS,
    MOST_BASIS_BITS,
    MOST_ENERGY,
    SHIFT_UNIT,
    Basis,
    FrameSpectrum,
    Spectrum,
    Whole,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_MEAN_BITS = 20
USUAL = {"mean bits": 6, "kept": 6, "basis bits": 5, "energy": 16}
SPREAD = {"mean bits": 2.0, "kept": 4.0, "basis bits": 2.0, "first energy": 6.0, "energy": 3.0,
          "shift": 4.0, "choice": 1.0, "back": 2.0}  # fmt: skip
"""How wide numbers spread round what is usual: sets the bits they take."""


class Voice(Protocol):
    """One side of the code."""

    def say(self, x: Whole, spread: float) -> Whole:
        """Say integers that spread so wide round 0; returns what was said."""


class Teller:
    """Notes symbols and table rows down."""

    def __init__(self) -> None:
        self.symbols: list[NDArray[np.int32]] = []
        self.rows: list[NDArray[np.uint16]] = []

    def say(self, x: Whole, spread: float) -> Whole:
        """As `Voice`."""
        self.symbols.append(x.ravel().astype(np.int32))
        self.rows.append(np.full(x.size, _row(spread), np.uint16))
        return x


class Listener:
    """Reads; what it is given is for its shape only."""

    def __init__(self, read: Read) -> None:
        self.read = read

    def say(self, x: Whole, spread: float) -> Whole:
        """As `Voice`."""
        found = self.read(np.full(x.size, _row(spread), np.uint16))
        return found.astype(np.int64).reshape(x.shape)


def say_shifts(voice: Voice, spectrum: Spectrum) -> None:
    """What opens a chunk; fills the spectrum of a listener."""
    said = voice.say(spectrum.shifts, SPREAD["shift"])
    spectrum.shifts[:] = _within(said, -SHIFT_UNIT, SHIFT_UNIT)


def say_frame(voice: Voice, spectrum: Spectrum, number: int, bands: int) -> None:
    """What opens a frame; a listener's spectrum gets it, and the bases that come with it."""
    told = spectrum.frames[number] if number < len(spectrum.frames) else None
    means = np.zeros(bands, np.int64) if told is None else told.means
    bits = _say_one(
        voice, int(np.abs(means).max()).bit_length(), "mean bits", "mean bits", 0, MOST_MEAN_BITS
    )
    means = voice.say(means, 2.0**bits / 2)
    most = min(number, spectrum.most_references)
    references = _say_references(voice, () if told is None else told.references, number, most)
    choices, energies = zip(
        *(_say_octave(voice, spectrum, told, octave, bands, number) for octave in range(OCTAVES)),
        strict=True,
    )
    if told is None:
        spectrum.frames.append(FrameSpectrum(means, references, choices, energies))


def _say_references(voice: Voice, told: tuple[int, ...], number: int, most: int) -> tuple[int, ...]:
    """How many earlier frames are looked at, and how far back each stands."""
    if not most:
        return ()
    count = _within(voice.say(np.array([most - len(told)]), SPREAD["choice"]), 0, most)[0]
    back = np.resize(np.array([number - 1 - n for n in told], np.int64), most - int(count))
    said = _within(voice.say(back, SPREAD["back"]), 0, number - 1)
    return tuple(number - 1 - int(n) for n in said)


def _say_octave(
    voice: Voice,
    spectrum: Spectrum,
    told: FrameSpectrum | None,
    octave: int,
    bands: int,
    number: int,
) -> tuple[int, Whole]:
    """Choice of the basis, the basis if it is new, and energies."""
    bases = spectrum.bases[octave]
    known = len({f.choices[octave] for f in spectrum.frames[:number]})
    choice = known if told is None else told.choices[octave]
    back = int(_within(voice.say(np.array([known - choice]), SPREAD["choice"]), 0, known)[0])
    choice = known - back
    kept = 0 if told is None else len(told.energies[octave])
    most = bands if not back else len(bases[choice].rows)
    kept = _say_one(voice, kept, "kept", "kept", 0, most)
    if not back:
        basis = None if told is None else bases[choice]
        made = _say_basis(voice, basis, kept, bands)
        if told is None:
            bases.append(made)
    energies = np.zeros(kept, np.int64) if told is None else told.energies[octave]
    steps = np.diff(energies, prepend=USUAL["energy"])
    first = voice.say(steps[:1], SPREAD["first energy"])
    said = np.concatenate([first, voice.say(steps[1:], SPREAD["energy"])])
    return choice, _within(np.cumsum(said) + USUAL["energy"], 1, MOST_ENERGY)


def _say_basis(voice: Voice, told: Basis | None, kept: int, bands: int) -> Basis:
    bits, rows = LEAST_BASIS_BITS, np.zeros((kept, bands), np.int64)
    if told is not None:
        bits, rows = told.bits, told.rows
    if kept:
        bits = _say_one(voice, bits, "basis bits", "basis bits", LEAST_BASIS_BITS, MOST_BASIS_BITS)
    rows = voice.say(rows, 2.0**bits / math.sqrt(bands))
    return Basis(bits, _within(rows, -(2**bits), 2**bits))


def _say_one(voice: Voice, value: int, usual: str, spread: str, low: int, high: int) -> int:
    said = voice.say(np.array([value - USUAL[usual]]), SPREAD[spread]) + USUAL[usual]
    return int(_within(said, low, high)[0])


def _row(spread: float) -> np.uint16:
    """The row of a mean of 0 and the scale nearest to a spread."""
    scale = min(max(round(10 * (math.log2(spread) + 4)), 0), SCALES - 1)
    row: np.uint16 = load().rows(np.array([scale]), np.array([1 << (FRACTION_BITS - 1)]))[0]
    return row


def _within(x: Whole, low: int, high: int) -> Whole:
    if x.size and not low <= x.min() <= x.max() <= high:
        raise CorruptStreamError(
            f"the spectrum of a chunk holds {x.min()} to {x.max()} where {low} to {high} is "
            "allowed; the stream was not written by xtec."
        )
    return x
