"""The other side of `vs_terracodec`: the reference as its card uses it.

It needs the interpreter of an environment with terracodec (README.md says how to make one) and
nothing of xtec.

Below: side, terracodec. Above: vs_terracodec starts it as a process.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from side import work


class TerraCodec:
    """TEC-TT of terracodec with the weights of a file."""

    def __init__(self, checkpoint: str, device: str) -> None:
        from importlib.metadata import version

        import terracodec
        import torch

        self.versions = {
            name: version(name) for name in ("terracodec", "compressai", "torch", "numpy")
        }
        self._model = terracodec.terracodec_v1_tt_s2l1c(pretrained=False)
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self._model.load_state_dict(state, strict=True)
        del state
        self._model.to(device)
        self._model.setup_model_for_compression()  # builds the coder's tables
        self._tensor = lambda pixels: torch.from_numpy(pixels).to(device)
        self._latents = np.zeros(0, np.int32)
        self.analysis = self._model.model.transform.analysis_transform
        self.analysis.register_forward_hook(self._note)

    def warm_up(self, pixels: NDArray[np.float32]) -> None:
        """Run the network once; coding a frame would take minutes."""
        self._model(self._tensor(pixels))

    def encode(self, pixels: NDArray[np.float32]) -> dict[str, Any]:
        """Call `compress`."""
        return self._model.compress(self._tensor(pixels))

    def decode(self, coded: dict[str, Any]) -> NDArray[np.float32]:
        """Call `decompress`, with the dict itself."""
        return self._model.decompress(coded).squeeze(0).cpu().numpy()

    def sizes(self, coded: dict[str, Any]) -> list[int]:
        """Bytes of each frame's strings."""
        return [sum(len(s) for token in frame for s in token) for frame in coded["strings"]]

    def seen(self) -> dict[str, NDArray[Any]]:
        """Latents of the last `encode`; half to even, as both sides round."""
        return {"latents": np.rint(self._latents).astype(np.int32)}

    def _note(self, _module: Any, _inputs: Any, latents: Any) -> None:
        self._latents = latents.flatten(0, -4).cpu().numpy()


if __name__ == "__main__":
    work(TerraCodec)
