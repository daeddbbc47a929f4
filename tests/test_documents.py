"""What people read and copy runs: README, every page of docs/, and the notebooks.

The blocks of a page run in their order as one script, in a process and an empty folder of their
own. A block that cannot run here says so and why, in a comment above it, and is counted.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.models import SMALL_L1C, network, write_checkpoint
from tests.products import Safe

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

NOT_RUN = {
    "CONTRIBUTING.md": 2,
    "README.md": 3,
    "docs/howto/model.md": 1,
    "docs/training.md": 2,
    "docs/tutorial.md": 1,
}
"""How many blocks of a page are excused. One more is a decision, to be made here."""

ELSEWHERE = {"docs/reading.md"}
"""Run by test_io_document, among products of every kind."""

UNREAD = {"bibtex"}
"""Languages of blocks that nobody runs; a block without a language has none."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    excuse: str | None
    """Why it is not run; None if it is."""


BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<excuse>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def blocks_of(text):
    return [Block(m["language"], m["text"], m["excuse"]) for m in BLOCK.finditer(text)]


PAGES = {
    path.relative_to(ROOT).as_posix(): blocks_of(path.read_text(encoding="utf-8"))
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
}


def script(blocks):
    """One program of what is to be run; commands of the shell are calls of xtec's own."""
    parts = []
    for block in blocks:
        if block.excuse or block.language in UNREAD:
            continue
        if block.language == "python":
            parts.append(block.text)
            continue
        assert block.language == "bash", f"a block of no known language: {block.text}"
        for line in block.text.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "xtec", f"only xtec is run here: {line}"
            parts.append(f"from xtec.cli import main\nassert main({arguments!r}) == 0\n")
    return "\n".join(parts)


RUN_PAGES = sorted(name for name in PAGES.keys() - ELSEWHERE if script(PAGES[name]))

SAMPLE = "from xtec import sample\nds = sample.cube(dates=2, size=64)\n"


def official(folder):
    """Small networks under the names of TerraCodec's."""
    for value in (5, 20):
        path = folder / f"TerraCodec_v1_TT_S2L1C_lambda-{value}.pt"
        write_checkpoint(path, network(SMALL_L1C))
    return SAMPLE


def official_and_own(folder):
    (folder / "folder").mkdir()
    write_checkpoint(folder / "folder" / "my_checkpoint.pt", network(SMALL_L1C))
    return official(folder) + (
        "import torch, xtec\nfrom tests.models import SMALL_L1C, network as small\n"
        "digital_numbers = torch.tensor(ds.tec.array.values)\nnetwork = small(SMALL_L1C)\n"
    )


def trained(folder):
    """What a training run leaves: the embedded weights, and a log of two lines."""
    (folder / "RUN").mkdir()
    weights = next((ROOT / "xtec" / "models").glob("*.safetensors"))
    shutil.copy(weights, folder / "RUN" / "model.safetensors")
    values = {"1.8": 0.02, "16": 0.06, "140": 0.2}
    rows = [{"step": 50, "loss": 1.0}, {"step": 500, "val_bits_per_number": values}]
    (folder / "RUN" / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return SAMPLE + "import xtec\n"


def cluster(folder):
    """A raw cube, and a cluster of threads wherever one is asked for."""
    return SAMPLE + (
        "import distributed\nds.drop_encoding().to_zarr('raw.zarr')\n"
        "class Client(distributed.Client):\n    def __init__(self, *given, **options):\n"
        "        options |= {'processes': False, 'dashboard_address': None}\n"
        "        super().__init__(*given, **options)\n"
        "distributed.Client = Client\n"
    )


def product(folder):
    Safe().write(folder)
    return ""


def named_product(folder):
    Safe().write(folder)
    next(folder.glob("*.SAFE")).rename(folder / "product.SAFE")
    return ""


PREPARE = {
    "README.md": official,
    "docs/command_line.md": named_product,
    "docs/guarantees.md": lambda folder: SAMPLE + "import xtec\n",
    "docs/howto/model.md": trained,
    "docs/scaling.md": cluster,
    "docs/terracodec.md": official_and_own,
    "docs/training.md": trained,
    "docs/tutorial.md": product,
}
"""What a page takes for granted: writes files into its folder and gives the first lines."""


def run(code, folder, **environment):
    path = folder / "code.py"
    path.write_text(code)
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, path],
        cwd=folder,
        env=os.environ | environment | {"PYTHONPATH": paths, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", RUN_PAGES)
def test_the_code_of_a_page_runs(name, tmp_path):
    first = PREPARE.get(name, lambda folder: "")(tmp_path)
    run(first + script(PAGES[name]), tmp_path, XTEC_MODEL_PATH=str(tmp_path))


def test_pages_with_code_are_found():
    assert {"README.md", "docs/tutorial.md", "docs/howto/quality.md"} <= set(RUN_PAGES)
    assert set(PREPARE) <= set(RUN_PAGES)
    assert PAGES.keys() >= ELSEWHERE


def test_no_further_block_is_excused():
    excused = {name: sum(b.excuse is not None for b in blocks) for name, blocks in PAGES.items()}
    assert {name: count for name, count in excused.items() if count} == NOT_RUN


def test_code_stands_in_fences_where_it_is_found():
    """In an indented block nothing would run it."""
    for name in PAGES:
        text = BLOCK.sub("", (ROOT / name).read_text(encoding="utf-8"))
        assert "```" not in text, f"{name}: a fence that is not closed, or not at the margin"
        assert not re.search(r"^    .*(\.tec\.|import xtec)", text, re.MULTILINE), name


def test_a_broken_block_is_noticed(tmp_path):
    page = "```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n"
    with pytest.raises(AssertionError, match="assert x == 2"):
        run(script(blocks_of(page)), tmp_path)


def test_a_command_that_fails_is_noticed(tmp_path):
    page = "```bash\nxtec demo --store demo.zarr --size 0\n```\n"
    with pytest.raises(AssertionError, match="assert main"):
        run(script(blocks_of(page)), tmp_path)


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
