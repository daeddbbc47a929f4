"""All that one chunk's residual is coded by: planes, models, and a plan for each plane.

A plane is one band of one frame. Its plan says what its pixels are expected from: the network, the
neighbours that are known, and up to two earlier planes, each with a weight; and whether pixels may
be copied from their neighbours, as in bands that were brought to a finer grid. The encoder chooses
the plan (`fit`) and the code holds it.

Below: kernel, errors. Above: fit, the package itself.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xtec.errors import CorruptStreamError
from xtec.residual import kernel
from xtec.residual.kernel import EDGE, Image

Shape = tuple[int, ...]
Limits = tuple[int, int, int]

KNOWN = (
    (0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2), (-2, -1), (-2, 1),
)  # fmt: skip
"""Neighbours (down, right) in the plane itself that come before a pixel."""
ALL = ((0, 0), (0, -1), (-1, 0), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""A pixel and all its neighbours, in a reference; without the pixel: in the guide."""
OWN_LOOKS = 24, 24, 12, 12, 6, 6
"""How much the first neighbours in the plane count for what is busy."""
LOOKS = 4, 1, 1, 1, 1
"""The same in a reference, times LOOK_UNIT."""
LOOK_UNIT = 0, 10, 5
"""By how many references there are."""

NEEDED, COPIES, REFERENCES, REFERENCE, OWN_WEIGHT, OTHER_WEIGHT, GUIDE_WEIGHT = range(
    kernel.PLAN_NUMBERS
)

PLAN_NUMBERS = 100
"""More than a plan has."""


@dataclass(frozen=True, eq=False)
class Plan:
    """How a plane is coded."""

    copies: int | None
    """Without: no pixel is a copy. Else where copy flags may be like those here: 0 for the plane
    itself, n for its n-th candidate."""
    references: tuple[int, ...]
    """Numbers of candidates, from 0."""
    weights: NDArray[np.int64]
    """Of all taps, in 1/256."""


class Planes:
    """What is known of the planes so far; grows plane by plane, in either direction.

    Parameters
    ----------
    shape : (time, band, y, x)
    """

    def __init__(self, shape: Shape) -> None:
        frames, self.bands, height, width = shape
        self.row = width + 2 * EDGE
        padded = frames * self.bands, height + 2 * EDGE, self.row
        self.residuals = np.zeros(padded, np.int32)
        self.sizes = np.zeros(padded, np.uint16)
        self.copied = np.zeros(padded, np.uint8)
        self.models = np.full(kernel.ALL_MODELS, kernel.FRESH, np.int32)

    def candidates(self, own: int) -> list[int]:
        """Planes that may help with one: bands before it, then itself in earlier frames."""
        frame, band = divmod(own, self.bands)
        bands = range(own - 1, own - 1 - band, -1)
        return [*bands, *range(own - self.bands, own - 1 - frame * self.bands, -self.bands)]

    def offsets(self, own: int, references: tuple[int, ...]) -> NDArray[np.int64]:
        """Where the taps lie: the plane itself, its references, the guide."""
        near = [self._from(0, place) for place in KNOWN]
        for far in self._distances(own, references):
            near += [self._from(far, place) for place in ALL]
        near += [self._from(0, place) for place in ALL[1:]]
        return np.array(near, np.int64)

    def looks(self, own: int, references: tuple[int, ...]) -> NDArray[np.int64]:
        """Where it is looked how busy it is, and how much that counts."""
        near = [self._from(0, place) for place in KNOWN[: len(OWN_LOOKS)]]
        counts = [*OWN_LOOKS]
        for far in self._distances(own, references):
            near += [self._from(far, place) for place in ALL[: len(LOOKS)]]
            counts += [LOOK_UNIT[len(references)] * n for n in LOOKS]
        return np.array([near, counts], np.int64)

    def _distances(self, own: int, references: tuple[int, ...]) -> list[int]:
        candidates, plane = self.candidates(own), self.residuals[0].size
        return [(candidates[n] - own) * plane for n in references]

    def _from(self, far: int, place: tuple[int, int]) -> int:
        down, right = place
        return far + down * self.row + right


class Frame:
    """Codes the planes of one frame after the other, in one direction.

    Parameters
    ----------
    planes : Planes
    code : bytes, optional
        To be read; without it, written.
    """

    def __init__(self, planes: Planes, code: bytes | None = None) -> None:
        self.planes, self.reading = planes, code is not None
        self.code = np.frombuffer(bytearray(code or b""), np.uint8)
        self.coder = kernel.begin(self.code)
        self.written = bytearray()

    def number(self, kind: int, value: int = 0) -> int:
        """Code a number of a plan, or read it."""
        at = kernel.FIRST_PLAN + kind * kernel.MODELS
        found, self.coder = kernel.number(
            self.coder, self.code, self.reading, self.planes.models, at, value
        )
        return int(found)

    def write(
        self,
        own: int,
        plan: Plan,
        image: Image,
        limits: Limits,
        rows: int,
        near: int,
    ) -> None:
        """Code a plane by a plan.

        Parameters
        ----------
        own : int
            Number of the plane.
        plan : Plan
        image : pixels, skipped, guide
        limits : step, lowest and highest pixel
        rows : int
            How many rows to code.
        near : int
            What is near enough for a copy, in DN.
        """
        self._make_room(image[0].size)
        self.number(NEEDED, 1)
        self._plan(own, plan)
        self._plane(own, plan, image, limits, (rows, near))
        self._take()

    def write_nothing(self) -> None:
        """Say that a plane needs nothing."""
        self._make_room(0)
        self.number(NEEDED, 0)
        self._take()

    def read(self, own: int, image: Image, limits: Limits) -> None:
        """Fill a plane, unless it needs nothing."""
        if self.number(NEEDED):
            plan = self._plan(own)
            self._plane(own, plan, image, limits, (len(image[0]), 0))

    def finished(self) -> bytes:
        """The code of all planes."""
        return bytes(self.written) + bytes([(self.coder[0] >> kernel.TOP) + 1])

    def check(self) -> None:
        """Make sure that the code ended with the last plane.

        Raises
        ------
        CorruptStreamError
            It did not.
        """
        if self.coder[3] + 1 != len(self.code):
            raise CorruptStreamError(
                f"The residual of a frame has {len(self.code)} bytes, its planes take "
                f"{self.coder[3] + 1}: it is damaged."
            )

    def _make_room(self, pixels: int) -> None:
        """For a plane and its plan; what has been written is final."""
        self.code = np.empty(kernel.BYTES_PER_PIXEL * (pixels + PLAN_NUMBERS), np.uint8)
        self.coder = (*self.coder[:3], 0)

    def _take(self) -> None:
        self.written += self.code[: self.coder[3]].tobytes()

    def _plan(self, own: int, plan: Plan | None = None) -> Plan:
        """Code a plan, or read it."""
        known = len(self.planes.candidates(own))
        said = plan or Plan(None, (), np.zeros(0, np.int64))
        copies = self.number(COPIES, 0 if said.copies is None else said.copies + 1)
        count = self.number(REFERENCES, len(said.references))
        if count > kernel.MOST_REFERENCES or copies > known + 1:
            raise CorruptStreamError(
                f"A plane of the residual has {count} references and copies like number {copies}; "
                f"{kernel.MOST_REFERENCES} and {known + 1} are possible."
            )
        references = tuple(
            self.number(REFERENCE, said.references[i] if plan else 0) for i in range(count)
        )
        if max(references, default=-1) >= known:
            raise CorruptStreamError(
                f"A plane of the residual refers to number {max(references)} of {known} planes."
            )
        taps = len(KNOWN) + count * len(ALL) + kernel.GUIDES
        kinds = [OWN_WEIGHT] * len(KNOWN) + [OTHER_WEIGHT] * count * len(ALL)
        kinds += [GUIDE_WEIGHT] * kernel.GUIDES
        weights = [
            kernel.unfolded(self.number(kind, kernel.folded(int(said.weights[i])) if plan else 0))
            for i, kind in zip(range(taps), kinds, strict=True)
        ]
        return plan or Plan(copies - 1 if copies else None, references, np.array(weights))

    def _plane(
        self, own: int, plan: Plan, image: Image, limits: Limits, work: tuple[int, int]
    ) -> None:
        planes = self.planes
        copies = -1 if plan.copies is None else [own, *planes.candidates(own)][plan.copies]
        first = len(plan.references) * kernel.ACTIVITIES * kernel.MODELS
        terms = (
            np.array([*limits, own, copies, first, *work], np.int64),
            np.stack([planes.offsets(own, plan.references), plan.weights]),
            planes.looks(own, plan.references),
        )
        known = planes.residuals, planes.sizes, planes.copied
        self.coder = kernel.plane(
            self.coder, self.code, self.reading, planes.models, image, known, terms
        )
