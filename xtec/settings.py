"""How chunks are encoded: a small frozen value that stands in every store's metadata.

Below: models.registry, coding.stream, errors. Above: pixels, codec, the sockets. Imports no torch.
"""

import contextlib
import dataclasses
import operator
import re
import warnings
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
    format_version: int = field(default=FORMAT_VERSION, kw_only=True)
    model_digest: str = field(default="", kw_only=True)
    """SHA-256 of the weights; found when empty. Filled in from a store's metadata."""
    found_for: tuple[str, str] = field(default=("", ""), kw_only=True, repr=False, compare=False)
    """Model and digest that belong together. By it `dataclasses.replace` with another model is
    noticed, whose digest is then found anew. Not to be given, not stored."""

    def __post_init__(self) -> None:
        """Check everything; write the model's versioned name and digest down."""
        if self.nodata is not None:
            object.__setattr__(self, "nodata", _integer("nodata", self.nodata))
        object.__setattr__(self, "offset", _integer("offset", self.offset))
        if abs(self.offset) > OFFSET_LIMIT_DN:
            raise InputError(
                f"offset is {self.offset}; give digital numbers from {-OFFSET_LIMIT_DN} to "
                f"{OFFSET_LIMIT_DN}."
            )
        low, high = COMPRESSION
        if not low <= self.compression <= high:
            raise InputError(f"compression is {self.compression}; give a number {low} to {high}.")
        if self.format_version > FORMAT_VERSION:
            raise NewerFormatError(
                f"written in format version {self.format_version}, this xtec knows versions up to "
                f"{FORMAT_VERSION}; install a newer xarray-tec."
            )
        model, digest = self.found_for
        if self.model_digest and not re.fullmatch("[0-9a-f]{64}", self.model_digest):
            raise InputError(f"model_digest {self.model_digest!r} is no SHA-256 in hexadecimal.")
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
                f"{list(card.config.bands)} once."
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
                stacklevel=5,
            )
        return found

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
        del fields["found_for"]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Settings":
        """Rebuild settings; unknown fields are an InputError."""
        if "found_for" in fields:
            raise InputError("not the settings of a codec: found_for is not stored.")
        try:
            return cls(**fields | {"bands": tuple(fields.get("bands", ()))})
        except TypeError as error:
            raise InputError(f"not the settings of a codec: {error}.") from error


def _integer(name: str, value: Any) -> int:
    """A plain integer, whichever library it comes from."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} is {value!r}; digital numbers are integers.") from error
