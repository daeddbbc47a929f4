"""Whether a store is whole: every chunk of every array is read and decoded.

A compressed chunk that decodes is right: its checksums cover each of its bytes and all its latents.
Other arrays are as safe as their codecs make them. Each chunk is a Dask task of its own and leaves
nothing but its verdict.

Below: pieces, pairing, stored, state, carrying, shelf, errors. Above: accessor, cli.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import xarray as xr
import zarr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from xtec.cube.pairing import Against, Pair, Part
from xtec.cube.pieces import Place, file_of, is_stored, places, region
from xtec.cube.places import local_path
from xtec.cube.progress import of_tasks
from xtec.cube.report import coded_variable
from xtec.cube.state import Unfinished
from xtec.cube.stored import array_of, codec_of_array
from xtec.errors import InputError, XtecError
from xtec.models import registry
from xtec.shelf import GROUP, CarryingStore, Shelf

LOST = "it is not stored, but the original has data there"


@dataclass(frozen=True)
class Fault:
    """One damaged or missing chunk."""

    variable: str
    """Its array, or the model."""
    chunk: Place
    """Counted along each axis; empty for a model."""
    file: str
    """That it lies in, below the store's root; a shard holds several chunks."""
    reason: str

    def __str__(self) -> str:
        """In one line."""
        chunk = f" chunk {self.chunk}" if self.chunk else ""
        return f"{self.variable}{chunk}, file {self.file}: {self.reason}"


@dataclass(frozen=True)
class Verdict:
    """What came of reading a whole store."""

    store: str
    chunks: int
    """Of all arrays, stored or not."""
    stored: int
    """Chunks that are stored; those without any data are not."""
    missing: tuple[tuple[str, Place], ...]
    """Compressed chunks that are not stored and read as no data: variable, and place."""
    faults: tuple[Fault, ...]
    unfinished: str | None
    """"writing" or "appending" where the store says that it is not finished."""
    against: Against | None
    """The comparison with the original, of all chunks that could be read; None without one."""

    @property
    def ok(self) -> bool:
        """Nothing is damaged or unfinished and, beside an original, every promise is kept."""
        kept = self.against is None or self.against.ok
        return not self.faults and self.unfinished is None and kept

    def to_dict(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {"ok": self.ok} | asdict(self)

    def __repr__(self) -> str:
        """Return the verdict as text."""
        empty = f"; {len(self.missing)} of them not stored: no data" if self.missing else ""
        lines = [f"{self.store}: {self.chunks} chunks{empty}"]
        if self.unfinished:
            lines.append(f"not finished: {self.unfinished}")
        lines += [f"damaged: {fault}" for fault in self.faults]
        if self.against:
            lines.append(repr(self.against))
        return "\n".join([*lines, "everything is well" if self.ok else "this store is NOT well"])


def verify(
    store: Any,
    original: xr.Dataset | None = None,
    *,
    path: str = "",
    variable: Any = None,
    progress: bool = False,
) -> Verdict:
    """Read everything in a store, and compare it with an original.

    Parameters
    ----------
    store : path, URL or Zarr store
    original : Dataset, optional
        The whole cube that was compressed; its blocks are computed one by one.
    path : str
        Of a group in the store; only what is in it is read.
    variable : hashable, optional
        Which compressed variable is to be compared, where there are several.
    progress : bool
        Whether to show a bar.

    Raises
    ------
    InputError
        There is no store, nothing in it is compressed, or the original is of another shape, other
        bands or coordinates.
    WrongModelError
        The model is neither in the store nor on this machine: nothing can be told.
    """
    name_of_store = str(local_path(store) or store)
    try:
        root = _open(store, path)
        arrays = [array for name, array in _members(root) if GROUP not in name.split("/")]
    except XtecError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        fault = Fault("metadata", (), path or "root", _reason(error))
        return Verdict(name_of_store, 0, 0, (), (fault,), None, None)
    coded = [array for array in arrays if codec_of_array(array) is not None]
    if not coded:
        raise InputError(f"nothing in {store} was compressed by xtec; see ds.tec.compress.")
    faults = list(_damaged_models(root))
    if not faults:
        _require_models(coded)
    with of_tasks("verifying", shown=progress):
        plain = _read_all(array for array in arrays if array not in coded)
        faults += [look.fault for look in plain if look.fault]
        # Coordinates that cannot be read cannot be compared either.
        pair = None if original is None or faults else Pair.of(root, original, variable)
        looks = _read_all(coded, pair)
    faults += [look.fault for look in looks if look.fault]
    parts = [look.part for look in looks if look.part is not None]
    unfinished = Unfinished.of(root.attrs)
    return Verdict(
        store=name_of_store,
        chunks=len(plain) + len(looks),
        stored=sum(look.stored for look in (*plain, *looks)),
        missing=tuple((look.variable, look.place) for look in looks if not look.stored),
        faults=tuple(faults),
        unfinished=unfinished.state if unfinished else None,
        against=pair.judge(reduce(add, parts)) if pair and parts else None,
    )


def verify_behind(
    dataset: xr.Dataset,
    original: xr.Dataset | None = None,
    *,
    variable: Any = None,
    progress: bool = False,
) -> Verdict:
    """Verify the store that a Dataset was opened from; see `verify`."""
    array = array_of(dataset, coded_variable(dataset, variable))
    if array is None:
        raise InputError(
            "this cube is not stored yet, or its store is unknown; write it, then open it with "
            "xr.open_zarr."
        )
    path, _, _ = array.path.rpartition("/")
    return verify(array.store, original, path=path, variable=variable, progress=progress)


@dataclass(frozen=True)
class _Look:
    """What one chunk turned out to be."""

    variable: str
    place: Place
    stored: bool
    fault: Fault | None = None
    part: Part | None = None


def _open(store: Any, path: str) -> "zarr.Group":
    try:
        group = zarr.open_group(store, path=path, mode="r")
    except FileNotFoundError as error:
        raise InputError(f"there is no Zarr store {store}.") from error
    # So that models inside are found by workers, in formats whose codecs do not see the store.
    return zarr.open_group(CarryingStore(group.store), path=group.path, mode="r")


def _members(root: "zarr.Group") -> Iterator[tuple[str, "zarr.Array[Any]"]]:
    for name, member in sorted(root.members(max_depth=None), key=lambda pair: pair[0]):
        if isinstance(member, zarr.Array):
            yield name, member


def _damaged_models(root: "zarr.Group") -> Iterator[Fault]:
    shelf = Shelf(root.store, root.path)
    for name in shelf.digests():
        try:
            shelf.check(name)
        except Exception as error:  # noqa: BLE001 - whatever damage raises, in zarr or here
            yield Fault("model", (), f"{GROUP}/{name}", _reason(error))


def _require_models(coded: list["zarr.Array[Any]"]) -> None:
    """Stop where no chunk could be decoded for want of a model: that is no damage."""
    for array in coded:
        codec = codec_of_array(array)
        if codec is not None:
            settings = codec.settings
            digest = bytes.fromhex(settings.model_digest)[:8]
            registry.find(digest, settings.model, Shelf(array.store, array.path))


def _read_all(arrays: Iterable["zarr.Array[Any]"], pair: Pair | None = None) -> list[_Look]:
    work = []
    for array in arrays:
        ours = pair if pair is not None and array.path == pair.path else None
        blocks = ours.blocks(array.chunks) if ours else None
        bare = replace(ours, before=None) if ours else None
        work += [
            delayed(_look)(array, place, bare, None if blocks is None else blocks[place])
            for place in places(array)
        ]
    return list(compute(*work))  # type: ignore[no-untyped-call]


def _look(
    array: "zarr.Array[Any]", place: Place, pair: Pair | None, before: NDArray[Any] | None
) -> _Look:
    """Read one chunk, and compare it."""
    name, file = array.path or "/", file_of(array, place)
    try:
        pixels = np.asarray(array[region(array.shape, array.chunks, place)])
        stored = is_stored(array, place)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever damage raises, in any codec
        return _Look(name, place, stored=True, fault=Fault(name, place, file, _reason(error)))
    if pair is None or before is None:
        return _Look(name, place, stored)
    part = pair.compare(pixels, before)
    lost = not stored and part.mask_errors > 0
    return _Look(name, place, stored, Fault(name, place, file, LOST) if lost else None, part)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
