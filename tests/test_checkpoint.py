"""TerraCodec's checkpoints: every tensor is accounted for, none is changed, and no code runs."""

import dataclasses
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import (
    LAPPED,
    SMALL_L1C,
    SMALL_L2A,
    TINY,
    context_network,
    network,
    state_of,
    write_checkpoint,
)
from tests.test_network import REFERENCE, parity
from xtec.errors import ModelError
from xtec.models import checkpoint, weights
from xtec.models import config as configs
from xtec.models.config import S2L1C, S2L2A
from xtec.models.network import TemporalTransformer


@pytest.fixture
def path(tmp_path):
    return Path(write_checkpoint(tmp_path / "a.pt", network(SMALL_L1C)))


def about(config):
    return {"config": configs.to_dict(config)}


def shapes_of(config):
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in TemporalTransformer(config).state_dict().items()}


def test_the_maker_of_these_tests_gives_the_published_names():
    """All 802 of them, and their shapes."""
    published = {
        entry["key"]: tuple(entry["shape"])
        for entry in json.loads(parity("tt_l1c_state_keys.json").read_text())
    }
    with torch.device("meta"):
        made = state_of(TemporalTransformer(S2L1C))
    assert {k: tuple(v.shape) for k, v in made.items()} == published


@pytest.mark.parametrize("tables", [0, 7], ids=["fresh", "after its tables were made"])
@pytest.mark.parametrize("config", [SMALL_L1C, SMALL_L2A, TINY])
def test_weights_come_back_as_they_are(tmp_path, config, tables):
    path = Path(write_checkpoint(tmp_path / "mine.pt", network(config), tables))
    card = weights.read_card(path)
    assert (card.name, card.config, card.compression) == ("mine", config, None)
    assert card.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    found, expected = weights.load(card).state_dict(), network(config).state_dict()
    assert list(found) == list(expected)
    assert all(v.dtype == torch.float32 and torch.equal(v, expected[k]) for k, v in found.items())


def test_a_loaded_network_is_for_inference(path):
    model = weights.load(weights.read_card(path))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_parameters_saved_as_such_are_read_too(tmp_path):
    """Not every training script saves a plain state dict."""
    path = tmp_path / "a.pt"
    state = {k: torch.nn.Parameter(v) for k, v in network(TINY).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "xtec": about(TINY)}, path)
    found = weights.load(weights.read_card(path)).state_dict()
    assert all(torch.equal(v, state[k]) for k, v in found.items())


def test_the_convolutions_do_not_depend_on_the_file(path):
    model = weights.load(weights.read_card(path))
    expected = network(SMALL_L1C).state_dict()
    path.write_bytes(bytes(path.stat().st_size))
    for name, value in model.state_dict().items():
        if not name.startswith("entropy_model."):
            assert torch.equal(value, expected[name])


def test_official_files_are_known_by_their_name(tmp_path):
    path = tmp_path / "TerraCodec_v1_TT_S2L2A_lambda-0.4.pt"
    card = weights.read_card(Path(write_checkpoint(path, network(SMALL_L2A))))
    assert (card.name, card.compression) == ("tt-s2l2a-lambda-0.4", 0.4)


def test_a_file_may_say_its_name(tmp_path):
    path = Path(write_checkpoint(tmp_path / "a.pt", network(TINY), name="mine-3"))
    assert weights.read_name(path) == weights.read_card(path).name == "mine-3"


def test_reading_a_card_needs_no_torch(path):
    code = (
        "import sys; from pathlib import Path; from xtec.models.weights import read_card;"
        f"print(read_card(Path({str(path)!r})).name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["a", "False"]


def test_a_file_is_hashed_once_until_it_changes(path, monkeypatch):
    hashed = []
    plain = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: hashed.append(a) or plain(*a))
    first = weights.read_card(path)
    assert weights.read_card(path) == first
    weights.load(first)
    assert len(hashed) == 1
    write_checkpoint(path, network(SMALL_L1C, 1))
    os.utime(path, ns=(0, 1))
    assert weights.read_card(path).digest != first.digest
    assert len(hashed) == 2


def test_a_file_that_changed_after_its_card_was_read(path):
    card = weights.read_card(path)
    write_checkpoint(path, network(SMALL_L1C, 1))
    os.utime(path, ns=(0, 1))
    with pytest.raises(ModelError, match=f"no longer the file with digest {card.digest[:16]}"):
        weights.load(card)


def deduced(config):
    return checkpoint._deduce(Path("x.pt"), shapes_of(config))


@pytest.mark.parametrize("official", [S2L1C, S2L2A], ids=["l1c", "l2a"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"channels": (8, 16, 24), "residual_blocks": 2},
        {"attention": False, "layers_separate": 1, "layers_joint": 2, "layers_decoder": 3},
        {"mlp_ratio": 1},
    ],
)
def test_sizes_are_read_from_shapes(official, change):
    config = dataclasses.replace(official, **change)
    assert deduced(config) == config


@pytest.mark.parametrize("config", [SMALL_L1C, REFERENCE], ids=["other width", "other bands"])
def test_what_shapes_do_not_tell_is_not_guessed(config):
    bands = len(config.bands)
    with pytest.raises(ModelError, match=rf"{bands} bands and width {config.d_model}.*'xtec'"):
        deduced(config)


def test_the_reference_network_loads_from_a_checkpoint(tmp_path):
    """The fixture's own weights, its tables among them, in a file that says how many heads."""
    path = tmp_path / "reference.pt"
    with np.load(parity("tt_small_seed0.npz")) as file:
        state = {
            k.removeprefix("sd/"): torch.from_numpy(v)
            for k, v in file.items()
            if k.startswith("sd/")
        }
        x, y = (torch.from_numpy(file[k]).float().flatten(0, 1) for k in "xy")
    torch.save({"state_dict": state, "xtec": about(REFERENCE)}, path)
    model = weights.load(weights.read_card(path))
    torch.testing.assert_close(model.analysis(x), y, rtol=0, atol=1e-5)


def saved(path, change):
    """A checkpoint whose state dict is not quite right."""
    state = state_of(network(TINY))
    change(state)
    torch.save({"state_dict": state, "xtec": about(TINY)}, path)
    return path


ONE = "model.entropy_model.dec_position._pos"
WRONG = {
    "missing": (
        lambda state: state.pop(ONE),
        "1 missing: entropy_model.dec_position._pos.$",
    ),
    "of FlexTEC": (
        lambda state: state.update({"model.entropy_model.mask_token": torch.zeros(12)}),
        r"1 unknown: entropy_model.mask_token\.$",
    ),
    "misshapen": (
        lambda state: state.update({ONE: torch.zeros(1, 15, 16)}),
        r"1 of another shape: entropy_model.dec_position._pos \(1, 15, 16\) where \(1, 16, 16\)",
    ),
    "many": (
        lambda state: [state.pop(k) for k in list(state) if "mean_head" in k],
        r"6 missing: \S+, \S+, \S+, \.\.\.",
    ),
    "no tensor": (
        lambda state: state.update({ONE: "hello"}),
        "1 of another shape: .* None where",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_every_parameter_is_accounted_for(tmp_path, change, message):
    path = saved(tmp_path / "a.pt", change)
    with pytest.raises(ModelError, match=message):
        weights.load(weights.read_card(path))


class Trap:
    """Unpickling it would make a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


TRAPS = {
    "beside the state dict": lambda trap: {
        "state_dict": state_of(network(TINY)),
        "xtec": about(TINY),
        "extra": trap,
    },
    "in it": lambda trap: state_of(network(TINY)) | {"model.extra": trap},
    "alone": lambda trap: trap,
}


@pytest.mark.parametrize("make", TRAPS.values(), ids=TRAPS)
def test_code_in_a_checkpoint_is_not_run(tmp_path, make):
    path, mark = tmp_path / "a.pt", tmp_path / "mark"
    torch.save(make(Trap(mark)), path)
    with pytest.raises(ModelError, match=r"names \w+\.mkdir.*was not run"):
        weights.read_card(path)
    with pytest.raises(ModelError, match="cannot read the weights"):
        checkpoint.load(path, TINY)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the trap is a trap
    assert mark.exists()


def test_code_in_a_bare_pickle_is_not_run(tmp_path):
    path, mark = tmp_path / "a.pt", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(ModelError, match="zip archives"):
        weights.read_card(path)
    assert not mark.exists()


def test_what_a_pickle_finds_is_not_ours_to_keep():
    """A pickle may set attributes of what it names: that must not be a function used again."""
    found = [
        checkpoint._Reader(io.BytesIO()).find_class("torch._utils", "_rebuild_tensor_v2")
        for _ in range(2)
    ]
    assert found[0] is not found[1]


def archive(path, data, name="a/data.pkl"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, data)


BROKEN = {
    "empty": (lambda path: path.write_bytes(b""), "zip archives"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "zip archives|not a check"),
    "legacy": (
        lambda path: torch.save({}, path, _use_new_zipfile_serialization=False),
        "zip archives",
    ),
    "another archive": (lambda path: archive(path, b"", "b.txt"), "is not a checkpoint"),
    "no pickle": (lambda path: archive(path, b"hello"), "is not a checkpoint"),
    "a list": (lambda path: archive(path, pickle.dumps([1])), "is not a checkpoint"),
    "no tensors": (lambda path: archive(path, pickle.dumps({"a": 1})), "0 tensors, but not those"),
    "another network": (lambda path: torch.save({"a": torch.zeros(3)}, path), "1 tensors, but not"),
    "a bomb": (lambda path: archive(path, bytes(1 << 25)), "has 33554432 bytes"),
    "no description": (
        lambda path: torch.save({"state_dict": {}, "xtec": {"config": {}}}, path),
        "not a description",
    ),
    "a description of the embedded family": (
        lambda path: torch.save({"state_dict": {}, "xtec": about(LAPPED)}, path),
        "embedded family uses safetensors",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_checkpoint(path, damage, message):
    damage(path)
    with pytest.raises(ModelError, match=message):
        weights.read_card(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read the weights .*nowhere\.pt"):
        weights.read_card(tmp_path / "nowhere.pt")


def test_numbers_that_are_gone(path):
    """The list of tensors is whole, the tensors are not there."""
    with zipfile.ZipFile(path) as archive_:
        (name,) = (n for n in archive_.namelist() if n.endswith("data.pkl"))
        data = archive_.read(name)
    archive(path, data, name)
    with pytest.raises(ModelError, match="cannot read the weights"):
        weights.load(weights.read_card(path))


def test_the_other_family_is_no_checkpoint(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(context_network().state_dict(), path)
    with pytest.raises(ModelError, match="not those of a TEC-TT network"):
        weights.read_card(path)
