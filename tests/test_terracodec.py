"""TerraCodec's own interface: any size and batch, checked strings, nothing global touched."""

import base64
import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import xtec
from tests.models import SMALL_L1C, SMALL_L2A, network, write_checkpoint
from xtec.codec import decode_chunk
from xtec.coding import stream
from xtec.errors import (
    BandError,
    InputError,
    ModelError,
    StreamError,
    TruncatedStreamError,
    WrongModelError,
)
from xtec.models import registry
from xtec.models.config import S2L1C, S2L2A
from xtec.terracodec import (
    TerraCodec,
    published,
    terracodec_v1_tt_s2l1c,
    terracodec_v1_tt_s2l2a,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Official names, small networks; no two alike."""
    folder = tmp_path_factory.mktemp("models")
    for seed, value in enumerate((5, 20, 100)):
        path = folder / f"TerraCodec_v1_TT_S2L1C_lambda-{value}.pt"
        write_checkpoint(path, network(SMALL_L1C, seed))
    write_checkpoint(folder / "TerraCodec_v1_TT_S2L2A_lambda-5.pt", network(SMALL_L2A))
    return folder


@pytest.fixture(autouse=True)
def at_hand(folder, monkeypatch):
    monkeypatch.setattr(registry, "_used", {})
    monkeypatch.setenv(registry.SEARCH_PATH, str(folder))


@pytest.fixture(scope="module")
def model():
    return TerraCodec(network(SMALL_L1C), "small")


def random_inputs(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def test_the_card_s_code_runs_as_printed():
    from xtec import terracodec_v1_tt_s2l1c

    inputs = random_inputs(1, 4, 13, 64, 64)
    model = terracodec_v1_tt_s2l1c(pretrained=True, compression=5)
    reconstruction = model(inputs)
    assert reconstruction.shape == inputs.shape
    assert reconstruction.dtype == torch.float32
    compressed = model.compress(inputs)
    assert torch.equal(model.decompress(**compressed), reconstruction)
    assert compressed["bits"]


@settings(max_examples=12)
@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    height=st.integers(1, 70),
    width=st.sampled_from([1, 63, 64, 65]),
)
def test_what_is_reconstructed_is_what_is_decoded(model, lead, height, width):
    inputs = random_inputs(*lead, 13, height, width)
    compressed = model.compress(inputs)
    decoded = model.decompress(**compressed)
    assert decoded.shape == inputs.shape
    assert torch.equal(model(inputs), decoded)
    assert sum(compressed["bits"]) == 8 * sum(map(len, compressed["strings"]))
    assert len(compressed["bits"]) == (lead[-1] if lead else 1)
    assert len(compressed["strings"]) == (lead[0] if len(lead) == 2 else 1)


def test_reconstructions_depend_on_what_went_in(model):
    """Else the equality above would hold for a network that gives nothing."""
    first, second = (model(random_inputs(2, 13, 64, 64, seed=i)) for i in range(2))
    assert (first - second).abs().max() > 0.05


def test_company_changes_nothing(model):
    inputs = random_inputs(10, 2, 13, 64, 64)
    together, alone = model.compress(inputs), model.compress(inputs[9:])
    assert together["strings"][9] == alone["strings"][0]
    assert torch.equal(model(inputs)[9:], model(inputs[9:]))


def test_the_float_network_reconstructs_nearly_the_same(model):
    """Its features differ from the exact prior's by rounding."""
    inputs = random_inputs(3, 13, 64, 64)
    net = model.model
    with torch.no_grad():
        q = net.analysis(inputs).round()
        _, _, z = net.prior(q[None])
        expected = net.synthesis(q, z[0])
    found = model(inputs)
    assert (found - expected).abs().max() < 0.05 * expected.std()


def test_the_dictionary_itself_is_taken_too(model):
    """So does the reference, whose card says otherwise."""
    compressed = model.compress(random_inputs(13, 10, 10))
    assert torch.equal(model.decompress(compressed), model.decompress(**compressed))


def test_strings_are_those_of_the_format(model):
    """A string is a stream like those in a store; anyone who has the model reads it."""
    compressed = model.compress(random_inputs(2, 3, 13, 30, 40))
    found = [stream.parse(one) for one in compressed["strings"]]
    assert [s.shape for s in found] == [(3, 13, 30, 40)] * 2
    assert all(s.model_digest.hex() == compressed["digest"][:16] for s in found)


def test_strings_decode_to_digital_numbers_too():
    model = terracodec_v1_tt_s2l1c(pretrained=True)
    numbers = np.random.default_rng(0).integers(500, 4000, (2, 13, 40, 30))
    compressed = model.compress(model.normalize(torch.from_numpy(numbers)))
    chunk = decode_chunk(compressed["strings"][0], model=model.name)
    expected = model.denormalize(model.decompress(**compressed)).clamp(0, 65534).round()
    assert np.abs(chunk - expected.numpy()).max() <= 1


def test_statistics_ship_with_the_model(model):
    assert model.mean.tolist() == pytest.approx(S2L1C.mean)
    assert model.std.tolist() == pytest.approx(S2L1C.std)
    assert len(S2L2A.mean) == len(S2L2A.std) == len(S2L2A.bands) == 12
    assert "B10" not in S2L2A.bands


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.uint16])
def test_normalising_is_undone(model, dtype):
    numbers = torch.arange(2 * 13 * 4).reshape(2, 13, 2, 2).to(dtype)
    x = model.normalize(numbers)
    assert x.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert torch.allclose(x[0, 3], (numbers[0, 3].to(x.dtype) - 1373.963) / 1143.578)
    assert torch.allclose(model.denormalize(x), numbers.to(x.dtype), atol=1e-3)


@pytest.mark.parametrize("method", ["normalize", "denormalize", "forward", "compress"])
@pytest.mark.parametrize("shape", [(12, 64, 64), (13, 64), (4, 13, 12, 64, 64), ()])
def test_other_bands_are_named(model, method, shape):
    with pytest.raises(BandError, match=r"met the 13 bands of small: B01, .*third axis"):
        getattr(model, method)(torch.zeros(shape))


@pytest.mark.parametrize("method", ["forward", "compress"])
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.full((1, 13, 8, 8), torch.nan), "832 of 832 inputs are NaN"),
        (torch.zeros(13, 8, 8).index_fill(1, torch.tensor(0), torch.inf), "104 of 832"),
        (torch.full((1, 13, 8, 8), -1e6), "832 of 832"),
        (torch.zeros(13, 8, 8, dtype=torch.int16), r"model\.normalize"),
        (np.zeros((13, 8, 8), np.float32), "must be a tensor"),
        (torch.zeros(1, 13, 0, 8), "none of them 0"),
        (torch.zeros(1, 1, 1, 13, 8, 8), "have the shape"),
    ],
)
def test_inputs_that_cannot_be_coded(model, method, inputs, message):
    with pytest.raises(InputError, match=message):
        getattr(model, method)(inputs)


@pytest.fixture(scope="module")
def compressed(model):
    return model.compress(random_inputs(2, 2, 13, 20, 20))


def test_a_flipped_bit_is_found(model, compressed):
    one = compressed["strings"][1]
    for place in range(0, len(one), 97):
        bad = bytearray(one)
        bad[place] ^= 1 << place % 8
        with pytest.raises(StreamError):
            model.decompress(**compressed | {"strings": [compressed["strings"][0], bytes(bad)]})


@pytest.mark.parametrize("length", [0, 3, 40, 60, -1])
def test_a_truncated_string_is_found(model, compressed, length):
    with pytest.raises(TruncatedStreamError):
        model.decompress(
            **compressed | {"strings": [one[:length] for one in compressed["strings"]]}
        )


def test_another_model_is_named(compressed):
    other = TerraCodec(network(SMALL_L1C, 1), "other")
    with pytest.raises(WrongModelError, match=r"with model small of digest .* here is other of"):
        other.decompress(**compressed)
    with pytest.raises(WrongModelError, match="with model unknown of digest"):
        other.decompress(compressed["strings"], compressed["shape"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shape": (2, 2, 13, 20, 21)}, StreamError, r"the shape \(2, 13, 20, 20\), not"),
        ({"shape": (3, 2, 13, 20, 20)}, StreamError, "2 strings for a shape of"),
        ({"shape": (0, 2, 13, 20, 20), "strings": []}, StreamError, "0 strings"),
        ({"shape": None}, InputError, "what compress returned"),
        ({"strings": "text"}, InputError, "what compress returned"),
        ({"strings": [base64.b64encode(b"x" * 99)]}, StreamError, "."),
    ],
)
def test_a_dictionary_that_was_changed(model, compressed, change, error, message):
    with pytest.raises(error, match=message):
        model.decompress(**compressed | change)


def test_a_chunk_of_a_store_is_not_taken_for_a_string(model, compressed):
    """It may have masks, and an offset; its way back is another."""
    one = stream.parse(compressed["strings"][0])
    fields = {k: getattr(one, k) for k in one.__dataclass_fields__}
    chunk = stream.pack(stream.Stream(**fields | {"offset": 1000}))
    with pytest.raises(StreamError, match="decode_chunk reads it"):
        model.decompress([chunk], (2, 13, 20, 20))


def test_latents_are_checked(model, compressed):
    one = stream.parse(compressed["strings"][0])
    fields = {k: getattr(one, k) for k in one.__dataclass_fields__}
    forged = stream.pack(
        stream.Stream(**fields | {"frame_crcs": tuple(crc ^ 1 for crc in one.frame_crcs)})
    )
    with pytest.raises(StreamError, match="other latents"):
        model.decompress([forged], (2, 13, 20, 20))


def test_lambdas_are_chosen_as_the_reference_does():
    for compression in (20, 20.0, "lambda-20"):
        model = terracodec_v1_tt_s2l1c(compression, pretrained=True)
        assert model.name == "tt-s2l1c-lambda-20"
    with pytest.warns(UserWarning, match="lambda-5 was trained for compression 5, so it is not 7"):
        assert terracodec_v1_tt_s2l1c(7, pretrained=True).name == "tt-s2l1c-lambda-5"
    assert terracodec_v1_tt_s2l2a(pretrained=True).name == "tt-s2l2a-lambda-5"
    for wrong in ("lambda-7", "5"):
        with pytest.raises(InputError, match=r"is none of \['lambda-5', 'lambda-20', 'lambda-100'"):
            terracodec_v1_tt_s2l1c(wrong, pretrained=True)


def test_a_local_checkpoint(folder, tmp_path):
    path = folder / "TerraCodec_v1_TT_S2L1C_lambda-100.pt"
    model = terracodec_v1_tt_s2l1c(ckpt_path=path, image_size=128, mode="eval")
    assert model.digest == registry.resolve(str(path)).digest
    assert not model.training
    assert terracodec_v1_tt_s2l1c(ckpt_path=str(path), mode="train").training
    with pytest.raises(ModelError, match="not the 12 of tt-s2l2a"):
        terracodec_v1_tt_s2l2a(ckpt_path=path)
    with pytest.raises(ModelError, match=r"nowhere\.pt"):
        terracodec_v1_tt_s2l2a(ckpt_path=tmp_path / "nowhere.pt")


def test_random_weights_are_not_taken_for_trained_ones(monkeypatch):
    monkeypatch.setattr(published, "S2L1C", SMALL_L1C)
    with pytest.warns(UserWarning, match="random weights; say pretrained=True"):
        model = terracodec_v1_tt_s2l1c()
    assert model.name == "random"
    inputs = random_inputs(13, 64, 64)
    assert torch.equal(model.decompress(**model.compress(inputs)), model(inputs))


def test_a_state_dict_has_the_published_names(model, tmp_path):
    path = tmp_path / "mine.pt"
    assert set(model.state_dict()) == {f"model.{k}" for k in network(SMALL_L1C).state_dict()}
    write_checkpoint(path, model.model)
    assert registry.resolve(str(path)).config == SMALL_L1C


def test_other_weights_are_another_model():
    model = TerraCodec(copy.deepcopy(network(SMALL_L1C)), "small", "ab" * 32)
    inputs = random_inputs(13, 64, 64)
    before = model(inputs)
    old = model.compress(inputs)
    model.load_state_dict(TerraCodec(network(SMALL_L1C, 1), "other").state_dict())
    assert model.digest == TerraCodec(network(SMALL_L1C, 1), "other").digest
    assert not torch.equal(model(inputs), before)
    with pytest.raises(WrongModelError):
        model.decompress(**old)


@pytest.mark.parametrize("change", [torch.nn.Module.half, torch.nn.Module.double])
def test_precision_is_not_changed(model, change):
    with pytest.raises(InputError, match="stays in float32"):
        change(model)
    assert model.model.entropy_model.dec_position._pos.dtype == torch.float32


def test_moving_and_evaluating_return_the_model(model):
    inputs = random_inputs(13, 64, 64)
    before = model(inputs)
    assert model.to("cpu").eval() is model
    assert model.to(torch.float32) is model
    assert model.device == torch.device("cpu")
    assert torch.equal(model(inputs), before)


def test_copies_make_their_own_engine(model):
    inputs = random_inputs(13, 64, 64)
    expected = model(inputs)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert "_engine" not in vars(again)
        assert torch.equal(again(inputs), expected)
        assert again.digest == model.digest


def test_gradients_and_autocast_of_the_caller_play_no_part(model):
    inputs = random_inputs(13, 64, 64)
    expected = model(inputs)
    with torch.autocast("cpu"):
        found = model(inputs.clone().requires_grad_())
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert not found.is_inference()
    found += 1  # an ordinary tensor


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_inputs_of_other_precision(model, dtype):
    inputs = random_inputs(13, 64, 64).to(dtype)
    assert torch.equal(model(inputs), model(inputs.float()))


GLOBAL = """
import os
import torch
def look():
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "mkldnn": torch.backends.mkldnn.enabled,
        "environment": dict(os.environ),
    }
before = look()
import xtec
model = xtec.terracodec_v1_tt_s2l1c(pretrained=True, compression=5)
x = torch.zeros(1, 2, 13, 20, 20)
model(x), model.decompress(**model.compress(x))
after = look()
print({k: (before[k], after[k]) for k in before if before[k] != after[k]} or "untouched")
"""


def test_no_global_of_torch_is_touched():
    """The reference switches them when it builds a model. In a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", GLOBAL], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "untouched", done.stdout + done.stderr


def test_importing_xtec_brings_no_torch_until_a_model_is_asked_for():
    code = (
        "import sys, xtec; before = 'torch' in sys.modules; xtec.terracodec_v1_tt_s2l2a;"
        "print(before, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    assert xtec.terracodec_v1_tt_s2l1c is terracodec_v1_tt_s2l1c


def test_an_attribute_that_is_not_there():
    with pytest.raises(AttributeError, match="flextec_v1_s2l2a"):
        _ = xtec.flextec_v1_s2l2a


@pytest.mark.gpu
def test_a_gpu_decodes_what_a_cpu_wrote(folder):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    path = folder / "TerraCodec_v1_TT_S2L1C_lambda-5.pt"
    cpu = terracodec_v1_tt_s2l1c(ckpt_path=path)
    gpu = terracodec_v1_tt_s2l1c(ckpt_path=path).to("cuda")
    inputs = random_inputs(2, 3, 13, 70, 64)
    for writer, reader in ((cpu, gpu), (gpu, cpu)):
        found = reader.decompress(**writer.compress(inputs))
        assert found.device.type == reader.device.type
        assert torch.allclose(found.cpu(), writer(inputs).cpu(), atol=1e-3)
        assert torch.equal(reader(inputs), reader.decompress(**reader.compress(inputs)))
