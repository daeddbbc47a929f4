import subprocess
import sys

import pytest
import xarray as xr

from xtec.cli import main


def test_the_demo_writes_a_store_that_another_process_opens(tmp_path, capsys):
    store, picture = tmp_path / "demo.zarr", tmp_path / "demo.png"
    arguments = ["--store", str(store), "--picture", str(picture), "--size", "128", "--dates", "2"]
    assert main(["demo", *arguments]) == 0
    printed = capsys.readouterr().out
    for expected in ("times smaller", "per pixel per band", "B8A", "psnr_pooled", str(store)):
        assert expected in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    code = f"import xarray as xr; print(xr.open_zarr({str(store)!r}).sizes)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'time': 2, 'band': 13, 'y': 128, 'x': 128" in done.stdout


def test_a_higher_compression_setting_is_larger_and_better(tmp_path):
    cubes = {}
    for compression in ("3", "200"):
        store = tmp_path / compression
        arguments = ["--store", str(store), "--size", "128", "--dates", "2"]
        assert main(["demo", *arguments, "--compression", compression]) == 0
        cubes[compression] = xr.open_zarr(store)
    stored = {c: cube.tec.info().stored_bytes for c, cube in cubes.items()}
    assert stored["3"] < stored["200"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--compression", "-1"], "compression"),
        (["train", "no-such-recipe.toml", "--data", "."], "no-such-recipe.toml"),
    ],
)
def test_errors_are_one_line_and_exit_with_1(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "demo":
        arguments = [*arguments, "--size", "64", "--dates", "1"]
    assert main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("xtec: ")
    assert message in lines[-1]
