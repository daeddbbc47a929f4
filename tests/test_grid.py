"""The coding order of blocks: who comes when, who is known to whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models import few
from xtec.models.grid import COMMON, GROUPS, grid, whole

sides = st.sampled_from([4, 8, 12, 20])


@few
@given(sides, sides)
def test_every_block_is_coded_once(rows, columns):
    made = grid(rows, columns)
    blocks = np.concatenate([g.blocks for g in made.groups])
    assert np.array_equal(np.sort(blocks), np.arange(rows * columns))
    shares = [len(g.blocks) / (rows * columns) for g in made.groups]
    assert shares == [1 / 16, 1 / 16, 2 / 16, 4 / 16, 8 / 16]


@few
@given(sides, sides)
def test_what_is_looked_at_was_coded_before(rows, columns):
    made = grid(rows, columns)
    when = np.full(rows * columns + 1, -1)
    for number, group in enumerate(made.groups):
        when[group.blocks] = number
    for number, group in enumerate(made.groups):
        assert (when[group.neighbours] < number).all()
        window = np.arange(len(group.blocks)) // (len(group.blocks) // len(made.reach))
        attended = made.reach[window][:, group.known]
        assert (when[attended] < number).all()


@few
@given(sides, sides)
def test_from_the_second_group_on_neighbours_stand_on_all_sides(rows, columns):
    for group in grid(rows, columns).groups[1:]:
        y, x = np.divmod(group.blocks, columns)
        inside = (np.minimum(y, x) >= 2) & (y < rows - 2) & (x < columns - 2)
        assert (group.neighbours[inside] < rows * columns).all()
        present = (group.neighbours < rows * columns).sum(1)
        assert (present >= 1).all()
        assert np.array_equal(group.factor * present, np.full(len(present), COMMON))
        ny, nx = np.divmod(group.neighbours[inside], columns)
        assert np.array_equal(ny.sum(1), 4 * y[inside])
        assert np.array_equal(nx.sum(1), 4 * x[inside])


def test_the_first_group_knows_nobody():
    first = grid(8, 8).groups[0]
    assert first.neighbours.shape == (4, 0)
    assert not first.factor.any()
    assert not len(first.known)


def test_windows_reach_one_block_beyond_themselves():
    reach = grid(8, 8).reach.reshape(4, 6, 6)
    assert reach[0, 0, 0] == 64
    assert reach[0, 1, 1] == 0
    assert reach[0, 5, 5] == 4 * 8 + 4
    assert reach[3, 0, 0] == 3 * 8 + 3


@pytest.mark.parametrize("shape", [(4, 4), (8, 12)])
def test_the_groups_together_say_the_same(shape):
    made, together = grid(*shape), whole(*shape)
    for number, group in enumerate(made.groups):
        assert (together.group[group.blocks] == number).all()
        assert np.array_equal(together.factor[group.blocks], group.factor)
        if number:
            assert np.array_equal(together.neighbours[group.blocks], group.neighbours)
        for place in np.unique(group.places):
            assert np.array_equal(np.flatnonzero(~together.hidden[place]), group.known)
    blocks = np.sort(together.windows.ravel())
    assert np.array_equal(blocks, np.arange(shape[0] * shape[1]))
    assert number == GROUPS - 1
