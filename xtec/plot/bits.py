"""Where the bits go, drawn: by part, on each date, on each tile.

Below: cube.bits, canvas. Above: the room's face.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xtec.cube.bits import bits_per_value
from xtec.plot.comparison import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "latents": "steelblue", "residual": "tab:orange", "masks": "0.25", "container": "0.65",
}  # fmt: skip
MOST_LABELS = 12


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the bits of a compressed variable go; shown as a table, `plot` draws it."""

    bytes: xr.Dataset
    """Of `xtec.cube.bits.bits`: by part, date and tile."""

    @property
    def parts(self) -> dict[str, float]:
        """Bytes of each part, and of the model that the store carries."""
        found = self.bytes["bytes"].sum(["time", "tile_y", "tile_x"])
        by_part = {str(part): float(found.sel(part=part)) for part in found["part"].to_numpy()}
        return by_part | {"model": float(self.bytes.attrs["model_bytes"])}

    def rows(self) -> list[tuple[str, str]]:
        """As a table for people."""
        parts = self.parts
        chunks = sum(size for part, size in parts.items() if part != "model")
        rows = [
            (part, f"{size:,.0f} bytes, {100 * size / max(chunks, 1):.1f} % of the chunks")
            for part, size in parts.items()
            if part != "model"
        ]
        if parts["model"]:
            rows.append(("model", f"{parts['model']:,.0f} bytes beside them, once per store"))
        for dims, what in ((("time",), "date"), (("tile_y", "tile_x"), "tile")):
            each = bits_per_value(self.bytes, *dims)
            least, most = float(each.min()), float(each.max())
            rows.append((f"each {what}", f"{least:.4f} to {most:.4f} bits per pixel per band"))
        return rows

    def __repr__(self) -> str:
        """Return the table as text."""
        title = f"<xtec bits of {self.bytes.attrs['variable']!r}>"
        return "\n".join([title, *(f"  {name:<12} {text}" for name, text in self.rows())])

    def plot(self) -> "Figure":
        """Draw bars of dates and parts, and a map of tiles.

        Raises
        ------
        InputError
            matplotlib is missing.
        """
        figure: Figure = drawing().empty(10.5, 6.4)
        about = self.bytes.attrs
        shape = " x ".join(map(str, about["shape"]))
        chunk = " x ".join(map(str, about["chunks"]))
        figure.suptitle(
            f"where the bits of {about['variable']!r} go: {shape} in chunks of {chunk} "
            "(time, band, y, x)",
            fontsize=10,
        )
        halves: Any = figure.subfigures(2, 1)
        above, below = halves
        parts, tiles = above.subplots(1, 2)
        self._draw_parts(parts)
        self._draw_tiles(tiles)
        self._draw_dates(below.subplots())
        return figure

    def _draw_parts(self, axes: "Axes") -> None:
        parts = {part: size for part, size in self.parts.items() if size and part != "model"}
        total = sum(parts.values())
        names = list(parts)[::-1]
        widths = [parts[name] / 1000 for name in names]
        axes.barh(names, widths, color=[COLOURS[name] for name in names])
        for at, width in enumerate(widths):
            text = f" {width:,.4g} kB, {1e5 * width / total:.1f} %"
            axes.text(width, at, text, va="center", fontsize=8)
        axes.set(xlabel="kB (1000 bytes)", xlim=(0, 1.4 * max(widths, default=1.0)))
        model = self.parts["model"] / 1000
        beside = f"; beside them the model, once per store: {model:,.0f} kB" if model else ""
        axes.set_title(f"chunks by part{beside}", fontsize=9)

    def _draw_tiles(self, axes: "Axes") -> None:
        found = bits_per_value(self.bytes, "tile_y", "tile_x")
        _, _, rows, columns = self.bytes.attrs["shape"]
        _, _, high, wide = self.bytes.attrs["chunks"]
        x = np.minimum(np.arange(found.shape[1] + 1) * wide, columns)
        y = np.minimum(np.arange(found.shape[0] + 1) * high, rows)
        mesh = axes.pcolormesh(x, y, found.to_numpy(), cmap="viridis", vmin=0)
        axes.set(xlabel="x (pixels)", ylabel="y (pixels)", aspect="equal", ylim=(rows, 0))
        bar = axes.figure.colorbar(mesh, ax=axes)
        bar.set_label("bits per pixel per band", fontsize=8)
        axes.set_title("each tile, all dates", fontsize=9)

    def _draw_dates(self, axes: "Axes") -> None:
        values = self.bytes["values"].sum(["tile_y", "tile_x"]).to_numpy()
        spent = 8 * self.bytes["bytes"].sum(["tile_y", "tile_x"]).to_numpy() / values
        places, bottom = np.arange(spent.shape[1]), np.zeros(spent.shape[1])
        for part, heights in zip(self.bytes["part"].to_numpy(), spent, strict=True):
            if heights.any():
                axes.bar(places, heights, bottom=bottom, color=COLOURS[str(part)], label=str(part))
            bottom = bottom + heights
        labels = self._dates()
        every = -(-len(labels) // MOST_LABELS)
        axes.set_xticks(places[::every], labels[::every], fontsize=8)
        axes.set(ylabel="bits per pixel per band")
        begin = self.bytes.attrs["chunks"][0]
        for place in range(begin, len(labels), begin):
            axes.axvline(place - 0.5, color="0.5", linewidth=0.8, linestyle=":")
        if spent.any():
            axes.legend(ncols=4, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
        dotted = "; dotted: chunks begin, and with them the context of earlier dates"
        axes.set_title(f"each date{dotted if len(labels) > begin else ''}", fontsize=9, loc="right")

    def _dates(self) -> list[str]:
        times: Any = self.bytes["time"].to_numpy() if "time" in self.bytes.coords else None
        if times is None or times.dtype.kind != "M":
            return [str(number) for number in range(self.bytes.sizes["time"])]
        return [str(time) for time in np.datetime_as_string(times, unit="D")]
