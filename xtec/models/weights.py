"""Weights files: safetensors that say what they are, and TerraCodec's checkpoints.

The header of ours carries the model's name and its configuration; `checkpoint` reads the others.
The digest of a model is the SHA-256 of the file, so that ``sha256sum`` can check what a store asks
for. Reading names, configurations and digests needs no torch.

Below: checkpoint, official, config, network, errors. Above: registry, train.
"""

import hashlib
import json
import struct
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from xtec.errors import ModelError
from xtec.models import checkpoint, official
from xtec.models import config as configs
from xtec.models.config import Config, LappedConfig

if TYPE_CHECKING:
    from xtec.models.context import ContextTransformer
    from xtec.models.network import TemporalTransformer

    Network = TemporalTransformer | ContextTransformer

HEADER_KEY = "xtec"
HEADER_LIMIT_BYTES = 1 << 24
SUFFIXES = (".safetensors", checkpoint.SUFFIX)


@dataclass(frozen=True)
class Card:
    """What a weights file says about itself."""

    name: str
    """Versioned name; a name never changes its weights."""
    digest: str
    """SHA-256 of the file, hexadecimal."""
    path: Path
    config: Config
    compression: float | None = None
    """The one lambda that an official checkpoint was trained for."""


def read_card(path: Path) -> Card:
    """Read what a weights file says of itself, and hash it.

    Raises
    ------
    ModelError
        The file is not there, or is not a weights file of xtec or TerraCodec.
    """
    name, config = _describe(path, *_version(path))
    known = official.BY_NAME.get(name)
    return Card(name, digest(path), path, config, known.compression if known else None)


def read_name(path: Path) -> str:
    """The name on the card of a weights file, without hashing the file; raises as `read_card`."""
    return _describe(path, *_version(path))[0]


def digest(path: Path) -> str:
    """SHA-256 of a weights file, hexadecimal; of a file that did not change, computed once.

    Raises
    ------
    ModelError
        The file cannot be read.
    """
    with _hashing:  # many threads ask for one file of a gigabyte at once
        return _digest(path, *_version(path))


_hashing = threading.Lock()


def _version(path: Path) -> tuple[int, int]:
    """What tells a file from another that takes its place: size and time, in nanoseconds."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_size, found.st_mtime_ns


@lru_cache
def _digest(path: Path, _size: int, _time_ns: int) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


@lru_cache
def _describe(path: Path, _size: int, _time_ns: int) -> tuple[str, Config]:
    """Name and configuration."""
    if path.suffix == checkpoint.SUFFIX:
        own_name, found = checkpoint.describe(path)
        known = official.BY_FILE.get(path.name)
        return own_name or (known.name if known else path.stem), found
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, HEADER_LIMIT_BYTES)))
        about = json.loads(header["__metadata__"][HEADER_KEY])
        return str(about["name"]), configs.from_dict(about["config"])
    except OSError as error:
        raise _unreadable(path, error) from error
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is not a weights file written by xtec (safetensors with an {HEADER_KEY!r} "
            f"entry in its header): {error!r}. Give one of xtec train, or TerraCodec's .pt."
        ) from error


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(
        f"cannot read the weights {path}: {error}. Give the path of a .safetensors or .pt file, or "
        "the name of a model."
    )


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
    if card.path.suffix == checkpoint.SUFFIX:
        if digest(card.path) != card.digest:
            raise changed(card)
        assert not isinstance(card.config, LappedConfig)  # noqa: S101 - a checkpoint's never is
        network: Network = checkpoint.load(card.path, card.config)
    else:
        network = _load_safetensors(card)
    return network.eval().requires_grad_(requires_grad=False)


def _load_safetensors(card: Card) -> "Network":
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    from xtec.models.context import ContextTransformer
    from xtec.models.network import TemporalTransformer

    try:
        data = card.path.read_bytes()
    except OSError as error:
        raise _unreadable(card.path, error) from error
    if hashlib.sha256(data).hexdigest() != card.digest:
        raise changed(card)
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
    return model


def changed(card: Card) -> ModelError:
    """What is raised where a file is no longer the one that its card describes."""
    return ModelError(f"{card.path} is no longer the file with digest {card.digest[:16]}.")
