"""Which models there are, by name, by file and by digest; imports no torch.

A name is versioned and never changes its weights; ``embedded`` stands for the newest network that
ships in the package, ``tt-s2l1c`` and ``tt-s2l2a`` for the official TerraCodec checkpoint that was
trained for the lambda nearest to the one asked for. Weights files are known once they were used in
this process, or when they lie in a folder of the environment variable ``XTEC_MODEL_PATH``; official
ones also when they lie in the cache of the Hugging Face hub. A store may carry its model: such a
file is known by its digest alone, as what a store calls it is no proof. Files are large: none is
hashed that is not likely to be meant.

Below: hub, official, weights, errors. Above: engine, codec.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from xtec.errors import ModelError, WrongModelError
from xtec.models import hub, official, weights
from xtec.models.official import Checkpoint
from xtec.models.weights import SUFFIXES, Card, read_card, read_name

EMBEDDED = "xtec-small-2"
SEARCH_PATH = "XTEC_MODEL_PATH"
INSTALL = (
    "Install the xarray-tec version it came with, or put its weights file into a folder named in "
    f"the environment variable {SEARCH_PATH}. Where the store carries it (in its group "
    "tec_models), xtec.register_store(store) makes it known."
)

PACKAGE = Path(__file__).parent
"""Where the package's own weights lie."""

Shelf = Callable[[str], Path | None]
"""Where a store keeps its models: takes how a digest begins, gives a weights file, or None."""

_used: dict[str, Card] = {}
"""Cards by digest: two files may carry one name, say of two runs of a training recipe."""

_lent: dict[str, Card] = {}
"""Cards of files from stores, by digest."""

_shelves: list[Shelf] = []
"""Those of stores that were opened in this process, or sent to it, the latest first."""
SHELVES = 64
"""So many are remembered: a missing model is looked for in each."""


def resolve(model: str, compression: float | None = None) -> Card:
    """Find a model by name or by the path of its weights file; fetch it if it is an official one.

    Parameters
    ----------
    model : str
        ``"embedded"``, a versioned name, ``"tt-s2l1c"``, ``"tt-s2l2a"``, or a path that ends in
        ``.safetensors`` or ``.pt``.
    compression : float, optional
        Lambda; chooses among the checkpoints of ``"tt-s2l1c"`` and ``"tt-s2l2a"``.

    Raises
    ------
    ModelError
        There is no such model, and the message lists those at hand; or it cannot be fetched.
    """
    if model.endswith(SUFFIXES):
        return _remember(read_card(Path(model)))
    if model in official.SERIES:
        if compression is None:
            names = [one.name for one in official.SERIES[model]]
            raise ModelError(f"{model!r} stands for several models; name one of {names}.")
        model = official.nearest(model, compression).name
    name = EMBEDDED if model == "embedded" else model
    for found, path in _files():
        if found == name:
            return read_card(path)
    for card in _used.values():
        if card.name == name:
            return card
    if name in official.BY_NAME:
        one = official.BY_NAME[name]
        return _remember(read_card(next(iter(hub.cached(one)), None) or hub.fetch(one)))
    raise ModelError(
        f"there is no model {name!r}; at hand are {sorted([*known(), 'embedded'])}, on the hub "
        f"{[*official.SERIES]}. Give one of these, the path of a {' or '.join(SUFFIXES)} file, or "
        f"put its folder into {SEARCH_PATH}."
    )


def find(prefix: bytes, hint: str | None = None, shelf: Shelf | None = None) -> Card:
    """Find the model whose digest begins with ``prefix``: the one a stream was written with.

    Nothing is fetched unless the environment variable ``XTEC_HUB`` is 1.

    Parameters
    ----------
    prefix : bytes
    hint : str, optional
        What the model was called where the stream was written: files of that name come first.
    shelf : callable, optional
        Where the store that it stands in keeps its models: asked before any cache or the hub.

    Raises
    ------
    WrongModelError
        No model at hand has that digest; the message says which it is and how to get it.
    """
    start = prefix.hex()
    for card in (*_used.values(), *_lent.values()):
        if card.digest.startswith(start):
            return card
    for path in _named(hint, own=bool(shelf or _shelves)):
        if weights.digest(path).startswith(start):
            return read_card(path)
    own = shelf(start) if shelf else None
    lent, failed = (own, "") if own else _ask_others(start)
    if lent is not None:
        return lend(lent)
    one = official.BY_NAME.get(hint or "")
    for path in _candidates(start, hint, one):
        if weights.digest(path).startswith(start):
            return read_card(path)
    fetched, advice = _fetch(start, one) if one else (None, INSTALL)
    if fetched is not None:
        return fetched
    named = f" (called {hint!r} where it was written)" if hint else ""
    raise WrongModelError(
        f"this was written with the model of digest {start}...{named}, which is not among "
        f"{sorted(known())}. {advice}{failed}"
    )


def offer(shelf: Shelf) -> None:
    """Ask a store for models in this process from now on, where they are not at hand."""
    _shelves[:] = [shelf, *(other for other in _shelves if other != shelf)][:SHELVES]


def lend(path: Path) -> Card:
    """Make a file that came from a store known in this process, by its digest alone.

    Raises
    ------
    ModelError
        It is no weights file.
    """
    card = read_card(path)
    _lent[card.digest] = card
    return card


def _ask_others(start: str) -> tuple[Path | None, str]:
    """A weights file from a store of before; else what to say of those that gave an error."""
    failed = []
    for shelf in _shelves:
        try:
            found = shelf(start)
        except Exception as error:  # noqa: BLE001 - whatever is wrong there, another may have it
            failed.append(f" A store that was opened before could not be asked: {error}")
        else:
            if found is not None:
                return found, ""
    return None, "".join(failed)


def _fetch(start: str, one: Checkpoint) -> tuple[Card | None, str]:
    """An official checkpoint from the hub, where that is allowed; else what to do."""
    by_hand = f"It is an official TerraCodec checkpoint. {hub.by_hand(one)}"
    if not hub.may_fetch():
        return None, f"{by_hand} Or set {hub.ALLOWED}=1 to have it fetched ({hub.EXTRA})."
    try:
        card = read_card(hub.fetch(one))
    except ModelError as error:
        return None, str(error)
    if card.digest.startswith(start):
        return card, ""
    return None, f"{by_hand} What the hub offers today has the digest {card.digest[:16]}."


def known() -> set[str]:
    """Names of the models at hand, those in the hub's cache left out."""
    return {name for name, _ in _files()} | {card.name for card in _used.values()}


def _remember(card: Card) -> Card:
    _used[card.digest] = card
    return card


def _files() -> list[tuple[str, Path]]:
    """Weights files with their names: those of the package, then those on the search path.

    What else lies in its folders is none of our business.
    """
    folders = os.environ.get(SEARCH_PATH, "").split(os.pathsep)
    found = []
    for folder in (PACKAGE, *map(Path, filter(None, folders))):
        for path in sorted(p for suffix in SUFFIXES for p in folder.glob(f"*{suffix}")):
            with contextlib.suppress(ModelError):
                found.append((read_name(path), path))
    return found


def _named(hint: str | None, *, own: bool) -> Iterator[Path]:
    """Files of a name; if wanted, also the package's own, which need not be copied from a store."""
    for name, path in _files():
        if name == hint or (own and path.parent == PACKAGE):
            yield path


def _candidates(start: str, hint: str | None, one: Checkpoint | None) -> Iterator[Path]:
    """Files of other names that may have a digest that starts so: it takes time to hash one."""
    if one:
        yield from (p for p in hub.cached(one) if (hub.digest_hint(p) or start).startswith(start))
    yield from (path for name, path in _files() if name != hint)
    if not one:
        everything = (p for other in official.CHECKPOINTS for p in hub.cached(other))
        yield from (p for p in everything if (hub.digest_hint(p) or "").startswith(start))
