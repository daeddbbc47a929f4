"""``xtec train``: train a network, or go on from one.

Below: options, train. Above: the room's face.
"""

import argparse
from pathlib import Path

from xtec.cli.options import Commands, command

EXAMPLES = """\
  xtec train --init embedded --data cubes/ --val others/ --out runs/mine
  xtec train small --data cubes/ --out runs/new --device cuda"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "train a network; the same command resumes what was interrupted"
    parser = command(commands, "train", about, EXAMPLES, run)
    parser.add_argument(
        "recipe",
        type=Path,
        nargs="?",
        help="TOML file, or one of the package: small, or finetune (the default with --init)",
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of cubes")
    parser.add_argument("--val", type=Path, nargs="*", default=[], help="folders to evaluate on")
    parser.add_argument("--init", help="weights to start from: embedded, or a .safetensors file")
    parser.add_argument("--out", type=Path, default=Path("runs/train"), help="checkpoint and log")
    parser.add_argument("--device", default="cpu", help="torch device, for example cuda")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--workers", type=int, help="threads that make batches ahead")


def run(options: argparse.Namespace) -> None:
    """Train."""
    import torch

    from xtec.train.loop import train
    from xtec.train.recipe import Recipe

    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = Recipe.read(options.recipe or Path("finetune" if options.init else "small"))
    train(
        recipe, options.data, options.out, val=options.val, init=options.init,
        device=options.device, workers=options.workers,
    )  # fmt: skip
    print(f"{options.out / 'model.safetensors'} is model {recipe.name!r}")
