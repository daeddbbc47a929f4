"""How the 256 frequencies of a block are grouped: four octaves, and zones inside them.

An octave has one spectral basis: bands of 20 m and 60 m reach only into the lower ones. Frequencies
of a zone are expected to be alike; the transformer speaks of zones.

Below: lapped. Above: spectrum, context, context_exact.
"""

import numpy as np

from xtec.models.lapped import SIDE

EDGES = (0, 1, 2, 3, 5, 8, 12, SIDE)
"""Along one axis the frequencies fall into seven bins; these are their borders."""
OCTAVE_OF_BIN = (0, 1, 1, 2, 2, 3, 3)
OCTAVES = 4
LOW = 9
"""Zones of the first two octaves; each is a single frequency."""

_bins = np.searchsorted(EDGES, np.arange(SIDE), side="right") - 1
_octave = np.array(OCTAVE_OF_BIN)[np.maximum(_bins[:, None], _bins)].ravel()
_zone = (_bins[:, None] * len(OCTAVE_OF_BIN) + _bins).ravel()

FREQUENCIES = tuple(np.flatnonzero(_octave == o) for o in range(OCTAVES))
"""For each octave its frequencies 16 u + v, in rising order."""
ZONE = tuple(np.unique(_zone[f], return_inverse=True)[1] for f in FREQUENCIES)
"""For each octave the zone of each of its frequencies, counted from 0."""
SIZES = tuple(len(f) for f in FREQUENCIES)
"""Frequencies of each octave."""
ZONES = tuple(int(z.max()) + 1 for z in ZONE)
"""Zones of each octave."""
