"""Official checkpoints from Settings to a store and back, in small and once at full size."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr

from tests.models import SMALL_L1C, SMALL_L2A, network, write_checkpoint
from xtec import terracodec_v1_tt_s2l1c
from xtec.codec import decode_chunk, encode_chunk
from xtec.errors import BandError, WrongModelError
from xtec.models import official, registry, weights
from xtec.models.config import BANDS_L2A, S2L1C
from xtec.settings import Settings


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the search path with two of the official checkpoints, in small."""
    monkeypatch.setattr(registry, "_used", {})
    folder = tmp_path / "models"
    folder.mkdir()
    write_checkpoint(folder / "TerraCodec_v1_TT_S2L1C_lambda-20.pt", network(SMALL_L1C))
    write_checkpoint(folder / "TerraCodec_v1_TT_S2L2A_lambda-0.4.pt", network(SMALL_L2A))
    monkeypatch.setenv(registry.SEARCH_PATH, str(folder))
    return folder


def test_settings_write_down_the_checkpoint_they_got(folder):
    path = folder / "TerraCodec_v1_TT_S2L1C_lambda-20.pt"
    with pytest.warns(UserWarning, match="lambda-20 was trained for compression 20, .* not 30"):
        one = Settings("tt-s2l1c", compression=30)
    assert (one.model, one.compression) == ("tt-s2l1c-lambda-20", 20)
    assert one.model_digest == weights.digest(path)
    assert one.bands == S2L1C.bands
    for same in ("tt-s2l1c", "tt-s2l1c-lambda-20", str(path)):
        assert Settings(same) == one
    with pytest.warns(UserWarning, match="not 100"):
        assert Settings(str(path), compression=100) == one
    assert Settings("tt-s2l2a-lambda-0.4").compression == 0.4
    assert Settings.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_bands_that_a_product_lacks_are_refused(folder):
    with pytest.raises(BandError, match="B10"):
        Settings("tt-s2l2a-lambda-0.4", bands=("B09", "B10"))


@pytest.mark.parametrize(
    ("name", "bands", "zarr_format"),
    [("tt-s2l1c-lambda-20", S2L1C.bands, 2), ("tt-s2l2a-lambda-0.4", BANDS_L2A, 3)],
)
def test_a_store_of_an_official_checkpoint(folder, cube, tmp_path, name, bands, zarr_format):
    store, array = tmp_path / "a.zarr", tmp_path / "a.npy"
    cube = cube.sel(band=list(bands))
    one = official.BY_NAME[name]
    opened = cube.tec.compress(
        store, model=str(folder / one.file), zarr_format=zarr_format, progress=False
    )
    info = opened.tec.info()
    assert (info.model, info.compression, info.bands) == (name, one.compression, bands)
    found = xr.open_zarr(store, mask_and_scale=False).tec.array.values.astype(int)
    assert np.array_equal(found == 0, np.isnan(opened.tec.array.values))
    assert found[found > 0].std() > 10
    # Another process finds the checkpoint in the folder, by its name and digest.
    code = (
        "import sys, numpy, xarray;"
        "cube = xarray.open_zarr(sys.argv[1], mask_and_scale=False);"
        "numpy.save(sys.argv[2], cube[sys.argv[3]].values)"
    )
    subprocess.run(
        [sys.executable, "-c", code, store, array, str(opened.tec.array.name)], check=True
    )
    assert np.abs(np.load(array).astype(int) - found).max() <= 1


def test_a_bound_asks_for_no_other_lambda_than_the_checkpoint_has(folder, cube, tmp_path):
    """No warning of a compression that the user never named."""
    part = cube.isel(time=[0], x=slice(20), y=slice(20))
    made = part.tec.compress(tmp_path / "a.zarr", model="tt-s2l1c", max_error=9, progress=False)
    assert made.tec.info().compression == 20
    assert made.tec.verify(part).ok


def test_a_checkpoint_that_is_gone_is_named(folder, cube, tmp_path, monkeypatch):
    store = tmp_path / "a.zarr"
    part = cube.isel(time=[0], x=slice(20), y=slice(20))
    part.tec.compress(store, model="tt-s2l1c", embed_weights=False, progress=False)
    for known in ("_used", "_lent"):
        monkeypatch.setattr(registry, known, {})
    monkeypatch.setattr(registry, "_shelves", [])
    monkeypatch.delenv(registry.SEARCH_PATH)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    opened = xr.open_zarr(store)
    assert opened.tec.info().model == "tt-s2l1c-lambda-20"
    with pytest.raises(WrongModelError) as caught:
        opened.load()
    for part in ("tt-s2l1c-lambda-20", "embed2scale/TerraCodec-1.0-TT-S2L1C", "XTEC_HUB=1"):
        assert part in str(caught.value)


@pytest.mark.slow
def test_the_full_size_network(tmp_path, monkeypatch):
    """225 M random weights in the published layout, through the codec and the card's interface."""
    monkeypatch.setattr(registry, "_used", {})
    path = tmp_path / "TerraCodec_v1_TT_S2L1C_lambda-5.pt"
    write_checkpoint(path, network.__wrapped__(S2L1C))
    one = Settings(str(path), compression=5)
    assert one.card.config == S2L1C
    numbers = np.random.default_rng(0).normal(2000, 500, (2, 13, 64, 100)).clip(1).astype("uint16")
    chunk = decode_chunk(encode_chunk(numbers, one))
    assert chunk.shape == numbers.shape
    model = terracodec_v1_tt_s2l1c(ckpt_path=path)
    inputs = model.normalize(torch.from_numpy(numbers))
    compressed = model.compress(inputs)
    reconstruction = model.decompress(**compressed)
    assert torch.equal(model(inputs), reconstruction)
    again = model.denormalize(reconstruction).round().clamp(1, 65534).numpy()
    assert np.abs(again - chunk).max() <= 1
