"""The training loop: resumable at any step, the same on CPU and GPU.

Below: everything in this room, models.weights. Above: cli.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from xtec.models import weights
from xtec.train.ahead import ahead
from xtec.train.batch import Batch, make, some_frequencies
from xtec.train.data import read_all
from xtec.train.evaluate import bits_per_number, crop
from xtec.train.journal import Journal
from xtec.train.recipe import Recipe
from xtec.train.sampler import Sampler
from xtec.train.state import State

LOG_EVERY, EVALUATE_EVERY = 50, 500
"""Steps."""
CHECKPOINT_EVERY_S = 120


def train(
    recipe: Recipe,
    data: Sequence[Path],
    out: Path,
    *,
    val: Sequence[Path] = (),
    init: str | None = None,
    device: str = "cpu",
    workers: int | None = None,
) -> None:
    """Run or resume a recipe; write ``checkpoint.pt``, ``log.jsonl`` and ``model.safetensors``.

    A run that was interrupted ends, on the same machine, with the weights of one that was not.

    Parameters
    ----------
    recipe : Recipe
    data, val : folders with cubes to train on and to evaluate on
    out : folder
        Where a checkpoint of the same run is resumed from, and results are written to.
    init : str, optional
        Weights to start from: a model's name, ``embedded``, or the path of a .safetensors file.
    device : str
        A torch device.
    workers : int, optional
        Threads that make batches ahead; without it none on the CPU, one per core otherwise.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = State(recipe, init, torch.device(device))
    state.resume(out / "checkpoint.pt")
    if state.step < recipe.steps:
        if workers is None:
            workers = 0 if device == "cpu" else os.cpu_count() or 1
        _run(state, data, out, val=val, device=torch.device(device), workers=workers)
    weights.save(state.average, recipe.name, out / "model.safetensors")


def _run(
    state: State,
    data: Sequence[Path],
    out: Path,
    *,
    val: Sequence[Path],
    device: torch.device,
    workers: int,
) -> None:
    """Take the steps that are left."""
    recipe, config = state.recipe, state.network.config
    sampler = Sampler(read_all(data, config.bands), recipe, config)
    cubes = read_all(val, config.bands) if val else []
    crops = [found for cube in cubes if (found := crop(cube, config.tile)) is not None]

    def batch(step: int) -> Batch:
        return make(sampler.draw(step), config, some_frequencies(recipe.seed, step))

    journal, saved = Journal(out / "log.jsonl", state.step), time.monotonic()
    bar = tqdm(total=recipe.steps, initial=state.step, desc=recipe.name, mininterval=5)
    for each in ahead(batch, range(state.step, recipe.steps), workers):
        rate = state.learning_rate
        loss, bits = state.advance(each.to(device))
        journal.saw(loss, bits, blocks=each.blocks, numbers=each.numbers)
        bar.update()
        last = state.step == recipe.steps
        if last or state.step % LOG_EVERY == 0:
            journal.sum_up(state.step, rate)
        if crops and (last or state.step % EVALUATE_EVERY == 0):
            rates = bits_per_number(state.average, crops)
            journal.add({"step": state.step, "val_bits_per_number": rates})
        if last or time.monotonic() - saved > CHECKPOINT_EVERY_S:
            state.save(out / "checkpoint.pt")
            saved = time.monotonic()
    bar.close()
