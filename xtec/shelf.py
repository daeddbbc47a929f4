"""The models that a Zarr store carries: where they lie in it, how they get in and out.

They lie in the group ``tec_models``, one array of bytes for each, named by how its digest begins:
verbatim the weights file, so that plain zarr can read it, or `cp` where it is one chunk. Nothing
that comes out is believed: sizes are checked before anything is read, the digest before anything
is opened, and a weights file holds no code.

Layout: docs/format.md, "Models inside a store".

Below: models.registry, models.weights, aside, errors. Above: the sockets, cube.
"""

import atexit
import hashlib
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr import AsyncArray
from zarr.api.asynchronous import open_array
from zarr.codecs import BytesCodec
from zarr.errors import NodeTypeValidationError
from zarr.storage import WrapperStore

from xtec import aside
from xtec.errors import ModelError
from xtec.models import registry, weights
from xtec.models.weights import SUFFIXES, Card

GROUP = "tec_models"
FILE, SHA256, MODEL, NOTE = "file", "sha256", "model", "note"
"""Attributes of a model's array, and of the group."""

DIGITS = 16
"""Of the digest's hexadecimal digits so many are a model's name here: those that streams name."""

BY_DEFAULT_BYTES = 16_000_000
"""Weights up to this size go into a store unless the user says otherwise."""
MOST_BYTES = 1 << 31
"""Larger weights are not taken out of a store."""
CHUNK_BYTES = 1 << 24
FILE_NAME = re.compile(r"[\w-][\w.-]{0,99}")


@dataclass(frozen=True)
class Shelf:
    """Where a store keeps its models. Can be pickled if the store can.

    Called with the beginning of a digest, it gives a weights file on this machine, a copy that
    lasts as long as the process, or None; the models of groups above are found too.
    """

    store: Any
    """As zarr takes it."""
    path: str = ""
    """Of an array or a chunk for which a model is wanted, or of a group."""

    def __call__(self, start: str) -> Path | None:
        """Copy a model's file to this machine; None where it is not here.

        Raises
        ------
        ModelError
            What stands in its place is not such a file, or is not the one that its name says.
        """
        with _copying:
            name = start[:DIGITS]
            known = _copies().glob(f"{name}*/*")
            found = next((p for p in known if p.parent.name.startswith(start)), None)
            return found or self._copy(start)

    def stored_bytes(self, digest: str) -> int | None:
        """How large a model is that lies here; None where it does not."""
        array = self._array(digest)
        return None if array is None else int(array.shape[0])

    def digests(self) -> list[str]:
        """The beginnings of the digests of all models in this very group."""
        try:
            group = zarr.open_group(self.store, path=_join(self.path, GROUP), mode="r")
        except (FileNotFoundError, NodeTypeValidationError):
            return []
        return sorted(group.array_keys())

    def check(self, name: str) -> None:
        """Read a model in this very group and compare it with its digest.

        Parameters
        ----------
        name : str
            One of `digests`.

        Raises
        ------
        ModelError
            It is not the one that its name and attributes say, or not wholly there.
        """
        hashed = hashlib.sha256()
        array = aside.run(_open(self.store, _join(self.path, GROUP, name)))
        if not _plain(array):
            raise self._unfit(name, f"it is {array.dtype} of shape {array.shape}, or encoded")
        for part in _parts(array):
            hashed.update(part)
        found, said = hashed.hexdigest(), str(array.attrs.get(SHA256, ""))
        if found != said or not found.startswith(name):
            raise self._unfit(name, f"its digest is {found[:DIGITS]}")

    def put(self, card: Card, zarr_format: int) -> None:
        """Write a model's file into this group, unless it is there.

        Raises
        ------
        ModelError
            The file is gone, or no longer the one that its card describes.
        """
        if self.stored_bytes(card.digest) is not None:
            return
        size = card.path.stat().st_size
        group = zarr.open_group(
            self.store, path=_join(self.path, GROUP), mode="a", zarr_format=_format(zarr_format)
        )
        group.attrs[NOTE] = (
            "weights that the pixels of this store are decoded with; each array of bytes is, "
            "verbatim, the file that its attributes name"
        )
        # So that xarray can open the group; a fill value would be taken for missing bytes.
        version = (
            {"attributes": {"_ARRAY_DIMENSIONS": ["byte"]}, "fill_value": None}
            if zarr_format == 2
            else {"dimension_names": ["byte"]}
        )
        array = group.create_array(
            card.digest[:DIGITS],
            shape=(size,),
            chunks=(min(size, CHUNK_BYTES),),
            dtype="uint8",
            compressors=None,
            filters=None,
            overwrite=True,  # what an interrupted write left
            **version,
        )
        _fill(array, card)
        # Last: this says that all of it is there.
        array.update_attributes({FILE: card.path.name, MODEL: card.name, SHA256: card.digest})

    def _copy(self, start: str) -> Path | None:
        array = self._array(start)
        if array is None:
            return None
        name = str(array.attrs.get(FILE))
        if not FILE_NAME.fullmatch(name) or not name.endswith(SUFFIXES):
            raise self._unfit(start, f"its file is called {name[:100]!r}")
        hashed = hashlib.sha256()
        with tempfile.TemporaryDirectory(dir=_copies()) as folder:
            copy = Path(folder, name)
            with copy.open("wb") as file:
                for part in _parts(array):
                    hashed.update(part)
                    file.write(part)
            if not hashed.hexdigest().startswith(start):
                raise self._unfit(start, f"its digest is {hashed.hexdigest()[:DIGITS]}")
            place = _copies() / hashed.hexdigest()
            place.mkdir()
            return copy.rename(place / name)

    def _array(self, start: str) -> "AsyncArray[Any] | None":
        """Find the array of a model that is wholly there."""
        for group in _above(self.path):
            path = _join(group, GROUP, start[:DIGITS])
            try:
                array = aside.run(_open(self.store, path))
            except (FileNotFoundError, NodeTypeValidationError):
                continue
            if not str(array.attrs.get(SHA256, "")).startswith(start):
                continue  # half written, or of another model whose digest begins alike
            if not _plain(array):
                raise self._unfit(start, f"it is {array.dtype} of shape {array.shape}, or encoded")
            return array
        return None

    def _unfit(self, start: str, why: str) -> ModelError:
        return ModelError(
            f"{GROUP}/{start[:DIGITS]} in {self.store} cannot be used as a model: {why}. It must "
            f"be a {' or '.join(SUFFIXES)} file of at most {MOST_BYTES} bytes as plain uint8 in "
            f"chunks of at most {CHUNK_BYTES}, with the digest that its name is of."
        )


class CarryingStore(WrapperStore[Any]):
    """A store whose models are found wherever an array of it is sent.

    A codec does not know its store, and zarr pickles an array's store with it: so it is the store
    that says, in each process that it comes to, where models are.
    """

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        registry.offer(Shelf(store))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        registry.offer(Shelf(self._store))

    def __dask_tokenize__(self) -> object:
        """Never the same: what is stored may be another by now."""
        return uuid.uuid4()


def wanted(card: Card, embed: bool | None) -> bool:  # noqa: FBT001
    """Whether a model goes into a store: as the user says, else if it is small."""
    return card.path.stat().st_size <= BY_DEFAULT_BYTES if embed is None else embed


def register_store(store: Any) -> list[str]:
    """Make the models that a store carries known in this process, by their digests.

    Needed where a codec cannot look into the store by itself, and the model is not at hand
    otherwise: Zarr format 2, and shards. On Dask's workers: ``client.run(xtec.register_store,
    store)``, or open the store with `xtec.open_zarr`.

    Parameters
    ----------
    store : path, URL or Zarr store
        A store, or a group of one.

    Returns
    -------
    list of str
        What the models call themselves.

    Raises
    ------
    ModelError
        It carries none, or what it carries is damaged.
    """
    shelf = Shelf(store)
    files = [shelf(digest) for digest in shelf.digests()]
    if not files:
        raise ModelError(
            f"{store} carries no model: it has no group {GROUP}, or that is empty. "
            "ds.tec.compress(store, embed_weights=True) puts one there, and "
            "xtec.embed_model(store) into a store that exists."
        )
    return [registry.lend(path).name for path in files if path is not None]


_copying = threading.RLock()


@lru_cache(maxsize=1)
def _copies() -> Path:
    """A folder of this process, removed when it ends."""
    folder = tempfile.mkdtemp(prefix="xtec-models-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _above(path: str) -> Iterator[str]:
    """Groups that something lies in, the root first, and the path itself."""
    parts = [part for part in path.split("/") if part]
    for count in range(len(parts) + 1):
        yield "/".join(parts[:count])


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _plain(array: "AsyncArray[Any]") -> bool:
    """Whether an array is of bytes as they are, of a size that can be read."""
    own = array.serializer is None or isinstance(array.serializer, BytesCodec)
    return (
        own
        and not array.compressors
        and not array.filters
        and array.dtype == np.uint8
        and array.ndim == 1
        and 0 < array.shape[0] <= MOST_BYTES
        and array.chunks[0] <= CHUNK_BYTES
    )


async def _open(store: Any, path: str) -> "AsyncArray[Any]":
    return await open_array(store=aside.own(store), path=path, mode="r")


def _parts(array: "AsyncArray[Any]") -> Iterator[bytes]:
    for begin in range(0, array.shape[0], CHUNK_BYTES):
        part = aside.run(array.getitem(slice(begin, begin + CHUNK_BYTES)))
        yield np.asarray(part).tobytes()


def _fill(array: "zarr.Array[Any]", card: Card) -> None:
    if weights.digest(card.path) != card.digest:
        raise weights.changed(card)
    with card.path.open("rb") as file:
        for begin in range(0, array.shape[0], CHUNK_BYTES):
            part = np.frombuffer(file.read(CHUNK_BYTES), np.uint8)
            array[begin : begin + len(part)] = part


def _format(zarr_format: int) -> Any:
    """For zarr's annotations."""
    return zarr_format
