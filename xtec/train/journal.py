"""The log of a run: one JSON object per line, to read with any tool.

Below: nothing. Above: loop.
"""

import json
import time
from pathlib import Path
from typing import Any

from torch import Tensor


class Journal:
    """A log that goes on at some step; what was written beyond it is forgotten.

    Parameters
    ----------
    path : Path
    step : int
        Where the run stands.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(x for x in lines if json.loads(x)["step"] <= step))
        self._begin()

    def _begin(self) -> None:
        self.losses: list[Tensor] = []
        self.bits: list[Tensor] = []
        self.blocks, self.numbers, self.since = 0, 0, time.monotonic()

    def saw(self, loss: Tensor, bits: Tensor, *, blocks: int, numbers: int) -> None:
        """Remember one step: its loss, its bits, and how much it was."""
        self.losses.append(loss)
        self.bits.append(bits.sum())
        self.blocks, self.numbers = self.blocks + blocks, self.numbers + numbers

    def sum_up(self, step: int, learning_rate: float) -> None:
        """Write what the steps since the last time were like."""
        self.add({
            "step": step,
            "loss": round(float(sum(map(float, self.losses))) / len(self.losses), 5),
            "bits_per_number": round(float(sum(map(float, self.bits))) / self.numbers, 6),
            "learning_rate": learning_rate,
            "blocks_per_s": round(self.blocks / (time.monotonic() - self.since)),
        })  # fmt: skip

    def add(self, row: dict[str, Any]) -> None:
        """Write one line; the time that this and what came before it took is not training."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._begin()
