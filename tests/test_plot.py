import numpy as np
import pytest

from xtec import plot, sample
from xtec.errors import InputError


@pytest.fixture(scope="module")
def cube():
    return sample.cube(dates=2, size=64)["reflectance"]


def test_a_comparison_shows_both_cubes_and_their_difference(cube):
    figure = plot.comparison(cube, cube.copy(data=cube.to_numpy() + 100), time=1)
    left, middle, right, _ = figure.axes
    titles = [axes.get_title() for axes in (left, middle, right)]
    assert titles[0].startswith("original, 20")
    assert titles[1:] == ["decoded", "error of the red band"]
    error = right.images[0].get_array()
    np.testing.assert_array_equal(error, 100)
    shown = left.images[0].get_array()
    assert shown.shape == (64, 64, 3)
    assert 0 <= shown.min() < shown.max() <= 1


def test_cubes_of_different_shape_cannot_be_compared(cube):
    with pytest.raises(InputError, match="compare"):
        plot.comparison(cube, cube.isel(x=slice(0, 10)))
