"""Which models there are, by name, by file and by digest; imports no torch.

A name is versioned and never changes its weights; ``embedded`` stands for the newest network that
ships in the package. Other weights files are known once they were used in this process, or when
they lie in a folder of the environment variable ``XTEC_MODEL_PATH``.

Below: weights, errors. Above: engine, codec.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from xtec.errors import ModelError, WrongModelError
from xtec.models.weights import Card, read_card

EMBEDDED = "xtec-small-2"
SEARCH_PATH = "XTEC_MODEL_PATH"

_used: dict[str, Card] = {}
"""Cards by digest: two files may carry one name, say of two runs of a training recipe."""


def resolve(model: str) -> Card:
    """Find a model by name or by the path of its weights file.

    Parameters
    ----------
    model : str
        ``"embedded"``, a versioned name, or a path that ends in ``.safetensors``.

    Raises
    ------
    ModelError
        There is no such model; the message lists those at hand.
    """
    if model.endswith(".safetensors"):
        card = read_card(Path(model))
        _used[card.digest] = card
        return card
    name = EMBEDDED if model == "embedded" else model
    cards = known()
    if name not in cards:
        raise ModelError(
            f"there is no model {name!r}; at hand are {sorted([*cards, 'embedded'])}. Give one of "
            f"these, the path of a .safetensors file, or put its folder into {SEARCH_PATH}."
        )
    return cards[name]


def find(prefix: bytes, hint: str | None = None) -> Card:
    """Find the model whose digest begins with ``prefix``: the one a stream was written with.

    Raises
    ------
    WrongModelError
        No model at hand has that digest; the message says which it is and how to get it.
    """
    for card in _cards():
        if bytes.fromhex(card.digest).startswith(prefix):
            return card
    named = f" (called {hint!r} where it was written)" if hint else ""
    raise WrongModelError(
        f"this was written with the model of digest {prefix.hex()}...{named}, which is not among "
        f"{sorted(known())}. Install the xarray-tec version it came with, or put its .safetensors "
        f"file into a folder named in the environment variable {SEARCH_PATH}."
    )


def known() -> dict[str, Card]:
    """Models at hand, by name."""
    return {card.name: card for card in _cards()}


def _cards() -> list[Card]:
    """Every model at hand; of one name the last is meant."""
    shipped = sorted(Path(__file__).parent.glob("*.safetensors"))
    return [*_used.values(), *_searched(), *map(read_card, shipped)]


def _searched() -> Iterator[Card]:
    """Models in the folders of the search path; what else lies there is none of our business."""
    for folder in filter(None, os.environ.get(SEARCH_PATH, "").split(os.pathsep)):
        for path in sorted(Path(folder).glob("*.safetensors")):
            with contextlib.suppress(ModelError):
                yield read_card(path)
