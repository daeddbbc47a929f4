"""What all tests share: hypothesis without a stopwatch, small cubes, real ones where at hand."""

import contextlib
import importlib.util
import os
from pathlib import Path

import dask
import pytest
import xarray as xr
from hypothesis import settings

from tests.models import BEST, context_network, write_weights
from xtec import sample
from xtec.models import registry
from xtec.settings import Settings

# The first call of a compiled function takes seconds, and continuous integration is slow.
# There it also draws the same examples each time: a failure is then the change's own.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session")
def real_data():
    """Directory of real Sentinel-2 cubes (train, val, l2a), which the repository does not carry."""
    default = Path(__file__).parents[2] / "shared" / "data"
    directory = Path(os.environ.get("XTEC_DATA", default))
    if not (directory / "cubes.py").is_file():
        pytest.skip(f"no real cubes at {directory}; set XTEC_DATA to where they are")
    return directory


@pytest.fixture(scope="session")
def real_cubes(real_data):
    """Reader of real cubes: "val/oscd__norcia.cube" -> DataArray (time, band, y, x) with names."""
    spec = importlib.util.spec_from_file_location("cubes", real_data / "cubes.py")
    cubes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cubes)

    def read(name):
        data, about = cubes.load(real_data / name)
        dims = ("time", "band", "y", "x")
        return xr.DataArray(data, dims=dims, coords={"band": about["bands"]}, name="dn")

    return read


@pytest.fixture(autouse=True, scope="module")
def _stores_are_forgotten():
    """A store that one file opened may be gone when the next one looks for a model."""
    yield
    registry._shelves.clear()


@pytest.fixture(scope="session")
def _sample():
    return sample.cube(dates=3, size=(50, 43))


@pytest.fixture
def cube(_sample):
    """A synthetic cube, 3 dates of 50 x 43 pixels: a multiple of nothing."""
    return _sample.copy(deep=True)


@pytest.fixture(scope="session")
def precise(tmp_path_factory):
    """Settings of a tiny model of B02, B04, B08 whose pixels come back `tests.models.near`."""
    path = tmp_path_factory.mktemp("models") / "precise.safetensors"
    return Settings(write_weights(path, context_network(), "precise"), BEST)


@pytest.fixture
def nothing_computes():
    """Within this, whoever makes Dask compute fails."""

    @contextlib.contextmanager
    def guard():
        def refuse(*args, **kwargs):
            raise AssertionError("Dask computed what should have stayed lazy")

        with dask.config.set(scheduler=refuse):
            yield

    return guard
