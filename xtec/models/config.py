"""What a Temporal Transformer is made of: one frozen description for every size.

The official S2L1C network and the small embedded one are two values of this class. The
description travels with the weights as JSON and is part of what the model digest covers.

Below: errors, sentinel2. Above: network, prior, weights. Knows nothing of torch.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from xtec.errors import ModelError

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
    latent_input: Literal["linear", "log"] = "linear"
    """How latents enter the transformer: divided by 35, or sign(q) log2(1 + |q|)."""
    scale_map: Literal["reciprocal", "log2"] = "reciprocal"
    """How the scale head's output s becomes sigma: s + 1 or 1 / (1 - s); or 2 ** s."""
    linear_path: bool = False
    """A linear patch transform beside the convolutions, tied between analysis and synthesis."""
    references: bool = False
    """Learned gates that add earlier latents at the same place to the predicted mean."""
    refine: Literal["conv", "linear"] = "conv"
    """How the decoder's features correct the quantised latents before synthesis."""
    prior_bits: int = 7
    """Bits, sign included, that weights and activations are rounded to in the exact prior."""
    rate_knots: int = 0
    """Points of the learned gains for a continuous compression; 0: one rate per checkpoint."""
    rate_max: float = 400.0
    """Compression (lambda) at the last knot; the first knot is 1."""

    def __post_init__(self) -> None:
        """Refuse descriptions that contradict themselves."""
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

    @property
    def levels(self) -> int:
        """Number of compression settings the model knows."""
        return (self.rate_knots - 1) * LEVELS_PER_KNOT + 1 if self.rate_knots else 1

    def level(self, compression: float) -> int:
        """Nearest compression setting to lambda ``compression`` (clipped to the range)."""
        if self.levels == 1:
            return 0
        position = math.log(max(compression, 1.0)) / math.log(self.rate_max)
        return min(round(position * (self.levels - 1)), self.levels - 1)

    def compression(self, level: int) -> float:
        """Lambda that setting ``level`` stands for."""
        return float(self.rate_max ** (level / max(self.levels - 1, 1)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able description."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ModelConfig":
        """Rebuild a description; an unknown or missing field is a ModelError."""
        try:
            tuples: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
            }
            return cls(**tuples)
        except TypeError as error:
            raise ModelError(f"not a description of this xtec's networks: {error}.") from error


LEVELS_PER_KNOT = 16
"""Settings between two rate knots; between knots gains and embeddings are interpolated."""

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

S2L1C = ModelConfig(bands=BANDS_L1C, mean=MEAN_L1C, std=STD_L1C)
"""The official L1C network: 225 M parameters; SSL4EO-S12 v1.1 statistics."""

SMALL = ModelConfig(
    bands=BANDS_L1C,
    mean=MEAN_L1C,
    # The geometric mean of each band's deviation and 1000 DN: errors in a quiet band (B10) weigh
    # more than in digital numbers, less than after full standardisation.
    std=tuple(round(math.sqrt(1000 * s), 3) for s in STD_L1C),
    channels=(24, 32, 48, 512),
    residual_blocks=1,
    attention=False,
    d_model=128,
    heads=4,
    layers_separate=1,
    layers_joint=1,
    layers_decoder=2,
    latent_input="log",
    scale_map="log2",
    linear_path=True,
    references=True,
    refine="linear",
    rate_knots=9,
)
"""The embedded network: about 5 M parameters, made for CPUs."""
