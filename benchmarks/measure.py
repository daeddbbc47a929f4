"""Run a codec on every cube at every setting, and keep what does not change in a folder.

What a classical codec does to a cube depends on its version, its setting and the cube: the cache
knows it by these. The model is never cached.

Below: coders, curves, quality. Above: rate_distortion.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quality
from coders import Coder
from curves import Curve, Point, point, pooled
from quality import Quality
from tqdm import tqdm

from xtec.pixels import Pixels

REVISION = 1
"""To be raised when a coder here changes without a change of name, version or fields."""

Watch = Callable[[float, Pixels, Pixels], None]
"""Is shown the setting, a cube and what came back."""


@dataclass(frozen=True)
class Result:
    """One codec on all cubes: for each setting the points of the cubes by name."""

    name: str
    knob: str
    settings: tuple[float, ...]
    points: tuple[dict[str, Point], ...]

    @property
    def pooled(self) -> tuple[Point, ...]:
        """All cubes as one, for each setting."""
        return tuple(pooled(p.values()) for p in self.points)

    @property
    def curve(self) -> Curve:
        """All cubes pooled, over the PSNR of all bands pooled."""
        return Curve(self.pooled)

    @property
    def curve_of_means(self) -> Curve:
        """All cubes pooled, over the mean of the bands' PSNR."""
        return Curve(self.pooled, lambda p: p.psnr_mean)

    def of(self, cube: str) -> Curve:
        """One cube."""
        return Curve(tuple(p[cube] for p in self.points))


@dataclass(frozen=True)
class Cache:
    """Points by what they depend on, each in a small JSON file; without a folder, none."""

    folder: Path | None = None

    def point(self, coder: Coder, version: str, cube: Pixels) -> Point:
        """Look a point up, or measure it."""
        if self.folder is None:
            return measured(coder, cube)
        key = _key(coder, version, cube)
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        path = self.folder / f"{name}.json"
        if path.exists():
            stored = json.loads(path.read_text())
            return Point(stored["bytes"], Quality.from_json(stored["quality"]))
        found = measured(coder, cube)
        content = {"key": key, "bytes": found.stored_bytes, "quality": found.quality.to_json()}
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content))
        part.replace(path)
        return found


def measured(
    coder: Coder, cube: Pixels, watch: Callable[[Pixels, Pixels], None] | None = None
) -> Point:
    """Code one cube, and decode it."""
    streams = coder.encode(cube)
    decoded = coder.decode(streams, cube.shape)
    if watch:
        watch(cube, decoded)
    return point(sum(map(len, streams)), cube, decoded)


def everywhere(
    name: str,
    knob: str,
    settings: Sequence[float],
    cubes: dict[str, Pixels],
    measure: Callable[[float, Pixels], Point],
) -> Result:
    """Measure every cube at every setting."""
    points: list[dict[str, Point]] = [{} for _ in settings]
    with tqdm(total=len(settings) * len(cubes), desc=name, leave=False) as bar:
        for setting, found in zip(settings, points, strict=True):
            for cube_name, cube in cubes.items():
                found[cube_name] = measure(setting, cube)
                bar.update()
    return Result(name, knob, tuple(settings), tuple(points))


def _key(coder: Coder, version: str, cube: Pixels) -> dict[str, Any]:
    fields = dataclasses.asdict(coder)  # type: ignore[call-overload]  # every coder is one
    del fields["threads"]  # changes no byte
    return {
        "codec": coder.name,
        "version": version,
        "settings": fields,
        "cube": hashlib.sha256(repr(cube.shape).encode() + cube.tobytes()).hexdigest(),
        "revisions": [REVISION, quality.REVISION],
    }
