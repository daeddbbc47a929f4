"""One side of a comparison: a process of its own that codes frames and measures itself.

It is called with the path of a JSON file (`Job`) and leaves in the job's folder ``measured.json``
and, for each number of frames, ``FRAMES.npz``: what was coded, and the pixels that came back.

Below: numpy; neither xtec nor what it is compared with. Above: side_xtec, side_terracodec.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

R = TypeVar("R")

MB = 1e6
GEMM = 4096
"""Rows and columns of the matrices whose product is the measure of the machine."""
GEMM_RUNS = 5
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Job:
    """What a side has to do."""

    checkpoint: str
    pixels: str
    """A .npy file: standardised float32 (time, band, y, x)."""
    drawn: str
    """Another: float32 latents (time, channel, y, x), to count the bytes of both sides on."""
    frames: list[int]
    """How many frames to code at once; one experiment for each."""
    runs: int
    threads: int
    device: str
    """A torch device."""
    folder: str


@dataclass(frozen=True)
class Usage:
    """What a call took."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    """Most memory that the process held meanwhile, all that it held before included."""


class Codec(Protocol):
    """Frames to bytes and back; everything is loaded when it is made."""

    versions: dict[str, str]
    analysis: Any
    """The torch module whose output is the latents before rounding."""

    def warm_up(self, pixels: NDArray[np.float32]) -> None:
        """Do what is only done the first time."""

    def encode(self, pixels: NDArray[np.float32]) -> Any:
        """Code standardised frames (time, band, y, x)."""

    def decode(self, coded: Any) -> NDArray[np.float32]:
        """Undo it."""

    def sizes(self, coded: Any) -> list[int]:
        """Bytes of each frame's entropy code."""

    def seen(self) -> dict[str, NDArray[Any]]:
        """What the last `encode` coded: ``latents``, int32 (time, channel, y, x), and more."""


class Substitute:
    """A hook that puts given latents, frame after frame, in the place of a module's output."""

    def __init__(self, latents: Any) -> None:
        self._left = latents

    def __call__(self, _module: Any, _inputs: Any, output: Any) -> Any:
        """Give as many frames as the output has."""
        count = output.numel() // self._left[0].numel()
        now, self._left = self._left[:count], self._left[count:]
        return now.reshape(output.shape).clone()


def measured(function: Callable[[], R]) -> tuple[R, Usage]:
    """Call a function and measure it."""
    if CLEAR.exists():
        CLEAR.write_text("5")  # forget the peak so far
    cpu, wall = time.process_time(), time.perf_counter()
    result = function()
    return result, Usage(time.perf_counter() - wall, time.process_time() - cpu, _peak_mb())


def work(make: Callable[[str, str], Codec]) -> None:
    """Do the job that the command line names."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    folder = Path(job.folder)
    codec, made = measured(lambda: make(job.checkpoint, job.device))
    import torch

    torch.set_num_threads(job.threads)
    pixels = np.load(job.pixels)
    _, warm = measured(lambda: codec.warm_up(pixels[:1]))
    gemm = [_gemm_gflops(job.device) for _ in range(GEMM_RUNS)]
    found = {}
    for frames in job.frames:
        encode, decode = [], []
        for _ in range(job.runs):
            coded, usage = measured(lambda n=frames: codec.encode(pixels[:n]))
            encode.append(usage)
            seen = codec.seen()
            decoded, usage = measured(lambda c=coded: codec.decode(c))
            decode.append(usage)
        found[frames] = {
            "encode": [asdict(u) for u in encode],
            "decode": [asdict(u) for u in decode],
            "bytes": codec.sizes(coded),
        }
        np.savez(folder / f"{frames}.npz", decoded=decoded, **seen)
    gemm += [_gemm_gflops(job.device) for _ in range(GEMM_RUNS)]
    drawn = torch.from_numpy(np.load(job.drawn)).to(job.device)
    torch.set_num_threads(1)  # frames on several threads would be handed out in any order
    codec.analysis.register_forward_hook(Substitute(drawn))
    result = {
        "drawn_bytes": codec.sizes(codec.encode(pixels[: len(drawn)])),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": codec.versions,
        "made": asdict(made),
        "warm_up": asdict(warm),
        "gemm_gflops": statistics.median(gemm),
        "frames": found,
    }
    (folder / "measured.json").write_text(json.dumps(result, indent=1))


def _gemm_gflops(device: str) -> float:
    """Rate of a large float32 product now."""
    import torch

    a = torch.ones(GEMM, GEMM, device=device)
    float(a[0, 0])  # waits for the device
    begin = time.perf_counter()
    float((a @ a)[0, 0])
    return 2 * GEMM**3 / (time.perf_counter() - begin) / 1e9


def _peak_mb() -> float:
    """Most memory since the last reset; where Linux does not tell, since the process began."""
    if STATUS.exists():
        line = next(x for x in STATUS.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / MB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB
