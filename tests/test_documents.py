"""What people read and copy runs: the notebooks and the README, each in a process of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import SMALL_L1C, network, write_checkpoint

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(code, folder, **environment):
    script = folder / "code.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_code_of_the_readme_runs(tmp_path):
    """With small networks where it names official ones."""
    models = tmp_path / "models"
    models.mkdir()
    for value in (5, 20):
        path = models / f"TerraCodec_v1_TT_S2L1C_lambda-{value}.pt"
        write_checkpoint(path, network(SMALL_L1C))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    run("\n".join(blocks), tmp_path, XTEC_MODEL_PATH=str(models))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path, tmp_path):
    cells = json.loads(path.read_text())["cells"]
    lines = [line for c in cells if c["cell_type"] == "code" for line in [*c["source"], "\n"]]
    run("".join(line for line in lines if not line.startswith("%")), tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_outputs_of_a_notebook_are_there_and_small(path):
    cells = json.loads(path.read_text())["cells"]
    assert any(c.get("outputs") for c in cells)
    assert path.stat().st_size < 700_000
