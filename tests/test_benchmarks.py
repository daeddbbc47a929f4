"""The benchmarks run, on a cube small enough for that, and count what they say they count.

The classical codecs come with the extra `bench`; without it most of this is skipped.
"""

import copy
import dataclasses
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import SMALL_L1C, TINY, network, write_checkpoint
from tests.test_network import parity
from xtec import sample
from xtec.codec import Settings
from xtec.coding import rans, tables
from xtec.engine import Engine
from xtec.errors import InputError, StreamError
from xtec.metrics import compare
from xtec.models.config import S2L1C
from xtec.models.network import TemporalTransformer, sigma
from xtec.sentinel2 import BANDS
from xtec.train.loss import bits

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


@pytest.fixture
def few(classical, monkeypatch):
    """Two settings of every classical codec, from the middle of what is usual."""
    codecs = classical("competitors").CODECS
    middle = [(m, c, settings[len(settings) // 2 :][:2]) for m, c, settings in codecs]
    monkeypatch.setattr(classical("competitors"), "CODECS", middle)
    return [getattr(classical(m), c) for m, c, _ in codecs if m != "coders_video" or has_x265()]


def has_x265():
    return importlib.util.find_spec("av") is not None


@pytest.mark.slow  # every codec, twice
def test_rate_distortion_prints_every_codec_and_writes_a_page(
    classical, few, folder, capsys, tmp_path, monkeypatch
):
    main, docs = classical("rate_distortion").main, tmp_path / "docs"
    arguments = ["--data", folder, "--cache", str(tmp_path / "cache"), "--compression", "5", "100"]
    main([*arguments, "--docs", str(docs)])
    out, page = capsys.readouterr().out, (docs / "benchmarks.md").read_text()
    for codec in few:
        assert f"| {codec.name} | " in out
        assert f"| {codec.name} | " in page
    assert "| xtec | 0." in out
    assert "| pair | " in out
    assert "$" not in page
    assert str(tmp_path) not in page
    assert "benchmarks/rate_distortion.py --docs --compression 5 100\n" in page
    for picture in ("rate_distortion.png", "rate_distortion_series.png"):
        assert f"]({picture})" in page
        assert (docs / picture).stat().st_size > 10_000
    # Once more: the model is measured again, the classical codecs are looked up.
    for codec in few:
        monkeypatch.setattr(codec, "encode", None)
    main([*arguments, "--alone"])
    again = capsys.readouterr().out
    assert "| xtec, each date alone | 0." in again
    assert next(x for x in again.splitlines() if x.startswith("| JPEG XL")) in out


def test_a_codec_without_its_library_is_left_out_and_named(classical, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    found, missing = classical("competitors").available(1)
    assert not [codec for codec in found if "x265" in codec.name]
    assert len(found) == 8
    assert "pip install av" in missing[0]


def test_rate_distortion_of_a_series(classical, few, folder, capsys):
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
    script("prior_cost").main(["--data", folder, "--compression", "20", "--bits", "7", "10"])
    out = capsys.readouterr().out
    assert "| 20 | 7 | " in out
    assert "| 20 | 10 | " in out


def test_prior_cost_is_small_and_hardly_falls_with_more_bits(script, cube):
    settings = Settings(compression=20)
    costs = [
        script("prior_cost").Experiment(settings, bits).cost(cube, settings.level)
        for bits in (8, 12)
    ]
    usual, fine = ((c.exact - c.ideal) / c.ideal for c in costs)
    assert -0.05 < usual < 0.01  # surprises of the synthetic cube cost less than a Gaussian's tails
    assert abs(usual - fine) < 0.003
    for cost in costs:
        # The coder adds its last state of 64 bits, and next to nothing else.
        assert 0 < cost.payload - cost.exact < 64 + 1e-3 * cost.exact


def test_code_length_is_what_the_coder_writes(script):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(tables.load().sizes), 20_000).astype(np.uint16)
    symbols = rng.normal(0, 2, len(rows)).round().astype(np.int32)
    length = script("prior_cost").code_length(symbols, rows)
    payload, _ = rans.encode(symbols, rows, tables.load(), [len(symbols)])
    assert length.sum() == pytest.approx(8 * len(payload), rel=1e-3)


@pytest.fixture(scope="module")
def drawn():
    """A tiny TEC-TT of random weights made for these frames, and latents drawn from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        random_tt, sampled = map(importlib.import_module, ("random_tt", "sampled"))
        frames = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        network = random_tt.network(frames, config=TINY)
        return network, frames, sampled.draw(network, 3, 8, 8), random_tt


def test_random_weights_have_latents_and_predictions_of_many_sizes(drawn):
    network, frames, _, random_tt = drawn
    sizes = network.analysis(frames).std((0, 2, 3)).sort().values
    expected = torch.logspace(*np.log10((random_tt.SMALLEST, random_tt.LARGEST)), len(sizes))
    torch.testing.assert_close(sizes, expected, rtol=0.1, atol=0)
    mean, scale, _ = network.prior(network.analysis(frames).round()[None])
    sigmas = sigma(scale)
    assert sigmas.quantile(0.05) < 0.3
    assert sigmas.quantile(0.95) > 10
    # Both follow what the network sees, in every channel.
    assert mean.std((0, 1, 3, 4)).min() > 0.01
    assert (sigmas.std((0, 1, 3, 4)) / sigmas.mean((0, 1, 3, 4))).min() > 0.05
    q = network.analysis(frames).round()
    back = network.synthesis(q, torch.zeros(2, TINY.d_model, *q.shape[2:]))
    assert 0.3 < back.std() < 3


def test_random_checkpoints_have_the_published_names_and_shapes(drawn, tmp_path):
    network, _, _, random_tt = drawn
    random_tt.save(network, tmp_path / "tiny.pt")
    again = random_tt.load(tmp_path / "tiny.pt", TINY)
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    with torch.device("meta"):
        full = random_tt.checkpoint(TemporalTransformer(S2L1C))
    keys = [
        {"key": k, "shape": list(v.shape), "dtype": str(v.dtype).removeprefix("torch.")}
        for k, v in full.items()
    ]
    published = json.loads(parity("tt_l1c_state_keys.json").read_text())
    for entry in published:
        del entry["kind"]
    assert sorted(keys, key=str) == sorted(published, key=str)


def test_drawn_latents_are_what_the_network_expects(drawn):
    network, _, q, _ = drawn
    mean, scale, _ = network.prior(q)
    deviation = sigma(scale)
    surprise = ((q - mean) / deviation)[deviation > 2]
    assert abs(surprise.mean()) < 0.1
    assert surprise.std() == pytest.approx(1, abs=0.1)
    spent = [bits(q, m, d).sum() for m, d in ((mean, deviation), (mean.roll(1, 3), deviation))]
    assert spent[0] < 0.97 * spent[1]


def test_the_cost_at_full_size_falls_with_more_bits(script, drawn):
    network, _, q, _ = drawn
    costs = [script("prior_cost").drawn_cost(network, q, bits) for bits in (4, 7, 12)]
    ideal = {c.cost.ideal for c in costs}
    assert len(ideal) == 1
    extra = [c.cost.exact / c.tables - 1 for c in costs]
    assert extra[0] > 0.003
    assert abs(extra[1]) < 0.003
    assert abs(extra[2]) < 0.001
    assert abs(costs[0].tables / costs[0].cost.ideal - 1) < 0.003
    low, high = costs[0].scales
    assert low < 0.3
    assert high > 10
    assert network.config == TINY


def test_operations_are_those_of_the_network(script):
    full = script("products").count(S2L1C, 256, 256)
    assert full.analysis == pytest.approx(20.3, abs=0.05)
    assert full.joint == pytest.approx(238.4, abs=0.05)
    assert full.memory + full.decoder == pytest.approx(59.4, abs=0.05)
    # A frame more is a context more; the first one's is known.
    assert full.encode(1) == full.analysis + full.decoder
    assert full.context == full.separate + full.joint + full.memory
    assert full.context + full.encode(1) == pytest.approx(494.8, abs=0.5)
    assert full.encode(3) - full.encode(2) == pytest.approx(full.context + full.encode(1))
    assert full.decode(3) - full.decode(2) == pytest.approx(full.context + full.decode(1))
    assert 0.99 * full.decoder < full.cached < full.decoder


class Fake:
    """A codec that keeps the pixels as they are."""

    def __init__(self, checkpoint, device):
        self.versions = {"weights": Path(checkpoint).name}
        self.analysis = torch.nn.Identity()

    def warm_up(self, pixels):
        assert len(pixels) == 1

    def encode(self, pixels):
        self.latents = self.analysis(torch.from_numpy(pixels)).numpy().astype(np.int32)
        return pixels

    def decode(self, coded):
        return coded

    def sizes(self, coded):
        return [int(np.abs(frame).sum()) for frame in self.latents]

    def seen(self):
        return {"latents": self.latents, "rows": np.arange(5, dtype=np.uint16)}


@pytest.fixture
def sides(script, tmp_path, monkeypatch):
    """What `vs_terracodec` reads from two sides, and their cube."""
    side, versus = script("side"), script("vs_terracodec")
    monkeypatch.setattr(side, "GEMM", 64)
    cube = np.random.default_rng(0).integers(0, 9999, (2, 13, 8, 8)).astype(np.uint16)
    pixels, latents, job = (tmp_path / name for name in ("x.npy", "q.npy", "job.json"))
    np.save(pixels, versus.standardised(cube))
    np.save(latents, np.full((2, 13, 8, 8), 3, np.float32))
    threads = torch.get_num_threads()
    how = [1, 2], 2, 2, "cpu", str(tmp_path)
    asked = side.Job("some/tt.pt", str(pixels), str(latents), *how)
    job.write_text(json.dumps(dataclasses.asdict(asked)))
    monkeypatch.setattr(sys, "argv", ["side", str(job)])
    side.work(Fake)
    assert torch.get_num_threads() == 1  # while drawn latents are counted: they come in order
    torch.set_num_threads(threads)
    return cube, versus._read("one", tmp_path), versus._read("other", tmp_path)


def test_two_sides_are_compared(script, sides):
    cube, one, other = sides
    assert one.versions == {"weights": "tt.pt"}
    assert one.drawn_bytes == [3 * 13 * 64] * 2
    np.testing.assert_allclose(one.frames[2].decoded, cube, atol=0.01)
    other.frames[2].latents.ravel()[:7] += 1
    other.frames[2].decoded[:] += 10  # a PSNR of 60 dB
    tables = script("vs_tables")
    line = tables.agreement(cube, one, other).splitlines()[-1]
    assert f"| 2 | 7 of {cube.size} | " in line
    assert "| 60.0" in line
    assert "| 10.00 | -0.04321 |" in line
    assert f"| drawn, 2 frame(s) | {6 * 13 * 64} | {6 * 13 * 64} | +0.00% |" in tables.sizes(
        one, other
    )
    for made in (tables.timing(one, None), tables.timing(one, other)):
        assert made.count("| encode | ") == made.count("| decode | ") == 2
    assert tables.rates(one, S2L1C, 256).count("%") == 8
    assert "| one | first use | " in tables.preparation([one, other])
    assert "predicted scales" in tables.coded(one.frames[2])


def test_ratios_say_how_much_the_reference_needs_more(script, sides):
    tables, (_, one, other) = script("vs_tables"), sides
    usage = one.frames[1].encode[0]
    for figures, factor in ((one.frames[1], 1), (other.frames[1], 20)):
        each = [dataclasses.replace(usage, wall_s=factor * s, peak_mb=100.0) for s in (1, 2, 4)]
        figures.encode[:] = each
    line = next(x for x in tables.timing(one, other).splitlines() if x.startswith("| encode | 1 "))
    assert "| 40.00 (20.00 to 80.00) |" in line
    assert "| 2.00 (1.00 to 4.00) |" in line
    assert "| 20.0 |" in line
    assert line.endswith("| 1.0 |")


def test_memory_is_measured_call_by_call(script):
    measured = script("side").measured
    _, small = measured(lambda: np.ones(1))
    _, large = measured(lambda: np.ones(50_000_000).sum())
    _, after = measured(lambda: np.ones(1))
    assert large.peak_mb > small.peak_mb + 300
    if script("side").CLEAR.exists():
        assert after.peak_mb < large.peak_mb - 300


def test_our_side_gives_back_what_it_coded(script, drawn, tmp_path):
    network, frames, _, _ = drawn
    ours = script("side_xtec").Xtec(write_checkpoint(tmp_path / "tiny.pt", network))
    pixels = frames.numpy()
    coded = ours.encode(pixels)
    assert sum(ours.sizes(coded)) == len(coded.code)
    latents = ours.seen()["latents"]
    np.testing.assert_array_equal(latents, network.analysis(frames).round())
    q = torch.from_numpy(latents).float()
    in_floats = network.synthesis(q, network.prior(q[None])[2][0])
    np.testing.assert_allclose(ours.decode(coded), in_floats, atol=0.2)
    # The latents of others, where they are asked for.
    ours.analysis.register_forward_hook(script("side").Substitute(q + 1))
    assert ours.sizes(ours.encode(pixels)) != ours.sizes(coded)
    np.testing.assert_array_equal(ours.seen()["latents"], latents + 1)


def test_batches_are_timed(script, capsys):
    small = ["--chunks", "1", "3", "--frames", "2", "--size", "64", "--runs", "1", "--threads", "1"]
    script("batches").main(small, SMALL_L1C)
    rows = [x.split(" | ") for x in capsys.readouterr().out.splitlines() if x.startswith("| ")]
    assert [row[0] for row in rows] == ["| chunks at once", "| ---", "| 1", "| 3"]
    assert all(float(rate.strip(" |")) > 0 for row in rows[2:] for rate in row[1:])


def test_streams_go_from_one_device_to_another(script):
    batches, (one, other) = script("batches"), (network(SMALL_L1C), network(SMALL_L1C, seed=1))
    chunks = batches.cut(3, 2, 64)
    assert len({chunk.tobytes() for chunk in chunks}) == 3
    here, there = (Engine(copy.deepcopy(one), "cpu") for _ in range(2))
    out = batches.exchange({"here": here, "there": there}, chunks)
    assert "| here | there | all 3 streams | 0.0e+00 |" in out
    assert "| there | here | all 3 streams | 0.0e+00 |" in out
    with pytest.raises((RuntimeError, StreamError)):
        batches.exchange({"here": here, "other": Engine(other, "cpu")}, chunks)


def test_frames_come_from_a_cube_or_from_the_sample(script, folder, tmp_path):
    versus = script("vs_terracodec")
    made, origin = versus.frames(tmp_path, "any", 2)
    assert made.shape == (2, 13, 256, 256)
    assert "synthetic" in origin
    with pytest.raises(InputError, match="4 dates of 256 are needed"):
        versus.frames(Path(folder), "series", 4)
    cube = made[:1]
    again = versus.digital_numbers(versus.standardised(cube))
    np.testing.assert_allclose(again, cube, atol=0.01)


def test_a_missing_reference_is_noticed(script):
    imports = script("vs_terracodec").imports
    assert imports(sys.executable, "numpy")
    assert not imports(sys.executable, "no_such_package")


@pytest.mark.slow  # the reference takes minutes for a frame
def test_the_reference_does_the_same(script, capsys, tmp_path):
    pytest.importorskip("terracodec", reason="terracodec is not installed beside this torch")
    arguments = ["--frames", "1", "--runs", "1", "--data", str(tmp_path)]
    script("vs_terracodec").main(arguments)
    out = capsys.readouterr().out
    assert "| 1 | 0 of 49152 | " in out
    assert "times faster" in out


@pytest.mark.parametrize("name", ["Bands", "CheckedBands", "Components", "Klt"])
def test_classical_codecs_reach_their_target(classical, cube, name):
    coders = classical("coders_jpeg2000")
    coder = getattr(coders, name)(45 + coders.LEVEL_OF_PEAK)
    decoded = coder.decode(coder.encode(cube), cube.shape)
    assert decoded.dtype == np.uint16
    assert compare(cube, decoded).psnr_pooled == pytest.approx(45, abs=1)


def test_only_checked_files_keep_a_flat_band(classical):
    """OpenJPEG loses the mean of nearly flat bands; what is quoted against us must not."""
    coders = classical("coders_jpeg2000")
    noise = np.random.default_rng(0).normal(size=(1, 1, 256, 256))
    flat = (2050 + 15 * noise).astype(np.uint16)

    def psnr(coder):
        return compare(flat, coder.decode(coder.encode(flat), flat.shape)).psnr_pooled

    level = 33 + coders.LEVEL_OF_PEAK
    assert psnr(coders.Bands(level)) < 30
    assert psnr(coders.CheckedBands(level)) > 32


@pytest.mark.parametrize(
    ("module", "name", "setting"),
    [
        ("coders_jpegxl", "Bands", 0.1),
        ("coders_jpegxl", "Klt", 0.1),
        ("coders_video", "Video", 10),
        ("coders_bounded", "Lerc", 30),
        ("coders_bounded", "Zfp", 128),
    ],
)
def test_other_codecs_give_the_cube_back(classical, cube, module, name, setting):
    if module == "coders_video" and not has_x265():
        pytest.skip("PyAV, of the extra bench, is not installed")
    coder = getattr(classical(module), name)(setting)
    streams = coder.encode(cube)
    decoded = coder.decode(streams, cube.shape)
    assert decoded.dtype == np.uint16
    assert compare(cube, decoded).psnr_pooled > 50
    assert sum(map(len, streams)) < cube.nbytes / 2


def test_a_basis_is_read_as_it_was_written(script, cube):
    klt = script("klt")
    values = cube[0].reshape(13, -1).astype(float)
    basis = klt.Basis.of(values)
    again, rest = klt.Basis.read(basis.to_bytes() + b"rest", 13)
    assert rest == b"rest"
    assert (again.backward(basis.forward(values)) == cube[0].reshape(13, -1)).all()


def test_ssim_is_what_its_definition_says(script):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 10_000, (11, 11)).astype(np.uint16)
    y = rng.integers(0, 10_000, (11, 11)).astype(np.uint16)
    weight = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight = np.outer(weight, weight) / weight.sum() ** 2
    mean_x, mean_y = (weight * x).sum(), (weight * y).sum()
    var_x, var_y = (weight * (x - mean_x) ** 2).sum(), (weight * (y - mean_y) ** 2).sum()
    both = (weight * (x - mean_x) * (y - mean_y)).sum()
    expected = (2 * mean_x * mean_y + 100**2) / (mean_x**2 + mean_y**2 + 100**2)
    expected *= (2 * both + 300**2) / (var_x + var_y + 300**2)
    ssim_map = script("quality").ssim_map
    assert ssim_map(x, y) == pytest.approx(expected)
    assert ssim_map(x, x) == pytest.approx(1)


def test_ndvi_counts_where_it_means_something(script):
    original = np.full((1, 13, 16, 16), 600, np.uint16)
    original[..., :8, :] = 400
    decoded = original.copy()
    decoded[:, 7] += 300  # B08
    quality = script("quality").assess(original, decoded)
    assert quality.ndvi_count == 8 * 16
    assert quality.ndvi_rmse == pytest.approx(300 / 1500)


def test_seams_are_found_where_they_are(script):
    cube = np.full((1, 1, 64, 128), 1000, np.uint16)
    decoded, seams = cube + np.uint16(2), script("seams").Seams()
    decoded[..., 56:72] += 4  # along the border between two chunks
    blocks = [(slice(0, 1), slice(None), slice(0, 64), slice(x, x + 64)) for x in (0, 64)]
    seams.add(cube, decoded, blocks)
    assert seams.between.rmse == pytest.approx(6)
    assert seams.inside.rmse == seams.inside_several.rmse == pytest.approx(2)
    assert 2 < seams.borders.rmse < 6
    assert seams.borders.count + seams.inside.count == cube.size


def test_pixels_beside_a_mask_are_told_by_their_distance(script):
    masks = script("masks")
    mask = np.broadcast_to(np.arange(40) < 20, (1, 2, 30, 40))
    squared = np.zeros(mask.shape)
    squared[..., 20:22], squared[..., 22:24], squared[..., 24:28], squared[..., 28:] = 1, 4, 9, 16
    beside = masks.Beside()
    beside.add(squared, squared + 9, mask)
    assert [a.rmse for a, _ in [*beside.rings, beside.inside]] == [1, 2, 3, 4]
    assert beside.inside[1].rmse == 5
    assert sum(a.count for a, _ in [*beside.rings, beside.inside]) == (~mask).sum()
    one, apart = masks.edge((2, 13, 256, 256), 0), masks.edge((2, 13, 256, 256), 3)
    assert (one == one[:, :1]).all()
    assert not (apart == apart[:, :1]).all()
    assert 0.2 < one.mean() < 0.5


@pytest.fixture
def curve(script):
    """Make a curve of rates at PSNR 30, 35, 40, 45."""
    curves = script("curves")

    def made(rates):
        original = np.zeros((1, 13, 20, 20), np.uint16)
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


def test_bounds_are_kept_and_counted(classical, folder, monkeypatch, capsys):
    script = classical("error_bounds")
    monkeypatch.setattr(script, "BOUNDS", (0, 7))
    monkeypatch.setattr(sys, "argv", ["error_bounds.py", "--data", folder])
    assert script.main() == 0
    lines = capsys.readouterr().out.splitlines()
    zero, seven = (line.split("|") for line in lines if line.startswith(("| 0 |", "| 7 |")))
    assert (zero[-3].strip(), seven[-3].strip()) == ("0", "7")
    assert float(seven[2]) < float(zero[2]) < 16
    assert "All bounds are kept." in lines


def test_a_bound_that_is_not_kept_is_told(classical, folder, monkeypatch, capsys):
    script = classical("error_bounds")
    monkeypatch.setattr(script, "BOUNDS", (5,))
    monkeypatch.setattr(script, "_learned", lambda options, _, c: script.Learned(Settings()))
    monkeypatch.setattr(sys, "argv", ["error_bounds.py", "--data", folder])
    assert script.main() == 1
    assert "A PROMISE WAS NOT KEPT." in capsys.readouterr().out


def test_bits_by_compression_are_printed(classical, folder, monkeypatch, capsys):
    script = classical("error_bounds")
    monkeypatch.setattr(script, "SEARCHED_BOUNDS", (50,))
    monkeypatch.setattr(script, "SEARCHED_STEPS", (512,))
    monkeypatch.setattr(sys, "argv", ["error_bounds.py", "--search", "--data", folder])
    assert script.main() == 0
    assert "step 512 DN" in capsys.readouterr().out


def test_the_worst_point_of_a_range_is_found(script, curve):
    found = script("curves").bd_rate(curve([100, 300, 600, 1600]), curve([100, 200, 600, 1600]))
    assert found.worst == pytest.approx(0.5, abs=0.05)
    assert found.worst_at == pytest.approx(35, abs=0.5)
    assert found.rate < found.worst


def test_curves_without_a_common_range_are_compared_at_one_point(script, curve):
    curves = script("curves")
    points = curve([100, 200, 600, 1600]).points
    below, above = curves.Curve(points[:2]), curves.Curve(points[2:])
    assert np.isnan(curves.bd_rate(below, above).rate)
    found = curves.bd_rate_or_point(below, above)
    assert found.rate == pytest.approx(200 / 600 - 1)
    assert found.low == found.high == below.span[1]
    assert curves.bd_rate_or_point(above, below).rate == pytest.approx(2)


def test_figures_at_equal_bits_are_interpolated(curve):
    made = curve([100, 200, 600, 1600])
    (low, _), bits = made.span, [p.bpppb for p in made.best]
    assert made.at_rate(bits[0], lambda p: p.psnr) == pytest.approx(low)
    assert low < made.at_rate((bits[0] + bits[1]) / 2, lambda p: p.psnr) < 35
    assert np.isnan(made.at_rate(bits[0] / 2, lambda p: p.quality.rmse)).all()


def test_a_curve_interpolates_and_does_not_guess(curve):
    made = curve([100, 200, 600, 1600])
    (low, _), (first, second) = made.span, (p.bpppb for p in made.best[:2])
    assert first == 8 * 100 / (13 * 20 * 20)
    assert made.rate(low) == pytest.approx(first)
    assert first < made.rate(32) < second
    assert np.isnan(made.rate(29))


@pytest.mark.slow
def test_scaling_prints_what_must_be_reached(script, capsys):
    """On cubes of a few chunks: the figures say nothing, the lines are those of the issue."""
    pytest.importorskip("distributed")
    small = ["--side", "128", "--large", "256", "--tile", "64", "--repeats", "1"]
    script("scaling").main(small)
    printed = capsys.readouterr().out
    for line in (
        "two / one", "encode, concurrent / one by one", "decode, concurrent / one by one",
        "memory per worker, large / small", "throughput, large / small", "write overhead",
        "read overhead",
    ):  # fmt: skip
        assert re.search(rf"\| {re.escape(line)} \| -?[\d.]+( %)? \| [<>]= ", printed)
    assert "| of these, written again by resume=True | 0 | 0 | reached |" in printed
    assert printed.count("| the store | equal | equal | reached |") == 2


def test_the_paper_adds_up(script, capsys):
    script("scaling_paper").main(["--encode", "10", "--bpppb", "0.16"])
    square, country = [
        [cell.strip() for cell in line.split("|")]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("| 100 x", "| a country"))
    ][:2]
    # 73 dates, 13 bands, 10,000 x 10,000 pixels of 2 bytes; 10 dates of chunks, 40 x 40 tiles
    assert square[2:5] == ["190 GB", "16,000", "1.9 GB"]
    assert country[3] == f"{36 * 16_000:,}"
