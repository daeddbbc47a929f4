"""The ground of the sample cube: what grows and stands where, and how it looks on a day.

A land cover of fields in strips, woods, a river, roads and towns, each with the reflectance
spectrum that Sentinel-2 sees after atmospheric correction. Crops follow a calendar.

Below: sample.noise. Above: sample (the cube).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from xtec.sample.noise import (
    Floats,
    Hashes,
    cells,
    fractal,
    gradient_noise,
    hashed,
    key,
    smoothstep,
    uniform,
)

# Surface reflectance x 10000. Shapes after spectral libraries, levels after real scenes.
# B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B10, B11, B12
SPECTRA: dict[str, tuple[int, ...]] = {
    "crop": (250, 300, 620, 300, 950, 2900, 4100, 4300, 4550, 4600, 4000, 2000, 900),
    "grass": (300, 380, 750, 480, 1200, 2800, 3500, 3700, 3900, 3950, 3500, 2200, 1100),
    "leaves": (180, 220, 480, 250, 750, 2600, 3500, 3700, 3900, 3950, 3300, 1700, 700),
    "needles": (150, 180, 330, 220, 480, 1450, 1850, 1950, 2100, 2150, 1800, 900, 400),
    "blossom": (300, 420, 1500, 1150, 1900, 3300, 4100, 4300, 4500, 4500, 4000, 2200, 1100),
    "straw": (600, 850, 1250, 1650, 2000, 2350, 2600, 2750, 2950, 3050, 3000, 3300, 2350),
    "soil": (500, 640, 900, 1170, 1380, 1540, 1660, 1780, 1920, 2020, 2100, 2650, 2300),
    "litter": (300, 350, 480, 600, 850, 1200, 1450, 1600, 1850, 1900, 2000, 2300, 1500),
    "water": (350, 400, 420, 260, 200, 130, 110, 90, 70, 50, 10, 30, 20),
    "gravel": (1500, 1750, 2050, 2250, 2350, 2450, 2550, 2600, 2700, 2750, 2800, 2900, 2700),
    "asphalt": (700, 800, 900, 980, 1050, 1100, 1150, 1200, 1250, 1280, 1400, 1500, 1400),
    "tiles": (800, 900, 1150, 1900, 2150, 2350, 2500, 2600, 2750, 2800, 2850, 2900, 2500),
    "slate": (1000, 1080, 1170, 1220, 1270, 1320, 1370, 1410, 1460, 1480, 1560, 1650, 1550),
    "hall": (3300, 3600, 3800, 3900, 3900, 3900, 3900, 3900, 3900, 3850, 3700, 3600, 3300),
}

Knots = tuple[tuple[int, float], ...]
"""(day of year, value) from day 0 to day 365; straight lines between."""

ALWAYS: Knots = ((0, 0.95), (365, 0.95))
NEVER: Knots = ((0, 0.0), (365, 0.0))


@dataclass(frozen=True)
class Kind:
    """One kind of land: what is green in it, what lies below, and when."""

    name: str
    green: str
    """Spectrum of its plants."""
    ground: str
    """Spectrum of the rest."""
    cover: Knots = NEVER
    """Share of the pixel that is green, over the year."""
    ripe: Knots = NEVER
    """Share of the rest that is straw, over the year."""


KINDS: tuple[Kind, ...] = (
    Kind("water", "grass", "water"),
    Kind("conifers", "needles", "litter", ALWAYS),
    Kind("broadleaves", "leaves", "litter",
         ((0, 0.08), (95, 0.1), (130, 0.97), (265, 0.93), (310, 0.1), (365, 0.08))),
    Kind("meadow", "grass", "soil",
         ((0, 0.6), (80, 0.65), (130, 0.95), (190, 0.8), (270, 0.85), (365, 0.6))),
    Kind("wheat", "crop", "soil",
         ((0, 0.3), (70, 0.4), (115, 0.97), (150, 0.95), (185, 0.08), (280, 0.05), (365, 0.3)),
         ((0, 0.0), (150, 0.0), (185, 1.0), (235, 0.8), (255, 0.05), (365, 0.0))),
    Kind("maize", "crop", "soil",
         ((0, 0.05), (145, 0.05), (195, 0.95), (245, 0.9), (270, 0.1), (365, 0.05)),
         ((0, 0.1), (100, 0.0), (245, 0.0), (265, 0.8), (320, 0.3), (365, 0.1))),
    Kind("rapeseed", "crop", "soil",
         ((0, 0.6), (80, 0.7), (110, 0.95), (160, 0.9), (200, 0.05), (260, 0.1), (365, 0.6)),
         ((0, 0.0), (160, 0.0), (195, 1.0), (230, 0.6), (250, 0.0), (365, 0.0))),
    Kind("beet", "crop", "soil",
         ((0, 0.02), (130, 0.05), (180, 0.97), (285, 0.9), (305, 0.02), (365, 0.02))),
    Kind("bare", "grass", "soil", ((0, 0.05), (120, 0.1), (180, 0.18), (365, 0.05))),
    Kind("gravel", "grass", "gravel", ((0, 0.02), (150, 0.06), (365, 0.02))),
    Kind("road", "grass", "asphalt", ((0, 0.05), (150, 0.1), (365, 0.05))),
    Kind("tiles", "leaves", "tiles", ((0, 0.03), (130, 0.12), (280, 0.12), (365, 0.03))),
    Kind("slate", "leaves", "slate", ((0, 0.03), (130, 0.12), (280, 0.12), (365, 0.03))),
    Kind("hall", "grass", "hall"),
)  # fmt: skip

INDEX: dict[str, int] = {kind.name: number for number, kind in enumerate(KINDS)}
BLOOM_DAYS = (110, 118, 128, 138)
"""Rapeseed begins, is in, leaves and ends full bloom."""


@dataclass(frozen=True)
class Land:
    """The ground, fixed over the years. All arrays have shape (y, x)."""

    kind: NDArray[np.uint8]
    """Index into `KINDS`."""
    parcel: Hashes
    """A random number that a field, a house or a wood shares."""
    texture: Floats
    """Factor of brightness around 1."""
    vigour: Floats
    """Factor of plant cover around 1, at most 1.05."""


def survey(y: Floats, x: Floats, seed: int) -> Land:
    """Lay out the land at these pixel coordinates, rows (n, 1) and columns (1, m)."""
    y, x = y + 0 * x, x + 0 * y
    kind, parcel = _fields(y, x, seed)
    wooded = fractal(y, x, 150, key(seed, "woods"), 5) > 0.28
    stand = cells(y, x, 22, key(seed, "stand"))
    needles = fractal(y, x, 60, key(seed, "needles"), 3) + 0.4 * (uniform(stand.name) - 0.5) > 0.05
    kind = np.where(wooded, np.where(needles, INDEX["conifers"], INDEX["broadleaves"]), kind)
    parcel = np.where(wooded, stand.name, parcel)
    kind, parcel = _town(y, x, seed, kind, parcel)
    kind = _river(y, x, seed, kind)
    kind = _roads(y, x, seed, kind)
    return _textured(y, x, seed, kind.astype(np.uint8), parcel)


def _fields(y: Floats, x: Floats, seed: int) -> tuple[NDArray[np.int64], Hashes]:
    """Blocks of parallel strips, each strip cut into parcels of one crop; paths between blocks."""
    warp = 12 * gradient_noise(y, x, 90, key(seed, "warp"))
    block = cells(y + warp, x - warp, 85, key(seed, "block"))
    slope = 2 * uniform(block.name, 2) - 1  # tangent of half the strips' angle
    cosine = (1 - slope * slope) / (1 + slope * slope)
    sine = 2 * slope / (1 + slope * slope)
    across = block.y * cosine + block.x * sine
    along = block.x * cosine - block.y * sine
    width = 6 + 14 * uniform(block.name, 3)
    strip = np.floor(across / width).astype(np.int64)
    cut = hashed(key(seed, "cut"), block.name.view(np.int64), strip)
    length = 24 + 60 * uniform(cut)
    piece = np.floor(along / length + uniform(cut, 1)).astype(np.int64)
    parcel = hashed(key(seed, "parcel"), cut.view(np.int64), piece)
    names = ("wheat", "maize", "meadow", "rapeseed", "beet", "bare")
    shares = (0.28, 0.5, 0.7, 0.83, 0.94)  # where the next name begins
    lot = np.searchsorted(np.array(shares), uniform(parcel), side="right")
    kind = np.array([INDEX[name] for name in names])[lot]
    kind = np.where(block.border < 1.5, INDEX["meadow"], kind)
    track = (block.border < 0.8) & (gradient_noise(y, x, 120, key(seed, "track")) > -0.1)
    return np.where(track, INDEX["gravel"], kind), parcel


def _town(
    y: Floats, x: Floats, seed: int, kind: NDArray[np.int64], parcel: Hashes
) -> tuple[NDArray[np.int64], Hashes]:
    """Towns: blocks of houses and gardens between streets, large halls at the edge."""
    town = cells(y, x, 330, key(seed, "town"))
    reach = 45 + 50 * uniform(town.name, 2) + 45 * fractal(y, x, 50, key(seed, "suburb"), 3)
    inside = town.distance < reach
    quarter = cells(y, x, 13, key(seed, "quarter"))
    halls = (town.distance > 0.62 * reach) & (uniform(quarter.name, 2) < 0.2)
    house = cells(y, x, 2.6, key(seed, "house"))
    name = np.where(halls, quarter.name, house.name)
    built = 0.75 - 0.4 * town.distance / np.maximum(reach, 1)
    lot = uniform(name, 2)
    tiled = 0.25 + 0.6 * uniform(quarter.name, 3)  # a quarter is of one age and style
    homes = np.where(lot < tiled * built, INDEX["tiles"], INDEX["slate"])
    homes = np.where(lot > built, INDEX["broadleaves"], homes)
    homes = np.where(lot > built + 0.28, INDEX["meadow"], homes)
    homes = np.where(lot > 0.985, INDEX["hall"], homes)
    works = np.where(uniform(quarter.name, 3) < 0.5, INDEX["hall"], INDEX["slate"])
    streets = quarter.border < np.where(halls, 2.6, 1.1)
    inner = np.where(streets, INDEX["road"], np.where(halls, works, homes))
    return np.where(inside, inner, kind), np.where(inside, name, parcel)


def _away(across: Floats, along: Floats, swing: float, period: float, purpose: int) -> Floats:
    """Pixels from a line that winds about a straight one, which returns every 640 pixels."""
    bend = swing * fractal(0 * along, along, period, purpose, 3)
    slope = swing * fractal(0 * along, along + 1, period, purpose, 3) - bend
    offset = across + bend
    offset = offset - np.floor(offset / 640) * 640 - 320
    away: Floats = np.abs(offset) / np.sqrt(1 + slope * slope)
    return away


def _river(y: Floats, x: Floats, seed: int, kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Let a river wind through, with a wooded bank and here and there gravel."""
    away = _away(y, x, 90, 260, key(seed, "river"))
    bank = gradient_noise(y, x, 24, key(seed, "bank"))
    kind = np.where(away < 6 + 8 * bank, INDEX["broadleaves"], kind)
    kind = np.where((away < 5.5) & (bank > 0.3), INDEX["gravel"], kind)
    return np.where(away < 3.2 + 1.5 * bank, INDEX["water"], kind)


def _roads(y: Floats, x: Floats, seed: int, kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Build a highway with its verges, over the river too, and a quarry here and there."""
    quarry = cells(y, x, 520, key(seed, "quarry"))
    edge = 15 + 6 * fractal(y, x, 20, key(seed, "face"), 3)
    kind = np.where(quarry.distance < edge, INDEX["gravel"], kind)
    away = _away(x - 90, y, 60, 700, key(seed, "highway"))
    kind = np.where((away < 3.2) & (kind != INDEX["water"]), INDEX["meadow"], kind)
    return np.where(away < 1.6, INDEX["road"], kind)


def _textured(y: Floats, x: Floats, seed: int, kind: NDArray[np.uint8], parcel: Hashes) -> Land:
    """Add what is fine: crowns and rows of plants, slopes towards the sun, damp patches."""
    wood = (kind == INDEX["conifers"]) | (kind == INDEX["broadleaves"])
    water = kind == INDEX["water"]
    grain = gradient_noise(y, x, 2.3, key(seed, "grain"))
    patch = fractal(y, x, 28, key(seed, "patch"), 3)
    hills = fractal(y, x, 110, key(seed, "hills"), 4)
    relief = 3.0 * smoothstep(-0.1, 0.5, fractal(y, x, 300, key(seed, "relief"), 2))
    towards = hills - fractal(y + 1, x + 1, 110, key(seed, "hills"), 4)  # the sun stands south-east
    light = 1 + relief * towards
    own = 0.86 + 0.28 * uniform(parcel, 1)
    texture = light * own * (1 + 0.07 * patch + np.where(wood, 0.22, 0.06) * grain)
    texture = np.where(water, 1 + 0.03 * patch, np.clip(texture, 0.5, 1.6))
    vigour = np.clip(0.93 + 0.16 * patch + 0.1 * (uniform(parcel, 2) - 0.5), 0.55, 1.05)
    return Land(kind, parcel, texture, vigour)


def _curve(knots: Knots, day: Floats) -> Floats:
    """Straight lines through the knots, at days 0 to 365."""
    out = np.full(day.shape, knots[0][1])
    for (start, low), (end, high) in pairwise(knots):
        out = out + (high - low) * np.clip((day - start) / (end - start), 0, 1)
    return out


@dataclass(frozen=True)
class Season:
    """What the land looks like on one day: shares per pixel, shape (y, x)."""

    land: Land
    green: Floats
    straw: Floats
    bloom: Floats

    def reflectance(self, band: int) -> Floats:
        """Surface reflectance x 10000 in band number 0 to 12, shape (y, x)."""
        green = np.array([SPECTRA[kind.green][band] for kind in KINDS])[self.land.kind]
        ground = np.array([SPECTRA[kind.ground][band] for kind in KINDS])[self.land.kind]
        plants = green + self.bloom * (SPECTRA["blossom"][band] - green)
        rest = ground + self.straw * (SPECTRA["straw"][band] - ground)
        mixed: Floats = (rest + self.green * (plants - rest)) * self.land.texture
        return mixed


def season(land: Land, day: int) -> Season:
    """Let the calendar run to a day of the year, 0 to 364; no two fields keep the same time."""
    late = 16 * (uniform(land.parcel, 3) - 0.5)
    green, straw = np.zeros(late.shape), np.zeros(late.shape)
    for number, kind in enumerate(KINDS):
        here = land.kind == number
        when = np.clip(day - late[here], 0, 365)
        green[here] = np.minimum(_curve(kind.cover, when) * land.vigour[here], 1)
        straw[here] = _curve(kind.ripe, when)
    start, full, fading, end = BLOOM_DAYS
    when = day - late
    bloom = smoothstep(start, full, when) * smoothstep(end, fading, when)
    return Season(land, green, straw, np.where(land.kind == INDEX["rapeseed"], 0.85 * bloom, 0.0))
