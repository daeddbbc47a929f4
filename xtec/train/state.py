"""Where a training run stands: all that a checkpoint holds, and one step of it.

Below: recipe, batch, loss, models. Above: loop.
"""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xtec.errors import InputError
from xtec.models import registry, weights
from xtec.models.config import BANDS_L1C, LappedConfig
from xtec.models.context import ContextTransformer
from xtec.train.batch import Batch
from xtec.train.loss import spent, weighed
from xtec.train.recipe import Recipe

BETAS = (0.9, 0.99)
LONGEST_GRADIENT = 1.0
STATIC, STATIC_SPEED = ("mix", "base"), 5.0
"""Parameters that multiply what is known of the scale, not activations, and may move faster."""
LAST_SPEED = 0.01
"""Of the learning rate, at the end."""


class State:
    """A run between two steps.

    Parameters
    ----------
    recipe : Recipe
    init : str, optional
        Weights to start from: a model's name, ``embedded``, or the path of a .safetensors file.
    device : torch.device

    Raises
    ------
    InputError
        The weights are of another network than the recipe's.
    ModelError
        There are no such weights.
    """

    def __init__(self, recipe: Recipe, init: str | None, device: torch.device) -> None:
        self.recipe, self.step = recipe, 0
        self.network, digest = _fresh(recipe) if init is None else _loaded(recipe, init)
        self.identity = {"recipe": dataclasses.asdict(recipe), "init": digest}
        self.network.to(device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(requires_grad=False)
        self.optimizer = torch.optim.AdamW(
            groups(self.network), betas=BETAS, weight_decay=recipe.weight_decay
        )

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return self.recipe.learning_rate * speed(self.step, self.recipe)

    def advance(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take one step; its loss, and the bits of each chunk."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["speed"] * self.learning_rate
        bits = spent(self.network, batch)
        loss = weighed(bits)
        self.optimizer.zero_grad()
        loss.backward()
        length = nn.utils.clip_grad_norm_(self.network.parameters(), LONGEST_GRADIENT)
        if math.isfinite(length):  # one bad batch must not spoil a night
            self.optimizer.step()
        self._follow()
        self.step += 1
        return loss.detach(), bits.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average; at first it soon forgets where the run began."""
        kept = min(self.recipe.ema_decay, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.network.parameters()), 1 - kept
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint; an interruption leaves the one before."""
        state: dict[str, Any] = {k: part.state_dict() for k, part in self._parts().items()}
        new = path.with_suffix(".new")
        torch.save(state | {"step": self.step, "run": self.identity}, new)
        new.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one.

        Raises
        ------
        InputError
            It is that of another recipe, or of a run that started from other weights.
        """
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["run"] != self.identity:
            raise InputError(
                f"{path} was written by another run ({_difference(state['run'], self.identity)}); "
                "give --out a new folder, or go on with the recipe and the weights of that run."
            )
        self.step = state["step"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "average": self.average, "optimizer": self.optimizer}


def _fresh(recipe: Recipe) -> tuple[ContextTransformer, None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = ContextTransformer(recipe.network or LappedConfig(BANDS_L1C))
        network.initialise()
    return network, None


def _loaded(recipe: Recipe, init: str) -> tuple[ContextTransformer, str]:
    """Weights to start from, and their digest."""
    card = registry.resolve(init)
    network = weights.load(card)
    if not isinstance(network, ContextTransformer):
        raise InputError(f"{init} is {card.name}, of a family that this version does not train.")
    if recipe.network not in (None, network.config):
        raise InputError(
            f"{init} has another network than the recipe: {network.config}, not {recipe.network}. "
            "Leave [network] out of the recipe to take that of the weights."
        )
    return network.train().requires_grad_(requires_grad=True), card.digest


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """What a checkpoint says otherwise."""
    if there["init"] != here["init"]:
        return f"from the weights {there['init']}, here {here['init']}"
    both = {k: (there["recipe"].get(k), here["recipe"].get(k)) for k in here["recipe"]}
    return ", ".join(f"{k} {a} there, {b} here" for k, (a, b) in both.items() if a != b)


def groups(network: ContextTransformer) -> list[dict[str, Any]]:
    """Give parameter groups of an optimiser, each with its share of the learning rate."""
    parts: dict[float, list[nn.Parameter]] = {1.0: [], STATIC_SPEED: []}
    for name, parameter in network.named_parameters():
        parts[STATIC_SPEED if name.startswith(STATIC) else 1.0].append(parameter)
    return [{"params": found, "speed": share} for share, found in parts.items()]


def speed(step: int, recipe: Recipe) -> float:
    """Share of the learning rate: a warm-up, and a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / min(recipe.warm_up, recipe.steps))
    cosine = (1 + math.cos(math.pi * step / recipe.steps)) / 2
    return warm * (LAST_SPEED + (1 - LAST_SPEED) * cosine)
