"""The two TEC-TT networks that TerraCodec publishes, with published, own or random weights.

Below: model, settings, models. Above: the package itself.
"""

import warnings
from pathlib import Path

import torch

from xtec.errors import InputError, ModelError
from xtec.models import official, registry, weights
from xtec.models.config import S2L1C, S2L2A, ModelConfig
from xtec.models.network import TemporalTransformer
from xtec.models.weights import Card
from xtec.settings import Settings
from xtec.terracodec.model import TerraCodec


def terracodec_v1_tt_s2l1c(
    compression: float | str = 20,
    image_size: int = 256,  # noqa: ARG001 - theirs; here any size works
    mode: str = "eval",
    *,
    pretrained: bool = False,
    ckpt_path: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> TerraCodec:
    """TEC-TT for Sentinel-2 L1C, 13 bands.

    Parameters
    ----------
    compression : float or str
        Lambda of the published checkpoint: 5, 20 or 100, or "lambda-5" and so on. A number between
        takes the nearest one, with a warning.
    image_size, mode
        Taken as terracodec has them. Any image size works, whatever is said here.
    pretrained : bool
        Whether to load the published weights, from XTEC_MODEL_PATH, the hub's cache or the hub.
        Without, and without `ckpt_path`, weights are random.
    ckpt_path : path, optional
        A checkpoint on this machine, whatever its lambda.
    device : torch device

    Raises
    ------
    ModelError
        The checkpoint cannot be had, or is of another network.
    """
    made = _build("tt-s2l1c", S2L1C, compression, ckpt_path, pretrained=pretrained)
    return made.train(mode != "eval").to(device)


def terracodec_v1_tt_s2l2a(
    compression: float | str = 5,
    image_size: int = 256,  # noqa: ARG001 - as above
    mode: str = "eval",
    *,
    pretrained: bool = False,
    ckpt_path: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> TerraCodec:
    """TEC-TT for Sentinel-2 L2A, 12 bands: all but B10.

    As `terracodec_v1_tt_s2l1c`, with published lambdas 0.4, 1, 5, 20, 100, 200 and 700.
    """
    made = _build("tt-s2l2a", S2L2A, compression, ckpt_path, pretrained=pretrained)
    return made.train(mode != "eval").to(device)


def _build(
    series: str,
    config: ModelConfig,
    compression: float | str,
    ckpt_path: str | Path | None,
    *,
    pretrained: bool,
) -> TerraCodec:
    if ckpt_path is None and not pretrained:
        warnings.warn(
            f"{series} gets random weights; say pretrained=True or ckpt_path=... for trained ones.",
            UserWarning,
            stacklevel=3,
        )
        return TerraCodec(TemporalTransformer(config).requires_grad_(requires_grad=False), "random")
    card = (
        _published(series, compression) if ckpt_path is None else registry.resolve(str(ckpt_path))
    )
    network = weights.load(card)
    if not isinstance(network, TemporalTransformer) or card.config.bands != config.bands:
        raise ModelError(
            f"{card.path} is a network for the bands {', '.join(card.config.bands)}, not the "
            f"{len(config.bands)} of {series}."
        )
    return TerraCodec(network, card.name, card.digest)


def _published(series: str, compression: float | str) -> Card:
    """The published checkpoint for a lambda."""
    if not isinstance(compression, str):
        return Settings(series, compression).card
    names = {f"lambda-{one.compression:g}": one.name for one in official.SERIES[series]}
    if compression not in names:
        raise InputError(
            f"compression={compression!r} is none of {[*names]}; give one of these, or a "
            "number: it takes the nearest."
        )
    return registry.resolve(names[compression])
