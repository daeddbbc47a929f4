"""Damaged and forged streams by the hundred thousand: ``python -m tests.fuzz --count 200000``.

Each begins as one of the streams kept in tests/corpus and tests/golden. Some are damaged as a disk
or a cable would do it; they must all be refused. Others are forged: their lengths and checksums are
set right again, so that what lies behind the checksum meets them. A forged stream may be refused,
or it is another valid stream; then its pixels must be those of the latents that it names, under the
masks, no-data value, offset and bands that it states. `expected` works these out anew, in a few
lines that share no code with the codec; of a residual only the checksum of its numbers.

Nothing but a StreamError may come out, within bounds of memory and time. ``--make-corpus`` makes
what is in tests/corpus; it replaces nothing.
"""

import argparse
import contextlib
import dataclasses
import faulthandler
import itertools
import os
import random
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.golden.make import network_first
from xtec import residual
from xtec.codec import Settings, decode_chunk, decode_chunks, encode_chunk
from xtec.coding import stream as container
from xtec.engine import Engine
from xtec.errors import (
    CorruptStreamError,
    NewerFormatError,
    StreamError,
    TruncatedStreamError,
    WrongModelError,
)
from xtec.home import Home
from xtec.models import registry

HERE = Path(__file__).parent
GOLDEN, CORPUS = HERE / "golden" / "v1", HERE / "corpus"
MODELS = {"tec-tt": "golden-1", "lapped": "golden-lapped-1"}

SECONDS = 120
"""After so long with one stream the process ends and says where it was: there are busy machines."""
EXTRA_MEMORY = 3 << 29
"""Bytes of address space beyond what decoding the corpus took; much of that is never touched."""
MOST_PADDED = 5 * 64 * 64 * 8
"""A stream that claims more pixels than this is decoded as a chunk of the array it came from."""

EDGES = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 1 << 20, (1 << 31) - 1,
         1 << 31, (1 << 32) - 1)  # fmt: skip
FIELDS = {
    4: "B", 5: "B", 6: "H", 8: "Q", 20: "I", 24: "I", 28: "I", 32: "H", 34: "I", 38: "I",
}  # fmt: skip
"""Of the header: place and type. The stream's length is set right in any case."""


@dataclass(frozen=True)
class Seed:
    """A stream of the corpus."""

    name: str
    data: bytes
    home: Home
    """The array that it would stand in."""


class Wrong(AssertionError):  # noqa: N818 - what it says is what is wrong
    """Something came out that must not."""


def search_golden_models():
    os.environ[registry.SEARCH_PATH] = str(GOLDEN)


def seeds():
    """All streams that mutations start from."""
    found = []
    for path in sorted([*CORPUS.glob("*.stream"), *GOLDEN.glob("*.stream")]):
        data = path.read_bytes()
        parsed = container.parse(data)
        card = registry.find(parsed.model_digest)
        settings = Settings(
            card.name,
            compression=getattr(card.config, "compression", lambda _: 20.0)(parsed.level),
            bands=tuple(card.config.bands[i] for i in parsed.bands),
            nodata=parsed.nodata,
            offset=parsed.offset,
        )
        home = Home(settings, parsed.dtype, parsed.shape)
        found.append(Seed(f"{path.parent.name}/{path.stem}", data, home))
    return found


# Mutations: each takes a source of randomness, a stream and another one


def flip(rng, data, _):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def truncate(rng, data, _):
    return data[: rng.randrange(len(data))]


def extend(rng, data, other):
    return data + (rng.randbytes(rng.randint(1, 60)) if rng.random() < 0.5 else other)


def splice(rng, data, other):
    cut = rng.randrange(1, len(data))
    return (
        data[:cut]
        + other[min(cut, len(other) - 1) if rng.random() < 0.5 else rng.randrange(len(other)) :]
    )


def garbage(rng, data, _):
    begin = rng.randrange(len(data))
    return data[:begin] + rng.randbytes(rng.randint(1, 40)) + data[begin + rng.randint(0, 40) :]


DAMAGES = (flip, truncate, extend, splice, garbage)


def set_field(rng, data, _):
    place, kind = rng.choice(list(FIELDS.items()))
    data = bytearray(data)
    most = (1 << 8 * struct.calcsize(kind)) - 1
    (old,) = struct.unpack_from("<" + kind, data, place)
    new = rng.choice([rng.choice(EDGES), old + rng.randint(-3, 3), rng.randint(0, most)])
    struct.pack_into("<" + kind, data, place, min(max(new, 0), most))
    return bytes(data)


def set_length(rng, data, _):
    """A frame's end or checksum, the length of a mask, or what lies there after other mutations."""
    data, (bands,) = bytearray(data), struct.unpack_from("<H", data, 32)
    (frames,) = struct.unpack_from("<I", data, 20)
    table = container.HEADER.size + bands
    frames = min(frames, 16)  # a forged one may have as many as memory has bytes
    after = table + container.FRAME.size * frames
    places = [*range(table, after, 4), *(after + i for i in (0, 1, 5, 6))]
    place = min(rng.choice(places), len(data) - 8)
    (old,) = struct.unpack_from("<I", data, place)
    new = rng.choice([rng.choice(EDGES), old + rng.choice([-4, -1, 1, 4, 8])])
    struct.pack_into("<I", data, place, min(max(new, 0), (1 << 32) - 1))
    return bytes(data)


def in_payload(rng, data, other):
    """Other bytes, fewer or more of them, in the code of the latents."""
    parsed = container.parse(data) if small(claims(data)) else None
    if parsed is None or not parsed.payload:
        return set_field(rng, data, other)
    payload = rng.choice([flip, flip, flip, truncate, extend, garbage])(rng, parsed.payload, other)
    payload = payload[: len(payload) - len(payload) % 4]
    ends = [min(end, len(payload)) for end in parsed.frame_bytes]
    return repacked(parsed, payload=payload, frame_bytes=(*ends[:-1], len(payload)))


def in_residual(rng, data, other):
    """Other bytes, fewer or more of them, in what brings pixels within bounds."""
    parsed = container.parse(data) if small(claims(data)) else None
    if parsed is None or not parsed.residual:
        return set_field(rng, data, other)
    return repacked(parsed, residual=rng.choice(DAMAGES)(rng, parsed.residual, other))


def in_fields(rng, data, other):
    """A stream that keeps every rule of the format, yet nobody wrote it so."""
    if not small(claims(data)):
        return set_length(rng, data, other)
    one, another = container.parse(data), container.parse(other)
    shape = list(one.shape)
    axis = rng.choice([0, 2, 3])
    shape[axis] = max(1, shape[axis] + rng.randint(-2, 2))
    low, high = container.RANGES[one.dtype]
    random_mask = np.random.default_rng(rng.randrange(1 << 30)).random(one.shape) < rng.random()
    changes = [
        {"model_digest": another.model_digest},
        {"dtype": "int16" if one.dtype == "uint16" else "uint16", "nodata": rng.choice([None, 0])},
        {"shape": tuple(shape), "invalid": None, "saturated": None,
         "frame_bytes": fitted(one.frame_bytes, shape[0]),
         "frame_crcs": fitted(one.frame_crcs, shape[0])},
        {"bands": tuple(rng.sample(range(6), len(one.bands)))},
        {"level": rng.choice([another.level, max(0, one.level + rng.randint(-2, 2)), 65535])},
        {"nodata": rng.choice([None, 0, low, high, rng.randint(low, high)])},
        {"offset": rng.choice([0, 1000, (1 << 31) - 1, -(1 << 31), rng.randint(-9999, 9999)])},
        {"invalid": rng.choice([None, random_mask, np.ones(one.shape, bool)])},
        {"saturated": rng.choice([None, random_mask, np.ones(one.shape, bool)])},
        {"frame_crcs": tuple(rng.choice([*another.frame_crcs, rng.randrange(1 << 32)])
                             for _ in one.frame_crcs)},
        {"payload": another.payload, "frame_crcs": another.frame_crcs,
         "frame_bytes": another.frame_bytes},
        {"payload": another.payload,
         "frame_crcs": (*one.frame_crcs[1:], another.frame_crcs[-1]),
         "frame_bytes": (*[0] * (one.shape[0] - 1), len(another.payload))},
        {"payload": b"", "frame_bytes": (0,) * one.shape[0]},
        {"residual": rng.choice([b"", another.residual, rng.randbytes(rng.randint(0, 30))])},
    ]  # fmt: skip
    made = repacked(one, **rng.choice(changes))
    return in_fields(rng, made, other) if rng.random() < 0.3 else made


def fitted(numbers, count):
    """So many numbers: the first ones, or the last one again and again; the last stays."""
    return (*numbers, *numbers[-1:] * count)[: count - 1] + numbers[-1:]


def repacked(parsed, **changes):
    return container.pack(dataclasses.replace(parsed, **changes))


def anything(rng, data, other):
    return rng.choice(DAMAGES)(rng, data, other)


FORGERIES = (set_field, set_length, in_payload, in_residual, in_fields, in_fields, anything)


def resealed(data):
    """Set the length and the checksum right, as someone would who forges a stream."""
    least = container.HEADER.size + container.U32.size
    data = bytearray(data + bytes(max(0, least - len(data))))
    data[:4] = container.MAGIC
    struct.pack_into("<I", data, 16, len(data))
    struct.pack_into("<I", data, len(data) - 4, zlib.crc32(data[:-4]))
    return bytes(data)


def mutated(rng, everything):
    """Draw a seed, a mutated stream, and whether it is sealed."""
    seed, other = rng.choice(everything), rng.choice(everything)
    data, sealed = seed.data, rng.random() < 0.8
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        with contextlib.suppress(StreamError, struct.error, ValueError):  # too far gone for another
            data = rng.choice(FORGERIES if sealed else DAMAGES)(rng, data, other.data)
            data = resealed(data) if sealed else data
    return seed, data, sealed


# The judge


class Judge:
    """Decodes streams and says what came of each."""

    def __init__(self, everything):
        self.originals = {seed.data for seed in everything}
        self.networks = {}
        """By model, setting, padded shape and latents: what the network made of them."""
        self.latents, self.residuals = set(), {0}
        for seed in everything:
            self._learn(seed)

    def _learn(self, seed):
        with noted() as (decoded, corrected):
            found = decode_chunk(seed.data, home=seed.home)
        parsed = container.parse(seed.data)
        for frames in range(1, parsed.shape[0] + 1):
            self.residuals.add(residual_crc(parsed, frames))
            self.latents.update(joined(one.latents[:frames]) for one in decoded)
        for one in decoded:
            self.networks[self._key(parsed, one)] = one.pixels()
        if not np.array_equal(found, expected(parsed, decoded, corrected)):
            raise Wrong(f"{seed.name} itself decodes to other pixels than it states")

    @staticmethod
    def _key(parsed, decoded):
        return parsed.model_digest, parsed.level, decoded.pixels().shape, joined(decoded.latents)

    def __call__(self, seed, data, *, sealed, strict, first=None):
        """What came of a stream or its first frames: the name of an error, or "decoded".

        Raises
        ------
        Wrong
            Pixels that the stream does not state, or an error that is no StreamError.
        """
        shape = claims(data)
        home = seed.home if strict or not small(shape) else None
        try:
            with noted() as (decoded, corrected):
                (found,) = decode_chunks([data], homes=home and [home], frames=[first])
        except StreamError as error:
            self._check_name(error, data, home)
            return type(error).__name__
        except Exception as error:
            raise Wrong(f"{type(error).__name__} instead of a StreamError: {error}") from error
        if len(data) < stated_length(data) or data[4] != container.FORMAT_VERSION:
            raise Wrong("a stream of another length or version than this was decoded")
        if not sealed and data not in self.originals:
            raise Wrong("a damaged stream was decoded")
        whole = container.parse(data)
        parsed = first_of(whole, first)
        self._check_known(parsed, decoded)
        if home and (whole.shape, found.dtype.name) != (home.shape, home.dtype):
            raise Wrong("a chunk of another shape or type than the array's was decoded")
        if not np.array_equal(found, expected(parsed, decoded, corrected)):
            raise Wrong("the pixels are not those that the stream states")
        return "decoded" if parsed is whole else "first frames decoded"

    def _check_known(self, parsed, decoded):
        """What is behind checksums of its own must be what some encoder put there."""
        for one in decoded:
            key = self._key(parsed, one)
            if key[-1] not in self.latents:
                raise Wrong("latents came out that nobody encoded")
            if key in self.networks and not np.array_equal(self.networks[key], one.pixels()):
                raise Wrong("the network made other pixels of the same latents")
        if residual_crc(parsed, parsed.shape[0]) not in self.residuals:
            raise Wrong("a residual came out that nobody encoded")

    @staticmethod
    def _check_name(error, data, home):
        """An error must name the cause."""
        newer = len(data) > 4 and data[4] > container.FORMAT_VERSION
        digest = data[8:16].hex()
        strange = home is None or not home.settings.model_digest.startswith(digest)
        true = {
            TruncatedStreamError: len(data) < stated_length(data),
            NewerFormatError: newer,
            WrongModelError: strange,
            CorruptStreamError: True,
        }
        if not true[type(error)]:
            raise Wrong(f"a {type(error).__name__} that is not true: {error}")


def stated_length(data):
    """How many bytes a stream must have to be whole."""
    least = container.HEADER.size + container.U32.size
    return least if len(data) < least else struct.unpack_from("<I", data, 16)[0]


@contextlib.contextmanager
def noted():
    """What the engine decodes while this lasts, and what residuals make of it."""
    decoded, corrected = [], []
    engine, correct = Engine.decode, residual.decode

    def decode(*args):
        found = engine(*args)
        decoded.extend(found)
        return found

    def add(*args):
        corrected.append(correct(*args))
        return corrected[-1]

    Engine.decode, residual.decode = decode, add
    try:
        yield decoded, corrected
    finally:
        Engine.decode, residual.decode = engine, correct


def claims(data):
    """The shape that the header states; nothing is checked."""
    if len(data) < container.HEADER.size:
        return 1, 1, 1, 1
    t, h, w, b = struct.unpack_from("<IIIH", data, 20)
    return t, b, h, w


def small(shape):
    t, b, h, w = shape
    return t * max(b, 5) * -(-h // 64) * -(-w // 64) * 64 * 64 <= MOST_PADDED


def joined(frames):
    return b"".join(frame.tobytes() for frame in frames)


def first_of(parsed, count):
    """What a stream states of its first frames; itself where these are all."""
    if count is None or count >= parsed.shape[0]:
        return parsed
    masks = {
        name: None if mask is None else mask[:count]
        for name, mask in (("invalid", parsed.invalid), ("saturated", parsed.saturated))
    }
    ends, crcs = parsed.frame_bytes[:count], parsed.frame_crcs[:count]
    return dataclasses.replace(
        parsed, shape=(count, *parsed.shape[1:]), frame_bytes=ends, frame_crcs=crcs,
        payload=parsed.payload[: ends[-1]], **masks,
    )  # fmt: skip


def residual_crc(parsed, frames):
    """What a residual states of the numbers of its first frames: 0 where there is none."""
    if not parsed.residual:
        return 0
    bounds = parsed.shape[1] if parsed.residual[0] & 4 else 1
    return struct.unpack_from("<I", parsed.residual, 1 + 2 * bounds + 8 * frames - 4)[0]


def expected(parsed, decoded, corrected):
    """The pixels that a stream states, by docs/format.md."""
    top = {"uint16": 65535, "int16": 32767}[parsed.dtype]
    low = {"uint16": 0, "int16": -32768}[parsed.dtype]
    base = 0
    if decoded:
        config = registry.find(parsed.model_digest).config
        network = decoded[0].pixels()
        if config.whole:
            network = network[:, list(parsed.bands)]
        network = network[:, :, : parsed.shape[2], : parsed.shape[3]]
        mean, std = (np.array(x, np.float32)[list(parsed.bands)] for x in (config.mean, config.std))
        values = network * std[:, None, None] + (mean[:, None, None] + parsed.offset)
        base = np.clip(np.rint(values), low, top - 1).astype(np.int64)
    if corrected:
        (pixels,) = corrected
        pixels = pixels.astype(np.int64)
        added = pixels - base if parsed.residual[0] & 3 == 0 else pixels
        inside = (pixels > low).all() and (pixels < top - 1).all()  # nothing was clipped
        if inside and zlib.crc32(added.astype("<i4").tobytes()) != residual_crc(
            parsed, parsed.shape[0]
        ):
            raise Wrong("a residual has another checksum than it states")
    elif decoded:
        pixels = base
    else:
        pixels = np.full(parsed.shape, parsed.nodata)
    if parsed.nodata is not None:
        other = parsed.nodata - 1 if parsed.nodata > low else low + 1
        pixels[pixels == parsed.nodata] = other
    for mask, value in ((parsed.saturated, top), (parsed.invalid, parsed.nodata)):
        if mask is not None:
            pixels[mask] = value
    return pixels.astype(parsed.dtype)


# The corpus


def make_corpus():
    """Small streams of both families, and what they hold."""
    rng = np.random.default_rng(1)
    bands = ("B04", "B08", "B11")

    def scene(shape, dtype="uint16", spread=300):
        return np.clip(rng.normal(1800, spread, shape), 1, 30000).astype(dtype)

    chunks = {
        "tiny": (scene((1, 1, 1, 1)), {"bands": ("B08",)}),
        "flat": (np.full((1, 3, 9, 9), 1234, np.uint16), {"bands": bands}),
        "wild": (scene((2, 3, 9, 9), spread=9000), {"bands": bands, "compression": 200}),
        "frames": (scene((7, 2, 3, 5)), {"bands": ("B02", "B03"), "compression": 100}),
        "signed": (scene((2, 3, 6, 7), "int16") - 2000, {"bands": bands, "nodata": -9999}),
        "masks": (scene((2, 3, 12, 10)), {"bands": bands}),
        "edge": (scene((2, 3, 12, 10)), {"bands": bands, "nodata": 65535}),
        "saturated": (np.full((1, 3, 5, 5), 65535, np.uint16), {"bands": bands}),
        "bounded": (scene((2, 3, 9, 11)), {"bands": bands, "max_error": 5}),
        "each-bound": (scene((3, 2, 5, 9)), {"bands": ("B02", "B03"), "max_error": (20, 300)}),
        "lossless": (scene((2, 3, 12, 10)), {"bands": bands, "max_error": 0}),
        "nothing": (np.full((3, 3, 20, 20), 7, np.uint16), {"bands": bands, "nodata": 7}),
    }
    masks = chunks["masks"][0]
    masks[rng.random(masks.shape) < 0.2] = 0
    masks[rng.random(masks.shape) < 0.05] = 65535
    chunks["lossless"][0][0, :, 3:5] = 0
    chunks["lossless"][0][1, 1, 7, :4] = 65535
    chunks["edge"][0][:, :, np.tri(12, 10, dtype=bool)] = 65535
    CORPUS.mkdir(exist_ok=True)
    for (family, model), (name, (chunk, fields)) in itertools.product(
        MODELS.items(), chunks.items()
    ):
        path = CORPUS / f"{family}-{name}.stream"
        if not path.exists():
            forced = network_first() if name == "each-bound" else contextlib.nullcontext()
            with forced:
                path.write_bytes(encode_chunk(chunk, Settings(model, **fields)))


# The long run


def bounded():
    """Let this process take not much more memory than it has taken by now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + EXTRA_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main():
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--count", type=int, default=2000)
    options.add_argument("--seed", default="0", help="any text")
    options.add_argument("--make-corpus", action="store_true")
    options = options.parse_args()
    search_golden_models()
    if options.make_corpus:
        make_corpus()
    everything = seeds()
    judge = Judge(everything)
    begin_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bounded()
    outcomes, slowest = Counter(), 0.0
    for i in range(options.count):
        rng = random.Random(f"{options.seed}/{i}")
        seed, data, sealed = mutated(rng, everything)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        begin = time.process_time()
        try:
            first = rng.choice([None, None, None, 1, 2])
            outcome = judge(seed, data, sealed=sealed, strict=rng.random() < 0.5, first=first)
        except Wrong as error:
            Path(f"wrong-{options.seed}-{i}.stream").write_bytes(data)
            sys.exit(f"mutation {options.seed}/{i} of {seed.name} (kept): {error}")
        slowest = max(slowest, time.process_time() - begin)
        kind = "the same" if data in judge.originals else "forged" if sealed else "damaged"
        outcomes[kind, outcome] += 1
        if (i + 1) % 10_000 == 0:
            print(i + 1, file=sys.stderr, flush=True)  # noqa: T201
    faulthandler.cancel_dump_traceback_later()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin_kib
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind:10}{outcome:24}{count:8}")  # noqa: T201
    print(f"slowest {slowest:.2f} s of processor time, memory grew by {grown / 1024:.0f} MiB")  # noqa: T201


if __name__ == "__main__":
    main()
