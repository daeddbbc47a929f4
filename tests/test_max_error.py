"""``max_error`` from the accessor to the store and back, as a user meets it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import zarr

import xtec
from tests.models import TINY, context_network, network, write_weights
from xtec.coding import stream
from xtec.cube.stored import array_of
from xtec.errors import BandError, InputError
from xtec.settings import compression_for

BANDS = ["B02", "B04", "B08"]
CHUNKS = {"time": 2, "y": 32, "x": 27}
AFFINE = "ignore:Use `@` matmul:PendingDeprecationWarning"
ZARR = "ignore:.*(Consolidated metadata|does not have a Zarr V3 specification):"

pytestmark = [pytest.mark.filterwarnings(AFFINE), pytest.mark.filterwarnings(ZARR)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny model of each family."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "embedded": write_weights(folder / "a.safetensors", context_network(), "tiny"),
        "tec-tt": write_weights(folder / "b.safetensors", network(TINY), "temporal"),
    }


@pytest.fixture
def small(cube):
    """Digital numbers, with no data and saturated pixels."""
    numbers = cube.reflectance.sel(band=BANDS)
    numbers = numbers.astype("uint16") if numbers.dtype.kind != "f" else numbers
    numbers[0, :, :9, :5] = 0
    numbers[1, 1, 20:22, 7] = 65535
    return numbers.to_dataset(name="dn")


def errors(decoded, original):
    """Largest error of each band, no data included."""
    difference = decoded.dn.values.astype(int) - original.dn.values.astype(int)
    return np.abs(difference).max(axis=(0, 2, 3)).tolist()


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("family", ["embedded", "tec-tt"])
@pytest.mark.parametrize("bound", [0, 3, (0, 1, 40)])
def test_there_and_back(small, models, tmp_path, family, zarr_format, lazy, bound):
    cube = small.chunk(time=1, y=20) if lazy else small
    options = {"model": models[family], "chunks": CHUNKS, "max_error": bound, "progress": False}
    cube.tec.compress(tmp_path / "a.zarr", zarr_format=zarr_format, **options)
    opened = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False)
    bounds = bound if isinstance(bound, tuple) else (bound,) * 3
    found = errors(opened, small)
    assert all(np.array(found) <= bounds)
    assert max(found) == max(bounds)
    assert np.array_equal(opened.dn == 0, small.dn == 0)
    quality = opened.tec.quality(small)
    assert quality.max_error.values.tolist() == found
    assert quality.mask_errors == 0
    info = opened.tec.info()
    assert info.max_error == bound
    assert 0 < info.residual_share < 1
    assert json.dumps(info.to_dict()["max_error"])


@pytest.mark.parametrize("shards", [None, {"time": 2, "y": 64, "x": 54}])
def test_the_share_of_the_residual_is_what_the_streams_say(small, models, tmp_path, shards):
    options = {"model": models["embedded"], "chunks": CHUNKS, "shards": shards, "progress": False}
    small.tec.compress(tmp_path / "a.zarr", max_error=5, **options)
    opened = xr.open_zarr(tmp_path / "a.zarr")
    residual = total = 0
    for path in (tmp_path / "a.zarr" / "dn" / "c").rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        while data.startswith(b"XTEC"):
            length = int.from_bytes(data[16:20], "little")
            residual += len(stream.parse(data[:length]).residual)
            total, data = total + length, data[length:]
    info = opened.tec.info()
    assert info.residual_share == residual / total
    assert f"5 DN; takes {100 * residual / total:.0f} % of the bits" in repr(info)
    assert array_of(opened, "dn") is not None


def test_info_before_anything_is_stored_and_of_bands(small, models, tmp_path):
    options = {"model": models["embedded"], "chunks": CHUNKS, "progress": False}
    info = small.tec.compress(max_error=(1, 2, 3), **options).tec.info()
    assert info.residual_share is None
    assert "B02 1, B04 2, B08 3 DN" in repr(info)
    assert "0 DN, lossless" in repr(small.tec.compress(max_error=0, **options).tec.info())
    free = small.tec.compress(**options).tec.info()
    assert free.max_error is None
    assert "max error" not in repr(free)


def test_info_of_a_store_without_any_chunk(small, models, tmp_path):
    options = {"model": models["embedded"], "progress": False}
    (small * 0).astype("uint16").tec.compress(tmp_path / "a.zarr", max_error=1, **options)
    assert xr.open_zarr(tmp_path / "a.zarr").tec.info().residual_share is None


def test_a_shard_that_ends_early_is_counted_as_far_as_it_goes(small, models, tmp_path):
    """Of a large one only the beginning is read."""
    options = {"model": models["embedded"], "chunks": CHUNKS, "progress": False}
    small.tec.compress(tmp_path / "a.zarr", max_error=1, **options)
    for path in (tmp_path / "a.zarr" / "dn" / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    assert xr.open_zarr(tmp_path / "a.zarr").tec.info().residual_share is None


def test_the_store_explains_itself(small, models, tmp_path):
    options = {"model": models["embedded"], "chunks": CHUNKS, "progress": False}
    small.tec.compress(tmp_path / "a.zarr", max_error=(0, 1, 40), **options)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert "within its band's bound in DN (B02 0, B04 1, B08 40)" in group.attrs["tec_lossy"]
    meta = json.loads((tmp_path / "a.zarr" / "dn" / "zarr.json").read_text())
    assert meta["codecs"][0]["configuration"]["max_error"] == [0, 1, 40]
    small.tec.compress(tmp_path / "b.zarr", max_error=0, **options)
    group = zarr.open_group(tmp_path / "b.zarr", mode="r")
    assert "without loss" in group.attrs["tec_lossy"]
    assert "every pixel is exact" in group["dn"].attrs["tec_compression"]
    assert "lossy" not in group["dn"].attrs["tec_compression"]


def test_a_lossless_store_may_be_compressed_again(small, models, tmp_path):
    options = {"model": models["embedded"], "chunks": CHUNKS, "progress": False}
    small.tec.compress(tmp_path / "a.zarr", max_error=0, **options)
    again = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False)
    again.tec.compress(tmp_path / "b.zarr", max_error=7, **options)  # no warning
    assert max(errors(xr.open_zarr(tmp_path / "b.zarr", mask_and_scale=False), small)) == 7


def test_reflectance_keeps_the_bound_in_its_packed_numbers(small, models, tmp_path):
    cube = (small.dn.where(small.dn > 0) * 1e-4).astype("float32").to_dataset(name="dn")
    cube = cube.where(cube < 2)
    options = {"model": models["embedded"], "chunks": CHUNKS, "progress": False}
    cube.tec.compress(tmp_path / "a.zarr", max_error=4, **options)
    opened = xr.open_zarr(tmp_path / "a.zarr")
    assert np.array_equal(np.isnan(opened.dn), np.isnan(cube.dn))
    assert float(abs(opened.dn - cube.dn).max()) <= 4.5e-4 + 1e-7
    assert (cube.tec.quality(opened).max_error <= 4.5).all()


def test_bands_by_any_name_in_any_order(small, models):
    options = {"model": models["embedded"], "chunks": CHUNKS, "progress": False}
    made = small.tec.compress(max_error={"nir": 3, "b2": 1, "red": 2}, **options)
    assert made.tec.info().max_error == (1, 2, 3)
    assert small.tec.compress(max_error=np.array([1, 2, 3]), **options).tec.info().max_error == (
        1,
        2,
        3,
    )


REFUSED = [
    ({"max_error": -1}, InputError, "max_error is -1; .*0 to 65535"),
    ({"max_error": 65536}, InputError, "0 to 65535"),
    ({"max_error": 2.5}, InputError, "max_error is 2.5; digital numbers are integers"),
    ({"max_error": "5"}, InputError, "integers"),
    ({"max_error": (1, 2)}, InputError, "2 numbers, the chunk 3 bands: .*'B08'"),
    ({"max_error": ()}, InputError, "0 to 65535"),
    ({"max_error": {"B02": 1}}, InputError, r"names the bands \['B02'\], the cube has"),
    ({"max_error": {"B02": 1, "purple": 2}}, BandError, "purple"),
    ({"max_error": 5, "target_psnr": 40}, InputError, "target_psnr=40 were given"),
    ({"max_error": 5, "target_bpppb": 1}, InputError, "give one of them"),
]


@pytest.mark.parametrize(("choice", "error", "message"), REFUSED)
def test_refused(small, models, choice, error, message):
    with pytest.raises(error, match=message):
        small.tec.compress(model=models["embedded"], progress=False, **choice)


def test_the_compression_follows_from_the_bound_unless_it_is_given(small, models):
    options = {"model": models["embedded"], "chunks": CHUNKS, "progress": False}
    chosen = [
        small.tec.compress(max_error=bound, **options).tec.info().compression
        for bound in (0, 100, 400, (0, 400, 400), 65535)
    ]
    assert chosen[0] == chosen[1] == chosen[3] == 12
    assert 4.5 < chosen[2] < 5.5
    assert chosen[4] == 0.01
    assert compression_for([255]) == 12 > compression_for([270])
    given = small.tec.compress(max_error=3, compression=77, **options)
    assert given.tec.info().compression == 77
    assert small.tec.compress(**options).tec.info().compression == 20


def test_settings_with_a_bound_come_back():
    for bound in (0, 7, (1,) * 12 + (65535,)):
        one = xtec.Settings(max_error=bound)
        assert xtec.Settings.from_dict(json.loads(json.dumps(one.to_dict()))) == one
        assert hash(one) == hash(xtec.Settings(max_error=bound))
        assert one.bounds == (bound if isinstance(bound, tuple) else (bound,) * 13)
    assert "max_error" not in xtec.Settings().to_dict()
    assert xtec.Settings(max_error=np.int16(5)).max_error == 5
    with pytest.raises(InputError, match="2 numbers, the chunk 13 bands"):
        xtec.Settings.from_dict(xtec.Settings().to_dict() | {"max_error": [1, 2]})


def test_describing_bounds_is_light():
    code = (
        "import xtec, sys; xtec.Settings(max_error=3).promise;"
        "print([m for m in ('torch', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]


def test_real_places_without_loss(real_cubes, tmp_path):
    """A real cube in both directions, with bands on three grids."""
    cube = real_cubes("val/oscd__norcia.cube")[:, :, :64, :64].to_dataset(name="dn")
    for bound in (0, 20):
        cube.tec.compress(tmp_path / "a.zarr", max_error=bound, progress=False, overwrite=True)
        opened = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False)
        assert max(errors(opened, cube)) == bound
        assert opened.tec.info().bits_per_pixel_per_band < (6, 3)[bound > 0]
