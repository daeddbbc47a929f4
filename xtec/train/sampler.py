"""Random batches of crops of the training cubes; a batch depends on the seed and its number alone.

All crops of a batch have one size, one number of dates and one compression setting.

Below: data, augment, series, recipe. Above: batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from xtec.errors import InputError
from xtec.models.config import LappedConfig
from xtec.train import augment
from xtec.train.augment import Mask, Numbers
from xtec.train.data import Cube, holes
from xtec.train.recipe import Range, Recipe
from xtec.train.series import made_up

FRAMES = {1: 0.1, 2: 0.28, 3: 0.1, 4: 0.16, 6: 0.1, 8: 0.26}
"""How often sequences of so many dates are drawn."""
SIDES = {64: 0.1, 128: 0.4, 192: 0.2, 256: 0.3}
"""How often crops of so many pixels in y and x are drawn."""
STRANGE = 0.3
"""How many dates of a sequence with strangers are such."""


@dataclass(frozen=True)
class Kind:
    """What the crops of a batch have in common."""

    frames: int
    side: int
    made_up: bool
    """Whether they are series that never were."""
    share: float
    """How often it is drawn, relative to others."""
    cubes: tuple[Cube, ...]
    """Those that can give it."""
    weights: NDArray[np.float64]
    """How often each of them."""


@dataclass(frozen=True)
class Draw:
    """The crops of a batch."""

    level: int
    crops: list[Numbers]
    """Each of shape (T, bands of its own, side, side), without holes."""


class Sampler:
    """Batches for ever.

    Parameters
    ----------
    cubes : sequence of Cube
        With bands of the network alone.
    recipe : Recipe
    config : LappedConfig

    Raises
    ------
    InputError
        All cubes are smaller than the smallest crop.
    """

    def __init__(self, cubes: Sequence[Cube], recipe: Recipe, config: LappedConfig) -> None:
        self.recipe, self.config = recipe, config
        kinds = [
            _kind(cubes, frames, side, share * FRAMES[frames] * SIDES[side], made_up=made_up)
            for frames in FRAMES
            for made_up, share in _ways(frames, recipe.shares.made_up)
            for side in SIDES
        ]
        self.kinds = [kind for kind in kinds if kind.cubes and kind.share]
        if not self.kinds:
            raise InputError(
                f"no training cube is as large as the smallest crop of {min(SIDES)} pixels."
            )
        shares = np.array([kind.share for kind in self.kinds])
        self.shares = shares / shares.sum()

    def draw(self, number: int) -> Draw:
        """Give the batch of this number."""
        recipe, random = self.recipe, np.random.default_rng((self.recipe.seed, number))
        usual = random.random() < recipe.usual
        level = self._level(recipe.usual_compression if usual else recipe.compression, random)
        kind = self.kinds[random.choice(len(self.kinds), p=self.shares)]
        fine = level >= self.config.level(recipe.fine_from)
        crops = recipe.pixels / (2 if fine else 1) / (kind.frames * kind.side**2)
        picks = random.choice(len(kind.cubes), max(1, round(crops)), p=kind.weights)
        return Draw(level, [self._crop(kind.cubes[i], kind, random) for i in picks])

    def _level(self, compression: Range, random: Generator) -> int:
        low, high = (self.config.level(c) for c in compression)
        return int(random.integers(low, high + 1))

    def _crop(self, cube: Cube, kind: Kind, random: Generator) -> Numbers:
        shares, frames = self.recipe.shares, kind.frames
        kept = augment.some_bands(len(cube.bands), shares, random)
        if kind.made_up:
            again, dates = False, random.integers(len(cube.pixels), size=2)
            first, last = augment.filled(*_cut(cube, dates, kept, kind.side, random))
            pixels = made_up(first, last, frames, random)
            hole = np.zeros(pixels.shape, bool)
        else:
            dates = augment.dates(len(cube.pixels), frames, shares, random)
            again = len(set(dates.tolist())) < frames
            pixels, hole = _cut(cube, dates, kept, kind.side, random)
        if frames > 1 and random.random() < shares.strangers:
            others = [other for other in kind.cubes if other.bands == cube.bands]
            for t in np.flatnonzero(random.random(frames) < STRANGE):
                other = others[int(random.integers(len(others)))]
                date = random.integers(len(other.pixels), size=1)
                (pixels[t],), (hole[t],) = _cut(other, date, kept, kind.side, random)
        pixels = augment.lit(pixels, shares, random, again=again)
        gaps = augment.gaps((frames, kind.side, kind.side), shares, random)
        return augment.filled(pixels, hole | gaps[:, None])


def _cut(
    cube: Cube, dates: NDArray[np.int64], bands: NDArray[np.int64], side: int, random: Generator
) -> tuple[Numbers, Mask]:
    """Some square of a cube, laid down in some way, and where its holes are."""
    y, x = (int(random.integers(n - side + 1)) for n in cube.pixels.shape[2:])
    raw = cube.pixels[:, :, y : y + side, x : x + side][dates[:, None], bands]
    raw = augment.placed(raw, random)
    return raw.astype(np.float32), holes(raw)


def _ways(frames: int, made_up: float) -> tuple[tuple[bool, float], ...]:
    """Whether a sequence is made up, and how often; a single date is not."""
    return ((False, 1 - made_up), (True, made_up)) if frames > 1 else ((False, 1.0),)


def _kind(cubes: Sequence[Cube], frames: int, side: int, share: float, *, made_up: bool) -> Kind:
    large = [cube for cube in cubes if min(cube.pixels.shape[2:]) >= side]
    able = tuple(cube for cube in large if made_up or _lasts(cube, frames))
    # By area and by dates, but softly, so that small cubes are not drowned.
    sizes = [
        math.sqrt(math.prod(c.pixels.shape[2:]) * min(len(c.pixels), max(FRAMES))) for c in able
    ]
    weights = np.array(sizes) / sum(sizes or [1])
    return Kind(frames, side, made_up, share, able, weights)


def _lasts(cube: Cube, frames: int) -> bool:
    """Two dates and more may come twice."""
    return len(cube.pixels) >= frames or frames <= 2 * len(cube.pixels) > 2
