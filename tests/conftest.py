"""What all tests share: hypothesis without a stopwatch, and real data where it is at hand."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

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
