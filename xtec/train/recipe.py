"""What a training run is made of: everything that can be chosen, in one small TOML file.

Below: models.config, sentinel2, errors. Above: sampler, state, loop.
"""

import dataclasses
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtec.errors import InputError, XtecError
from xtec.models.config import BANDS_L1C, LappedConfig
from xtec.sentinel2 import recognise

Range = tuple[float, float]


@dataclass(frozen=True)
class Shares:
    """How often crops are made more varied than the cubes are: from 0, never, to 1, always."""

    made_up: float = 0.35
    """Series that never were, of days between two of a cube's dates (`series`)."""
    strangers: float = 0.3
    """Some dates of the sequence show something else altogether, as those under clouds do."""
    scattered: float = 0.3
    """Dates picked from a longer series instead of consecutive ones."""
    backwards: float = 0.4
    """Dates from the last to the first."""
    repeated: float = 0.04
    """One date takes the place of its neighbour."""
    identical: float = 0.2
    """Of the sequences with a date that comes again: those in which it looks the same again."""
    haze: float = 0.1
    """Gain, haze and noise that differ from frame to frame."""
    brightness: float = 0.5
    """One gain for the whole sequence."""
    bands: float = 0.1
    """Only some of the bands."""
    swath: float = 0.06
    """The edge of a swath: no data beyond a line."""
    missing: float = 0.03
    """A date of which there is nothing."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for name, share in vars(self).items():
            if not 0 <= share <= 1:
                raise InputError(f"the share {name} is {share}; it must lie from 0 to 1.")


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    name: str
    """Versioned name that the weights file will carry."""
    steps: int
    network: LappedConfig | None = None
    """Its shape; where it is left out, that of the weights it starts from."""
    pixels: int = 2**19
    """Of a batch: frames times rows times columns, about."""
    fine_from: float = 21.0
    """From this compression on a batch has half as many: so many more of its latents count."""
    learning_rate: float = 1.2e-3
    """At its highest."""
    warm_up: int = 100
    """Steps until then."""
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    """Of the average over the weights of all steps, which is what is kept."""
    compression: Range = (0.2, 12_500.0)
    """Every batch has one setting, drawn evenly on the logarithmic axis ..."""
    usual_compression: Range = (0.8, 560.0)
    """... or, mostly, from this narrower range."""
    usual: float = 0.6
    """How often that."""
    seed: int = 0
    shares: Shares = dataclasses.field(default_factory=Shares)

    def __post_init__(self) -> None:
        """Refuse what would only fail hours later."""
        numbers = (
            self.steps, self.pixels, self.fine_from, self.learning_rate, self.warm_up,
            *self.compression, *self.usual_compression,
        )  # fmt: skip
        if not (
            all(0 < number < math.inf for number in numbers)
            and 0 <= self.weight_decay < math.inf
            and self.seed >= 0
        ):
            raise InputError(f"the numbers of a recipe must be positive and finite: {self}.")
        whole = self.steps, self.pixels, self.warm_up, self.seed
        if not all(isinstance(number, int) for number in whole):
            raise InputError(f"steps, pixels, warm_up and seed are whole numbers, not {whole}.")
        if not 0 <= self.ema_decay < 1 or not 0 <= self.usual <= 1:
            raise InputError(
                f"ema_decay {self.ema_decay} and usual {self.usual} must lie from 0 to 1."
            )
        for low, high in (self.compression, self.usual_compression):
            if low > high:
                raise InputError(f"compression from {low} to {high}: the lower end comes first.")

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read a recipe file, or a recipe of the package by its name (``small``, ``finetune``).

        Raises
        ------
        InputError
            It cannot be read, or cannot be followed.
        """
        own = Path(__file__).with_name(f"{path.name}.toml")
        found = own if path == Path(path.name) and own.exists() and not path.exists() else path
        try:
            return cls.from_dict(tomllib.loads(found.read_text()))
        except (OSError, ValueError, TypeError, KeyError, XtecError) as error:
            at_hand = sorted(p.stem for p in own.parent.glob("*.toml"))
            raise InputError(
                f"{path} is neither a training recipe nor one of {at_hand}: {error}"
            ) from error

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Recipe":
        """Make a recipe of the fields of its file."""
        made: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
        }
        if "network" in made:
            made["network"] = _network(**made["network"])
        made["shares"] = Shares(**made.get("shares", {}))
        return cls(**made)


def _network(bands: Sequence[str] = BANDS_L1C, **sizes: Any) -> LappedConfig:
    """Give the shape that a recipe asks for."""
    if not all(isinstance(size, int) and size > 0 for size in sizes.values()):
        raise InputError(f"the numbers of a network are whole numbers above 0, not {sizes}.")
    return LappedConfig(recognise(bands), **sizes)
