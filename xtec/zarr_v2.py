"""The socket for Zarr format 2, and for all else that speaks numcodecs.

A codec of this kind sees an array when it encodes and only bytes when it decodes; the memory of
what it returns is then read as the array's own type, in the array's own order. Both are therefore
part of the codec, and so is the shape of the chunks where it is known: a forged stream may claim
any.

Below: codec, home, secondhand. Above: cube.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ensure_contiguous_ndarray, ndarray_copy

from xtec import secondhand
from xtec.codec import Settings, decode_chunk, encode_chunk
from xtec.errors import InputError
from xtec.home import Home

DTYPES = ("<u2", "<i2", ">u2", ">i2")


@dataclass(frozen=True)
class TecCodec(Codec):
    """Code chunks (time, band, y, x) of uint16 or int16 with a Temporal Transformer.

    Use it as the only entry of ``compressors`` of an array of Zarr format 2, or by itself. It
    holds its settings and no model, so it can be pickled and costs nothing.

    Raises
    ------
    InputError
        `dtype`, `order` or `shape` is not one of those allowed.

    Examples
    --------
    >>> codec = TecCodec(Settings(bands=("B04", "B08"), compression=50))
    >>> encoding = {"compressors": codec, "chunks": (8, 2, 256, 256)}
    """

    codec_id: ClassVar[str] = "xarray-tec.tt"

    settings: Settings = field(default_factory=Settings)
    dtype: str = "<u2"
    """Type of the array, with its byte order: "<u2", "<i2", ">u2" or ">i2"."""
    order: Literal["C", "F"] = "C"
    """Order of the array in memory, as in numpy."""
    shape: tuple[int, int, int, int] | None = None
    """Shape of the array's chunks, which are all alike in this format; None: not checked."""
    told: bool = field(default=False, kw_only=True, compare=False)
    """Whether the user was told already that the pixels are decoded ones. Not stored."""

    def __post_init__(self) -> None:
        """Bring the type into its canonical form."""
        try:
            dtype = np.dtype(self.dtype).str
        except TypeError:
            dtype = ""
        if dtype not in DTYPES:
            raise InputError(
                f"dtype={self.dtype!r} cannot be coded; allowed are {', '.join(DTYPES)}."
            )
        if self.order not in ("C", "F"):
            raise InputError(f"order={self.order!r} is unknown; allowed are 'C' and 'F'.")
        if self.shape is not None and not _is_shape(self.shape):
            raise InputError(
                f"shape={self.shape!r} is no chunk; give four positive integers (time, band, y, x)."
            )
        object.__setattr__(self, "dtype", dtype)

    def encode(self, buf: Any) -> bytes:
        """Encode one chunk.

        Parameters
        ----------
        buf : array of the codec's type and order, shape (time, band, y, x)
            Not modified.

        Raises
        ------
        InputError
            An array of another type, order or shape.

        Warns
        -----
        SecondLossWarning
            Some of the pixels were decoded by xtec in this process.
        """
        chunk = np.asarray(buf)
        if chunk.dtype.str != self.dtype:
            raise InputError(
                f"an array of type {chunk.dtype.str} met a codec for {self.dtype}; what it decodes "
                f"would be misread. Cast the array, or use TecCodec(settings, dtype=...) with one "
                f"of {', '.join(DTYPES)}."
            )
        lies = {"C": chunk.flags.c_contiguous, "F": chunk.flags.f_contiguous}
        other = "F" if self.order == "C" else "C"
        if lies[other] and not lies[self.order]:
            raise InputError(
                f"an array in {other} order met a codec for {self.order} order; what it decodes "
                "would be scrambled. Use TecCodec(settings, dtype, order) with the array's order, "
                "or copy the array."
            )
        if chunk.shape != (self.shape or chunk.shape):
            raise InputError(
                f"a chunk of shape {chunk.shape} met a codec for chunks of {self.shape}: it would "
                "be refused when it is read. Where an array gets other chunks it needs another "
                "codec: compress again, or drop the encoding (ds.drop_encoding())."
            )
        if not (self.told or self.settings.lossless):
            secondhand.warn([chunk])
        return encode_chunk(np.ascontiguousarray(chunk), self.settings)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode one chunk.

        Parameters
        ----------
        buf : bytes-like
        out : array, optional
            Where to put the chunk.

        Returns
        -------
        array of the codec's type, shape (time, band, y, x)
            Contiguous in the codec's order.

        Raises
        ------
        StreamError
            Not a whole, undamaged stream of this type.
        """
        data = ensure_bytes(ensure_contiguous_ndarray(buf))
        kind = np.dtype(self.dtype).newbyteorder("=").name
        chunk = decode_chunk(data, home=Home(self.settings, kind, self.shape))
        if not self.settings.lossless:
            secondhand.remember([chunk])
        # Zarr flattens this as it lies in memory: in another order pixels would be scrambled.
        return ndarray_copy(chunk.astype(self.dtype, order=self.order, copy=False), out)

    def get_config(self) -> dict[str, Any]:
        """Id, settings, type, order and shape, as JSON."""
        array: dict[str, Any] = {"dtype": self.dtype, "order": self.order}
        if self.shape is not None:
            array["shape"] = list(self.shape)
        return {"id": self.codec_id, **self.settings.to_dict(), **array}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuild the codec from `get_config`, with or without the id."""
        array = {name: config[name] for name in ("dtype", "order", "shape") if name in config}
        fields = {name: config[name] for name in config if name not in ("id", *array)}
        if isinstance(array.get("shape"), list):
            array["shape"] = tuple(array["shape"])
        return cls(Settings.from_dict(fields), **array)


def _is_shape(shape: Any) -> bool:
    sizes = shape if isinstance(shape, tuple) else ()
    return len(sizes) == 4 and all(type(n) is int and n > 0 for n in sizes)
