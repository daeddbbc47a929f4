"""A process that codes chunks under settings of its own; see test_portability.

``python -m tests.portable FOLDER NAME MODEL [no-onednn]`` works in FOLDER, where the chunks are,
and writes to FOLDER/NAME. It does what each line of its standard input asks for, and answers
with one.
"""

import contextlib
import hashlib
import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import torch
import zarr

from xtec import codec
from xtec.codec import Settings
from xtec.coding import tables
from xtec.coding.stream import parse
from xtec.engine import Engine
from xtec.models import registry, weights
from xtec.models.known_answer import select

GOLDEN = Path(__file__).parent / "golden"
TEC_TT = GOLDEN / "v1" / "golden-1.safetensors"
MODELS = {"embedded": "embedded", "tec-tt": str(TEC_TT)}
SETTINGS = {name: Settings(model=model, compression=20) for name, model in MODELS.items()}
BATCH = 8
ALONE = (0, 5)
AMPLIFIED = 1000


def settings_of(model):
    """Of a name in `MODELS`, or of a weights file."""
    return SETTINGS.get(model) or Settings(model=model, compression=20)


def digest(latents):
    return hashlib.sha256(np.ascontiguousarray(latents, "<i4").tobytes()).hexdigest()


@contextlib.contextmanager
def noted(method, caller):
    """What a method of the engine gives for each chunk or stream, by its bytes.

    ``caller`` is the function of the codec that asks it, in the same thread, for its second
    argument.
    """
    seen, here = {}, threading.local()
    asked, asking = getattr(Engine, method), getattr(codec, caller)

    def noting(*args):
        (found,) = asked(*args)
        seen[here.item] = found
        return [found]

    def naming(owner, item, *rest):
        here.item = item.tobytes() if isinstance(item, np.ndarray) else item.payload
        return asking(owner, item, *rest)

    setattr(Engine, method, noting)
    setattr(codec, caller, naming)
    yield seen
    setattr(Engine, method, asked)
    setattr(codec, caller, asking)


def joined(frames):
    return np.concatenate([frame.ravel() for frame in frames])


def encode(settings, folder, out):
    """Streams of all chunks, and the latents that were quantised for them."""
    chunks = list(np.load(folder / "chunks.npy"))
    with noted("encode", "_encode") as coded:
        streams = codec.encode_chunks(chunks, settings)
    latents = [joined(coded[chunk.tobytes()].latents) for chunk in chunks]
    np.savez(out / "latents.npz", *latents)
    for i, stream in enumerate(streams):
        (out / f"{i}.stream").write_bytes(stream)
    alone = [codec.encode_chunk(chunks[i], settings) for i in ALONE]
    pair = codec.encode_chunks([chunks[i] for i in reversed(ALONE)], settings)
    facts = {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "products": str(select("cpu").product),
        "company changed nothing": alone == pair[::-1] == [streams[i] for i in ALONE],
    }
    (out / "facts.json").write_text(json.dumps(facts))


def decode(_, folder, out):
    """Every stream there is, in three kinds of company: digests of latents, and the pixels."""
    paths = {}
    for path in sorted(folder.glob("*/*.stream")):
        paths.setdefault(path.read_bytes(), path.stem)
    streams = list(paths)
    shuffled = np.random.default_rng(1).permutation(len(streams))
    arrangements = {
        "alone": [[i] for i, stem in enumerate(paths.values()) if int(stem) in ALONE],
        "batches": [range(i, min(i + BATCH, len(streams))) for i in range(0, len(streams), BATCH)],
        "shuffled": np.array_split(shuffled, -(-len(streams) // BATCH)),
    }
    report = {}
    for name, batches in arrangements.items():
        report[name] = {}
        for batch in batches:
            with noted("decode", "_network") as decoded:
                pixels = codec.decode_chunks([streams[i] for i in batch])
            for i, chunk in zip(batch, pixels, strict=True):
                key = hashlib.sha256(streams[i]).hexdigest()
                report[name][key] = digest(joined(decoded[parse(streams[i]).payload].latents))
                np.save(out / f"{key}.{name}.npy", chunk)
    (out / "decoded.json").write_text(json.dumps(report))


def float_rows(settings, folder, out):
    """How the float network of a TEC-TT would code the chunks: centres and table rows.

    The head of the mean is amplified, so that a few small chunks stand for very many: how often a
    mean falls on another grid point grows with its error.
    """
    network = weights.load(settings.card)
    with np.load(folder / "plain" / "latents.npz") as file:
        q = torch.from_numpy(np.stack(list(file.values()))).float()
    with torch.inference_mode():
        network.entropy_model.mean_head[-1].weight.mul_(AMPLIFIED)
        mean, scale, _ = network.prior(q)
    t = tables.load()
    steps = np.floor(mean.numpy().astype(float) * 64 + 0.5).astype(int) + 32
    edges = t.scale_edges[settings.card.config.scale_map]
    index = np.searchsorted(edges, np.rint(scale.numpy() * 1024), side="right")
    np.savez(out / "float.npz", centre=steps >> 6, row=t.rows(index, steps & 63))


def golden(_, folder, out):
    """What all golden streams and stores decode to."""
    for version in sorted(GOLDEN.glob("v*")):
        report = {}
        os.environ[registry.SEARCH_PATH] = str(version)
        for path in sorted(version.glob("*.stream")):
            report[path.stem] = codec.decode_chunk(path.read_bytes())
        for path in sorted(version.glob("*.zarr")):
            report[path.stem] = zarr.open_array(path, path="reflectance", mode="r")[:]
        np.savez(out / f"{version.name}.npz", **report)


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[1], sys.argv[2])
    settings = settings_of(sys.argv[3])
    out.mkdir()
    if "no-onednn" in sys.argv:
        torch.backends.mkldnn.set_flags(_enabled=False)
    for line in sys.stdin:
        {"encode": encode, "decode": decode, "float": float_rows, "golden": golden}[line.strip()](
            settings, folder, out
        )
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
