"""Where a rising curve meets its goal, in few looks: each of them is an encoding.

Below: nothing of ours. Above: calibrate.
"""

import math
from collections.abc import Callable

LINES = 5
"""After so many looks the bracket is halved; until then the curve is taken for a straight line."""


def nearest(
    miss: Callable[[int], float], last: int, *, start: int, slope: float, tolerance: float
) -> int | None:
    """Find the level at which a curve comes near its goal.

    Parameters
    ----------
    miss : callable
        How far the curve lies above its goal at a level from 0 to `last`; rises with the level.
    last : int
        The highest level.
    start : int
        The first level to look at.
    slope : float
        By how much `miss` typically rises from level to level; positive.
    tolerance : float
        A miss that is near enough.

    Returns
    -------
    int or None
        The first level that is near enough, else the nearest of all; None where the goal lies
        outside the range.
    """
    below, above = -1, last + 1
    level, misses = start, dict[int, float]()
    while True:
        misses[level] = miss(level)
        if abs(misses[level]) <= tolerance:
            return level
        if misses[level] < 0:
            below = level
        else:
            above = level
        if above - below == 1:
            break
        level = round(min(max(_guess(misses, below, above, slope), below + 1), above - 1))
    if below not in misses or above not in misses:
        return None
    return min(below, above, key=lambda level: abs(misses[level]))


def _guess(misses: dict[int, float], below: int, above: int, slope: float) -> float:
    """Where the goal may be; anywhere, even outside the range."""
    if below in misses and above in misses:
        low, high = misses[below], misses[above]
        if len(misses) > LINES or math.isinf(high):
            return (below + above) / 2
        return below + (above - below) * low / (low - high)
    *before, level = misses
    if before:  # all looks on one side: by their own slope, then at the end of the range
        slope = (misses[level] - misses[before[-1]]) / (level - before[-1])
        if len(before) > 1 or not slope > 0:
            return math.copysign(math.inf, -misses[level])
    return level - misses[level] / slope
