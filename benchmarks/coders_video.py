"""HEVC by x265 in 12 bits, along time, after a KLT over the bands: the way of xarrayvideo.

Where xarrayvideo leaves a choice, the one that needs the fewest bits on the validation cubes:

* one basis for all dates, so that a component stays the same picture from date to date;
* one step in DN for all components, a power of two, so that equal quantisers give equal errors
  (xarrayvideo stretches each component to 12 bits: noise then costs as much as signal);
* greyscale frames, the dates of the first component, then those of the second, and so on: one set
  of headers (three components as the channels of a picture need 8 to 21 % more);
* a constant quantiser, the same for all kinds of frames (CRF needs up to 5 % more).

Called through PyAV, whose wheels bring FFmpeg and libx265.

Below: coders, klt. Above: competitors.
"""

import functools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType
from coders import Shape
from klt import Basis
from numpy.typing import NDArray

from xtec.pixels import Pixels

FORMAT = "gray12le"
LARGEST, MIDDLE = 4095, 2048
PRESET = "slower"  # up to 3 % fewer bits than "slow"; "veryslow" needs more than either
STEP_DN = 4
"""Smallest step of the 12-bit samples; its rounding alone would be 79 dB."""
OPTIONS = "pools=none:frame-threads=1:no-wpp=1:log-level=none:ipratio=1:bframes=0"

try:
    _FORMATS = {f.name for f in av.Codec("libx265", "w").video_formats or ()}
except av.codec.codec.UnknownCodecError as error:
    raise ImportError("this PyAV was built without libx265") from error
if FORMAT not in _FORMATS:
    raise ImportError("the libx265 of this PyAV was built without 12 bits")


@functools.cache
def version() -> str:
    """Say which libraries: x265 writes its name into a stream unless told not to."""
    stream = _encoded([np.zeros((64, 64), np.uint16)], 1, "qp=30:info=1")
    named = re.search(rb"x265 \(build \d+\) - ([^:]+):", stream)
    name = named[1].decode() if named else "of unknown version"
    return f"x265 {name}, preset {PRESET}, PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"


@dataclass(frozen=True)
class Video:
    """All dates of a cube as one video."""

    name: ClassVar[str] = "KLT over bands, then x265 along time"
    knob: ClassVar[str] = f"QP at a step of {STEP_DN} DN"
    quantiser: int
    threads: int = 1

    def encode(self, cube: Pixels) -> list[bytes]:
        """One stream: basis, offsets, step, video."""
        dates, bands, height, width = cube.shape
        values = cube.transpose(1, 0, 2, 3).reshape(bands, -1).astype(np.float64)
        basis = Basis.of(values)
        components = basis.forward(values)
        low, high = components.min(axis=1), components.max(axis=1)
        doublings = max(0, math.ceil(math.log2((high - low).max() / (LARGEST - 1) / STEP_DN)))
        step = STEP_DN << doublings
        # The mean in the middle, where HEVC's prediction starts, as far as the range allows.
        offset = np.clip(-MIDDLE, np.ceil(high / step) - LARGEST, np.floor(low / step))
        samples = np.rint(components / step - offset[:, None]).clip(0, LARGEST)
        frames = samples.astype(np.uint16).reshape(bands * dates, height, width)
        quantiser = max(0, self.quantiser - 6 * doublings)  # 6 of them are one doubling
        video = _encoded(frames, dates, f"qp={quantiser}:info=0")
        head = basis.to_bytes() + offset.astype("<i2").tobytes() + bytes([doublings])
        return [head + video]

    def decode(self, streams: list[bytes], shape: Shape) -> Pixels:
        """All frames."""
        dates, bands, height, width = shape
        basis, rest = Basis.read(streams[0], bands)
        offset = np.frombuffer(rest, "<i2", bands).astype(np.float64)
        step, video = STEP_DN << rest[offset.size * 2], rest[offset.size * 2 + 1 :]
        samples = np.stack(_decoded(video)).reshape(bands, -1)
        pixels = basis.backward((samples + offset[:, None]) * step)
        return pixels.reshape(bands, dates, height, width).transpose(1, 0, 2, 3)


def _encoded(frames: Iterable[NDArray[np.uint16]], group: int, parameters: str) -> bytes:
    """HEVC elementary stream of 12-bit pictures; an intra picture starts each group of them."""
    encoder: Any = None
    packets: list[Any] = []
    for number, image in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(image, format=FORMAT)
        frame.pts = number
        frame.pict_type = PictureType.NONE if number % group else PictureType.I
        encoder = encoder or _encoder(frame.width, frame.height, parameters)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return b"".join([bytes(encoder.extradata or b""), *map(bytes, packets)])


def _encoder(width: int, height: int, parameters: str) -> Any:
    encoder: Any = av.CodecContext.create("libx265", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, FORMAT
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.flags |= Flags.global_header  # the headers once, not before every intra picture
    encoder.options = {
        "preset": PRESET,
        "tune": "psnr",
        "x265-params": f"{OPTIONS}:{parameters}",
    }
    return encoder


def _decoded(stream: bytes) -> list[NDArray[Any]]:
    decoder: Any = av.CodecContext.create("hevc", "r")
    decoder.thread_count = 1
    packets = [*decoder.parse(stream), *decoder.parse(None)]
    frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return [frame.to_ndarray() for frame in frames]
