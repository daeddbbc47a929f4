"""Streams of every released format version decode for ever (tests/golden/README.md)."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.golden import make
from xtec.codec import decode_chunk
from xtec.coding.stream import FORMAT_VERSION, parse
from xtec.errors import WrongModelError
from xtec.models import registry

GOLDEN = Path(__file__).parent / "golden"
STREAMS = sorted(GOLDEN.glob("v*/*.stream"))
each_stream = pytest.mark.parametrize(
    "path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}"
)


def expected(path):
    return json.loads((path.parent / "expected.json").read_text())[path.stem]


@pytest.fixture(autouse=True)
def searched(monkeypatch):
    """Models are found through the search path alone."""
    folders = {str(path.parent) for path in STREAMS}
    monkeypatch.setattr(registry, "_used", {})
    monkeypatch.setenv(registry.SEARCH_PATH, os.pathsep.join(sorted(folders)))


def test_every_version_is_here_with_all_its_streams():
    versions = sorted(int(path.name[1:]) for path in GOLDEN.glob("v*"))
    assert versions == list(range(1, FORMAT_VERSION + 1))
    for version in versions:
        names = json.loads((GOLDEN / f"v{version}" / "expected.json").read_text())
        assert {p.stem for p in STREAMS if p.parent.name == f"v{version}"} == set(names)
        assert len(names) >= 6


@each_stream
def test_the_file_was_never_touched(path):
    assert hashlib.sha256(path.read_bytes()).hexdigest() == expected(path)["sha256"]


@each_stream
def test_latents_are_those_that_were_written(path):
    """`decode_chunk` compares what it decodes with this number before it gives a pixel."""
    data = path.read_bytes()
    assert f"{parse(data).latents_crc:08x}" == expected(path)["latents_crc"]
    decode_chunk(data)


@each_stream
def test_pixels_are_those_that_were_decoded_then(path):
    with np.load(path.parent / "pixels.npz") as file:
        then = file[path.stem]
    stream = parse(path.read_bytes())
    now = decode_chunk(path.read_bytes())
    assert now.dtype == then.dtype
    assert now.shape == then.shape == stream.shape
    exact = path.stem.startswith("lapped-")
    assert np.abs(now.astype(int) - then).max() <= (0 if exact else 1)
    for mask in (stream.invalid, stream.saturated):
        if mask is not None:
            assert np.array_equal(now[mask], then[mask])


def test_the_streams_differ_in_what_they_hold():
    everything = {p.stem: parse(p.read_bytes()) for p in STREAMS if p.parent.name == "v1"}
    for prefix in make.FAMILIES:
        found = {key: everything[prefix + key] for key in make.chunks()}
        assert len({stream.model_digest for stream in found.values()}) == 1
        assert found["plain"].invalid is None
        assert len(found["plain"].payload) > 100
        assert found["masked"].bands == (4, 1)
        assert found["masked"].invalid.any()
        assert found["masked"].saturated.any()
        assert (found["offset"].nodata, found["offset"].offset) == (None, -1000)
        assert found["empty"].dtype == "int16"
        assert found["empty"].payload == b""
    assert len({stream.model_digest for stream in everything.values()}) == len(make.FAMILIES)


def test_without_the_models_the_error_says_what_to_look_for(monkeypatch):
    monkeypatch.delenv(registry.SEARCH_PATH)
    path = GOLDEN / "v1" / "plain.stream"
    digest = parse(path.read_bytes()).model_digest.hex()
    with pytest.raises(WrongModelError, match=digest):
        decode_chunk(path.read_bytes())


def test_the_helper_neither_overwrites_nor_fills_gaps(tmp_path):
    folder = tmp_path / "v1"
    shutil.copytree(GOLDEN / "v1", folder)
    (folder / "plain.stream").unlink()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SystemExit, match="never again"):
        make.make(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_helper_makes_a_new_version(tmp_path, monkeypatch):
    monkeypatch.setenv(registry.SEARCH_PATH, "")
    make.make(tmp_path / "v9")
    assert {p.name for p in (tmp_path / "v9").iterdir()} == {
        p.name for p in (GOLDEN / f"v{FORMAT_VERSION}").iterdir()
    }
