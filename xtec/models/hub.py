"""Official checkpoints from the Hugging Face hub, and from its cache on this machine.

Through huggingface_hub, so with its cache, its progress bar and its environment variables
(``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT``). It is an optional extra. It pulls no torch.

Below: official, errors. Above: registry.
"""

import os
import re
from pathlib import Path

from xtec.errors import ModelError
from xtec.models.official import Checkpoint

ALLOWED = "XTEC_HUB"
"""Environment variable: 1 lets a model be fetched when something is to be decoded."""
EXTRA = "pip install 'xarray-tec[hub]'"


def may_fetch() -> bool:
    """Whether the user allowed decoding to fetch models."""
    return os.environ.get(ALLOWED) == "1"


def cached(one: Checkpoint) -> list[Path]:
    """Every version of a checkpoint in the hub's cache, the one it calls "main" first."""
    try:
        from huggingface_hub import constants, try_to_load_from_cache
    except ImportError:
        return []
    folder = Path(constants.HF_HUB_CACHE) / f"models--{one.repository.replace('/', '--')}"
    versions = [path for path in folder.glob(f"snapshots/*/{one.file}") if path.is_file()]
    main = try_to_load_from_cache(one.repository, one.file)
    return sorted(versions, key=lambda path: (str(path) != main, path))


def digest_hint(path: Path) -> str | None:
    """What the cache says the SHA-256 of a file is: the name of the blob that its link points to.

    It saves hashing files that are out of the question. It is no proof.
    """
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def fetch(one: Checkpoint) -> Path:
    """Download a checkpoint into the hub's cache: 0.9 GB; what is there already stays.

    Raises
    ------
    ModelError
        huggingface_hub is not installed, or the file could not be had; the message says which
        file of which repository, and where to put it.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ModelError(
            f"the model {one.name} comes from the Hugging Face hub, which needs huggingface_hub: "
            f"{EXTRA}. {by_hand(one)}"
        ) from error
    try:
        return Path(hf_hub_download(one.repository, one.file))
    except Exception as error:  # requests' or httpx's, by version, and the hub's own
        raise ModelError(
            f"the model {one.name} could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}: {error}). {by_hand(one)}"
        ) from error


def by_hand(one: Checkpoint) -> str:
    """How to get a checkpoint without this file's help."""
    return (
        f"By hand: take {one.file} from https://huggingface.co/{one.repository} and put it into a "
        "folder named in the environment variable XTEC_MODEL_PATH, or give its path as model=."
    )
