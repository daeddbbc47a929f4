"""What a network leaves to be said: integers that bring every pixel within a bound.

The residual of a chunk codes, plane by plane, pixels in steps of ``2 bound + 1`` around what is
expected of them; with a bound of 0 that is lossless. All is integer arithmetic, so what decodes on
one machine decodes on all. See docs/format.md, "The residual".

Where a network's pixels are the same on every machine, they guide the code, and the residual holds
the pixels themselves. Where they are not, it holds corrections that were coded without a look at
them; or pixels that need no network at all, where that is shorter or the bound is 0.

Below: coding, errors. Above: codec. Importing this imports Numba.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xtec.coding.stream import frame_crcs
from xtec.errors import CorruptStreamError
from xtec.residual import fit
from xtec.residual.fit import INSIDE
from xtec.residual.kernel import EDGE, Mask
from xtec.residual.planes import Frame, Planes
from xtec.residual.section import Kind, Section

__all__ = ["Kind", "decode", "encode"]

Numbers = NDArray[np.int32]
Limits = tuple[int, int]

FAR = (1 << 16) - 1
"""Larger than any correction; twice that, with a sign, is still a number that can be coded."""


def encode(
    pixels: Numbers,
    base: Numbers | None,
    skipped: Mask,
    bounds: Sequence[int],
    limits: Limits,
    kind: Kind,
) -> bytes:
    """Code what brings a network's pixels within bounds.

    Parameters
    ----------
    pixels : int32, shape (time, band, y, x)
        The true pixels: 16-bit numbers.
    base : int32, same shape, or None
        What the network gives; ALONE needs none.
    skipped : bool, same shape
        Pixels that nothing is promised of.
    bounds : sequence of int, one per band
        Largest error allowed, 0 to 65535 DN.
    limits : (int, int)
        Lowest and highest value of a pixel that is not skipped.
    kind : Kind
        GUIDED needs a base that is the same on every machine. CORRECTIONS are the same wherever
        they are decoded, and the pixels differ as the base does. ALONE ignores the base.

    Returns
    -------
    bytes
        The residual section of a stream.
    """
    frames, bands = pixels.shape[:2]
    base = np.zeros_like(pixels) if base is None else base
    target = pixels - base if kind == Kind.CORRECTIONS else pixels
    guide, lowest, highest = _guide(base, limits, kind)
    needed = np.abs(target - guide) > np.asarray(bounds)[:, None, None]
    needed = (needed & ~skipped).any(axis=(2, 3))
    planes, codes = Planes(pixels.shape), []
    for t in range(frames):
        frame = Frame(planes)
        for b in range(bands) if needed[t].any() else ():
            own, around = t * bands + b, (2 * bounds[b] + 1, lowest, highest)
            if needed[t, b]:
                image = target[t, b], skipped[t, b], _padded(guide[t, b])
                fit.code(frame, own, image, around)
            else:
                frame.write_nothing()
        codes.append(frame.finished() if needed[t].any() else b"")
    found = guide + planes.residuals[:, INSIDE, INSIDE].reshape(guide.shape)
    made = Section(kind=kind, bounds=tuple(bounds), frames=tuple(codes), crcs=frame_crcs(found))
    return made.to_bytes()


def decode(
    data: bytes, base: Numbers | None, skipped: Mask, limits: Limits, whole: int | None = None
) -> Numbers:
    """Decode what `encode` gave, or the first frames of it.

    Parameters
    ----------
    data : bytes
    base : int32, shape (time, band, y, x), or None
        What the network gives; None where there is none, which ALONE needs and allows.
    skipped, limits
        As the encoder had them; of the frames that are wanted.
    whole : int, optional
        How many frames were encoded, where only the first are wanted.

    Returns
    -------
    int32, shape (time, band, y, x)
        Pixels within the limits; of those that are skipped nothing is promised.

    Raises
    ------
    CorruptStreamError
        The section contradicts itself or the base, or decodes to another checksum than it was
        written with.
    """
    frames, bands = skipped.shape[:2]
    whole = whole or frames
    read = Section.parse(data, whole, bands)
    if (read.kind == Kind.ALONE) != (base is None):
        raise CorruptStreamError(
            f"A residual of kind {read.kind.name} does not go "
            f"{'without' if base is None else 'with'} latents."
        )
    network = np.zeros(skipped.shape, np.int32) if base is None else base
    guide, lowest, highest = _guide(network, limits, read.kind)
    planes, found = Planes(skipped.shape), guide.copy()
    for t, code in enumerate(read.frames[:frames]):
        if not code:
            continue
        frame = Frame(planes, code)
        for b in range(bands):
            own, around = t * bands + b, (2 * read.bounds[b] + 1, lowest, highest)
            frame.read(own, (found[t, b], skipped[t, b], _padded(guide[t, b])), around)
        frame.check()
    if frame_crcs(found) != read.crcs[:frames]:
        raise CorruptStreamError(
            "The residual decodes to another checksum than it was written with: no pixel of this "
            "chunk can be trusted."
        )
    if read.kind == Kind.CORRECTIONS:
        found += network
    return np.clip(found, *limits)


def _guide(base: Numbers, limits: Limits, kind: Kind) -> tuple[Numbers, int, int]:
    """What is known of the numbers that are coded, and their lowest and highest."""
    if kind == Kind.GUIDED:
        return base, *limits
    return np.zeros_like(base), *((-FAR, FAR) if kind == Kind.CORRECTIONS else limits)


def _padded(guide: Numbers) -> Numbers:
    return np.pad(guide, EDGE, mode="edge")
