"""How chunks are encoded: a small frozen value that stands in every store's metadata.

Below: models.registry, coding.stream, errors. Above: pixels, codec, the sockets. Imports no torch.
"""

import contextlib
import dataclasses
import operator
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from xtec.coding.stream import FORMAT_VERSION
from xtec.errors import BandError, InputError, NewerFormatError, WrongModelError
from xtec.models import registry
from xtec.models.weights import Card
from xtec.sentinel2 import NODATA

COMPRESSION = (0.01, 100_000.0)
"""Lambdas that make sense to ask for."""

OFFSET_LIMIT_DN = 0xFFFF
MOST_ERROR_DN = 0xFFFF

BOUNDED = 12.0
"""The compression that costs fewest bits with a bound of up to 259 DN: a step of 1,039 DN."""
STEP_OF_ONE_DN = 3600
STEPS_PER_BOUND = 2
"""Beyond, the step is so many times the residual's."""


@dataclass(frozen=True)
class Settings:
    """How chunks are encoded. Cheap, hashable, picklable; holds no model.

    Raises
    ------
    InputError, BandError, ModelError
        A setting that cannot work, before anything is coded.
    """

    model: str = "embedded"
    """Name of the model, or path of its weights file. Of "tt-s2l1c" and "tt-s2l2a" becomes the
    official checkpoint whose lambda is nearest to the compression."""
    compression: float = 20.0
    """Lambda: low is smaller, high is better. What the model does not reach is clipped; an official
    checkpoint knows one."""
    bands: tuple[str, ...] = ()
    """Canonical band names in the order of the chunk; empty: all of the model's, in its order."""
    nodata: int | None = NODATA
    """Value of pixels without data; None: every value is data."""
    offset: int = 0
    """Radiometric offset that the stored numbers carry, in DN."""
    max_error: int | tuple[int, ...] | None = None
    """Largest error of any valid pixel, in DN; for all bands, or for each. 0 is lossless; None
    promises nothing."""
    format_version: int = field(default=FORMAT_VERSION, kw_only=True)
    model_digest: str = field(default="", kw_only=True)
    """SHA-256 of the weights; found when empty. Filled in from a store's metadata."""
    found_for: tuple[str, str] = field(default=("", ""), kw_only=True, repr=False, compare=False)
    """Model and digest that belong together. By it `dataclasses.replace` with another model is
    noticed, whose digest is then found anew. Not to be given, not stored."""

    def __post_init__(self) -> None:
        """Check everything; write the model's versioned name and digest down."""
        self._check_numbers()
        self._find_model()
        if isinstance(self.max_error, tuple) and len(self.max_error) != len(self.bands):
            raise InputError(
                f"max_error has {len(self.max_error)} numbers, the chunk {len(self.bands)} bands: "
                f"{list(self.bands)}. Give one number, or one for each."
            )

    def _check_numbers(self) -> None:
        if self.nodata is not None:
            object.__setattr__(self, "nodata", _integer("nodata", self.nodata))
        object.__setattr__(self, "offset", _integer("offset", self.offset))
        if abs(self.offset) > OFFSET_LIMIT_DN:
            raise InputError(
                f"offset is {self.offset}; give digital numbers from {-OFFSET_LIMIT_DN} to "
                f"{OFFSET_LIMIT_DN}."
            )
        if self.max_error is not None:
            object.__setattr__(self, "max_error", _bound(self.max_error))
        low, high = COMPRESSION
        if not low <= self.compression <= high:
            raise InputError(
                f"compression is {self.compression}; give a number from {low:g} to {high:g}."
            )
        if self.format_version > FORMAT_VERSION:
            raise NewerFormatError(
                f"written in format version {self.format_version}, this xtec knows versions up to "
                f"{FORMAT_VERSION}; install a newer xarray-tec."
            )
        if self.model_digest and not re.fullmatch("[0-9a-f]{64}", self.model_digest):
            raise InputError(
                f"model_digest {self.model_digest!r} is no SHA-256 in hexadecimal; leave it "
                "out, and it is found."
            )

    def _find_model(self) -> None:
        model, digest = self.found_for
        if not self.model_digest or (self.model != model and self.model_digest == digest):
            self._take(registry.resolve(self.model, self.compression))
        elif digest:  # of `replace`
            with contextlib.suppress(WrongModelError):
                self._take(self.card)
        # else from a store: the model may be missing here, and is not needed to open it
        object.__setattr__(self, "found_for", (self.model, self.model_digest))

    def _take(self, card: Card) -> None:
        """Write down what the model makes of the settings."""
        bands = self.bands or card.config.bands
        strange = [b for b in bands if b not in card.config.bands]
        if strange or len(set(bands)) < len(bands):
            raise BandError(
                f"bands {list(bands)} cannot be coded with model {card.name}; it has each of "
                f"{list(card.config.bands)} once. Select these, or take another model."
            )
        for name, value in (
            ("model", card.name), ("model_digest", card.digest), ("bands", tuple(bands)),
            ("compression", self._trained_for(card)),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def _trained_for(self, card: Card) -> float:
        """The compression that the model really gives, where it knows but one."""
        found = card.compression
        if found is None or found == self.compression:
            return self.compression
        if self.compression != Settings.compression:  # the user named it
            warnings.warn(
                f"model {card.name} was trained for compression {found:g}, so it is not "
                f"{self.compression:g} that is used.",
                UserWarning,
                stacklevel=6,
            )
        return found

    @property
    def bounds(self) -> tuple[int, ...] | None:
        """`max_error` for each band."""
        if self.max_error is None or isinstance(self.max_error, tuple):
            return self.max_error
        return (self.max_error,) * len(self.bands)

    @property
    def lossless(self) -> bool:
        """Whether every pixel comes back as it was."""
        return self.bounds is not None and not any(self.bounds)

    @property
    def promise(self) -> str:
        """What every decoder gives back, in words."""
        bounds = self.bounds
        if bounds is None:
            return "no data is exact"
        if self.lossless:
            return "every pixel is exact"
        each = ", ".join(f"{band} {dn}" for band, dn in zip(self.bands, bounds, strict=True))
        within = f"{bounds[0]} DN" if len(set(bounds)) == 1 else f"its band's bound in DN ({each})"
        return f"every valid pixel is within {within} of the original; no data is exact"

    @property
    def positions(self) -> tuple[int, ...]:
        """Where each band of a chunk stands among the model's bands."""
        return tuple(self.card.config.bands.index(b) for b in self.bands)

    @property
    def level(self) -> int:
        """The compression in the model's own steps."""
        return self.card.config.level(self.compression)

    @property
    def card(self) -> Card:
        """The model's card; WrongModelError where it is not at hand."""
        return registry.find(bytes.fromhex(self.model_digest), self.model)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, as it stands in a store's metadata."""
        fields = dataclasses.asdict(self) | {"bands": list(self.bands)}
        if isinstance(self.max_error, tuple):
            fields["max_error"] = list(self.max_error)
        if self.max_error is None:
            del fields["max_error"]
        del fields["found_for"]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Settings":
        """Rebuild settings; unknown fields are an InputError."""
        if "found_for" in fields:
            raise InputError("not the settings of a codec: found_for is not stored.")
        try:
            bounds = fields.get("max_error")
            if isinstance(bounds, list):
                fields = fields | {"max_error": tuple(bounds)}
            return cls(**fields | {"bands": tuple(fields.get("bands", ()))})
        except TypeError as error:
            raise InputError(f"not the settings of a codec: {error}.") from error


def fitted(settings: Settings) -> Settings:
    """Take the compression that suits the bounds; without any, or with a model of one, as it is.

    For a user who names none.
    """
    if not settings.bounds or settings.card.compression is not None:
        return settings
    return dataclasses.replace(settings, compression=compression_for(settings.bounds))


def compression_for(bounds: Sequence[int]) -> float:
    """The compression that needs the fewest bits with bounds, where the user names none.

    Measured on validation cubes for bounds from 0 to 400 DN (benchmarks/RESULTS.md): the best step
    is some 1,000 DN almost whatever the bound, and half or twice that cost 1 to 5 % more.
    """
    step = STEPS_PER_BOUND * (2 * min(bounds) + 1)
    lowest, _ = COMPRESSION
    return max(lowest, min(BOUNDED, float(f"{(STEP_OF_ONE_DN / step) ** 2:.2g}")))


def _bound(value: Any) -> int | tuple[int, ...]:
    """A bound or several, in plain integers."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    bounds = tuple(_integer("max_error", each) for each in (value if several else (value,)))
    if not all(0 <= each <= MOST_ERROR_DN for each in bounds) or not bounds:
        raise InputError(f"max_error is {value!r}; give digital numbers from 0 to {MOST_ERROR_DN}.")
    return bounds if several else bounds[0]


def _integer(name: str, value: Any) -> int:
    """A plain integer, whichever library it comes from."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} is {value!r}; digital numbers are integers. Give one.") from error
