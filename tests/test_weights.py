"""A weights file says what it is; whatever is wrong with it is a ModelError that names it."""

import dataclasses
import hashlib
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.models import LAPPED, TINY, context_network, network, write_weights
from xtec.errors import ModelError
from xtec.models import config as configs
from xtec.models import weights
from xtec.models.config import S2L1C


@pytest.fixture
def path(tmp_path):
    return Path(write_weights(tmp_path / "tiny.safetensors", network(TINY)))


def with_header(path, change):
    """Write a file's header anew after ``change`` has seen it."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    change(header["__metadata__"])
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])


def test_a_card_says_what_was_written(path):
    card = weights.read_card(path)
    assert (card.name, card.path, card.config) == ("tiny", path, TINY)
    assert card.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_come_back_in_half_precision(path):
    expected = {k: v.half().float() for k, v in network(TINY).state_dict().items()}
    found = weights.load(weights.read_card(path)).state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[k], v) for k, v in expected.items())


def test_a_loaded_network_is_for_inference(path):
    model = weights.load(weights.read_card(path))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_the_same_weights_are_the_same_file(path, tmp_path):
    again = write_weights(tmp_path / "again.safetensors", network(TINY))
    assert Path(again).read_bytes() == path.read_bytes()


def test_others_may_read_the_file(path, tmp_path):
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_reading_a_card_needs_no_torch(path):
    code = (
        "import sys; from pathlib import Path; from xtec.models.weights import read_card;"
        f"print(read_card(Path({str(path)!r})).name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tiny", "False"]


def test_loading_a_network_brings_no_compiler(path):
    """It would take a second or two of every process."""
    code = (
        "import sys; from pathlib import Path; from xtec.models import weights;"
        f"weights.load(weights.read_card(Path({str(path)!r})));"
        "print('torch' in sys.modules, {'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set()"


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read the weights .*nowhere.safetensors"):
        weights.read_card(tmp_path / "nowhere.safetensors")


def stranger(path):
    save_file({"a": torch.zeros(1)}, path)


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "cut in its length": lambda path: path.write_bytes(path.read_bytes()[:5]),
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "no JSON": lambda path: path.write_bytes(b"x" * 100),
    "of another program": stranger,
    "a header that is a list": lambda path: path.write_bytes(struct.pack("<Q", 2) + b"[]"),
    "an entry that is text": lambda path: with_header(path, lambda m: m.update(xtec="7")),
    "an entry of no name": lambda path: with_header(path, lambda m: m.update(xtec="{}")),
    "a list for a config": lambda path: with_header(
        path, lambda m: m.update(xtec='{"name": "a", "config": []}')
    ),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_weights_file(path, damage):
    damage(path)
    with pytest.raises(ModelError, match=re.escape(str(path)) + " is not a weights file"):
        weights.read_card(path)


def test_a_network_of_a_later_version(path):
    """It may have fields that this version does not know."""

    def change(metadata):
        about = json.loads(metadata["xtec"])
        about["config"]["mixture"] = 3
        metadata["xtec"] = json.dumps(about)

    with_header(path, change)
    with pytest.raises(ModelError, match="mixture"):
        weights.read_card(path)


def test_a_file_that_changed_after_its_card_was_read(path):
    card = weights.read_card(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=f"no longer the file with digest {card.digest[:16]}"):
        weights.load(card)


def test_a_file_that_vanished_after_its_card_was_read(path):
    card = weights.read_card(path)
    path.unlink()
    with pytest.raises(ModelError, match="cannot read the weights"):
        weights.load(card)


def test_tensors_of_another_network(path):
    about = weights.HEADER_KEY
    other = json.dumps({"name": "a", "config": configs.to_dict(TINY) | {"d_model": 32}})
    with_header(path, lambda metadata: metadata.update({about: other}))
    with pytest.raises(ModelError, match=r"(?s)do not fit its network.*size mismatch"):
        weights.load(weights.read_card(path))


def test_tensors_that_are_cut_off(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="do not fit its network"):
        weights.load(weights.read_card(path))


@pytest.mark.parametrize("config", [TINY, S2L1C, LAPPED])
def test_a_description_survives_json(config):
    again = configs.from_dict(json.loads(json.dumps(configs.to_dict(config))))
    assert again == config
    assert hash(again) == hash(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (1.0,)}, "3 bands, 1 means and 3 standard deviations"),
        ({"std": (1.0, 0.0, 1.0)}, "must be positive, got 0.0"),
        ({"heads": 3}, "d_model 16 is not a multiple of 3 heads"),
    ],
)
def test_a_description_that_contradicts_itself(change, message):
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(TINY, **change)


def test_a_description_that_lacks_something():
    fields = configs.to_dict(TINY)
    del fields["bands"]
    with pytest.raises(ModelError, match="bands"):
        configs.from_dict(fields)


def test_sizes_follow_from_the_stages():
    assert (S2L1C.stride, S2L1C.tile, S2L1C.latent_channels) == (16, 64, 192)
    assert (TINY.stride, TINY.tile, TINY.latent_channels) == (4, 16, 12)


def test_both_families_come_back(tmp_path):
    path = Path(write_weights(tmp_path / "lapped.safetensors", context_network()))
    card = weights.read_card(path)
    assert card.config == LAPPED
    expected = {k: v.half().float() for k, v in context_network().state_dict().items()}
    found = weights.load(card).state_dict()
    assert all(torch.equal(found[k], v) for k, v in expected.items())


def test_a_file_from_before_there_were_kinds_is_a_tec_tt(path):
    def change(metadata):
        about = json.loads(metadata["xtec"])
        assert about["config"].pop("kind") == "tec-tt"
        metadata["xtec"] = json.dumps(about)

    with_header(path, change)
    assert weights.read_card(path).config == TINY


def test_a_kind_of_a_later_version():
    with pytest.raises(ModelError, match="'diffusion'"):
        configs.from_dict(configs.to_dict(TINY) | {"kind": "diffusion"})


def test_levels_of_the_embedded_family():
    assert [LAPPED.level(LAPPED.compression(i)) for i in range(LAPPED.levels)] == [
        *range(LAPPED.levels)
    ]
    assert LAPPED.compression(LAPPED.level(1)) == pytest.approx(1, rel=0.02)
    assert LAPPED.level(1e-9) == 0
    assert LAPPED.level(1e9) == LAPPED.levels - 1


def test_a_tec_tt_knows_one_compression():
    assert TINY.levels == 1
    assert TINY.level(0.1) == TINY.level(20) == TINY.level(9999) == 0
