"""One network as TerraCodec's model card shows it: tensors in, tensors and strings out.

The strings are those of docs/format.md: they decode on any machine, and a damaged one is an error.

Below: engine, models, coding. Above: published.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xtec.coding import rans, stream, tables
from xtec.coding.stream import Stream
from xtec.engine import Engine
from xtec.errors import BandError, CorruptStreamError, InputError, WrongModelError
from xtec.models.coded import Coded
from xtec.models.config import ModelConfig
from xtec.models.network import TemporalTransformer

T = TypeVar("T")

SEQUENCES_AT_ONCE = 8
"""Sequences of one pass through the network: bounds memory, changes no number."""
LARGEST_INPUT = 65535.0
"""No digital number is further from the mean, in deviations."""
DIGEST_BYTES = stream.DIGEST_BYTES


class TerraCodec(nn.Module):
    """One TEC-TT network with its band statistics; for inference.

    `state_dict` has the names of the published checkpoints. The network is taken over: of its
    weights the exact prior is made at the first use, and again after ``load_state_dict`` or
    ``to``. Only float32 is possible; autocast and gradients of the caller play no part.

    Parameters
    ----------
    network : TemporalTransformer
    name : str
        What the model is called in messages and in what `compress` returns.
    digest : str, optional
        SHA-256 of its weights file; computed from the weights when it is left out.
    """

    mean: Tensor
    """Per band, in digital numbers without a radiometric offset."""
    std: Tensor
    """Per band, in digital numbers."""

    def __init__(self, network: TemporalTransformer, name: str, digest: str | None = None) -> None:
        super().__init__()
        self.model = network
        self.name = name
        self._file_digest = digest
        self.register_buffer("mean", torch.tensor(self.config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(self.config.std), persistent=False)

    @property
    def config(self) -> ModelConfig:
        """What the network is made of; its bands, for one."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the network is; what `forward` and `decompress` return is there too."""
        return self.mean.device

    @property
    def digest(self) -> str:
        """SHA-256 of the weights file, or of the weights where they are of no file."""
        return self._file_digest or self._weights_digest

    def forward(self, inputs: Tensor) -> Tensor:
        """Reconstruct sequences without coding them: exactly what decoding them gives.

        Parameters
        ----------
        inputs : floating point, shape (B, T, C, H, W), (T, C, H, W) or (C, H, W)
            Standardised, see `normalize`; any sizes.

        Returns
        -------
        float32, of the same shape

        Raises
        ------
        InputError, BandError
            NaN or infinity among the inputs; digital numbers; another shape or number of bands.
        """
        x = self._sequences(inputs)
        padded = _pad(x, self.config.tile)
        found = [y for some in _some(padded) for y in self._engine.reconstruct(some)]
        return self._tensor(found, x.shape[-2:], inputs.shape)

    def compress(self, inputs: Tensor) -> dict[str, Any]:
        """Compress sequences. On one device the same inputs give the same bytes in any company.

        Parameters
        ----------
        inputs : as for `forward`

        Returns
        -------
        dict
            What `decompress` takes. ``strings``: bytes, one string per sequence; ``shape``: of the
            inputs; ``bits``: per frame, of all sequences together, headers and checksums counted
            with the first, so that their sum is every bit of the strings; ``model`` and ``digest``.

        Raises
        ------
        InputError, BandError
            As `forward`.
        """
        x = self._sequences(inputs)
        padded = _pad(x, self.config.tile)
        coded = [c for some in _some(padded) for c in self._engine.encode(some, 0)]
        streams = [self._stream(c, x.shape[1:]) for c in coded]
        strings = [stream.pack(s) for s in streams]
        bits = np.array([np.diff(s.frame_bytes, prepend=0) * 8 for s in streams]).sum(0)
        bits[0] += 8 * sum(map(len, strings)) - bits.sum()
        return {
            "strings": strings,
            "shape": tuple(inputs.shape),
            "bits": bits.tolist(),
            "model": self.name,
            "digest": self.digest,
        }

    def decompress(
        self,
        strings: Sequence[bytes] | Mapping[str, Any],
        shape: Sequence[int] | None = None,
        *,
        bits: Sequence[int] | None = None,  # noqa: ARG002 - so that ** of the whole dict works
        model: str = "",
        digest: str = "",
    ) -> Tensor:
        """Decompress what `compress` gave: ``decompress(**compressed)``, or the dict itself.

        Returns
        -------
        float32, of the shape that was compressed

        Raises
        ------
        StreamError
            Truncated or damaged strings, or those of another model.
        """
        if isinstance(strings, Mapping):
            return self.decompress(**strings)
        if shape is None or not all(isinstance(one, bytes) for one in strings):
            raise InputError("decompress takes what compress returned: decompress(**compressed).")
        if digest and digest != self.digest:
            raise self._wrong(model, digest)
        streams = [stream.parse(one) for one in strings]
        whole = _whole(tuple(shape))
        for s in streams:
            self._check(s, model, whole[1:])
        if not streams or len(streams) != whole[0]:
            raise CorruptStreamError(f"{len(streams)} strings for a shape of {tuple(shape)}.")
        found = [y for some in _some(streams) for y in self._decode(some)]
        return self._tensor(found, whole[-2:], shape)

    def normalize(self, x: Tensor) -> Tensor:
        """Digital numbers, shape (..., C, H, W), to the network's scale.

        They must not carry a radiometric offset: subtract the 1,000 of processing baseline 04.00.
        """
        x = x if x.is_floating_point() else x.float()
        mean, std = self._statistics(x)
        return (x - mean) / std

    def denormalize(self, x: Tensor) -> Tensor:
        """The network's scale to digital numbers, neither rounded nor clipped."""
        mean, std = self._statistics(x)
        return x * std + mean

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As in torch; the digest is then that of the weights."""
        found = super().load_state_dict(*args, **kwargs)
        self._file_digest = None
        self._forget("_engine", "_weights_digest")
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Self:
        """What ``to``, ``cuda``, ``half`` and their like come down to."""
        kind = fn(torch.empty(0)).dtype
        if kind != torch.float32:
            raise InputError(
                f"the network stays in float32; in {kind} its streams would be of another model."
            )
        self._forget("_engine")
        super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Without the engine, which is made anew where the copy is used."""
        return {k: v for k, v in self.__dict__.items() if k != "_engine"}

    def _forget(self, *names: str) -> None:
        for name in names:
            self.__dict__.pop(name, None)

    @cached_property
    def _engine(self) -> Engine:
        return Engine(self.model, str(self.device))

    @cached_property
    def _weights_digest(self) -> str:
        found = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            found.update(f"{name} {tuple(value.shape)}\n".encode())
            found.update(value.cpu().contiguous().numpy())
        return found.hexdigest()

    def _sequences(self, inputs: Any) -> NDArray[np.float32]:
        """Inputs in five dimensions, checked."""
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            raise InputError(
                "inputs must be a tensor of floating-point numbers, standardised per band; "
                "model.normalize makes them of digital numbers."
            )
        self._statistics(inputs)
        x: NDArray[np.float32] = inputs.detach().to("cpu", torch.float32).numpy()
        if x.size == 0 or not 3 <= x.ndim <= 5:
            raise InputError(
                f"inputs have the shape {tuple(inputs.shape)}; give (B, T, C, H, W), (T, C, H, W) "
                "or (C, H, W), none of them 0."
            )
        if not np.abs(x).max() <= LARGEST_INPUT:  # so written that NaN does not pass
            raise InputError(
                f"{int((~(np.abs(x) <= LARGEST_INPUT)).sum())} of {x.size} inputs are NaN, "
                f"infinite or beyond +-{LARGEST_INPUT:g}; fill what holds no data, and standardise "
                "with model.normalize."
            )
        return x.reshape(_whole(x.shape))

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation to go with a tensor (..., C, H, W)."""
        bands = len(self.config.bands)
        if x.ndim < 3 or x.shape[-3] != bands:
            raise BandError(
                f"a tensor of shape {tuple(x.shape)} met the {bands} bands of {self.name}: "
                f"{', '.join(self.config.bands)}, along the third axis from the end."
            )
        return self.mean.to(x)[:, None, None], self.std.to(x)[:, None, None]

    def _tensor(
        self, found: list[NDArray[np.float32]], size: Sequence[int], shape: Sequence[int]
    ) -> Tensor:
        """Padded sequences as one tensor of the caller's shape."""
        cropped = np.stack([y[..., : size[0], : size[1]] for y in found])
        return torch.from_numpy(cropped).reshape(tuple(shape)).to(self.device)

    def _stream(self, coded: Coded, shape: Sequence[int]) -> Stream:
        payload, ends = rans.encode(coded.symbols, coded.rows, tables.load(), coded.ends)
        frames, bands, height, width = shape
        return Stream(
            model_digest=bytes.fromhex(self.digest)[:DIGEST_BYTES],
            dtype="uint16",
            shape=(frames, bands, height, width),
            bands=tuple(range(bands)),
            level=0,
            nodata=None,
            offset=0,
            invalid=None,
            saturated=None,
            frame_bytes=tuple(ends),
            payload=payload,
            frame_crcs=stream.frame_crcs(coded.latents),
        )

    def _check(self, s: Stream, model: str, shape: tuple[int, ...]) -> None:
        """A stream must be one that `compress` makes, of this model and shape."""
        if s.model_digest != bytes.fromhex(self.digest)[:DIGEST_BYTES]:
            raise self._wrong(model, s.model_digest.hex())
        if s.shape != shape:
            raise CorruptStreamError(f"a string holds the shape {s.shape}, not {shape}.")
        every = tuple(range(len(self.config.bands)))
        plain = s.invalid is None and s.saturated is None and s.offset == 0 and not s.residual
        if not (s.payload and plain and s.bands == every and s.level == 0):
            raise CorruptStreamError(
                "a string holds more or less than compress writes; if it is a chunk of a store, "
                "xtec.codec.decode_chunk reads it."
            )

    def _wrong(self, model: str, digest: str) -> WrongModelError:
        return WrongModelError(
            f"this was compressed with model {model or 'unknown'} of digest {digest[:16]}; here is "
            f"{self.name} of digest {self.digest[:16]}. Load the model it was compressed with."
        )

    def _decode(self, streams: Sequence[Stream]) -> list[NDArray[np.float32]]:
        """Streams of one shape to padded sequences."""
        frames, bands, *size = streams[0].shape
        height, width = (n + -n % self.config.tile for n in size)
        readers = [rans.Decoder(s.payload, tables.load()) for s in streams]
        decoded = self._engine.decode(
            [r.decode for r in readers], 0, (frames, bands, height, width)
        )
        for reader, s, d in zip(readers, streams, decoded, strict=True):
            reader.finish()
            if stream.frame_crcs(d.latents) != s.frame_crcs:
                raise CorruptStreamError(
                    "a string decodes to other latents than it was written with: it is damaged."
                )
        return [d.pixels() for d in decoded]


def _whole(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape in all five dimensions."""
    return (1,) * (5 - len(shape)) + tuple(shape)


def _pad(x: NDArray[np.float32], tile: int) -> list[NDArray[np.float32]]:
    """Sequences with rows and columns up to a multiple of the tile, the last ones repeated."""
    bottom, right = (-n % tile for n in x.shape[-2:])
    return [*np.pad(x, ((0, 0),) * 3 + ((0, bottom), (0, right)), mode="edge")]


def _some(many: list[T]) -> list[list[T]]:
    """Those that travel together."""
    return [many[i : i + SEQUENCES_AT_ONCE] for i in range(0, len(many), SEQUENCES_AT_ONCE)]
