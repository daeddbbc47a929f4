"""TEC-TT here and in terracodec: the same weights, the same frames, the same machine.

    python benchmarks/vs_terracodec.py --reference-python ENV/bin/python
    python benchmarks/vs_terracodec.py --reference-python ENV/bin/python --isa avx2
    python benchmarks/vs_terracodec.py --reference-python ENV/bin/python --device cuda
    python benchmarks/vs_terracodec.py --skip-reference             only ours

The weights are random, of the full size (225 M parameters), in a checkpoint as it is published;
`random_tt` says how they are made. Each side runs in a process of its own with its own interpreter
and measures itself (`side`). README.md says how to set up an environment with terracodec.

Below: random_tt, sampled, vs_tables, side, data, common.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import data
import numpy as np
import random_tt
import sampled
import torch
import vs_tables
from common import machine
from numpy.typing import NDArray
from side import Job, Usage
from vs_tables import STEPS, Frames, Side

from xtec import sample
from xtec.errors import InputError
from xtec.models.config import S2L1C
from xtec.pixels import Pixels

HERE = Path(__file__).parent
SIZE = 256
"""The only size that the reference takes."""
DRAWN = 2
"""At most so many frames of latents are drawn: each takes a minute."""
ISA = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "vnni": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "best": {},
}
"""What tells torch and its libraries which instructions to use; vnni is all but AMX and newer."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    options = _parser().parse_args(arguments)
    with _folder(options.checkpoint) as folder:
        cube, origin = frames(options.data, options.cube, max(options.frames))
        torch.set_num_threads(options.threads)
        checkpoint = prepared(folder, cube)
        print(f"{machine(options.threads)}; instructions: {options.isa}")
        print(f"random weights, SHA-256 of the checkpoint {digest(checkpoint)[:16]}; {origin}")
        pythons = {"xtec": sys.executable}
        if options.skip_reference:
            print("terracodec is left out, as asked")
        elif imports(options.reference_python, "terracodec"):
            pythons["terracodec"] = options.reference_python
        else:
            print(f"terracodec is left out: {options.reference_python} cannot import it")
        sides = {name: run(name, pythons[name], checkpoint, cube, options) for name in pythons}
    for name, side in sides.items():
        packages = ", ".join(f"{k} {v}" for k, v in side.versions.items())
        print(f"{name}: {packages}; torch computes with {side.instructions}")
    print(f"{options.runs} runs; medians, of the seconds the least and the most too\n")
    ours, theirs = sides["xtec"], sides.get("terracodec")
    print(vs_tables.coded(ours.frames[max(ours.frames)]))
    if theirs:
        print(vs_tables.agreement(cube, theirs, ours))
        print(vs_tables.sizes(theirs, ours))
    print(vs_tables.preparation(sides.values()))
    print(vs_tables.timing(ours, theirs))
    print(vs_tables.rates(ours, S2L1C, SIZE))
    if options.json:
        options.json.write_text(json.dumps({k: _plain(v) for k, v in sides.items()}, indent=1))


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="TEC-TT here and in terracodec, side by side.")
    made.add_argument("--data", type=Path, help="folder that holds val/ (or XTEC_DATA)")
    made.add_argument("--cube", default="sen12mscrts", help="part of the name of a cube of val/")
    made.add_argument("--frames", type=int, nargs="+", default=[1, 4], help="at once")
    made.add_argument("--runs", type=int, default=3)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--device", default="cpu", help="a torch device, of both sides")
    made.add_argument("--isa", choices=sorted(ISA), default="best", help="instructions to use")
    made.add_argument("--checkpoint", type=Path, help="folder that keeps the 900 MB of weights")
    made.add_argument("--reference-python", default=sys.executable, metavar="PATH")
    made.add_argument("--skip-reference", action="store_true", help="only ours")
    made.add_argument("--json", type=Path, help="file that gets every figure of every run")
    return made


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """Where the checkpoint lies: a folder to be kept, or one that goes away."""
    if given:
        given.mkdir(parents=True, exist_ok=True)
        yield given
    else:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)


def imports(python: str, package: str) -> bool:
    """Whether an interpreter finds a package."""
    found = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", found], check=False).returncode == 0


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def frames(folder: Path | None, name: str, count: int) -> tuple[Pixels, str]:
    """Some dates of a real cube, 256 x 256 pixels; a synthetic one where there is no data."""
    try:
        cube = data.one(folder, name)
    except InputError as error:
        made = sample.cube(dates=count, size=SIZE).reflectance.to_numpy()
        return made, f"synthetic frames of xtec.sample ({error})"
    dates = list(data.DATES_OF_SERIES if len(cube) > data.LONG else range(len(cube)))[:count]
    if len(dates) < count or min(cube.shape[2:]) < SIZE:
        raise InputError(f"cube {name} has {cube.shape}; {count} dates of {SIZE} are needed.")
    return cube[dates, :, :SIZE, :SIZE], f"cube {name}, dates {dates}, 256 x 256 pixels, 13 bands"


def prepared(folder: Path, cube: Pixels) -> Path:
    """The checkpoint of a folder; made where it is not there yet."""
    path = folder / "tt-random.pt"
    if not path.exists():
        pixels = torch.from_numpy(standardised(cube[:1]))
        unfinished = path.with_suffix(".part")
        random_tt.save(random_tt.network(pixels), unfinished)
        unfinished.rename(path)
    return path


def drawn(checkpoint: Path, most: int) -> Path:
    """Latents that the network itself would expect; made where they are not there yet."""
    count = min(most, DRAWN)
    path = checkpoint.with_name(f"drawn-{count}.npy")
    if not path.exists():
        side = SIZE // S2L1C.stride
        np.save(path, sampled.draw(random_tt.load(checkpoint), count, side, side)[0].numpy())
    return path


def standardised(cube: Pixels) -> NDArray[np.float32]:
    """DN to what the network takes."""
    mean, std = (np.float32(x)[:, None, None] for x in (S2L1C.mean, S2L1C.std))
    return (cube.astype(np.float32) - mean) / std


def digital_numbers(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """What the network gives to DN, neither rounded nor clipped."""
    mean, std = (np.array(x)[:, None, None] for x in (S2L1C.mean, S2L1C.std))
    return pixels * std + mean


def run(
    name: str, python: str, checkpoint: Path, cube: Pixels, options: argparse.Namespace
) -> Side:
    """Let one side measure itself, in a process of its own."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        pixels, job = folder / "pixels.npy", folder / "job.json"
        np.save(pixels, standardised(cube))
        latents = drawn(checkpoint, max(options.frames))
        how = options.frames, options.runs, options.threads, options.device
        asked = Job(str(checkpoint), str(pixels), str(latents), *how, made)
        job.write_text(json.dumps(dataclasses.asdict(asked)))
        environment = os.environ | ISA[options.isa] | {"OMP_NUM_THREADS": str(options.threads)}
        if name == "xtec":
            paths = str(HERE.parent), os.environ.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        command = [python, str(HERE / f"side_{name}.py"), str(job)]
        subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
        return _read(name, folder)


def _read(name: str, folder: Path) -> Side:
    """What a side left in its folder."""
    found = json.loads((folder / "measured.json").read_text())
    experiments = {}
    for count, figures in found["frames"].items():
        with np.load(folder / f"{count}.npz") as arrays:
            experiments[int(count)] = Frames(
                *([Usage(**u) for u in figures[step]] for step in STEPS),
                bytes=figures["bytes"],
                latents=arrays["latents"],
                rows=arrays.get("rows", np.zeros(0, np.uint16)),
                decoded=digital_numbers(arrays["decoded"]),
            )
    once = Usage(**found["made"]), Usage(**found["warm_up"])
    others = (found[key] for key in ("instructions", "gemm_gflops", "drawn_bytes"))
    return Side(name, found["versions"], *once, *others, experiments)


def _plain(side: Side) -> dict[str, Any]:
    """Everything but the arrays."""
    fields = dataclasses.asdict(side)
    for figures in fields["frames"].values():
        for name in ("latents", "rows", "decoded"):
            del figures[name]
    return fields


if __name__ == "__main__":
    main()
