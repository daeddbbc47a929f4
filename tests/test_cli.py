"""The command line: what it prints, where, and what its exit codes say."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import rioxarray
import xarray as xr

from tests.models import BEST
from tests.products import Safe, write_tif
from xtec import io, sample
from xtec.cli import COMMANDS, main

BANDS = ["B02", "B04", "B08"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"
)


@pytest.fixture(scope="module")
def original():
    return sample.cube(dates=2, size=(30, 40)).sel(band=BANDS)


@pytest.fixture(scope="module")
def source(original, tmp_path_factory):
    """The cube, uncompressed in Zarr."""
    path = tmp_path_factory.mktemp("cli") / "cube.zarr"
    original.to_zarr(path)
    return path


@pytest.fixture(scope="module")
def fast(precise):
    """Arguments that choose the tiny model."""
    return ["--model", precise.model, "--compression", str(BEST)]


@pytest.fixture(scope="module")
def store(source, fast, tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "out.zarr"
    chunks = ["--chunks", "time=1,y=16,x=-1", "--max-error", "B02=3,B04=4,B08=5"]
    assert main(["compress", str(source), str(path), *fast, *chunks]) == 0
    return path


def printed(capsys, *arguments, code=0):
    """What a command prints as JSON."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def test_the_demo_writes_a_store_that_another_process_opens(tmp_path, capsys):
    store, picture, bits = (tmp_path / name for name in ("demo.zarr", "demo.png", "bits.png"))
    drawn = ["--picture", str(picture), "--bits", str(bits)]
    assert main(["demo", "--store", str(store), *drawn, "--size", "64", "--dates", "2"]) == 0
    captured = capsys.readouterr()
    for expected in ("times smaller", "per pixel per band", "B8A", "psnr_pooled", str(store)):
        assert expected in captured.out
    assert captured.err == ""  # no bar where nobody watches
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert bits.read_bytes().startswith(b"\x89PNG")
    code = f"import xarray as xr; print(xr.open_zarr({str(store)!r}).reflectance.sizes)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'time': 2, 'band': 13, 'y': 64, 'x': 64" in done.stdout


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "xtec.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("xtec 0.")


def test_a_higher_compression_setting_is_larger_and_better(tmp_path):
    cubes = {}
    for compression in ("3", "200"):
        store = tmp_path / compression
        arguments = ["--store", str(store), "--size", "64", "--dates", "2"]
        assert main(["demo", *arguments, "--compression", compression]) == 0
        cubes[compression] = xr.open_zarr(store)
    stored = {c: cube.tec.info().stored_bytes for c, cube in cubes.items()}
    assert stored["3"] < stored["200"]


def test_compress_takes_what_a_user_may_choose(source, fast, tmp_path, capsys):
    choices = [
        "--chunks",
        "time=2,y=10,x=20",
        "--shards",
        "y=20",
        "--max-error",
        "4",
        "--no-embed-weights",
    ]
    fields = printed(capsys, "compress", source, tmp_path / "a.zarr", *fast, *choices)
    assert fields["chunks"] == [2, 3, 10, 20]
    assert fields["shards"] == [2, 3, 20, 20]
    assert fields["max_error"] == 4
    assert fields["model_bytes"] is None
    assert fields["zarr_format"] == 3
    assert fields["stored_bytes"] > 0
    again = ["compress", source, tmp_path / "a.zarr", *fast, "--zarr-format", "2"]
    assert main([*map(str, again)]) == 1
    assert "overwrite" in capsys.readouterr().err
    chosen = ["--overwrite", "--bands", "red,B02", "--nodata", "0", "--offset", "0"]
    fields = printed(capsys, *again, *chosen)
    assert fields["bands"] == ["B04", "B02"]
    assert fields["zarr_format"] == 2
    assert fields["shards"] is None
    assert fields["model_bytes"] > 0


def test_targets_reach_compress(source, tmp_path, capsys):
    arguments = ["compress", str(source), str(tmp_path / "t.zarr")]
    assert main([*arguments, "--target-psnr", "40", "--target-bpppb", "1"]) == 1
    assert "target_bpppb=1" in capsys.readouterr().err


def test_netcdf_safe_and_geotiffs_are_inputs(original, fast, tmp_path, capsys):
    original.to_netcdf(tmp_path / "cube.nc", engine="scipy")
    fields = printed(capsys, "compress", tmp_path / "cube.nc", tmp_path / "n.zarr", *fast)
    assert fields["shape"] == [2, 3, 30, 40]
    verdict = printed(
        capsys, "verify", tmp_path / "n.zarr", "--against", tmp_path / "cube.nc", code=0
    )
    assert verdict["ok"]
    Safe().write(tmp_path)
    (product,) = tmp_path.glob("*.SAFE")
    fields = printed(
        capsys, "compress", product, tmp_path / "s.zarr", *fast, "--bands", "B02,B04,B08"
    )
    assert fields["bands"] == BANDS
    files = io.to_geotiff(original, tmp_path / "scenes")
    fields = printed(capsys, "compress", *files, tmp_path / "g.zarr", *fast)
    assert fields["shape"] == [2, 3, 30, 40]


def test_names_of_geotiffs_that_say_little_need_help(fast, tmp_path, capsys):
    for year in ("2023", "2024"):
        write_tif(tmp_path / f"taken_{year}.tif", np.full((3, 18, 24), 900, np.uint16), nodata=0)
    files = sorted(tmp_path.glob("*.tif"))
    arguments = ["compress", *files, tmp_path / "out.zarr", *fast, "--bands", "B02,B04,B08"]
    assert main([*map(str, arguments)]) == 1
    assert "no date in the name" in capsys.readouterr().err
    fields = printed(capsys, *arguments, "--time", r"_(\d{4})")
    assert fields["shape"] == [2, 3, 18, 24]
    assert fields["bands"] == BANDS


def test_info_says_the_same_to_people_and_programs(store, capsys):
    fields = printed(capsys, "info", store)
    assert main(["info", str(store)]) == 0
    shown = capsys.readouterr().out
    assert fields["model"] in shown
    assert f"{fields['bits_per_pixel_per_band']:.3f}" in shown
    assert fields["bands"] == BANDS
    assert fields["max_error"] == [3, 4, 5]


def test_verify_says_by_its_exit_code_whether_all_is_well(store, source, tmp_path, capsys):
    fields = printed(capsys, "verify", store, "--against", source)
    assert fields["ok"]
    assert fields["against"]["bound"] == {"B02": 3, "B04": 4, "B08": 5}
    assert fields["against"]["bound_kept"]
    damaged = shutil.copytree(store, tmp_path / "b.zarr")
    path = damaged / "reflectance" / "c" / "1" / "0" / "1" / "0"
    data = bytearray(path.read_bytes())
    data[-30] ^= 4
    path.write_bytes(data)
    fields = printed(capsys, "verify", damaged, code=3)
    (fault,) = fields["faults"]
    assert fault["chunk"] == [1, 0, 1, 0]
    assert fault["file"] == "reflectance/c/1/0/1/0"
    assert "checksum" in fault["reason"]
    assert main(["verify", str(damaged)]) == 3
    assert "chunk (1, 0, 1, 0)" in capsys.readouterr().out


def test_export_writes_geotiffs_that_rioxarray_opens(store, tmp_path, capsys):
    assert main(["export", str(store), str(tmp_path / "a"), "--prefix", "p_"]) == 0
    files = capsys.readouterr().out.split()
    assert len(files) == 2
    decoded = xr.open_zarr(store, mask_and_scale=False).reflectance
    with rioxarray.open_rasterio(files[1]) as raster:
        np.testing.assert_array_equal(raster.values, decoded[1])
        assert raster.rio.crs == decoded.rio.crs
    assert main(["export", str(store), str(tmp_path / "a"), "--format", "cog"]) == 0
    assert main(["export", str(store), str(tmp_path / "a")]) == 1
    assert "overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("zarr_format", ["2", "3"])
def test_export_writes_zarr_that_needs_no_xtec(store, original, tmp_path, capsys, zarr_format):
    plain = tmp_path / "plain.zarr"
    assert main(["export", str(store), str(plain), "--zarr-format", zarr_format]) == 0
    assert "xarray-tec" not in "".join(p.read_text() for p in plain.rglob("*.json"))
    assert "xarray-tec" not in "".join(p.read_text() for p in plain.rglob(".z*"))
    before, after = xr.open_zarr(store), xr.open_zarr(plain)
    xr.testing.assert_equal(before.load(), after.load())
    assert after.reflectance.encoding["chunks"] == before.reflectance.encoding["chunks"]
    assert after.rio.crs == original.rio.crs
    assert after.attrs["tec_lossy"]
    assert main(["export", str(store), str(plain)]) == 1
    assert main(["export", str(store), str(plain), "--overwrite"]) == 0
    assert main(["export", str(plain), str(tmp_path / "again.zarr")]) == 1
    assert "compressed" in capsys.readouterr().err


def test_bench_measures_the_sample_cube_or_ones_own(source, fast, capsys):
    fields = printed(capsys, "bench", source, *fast, "--chunks", "y=16,x=16", "--max-error", "2")
    assert fields["chunks"] == 6
    assert fields["max_error"] <= 2
    assert fields["encode_mb_per_s"] > 0
    assert fields["decode_mb_per_s"] > 0
    assert 0 < fields["bits_per_pixel_per_band"] < 17
    assert main(["bench", "--size", "16", "--dates", "1"]) == 0
    assert "the sample cube, 1 dates of 16 x 16" in capsys.readouterr().out


def test_plan_foretells(source, fast, capsys):
    fields = printed(capsys, "plan", source, *fast, "--chunks", "y=16,x=16")
    assert fields["chunks"] == 6
    assert fields["expected_bytes"] > 0


@pytest.mark.parametrize("name", [command.__name__.rpartition(".")[2] for command in COMMANDS])
def test_every_command_has_a_help_with_examples(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"  xtec {name}" in text.partition("examples:")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--compression", "-1", "--size", "16", "--dates", "1"], "compression"),
        (["train", "no-such-recipe.toml", "--data", "."], "no-such-recipe.toml"),
        (["info", "nowhere.zarr"], "no Zarr store nowhere.zarr"),
        (["verify", "nowhere.zarr"], "no Zarr store nowhere.zarr"),
        (["verify", "plain.zarr"], "nothing in plain.zarr was compressed"),
        (["info", "plain.zarr"], "compressed"),
        (["compress", "nowhere.zarr", "b.zarr"], "no Zarr store nowhere.zarr"),
        (["compress", "nowhere.nc", "b.zarr"], "nowhere.nc"),
        (["compress", "broken.nc", "b.zarr"], "pip install netCDF4"),
        (["compress", "a.tif", "b.SAFE", "c.zarr"], "GeoTIFF and SAFE at once"),
        (["compress", "a.zarr", "b.zarr", "c.zarr"], "2 files of Zarr"),
        (["compress", "plain.zarr", "b.zarr"], "no band dimension"),
        (["compress", "plain.zarr", "b.zarr", "--time", "(.*)"], "--time"),
        (["export", "nowhere.zarr", "folder"], "no Zarr store nowhere.zarr"),
        (["bench", "--size", "0"], "at least 1"),
    ],
)
def test_errors_are_one_line_and_exit_with_1(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    xr.Dataset({"a": ("x", [1.0])}).to_zarr("plain.zarr")
    (tmp_path / "broken.nc").write_bytes(b"no file of any kind")
    assert main(arguments) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("xtec: ")
    assert message in line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["compress", "a.zarr"],
        ["compress", "a.zarr", "b.zarr", "--chunks", "8"],
        ["compress", "a.zarr", "b.zarr", "--max-error", "B02=x"],
        ["compress", "a.zarr", "b.zarr", "--zarr-format", "4"],
    ],
)
def test_a_wrong_command_line_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: xtec" in capsys.readouterr().err


@pytest.mark.filterwarnings("default:.*compressed with loss before")
def test_a_warning_is_one_line_and_stdout_stays_json(store, fast, tmp_path, capsys):
    assert main(["compress", str(store), str(tmp_path / "twice.zarr"), *fast, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["model"] == "precise"
    (line,) = captured.err.splitlines()
    assert line.startswith("xtec: warning: 'reflectance' was compressed with loss before")


def test_an_interrupt_exits_with_130(monkeypatch, capsys):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "cube", interrupt)
    assert main(["bench"]) == 130
    assert "interrupted" in capsys.readouterr().err
