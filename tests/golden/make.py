"""Make the golden files of a new format version: ``python -m tests.golden.make``.

Streams, and small stores for both sockets. It refuses a version that is there already, whole or in
part: files that once were released are the test, and a missing one is a failure, not a gap to be
filled.
"""

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import xtec  # noqa: F401 - registers ds.tec
from xtec import codec
from xtec.codec import Settings, decode_chunk, encode_chunk
from xtec.coding.stream import FORMAT_VERSION, parse
from xtec.models import registry, weights
from xtec.models.config import LappedConfig, ModelConfig
from xtec.models.context import ContextTransformer
from xtec.models.network import TemporalTransformer

HERE = Path(__file__).parent

TEC_TT = ModelConfig(
    bands=("B02", "B03", "B04", "B08", "B11"),
    mean=(1400.0, 1300.0, 1350.0, 2300.0, 2200.0),
    std=(940.0, 935.0, 1070.0, 1117.0, 1158.0),
    channels=(4, 8, 12),
    residual_blocks=1,
    d_model=16,
    heads=2,
    layers_separate=1,
    layers_joint=1,
    layers_decoder=1,
    mlp_ratio=2,
)
LAPPED = LappedConfig(bands=TEC_TT.bands, d_model=16, heads=2, layers=1, mlp_ratio=2)


def tec_tt():
    """Random weights, fixed by being in a file."""
    torch.manual_seed(FORMAT_VERSION)
    model = TemporalTransformer(TEC_TT)
    with torch.no_grad():
        for p in model.transform.analysis_transform.transforms.parameters():
            p.mul_(2)  # else most latents were 0
        for name, p in model.named_parameters():
            if "_head.4" in name:
                p.mul_(3)
            if "norm" in name and name.endswith("weight"):
                p[3] *= 11  # far larger than the others: tamed
    return model


def lapped():
    """Weights as before training, with noise on what makes a difference."""
    torch.manual_seed(FORMAT_VERSION)
    model = ContextTransformer(LAPPED)
    model.initialise()
    with torch.no_grad():
        for p in (*model.heads.parameters(), *model.mix, model.spatial, model.place):
            p.add_(torch.randn_like(p), alpha=0.1)
    return model


FAMILIES = {"": tec_tt, "lapped-": lapped}
"""What the names of their streams begin with."""


def chunks():
    """Name -> digital numbers and how they are encoded."""
    random = np.random.default_rng(FORMAT_VERSION)
    y, x = np.mgrid[:20, :28]
    land = 1500 + 900 * np.sin(y / 5) * np.cos(x / 7)

    def scene(shape, dtype):
        t, b, h, w = shape
        noise = random.normal(0, 60, shape)
        seasons = np.linspace(0.9, 1.3, t)[:, None, None, None]
        bands = np.linspace(0.8, 1.4, b)[:, None, None]
        return (land[:h, :w] * seasons * bands + noise).round().astype(dtype)

    masked = scene((2, 2, 17, 9), np.uint16)
    masked[0][:, np.tri(17, 9, dtype=bool)] = 0
    masked[1, 1, 3:5, 2:4] = 65535
    subset = ("B11", "B03")
    return {
        "plain": (scene((3, 5, 20, 28), np.uint16), {"compression": 50}),
        "masked": (masked, {"compression": 400, "bands": subset}),
        "offset": (scene((1, 5, 8, 11), np.int16), {"nodata": None, "offset": -1000}),
        "empty": (np.full((2, 5, 9, 9), -9999, np.int16), {"nodata": -9999}),
    }


STORES = {
    "format-2": ("lapped-", {"zarr_format": 2, "embed_weights": False}),
    "format-3": ("lapped-", {"embed_weights": True}),
    "shards": ("lapped-", {"embed_weights": False, "shards": {"y": 64, "x": 64}}),
    "tec-tt": ("", {"zarr_format": 2, "embed_weights": True}),
}
"""Name -> family and how it is written; those without weights need the folder's."""


def cube():
    """A cube with a swath's edge, and a variable that is stored as it is."""
    random = np.random.default_rng(FORMAT_VERSION)
    y, x = np.mgrid[:40, :44]
    land = 1500 + 900 * np.sin(y / 5) * np.cos(x / 7)
    bands = np.linspace(0.8, 1.4, len(TEC_TT.bands))[:, None, None]
    pixels = (land * bands + random.normal(0, 60, (2, len(TEC_TT.bands), 40, 44))).round()
    pixels[0][:, np.tri(40, 44, dtype=bool)] = 0
    coordinates = {
        "time": np.array(["2020-01-01", "2020-01-11"], "datetime64[ns]"),
        "band": list(TEC_TT.bands),
        "y": 5e6 - 10.0 * np.arange(40),
        "x": 6e5 + 10.0 * np.arange(44),
    }
    return xr.Dataset(
        {
            "reflectance": (("time", "band", "y", "x"), pixels.astype(np.uint16)),
            "sun_elevation": ("time", [20.5, 22.25], {"units": "degree"}),
        },
        coordinates,
        {"title": "golden"},
    )


def make_stores(folder):
    """Write the stores of a version, none of which may be there yet."""
    expected, pixels = {}, {}
    for name, (prefix, options) in STORES.items():
        store = folder / f"{name}.zarr"
        chunks = {"y": 32, "x": 32}
        made = cube().tec.compress(
            store, model=f"golden-{prefix}{FORMAT_VERSION}", compression=50, chunks=chunks,
            progress=False, **options,
        )  # fmt: skip
        pixels[name] = made.reflectance.values
        expected[name] = {
            path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(store.rglob("*"))
            if path.is_file()
        }
    np.savez_compressed(folder / "stores.npz", **pixels)
    (folder / "stores.json").write_text(json.dumps(expected, indent=1) + "\n")


def bounded_chunks():
    """As `chunks`, with the largest error promised: streams with a residual."""
    plain, _ = chunks()["plain"]
    masked, fields = chunks()["masked"]
    return {
        "bounded": (plain[:, :, :14, :17], {"compression": 12, "max_error": 20}),
        "each-bound": (masked, fields | {"max_error": (3, 40)}),
        "lossless": (masked, fields | {"max_error": 0}),
    }


@contextlib.contextmanager
def network_first():
    """Let residuals go by a network whose random weights make it hopeless, where they can."""

    def chosen(made, **how):
        return min(made[:1] if how else made, **how)

    codec.min = chosen
    yield
    del codec.min


def make_streams(folder, wanted, report):
    """Write streams of both families and what is expected of them."""
    expected, pixels = {}, {}
    for prefix in FAMILIES:
        name = f"golden-{prefix}{FORMAT_VERSION}"
        for kind, (chunk, fields) in wanted.items():
            key, data = prefix + kind, encode_chunk(chunk, Settings(name, **fields))
            (folder / f"{key}.stream").write_bytes(data)
            pixels[key] = decode_chunk(data)
            digest = hashlib.sha256(data).hexdigest()
            crcs = [f"{crc:08x}" for crc in parse(data).frame_crcs]
            expected[key] = {"sha256": digest, "frame_crcs": crcs}
    numbers = {"expected": "pixels"}.get(report, report)
    np.savez_compressed(folder / f"{numbers}.npz", **pixels)
    (folder / f"{report}.json").write_text(json.dumps(expected, indent=1) + "\n")


def make_bounded(folder):
    """Write streams with a residual."""
    with network_first():
        make_streams(folder, bounded_chunks(), "residual")


def make(folder):
    """Write a version's files into a folder that must not be there yet."""
    if folder.exists():
        sys.exit(f"{folder} is there already; golden files are made once and never again.")
    folder.mkdir(parents=True)
    os.environ[registry.SEARCH_PATH] = str(folder)
    for prefix, network in FAMILIES.items():
        name = f"golden-{prefix}{FORMAT_VERSION}"
        weights.save(network(), name, folder / f"{name}.safetensors")
    make_streams(folder, chunks(), "expected")
    make_bounded(folder)
    make_stores(folder)


if __name__ == "__main__":
    make(HERE / f"v{FORMAT_VERSION}")
