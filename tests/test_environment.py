"""environment.yml lists the same packages with the same bounds as pyproject.toml."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ("plot", "hub", "dask", "train", "bench", "test")
"""The extras that the conda environment carries."""

CONDA_NAMES = {"torch": "pytorch-cpu", "dask": "dask-core", "matplotlib": "matplotlib-base"}
"""Packages that conda-forge calls otherwise than PyPI."""

CONDA_ALONE = {"pip": "", "libgdal-jp2openjpeg": ""}
"""What conda-forge splits off; rasterio's wheels on PyPI carry that driver of GDAL."""


def wanted(project):
    """Conda name -> version specifier of every dependency of pyproject.toml."""
    lines = list(project["dependencies"])
    for extra in EXTRAS:
        lines += project["optional-dependencies"][extra]
    requirements = [Requirement(line) for line in lines]
    bounds = {
        CONDA_NAMES.get(each.name, each.name): str(each.specifier)
        for each in requirements
        if each.name != project["name"]  # an extra that names other extras
    }
    return bounds | CONDA_ALONE | {"python": project["requires-python"]}


def offered(environment):
    """Conda name -> version specifier of every line of environment.yml."""
    requirements = [Requirement(line) for line in environment["dependencies"]]
    return {each.name: str(each.specifier) for each in requirements}


def differences(project, environment):
    """One line for each package that is missing, unknown or bounded otherwise."""
    want, offer = wanted(project), offered(environment)
    return sorted(
        f"{name}: pyproject {want.get(name, 'lacks it')!r}, conda {offer.get(name, 'lacks it')!r}"
        for name in want.keys() | offer.keys()
        if want.get(name) != offer.get(name)
    )


@pytest.fixture
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def test_environment_and_pyproject_agree(project, environment):
    assert differences(project, environment) == []


def test_a_missing_dependency_is_noticed(project, environment):
    environment["dependencies"].remove("zarr>=3.1.3")
    assert differences(project, environment) == ["zarr: pyproject '>=3.1.3', conda 'lacks it'"]


def test_another_bound_is_noticed(project, environment):
    project["dependencies"] = [
        line.replace("numba>=", "numba>=1") for line in project["dependencies"]
    ]
    assert differences(project, environment) == ["numba: pyproject '>=10.61', conda '>=0.61'"]


def test_a_stale_line_is_noticed(project, environment):
    environment["dependencies"].append("einops>=0.8")
    assert differences(project, environment) == ["einops: pyproject 'lacks it', conda '>=0.8'"]


def test_every_extra_is_known(project):
    assert set(EXTRAS) <= set(project["optional-dependencies"])
