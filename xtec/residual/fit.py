"""The encoder's choices: which planes a plane refers to, with which weights, and what is a copy.

Nothing here binds a decoder. Sums over pixels are sums of integers below 2**53, so they come out
alike whatever the machine and the number of threads.

Below: kernel, planes. Above: the package itself.
"""

import numpy as np
from numpy.typing import NDArray

from xtec.residual import kernel
from xtec.residual.kernel import EDGE, Image, Mask, Plane, Whole
from xtec.residual.planes import Frame, Limits, Plan, Planes

Reals = NDArray[np.float64]

INSIDE = slice(EDGE, -EDGE)
RECENT = 1
"""Earlier frames of the band that are considered as a reference."""
FULL_FIT = 1 << 14
"""Planes with more pixels are fitted on every second row."""
NOISE = 0.05
"""Variance in DN that is added to every tap: keeps weights small where they hardly matter."""
MOST_WEIGHT = (1 << 15) - 1
SOME = 0.1
"""Share of pixels like a neighbour from which on copies are tried."""
RARE = 0.005
"""Share of pixels out of bounds below which it is tried to foretell nothing."""
TRIED = 4
"""A trial codes this part of the rows."""


def code(frame: Frame, own: int, image: Image, limits: Limits) -> None:
    """Write a plane in the best way that is found.

    Parameters
    ----------
    frame : Frame
    own : int
        Number of the plane.
    image : pixels, skipped, guide
        The last with its border.
    limits : step, lowest and highest pixel
    """
    planes, step, (pixels, skipped, guide) = frame.planes, limits[0], image
    residual = pixels - guide[INSIDE, INSIDE]
    references = _references(planes, own, np.where(skipped, 0, residual))
    # Neighbours are as coarse here as the decoder will know them.
    known = (residual + (step >> 1)) // step * step
    planes.residuals[own][INSIDE, INSIDE] = np.where(skipped, 0, known)
    taps = planes.offsets(own, references)

    def plan(copies: int | None, wanted: Mask) -> Plan:
        return Plan(copies, references, _weights(planes, own, taps, guide, residual, wanted))

    ways = [(plan(None, ~skipped), 0)]
    source = _copies(pixels, skipped)
    if np.count_nonzero(source) > SOME * pixels.size:
        copying = plan(_pattern(planes, own, source), ~skipped & (source == 0))
        ways += [(copying, near) for near in sorted({0, step >> 1})]
    rows, tried = len(pixels), -(-len(pixels) // TRIED)
    if np.count_nonzero(np.abs(residual[~skipped]) > step >> 1) < RARE * pixels.size:
        # Where hardly anything needs a correction, nothing may be the best expectation.
        silent = np.zeros(len(planes.offsets(own, ())), np.int64)
        ways, tried = [*ways, (Plan(None, (), silent), 0)], rows
    if len(ways) > 1:
        sizes = [_attempt(frame, own, way, image, limits, tried, keep=False) for way in ways]
        ways = [ways[int(np.argmin(sizes))]]
    _attempt(frame, own, ways[0], image, limits, rows, keep=True)


def _attempt(
    frame: Frame,
    own: int,
    way: tuple[Plan, int],
    image: Image,
    limits: Limits,
    rows: int,
    *,
    keep: bool,
) -> int:
    """Bytes that a plane takes; nothing else comes of it unless it is kept."""
    planes, (plan, near) = frame.planes, way
    coder, models, before = frame.coder, planes.models.copy(), len(frame.written)
    for known in (planes.residuals, planes.sizes, planes.copied):
        known[own] = 0
    frame.write(own, plan, image, limits, rows, near)
    after = len(frame.written)
    if not keep:
        frame.coder, planes.models = coder, models
        del frame.written[before:]
    return after - before


def _references(planes: Planes, own: int, residual: Plane) -> tuple[int, ...]:
    """Candidates that explain most of what the neighbours do not, one after the other."""
    band = own % planes.bands
    candidates = planes.candidates(own)[: band + RECENT]
    target = _details(residual)
    known = [_details(planes.residuals[c][INSIDE, INSIDE]) for c in candidates]
    chosen: list[int] = []
    while known and len(chosen) < kernel.MOST_REFERENCES:
        gains = [_dot(target, k) ** 2 / (_dot(k, k) + 1) for k in known]
        best = int(np.argmax(gains))
        if gains[best] <= 0 or best in chosen:
            break
        chosen.append(best)
        direction = known[best]
        energy = _dot(direction, direction) + 1
        target = target - direction * (_dot(target, direction) / energy)
        known = [k - direction * (_dot(k, direction) / energy) for k in known]
    return tuple(chosen)


def _details(plane: Plane) -> Reals:
    """What a pixel adds to its left and upper neighbours."""
    fine = plane.astype(np.float64)
    return fine[1:, 1:] - (fine[:-1, 1:] + fine[1:, :-1]) / 2


def _dot(a: Reals, b: Reals) -> float:
    return float(np.einsum("ij,ij->", a, b))


def _weights(
    planes: Planes, own: int, taps: Whole, guide: Plane, residual: Plane, wanted: Mask
) -> Whole:
    """Least squares over the wanted pixels."""
    if wanted.size > FULL_FIT:
        wanted = wanted & (np.arange(len(wanted)) % 2 == 0)[:, None]
    seen = np.empty((np.count_nonzero(wanted), len(taps) + 1))
    kernel.features(planes.residuals, guide, wanted, own, taps, seen)
    seen[:, -1] = residual[wanted]
    products = seen.T @ seen
    ridge = np.eye(len(taps)) * (1 + NOISE * len(seen))
    best = np.linalg.lstsq(products[:-1, :-1] + ridge, products[:-1, -1], rcond=None)[0]
    weights: Whole = np.rint(best * (1 << kernel.WEIGHT_BITS)).astype(np.int64)
    return np.clip(weights, -MOST_WEIGHT, MOST_WEIGHT, out=weights)


def _copies(pixels: Plane, skipped: Mask) -> NDArray[np.uint8]:
    """1 where a pixel equals its left neighbour, else 2 where it equals the upper one, else 0."""
    source = np.zeros(pixels.shape, np.uint8)
    source[1:][(pixels[1:] == pixels[:-1]) & ~skipped[:-1]] = 2
    source[:, 1:][(pixels[:, 1:] == pixels[:, :-1]) & ~skipped[:, :-1]] = 1
    source[skipped] = 0
    return source


def _pattern(planes: Planes, own: int, source: NDArray[np.uint8]) -> int:
    """Where flags look most alike: a candidate, counted from 1, or 0 where none does."""
    found = [0]
    for candidate in planes.candidates(own):
        there = planes.copied[candidate][INSIDE, INSIDE]
        found.append(int(np.count_nonzero((there == source) & (source > 0))))
    return int(np.argmax(found))
