"""A store that is not finished says so: an attribute of its root, written first and removed last.

Chunks that are missing read as no data. Without this an interrupted write would look like a whole
store of an area without data.

Below: errors. Above: writing, adding, prepare, report, accessor.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import zarr

from xtec.errors import InputError, UnfinishedStoreWarning

ATTRIBUTE = "tec_unfinished"
"""Of the root group: an Unfinished as JSON text; absent where the store is whole."""

WRITING, APPENDING = "writing", "appending"

NOTES = {
    WRITING: "chunks may be missing and read as no data; the write goes on or was interrupted: "
    "go on with resume=True, or write it again with overwrite=True",
    APPENDING: "an append goes on or was interrupted; the dates that were there before are whole. "
    "If nothing writes to it any more, ds.tec.append(store, recover=True) removes what was left",
}


@dataclass(frozen=True)
class Unfinished:
    """What is going on in a store, or was when it was interrupted."""

    state: str
    """WRITING or APPENDING."""
    run: str
    """Eight hexadecimal digits that no other run has."""
    complete: int | None = None
    """While appending: how many dates were there before."""

    def to_attribute(self) -> dict[str, str]:
        """As it stands among the attributes, with a note for people."""
        return {ATTRIBUTE: json.dumps(asdict(self) | {"note": NOTES[self.state]})}

    @classmethod
    def of(cls, attributes: Mapping[Any, Any]) -> Self | None:
        """Read attributes; None where the store is whole."""
        if ATTRIBUTE not in attributes:
            return None
        try:
            fields = json.loads(attributes[ATTRIBUTE])
            return cls(*(fields[name] for name in ("state", "run", "complete")))
        except (TypeError, ValueError, KeyError):
            return cls(WRITING, "")  # of another version of xtec: not finished all the same


def begin(store: Any, unfinished: Unfinished) -> None:
    """Say it in a store that exists; readers go on to see what consolidated metadata say."""
    group = zarr.open_group(store, mode="r+")
    if group.metadata.consolidated_metadata is None:
        group = zarr.consolidate_metadata(store)
    group.attrs.update(unfinished.to_attribute())


def end(store: Any) -> None:
    """Take it back, in consolidated metadata too."""
    del zarr.open_group(store, mode="r+").attrs[ATTRIBUTE]


def require_own(store: Any, unfinished: Unfinished) -> None:
    """Stop before a store is declared whole that another run has taken over.

    Raises
    ------
    InputError
        The store says something else than this run wrote.
    """
    try:
        found = Unfinished.of(zarr.open_group(store, mode="r", use_consolidated=False).attrs)
    except FileNotFoundError:
        found = None
    if found != unfinished:
        raise InputError(
            f"{store} was taken over by another run while this one wrote to it; what this one "
            "wrote is lost. Let only one at a time write to a store."
        )


def warn(attributes: Mapping[Any, Any]) -> None:
    """Warn whoever looks into a store that is not finished.

    Warns
    -----
    UnfinishedStoreWarning
    """
    found = Unfinished.of(attributes)
    if found:
        warnings.warn(
            f"this store is not finished ({found.state}): {NOTES[found.state]}.",
            UnfinishedStoreWarning,
            stacklevel=4,  # `warn`, the accessor's two
        )
