#!/usr/bin/env bash
# Builds wheel and source archive and tries the wheel where nothing else is: `make wheel`.
#
# The environment is new, and every dependency comes from the package index as the wheel asks for
# it. Only torch, which alone would take minutes, is laid in as links, with its metadata: pip counts
# it as installed and still installs what torch itself needs. Nothing of the checkout is on the path.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(realpath "${1:-.venv}")/bin/python
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT

rm -rf dist
"$tools" -m build # the wheel is built from the source archive, so that is whole too
"$tools" -m twine check --strict dist/*

"$tools" -m venv "$empty/venv"
python=$empty/venv/bin/python
packages='import sysconfig; print(sysconfig.get_path("purelib"))'
ln -s "$("$tools" -c "$packages")"/{torch,torchgen,functorch,torch-*.dist-info} "$("$python" -c "$packages")"
"$python" -m pip --disable-pip-version-check install -q --no-compile "$(echo dist/*.whl)[plot]"
"$python" -m pip check

cp tests/typed_client.py "$empty"
"$tools" - "$empty" <<'EOF' # what docs/tutorial.md shows, and a product of ESA to show it on
import sys
from pathlib import Path

sys.path.insert(0, "")
from tests.test_documents import PAGES, product, script

folder = Path(sys.argv[1])
product(folder)
(folder / "tutorial.py").write_text(script(PAGES["docs/tutorial.md"]))
EOF
cd "$empty"
venv/bin/xtec demo --size 128 --dates 2
"$python" - <<'EOF'
import sys
import xarray as xr

opened = xr.open_zarr("demo.zarr").load()  # by the entry point: xtec is not imported here
import xtec

assert xtec.__file__.startswith(sys.prefix), xtec.__file__
print("The wheel reads", opened.tec.info().shape, "from", xtec.__file__)
EOF
MPLBACKEND=agg "$python" tutorial.py
ls cube.png tiffs/*.tif
"$tools" -m mypy --strict --cache-dir "$empty/cache" --python-executable "$python" typed_client.py
