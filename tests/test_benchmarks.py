"""The benchmarks run, on a cube small enough for that, and count what they say they count.

OpenJPEG comes with imagecodecs (the extra `bench`); without it two of the three are skipped.
"""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from xtec import sample
from xtec.codec import Settings, encode_chunk
from xtec.coding import rans, stream, tables
from xtec.metrics import compare
from xtec.sentinel2 import BANDS

HERE = Path(__file__).parents[1] / "benchmarks"
SIZE = 128


@pytest.fixture
def script(monkeypatch):
    """Import one of the scripts as Python finds it when it is run: beside its neighbours."""
    monkeypatch.syspath_prepend(HERE)
    yield importlib.import_module
    for path in HERE.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def classical(script):
    pytest.importorskip("imagecodecs", reason="imagecodecs, of the extra bench, is not installed")
    return script


@pytest.fixture(scope="session")
def cube():
    """Three dates, uint16 (time, band, y, x)."""
    return sample.cube(dates=3, size=SIZE).reflectance.to_numpy()


@pytest.fixture(scope="session")
def folder(cube, tmp_path_factory):
    """A validation folder: a pair, and a series of nine dates."""
    root = tmp_path_factory.mktemp("data")
    (root / "val").mkdir()
    names = np.array([band.name for band in BANDS])
    np.savez(root / "val" / "pair.npz", pixels=cube[:2], bands=names)
    np.savez(root / "val" / "series.npz", pixels=np.tile(cube, (3, 1, 1, 1)), bands=names)
    return str(root)


def test_rate_distortion_prints_every_codec(classical, folder, capsys, monkeypatch):
    script = classical("rate_distortion")
    monkeypatch.setattr(script, "LEVELS", (48.0, 60.0))
    script.main(["--data", folder, "--compression", "5", "100", "--alone"])
    out = capsys.readouterr().out
    for codec in (script.Bands, script.CheckedBands, script.Components, script.Klt):
        assert f"| {codec.name} | 0." in out
    assert "| xtec | 0." in out
    assert "| xtec, each date alone | 0." in out
    assert "| pair | " in out


def test_rate_distortion_of_a_series(classical, folder, capsys):
    classical("rate_distortion").main(["--data", folder, "--series", "--compression", "5", "100"])
    out = capsys.readouterr().out
    assert "chunks of 8 dates" in out
    assert "| pair | " not in out


@pytest.mark.slow  # five processes, and four of them import torch
def test_throughput_prints_both_codecs(classical, folder, capsys):
    classical("throughput").main(["--data", folder, "--cube", "pair", "--repeats", "1"])
    out = capsys.readouterr().out
    assert "| xtec | " in out
    assert "| JPEG 2000, each band its own file | " in out


def test_streams_cross_between_devices(classical, cube, tmp_path):
    np.save(tmp_path / "cube.npy", cube[:1])
    learned = classical("coders").Learned(Settings())
    table = classical("throughput").exchange(learned, tmp_path / "cube.npy")
    assert table.count("| cpu | cpu | all 1 streams | 0 DN |") == 2


def test_prior_cost_prints_its_steps(script, folder, capsys):
    script("prior_cost").main(["--data", folder, "--compression", "20", "--bits", "7", "14"])
    out = capsys.readouterr().out
    assert "| 20 | 7 | " in out
    assert "| 20 | 14 | " in out


def test_prior_cost_counts_the_payload_of_the_codec(script, cube):
    settings = Settings(compression=20)
    costs = script("prior_cost").Experiment(settings, []).costs(cube, settings)
    (cost,) = costs.values()
    assert cost.payload == 8 * len(stream.parse(encode_chunk(cube, settings)).payload)
    # The coder adds its last state of 64 bits, and next to nothing else.
    assert 0 < cost.payload - cost.exact < 64 + 1e-3 * cost.exact


def test_code_length_is_what_the_coder_writes(script):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(tables.load().sizes), 20_000).astype(np.uint16)
    symbols = rng.normal(0, 2, len(rows)).round().astype(np.int32)
    length, escaped = script("prior_cost").code_length(symbols, rows)
    assert 0.05 < escaped.mean() < 0.95
    payload, _ = rans.encode(symbols, rows, tables.load(), [len(symbols)])
    assert length.sum() == pytest.approx(8 * len(payload), rel=1e-3)


@pytest.mark.parametrize("name", ["Bands", "CheckedBands", "Components", "Klt"])
def test_classical_codecs_reach_their_target(classical, cube, name):
    coders = classical("coders")
    coder = getattr(coders, name)(45 + coders.LEVEL_OF_PEAK)
    decoded = coder.decode(coder.encode(cube), cube.shape)
    assert decoded.dtype == np.uint16
    assert compare(cube, decoded).psnr_pooled == pytest.approx(45, abs=1)


def test_only_checked_files_keep_a_flat_band(classical):
    """OpenJPEG loses the mean of nearly flat bands; what is quoted against us must not."""
    coders = classical("coders")
    noise = np.random.default_rng(0).normal(size=(1, 1, 256, 256))
    flat = (2050 + 15 * noise).astype(np.uint16)

    def psnr(coder):
        return compare(flat, coder.decode(coder.encode(flat), flat.shape)).psnr_pooled

    level = 33 + coders.LEVEL_OF_PEAK
    assert psnr(coders.Bands(level)) < 30
    assert psnr(coders.CheckedBands(level)) > 32


@pytest.fixture
def curve(script):
    """Make a curve of rates at PSNR 30, 35, 40, 45."""
    curves = script("curves")

    def made(rates):
        original = np.zeros((1, 1, 100, 100), np.uint16)
        points = []
        for rate, psnr in zip(rates, (30, 35, 40, 45), strict=True):
            error = np.uint16(np.rint(10_000 / 10 ** (psnr / 20)))
            points.append(curves.point(rate, original, original + error))
        return curves.Curve(tuple(points))

    return made


def test_bd_rate_of_half_the_bits_is_minus_half(script, curve):
    bd_rate = script("curves").bd_rate
    one, half = curve([100, 200, 600, 1600]), curve([50, 100, 300, 800])
    assert bd_rate(one, one).rate == 0
    assert bd_rate(half, one).rate == pytest.approx(-0.5)
    assert bd_rate(one, half, 33, 44).rate == pytest.approx(1)


def test_a_curve_interpolates_and_does_not_guess(curve):
    made = curve([100, 200, 600, 1600])
    (low, _), (first, second) = made.span, (p.bpppb for p in made.best[:2])
    assert first == 8 * 100 / 10_000
    assert made.rate(low) == pytest.approx(first)
    assert first < made.rate(32) < second
    assert np.isnan(made.rate(29))
