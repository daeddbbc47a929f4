"""The code of docs/reading.md runs, on products a few pixels large."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import xarray as xr

from tests.products import GSD, Safe, eopf, pixels, write_tif
from tests.test_io_recognise import stacked

PAGE = Path(__file__).parents[1] / "docs" / "reading.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.filterwarnings("ignore:(Consolidated metadata|The data type .* does not have a Zarr)")
def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        sys.modules, "stackstac", SimpleNamespace(stack=lambda *items, **options: stacked())
    )
    old = {"start": "20200103T101329", "datastrip": "20200103T101328", "baseline": "02.08"}
    Safe().write(tmp_path)
    Safe(seed=1, sensed="2020-01-03T10:18:05Z", offset=None, **old).write(tmp_path)
    (tmp_path / "scenes").mkdir()
    for day in ("20200103", "20240103"):
        for band in ("B04", "B8A"):
            name = f"T32TQR_{day}T101329_{band}_{GSD[band]}m.tif"
            write_tif(tmp_path / "scenes" / name, pixels(band)[None], GSD[band], nodata=0)
    eopf(tmp_path / "S2B.zarr")
    names = {"items": []}
    assert len(BLOCKS) == 7
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["cube"].sizes["band"] == 12  # the last is EOPF's
    assert isinstance(names["bands"], xr.DataTree)
    assert len(list(tmp_path.glob("bands/*.tif"))) == 6
    assert Path("date.tif").exists()
