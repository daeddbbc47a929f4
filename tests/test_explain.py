"""Where the bits go adds up to what is stored, and is what a whole parse of the streams says."""

import re

import numpy as np
import pytest
import xarray as xr
import zarr

from tests.models import BEST
from xtec import sample
from xtec.coding import stream
from xtec.coding.sections import sections
from xtec.cube.bits import bits_per_value
from xtec.errors import CorruptStreamError, InputError, StreamError, TruncatedStreamError
from xtec.residual.section import Section, frame_bytes

BANDS = ["B02", "B04", "B08"]
KINDS = {
    "v2": {"zarr_format": 2},
    "v3": {"zarr_format": 3, "max_error": 2},
    "sharded": {"zarr_format": 3, "shards": {"time": 2, "y": 32, "x": 32}},
}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"
)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def path(kind, precise, tmp_path_factory):
    """Three dates in chunks of two, 30 x 48 pixels in tiles of 16; without data in one corner."""
    cube = sample.cube(dates=3, size=(30, 48)).sel(band=BANDS)
    cube.reflectance[:, :, :16, :16] = 0
    path = tmp_path_factory.mktemp("bits") / "a.zarr"
    options = {"model": precise.model, "compression": BEST, "progress": False}
    cube.tec.compress(path, chunks={"time": 2, "y": 16, "x": 16}, **options, **KINDS[kind])
    return path


@pytest.fixture(scope="module")
def streams(path):
    """All streams of the store, found by their magic."""
    found = {}
    for file in (path / "reflectance").rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        for match in re.finditer(b"XTEC", data):
            length = int.from_bytes(data[match.start() + 16 : match.start() + 20], "little")
            if match.start() + length <= len(data):
                one = data[match.start() : match.start() + length]
                found[file, match.start()] = one
    return list(found.values())


@pytest.fixture
def explanation(path):
    return xr.open_zarr(path).tec.explain()


def test_the_parts_add_up_to_what_is_stored(explanation, streams, kind):
    parts = explanation.parts
    model = parts.pop("model")
    assert sum(parts.values()) == pytest.approx(sum(map(len, streams)))
    attributes = explanation.bytes.attrs
    assert model == attributes["model_bytes"] > 0
    indices = 2 * 2 * (4 * 16 + 4) if kind == "sharded" else 0
    assert attributes["stored_bytes"] == pytest.approx(sum(map(len, streams)) + indices)
    assert (parts["residual"] > 0) == (kind == "v3")


def test_each_part_is_what_a_whole_parse_finds(explanation, streams):
    parsed = [stream.parse(data) for data in streams]
    parts = explanation.parts
    assert parts["latents"] == sum(len(one.payload) for one in parsed)
    assert parts["residual"] == pytest.approx(sum(len(one.residual) for one in parsed))
    assert parts["masks"] > 0


def test_each_tile_and_date_has_its_own(explanation, path, kind):
    found = explanation.bytes
    assert found["bytes"].shape == (4, 3, 2, 3)
    np.testing.assert_array_equal(found.time, xr.open_zarr(path).time)
    spent = found["bytes"].sum("part")
    assert (spent[:, 0, 0] == 0).all()  # no data: not stored
    assert (spent[:, 1, 1] > 0).all()
    assert found["values"][0].sum() == 3 * 30 * 48
    assert found["values"][0, 1, 1] == 3 * 14 * 16
    whole = 8 * float(spent.sum()) / (3 * 3 * 30 * 48)
    each = bits_per_value(found, "time")
    assert float(each.mean()) == pytest.approx(whole)
    if kind == "v2":
        chunk = stream.parse((path / "reflectance" / "0.0.1.2").read_bytes())
        latents = found["bytes"].sel(part="latents")[:2, 1, 2]
        np.testing.assert_array_equal(latents, np.diff([0, *chunk.frame_bytes]))


def test_dates_beyond_the_end_count_for_the_last(explanation, path, kind):
    if kind != "v2":
        pytest.skip("looks into one file of one chunk")
    data = (path / "reflectance" / "1.0.1.2").read_bytes()
    assert float(explanation.bytes["bytes"][:, 2, 1, 2].sum()) == pytest.approx(len(data))


def test_nothing_is_decoded_and_little_is_read(path, monkeypatch):
    from xtec import codec

    def refuse(*_):
        raise AssertionError("a chunk was decoded")

    monkeypatch.setattr(codec, "_finished", refuse)
    assert xr.open_zarr(path).tec.explain().bytes["bytes"].sum() > 0


def test_the_table_and_the_picture_say_the_same(explanation, kind):
    text = repr(explanation)
    parts = explanation.parts
    assert f"{parts['latents']:,.0f} bytes" in text
    assert "once per store" in text
    figure = explanation.plot()
    figure.canvas.draw()
    written = "\n".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))
    for expected in ("2018-03-18", "bits per pixel per band", "each tile", "kB", "x (pixels)"):
        assert expected in written
    assert ("residual" in written) == (kind == "v3")
    (dates,) = [axes for axes in figure.axes if "each date" in axes.get_title(loc="right")]
    heights = np.zeros(3)
    for bar in dates.patches:
        heights[round(bar.get_x() + bar.get_width() / 2)] += bar.get_height()
    np.testing.assert_allclose(heights, bits_per_value(explanation.bytes, "time"))
    (tiles,) = [
        axes.collections[0] for axes in figure.axes if axes.get_title() == "each tile, all dates"
    ]
    drawn = np.asarray(tiles.get_array()).reshape(2, 3)
    np.testing.assert_allclose(drawn, bits_per_value(explanation.bytes, "tile_y", "tile_x"))


def test_sizes_are_the_same_however_little_is_fetched(streams, monkeypatch):
    data = max(streams, key=len)
    whole = sections(lambda begin, end: data[begin:end])
    monkeypatch.setattr("xtec.coding.sections.FRONT", 60)
    assert sections(lambda begin, end: data[begin:end]) == whole
    total = whole.container + whole.masks + sum(whole.latents) + whole.residual
    assert total == len(data)
    assert (
        data[whole.residual_at : whole.residual_at + whole.residual] == stream.parse(data).residual
    )


def test_damaged_streams_are_refused_or_counted_but_never_crash(streams):
    data = min(streams, key=len)
    with pytest.raises(TruncatedStreamError):
        sections(lambda begin, end: data[:40][begin:end])
    with pytest.raises(CorruptStreamError):
        sections(lambda begin, end: (b"X" + data)[begin:end])
    for place in range(60):
        for bit in (0, 7):
            hurt = bytearray(data)
            hurt[place] ^= 1 << bit
            try:
                found = sections(lambda begin, end, hurt=bytes(hurt): hurt[begin:end])
            except StreamError:
                continue
            assert len(found.latents) <= 1 << 20


def test_a_residual_that_contradicts_itself_is_refused(streams, kind):
    if kind != "v3":
        pytest.skip("only bounded stores have residuals")
    residual = stream.parse(streams[0]).residual
    section = Section.parse(residual, 2, 3)
    assert frame_bytes(residual, 2, 3) == tuple(map(len, section.frames))
    with pytest.raises(CorruptStreamError, match="are needed"):
        frame_bytes(residual[:5], 2, 3)
    falling = residual[: -sum(map(len, section.frames))]
    falling = falling[:-16] + b"".join(n.to_bytes(4, "little") for n in (9, 0, 3, 0))
    with pytest.raises(CorruptStreamError, match="fall"):
        frame_bytes(falling, 2, 3)


def test_what_is_not_stored_has_nothing_to_explain(precise):
    cube = sample.cube(dates=1, size=16).sel(band=BANDS)
    with pytest.raises(InputError, match="compressed"):
        cube.tec.explain()
    with pytest.raises(InputError, match="not stored"):
        cube.tec.compress(model=precise.model, compression=BEST).tec.explain()


def test_an_empty_store_is_drawn_too(precise, tmp_path):
    cube = sample.cube(dates=1, size=16).sel(band=BANDS)
    lazy = cube.tec.compress(model=precise.model, compression=BEST)
    lazy.to_zarr(tmp_path / "template.zarr", compute=False)
    assert zarr.open_group(tmp_path / "template.zarr")["reflectance"].nchunks_initialized == 0
    explanation = xr.open_zarr(tmp_path / "template.zarr").tec.explain()
    assert set(explanation.parts.values()) == {0}
    assert explanation.plot()
