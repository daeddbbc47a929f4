"""The training loop: three stages, resumable at any step, the same on CPU and GPU.

1. ``transform``: analysis, synthesis and gains with a prior that has no context, starting from
   the principal components of patches.
2. ``prior``: the transformer, on the latents of the frozen transform.
3. ``joint``: everything.

Below: data, loss, models. Above: cli.
"""

import dataclasses
import json
import math
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from xtec.errors import InputError
from xtec.models import config as configs
from xtec.models.config import ModelConfig
from xtec.models.network import TemporalTransformer
from xtec.models.weights import save
from xtec.train.data import Crops, Cube, Sampler, read_all
from xtec.train.loss import FactorizedPrior, rate_distortion

VALIDATION_PX = 128
PARTS = ("transform", "prior", "joint")
Groups = list[dict[str, Any]]
"""Parameter groups of an optimiser."""


@dataclass(frozen=True)
class Stage:
    """One leg of the training."""

    train: str
    """``transform``, ``prior`` or ``joint``: what is trained."""
    steps: int
    batch: int
    crop_px: int
    frames: int
    learning_rate: float

    def __post_init__(self) -> None:
        """Refuse what would only fail hours later."""
        if self.train not in PARTS:
            raise InputError(f"a stage trains one of {list(PARTS)}, not {self.train!r}.")
        if min(self.steps, self.batch, self.crop_px, self.frames, self.learning_rate) <= 0:
            raise InputError(f"every number of a stage must be positive: {self}.")


@dataclass(frozen=True)
class Recipe:
    """A whole training run, read from a TOML file."""

    name: str
    """Versioned name that the weights file will carry."""
    model: str
    """Name of a configuration in ``xtec.models.config``, e.g. ``SMALL``."""
    stages: tuple[Stage, ...]
    seed: int = 0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        """Refuse what would only fail hours later."""
        at_hand = [k for k, v in vars(configs).items() if isinstance(v, ModelConfig)]
        if self.model not in at_hand:
            raise InputError(f"there is no network {self.model!r}; there are {at_hand}.")
        tile = self.config.tile
        if not self.stages or any(stage.crop_px % tile for stage in self.stages):
            raise InputError(
                f"a recipe needs stages, with crops of a multiple of {tile} pixels; this one has "
                f"{[stage.crop_px for stage in self.stages]}."
            )

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read a recipe; one that cannot be followed is an InputError."""
        try:
            fields = tomllib.loads(path.read_text())
            stages = tuple(Stage(**s) for s in fields.pop("stages"))
            return cls(stages=stages, **fields)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is not a training recipe: {error}.") from error

    @property
    def config(self) -> ModelConfig:
        """The network to train."""
        config: ModelConfig = getattr(configs, self.model)
        return config


def train(recipe: Recipe, data: list[Path], out: Path, *, device: str, val: list[Path]) -> None:
    """Run or resume a recipe; write ``checkpoint.pt``, ``log.jsonl`` and ``model.safetensors``.

    Parameters
    ----------
    recipe : Recipe
    data, val : folders with training and validation cubes
    out : folder
        Where a checkpoint of the same recipe is resumed from, and results are written to.
    device : str
        A torch device; mixed precision (bfloat16) is used on all of them.
    """
    out.mkdir(parents=True, exist_ok=True)
    cubes = read_all(data)
    state = _State(recipe, torch.device(device), cubes)
    state.resume(out / "checkpoint.pt")
    sample = _fixed_crops(read_all(val), recipe.config) if val else []
    for number, stage in enumerate(recipe.stages):
        if number < state.stage:
            continue
        state.run(stage, cubes, out, sample)
        state.next_stage()
        state.checkpoint(out / "checkpoint.pt")
    save(state.average(), recipe.name, out / "model.safetensors")


def _fixed_crops(cubes: list[Cube], config: ModelConfig) -> list[Crops]:
    """The same few crops every time, to see progress with."""
    sampler = Sampler(cubes, config, size=VALIDATION_PX, frames=3, seed=1)
    batches = sampler.batches(8)
    return [next(batches) for _ in range(4)]


class _State:
    """Everything a checkpoint holds."""

    def __init__(self, recipe: Recipe, device: torch.device, cubes: list[Cube]) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.model = TemporalTransformer(recipe.config)
        initialise(self.model, cubes, recipe)
        self.model.to(device)
        self.cheap = FactorizedPrior(recipe.config.rate_knots, recipe.config.latent_channels)
        self.cheap.to(device)
        self.stage, self.step = 0, 0
        self._begin_stage()

    def _begin_stage(self) -> None:
        stage = self.recipe.stages[min(self.stage, len(self.recipe.stages) - 1)]
        self.ema = AveragedModel(self.model, multi_avg_fn=averaging(self.recipe.ema_decay))
        trained = trained_parameters(self.model, self.cheap, stage.train)
        self.optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, weight_decay=0.0)

    def next_stage(self) -> None:
        """Go on from the averaged weights."""
        self.model.load_state_dict(self.ema.module.state_dict())
        self.stage, self.step = self.stage + 1, 0
        self._begin_stage()

    def average(self) -> TemporalTransformer:
        """The averaged network."""
        return cast("TemporalTransformer", self.ema.module)

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.model, "cheap": self.cheap, "ema": self.ema, "optimizer": self.optimizer,
        }  # fmt: skip

    def checkpoint(self, path: Path) -> None:
        """Write the state; an interruption leaves the checkpoint before."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"stage": self.stage, "step": self.step, "recipe": dataclasses.asdict(self.recipe)}
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def resume(self, path: Path) -> None:
        """Take up the state of an earlier run, if there is one."""
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"]["model"] != self.recipe.model:
            raise InputError(f"{path} is a checkpoint of {state['recipe']['model']}.")
        self.stage, self.step = state["stage"], state["step"]
        self._begin_stage()
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def run(self, stage: Stage, cubes: list[Cube], out: Path, sample: list[Crops]) -> None:
        """Train one stage from the current step to its end."""
        config = self.recipe.config
        seed = hash((self.recipe.seed, self.stage, self.step)) % 2**32
        sampler = Sampler(cubes, config, size=stage.crop_px, frames=stage.frames, seed=seed)
        torch.manual_seed(seed)
        batches = sampler.batches(stage.batch)
        saved = time.monotonic()
        bar = tqdm(total=stage.steps, initial=self.step, desc=stage.train, mininterval=5)
        while self.step < stage.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = (
                    group["speed"] * stage.learning_rate * schedule(self.step, stage.steps)
                )
            crops = to(next(batches), self.device)
            level = torch.rand(stage.batch, device=self.device) * (config.levels - 1)
            loss = rate_distortion(self.model, crops, level, stage.train, self.cheap)
            self.optimizer.zero_grad(set_to_none=True)
            loss.total.backward()
            for group in self.optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], 1.0)
            self.optimizer.step()
            self.ema.update_parameters(self.model)
            self.step += 1
            bar.update()
            if self.step % 500 == 0 or self.step == stage.steps:
                log(out / "log.jsonl", self.evaluate(sample, stage.train) | {
                    "stage": stage.train, "step": self.step, "loss": loss.total.item(),
                })  # fmt: skip
            if time.monotonic() - saved > 120:
                self.checkpoint(out / "checkpoint.pt")
                saved = time.monotonic()
        bar.close()

    @torch.no_grad()
    def evaluate(self, sample: list[Crops], part: str) -> dict[str, float]:
        """Rate and PSNR-like quality of the averaged weights at a few settings."""
        model = self.average().eval()
        report: dict[str, float] = {}
        for share in (0.25, 0.5, 0.75, 1.0):
            level = share * (model.config.levels - 1)
            losses = []
            for crops in sample:
                levels = torch.full((len(crops.pixels),), level, device=self.device)
                losses.append(
                    rate_distortion(model, to(crops, self.device), levels, part, self.cheap)
                )
            if losses:
                lam = model.config.compression(int(level))
                report[f"bpppb_{lam:.0f}"] = torch.stack([x.rate for x in losses]).mean().item()
                error = torch.stack([x.distortion for x in losses]).mean().item()
                if error > 0:
                    report[f"snr_db_{lam:.0f}"] = -10 * math.log10(error)
        model.train()
        return report


def trained_parameters(model: TemporalTransformer, cheap: FactorizedPrior, part: str) -> Groups:
    """Parameter groups that a stage trains, with their share of its learning rate.

    The other parameters are frozen. Scales and gains live on a logarithmic axis and move faster
    than the entries of a patch transform, which are small.
    """
    transform: Groups = [
        {"params": [*model.transform.parameters()], "speed": 0.2},
        {"params": [model.log_gain], "speed": 1.0},
    ]
    prior: Groups = [
        {"params": [*model.entropy_model.parameters()], "speed": 1.0},
        {"params": [*model._temporal_pad_token_maker.parameters()], "speed": 1.0},
    ]
    correction: Groups = [{"params": [*model._dequantizer.parameters()], "speed": 1.0}]
    parts = {
        "transform": [*transform, {"params": [*cheap.parameters()], "speed": 10.0}],
        "prior": prior,
        "joint": [*transform, *prior, *correction],
    }
    model.requires_grad_(False)
    for group in parts[part]:
        for p in group["params"]:
            p.requires_grad_(True)
    return parts[part]


def initialise(model: TemporalTransformer, cubes: list[Cube], recipe: Recipe) -> None:
    """Start from the linear transform: convolutions silent, gains on the high-rate optimum."""
    linear = model.transform.linear
    if linear is None or model.log_gain is None:
        raise InputError(f"{recipe.model} has no linear path or no rate knots; train another.")
    config = model.config
    with torch.no_grad():
        linear.copy_(principal_components(cubes, config).reshape(linear.shape))
        for stack in (model.transform.analysis_transform, model.transform.synthesis_transform):
            silence(stack.transforms[-1])
        # At high rate a step of width d costs d^2 / 12 in distortion and log2(1 / d) in rate.
        lam = config.rate_max ** torch.linspace(0, 1, config.rate_knots)
        model.log_gain.copy_((0.5 * torch.log(lam * math.log(2) / 6))[:, None])
        if model.entropy_model.gates is not None:
            silence(model.entropy_model.gates)
        silence(model._dequantizer.process_conv[0])


def silence(layer: nn.Module) -> None:
    """Make a layer give 0, until it has learned better."""
    for p in layer.parameters():
        nn.init.zeros_(p)


def principal_components(cubes: list[Cube], config: ModelConfig, *, batches: int = 200) -> Tensor:
    """First principal axes of standardised patches [C, bands * stride * stride]."""
    whole = [c for c in cubes if set(config.bands) <= set(c.bands)]
    if not whole:
        raise InputError(f"none of the training cubes has all of the bands {list(config.bands)}.")
    sampler = Sampler(whole, config, size=64, frames=1, seed=0)
    stride = config.stride
    covariance = torch.zeros(())
    for _, crops in zip(range(batches), sampler.batches(16), strict=False):
        x = crops.pixels.flatten(0, 1)
        x = x.unfold(2, stride, stride).unfold(3, stride, stride)
        x = x.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
        covariance = covariance + (x.T @ x).double()
    _, axes = torch.linalg.eigh(covariance)
    largest: Tensor = axes.flip(1)[:, : config.latent_channels].T.float()
    return largest


def averaging(decay: float) -> Callable[..., None]:
    """Exponential average of weights that soon forgets where a stage began."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        recent = min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averaged, current, 1 - recent)

    return update


def schedule(step: int, steps: int) -> float:
    """A short warm-up, then a cosine down to 1 %."""
    warm = min(1.0, (step + 1) / min(200, steps))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def to(crops: Crops, device: torch.device) -> Crops:
    """Crops on a device."""
    return Crops(crops.pixels.to(device), crops.weight.to(device))


def log(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
