"""Weights files: safetensors that say what they are.

The header carries the model's name and its configuration; the digest of a model is the SHA-256 of
the file, so that ``sha256sum`` can check what a store asks for. Reading the header and hashing
need no torch. Nothing here unpickles.

Below: config, network, errors. Above: registry, train.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from xtec.errors import ModelError
from xtec.models import config as configs
from xtec.models.config import Config, LappedConfig

if TYPE_CHECKING:
    from xtec.models.context import ContextTransformer
    from xtec.models.network import TemporalTransformer

    Network = TemporalTransformer | ContextTransformer

HEADER_KEY = "xtec"
HEADER_LIMIT_BYTES = 1 << 24


@dataclass(frozen=True)
class Card:
    """What a weights file says about itself."""

    name: str
    """Versioned name; a name never changes its weights."""
    digest: str
    """SHA-256 of the file, hexadecimal."""
    path: Path
    config: Config


@lru_cache
def read_card(path: Path) -> Card:
    """Read a weights file's header and hash the file.

    Raises
    ------
    ModelError
        The file is not there, or is not a weights file of xtec.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}: {error}.") from error
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + min(length, HEADER_LIMIT_BYTES)])
        about = json.loads(header["__metadata__"][HEADER_KEY])
        config = configs.from_dict(about["config"])
        name = str(about["name"])
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is not a weights file written by xtec (safetensors with an {HEADER_KEY!r} "
            f"entry in its header): {error!r}."
        ) from error
    return Card(name, hashlib.sha256(data).hexdigest(), path, config)


def save(model: "Network", name: str, path: Path) -> None:
    """Write a network's weights in float16 with its name and configuration."""
    import torch
    from safetensors.torch import save as to_bytes

    tensors = {
        k: v.detach().to("cpu", torch.float16).contiguous() for k, v in model.state_dict().items()
    }
    about = json.dumps({"name": name, "config": configs.to_dict(model.config)}, sort_keys=True)
    # Not their save_file, whose files nobody else may read.
    path.write_bytes(to_bytes(tensors, metadata={HEADER_KEY: about}))


def load(card: Card) -> "Network":
    """Build the network of a weights file, in float32 on the CPU, for inference.

    Raises
    ------
    ModelError
        The file is gone or changed since its card was read, or its tensors are not the network's.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    from xtec.models.context import ContextTransformer
    from xtec.models.network import TemporalTransformer

    try:
        data = card.path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the weights {card.path}: {error}.") from error
    if hashlib.sha256(data).hexdigest() != card.digest:
        raise ModelError(f"{card.path} is no longer the file with digest {card.digest[:16]}.")
    # Without memory for weights of its own. Keep the network's initialisers to those that do not
    # import torch's compiler here, which takes a second (normal_ and arithmetic do).
    with torch.device("meta"):
        config = card.config
        model: Network = (
            ContextTransformer(config)
            if isinstance(config, LappedConfig)
            else TemporalTransformer(config)
        )
    try:
        tensors = {k: v.float() for k, v in parse(data).items()}
        model.load_state_dict(tensors, assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(f"the tensors of {card.path} do not fit its network: {error}") from error
    return model.eval().requires_grad_(requires_grad=False)
