"""What a user aims at instead of naming a compression, and what was reached.

Below: errors. Above: calibrate, prepare, report.
"""

import json
import math
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Self

from xtec.errors import InputError

ATTRIBUTE = "tec_calibration"
"""Of a compressed variable: its Calibration as JSON. Text, since netCDF holds no mappings."""


@dataclass(frozen=True)
class Kind:
    """A figure that can be aimed at, on a scale on which it grows evenly with log(compression)."""

    units: str
    example: float
    per_decade: float
    """Typical growth on that scale from one compression to ten times as much."""
    tolerance: float
    """A miss on that scale that is near enough."""
    logarithmic: bool = False

    def scaled(self, figure: float) -> float:
        """The figure on that scale."""
        return math.log10(figure) if self.logarithmic else figure


KINDS = {
    "target_psnr": Kind("dB", 40.0, 4.0, 0.1),
    "target_bpppb": Kind("bits per pixel per band", 0.2, 0.5, math.log10(1.02), logarithmic=True),
}
"""By the names that users give them. Near enough are 0.1 dB and 2 %."""


@dataclass(frozen=True)
class Target:
    """A figure and its value."""

    name: str
    """A key of KINDS."""
    value: float

    @property
    def kind(self) -> Kind:
        """What is known of the figure."""
        return KINDS[self.name]

    def __str__(self) -> str:
        """As it was given: "target_psnr=40"."""
        return f"{self.name}={self.value:g}"


def target_of(compression: Any, **targets: Any) -> Target | None:
    """The one target that was given; None where none was.

    Parameters
    ----------
    compression : object
        None where none was given.
    **targets
        ``target_psnr`` and ``target_bpppb``, None where not given.

    Raises
    ------
    InputError
        More than one of all these was given, or no positive number.
    """
    given = {name: value for name, value in targets.items() if value is not None}
    said = given if compression is None else {"compression": compression} | given
    if len(said) > 1 and given:
        raise InputError(
            f"{' and '.join(f'{k}={v!r}' for k, v in said.items())} were given, but each of "
            f"compression, {' and '.join(KINDS)} decides alone; give one of them."
        )
    for name, value in given.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not 0 < float(value) < math.inf:
            kind = KINDS[name]
            raise InputError(
                f"{name} is {value!r}; give a positive number of {kind.units}, for example "
                f"{name}={kind.example:g}."
            )
        return Target(name, float(value))
    return None


@dataclass(frozen=True)
class Calibration:
    """What came of a target, on a sample of the cube's chunks."""

    target: str
    """"target_psnr" or "target_bpppb"."""
    value: float
    """What was aimed at."""
    compression: float
    """What was chosen."""
    psnr: float
    """Reached on the sample, all bands pooled; in dB, peak 10,000 DN."""
    bpppb: float
    """Reached on the sample: bits per pixel per band, all bytes of its streams."""
    sampled_chunks: int
    chunks: int
    """How many chunks the cube has."""

    def __str__(self) -> str:
        """In one line."""
        return (
            f"{self.target}={self.value:g}; reached {self.psnr:.2f} dB and {self.bpppb:.3g} bits "
            f"per pixel per band on {self.sampled_chunks} of {self.chunks} chunks"
        )

    def to_attribute(self) -> str:
        """As it stands in a store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_attribute(cls, text: Any, compression: float) -> Self | None:
        """Read what stands in a store; None where that is not about this compression."""
        try:
            found = cls(**json.loads(text))
        except (TypeError, ValueError):
            return None
        known = found.target in KINDS and found.compression == compression
        numbers = (found.value, found.psnr, found.bpppb, found.sampled_chunks, found.chunks)
        return found if known and all(isinstance(n, int | float) for n in numbers) else None
