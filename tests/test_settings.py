"""Settings check everything at once, survive JSON and pickling, and hold no model."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models import LAPPED, TINY, context_network, network, write_weights
from xtec.errors import BandError, InputError, ModelError, NewerFormatError, WrongModelError
from xtec.models import registry
from xtec.models.config import BANDS_L1C, LEVELS_PER_HALVING
from xtec.settings import Settings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("models") / "a.safetensors", network(TINY))


def test_defaults_are_written_out():
    """A store says which model it was written with, not which was the default that day."""
    one = Settings()
    assert one.model == registry.EMBEDDED
    assert one.model_digest == registry.resolve("embedded").digest
    assert one.bands == BANDS_L1C
    assert one.positions == tuple(range(13))
    assert one == Settings(one.model)


@given(
    st.builds(
        Settings,
        compression=st.floats(0.01, 100_000),
        bands=st.permutations(BANDS_L1C).flatmap(
            lambda names: st.integers(0, 13).map(lambda count: tuple(names[:count]))
        ),
        nodata=st.none() | st.integers(-(2**15), 2**16 - 1),
        offset=st.integers(-5000, 5000),
    )
)
def test_settings_come_back(one):
    again = Settings.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one
    assert hash(again) == hash(one)
    assert pickle.loads(pickle.dumps(one)) == one
    assert (again.positions, again.level) == (one.positions, one.level)


def test_settings_of_a_file_carry_its_name(model):
    one = Settings(model, bands=("B08", "B02"))
    assert one.model == "tiny"
    assert one.positions == (2, 0)
    assert one.card.config == TINY
    assert one.level == 0


def test_compression_is_counted_in_the_models_own_levels(tmp_path):
    path = write_weights(tmp_path / "lapped.safetensors", context_network())
    levels = [Settings(path, compression=c).level for c in (0.01, 20, 80, 100_000)]
    assert levels == sorted(set(levels))
    assert levels[2] - levels[1] == LEVELS_PER_HALVING  # half the step
    assert levels[-1] == LAPPED.levels - 1


def test_a_pickle_holds_no_path_of_this_machine(model):
    """It travels in graphs to machines that have the model elsewhere."""
    one = Settings(model)
    assert one.card.path  # used here first
    assert b".safetensors" not in pickle.dumps(one)


def test_numbers_of_other_libraries_become_plain_ones():
    one = Settings(nodata=np.uint16(7), offset=np.int64(1000))
    assert json.loads(json.dumps(one.to_dict()))["nodata"] == 7
    assert one == Settings(nodata=7, offset=1000)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"model": "nope"}, ModelError, "no model 'nope'"),
        ({"compression": 0}, InputError, r"compression is 0; give a number from 0\.01 to 100000"),
        ({"compression": 2e5}, InputError, "compression is 200000"),
        ({"compression": float("nan")}, InputError, "compression is nan"),
        ({"bands": ("B02", "B99")}, BandError, r"B99.*it has each of.*'B8A'"),
        ({"bands": ("B02", "B02")}, BandError, "once"),
        ({"nodata": 0.5}, InputError, "nodata is 0.5; digital numbers are integers"),
        ({"offset": None}, InputError, "offset is None"),
        ({"offset": 2**16}, InputError, "offset is 65536; give digital numbers from -65535"),
        ({"model_digest": "xyz"}, InputError, "'xyz' is no SHA-256"),
        ({"format_version": 2}, NewerFormatError, r"version 2.*up to 1; install a newer"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(fields, error, message):
    with pytest.raises(error, match=message):
        Settings(**fields)


@pytest.mark.parametrize("fields", [{"speed": 3}, {"compression": "high"}, {"bands": 5}])
def test_a_dictionary_that_is_no_settings(fields):
    with pytest.raises(InputError, match="not the settings of a codec"):
        Settings.from_dict(fields)


def test_a_store_can_be_opened_without_its_model():
    """Its coordinates and sizes are there for everyone; only pixels need the model."""
    fields = Settings(bands=("B02",)).to_dict() | {"model": "lost", "model_digest": "ab" * 32}
    one = Settings.from_dict(fields)
    assert one.bands == ("B02",)
    with pytest.raises(WrongModelError, match="'lost'"):
        _ = one.level


def test_replace_with_another_model_finds_its_digest(model, tmp_path):
    """Else what is called one model would be coded with another."""
    other = write_weights(tmp_path / "b.safetensors", network(TINY, 1), "other")
    for one in (Settings(model), Settings.from_dict(Settings(model).to_dict())):
        assert replace(one, model=other) == Settings(other)
        assert replace(one, nodata=7) == Settings(model, nodata=7)
        assert replace(replace(one, model=other), model=model) == Settings(model)
        assert replace(one, model="gone", model_digest="ab" * 32).model_digest == "ab" * 32
        with pytest.raises(ModelError, match="no model 'nope'"):
            replace(one, model="nope")


def test_replace_checks_what_the_constructor_checks(model):
    one = Settings(model)
    with pytest.raises(BandError, match="B99"):
        replace(one, bands=("B99",))
    lost = Settings.from_dict(one.to_dict() | {"model": "lost", "model_digest": "ab" * 32})
    assert replace(lost, nodata=3).nodata == 3  # its bands are known to nobody here


def test_only_what_is_stored_is_read(model):
    fields = Settings(model).to_dict()
    assert "found_for" not in fields
    with pytest.raises(InputError, match="found_for"):
        Settings.from_dict(fields | {"found_for": ["a", "b"]})


def test_settings_import_no_torch():
    code = (
        "from xtec.settings import Settings; Settings().level;"
        "import sys; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
