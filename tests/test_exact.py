"""Exact arithmetic: one answer, however a product is cut, ordered or carried out."""

import math
import warnings
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.models import few
from xtec.errors import ModelError
from xtec.models import exact
from xtec.models.exact import LIMIT, ONE, Arithmetic, Keys, LayerNorm, Linear

CPU = torch.device("cpu")
SINGLE, DOUBLE = (Arithmetic(CPU, product) for product in (torch.float32, torch.float64))


few_rows, any_width = st.integers(1, 9), st.integers(1, 300)


@st.composite
def integers(draw, rows=few_rows, width=any_width, limit=LIMIT):
    """A matrix of integers in a float32 tensor, its entries anywhere within the limit."""
    shape = draw(rows), draw(width)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([1, 63, 8191, limit]))
    values = random.integers(-min(spread, limit), min(spread, limit), shape, endpoint=True)
    return torch.tensor(values, dtype=torch.float32)


def linear(inputs, outputs, seed):
    layer = nn.Linear(inputs, outputs)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.normal_(generator=random)
        layer.bias.normal_(generator=random)
    return layer.requires_grad_(requires_grad=False)


@given(st.data(), st.sampled_from([7, 63, 127, 255, 8191]))
def test_a_product_is_that_of_integers(data, limit):
    inner = st.just(data.draw(st.integers(1, 400)))
    a, b = (data.draw(integers(width=inner, limit=limit)) for _ in range(2))
    expected = a.numpy().astype(np.int64) @ b.numpy().astype(np.int64).T
    for arithmetic in (SINGLE, DOUBLE):
        found = arithmetic.matmul(a, b.T, limit**2 * a.shape[1])
        assert found.to(torch.int64).tolist() == expected.tolist()


@given(st.data())
def test_a_product_depends_on_no_order_and_no_company(data):
    a = data.draw(integers(limit=255))
    b = data.draw(integers(width=st.just(a.shape[1]), limit=255)).T
    whole = SINGLE.matmul(a, b, 255**2 * a.shape[1])
    order = torch.tensor(data.draw(st.permutations(range(a.shape[1]))))
    assert torch.equal(SINGLE.matmul(a[:, order], b[order], 255**2 * a.shape[1]), whole)
    rows = torch.tensor(data.draw(st.permutations(range(len(a)))))
    assert torch.equal(SINGLE.matmul(a[rows], b, 255**2 * a.shape[1]), whole[rows])
    for i in range(len(a)):
        assert torch.equal(SINGLE.matmul(a[i : i + 1], b, 255**2 * a.shape[1])[0], whole[i])
    cut = data.draw(st.integers(0, a.shape[1]))
    parts = ((a[:, :cut], b[:cut]), (a[:, cut:], b[cut:]))
    assert torch.equal(sum(SINGLE.matmul(*part, 255**2 * a.shape[1]) for part in parts), whole)


@pytest.mark.parametrize(("limit", "inner"), [(63, 4096), (127, 1024), (255, 258)])
def test_the_largest_sums_in_float32_are_exact(limit, inner):
    assert limit**2 * inner < exact.EXACT_FLOAT32
    a = torch.full((3, inner), float(limit))
    found = SINGLE.matmul(a, a.T, limit**2 * inner)
    assert found.unique().tolist() == [limit**2 * inner]
    a[0, 0] -= 1  # the last digit counts
    assert SINGLE.matmul(a, a.T, limit**2 * inner)[1, 0] == limit**2 * inner - limit


def test_sums_that_float32_cannot_hold_are_taken_in_float64():
    a = torch.full((1, 4000), 8191.0)
    found = SINGLE.matmul(a, a.T, 8191**2 * 4000)
    assert found.dtype == torch.float64
    assert found.item() == 8191**2 * 4000


def test_sums_that_nothing_can_hold_are_refused():
    with pytest.raises(ModelError, match=r"too large to be exact"):
        SINGLE.matmul(torch.ones(1, 1), torch.ones(1, 1), 2**53)
    with pytest.raises(ModelError, match="too wide to be normalised exactly"):
        LayerNorm(SINGLE, nn.LayerNorm(2048))


@given(integers(), st.sampled_from([63, 127, 255, 8191]))
def test_quantised_rows_stay_within_the_limit_and_near(x, limit):
    whole, largest = exact.quantise(x, limit)
    assert torch.equal(whole, whole.round())
    assert whole.abs().max() <= limit
    assert (largest == x.abs().amax(1, keepdim=True).clamp_min(1)).all()
    error = (whole.double() * largest / limit - x).abs()
    assert (error <= 0.5001 * largest / limit + 1e-6 * largest).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([2**-60, 2**-20, 1.0, 2**20]))
def test_quantised_weights_stay_within_the_limit(seed, size):
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)) * size
    weight[0] = 0
    whole, largest = exact.quantise_weights(weight, 63)
    assert whole.isfinite().all()
    assert whole.abs().max() <= 63
    assert (largest >= 2.0**-40).all()
    assert whole[0].abs().max() == 0


@few
@given(integers(width=st.just(48)), st.sampled_from([63, 127, 8191]), st.integers(0, 9))
def test_a_linear_layer_is_near_its_float_self(x, limit, seed):
    layer = linear(48, 20, seed)
    x = x.clamp(-ONE * 32, ONE * 32)
    found = Linear(SINGLE, layer, limit=limit)(x)
    expected = (layer.double()(x.double() / ONE) * ONE).clamp(-LIMIT, LIMIT)
    layer.float()
    assert torch.equal(found, found.round())
    # Each of 48 products is wrong by half a step of either operand at most.
    size = (x.abs().amax(1, keepdim=True).clamp_min(1) * layer.weight.abs().amax(1)).double()
    assert ((found - expected).abs() <= 48 * size / limit * 1.01 + 2).all()


@few
@given(integers(width=st.just(48)), st.sampled_from([63, 8191]), st.data())
def test_a_linear_layer_treats_rows_alone_and_carries_nothing_in_the_type(x, limit, data):
    layers = linear(48, 20, 1), linear(48, 4, 2)
    whole = Linear(SINGLE, *layers, limit=limit)(x)
    assert torch.equal(Linear(DOUBLE, *layers, limit=limit)(x), whole)
    apart = [Linear(SINGLE, layer, limit=limit)(x) for layer in layers]
    assert torch.equal(torch.cat(apart, 1), whole)
    rows = torch.tensor(data.draw(st.permutations(range(len(x)))))
    assert torch.equal(Linear(SINGLE, *layers, limit=limit)(x[rows]), whole[rows])


@few
@given(integers(width=st.sampled_from([1, 16, 48, 768])))
def test_a_layer_norm_is_near_its_float_self(x):
    layer = nn.LayerNorm(x.shape[1], eps=1e-6)
    with torch.no_grad():
        layer.weight.normal_(1, 0.2)
        layer.bias.normal_(0, 0.2)
        found = LayerNorm(SINGLE, layer)(x)
        expected = layer.double()(x.double() / ONE) * ONE
    # The mean is off by half a step at most, which moves and widens what hardly varies.
    deviation = x.double().std(1, correction=0, keepdim=True)
    step = 0.5 / deviation
    normal = (x - x.double().mean(1, keepdim=True)) / deviation
    tolerance = 1.1 * ONE * layer.weight.abs() * (step + normal.abs() * step**2 / 2) + 1
    near = (found - expected).abs() <= tolerance
    assert (near | (deviation < 4)).all()
    assert torch.equal(found, found.round())
    order = torch.randperm(x.shape[1])
    layer.float()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(p[order].clone())
    assert torch.equal(LayerNorm(SINGLE, layer)(x[:, order]), found[:, order])


def reference_table(name):
    """The function behind a table, in 50 digits: pairs of entry and real value."""
    with localcontext() as context:
        context.prec = 50
        exp, gelu, log = exact._tables()
        if name == "exp":
            return [(n, 2**15 * (Decimal(-i) / 256).exp()) for i, n in enumerate(exp)]
        if name == "log":
            two = Decimal(2).ln()
            return [(n, 1024 * (Decimal(i) + 1).ln() / two) for i, n in enumerate(log)]
        # erfc has no 50 digits here; math.erfc has 15, and needs 9.
        values = [i / 2 * math.erfc(-i / 1024 / math.sqrt(2)) for i in range(-8192, 8192)]
        return [(n, Decimal(v)) for n, v in zip(gelu, values, strict=True)]


@pytest.mark.parametrize("name", ["exp", "gelu", "log"])
def test_table_entries_are_the_nearest_integers_and_no_tie_is_near(name):
    """A mathematical library that is wrong in the tenth digit gives the same tables."""
    for entry, value in reference_table(name):
        assert abs(entry - value) < Decimal("0.5") - Decimal("1e-5")


def test_attention_forgets_what_is_masked():
    """The last weight of the table must be 0: a masked key counts as infinitely far."""
    exp, _, _ = exact._tables()
    assert exp[0] == 2**15
    assert exp[4095] == 0
    assert exp == sorted(exp, reverse=True)


def test_tables_of_another_library_are_refused(monkeypatch):
    exact._tables.cache_clear()
    try:
        monkeypatch.setattr(math, "log2", lambda x: math.log(x) / math.log(2) + 1e-3)
        with pytest.raises(ModelError, match="mathematical library is broken"):
            exact._tables()
    finally:
        monkeypatch.undo()
        exact._tables.cache_clear()


@given(integers())
def test_gelu_is_near_gelu(x):
    found = SINGLE.gelu(x)
    expected = nn.functional.gelu(x.double() / ONE) * ONE
    assert torch.equal(found, found.round())
    assert (found - expected).abs().max() <= 0.5001


def test_gelu_goes_on_as_0_and_as_itself():
    ends = torch.tensor([-LIMIT, -8193, 8191, 8192, LIMIT])
    assert SINGLE.gelu(ends).tolist() == [0, 0, 8191, 8192, LIMIT]


@given(integers())
def test_the_logarithm_is_near_the_logarithm(q):
    found = SINGLE.log(q)
    size = q.abs().clamp(max=4095).double()
    assert (found - q.sign() * (1 + size).log2() * ONE).abs().max() <= 0.5001


@given(integers())
def test_leaky_relu_is_near_leaky_relu(x):
    expected = nn.functional.leaky_relu(x.double())
    assert (exact.leaky_relu(x) - expected).abs().max() <= 0.5001


@given(integers(width=st.just(4)), integers(width=st.just(4)))
def test_sums_are_clipped(x, y):
    y = y[:1].expand_as(x)
    assert exact.add(x, y).abs().max() <= LIMIT
    near = (x + y).abs() <= LIMIT
    assert torch.equal(exact.add(x, y)[near], (x + y)[near])


def heads(x, parts):
    """Rows (windows * tokens, parts * 2 * 8) -> parts of (windows, 2 heads, tokens, 8)."""
    return x.reshape(len(x) // 6, 6, parts, 2, 8).permute(2, 0, 3, 1, 4)


attended = integers(rows=st.sampled_from([6, 12, 18]), width=st.just(48), limit=4096)


@few
@given(attended)
def test_attention_is_near_attention(x):
    q, k, v = heads(x, 3)
    found = SINGLE.attend(q.contiguous(), Keys.of(k, v), None)
    expected = nn.functional.scaled_dot_product_attention(*(p.double() / ONE for p in (q, k, v)))
    # Scores are off by 2 parts in 255 of the largest products, weights and values by 1 in 255.
    largest = q.abs().amax() * k.abs().amax() * 8**0.5 / ONE**2
    tolerance = v.abs().amax() * (1 / 100 + largest / 60).clamp(max=2) + 1
    assert (found - expected * ONE).abs().max() <= tolerance


@few
@given(attended)
def test_masked_and_absent_keys_give_the_same(x):
    """Why a decoder with a cache agrees with an encoder that sees the whole frame."""
    q, k, v = heads(x, 3)
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    whole = SINGLE.attend(q, Keys.of(k, v), mask)
    cache = Keys.of(k[:, :, :1], v[:, :, :1])
    for i in range(6):
        if i:
            cache = cache.then(Keys.of(k[:, :, i : i + 1], v[:, :, i : i + 1]))
        here = SINGLE.attend(q[:, :, i : i + 1], cache, None)
        assert torch.equal(here[:, :, 0], whole[:, :, i])


@few
@given(attended)
def test_windows_share_expanded_keys(x):
    q, k, v = heads(x, 3)
    one = Keys.of(k[:1], v[:1])
    whole = SINGLE.attend(q, one.expand(len(q)), None)
    assert torch.equal(whole[-1:], SINGLE.attend(q[-1:].contiguous(), one, None))
    assert torch.equal(DOUBLE.attend(q, one.expand(len(q)), None), whole)


def test_real_weights_become_fixed_point():
    x = torch.tensor([1.0, -0.5, 0.5 / ONE, 1.5 / ONE, 1e9, -1e9])
    assert exact.fixed(x).tolist() == [ONE, -ONE / 2, 0, 2, LIMIT, -LIMIT]


def test_the_known_answer():  # golden: a change here needs a new format version
    assert exact.known_answer(SINGLE) == exact.known_answer(DOUBLE) == 0x12E21FDE


def test_known_operands_are_the_same_everywhere():
    second = (1103527590 * 1103515245 + 12345) % 2**31
    found = exact.pseudo_random((1, 2), CPU)
    assert found.tolist() == [[1103527590 // 128 - 2**23, second // 128 - 2**23]]


@pytest.fixture
def fresh():
    """`select` as in a new process."""
    exact.select.cache_clear()
    yield
    exact.select.cache_clear()


def broken(monkeypatch, *products):
    """Make matrix products wrong by one in some types, as saturating kernels are."""
    matmul = Arithmetic.matmul

    def wrong(self, a, b, bound):
        return matmul(self, a, b, bound) + (self.product in products)

    monkeypatch.setattr(Arithmetic, "matmul", wrong)


@pytest.mark.usefixtures("fresh")
def test_a_sound_device_is_taken_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert exact.select("cpu").product == torch.float32
        assert exact.select("cpu") is exact.select("cpu")


@pytest.mark.usefixtures("fresh")
def test_a_device_that_fails_in_float32_is_used_in_float64_with_one_warning(monkeypatch):
    broken(monkeypatch, torch.float32)
    with pytest.warns(RuntimeWarning, match="does not compute exactly in float32") as caught:
        chosen = [exact.select("cpu") for _ in range(3)]
    assert len(caught) == 1
    assert {a.product for a in chosen} == {torch.float64}


@pytest.mark.usefixtures("fresh")
def test_a_device_that_fails_is_left_for_the_cpu(monkeypatch):
    """The meta device stands in for an accelerator that gives wrong numbers."""
    answer = exact.known_answer
    monkeypatch.setattr(
        exact, "known_answer", lambda a: 0 if a.device.type == "meta" else answer(a)
    )
    with pytest.warns(RuntimeWarning, match="meta does not compute exactly"):
        chosen = exact.select("meta")
    assert (chosen.device.type, chosen.product) == ("cpu", torch.float64)


@pytest.mark.usefixtures("fresh")
def test_a_machine_that_fails_altogether_is_refused(monkeypatch):
    broken(monkeypatch, torch.float32, torch.float64)
    with pytest.raises(ModelError, match="even in float64 on the CPU"):
        exact.select("cpu")


@pytest.mark.parametrize("part", ["gelu", "log", "attend"])
@pytest.mark.usefixtures("fresh")
def test_the_known_answer_covers_more_than_products(monkeypatch, part):
    sound = getattr(Arithmetic, part)
    monkeypatch.setattr(Arithmetic, part, lambda *args: sound(*args) + 1)
    with pytest.raises(ModelError, match="known-answer"):
        exact.select("cpu")


@pytest.mark.usefixtures("fresh")
def test_choosing_draws_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    exact.select("cpu")
    assert torch.equal(torch.rand(1), expected)
