"""What a network is made of: one frozen description for every size.

There are two families: TEC-TT, of which the official S2L1C network is a value, and the lapped one
of the embedded model. The description travels with the weights as JSON and is part of what the
model digest covers.

Below: errors, sentinel2. Above: network, prior, weights. Knows nothing of torch.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from xtec.errors import ModelError

LARGEST_STEP_DN = 2**14
"""Quantiser step of setting 0 of a lapped model."""
LEVELS_PER_HALVING = 64
"""Settings of a lapped model for each halving of the step."""
STEP_OF_ONE_DN = 3600
"""Step of compression 1."""

SIZES = {
    "d_model": (1, 1 << 14), "heads": (1, 1 << 10), "layers": (0, 256), "layers_separate": (0, 256),
    "layers_joint": (0, 256), "layers_decoder": (0, 256), "mlp_ratio": (1, 64), "lags": (1, 16),
    "prior_bits": (2, 16), "residual_blocks": (0, 64),
}  # fmt: skip
"""From and to; more than any network needs: a description may come from a forged store."""
BANDS, STAGES, CHANNELS = 256, 8, 1 << 14
"""At most, and at least one of each."""

WINDOW = 4
"""Side of the windows that are coded, in latents; the context window is twice as wide."""
CONTEXT_FRAMES = 2


@dataclass(frozen=True)
class ModelConfig:
    """Shape of one TEC-TT network. The defaults are the official S2L1C network."""

    bands: tuple[str, ...]
    """Canonical band names, in the order of the network's input channels."""
    mean: tuple[float, ...]
    """Per band, in digital numbers: what is subtracted before the network."""
    std: tuple[float, ...]
    """Per band, in digital numbers: what is divided by after that."""
    channels: tuple[int, ...] = (128, 160, 192, 192)
    """Width after each stage of the analysis; a stage halves y and x. The last is the latents'."""
    residual_blocks: int = 3
    """Residual units after each stage but the last."""
    attention: bool = True
    """Gated attention after the second and the last stage."""
    d_model: int = 768
    heads: int = 16
    layers_separate: int = 6
    """Blocks of the encoder that sees one frame."""
    layers_joint: int = 4
    """Blocks of the encoder that sees the context frames together."""
    layers_decoder: int = 5
    mlp_ratio: int = 4
    context_frames: int = 2
    """Frames that the joint encoder looks back on."""
    prior_bits: int = 8
    """Bits, sign included, that weights and activations are rounded to in the exact prior."""

    whole: ClassVar[bool] = True
    """The network takes all its bands; a chunk that lacks some gets their mean."""
    scale_map: ClassVar[str] = "reciprocal"
    """How the scale head's output s becomes sigma: s + 1 or 1 / (1 - s)."""
    levels: ClassVar[int] = 1
    """A checkpoint was trained for one compression, and knows no other."""
    exact_pixels: ClassVar[bool] = False
    """Pixels may differ by 1 DN from machine to machine: the synthesis is floating point."""

    def __post_init__(self) -> None:
        """Refuse descriptions that contradict themselves."""
        _check_reason(self)
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise ModelError(
                f"{len(self.bands)} bands, {len(self.mean)} means and {len(self.std)} standard "
                "deviations: the three must be equally many."
            )
        if min(self.std) <= 0:
            raise ModelError(f"standard deviations must be positive, got {min(self.std)}.")
        if self.d_model % self.heads:
            raise ModelError(f"d_model {self.d_model} is not a multiple of {self.heads} heads.")
        if self.context_frames != CONTEXT_FRAMES:
            raise ModelError(
                f"a context of {self.context_frames} frames; this xtec knows {CONTEXT_FRAMES}."
            )

    @property
    def latent_channels(self) -> int:
        """Number of latent channels."""
        return self.channels[-1]

    @property
    def stride(self) -> int:
        """Pixels per latent along y and along x."""
        return int(2 ** len(self.channels))

    @property
    def tile(self) -> int:
        """Pixels per window along y and along x: what images are padded to a multiple of."""
        return WINDOW * self.stride

    def level(self, _compression: float) -> int:
        """Setting for any compression: the only one."""
        return 0


@dataclass(frozen=True)
class LappedConfig:
    """Shape of a network of the embedded family: adaptive lapped transform, transformer prior."""

    bands: tuple[str, ...]
    """Canonical names of the bands it was made for; a chunk has any of them."""
    d_model: int = 192
    heads: int = 6
    layers: int = 3
    mlp_ratio: int = 3
    lags: int = 3
    """Frames that a frame looks back on."""
    prior_bits: int = 8
    """Bits, sign included, that weights and activations are rounded to in the exact prior."""

    whole: ClassVar[bool] = False
    scale_map: ClassVar[str] = "log2"
    """A scale s stands for sigma = 2 ** s."""
    tile: ClassVar[int] = 64
    """Pixels that images are padded to a multiple of."""
    stride: ClassVar[int] = 16
    levels: ClassVar[int] = 10 * LEVELS_PER_HALVING + 1
    """Number of compression settings."""
    exact_pixels: ClassVar[bool] = True
    """Pixels are the same on every machine."""

    def __post_init__(self) -> None:
        """Refuse descriptions that contradict themselves."""
        _check_reason(self)
        if self.d_model % self.heads:
            raise ModelError(f"d_model {self.d_model} is not a multiple of {self.heads} heads.")

    @property
    def mean(self) -> tuple[float, ...]:
        """The chunk's own mean is subtracted, see `spectrum`."""
        return (0.0,) * len(self.bands)

    @property
    def std(self) -> tuple[float, ...]:
        """It is coded in digital numbers."""
        return (1.0,) * len(self.bands)

    @property
    def components(self) -> int:
        """The most bands of a chunk."""
        return len(self.bands)

    def level(self, compression: float) -> int:
        """Nearest setting to lambda ``compression`` (clipped to the range)."""
        halvings = math.log2(LARGEST_STEP_DN / STEP_OF_ONE_DN) + math.log2(compression) / 2
        return min(max(round(halvings * LEVELS_PER_HALVING), 0), self.levels - 1)

    def compression(self, level: int) -> float:
        """Lambda that setting ``level`` stands for."""
        return float((STEP_OF_ONE_DN / LARGEST_STEP_DN * 2 ** (level / LEVELS_PER_HALVING)) ** 2)


Config = ModelConfig | LappedConfig
KINDS: dict[str, type[Config]] = {"tec-tt": ModelConfig, "lapped": LappedConfig}


def to_dict(config: Config) -> dict[str, Any]:
    """JSON-able description."""
    (kind,) = (name for name, made in KINDS.items() if isinstance(config, made))
    return {"kind": kind} | dataclasses.asdict(config)


def from_dict(fields: dict[str, Any]) -> Config:
    """Rebuild a description; an unknown kind or field, or a missing field, is a ModelError."""
    tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    try:
        return KINDS[tuples.pop("kind", "tec-tt")](**tuples)
    except (TypeError, KeyError) as error:
        raise ModelError(f"not a description of this xtec's networks: {error!r}.") from error


def _check_reason(config: Config) -> None:
    """Refuse what no network has: building it might take for ever."""
    for name, (least, most) in SIZES.items():
        _require_integer(name, getattr(config, name, least), least, most)
    _require_integer("the number of bands", len(config.bands), 1, BANDS)
    if not all(isinstance(band, str) for band in config.bands):
        raise ModelError(f"bands of a network are {config.bands!r}; names are allowed.")
    if isinstance(config, ModelConfig):
        _require_integer("the number of stages", len(config.channels), 1, STAGES)
        for width in config.channels:
            _require_integer("channels", width, 1, CHANNELS)
        number: Any
        for number in (*config.mean, *config.std):
            if not isinstance(number, int | float) or not math.isfinite(number):
                raise ModelError(f"a mean or deviation of a band is {number!r}, not a number.")


def _require_integer(name: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ModelError(f"{name} of a network is {value!r}; {least} to {most} is allowed.")


BANDS_L1C = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip
MEAN_L1C = (
    1607.345, 1393.068, 1320.225, 1373.963, 1562.536, 2110.071, 2392.832, 2321.154, 2583.77,
    838.712, 21.753, 2205.112, 1545.798,
)  # fmt: skip
STD_L1C = (
    786.523, 849.702, 875.318, 1143.578, 1126.248, 1161.98, 1273.505, 1246.79, 1342.755,
    576.795, 45.626, 1340.347, 1145.036,
)  # fmt: skip

BANDS_L2A = tuple(band for band in BANDS_L1C if band != "B10")
MEAN_L2A = (
    793.243, 924.863, 1184.553, 1340.936, 1671.402, 2240.082, 2468.412, 2563.243, 2627.704,
    2711.071, 2416.714, 1849.625,
)  # fmt: skip
STD_L2A = (
    1160.144, 1201.092, 1219.943, 1397.225, 1400.035, 1373.136, 1429.170, 1485.025, 1447.836,
    1652.703, 1471.002, 1365.307,
)  # fmt: skip

S2L1C = ModelConfig(bands=BANDS_L1C, mean=MEAN_L1C, std=STD_L1C)
"""The official L1C network: 225 M parameters.

Statistics of SSL4EO-S12 v1.1, in digital numbers without a radiometric offset. Source: README of
terracodec 0.3.1; so below.
"""

S2L2A = ModelConfig(bands=BANDS_L2A, mean=MEAN_L2A, std=STD_L2A)
"""The official L2A network: the same without B10, which L2A products lack."""

SMALL = LappedConfig(bands=BANDS_L1C)
"""The embedded network: 2.5 M parameters, made for CPUs."""
