"""What makes the package findable and installable says the same everywhere.

`make wheel` builds it and tries it where nothing else is; these are the parts that need no build.
"""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

OF_CFF = {
    "cff-version", "message", "type", "title", "version", "license", "authors", "keywords",
    "references",
}  # fmt: skip
"""Keys of ours that schema 1.2.0 of the Citation File Format knows."""


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def workflow(name):
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version(citation):
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [each["name"] for each in citation["authors"]] == [
        each["name"] for each in PROJECT["authors"]
    ]


def test_the_citation_has_what_its_format_asks_for(citation):
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() <= OF_CFF
    assert citation["message"]
    assert citation["type"] == "software"
    [paper] = citation["references"]
    assert paper["title"].startswith("TerraCodec")
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2510.12670"}]


def test_the_page_on_citing_names_the_same_paper(citation):
    page = (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    [paper] = citation["references"]
    assert paper["title"] in page
    names = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    assert names in page


def test_types_are_shipped():
    """`make wheel` lets mypy look from outside (tests/typed_client.py)."""
    assert files("xtec").joinpath("py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_the_promised_extras_are_there():
    promised = {"plot", "hub", "dask", "cuda", "compressai", "train", "docs", "test"}
    assert promised <= EXTRAS.keys()
    assert all(EXTRAS.values()), "an extra that adds nothing"


def test_extras_name_extras_that_exist():
    for lines in EXTRAS.values():
        for line in map(Requirement, lines):
            if line.name == PROJECT["name"]:
                assert line.extras <= EXTRAS.keys()


def test_every_extra_is_named_where_it_is_needed():
    """An extra nobody is told of might as well not be there."""
    told = "".join(
        path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.rglob("docs/*.md")]
    )
    for extra in ("plot", "hub", "dask", "cuda", "train"):
        assert re.search(rf"`{extra}`", told), extra


def test_github_does_what_the_continuous_integration_does():
    steps = workflow("ci.yml")["jobs"]["test"]["steps"]
    assert "bash .ci/run" in [step.get("run") for step in steps]


def test_a_release_needs_no_token_and_runs_every_test_first():
    jobs = workflow("release.yml")["jobs"]
    publish = jobs["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    assert "build" in publish["needs"]
    assert "bash .ci/run" in [step.get("run") for step in jobs["build"]["steps"]]
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert "secrets." not in text
