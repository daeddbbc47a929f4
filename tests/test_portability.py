"""A stream decodes anywhere: whatever kernels, threads and company, to the encoder's own latents.

One process per way to compute. Each encodes the same chunks, then decodes what all have encoded,
alone, in batches of 8 and in a shuffled batch. The float network, put to the same test, fails it.
"""

import hashlib
import itertools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.golden import read
from tests.models import network, write_weights
from tests.portable import BATCH, GOLDEN, MODELS, digest, settings_of
from xtec import sample
from xtec.coding import rans, tables
from xtec.errors import StreamError
from xtec.models.config import S2L1C

WAYS = {
    "plain": {},
    "no-simd": {"ATEN_CPU_CAPABILITY": "default"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "onednn-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "mkl-compatible": {"MKL_CBWR": "COMPATIBLE"},
    "no-onednn": {},
    "two-threads": {"OMP_NUM_THREADS": "2"},
}
STEADY = {
    "XTEC_DEVICE": "cpu",
    "OMP_WAIT_POLICY": "passive",  # waiting threads must not spin: there are few cores for all
}
X86 = platform.machine() in {"x86_64", "AMD64"}


class Worker:
    """A process of `tests.portable`."""

    def __init__(self, folder, name, model):
        clean = {k: v for k, v in os.environ.items() if k not in set().union(*WAYS.values())}
        self.errors = folder / f"{name}.txt"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.portable", folder, name, model, name],
                env=clean | {"OMP_NUM_THREADS": "1"} | WAYS[name] | STEADY,
                cwd=Path(__file__).parents[1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def wait(self):
        if self.process.stdout.readline() != "done\n":
            pytest.fail(self.errors.read_text())

    def end(self):
        self.process.kill()
        self.process.communicate()


OFFICIAL = "official"
"""The published shape, d_model 768, with random weights."""


@pytest.fixture(scope="module", params=[*MODELS, pytest.param(OFFICIAL, marks=pytest.mark.slow)])
def model(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """What all processes wrote."""
    folder = tmp_path_factory.mktemp("ways")
    name, dates = model, 3
    if model == OFFICIAL:
        name, dates = write_weights(folder / "official.safetensors", network(S2L1C)), 2
    reflectance = sample.cube(dates=dates, size=(128, 256))["reflectance"]
    cube = reflectance.sel(band=list(settings_of(name).bands)).to_numpy()
    corners = itertools.product((0, 64), (0, 64, 128, 192))
    np.save(folder / "chunks.npy", [cube[..., y : y + 64, x : x + 64] for y, x in corners])
    workers = [Worker(folder, way, name) for way in WAYS]
    try:
        for what in ("encode", "decode", *(["float", "golden"] if model == "tec-tt" else [])):
            for worker in workers:
                worker.ask(what)
            for worker in workers:
                worker.wait()
    finally:
        for worker in workers:
            worker.end()
    return folder


def facts(folder, name):
    return json.loads((folder / name / "facts.json").read_text())


def latents(folder, name):
    with np.load(folder / name / "latents.npz") as file:
        return list(file.values())


def written(folder):
    """Every stream's digest -> the digest of the latents that its encoder quantised."""
    pairs = {}
    for name in WAYS:
        for i, q in enumerate(latents(folder, name)):
            stream = (folder / name / f"{i}.stream").read_bytes()
            pairs[hashlib.sha256(stream).hexdigest()] = digest(q)
    return pairs


def test_the_ways_to_compute_are_different_ones(folder):
    assert facts(folder, "two-threads")["threads"] == 2
    assert facts(folder, "plain")["threads"] == 1
    if X86:
        assert facts(folder, "no-simd")["capability"] == "DEFAULT"
        assert facts(folder, "avx2")["capability"] == "AVX2"
        # Without its instructions for them oneDNN's products of bytes saturate.
        assert facts(folder, "onednn-avx2")["products"] == "torch.float32"


@pytest.mark.parametrize("decoder", WAYS)
def test_latents_are_the_encoders_own_in_every_company(folder, decoder):
    """All encoders against this decoder: one row of the matrix."""
    expected = written(folder)
    assert len(expected) >= BATCH
    report = json.loads((folder / decoder / "decoded.json").read_text())
    assert report["batches"] == report["shuffled"] == expected
    assert report["alone"].items() <= expected.items()
    assert len(report["alone"]) >= 2


@pytest.mark.parametrize("encoder", WAYS)
def test_bytes_depend_on_no_company(folder, encoder):
    assert facts(folder, encoder)["company changed nothing"]


def test_pixels_differ_by_one_number_at_most_and_the_embedded_models_not_at_all(folder, model):
    for stream in written(folder):
        found = [np.load(folder / name / f"{stream}.batches.npy").astype(int) for name in WAYS]
        assert np.ptp(found, axis=0).max() <= (model != "embedded")


@pytest.mark.parametrize("decoder", WAYS)
def test_pixels_depend_on_no_company(folder, decoder):
    for stream in written(folder):
        found = [np.load(p) for p in (folder / decoder).glob(f"{stream}.*.npy")]
        assert len(found) >= 2
        assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("way", WAYS)
def test_golden_streams_and_stores_decode_as_they_did_when_they_were_made(folder, model, way):
    if model != "tec-tt":
        pytest.skip("they are of both families, and decoded once")
    for version in sorted(GOLDEN.glob("v*")):
        then = read.pixels(version)
        with np.load(folder / way / f"{version.name}.npz") as now:
            assert now.keys() == then.keys()
            for name, pixels in then.items():
                error = np.abs(now[name].astype(int) - pixels).max()
                assert error <= read.tolerance(name), name


def comes_back(q, one, other):
    """Whether latents coded with the rows of one process are read with those of another."""
    symbols, rows = (
        x.reshape(-1).astype(kind)
        for x, kind in ((q - one["centre"], np.int32), (one["row"], np.uint16))
    )
    payload, _ = rans.encode(symbols, rows, tables.load(), [symbols.size])
    decoder = rans.Decoder(payload, tables.load())
    try:
        decoded = decoder.decode(other["row"].reshape(-1)) + other["centre"].reshape(-1)
        decoder.finish()
    except StreamError:
        return False
    return np.array_equal(decoded, q.reshape(-1))


@pytest.mark.skipif(not X86, reason="these ways to compute are those of x86 processors")
def test_the_float_network_fails_this_test(folder, model):
    """Its rows depend on the way they are computed; then what is read is not what was coded."""
    if model != "tec-tt":
        pytest.skip("it is the official kind of network whose float prior is put to the test")
    q = np.stack(latents(folder, "plain"))
    found = [np.load(folder / name / "float.npz") for name in WAYS]
    assert all(comes_back(q, one, one) for one in found)
    assert not all(comes_back(q, one, other) for one, other in itertools.combinations(found, 2))
