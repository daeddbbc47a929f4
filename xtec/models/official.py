"""TerraCodec's published TEC-TT checkpoints: their names, files and lambdas.

Source: terracodec 0.3.1 (pretrained models, choice of the nearest lambda).

Below: nothing. Above: weights, registry, terracodec. Knows nothing of torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Checkpoint:
    """One published file: a network trained for one lambda."""

    series: str
    """Name of its series: "tt-s2l1c"."""
    repository: str
    """Where it lies on the Hugging Face hub."""
    file: str
    compression: float
    """The lambda it was trained for."""

    @property
    def name(self) -> str:
        """Versioned name: "tt-s2l1c-lambda-20"."""
        return f"{self.series}-lambda-{self.compression:g}"


def _series(product: str, lambdas: tuple[float, ...]) -> tuple[Checkpoint, ...]:
    return tuple(
        Checkpoint(
            series=f"tt-{product.lower()}",
            repository=f"embed2scale/TerraCodec-1.0-TT-{product}",
            file=f"TerraCodec_v1_TT_{product}_lambda-{value:g}.pt",
            compression=value,
        )
        for value in lambdas
    )


CHECKPOINTS = (
    *_series("S2L1C", (5, 20, 100)),
    *_series("S2L2A", (0.4, 1, 5, 20, 100, 200, 700)),
)
BY_NAME = {one.name: one for one in CHECKPOINTS}
BY_FILE = {one.file: one for one in CHECKPOINTS}
SERIES = {
    name: tuple(one for one in CHECKPOINTS if one.series == name)
    for name in ("tt-s2l1c", "tt-s2l2a")
}


def nearest(series: str, compression: float) -> Checkpoint:
    """The checkpoint of a series whose lambda differs least; of two, the lower."""
    return min(SERIES[series], key=lambda one: abs(one.compression - compression))
