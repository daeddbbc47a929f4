"""A store met by a reader who does not have xtec, in ten years or on another machine.

In a process in which xtec cannot be imported and has no entry points, with plain zarr and xarray.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import make

GOLDEN = Path(__file__).parent / "golden"
STORES = sorted(GOLDEN.glob("v*/*.zarr"))

WITHOUT = """
import importlib.abc, importlib.metadata, json, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "xtec":
            raise ModuleNotFoundError("No module named 'xtec'")
sys.meta_path.insert(0, Blocked())
whole = importlib.metadata.Distribution.entry_points.fget
importlib.metadata.Distribution.entry_points = property(
    lambda self: importlib.metadata.EntryPoints(
        e for e in whole(self) if not e.value.startswith("xtec")
    )
)
try:
    import xtec
except ModuleNotFoundError:
    blocked = True
"""

READ = """
import numpy as np, xarray as xr, zarr
store, found = sys.argv[1], {"blocked": blocked, "errors": []}
for read in (
    lambda: xr.open_zarr(store).load(),
    lambda: xr.open_zarr(store, consolidated=False).load(),
    lambda: zarr.open_group(store, mode="r", use_consolidated=False)["reflectance"][:],
):
    try:
        read()
    except Exception as error:
        found["errors"].append(str(error))
group = zarr.open_group(store, mode="r", use_consolidated=False)
found["about"] = dict(group.attrs)
for name in ("time", "band", "y", "x", "sun_elevation"):
    found[name] = np.asarray(group[name][:]).tolist()
found["time_units"] = group["time"].attrs["units"]
found["units"] = group["sun_elevation"].attrs["units"]
if "tec_models" in group:
    (model,) = group["tec_models"].array_values()
    found["model"] = [dict(model.attrs), model[:].tobytes().hex()]
print(json.dumps(found))
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("store", STORES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_who_does_not_have_xtec_is_told_what_to_install_and_reads_all_the_rest(store):
    found = run(WITHOUT + READ, store)
    assert found["blocked"]
    assert len(found["errors"]) == 3
    assert all("xarray-tec.tt" in message for message in found["errors"])
    about = found["about"]
    assert "pip install xarray-tec" in about["tec_install"]
    assert "'reflectance'" in about["tec_install"]
    prefix, options = make.STORES[store.stem]
    weights = store.parent / f"golden-{prefix}{store.parent.name[1:]}.safetensors"
    assert about["tec_model"] == weights.stem
    assert about["tec_model_digest"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    cube = make.cube()
    assert about["title"] == cube.attrs["title"]
    for name in ("y", "x", "sun_elevation", "band"):
        assert found[name] == cube[name].values.tolist()
    assert found["units"] == "degree"
    assert found["time_units"] == "microseconds since 1970-01-01"
    assert found["time"] == (cube.time.values.astype("int64") // 1000).tolist()
    if options["embed_weights"]:
        attributes, data = found["model"]
        assert bytes.fromhex(data) == weights.read_bytes()
        assert attributes["file"] == weights.name


def test_the_same_process_with_xtec_reads_it():
    """The canary: it is the missing package that the errors above come from."""
    code = "blocked = False\nimport json, sys\n" + READ
    assert run(code, GOLDEN / "v1" / "format-3.zarr")["errors"] == []
