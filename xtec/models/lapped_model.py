"""The embedded model: a chunk's pixels to symbols and back.

The lapped transform and the frames' own components give latents (`spectrum`), the transformer
their probabilities (`context_exact`). Each chunk is coded by itself, several side by side where
there are threads: nothing of a chunk depends on its company.

Below: analysis, rounding, spectrum, spectrum_code, context_exact, coded,
threads. Above: engine.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xtec.models import threads
from xtec.models.analysis import Components, decompose, shifts
from xtec.models.arithmetic import Arithmetic
from xtec.models.coded import Coded, Decoded, Frames, Read
from xtec.models.context import ContextTransformer
from xtec.models.context_exact import ExactContext, Past, Seen, Take
from xtec.models.distribution import Distribution
from xtec.models.frequencies import OCTAVES
from xtec.models.lapped import SIDE
from xtec.models.rounding import rounded
from xtec.models.spectrum import Latents, Spectrum, synthesise
from xtec.models.spectrum_code import Listener, Teller, say_frame, say_shifts


class LappedModel:
    """One set of weights on one device.

    Parameters
    ----------
    network : ContextTransformer
    arithmetic : Arithmetic
    """

    def __init__(self, network: ContextTransformer, arithmetic: Arithmetic) -> None:
        self.config = network.config
        self.prior = ExactContext(network, arithmetic)
        self.device = arithmetic.device

    def encode(self, chunks: Sequence[NDArray[np.float32]], level: int) -> list[Coded]:
        """Code chunks (time, band, y, x): digital numbers without holes, padded to the tile."""
        return threads.spread(lambda chunk: self._encode(chunk, level), chunks)

    def _encode(self, pixels: NDArray[np.float32], level: int) -> Coded:
        spectrum, components = decompose(
            torch.from_numpy(pixels).to(self.device), level, self.config.lags
        )
        teller, walk = Teller(), Walk(self, spectrum, level, pixels.shape)
        latents: list[Latents] = []
        for number, frame in enumerate(components):
            say_frame(teller, spectrum, number, pixels.shape[1])

            def take(
                blocks: Tensor,
                octaves: Sequence[int],
                found: Sequence[Distribution],
                frame: Components = frame,
            ) -> Latents:
                chosen = [rounded(frame[o][blocks], d) for o, d in zip(octaves, found, strict=True)]
                for q, d in zip(chosen, found, strict=True):
                    teller.symbols.append((q.int() - d.centre).cpu().numpy().ravel())
                    teller.rows.append(d.row.cpu().numpy().ravel().astype(np.uint16))
                return chosen

            latents.append([q[:-1] for q in walk.frame(take).latents])
        spectrum.shifts[:] = shifts(components, latents)
        opening = Teller()
        say_shifts(opening, spectrum)
        everything = _everything(spectrum, latents)
        return Coded(
            np.concatenate(opening.symbols + teller.symbols),
            np.concatenate(opening.rows + teller.rows),
            tuple(accumulate(map(len, everything))),
            everything,
        )

    def decode(self, sources: Sequence[Read], level: int, shape: tuple[int, ...]) -> list[Decoded]:
        """Decode chunks of one padded shape (time, band, y, x) from their readers.

        Their pixels are digital numbers in steps of 1/16, the same on every machine.
        """
        return threads.spread(lambda read: self._decode(read, level, shape), sources)

    def _decode(self, read: Read, level: int, shape: tuple[int, ...]) -> Decoded:
        spectrum, listener = (
            Spectrum(np.zeros((OCTAVES, 2), np.int64), self.config.lags),
            Listener(read),
        )
        walk = Walk(self, spectrum, level, shape)
        say_shifts(listener, spectrum)

        def take(_: Tensor, __: Sequence[int], found: Sequence[Distribution]) -> Latents:
            rows = torch.cat([d.row.flatten() for d in found]).cpu().numpy().astype(np.uint16)
            symbols = torch.from_numpy(read(rows)).to(self.device)
            parts = symbols.split([d.row.numel() for d in found])
            return [
                (d.centre + part.view(d.row.shape)).float()
                for d, part in zip(found, parts, strict=True)
            ]

        latents = []
        for number in range(shape[0]):
            say_frame(listener, spectrum, number, shape[1])
            latents.append([q[:-1] for q in walk.frame(take).latents])

        def pixels() -> NDArray[np.float32]:
            found = synthesise(spectrum, latents, level, walk.shape).float()
            array: NDArray[np.float32] = found.cpu().numpy()
            return array

        return Decoded(_everything(spectrum, latents), pixels)


class Walk:
    """Frame after frame of one chunk; holds what a frame needs of those before."""

    def __init__(
        self, model: LappedModel, spectrum: Spectrum, level: int, pixels: tuple[int, ...]
    ) -> None:
        self.prior, self.config = model.prior, model.config
        self.spectrum, self.level = spectrum, level
        self.shape = pixels[2] // SIDE, pixels[3] // SIDE
        self.frames: list[Seen] = []
        self.nothing = self.prior.nothing([0] * OCTAVES, self.shape[0] * self.shape[1])

    def frame(self, take: Take) -> Seen:
        """Code the next frame, whose spectrum is known."""
        used = self.spectrum.frames[len(self.frames)]
        table = torch.zeros(OCTAVES, self.config.components, dtype=torch.int64)
        for row, known in zip(table, used.energies, strict=True):
            row[: len(known)] = torch.from_numpy(known)
        missing = self.config.lags - len(used.references)
        past = [self._past(number) for number in (*used.references, *[None] * missing)]
        here = self.prior.walk(
            table.to(self.prior.arithmetic.device), self.level, self.shape, past, take
        )
        self.frames.append(here)
        return here

    def _past(self, number: int | None) -> Past:
        """An earlier frame in the components of the present one, or none."""
        now = len(self.frames)
        if number is None:
            kept = self.spectrum.frames[now].energies
            turns = [(np.zeros((len(k), 0), np.int64), 0) for k in kept]
            return self.prior.past(self.nothing, turns)
        turns = [self.spectrum.turn(octave, now, number) for octave in range(OCTAVES)]
        return self.prior.past(self.frames[number], turns)


def _everything(spectrum: Spectrum, latents: Sequence[Latents]) -> Frames:
    """All integers of a chunk, for its checksums: a frame as it is said, then its latents."""
    teller, found = Teller(), []
    say_shifts(teller, spectrum)
    for number, frame in enumerate(latents):
        say_frame(teller, spectrum, number, len(spectrum.frames[number].means))
        said = [*teller.symbols, *(q.cpu().numpy().ravel().astype(np.int32) for q in frame)]
        found.append(np.concatenate(said))
        teller.symbols.clear()
    return tuple(found)
