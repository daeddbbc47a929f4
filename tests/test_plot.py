"""Pictures show what they say, of what is there, and compute no more than they show."""

import base64
import io
import re
import sys

import dask
import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from tests.models import BEST
from xtec import plot, sample
from xtec.errors import InputError
from xtec.plot import colour, thumbnail
from xtec.plot.spectrum import _apart

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"
)


@pytest.fixture(scope="module")
def cube():
    return sample.cube(dates=3, size=(48, 64))


@pytest.fixture(scope="module")
def other(cube):
    """The cube with an error of 100 DN in every valid pixel, and one of 900."""
    changed = cube.copy(deep=True)
    changed["reflectance"] += (100 * (cube.reflectance > 0)).astype(np.uint16)
    changed.reflectance[1, 3, 30, 50] += np.uint16(800)
    return changed


def text_of(figure):
    """All that is written on a picture, its colour bars included."""
    figure.canvas.draw()
    found = [t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text"))]
    return "\n".join(text for text in found if text)


def remove_matplotlib(monkeypatch):
    """As if the one file that imports it could not."""
    monkeypatch.setitem(sys.modules, "xtec.plot.canvas", None)
    monkeypatch.delattr(plot, "canvas", raising=False)


def pictures(figure):
    axes = [axes for axes in figure.axes if axes.images]
    assert len(axes) == 3
    return [np.ma.filled(each.images[0].get_array().astype(float), np.nan) for each in axes]


def test_a_picture_shows_both_cubes_their_difference_and_says_so(cube, other):
    figure = other.tec.plot(cube, date=1)
    assert isinstance(figure, Figure)
    before, after, error = pictures(figure)
    assert before.shape == after.shape == (48, 64, 4)
    assert 0 <= before.min() < before.max() <= 1
    outside = cube.reflectance[1, 3].values == 0
    assert outside.any()
    np.testing.assert_array_equal(before[..., 3] == 0, outside)  # transparent on black
    np.testing.assert_array_equal(np.isnan(error), outside)
    assert set(error[~outside]) == {100, 900}
    text = text_of(figure)
    date = str(cube.time.values[1])[:10]
    for expected in (
        f"original, {date}", "true colour (B04, B03, B02)", "black: no data", "error of B04",
        "error (DN)", "largest 900 DN", "central wavelength (nm)", "digital number",
        "PSNR (dB over 10,000 DN)", "most vegetation: largest B08 - B04", "B8A",
    ):  # fmt: skip
        assert expected in text


def test_the_scale_of_the_error_is_symmetric_robust_and_says_where_it_ends(cube, other):
    figure = other.tec.plot(cube, date=1)
    axes = next(each for each in figure.axes if "error" in each.get_title())
    image = axes.images[0]
    assert image.get_clim() == (-100, 100)
    assert image.colorbar.extend == "both"
    exact = cube.tec.plot(cube, date=1)
    image = next(each for each in exact.axes if "error" in each.get_title()).images[0]
    assert image.colorbar.extend == "neither"
    assert "exact" in text_of(exact)


def test_the_bars_are_the_psnr_of_the_date(cube, other):
    figure = other.tec.plot(cube, date=1)
    (bars,) = [axes for axes in figure.axes if "PSNR" in axes.get_title()]
    heights = [bar.get_height() for bar in bars.patches]
    quality = other.isel(time=[1]).tec.quality(cube.isel(time=[1]))
    np.testing.assert_allclose(heights, quality.psnr)
    assert f"all bands {quality.psnr_pooled:.1f} dB" in bars.get_title()
    assert [t.get_text() for t in bars.get_xticklabels()] == list(cube.band.values)


def test_spectra_are_those_of_the_pixel_asked_for(cube, other):
    x, y = cube.x.values[50], cube.y.values[30]
    figure = other.tec.plot(cube, date=1, pixel=(x + 2, y - 2))
    (axes,) = [axes for axes in figure.axes if "spectra" in axes.get_title()]
    first, second = axes.lines
    np.testing.assert_array_equal(first.get_ydata(), cube.reflectance[1, :, 30, 50])
    np.testing.assert_array_equal(second.get_ydata(), other.reflectance[1, :, 30, 50])
    assert list(first.get_xdata()) == sorted(first.get_xdata())
    assert f"x = {x:.10g}, y = {y:.10g}" in axes.get_title()
    marks = [axes.lines[0].get_data() for axes in figure.axes if axes.images and axes.lines]
    assert [(int(x[0]), int(y[0])) for x, y in marks] == [(50, 30)] * 3


def test_without_vegetation_the_pixel_is_a_valid_one_near_the_centre(cube):
    part = cube.isel(band=[0, 12])
    part.reflectance[1, :, 20:30, 28:40] = 0
    figure = part.tec.plot(part, date=1)
    (axes,) = [axes for axes in figure.axes if "spectra" in axes.get_title()]
    assert "valid and nearest to the centre" in axes.get_title()
    assert (axes.lines[0].get_ydata() > 0).all()


@pytest.mark.parametrize(
    ("bands", "said"),
    [
        (["B12", "B05", "B8A", "B08"], "false colour (B12, B08, B05)"),
        (["B11", "B05"], "grey (B05)"),
        (["B10"], "grey (B10)"),
        (["B02", "B08", "B03", "B04"], "true colour (B04, B03, B02)"),
    ],
)
def test_other_bands_are_shown_in_other_colours_and_that_is_said(cube, bands, said):
    part = cube.sel(band=bands)
    figure = part.tec.plot(part)
    assert said in text_of(figure)
    assert pictures(figure)[0].shape == (48, 64, 4)
    assert f"error of {said.split('(')[1][:3]}" in text_of(figure)


def test_a_date_without_any_data_is_black_and_says_so(cube):
    empty = cube.copy(deep=True)
    empty.reflectance[2] = 0
    text = text_of(empty.tec.plot(empty, date=2))
    assert "no pixel of this date is valid" in text
    assert "black: no data" in text


def test_large_cubes_are_thinned_and_of_lazy_ones_one_date_is_computed(cube):
    asked = []

    def block(block_info=None):
        asked.append(block_info[None]["chunk-location"])
        return np.full(block_info[None]["chunk-shape"], 500, np.uint16)

    shape = ((1,) * 5, (1,), (600,), (520, 520))
    data = dask.array.map_blocks(block, chunks=shape, dtype=np.uint16)
    lazy = xr.DataArray(data, dims=("time", "band", "y", "x"), coords={"band": ["B08"]})
    figure = lazy.tec.plot(lazy + np.uint16(1), date=3)
    assert {time for time, *_ in asked} == {3}
    assert pictures(figure)[2].shape == (200, 347)
    assert set(pictures(figure)[2].flat) == {-1}
    text = text_of(figure)
    assert "every 3th pixel" not in text
    assert "one pixel in 3 x 3" in text
    assert "the pixels shown" in text


def test_dates_are_found_by_position_and_by_name(cube):
    for date, found in ((None, 1), (-1, 2), ("2018-04-20", 1), (np.datetime64("2019"), 2)):
        assert str(cube.time.values[found])[:10] in text_of(cube.tec.plot(cube, date=date))


def test_reflectance_in_floating_point_is_drawn_in_digital_numbers(cube, other, precise):
    floating = [
        (each.reflectance.where(each.reflectance > 0) * 1e-4).drop_attrs() for each in (cube, other)
    ]
    figure = floating[1].tec.plot(floating[0], date=1)
    error = pictures(figure)[2]
    np.testing.assert_allclose(error[20, 40], 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"date": 3}, r"date=3 is none of the 3 dates; give 0 to 2"),
        ({"date": "soon"}, "write it as 2024-01-31"),
        ({"pixel": (3, 4)}, r"x=3, but x runs from 651245 to"),
        ({"band": "B13"}, r"band='B13' is none of"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(cube, options, message):
    with pytest.raises(InputError, match=message):
        cube.tec.plot(cube, **options)


def test_dates_need_a_time_coordinate(cube):
    bare = cube.drop_vars("time")
    with pytest.raises(InputError, match="no dates along 'time'"):
        bare.tec.plot(bare, date="2018-04-20")
    assert "date 1" in text_of(bare.tec.plot(bare))


def test_other_cubes_and_a_missing_matplotlib_are_errors(cube, monkeypatch):
    with pytest.raises(InputError, match="shapes differ"):
        cube.tec.plot(cube.isel(x=slice(10)))
    remove_matplotlib(monkeypatch)
    with pytest.raises(InputError, match=r"pip install 'xarray-tec\[plot\]'"):
        cube.tec.plot(cube)


def test_notebooks_show_a_picture_without_pyplot(cube):
    assert cube.tec.plot(cube)._repr_png_().startswith(b"\x89PNG")


def test_labels_of_neighbouring_bands_do_not_overlap():
    places = _apart([442.7, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7])
    assert min(np.diff(places)) >= 42
    assert places[0] == 442.7


def test_a_stretch_of_one_value_or_none_is_no_division_by_zero():
    pixels = np.stack([np.full((3, 3), 7.0), np.full((3, 3), np.nan), np.eye(3)])
    low, high = colour.stretch(pixels)
    assert (high > low).all()
    assert np.isfinite(colour.to_rgba(pixels, np.stack([low, high]))).all()


# In notebooks


@pytest.fixture(scope="module", params=[2, 3])
def stored(request, cube, precise, tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "a.zarr"
    part = cube.sel(band=["B02", "B04", "B08"])
    chunks = {"time": 1, "y": 24, "x": 32}
    options = {"model": precise.model, "compression": BEST, "progress": False, "chunks": chunks}
    part.tec.compress(path, zarr_format=request.param, **options)
    return xr.open_zarr(path)


def shown(html):
    """The picture in a piece of HTML."""
    data = re.search(r"src='data:image/png;base64,([^']*)'", html)[1]
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))


def test_info_has_a_thumbnail_in_notebooks(stored):
    info = stored.tec.info()
    html = info._repr_html_()
    assert shown(html).shape == (48, 64, 4)
    assert "2018-04-22, false colour (B08, B04, B02)" in html
    assert "<table>" in html
    assert "thumbnail" not in info.to_dict()
    assert "thumbnail" not in repr(info)
    assert info == stored.tec.info()


def test_of_a_large_cube_the_thumbnail_shows_the_middle(stored, monkeypatch):
    values = 3 * 24 * 32
    monkeypatch.setattr(thumbnail_module(), "VALUES", values)
    html = stored.tec.info()._repr_html_()
    assert shown(html).shape == (24, 32, 4)
    assert "middle of the cube" in html
    monkeypatch.setattr(thumbnail_module(), "VALUES", values - 1)
    assert "<img" not in stored.tec.info()._repr_html_()


def thumbnail_module():
    return sys.modules["xtec.plot.thumbnail"]


def test_without_matplotlib_or_with_damage_there_is_a_table_alone(stored, monkeypatch):
    def damaged(*_):
        raise InputError("damaged")

    with monkeypatch.context() as patch:
        remove_matplotlib(patch)
        assert "<img" not in stored.tec.info()._repr_html_()
    monkeypatch.setattr(thumbnail_module(), "digital", damaged)
    html = stored.tec.info()._repr_html_()
    assert "<img" not in html
    assert "<table>" in html
    monkeypatch.undo()
    assert thumbnail(stored, "reflectance") is not None


def test_what_is_not_stored_has_no_thumbnail(cube, precise):
    lazy = cube.sel(band=["B02", "B04", "B08"]).tec.compress(model=precise.model, compression=BEST)
    assert "<img" not in lazy.tec.info()._repr_html_()
