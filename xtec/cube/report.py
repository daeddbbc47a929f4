"""What a compressed cube is made of: model, chunks, sizes.

Below: share, shelf, state, stored, target, errors. Above: accessor.
"""

import html
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import xarray as xr
from zarr.buffer import default_buffer_prototype

from xtec.cube.share import residual_share
from xtec.cube.state import Unfinished
from xtec.cube.stored import array_of, settings_of
from xtec.cube.target import ATTRIBUTE, Calibration
from xtec.errors import InputError
from xtec.shelf import Shelf

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class Info:
    """About one compressed variable. Sizes and shapes are those of the whole array in the store."""

    variable: str
    model: str
    model_digest: str
    """SHA-256 of the model's weights."""
    format_version: int
    """Of the streams that the chunks are."""
    zarr_format: int
    compression: float
    calibration: Calibration | None
    """What the compression was chosen for and what it reached; None where the user named it."""
    max_error: int | tuple[int, ...] | None
    """Largest error of any valid pixel, in DN; for all bands, or for each."""
    residual_share: float | None
    """Which part of the bits keeps `max_error`, in a sample of up to eight chunks or shards."""
    bands: tuple[str, ...]
    """Canonical names."""
    nodata: int | None
    offset: int
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    raw_bytes: int
    """As 16-bit digital numbers."""
    stored_bytes: int | None
    """Sum of the stored chunks; None while nothing is stored, or where the store is unknown."""
    model_bytes: int | None = None
    """Weights that the store carries, beside its chunks; None where it carries none, or is unknown.
    All variables of a store that need one model share it."""
    unfinished: str | None = None
    """What goes on in the store or was interrupted: "writing", "appending"; None if it is whole."""

    thumbnail: Callable[[], str | None] | None = field(default=None, repr=False, compare=False)
    """Makes a small picture in HTML, for notebooks; None where there is none to be had."""

    @property
    def ratio(self) -> float | None:
        """How many times smaller than the digital numbers the chunks are, without the model."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else None

    @property
    def ratio_with_model(self) -> float | None:
        """The same with the model counted in, where the store carries it."""
        if not self.stored_bytes:
            return None
        return self.raw_bytes / (self.stored_bytes + (self.model_bytes or 0))

    @property
    def bits_per_pixel_per_band(self) -> float | None:
        """Stored bits per value; digital numbers have 16."""
        return None if self.stored_bytes is None else 8 * self.stored_bytes / prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """All of it, the derived figures too."""
        derived = {
            "ratio": self.ratio,
            "ratio_with_model": self.ratio_with_model,
            "bits_per_pixel_per_band": self.bits_per_pixel_per_band,
        }
        fields = asdict(replace(self, thumbnail=None)) | derived
        del fields["thumbnail"]
        return fields

    def rows(self) -> list[tuple[str, str]]:
        """As a table for people."""
        stored, bits = "not stored, or the store is unknown", "unknown"
        if self.stored_bytes is not None:
            stored = f"{_size(self.stored_bytes)}, {self.ratio or 0:.1f} times smaller"
            bits = f"{self.bits_per_pixel_per_band:.3f} per pixel per band"
        carried = []
        if self.model_bytes is not None:
            whole = f"; with it {self.ratio_with_model:.3g} times" if self.stored_bytes else ""
            carried = [("model inside", f"{_size(self.model_bytes)} more, once per store{whole}")]
        shards = f" in shards of {_shape(self.shards)}" if self.shards else ""
        target = [("chosen for", str(self.calibration))] if self.calibration else []
        if self.max_error is not None:
            target.append(("max error", self._bound()))
        state = [("unfinished", self.unfinished)] if self.unfinished else []
        return [
            *state,
            ("variable", self.variable),
            ("model", f"{self.model} ({self.model_digest[:16]})"),
            ("compression", f"{self.compression:g}"),
            *target,
            ("size", f"{_size(self.raw_bytes)} -> {stored}"),
            *carried,
            ("bits", bits),
            ("shape", _shape(self.shape)),
            ("chunks", _shape(self.chunks) + shards),
            ("bands", ", ".join(self.bands)),
            ("no data", f"{self.nodata}, offset {self.offset} DN"),
            ("format", f"{self.format_version}, in Zarr format {self.zarr_format}"),
        ]

    def _bound(self) -> str:
        """`max_error` and what it takes, in one line."""
        if isinstance(self.max_error, tuple):
            each = zip(self.bands, self.max_error, strict=True)
            bound = ", ".join(f"{band} {dn}" for band, dn in each) + " DN"
        else:
            bound = f"{self.max_error} DN" + (", lossless" if self.max_error == 0 else "")
        if self.residual_share is None:
            return bound
        return f"{bound}; takes {100 * self.residual_share:.0f} % of the bits"

    def __repr__(self) -> str:
        """Return the table as text."""
        return "\n".join(
            ["<xtec compressed cube>", *(f"  {name:<12} {text}" for name, text in self.rows())]
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self.rows()
        )
        table = f"<table><caption>xtec compressed cube</caption>{rows}</table>"
        picture = self.thumbnail() if self.thumbnail else None
        if picture is None:
            return table
        return f"<div style='display:flex;gap:1em;align-items:center'>{table}{picture}</div>"


def info(dataset: xr.Dataset, variable: Hashable | None = None) -> Info:
    """Describe the compressed variable of an opened store, or of one that is going to be written.

    Raises
    ------
    InputError
        Nothing in the Dataset is compressed, or several variables are and none was named.
    """
    return _describe(dataset, coded_variable(dataset, variable))


def coded_variable(dataset: xr.Dataset, variable: Hashable | None = None) -> Hashable:
    """Find the compressed variable; errors are those of `info`."""
    coded = [name for name in dataset.data_vars if settings_of(dataset[name]) is not None]
    wanted = [name for name in coded if variable in (None, name)]
    if not wanted:
        asked = "nothing here" if variable is None else f"{variable!r}"
        raise InputError(
            f"{asked} was compressed by xtec; the variables are {list(dataset.data_vars)}, "
            f"compressed are {coded}. Open a compressed store with xr.open_zarr, or make one with "
            "ds.tec.compress(...). Arithmetic on a compressed variable gives an ordinary one."
        )
    if len(wanted) > 1:
        raise InputError(f"several variables are compressed: {wanted}. Name one with variable=.")
    return wanted[0]


def _describe(dataset: xr.Dataset, name: Hashable) -> Info:
    variable = dataset[name]
    settings = settings_of(variable)
    assert settings is not None  # noqa: S101 - `info` asked
    array, unfinished = array_of(dataset, name), Unfinished.of(dataset.attrs)
    chunks, shards = variable.encoding.get("chunks", ()), variable.encoding.get("shards")
    shape = variable.shape
    if array is not None:
        shape, chunks, shards = array.shape, array.chunks, array.shards
    return Info(
        variable=str(name),
        model=settings.model,
        model_digest=settings.model_digest,
        format_version=settings.format_version,
        zarr_format=3 if "serializer" in variable.encoding else 2,
        compression=settings.compression,
        calibration=Calibration.from_attribute(variable.attrs.get(ATTRIBUTE), settings.compression),
        max_error=settings.max_error,
        residual_share=None
        if settings.max_error is None or array is None
        else residual_share(array),
        bands=settings.bands,
        nodata=settings.nodata,
        offset=settings.offset,
        shape=tuple(shape),
        chunks=tuple(chunks),
        shards=None if shards is None else tuple(shards),
        raw_bytes=2 * prod(shape),
        stored_bytes=None if array is None else _stored_bytes(array),
        model_bytes=None
        if array is None
        else Shelf(array.store, array.path).stored_bytes(settings.model_digest),
        unfinished=unfinished.state if unfinished else None,
    )


def _stored_bytes(array: "zarr.Array[Any]") -> int:
    """Bytes of the chunks alone: all that lies under the array's name but its metadata."""
    metadata = array.metadata.to_buffer_dict(default_buffer_prototype())
    return int(array.nbytes_stored()) - sum(len(part) for part in metadata.values())


def _size(count: int) -> str:
    power = min((len(str(count)) - 1) // 3, 4)
    return f"{count / 1000**power:.4g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)
