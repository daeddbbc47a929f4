"""Where a store on this machine is written: beside its place, and moved there when it is whole.

So an interrupted write never looks like a store, and what is to be replaced stays until all that
replaces it is there. Only folders that can be moved are written so; for others (another machine's,
a mount point, a folder in one that may not be written to) `beside` is None.

    out.zarr.unfinished-1a2b3c4d    being written, or left by a run that was killed
    out.zarr.replaced-1a2b3c4d      what was there before, for the moment of the exchange

Below: errors. Above: writing.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore, WrapperStore

from xtec.errors import InputError

UNFINISHED, REPLACED = "unfinished", "replaced"


def local_path(store: Any) -> Path | None:
    """Where a store lies on this machine; None where that is not a folder."""
    if isinstance(store, WrapperStore):
        return local_path(store._store)  # noqa: SLF001 - what it wraps has no other name
    if isinstance(store, LocalStore):
        return Path(store.root)
    if isinstance(store, str):
        store = store.removeprefix("file://")
    if isinstance(store, Path) or (isinstance(store, str) and "://" not in store):
        return Path(store).expanduser()
    return None


def beside(path: Path, run: str) -> Path | None:
    """Folder to write to until a store is whole; None where it must be written in place."""
    path = path.resolve()
    parent = next(folder for folder in path.parents if folder.exists())
    if path.is_mount() or not os.access(parent, os.W_OK):
        return None
    return _named(path, UNFINISHED, run)


def leftovers(path: Path, kind: str = UNFINISHED) -> Iterator[Path]:
    """Folders that runs to this place left, or are still writing to."""
    path = path.resolve()
    pattern = re.compile(re.escape(f"{path.name}.{kind}-") + "[0-9a-f]{8}")
    if path.parent.is_dir():
        yield from (p for p in path.parent.iterdir() if p.is_dir() and pattern.fullmatch(p.name))


def restore(path: Path) -> None:
    """Put back what was there, where a run was killed in the moment of the exchange."""
    for old in leftovers(path, REPLACED):
        if not path.resolve().exists():
            old.rename(path.resolve())


def tidy(path: Path, keep: Path | None = None) -> None:
    """Remove what runs to this place left. A run that still writes there is told when it ends."""
    for kind in (UNFINISHED, REPLACED):
        for folder in leftovers(path, kind):
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)


def claim(left: Path, place: Path) -> None:
    """Take over what another run left, without the files that it was writing when it ended.

    Raises
    ------
    InputError
        It is gone: another run was faster.
    """
    try:
        left.rename(place)
    except FileNotFoundError as error:
        raise InputError(
            f"{left} was taken over or removed by another run; let only one at a time write there."
        ) from error
    sweep(place)


def sweep(folder: Path) -> None:
    """Remove files that Zarr did not finish: it renames them when they are whole."""
    for file in folder.rglob("*.partial"):
        file.unlink(missing_ok=True)


def settle(written: Path, path: Path, run: str, *, overwrite: bool) -> None:
    """Move a whole store to its place, then remove what was there before.

    Raises
    ------
    InputError
        A store came to be there meanwhile that may not be replaced.
    OSError
        It cannot be moved. What was there before is there again.
    """
    path = path.resolve()
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} came to be while another store was written for that place; this one is whole "
            f"and lies in {written}. Move it where you want it."
        )
    old = _named(path, REPLACED, run)
    if path.exists():
        path.rename(old)
    try:
        written.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _named(path: Path, kind: str, run: str) -> Path:
    return path.with_name(f"{path.name}.{kind}-{run}")
