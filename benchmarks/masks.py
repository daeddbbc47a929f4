"""What no data costs: bytes of masks, and errors of the pixels beside them.

    python benchmarks/masks.py

Over each tile of 256 x 256 pixels of the validation cubes, up to 8 dates, lies the slanted edge of
a swath, at another place on each date; on the L1C way of it each band's edge is some pixels off the
next one's. Errors of valid pixels at most 8 pixels from the edge are compared with those further
inside, and with those of the very same pixels when the tile is coded without an edge.

Below: data, common, xtec.codec, xtec.coding. Above: nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import data
import numpy as np
from common import about, parser, table
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from seams import Mean

from xtec.codec import Settings, decode_chunk, encode_chunk
from xtec.coding import masks
from xtec.errors import InputError
from xtec.pixels import Pixels

COMPRESSIONS = (1.0, 4.0, 20.0, 100.0, 400.0)
EDGES = {"one edge": 0, "bands apart": 3}
"""How many pixels the edge of a band is from the next one's, up to the fourth."""
SHAPE = (8, 13, 256, 256)
RINGS = ((1, 2), (3, 4), (5, 8))
"""Distances from a mask, in pixels, both ends included."""
EVEN_DN = 100
"""Tiles whose bands deviate less than this are haze or open sea: hardly any bytes, not typical."""


@dataclass
class Beside:
    """Squared errors by the distance from a mask, and of the same pixels without one."""

    rings: list[tuple[Mean, Mean]] = field(
        default_factory=lambda: [(Mean(), Mean()) for _ in RINGS]
    )
    inside: tuple[Mean, Mean] = field(default_factory=lambda: (Mean(), Mean()))

    def add(
        self, masked: NDArray[np.float64], plain: NDArray[np.float64], mask: masks.Mask
    ) -> None:
        """Count a tile: squared errors with and without a mask, shape (time, band, y, x)."""
        for index in np.ndindex(mask.shape[:2]):
            away = distance_transform_edt(~mask[index])
            for (low, high), means in zip(RINGS, self.rings, strict=True):
                here = (away >= low) & (away < high + 1)
                for mean, squared in zip(means, (masked, plain), strict=True):
                    mean.add(squared[index][here])
            for mean, squared in zip(self.inside, (masked, plain), strict=True):
                mean.add(squared[index][away > RINGS[-1][1]])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    options = parser(__doc__ or "").parse_args(arguments)
    import torch

    torch.set_num_threads(options.threads)
    tiles = list(_tiles(options.data))
    if not tiles:
        raise InputError("no tile of the validation cubes has anything on it.")
    print(about(options, "torch"))
    print(f"{len(tiles)} tiles.\n\n## Bytes\n")
    print(_bytes(tiles, options.model))
    print("\n## Errors beside a mask\n\nRMSE in DN; in brackets without the mask.\n")
    print(_errors(tiles, options.model))


def edge(shape: tuple[int, ...], apart: int) -> masks.Mask:
    """No data beyond the slanted edge of a swath."""
    frame, band, y, x = np.ogrid[tuple(slice(size) for size in shape)]
    line = shape[3] / 3 + 9 * frame + apart * (band % 4) - 0.25 * y
    beyond: masks.Mask = np.broadcast_to(x < line, shape)
    return beyond


def _tiles(folder: "data.Path | None") -> Iterator[Pixels]:
    time, _, height, width = SHAPE
    for cube in data.pairs(folder).values():
        tile = np.ascontiguousarray(cube[:time, :, :height, :width])
        if tile.std(axis=(0, 2, 3)).mean() > EVEN_DN and tile.all():
            yield tile


def _code(tile: Pixels, model: str, compression: float) -> tuple[int, Pixels]:
    stream = encode_chunk(tile, Settings(model, compression))
    return len(stream), decode_chunk(stream)


def _bytes(tiles: list[Pixels], model: str) -> str:
    rows = []
    for name, apart in EDGES.items():
        coded = []
        for tile in tiles:
            mask = edge(tile.shape, apart)
            whole, _ = _code(np.where(mask, 0, tile).astype(tile.dtype), model, 20.0)
            coded.append((len(masks.encode(mask)[1]), whole))
        shares = [100 * kept / whole for kept, whole in coded]
        kept, whole = np.mean(coded, axis=0)
        worst = f"{min(shares):.2f} to {max(shares):.2f} %"
        rows.append((name, f"{kept:.0f}", f"{whole:.0f}", f"{np.mean(shares):.2f} %", worst))
    empty, _ = _code(np.zeros(SHAPE, np.uint16), model, 20.0)
    rows.append(("no data at all, 8 dates", 0, empty, "", ""))
    return table(("mask", "its bytes", "the chunk's", "share", "of each tile"), rows)


def _errors(tiles: list[Pixels], model: str) -> str:
    rows = []
    for compression in COMPRESSIONS:
        beside = Beside()
        for tile in tiles:
            mask = edge(tile.shape, 0)
            _, masked = _code(np.where(mask, 0, tile).astype(tile.dtype), model, compression)
            _, plain = _code(tile, model, compression)
            squared = (np.square(d.astype(np.float64) - tile) for d in (masked, plain))
            beside.add(*squared, mask)
        figures = [*beside.rings, beside.inside]
        rows.append((f"{compression:g}", *(f"{a.rmse:.1f} ({b.rmse:.1f})" for a, b in figures)))
    head = [f"{low} to {high} pixels" for low, high in RINGS]
    return table(("compression", *head, "further inside"), rows)


if __name__ == "__main__":
    main()
