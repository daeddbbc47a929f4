"""Our side of `vs_terracodec`: pixels to the entropy code and back, without the container.

Below: side, xtec. Above: vs_terracodec starts it as a process.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from side import work

if TYPE_CHECKING:
    from xtec.models.network import TemporalTransformer
    from xtec.models.temporal_model import TemporalModel


class Payload(NamedTuple):
    """A coded chunk."""

    code: bytes
    ends: list[int]
    """Bytes that each frame and those before it take."""
    crcs: tuple[int, ...]
    shape: tuple[int, ...]


def model(network: "TemporalTransformer", device: str) -> "TemporalModel":
    """Prepare a network for coding on a device."""
    from xtec.models.known_answer import select
    from xtec.models.temporal_model import TemporalModel

    return TemporalModel(network, select(device), device)


class Xtec:
    """A TEC-TT network of ours; the checksum of the latents is part of the work."""

    def __init__(self, checkpoint: str, device: str = "cpu") -> None:
        from importlib.metadata import version

        from xtec.engine import undisturbed
        from xtec.models import registry, weights
        from xtec.models.network import TemporalTransformer

        self.versions = {name: version(name) for name in ("torch", "numba", "numpy")}
        network = weights.load(registry.resolve(checkpoint))
        if not isinstance(network, TemporalTransformer):
            raise TypeError(f"{checkpoint} is no TEC-TT network.")
        self.analysis = network.transform.analysis_transform
        made = undisturbed(model)(network, device)
        self._encode, self._decode = undisturbed(made.encode), undisturbed(made.decode)
        self._undisturbed = undisturbed
        self._seen: dict[str, NDArray[Any]] = {}

    def warm_up(self, pixels: NDArray[np.float32]) -> None:
        """Compile the coder, prepare the first frame's context, touch the memory."""
        self.decode(self.encode(pixels))

    def encode(self, pixels: NDArray[np.float32]) -> Payload:
        """All frames in one pass."""
        from xtec.coding import rans, stream, tables

        (coded,) = self._encode([pixels], 0)
        self._seen = {"latents": np.stack(coded.latents), "rows": coded.rows}
        code, ends = rans.encode(coded.symbols, coded.rows, tables.load(), coded.ends)
        return Payload(code, ends, stream.frame_crcs(coded.latents), pixels.shape)

    def decode(self, coded: Payload) -> NDArray[np.float32]:
        """Token by token."""
        from xtec.coding import rans, stream, tables

        decoder = rans.Decoder(coded.code, tables.load())
        (decoded,) = self._decode([decoder.decode], 0, coded.shape)
        decoder.finish()
        if stream.frame_crcs(decoded.latents) != coded.crcs:
            raise RuntimeError("the latents came back wrong")
        return self._undisturbed(decoded.pixels)()

    def sizes(self, coded: Payload) -> list[int]:
        """Bytes of each frame."""
        return np.diff(coded.ends, prepend=0).tolist()

    def seen(self) -> dict[str, NDArray[Any]]:
        """Latents and table rows of the last `encode`."""
        return self._seen


if __name__ == "__main__":
    work(Xtec)
