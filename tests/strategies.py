"""What hypothesis draws from: symbols with their rows, masks, streams."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xtec.coding import stream, tables

settings.register_profile("xtec", deadline=None)  # the first call of the coder compiles it
settings.load_profile("xtec")

SYMBOL_LIMIT = 1 << 20
LAST_ROW = len(tables.load().sizes) - 1

near = st.integers(-8, 8)
anywhere = st.integers(1 - SYMBOL_LIMIT, SYMBOL_LIMIT - 1)


@st.composite
def rows(draw, count):
    """Table rows of `count` symbols, narrow ones more often."""
    row = st.integers(0, LAST_ROW) | st.integers(0, 2559)
    return draw(hnp.arrays(np.uint16, count, elements=row))


@st.composite
def coded_frames(draw):
    """Symbols, their rows, and where the frames end (frames may be empty)."""
    counts = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    ends = np.cumsum(counts).tolist()
    symbols = draw(hnp.arrays(np.int32, ends[-1], elements=near | anywhere))
    return symbols, draw(rows(ends[-1])), ends


@st.composite
def masks(draw, shape):
    """No mask, an empty one, a full one, one for all bands, or one for each."""
    frames, _, height, width = shape
    kind = draw(st.sampled_from(["none", "empty", "all", "shared", "full"]))
    if kind == "none":
        return None
    if kind == "shared":
        mask = draw(hnp.arrays(np.bool_, (frames, 1, height, width)))
        return np.broadcast_to(mask, shape)
    if kind == "full":
        return draw(hnp.arrays(np.bool_, shape))
    return np.full(shape, kind == "all")


@st.composite
def streams(draw):
    """Streams that keep every rule of the format."""
    side = st.integers(1, 11)
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 5), side, side))
    frame_lengths = draw(
        st.lists(st.integers(0, 9), min_size=shape[0], max_size=shape[0]).map(np.cumsum)
    )
    frame_bytes = tuple(frame_lengths.tolist())
    dtype = draw(st.sampled_from(list(stream.RANGES)))
    return stream.Stream(
        model_digest=draw(st.binary(min_size=8, max_size=8)),
        dtype=dtype,
        shape=shape,
        bands=tuple(draw(st.permutations(range(256)))[: shape[1]]),
        level=draw(st.integers(0, 0xFFFF)),
        nodata=draw(st.none() | st.integers(*stream.RANGES[dtype])),
        offset=draw(st.integers(-(1 << 31), (1 << 31) - 1)),
        invalid=draw(masks(shape)),
        saturated=draw(masks(shape)),
        frame_bytes=frame_bytes,
        payload=draw(st.binary(min_size=frame_bytes[-1], max_size=frame_bytes[-1])),
        frame_crcs=draw(st.tuples(*[st.integers(0, (1 << 32) - 1)] * shape[0])),
        residual=draw(st.binary(max_size=9)),
    )
