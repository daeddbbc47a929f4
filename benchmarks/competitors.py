"""The codecs that the model is measured against, and the settings at which.

A codec whose library is missing is left out, and the report says so.

Below: coders_*. Above: rate_distortion.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coders import Coder

LEVELS = (*range(46, 68, 2), 70.0, 74.0)
"""Targets of OpenJPEG, PSNR with the peak 65535: 30 to 58 dB here."""
ANCHOR_LEVELS = (*range(44, 84, 4),)
"""Up to 66 dB: on the sea its first 900 bytes give 61 dB."""
DISTANCES = (0.1, 0.35, 1, 3, 9, 25)
QUANTISERS = (10, 18, 26, 34, 42, 50)
ERRORS_DN = (20, 70, 150, 300, 700, 1500)
TOLERANCES_DN = (*(2**n for n in range(4, 16, 2)),)
"""zfp knows powers of two only."""

MODULES = (
    ("coders_jpeg2000", "imagecodecs"),
    ("coders_jpegxl", "imagecodecs"),
    ("coders_video", "av"),
    ("coders_bounded", "imagecodecs"),
)
"""Where the codecs are, and what to install for them."""
CODECS = (
    ("coders_jpeg2000", "Bands", LEVELS),
    ("coders_jpeg2000", "CheckedBands", LEVELS),
    ("coders_jpeg2000", "Components", LEVELS),
    ("coders_jpeg2000", "Klt", ANCHOR_LEVELS),
    ("coders_jpegxl", "Bands", DISTANCES),
    ("coders_jpegxl", "Klt", DISTANCES),
    ("coders_video", "Video", QUANTISERS),
    ("coders_bounded", "Lerc", ERRORS_DN),
    ("coders_bounded", "Zfp", TOLERANCES_DN),
)
ANCHOR = "KLT over bands, then JPEG 2000"
VIDEO = "KLT over bands, then x265 along time"


@dataclass(frozen=True)
class Competitor:
    """One codec with its settings."""

    name: str
    knob: str
    """What its setting is called."""
    version: str
    made: Callable[[float], Coder]
    settings: Sequence[float]


def available(threads: int, *, quick: bool = False) -> tuple[list[Competitor], list[str]]:
    """Find the codecs whose libraries are installed.

    Parameters
    ----------
    threads : int
        For those that can use several.
    quick : bool
        Every third setting only.

    Returns
    -------
    The codecs, and for each module that cannot be imported a line that says why.
    """
    modules, missing = {}, []
    for name, package in MODULES:
        try:
            modules[name] = importlib.import_module(name)
        except ImportError as error:
            missing.append(f"{name.removeprefix('coders_')} ({error}; pip install {package})")
    found = []
    for name, codec, settings in CODECS:
        if name in modules:
            coder = getattr(modules[name], codec)
            made = functools.partial(coder, threads=threads)
            some = settings[:: 3 if quick else 1]
            version = modules[name].version()
            found.append(Competitor(coder.name, coder.knob, version, made, some))
    return found, missing
