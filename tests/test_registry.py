"""Models are found by name, by file, by folder and by digest, or the error says what to do."""

import os
import re
from pathlib import Path

import pytest

from tests.models import TINY, network, write_weights
from xtec.errors import ModelError, WrongModelError
from xtec.models import registry


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No model was used in this process, and none is searched for."""
    monkeypatch.setattr(registry, "_used", {})
    monkeypatch.delenv(registry.SEARCH_PATH, raising=False)


def test_the_embedded_model_is_a_versioned_one():
    card = registry.resolve("embedded")
    assert card.name == registry.EMBEDDED
    assert registry.resolve(card.name) == card
    assert registry.find(bytes.fromhex(card.digest)[:8]) == card


def test_the_embedded_model_is_small_enough_to_ship():
    assert registry.resolve("embedded").path.stat().st_size <= 12e6


def test_a_file_is_known_after_its_use(tmp_path):
    path = write_weights(tmp_path / "a.safetensors", network(TINY))
    with pytest.raises(ModelError):
        registry.resolve("tiny")
    card = registry.resolve(path)
    assert registry.resolve("tiny") == card
    assert registry.find(bytes.fromhex(card.digest)[:8]) == card


def test_files_of_one_name_are_told_apart_by_digest(tmp_path):
    """Two runs of one training recipe in one process."""
    cards = [
        registry.resolve(write_weights(tmp_path / f"{seed}.safetensors", network(TINY, seed)))
        for seed in range(2)
    ]
    assert cards[0].name == cards[1].name
    for card in cards:
        assert registry.find(bytes.fromhex(card.digest)[:8]) == card


def test_a_file_of_the_embedded_name_does_not_hide_the_embedded_model(tmp_path, monkeypatch):
    embedded = registry.resolve("embedded")
    write_weights(tmp_path / "a.safetensors", network(TINY), registry.EMBEDDED)
    monkeypatch.setenv(registry.SEARCH_PATH, str(tmp_path))
    assert registry.find(bytes.fromhex(embedded.digest)[:8]) == embedded


def test_folders_of_the_search_path_are_looked_into(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("a", "b", "gone")]
    for folder in folders[:2]:
        folder.mkdir()
        write_weights(folder / "x.safetensors", network(TINY), f"in-{folder.name}")
    monkeypatch.setenv(registry.SEARCH_PATH, os.pathsep.join(["", *map(str, folders)]))
    assert set(registry.known()) == {"in-a", "in-b", registry.EMBEDDED}
    card = registry.resolve("in-b")
    assert registry.find(bytes.fromhex(card.digest)[:8]) == card


def test_foreign_files_in_the_search_path_are_passed_over(tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").write_bytes(b"of some other program")
    card = registry.read_card(Path(write_weights(tmp_path / "b.safetensors", network(TINY))))
    monkeypatch.setenv(registry.SEARCH_PATH, str(tmp_path))
    assert registry.resolve("tiny") == card
    assert registry.resolve("embedded").name == registry.EMBEDDED


def test_an_unknown_name():
    with pytest.raises(ModelError, match=r"no model 'nope'; at hand are \['embedded', 'xtec-small"):
        registry.resolve("nope")


def test_an_unknown_digest_says_what_to_look_for_and_where_to_put_it():
    with pytest.raises(WrongModelError) as caught:
        registry.find(bytes(range(8)), "their-model")
    for part in ("0001020304050607", "'their-model'", registry.EMBEDDED, registry.SEARCH_PATH):
        assert re.search(re.escape(part), str(caught.value))


def test_an_unknown_digest_without_a_name():
    with pytest.raises(WrongModelError, match=r"digest 00\.\.\., which"):
        registry.find(b"\0")
