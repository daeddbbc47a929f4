"""The compression that meets a target, found by coding a sample of the cube itself.

What is measured is what will be stored: streams of whole chunks, decoded again.

Below: bracket, sampling, target, packing, progress, codec, metrics, models.config, errors.
Above: prepare.
"""

import math
from dataclasses import replace
from functools import cached_property

import numpy as np
import xarray as xr
from tqdm import tqdm

from xtec.codec import Settings, decode_chunks, encode_chunks
from xtec.cube.bracket import nearest
from xtec.cube.chunks import Shape
from xtec.cube.packing import Packing
from xtec.cube.progress import is_watched
from xtec.cube.sampling import Sample, take
from xtec.cube.target import Calibration, Target
from xtec.errors import InputError
from xtec.metrics import PEAK_DN
from xtec.models.config import LappedConfig


def calibrate(
    variable: xr.Variable,
    chunk: Shape,
    packing: Packing,
    settings: Settings,
    target: Target,
    *,
    progress: bool = False,
) -> Calibration:
    """Choose a compression.

    Parameters
    ----------
    variable : xarray.Variable
        The cube (time, band, y, x); of a lazy one only the sample is computed.
    chunk : (time, band, y, x)
        Shape of the chunks that will be stored.
    packing : Packing
        What the cube's values mean.
    settings : Settings
        How the cube will be coded; its compression is the first that is tried.
    target : Target
    progress : bool
        Whether to show the trials as they go.

    Raises
    ------
    InputError
        The model has no choice of compression, or none that meets the target; or the sample holds
        no data.
    """
    config = settings.card.config
    if not isinstance(config, LappedConfig):
        raise InputError(
            f"model {settings.model} knows one compression only, so {target} leaves nothing to "
            "choose; leave it out, or take another model."
        )
    last = config.levels - 1
    sample, trials = take(variable, chunk, packing), dict[int, _Trial]()
    decades = math.log10(config.compression(last) / config.compression(0))
    with tqdm(
        desc=f"choosing for {target}", unit=" trials", disable=not (progress and is_watched())
    ) as bar:

        def figure(level: int) -> float:
            if level not in trials:
                trial = trials[level] = _Trial(sample, at(settings, config, level))
                tried = f"compression {trial.settings.compression:g}"
                bar.set_postfix_str(f"{tried}: {trial.figure(target):.4g} {target.kind.units}")
                bar.update()
            return trials[level].figure(target)

        chosen = nearest(
            lambda level: target.kind.scaled(figure(level)) - target.kind.scaled(target.value),
            last,
            start=settings.level,
            slope=target.kind.per_decade * decades / last,
            tolerance=target.kind.tolerance,
        )
        if chosen is None:
            ends = (config.compression(0), figure(0)), (config.compression(last), figure(last))
            raise _out_of_reach(target, ends, sample, settings)
    return trials[chosen].report(target)


class _Trial:
    """A sample coded with one compression."""

    def __init__(self, sample: Sample, settings: Settings) -> None:
        self.sample, self.settings = sample, settings
        self._streams = encode_chunks(sample.chunks, settings)

    def figure(self, target: Target) -> float:
        """What the target is about."""
        return self.psnr if target.name == "target_psnr" else self.bpppb

    @property
    def bpppb(self) -> float:
        """Bits per pixel per band, all bytes counted."""
        return 8 * sum(map(len, self._streams)) / self.sample.values

    @cached_property
    def psnr(self) -> float:
        """PSNR in dB over 10,000 DN, pooled over all bands and valid pixels."""
        squared, valid = 0.0, 0
        decoded = decode_chunks(self._streams)
        for after, before in zip(decoded, self.sample.chunks, strict=True):
            data = before != self.settings.nodata
            error = after[data].astype(np.float64) - before[data]
            squared, valid = squared + float(error @ error), valid + error.size
        return 10 * math.log10(PEAK_DN**2 * valid / squared) if squared else math.inf

    def report(self, target: Target) -> Calibration:
        """What was reached."""
        return Calibration(
            target=target.name,
            value=target.value,
            compression=self.settings.compression,
            psnr=float(f"{self.psnr:.6g}"),
            bpppb=float(f"{self.bpppb:.6g}"),
            sampled_chunks=len(self.sample.chunks),
            chunks=self.sample.of,
        )


def at(settings: Settings, config: LappedConfig, level: int) -> Settings:
    """The settings with a compression that means this level, in as few digits as do."""
    exact = config.compression(level)
    rounded = (float(f"{exact:.{digits}g}") for digits in range(2, 17))
    short = next((each for each in rounded if config.level(each) == level), exact)
    return replace(settings, compression=short)


def _out_of_reach(
    target: Target, ends: tuple[tuple[float, float], ...], sample: Sample, settings: Settings
) -> InputError:
    """``ends`` are the lowest and the highest compression, each with what it gives."""
    (low, least), (high, most) = ends
    units = target.kind.units
    return InputError(
        f"{target} cannot be met: on {len(sample.chunks)} of this cube's {sample.of} chunks model "
        f"{settings.model} gives {least:.4g} {units} at compression {low:g}, its lowest, and "
        f"{most:.4g} {units} at compression {high:g}, its highest. Aim between these, or take "
        "another model."
    )
