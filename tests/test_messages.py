"""What a user does wrong, and the whole message that each gets.

In a message of the table «this» is what was met, ‹this› is what is allowed, and “this” is what to
do; each message has all three. An … stands for what is longer than it is worth, or differs between
machines.
"""

import contextlib
import os
import re
import shutil
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import xarray as xr

import xtec
import xtec.cluster
from tests.models import context_network, write_weights
from tests.products import Safe
from xtec import io, sample
from xtec.codec import decode_chunk, encode_chunk
from xtec.errors import (
    BandError,
    CorruptStreamError,
    InputError,
    ModelError,
    NewerFormatError,
    TruncatedStreamError,
    WrongModelError,
)
from xtec.models import registry

CHUNKS = {"time": 2, "y": 32, "x": 32}
PARTS = {"what was met": "«»", "what is allowed": "‹›", "what to do": "“”"}


class Wrong(NamedTuple):
    """One thing that a user does wrong."""

    what: str
    call: Callable
    error: type
    message: str


def sealed(stream):
    """A stream that was changed on purpose, with the checksum that belongs to it."""
    return bytes(stream[:-4]) + struct.pack("<I", zlib.crc32(stream[:-4]))


def changed(stream, place, value):
    return stream[:place] + bytes([stream[place] ^ value]) + stream[place + 1 :]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with stores of three bands, weights, a product; and cubes that go with them."""
    with contextlib.chdir(tmp_path_factory.mktemp("world")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cube = sample.cube(dates=6, size=64)
        small = cube.sel(band=["B02", "B04", "B08"])
        whole = small.isel(time=slice(0, 4))
        model = write_weights(Path("own.safetensors"), context_network(), "own")
        for name, dates in (("short.zarr", 3), ("whole.zarr", 4)):
            part = small.isel(time=slice(0, dates))
            part.tec.compress(name, model=model, chunks=CHUNKS, progress=False)
        whole.drop_encoding().to_zarr("plain.zarr")
        Path("text.safetensors").write_text("nothing but text")
        Path("thesis").mkdir()
        Path("thesis", "chapter.txt").touch()
        damaged = Path(shutil.copytree("whole.zarr", "damaged.zarr"))
        chunk = next(p for p in sorted(damaged.glob("reflectance/c/**/*")) if p.is_file())
        chunk.write_bytes(changed(chunk.read_bytes(), 70, 4))
        yield SimpleNamespace(
            cube=cube,
            small=small,
            whole=whole,
            later=small.isel(time=[4, 5]),
            model=model,
            stream=encode_chunk(whole.reflectance.values[:1], xtec.Settings(model)),
            product=Safe(level="L2A").write(Path()),
        )


def from_hub(world, hub):
    """Ask for an official checkpoint where the hub's package is another, or none."""
    with (
        mock.patch.dict(sys.modules, {"huggingface_hub": hub}),
        mock.patch.dict(os.environ, {"HF_HOME": "no-cache", "XTEC_MODEL_PATH": ""}),
        mock.patch.object(registry, "_used", {}),
    ):
        world.cube.tec.compress(model="tt-s2l1c", compression=5)


def offline(*_):
    raise ConnectionError("no network")


TABLE = [
    # the cube
    Wrong(
        "type of the pixels",
        lambda w: w.cube.astype("int32").tec.compress(),
        InputError,
        "«'reflectance' is int32»; allowed are ‹digital numbers of type uint16 or int16 and "
        "reflectance of type float32 or float64›. If the values are digital numbers, “cast them”: "
        ".astype('uint16').",
    ),
    Wrong(
        "an axis is missing",
        lambda w: w.cube.isel(y=0).tec.compress(),
        InputError,
        "«the dimensions ('time', 'band', 'x') are not those of a cube: no y dimension». Allowed, "
        "in any order, time may be missing ‹(time: time, t; band: band, bands; y: y, lat, "
        "latitude; x: x, lon, longitude)›. “Rename them with .rename()”, or add a band axis with "
        ".expand_dims(band=['B04']).",
    ),
    Wrong(
        "an axis has a name of its own",
        lambda w: w.cube.rename(x="column").tec.compress(),
        InputError,
        "«the dimensions ('time', 'band', 'y', 'column') are not those of a cube: no x dimension; "
        "'column' is unknown». Allowed, in any order, time may be missing ‹(time: time, t; band: "
        "band, bands; y: y, lat, latitude; x: x, lon, longitude)›. “Rename them with .rename()”, "
        "or add a band axis with .expand_dims(band=['B04']).",
    ),
    Wrong(
        "bands without names",
        lambda w: w.cube.drop_vars("band").tec.compress(),
        BandError,
        "«the 13 bands along 'band' have no names»; allowed are ‹those of Sentinel-2, such as B02 "
        "or blue›. “Give them”: .assign_coords(band=['B02', 'B03', ...]).",
    ),
    Wrong(
        "an unknown band",
        lambda w: w.cube.isel(band=[0, 1]).assign_coords(band=["B02", "B99"]).tec.compress(),
        BandError,
        "Cannot tell the Sentinel-2 bands apart: «'B99' is unknown». Found: B02, B99. Allowed, "
        "each once: ‹B01 (coastal), B02 (blue), …, B12 (swir22)›. “Rename the bands, or select "
        "those you mean.”",
    ),
    Wrong(
        "a band twice",
        lambda w: w.cube.isel(band=[0, 1]).assign_coords(band=["B08", "nir"]).tec.compress(),
        BandError,
        "Cannot tell the Sentinel-2 bands apart: «B08 and nir are all B08». Found: B08, nir. "
        "Allowed, ‹each once›: …. “Rename the bands, or select those you mean.”",
    ),
    Wrong(
        "no cube at all",
        lambda _: xr.Dataset({"t": ("time", [1, 2])}).tec.compress(),
        InputError,
        "«no band dimension, and no variable that is a Sentinel-2 band»; found {'t': ('time',)}. "
        "“Give” ‹one variable with a dimension band or bands, or variables with y and x "
        "that are named after bands, such as B02 or blue›.",
    ),
    Wrong(
        "nothing selected",
        lambda w: w.cube.isel(time=[]).tec.compress(),
        InputError,
        "«'reflectance' is empty: {'time': 0, 'band': 13, 'y': 64, 'x': 64}». ‹A cube has at least "
        "one of each›; “select a part that holds something”.",
    ),
    Wrong(
        "no such variable",
        lambda w: w.cube.tec.compress(variable="dn"),
        InputError,
        "«there is no variable 'dn'»; ‹the Dataset has ['reflectance']›. “Name one of these.”",
    ),
    Wrong(
        "two cubes in one Dataset",
        lambda w: w.cube.assign(other=w.cube.reflectance).tec.compress(),
        InputError,
        "«several variables have a band axis»: ‹['reflectance', 'other']›. “Name the one to "
        "compress”: variable='reflectance'.",
    ),
    Wrong(
        "digital numbers that pretend to be reflectance",
        lambda w: w.small.astype("float32").tec.compress("no.zarr", progress=False),
        InputError,
        "«values from … to … do not fit» in ‹0 to 6.5535, what uint16 holds with "
        "scale_factor=0.0001 and add_offset=0›. Negative reflectance: offset=1000 leaves room down "
        "to -0.1. Digital numbers in floating point: “say so with .encoding = {'dtype': 'uint16', "
        "'_FillValue': 0}”.",
    ),
    Wrong(
        "no-data value outside of the type",
        lambda w: plain(w.cube).tec.compress(nodata=70000),
        InputError,
        "«no-data 70000 is not in the range of uint16» ‹(0 to 65535)›; “give another”: nodata=0.",
    ),
    Wrong(
        "no-data value that the cube contradicts",
        lambda w: w.cube.tec.compress(nodata=5),
        InputError,
        "«nodata=5 contradicts» ‹_FillValue=0›; “leave nodata out”.",
    ),
    Wrong(
        "offset out of range",
        lambda w: w.cube.tec.compress(offset=100_000),
        InputError,
        "«offset is 100000»; “give digital numbers” ‹from -65535 to 65535›.",
    ),
    # how good
    Wrong(
        "compression out of range",
        lambda w: w.cube.tec.compress(compression=0),
        InputError,
        "«compression is 0»; “give a number” ‹from 0.01 to 100000›.",
    ),
    Wrong(
        "compression and a target",
        lambda w: w.cube.tec.compress(compression=20, target_psnr=40),
        InputError,
        "«compression=20 and target_psnr=40 were given», but ‹each of compression, target_psnr and "
        "target_bpppb decides alone›; “give one of them”.",
    ),
    Wrong(
        "a bound and a target",
        lambda w: w.cube.tec.compress(max_error=5, target_psnr=40),
        InputError,
        "«max_error=5 and target_psnr=40 were given», but ‹each of them decides how good the "
        "pixels are›; “give one of them”.",
    ),
    Wrong(
        "a negative target",
        lambda w: w.cube.tec.compress(target_psnr=-3),
        InputError,
        "«target_psnr is -3»; “give” ‹a positive number of dB›, for example target_psnr=40.",
    ),
    Wrong(
        "a target out of reach",
        lambda w: w.small.tec.compress(target_psnr=200, progress=False),
        InputError,
        "«target_psnr=200 cannot be met»: on 1 of this cube's 1 chunks model … gives ‹… dB at "
        "compression …, its lowest, and … dB at compression …, its highest›. “Aim between these, "
        "or take another model.”",
    ),
    Wrong(
        "a negative bound",
        lambda w: w.cube.tec.compress(max_error=-1),
        InputError,
        "«max_error is -1»; “give digital numbers” ‹from 0 to 65535›.",
    ),
    Wrong(
        "half a number as a bound",
        lambda w: w.cube.tec.compress(max_error=0.5),
        InputError,
        "«max_error is 0.5»; ‹digital numbers are integers›. “Give one.”",
    ),
    Wrong(
        "bounds of some bands",
        lambda w: w.small.tec.compress(max_error={"B02": 5}),
        InputError,
        "«max_error names the bands ['B02']», ‹the cube has ['B02', 'B04', 'B08']›. “Give each of "
        "them, or one number for all.”",
    ),
    Wrong(
        "too few bounds",
        lambda w: w.small.tec.compress(max_error=[5, 5]),
        InputError,
        "«max_error has 2 numbers», ‹the chunk 3 bands: ['B02', 'B04', 'B08']›. “Give one number, "
        "or one for each.”",
    ),
    # chunks and formats
    Wrong(
        "two sizes of a chunk",
        lambda w: w.cube.tec.compress(chunks=(8, 256)),
        InputError,
        "«chunks=(8, 256) does not name four sizes»; “give” ‹four positive integers (time, band, "
        "y, x) or a mapping of time, band, y, x›, -1 for a whole axis.",
    ),
    Wrong(
        "chunks along an axis that is not there",
        lambda w: w.cube.tec.compress(chunks={"depth": 8}),
        InputError,
        "«chunks={'depth': 8} does not name sizes of the cube's axes»; “give” ‹four positive "
        "integers (time, band, y, x) or a mapping of time, band, y, x›, -1 for a whole axis.",
    ),
    Wrong(
        "chunks of single bands",
        lambda w: w.cube.tec.compress(chunks={"band": 1}),
        InputError,
        "«chunks of 1 of the 13 bands»: ‹the codec needs all bands of a pixel together›; “leave "
        "the band axis out of chunks”.",
    ),
    Wrong(
        "shards that cut chunks",
        lambda w: w.cube.tec.compress(chunks={"y": 32}, shards={"y": 48}),
        InputError,
        "«shards of (6, 13, 48, 64)» are not ‹whole chunks of (6, 13, 32, 64)›; “make each size a "
        "multiple”.",
    ),
    Wrong(
        "shards in Zarr format 2",
        lambda w: w.cube.tec.compress(shards={"y": 512}, zarr_format=2),
        InputError,
        "«Zarr format 2 has no shards»; “leave shards out”, or use ‹zarr_format=3›.",
    ),
    Wrong(
        "a Zarr format of the future",
        lambda w: w.cube.tec.compress(zarr_format=4),
        InputError,
        "«zarr_format=4 is unknown»; ‹allowed are 2 and 3›. “Leave it out for 3.”",
    ),
    # models
    Wrong(
        "an unknown model",
        lambda w: w.cube.tec.compress(model="tt-s2l3"),
        ModelError,
        "«there is no model 'tt-s2l3'»; at hand are …, ‹on the hub ['tt-s2l1c', 'tt-s2l2a']›. "
        "“Give one of these, the path of a .safetensors or .pt file, or put its folder into "
        "XTEC_MODEL_PATH.”",
    ),
    Wrong(
        "weights that are not there",
        lambda w: w.cube.tec.compress(model="nowhere.safetensors"),
        ModelError,
        "«cannot read the weights nowhere.safetensors»: [Errno 2] No such file or directory: "
        "'nowhere.safetensors'. “Give” the path of ‹a .safetensors or .pt file, or the name of a "
        "model›.",
    ),
    Wrong(
        "weights that are none",
        lambda w: w.cube.tec.compress(model="text.safetensors"),
        ModelError,
        "«text.safetensors is not a weights file written by xtec» ‹(safetensors with an 'xtec' "
        "entry in its header)›: …. “Give one of xtec train, or TerraCodec's .pt.”",
    ),
    Wrong(
        "the hub without its package",
        lambda w: from_hub(w, None),
        ModelError,
        "«the model tt-s2l1c-lambda-5 comes from the Hugging Face hub, which needs "
        "huggingface_hub»: “pip install 'xarray-tec[hub]'”. By hand: take "
        "TerraCodec_v1_TT_S2L1C_lambda-5.pt from "
        "https://huggingface.co/embed2scale/TerraCodec-1.0-TT-S2L1C and put it into ‹a folder "
        "named in the environment variable XTEC_MODEL_PATH›, or give its path as model=.",
    ),
    Wrong(
        "the hub without a network",
        lambda w: from_hub(w, SimpleNamespace(hf_hub_download=offline)),
        ModelError,
        "«the model tt-s2l1c-lambda-5 could not be fetched from the Hugging Face hub "
        "(ConnectionError: no network)». By hand: “take TerraCodec_v1_TT_S2L1C_lambda-5.pt from "
        "https://huggingface.co/embed2scale/TerraCodec-1.0-TT-S2L1C” and put it into ‹a folder "
        "named in the environment variable XTEC_MODEL_PATH›, or give its path as model=.",
    ),
    Wrong(
        "bands that the model has not",
        lambda w: w.cube.tec.compress(model=w.model),
        BandError,
        "«bands ['B01', 'B02', …, 'B12'] cannot be coded with model own»; it has ‹each of ['B02', "
        "'B04', 'B08'] once›. “Select these, or take another model.”",
    ),
    Wrong(
        "a compression that no checkpoint has",
        lambda _: xtec.terracodec_v1_tt_s2l1c(pretrained=True, compression="best"),
        InputError,
        "«compression='best' is none of» ‹['lambda-5', 'lambda-20', 'lambda-100']›; “give one of "
        "these, or a number”: it takes the nearest.",
    ),
    Wrong(
        "weights into no store",
        lambda w: w.small.tec.compress(embed_weights=True),
        InputError,
        "«embed_weights=True» puts the model ‹into a store, and no store was given›; “name one, or "
        "call xtec.embed_model(store)” when .to_zarr has written it.",
    ),
    Wrong(
        "weights into a store without need of them",
        lambda _: xtec.embed_model("plain.zarr"),
        InputError,
        "«nothing in plain.zarr was compressed by xtec», and ‹only such a store needs a model›; "
        "“make one with ds.tec.compress(store)”.",
    ),
    # stores
    Wrong(
        "the store is there",
        lambda w: w.small.tec.compress("whole.zarr"),
        InputError,
        "«whole.zarr exists»; ‹choose another›, or “pass overwrite=True” to replace it.",
    ),
    Wrong(
        "something else is there",
        lambda w: w.small.tec.compress("thesis", overwrite=True),
        InputError,
        "«thesis exists and is no Zarr store»; ‹only stores are replaced›. “Choose another.”",
    ),
    Wrong(
        "a store onto itself",
        lambda _: xr.open_zarr("plain.zarr").tec.compress("plain.zarr", overwrite=True),
        InputError,
        "«plain.zarr holds the cube that is to be compressed», which ‹cannot be replaced while it "
        "is read›; “choose another”.",
    ),
    Wrong(
        "info of what is not compressed",
        lambda w: w.cube.tec.info(),
        InputError,
        "«nothing here was compressed by xtec»; ‹the variables are ['reflectance'], compressed are "
        "[]›. “Open a compressed store with xr.open_zarr, or make one with ds.tec.compress(...).” "
        "Arithmetic on a compressed variable gives an ordinary one.",
    ),
    Wrong(
        "another original, of other bands",
        lambda w: xr.open_zarr("whole.zarr").tec.quality(w.whole.isel(band=[0, 1])),
        InputError,
        "the bands differ: «['B02', 'B04', 'B08'] here», ‹['B02', 'B04'] in the original›. “Select "
        "the same bands in the same order.”",
    ),
    Wrong(
        "another original, of another size",
        lambda w: xr.open_zarr("whole.zarr").tec.quality(w.whole.isel(y=slice(0, 32))),
        InputError,
        "the shapes differ: «{'time': 4, 'band': 3, 'y': 64, 'x': 64} here», ‹{'time': 4, 'band': "
        "3, 'y': 32, 'x': 64} in the original›. “Select the same part of both.”",
    ),
    # more into a store
    Wrong(
        "a region that cuts a chunk",
        lambda w: w.whole.isel(y=slice(16, 48)).tec.write("whole.zarr"),
        InputError,
        "«the region time=0:4, y=16:48, x=0:64 cuts chunks» ‹(2, 3, 32, 32) of 'reflectance'›; the "
        "rest of them would be decoded and encoded again. “Write time=0:4, y=0:64, x=0:64 from the "
        "original.”",
    ),
    Wrong(
        "a region of a band",
        lambda w: w.whole.tec.write("whole.zarr", region={"band": slice(0, 1)}),
        InputError,
        "«region names ['band']»; allowed are ‹slices along 'time', 'y' and 'x'›. “Leave out all "
        "else”: bands are written together.",
    ),
    Wrong(
        "a region of another size",
        lambda w: w.whole.tec.write("whole.zarr", region={"y": slice(0, 32)}),
        InputError,
        "«region y=0:32 does not hold» ‹the 64 of the cube (the store has 64)›; “give a "
        "slice(begin, end) for each axis, or 'auto'”.",
    ),
    Wrong(
        "a region elsewhere",
        lambda w: w.whole.assign_coords(x=w.whole.x + 5).tec.write("whole.zarr"),
        InputError,
        "«the coordinates along 'x'» are not ‹a run of the store's›; “select a part of the same "
        "grid, or name the place”: region={'y': slice(0, 256), ...}.",
    ),
    Wrong(
        "an append of other bands",
        lambda w: w.later.isel(band=[0, 1]).tec.append("whole.zarr"),
        InputError,
        "«the bands are ['B02', 'B04']», ‹the store's ['B02', 'B04', 'B08']›; “select the same "
        "bands in the same order”.",
    ),
    Wrong(
        "an append of another type",
        lambda w: w.later.astype("int16").tec.append("whole.zarr"),
        InputError,
        "the numbers mean something else: «{'type': 'int16', …} here», ‹{'type': 'uint16', …} in "
        "the store›. “Convert the cube to the store's type and packing.”",
    ),
    Wrong(
        "an append with something new",
        lambda w: w.later.assign(sun=("y", np.arange(64))).tec.append("whole.zarr"),
        InputError,
        "«the store has no ['sun']», and ‹only what it has can be added›; “leave them out with "
        ".drop_vars(['sun'])”.",
    ),
    Wrong(
        "an append behind a chunk that is not full",
        lambda w: w.later.tec.append("short.zarr"),
        InputError,
        "«the last chunk of the store holds 1 of 2 dates»; ‹appending would decode and encode them "
        "again, with loss›. “Give its 1 dates once more from the original, ahead of the new ones” "
        "(all dates from index 2 on: they replace the chunk), or write a new store whose chunks "
        "have 1 dates. To avoid this, keep dates back until a chunk is full: append multiples of "
        "2.",
    ),
    Wrong(
        "dates that are there",
        lambda w: w.whole.isel(time=[2, 3]).tec.append("whole.zarr"),
        InputError,
        "«the store has 2 of these dates already, the first is 2018-…». “Leave them out”, or "
        "‹replace whole chunks with ds.tec.write(store, region=...)›.",
    ),
    Wrong(
        "an append to nothing",
        lambda w: w.later.tec.append("nothing.zarr"),
        InputError,
        "«there is no store nothing.zarr», and ‹only to one that exists can be added›; “write the "
        "first with ds.tec.compress(store)”.",
    ),
    Wrong(
        "an append to a store without xtec",
        lambda w: w.later.tec.append("plain.zarr"),
        InputError,
        "«plain.zarr has 0 compressed variables ([]) of ['reflectance'] to add to»; ‹there must be "
        "one›, or “name it with variable=”.",
    ),
    # streams
    Wrong(
        "a flipped bit in a store",
        lambda _: xr.open_zarr("damaged.zarr").load(),
        CorruptStreamError,
        "«The checksum of the stream is …», but ‹… was written›: it was damaged on its way. “Copy "
        "it again from where it came, or compress the original again.”",
    ),
    Wrong(
        "a stream that was cut",
        lambda w: decode_chunk(w.stream[:-9]),
        TruncatedStreamError,
        "«The stream has … of» ‹its … bytes›. “Copy it again from where it came, or compress the "
        "original again.”",
    ),
    Wrong(
        "a stream with something behind it",
        lambda w: decode_chunk(w.stream + b"12"),
        CorruptStreamError,
        "«2 bytes follow» ‹the end of the stream›. “Copy it again from where it came, or compress "
        "the original again.”",
    ),
    Wrong(
        "something else than a stream",
        lambda _: decode_chunk(b"PK" * 60),
        CorruptStreamError,
        "«The bytes begin with b'PKPK'», ‹an xtec stream with b'XTEC'›. “Copy it again from where "
        "it came, or compress the original again.”",
    ),
    Wrong(
        "a stream of the future",
        lambda w: decode_chunk(sealed(changed(w.stream, 4, 8))),
        NewerFormatError,
        "«The stream is of format version 9»; ‹this xtec reads up to 1›. “Update xarray-tec.”",
    ),
    Wrong(
        "a store of the future",
        lambda _: xtec.Settings(format_version=9),
        NewerFormatError,
        "«written in format version 9», ‹this xtec knows versions up to 1›; “install a newer "
        "xarray-tec”.",
    ),
    Wrong(
        "a stream of a model that is not here",
        lambda w: decode_chunk(sealed(changed(w.stream, 8, 255))),
        WrongModelError,
        "«this was written with the model of digest …», which is not among ‹[…]›. “Install the "
        "xarray-tec version it came with, or put its weights file into a folder named in the "
        "environment variable XTEC_MODEL_PATH.” Where the store carries it (in its group "
        "tec_models), xtec.register_store(store) makes it known.",
    ),
    # products
    Wrong(
        "a product that is not there",
        lambda _: io.open_safe("S2A_nowhere.SAFE"),
        InputError,
        "«S2A_nowhere.SAFE does not exist»; “give” ‹a .SAFE folder or a zip file of one›.",
    ),
    Wrong(
        "a folder that is no product",
        lambda _: io.open_safe("thesis"),
        InputError,
        "«thesis holds no MTD_MSIL1C.xml or MTD_MSIL2A.xml»: it is no Sentinel-2 product of ‹level "
        "1C or 2A in the format used since December 2016›. Older ones were processed again by ESA; "
        "“download the new version”.",
    ),
    Wrong(
        "a file that is no product",
        lambda _: io.open_safe("text.safetensors"),
        InputError,
        "«text.safetensors» is no ‹.SAFE folder and no zip file of one›; “give the folder that "
        "holds MTD_MSIL1C.xml or MTD_MSIL2A.xml, or the zip file as it was downloaded”.",
    ),
    Wrong(
        "a band that the product has not",
        lambda w: io.open_safe(w.product, bands=["B10"]),
        BandError,
        "«S2B_MSIL2A_….SAFE has no band B10»; ‹it has B01, B02, …, B12›. “Ask for some of these”: "
        "bands=[...].",
    ),
    Wrong(
        "no products",
        lambda _: io.open_safe([]),
        InputError,
        "there is nothing to open: «the list of files is empty». “Give” ‹one at least›.",
    ),
    Wrong(
        "a pattern that matches nothing",
        lambda _: io.open_geotiffs("scenes/*.tif"),
        InputError,
        "«no file matches 'scenes/*.tif'», and ‹at least one must›; “look at the folder, or list "
        "the files”.",
    ),
    # below the accessor
    Wrong(
        "a chunk of two axes",
        lambda w: encode_chunk(np.zeros((3, 4), np.uint16), xtec.Settings(w.model)),
        InputError,
        "«a chunk has shape (3, 4)»; it needs ‹the four dimensions (time, band, y, x), none of "
        "them empty›. “Reshape it.”",
    ),
    Wrong(
        "a sample of an unknown level",
        lambda _: sample.cube(level="L3"),
        InputError,
        "«level='L3' is unknown»; ‹allowed are 'L1C' and 'L2A'›. “Give one of them.”",
    ),
    Wrong(
        "workers without threads",
        lambda _: xtec.cluster.prepare(threads=0),
        InputError,
        "«threads=0»; give ‹at least 1›, or “leave it out”.",
    ),
]


def plain(cube):
    """The same pixels without a no-data value of their own."""
    bare = cube.drop_encoding()
    bare.reflectance.attrs.pop("_FillValue", None)
    return bare


def told(message):
    """The message itself, as a pattern."""
    bare = re.sub("[" + "".join(PARTS.values()) + "]", "", message)
    return ".+".join(map(re.escape, bare.split("…")))


@pytest.mark.parametrize("wrong", TABLE, ids=lambda wrong: wrong.what)
def test_the_message(wrong, world):
    with pytest.raises(wrong.error) as caught:
        wrong.call(world)
    assert type(caught.value) is wrong.error
    assert re.fullmatch(told(wrong.message), str(caught.value), re.DOTALL), str(caught.value)


@pytest.mark.parametrize("wrong", TABLE, ids=lambda wrong: wrong.what)
def test_the_message_says_all_three(wrong):
    for part, (begin, end) in PARTS.items():
        found = re.findall(f"{begin}([^{end}]+){end}", wrong.message)
        assert len(found) == 1, f"{part} is not marked once in: {wrong.message}"


def test_the_table_is_long_enough_and_repeats_nothing():
    assert len(TABLE) >= 25
    assert len({wrong.what for wrong in TABLE}) == len(TABLE)


def test_another_message_is_noticed():
    """The comparison can fail: by a word, by the end, by what … stands for."""
    pattern = told("«it is …»; ‹allowed are 2›. “Give one.”")
    assert re.fullmatch(pattern, "it is 3; allowed are 2. Give one.")
    for other in (
        "it is 3; allowed are 3. Give one.",
        "it is ; allowed are 2. Give one.",
        "it is 3; allowed are 2. Give one. Or two.",
    ):
        assert not re.fullmatch(pattern, other)
