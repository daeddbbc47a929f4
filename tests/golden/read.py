"""What is expected of the golden files; reads, and writes nothing."""

import json

import numpy as np

REPORTS = {"expected": "pixels", "residual": "residual", "stores": "stores"}
"""Files of digests (.json), and of pixels (.npz)."""


def digests(folder):
    """Name of a stream -> its digest, and the checksum of its latents."""
    reports = (folder / "expected.json", folder / "residual.json")
    return {k: v for path in reports for k, v in json.loads(path.read_text()).items()}


def files(folder):
    """Name of a store -> path of a file in it -> digest."""
    return json.loads((folder / "stores.json").read_text())


def pixels(folder):
    """Name of a stream or store -> the pixels that it decoded to then."""
    found = {}
    for name in REPORTS.values():
        with np.load(folder / f"{name}.npz") as arrays:
            found |= arrays
    return found


def tolerance(name):
    """By how much pixels may differ: the synthesis of a TEC-TT is ordinary floating point."""
    exact = name.startswith("lapped-") or name in ("lossless", "format-2", "format-3", "shards")
    return 0 if exact else 1
