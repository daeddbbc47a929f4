"""Light until it works: no torch before the first pixel, and nothing found by import alone.

All of this happens in fresh processes. Each promise comes with a canary that shows that its test
can fail.
"""

import json
import os
import subprocess
import sys

import pytest
import xarray as xr

HEAVY = ("torch", "matplotlib")


def run(code, where, *arguments):
    """What a fresh interpreter prints, started where no source tree can be imported from."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-W", "error::ImportWarning", "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def loaded(code, where, *arguments):
    """The heavy modules that are in memory after some code."""
    code += f"\nimport json, sys\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    return run(code, where, *arguments)


@pytest.fixture(scope="module", params=[2, 3])
def store(request, _sample, tmp_path_factory):
    """A small compressed store of the embedded model."""
    path = tmp_path_factory.mktemp("stores") / f"{request.param}.zarr"
    part = _sample.isel(time=[0], y=slice(40), x=slice(40))
    part.tec.compress(path, zarr_format=request.param, progress=False)
    return path


def test_importing_is_light(tmp_path):
    assert loaded("import xtec", tmp_path) == []


OPEN = """
import sys
import xarray as xr
cube = xr.open_zarr(sys.argv[1])
repr(cube), cube._repr_html_(), cube.isel(x=3), cube.time.values, cube.band.values
"""


def test_opening_is_light(store, tmp_path):
    assert loaded(OPEN, tmp_path, store) == []


def test_info_and_lazy_compression_are_light(store, tmp_path):
    code = OPEN + "import xtec\nrepr(cube.tec.info()), cube.drop_encoding().drop_attrs() "
    code += "\n(cube.reflectance.drop_attrs() * 1e-4).tec.compress()"
    assert loaded(code, tmp_path, store) == []


def test_touching_a_pixel_is_what_loads_torch(store, tmp_path):
    """The canary: the tests above would fail if torch came earlier."""
    assert "torch" in loaded(OPEN + "cube.reflectance[0, 0, 0, 0].values", tmp_path, store)


def test_nobody_needs_to_import_xtec(store, tmp_path):
    code = OPEN + "import json\nprint(json.dumps(int(cube.reflectance.sum())))"
    assert run(code, tmp_path, store) == int(xr.open_zarr(store).reflectance.sum())


def test_entry_points_name_both_sockets(tmp_path):
    code = """
import json, sys
import numcodecs, zarr.registry
found = [
    type(numcodecs.get_codec({"id": "xarray-tec.tt"})).__name__,
    zarr.registry.get_codec_class("xarray-tec.tt").__name__,
]
print(json.dumps(found))
"""
    assert run(code, tmp_path) == ["TecCodec", "TecSerializer"]


def test_without_the_package_the_error_names_what_to_install(store, tmp_path):
    """The canary of the entry points, and what a reader without xtec meets."""
    code = """
import importlib.metadata, json, sys
whole = importlib.metadata.Distribution.entry_points.fget
importlib.metadata.Distribution.entry_points = property(
    lambda self: importlib.metadata.EntryPoints(
        e for e in whole(self) if not e.value.startswith("xtec")
    )
)
import xarray as xr, zarr
try:
    xr.open_zarr(sys.argv[1])
except Exception as error:
    message = str(error)
attributes = dict(zarr.open_group(sys.argv[1], mode="r", use_consolidated=False).attrs)
print(json.dumps([message, attributes["tec_install"]]))
"""
    message, hint = run(code, tmp_path, store)
    assert "xarray-tec.tt" in message
    assert "pip install xarray-tec" in hint
