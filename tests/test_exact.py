"""Exact arithmetic: one answer, however a product is cut, ordered or carried out."""

import copy
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
from xtec.models import exact, known_answer
from xtec.models.arithmetic import Arithmetic
from xtec.models.exact import LIMIT, ONE, Keys
from xtec.models.exact_compiled import Compiled
from xtec.models.exact_layers import LayerNorm, Linear, Mlp, attend, split, tamed

CPU = torch.device("cpu")
SINGLE = Arithmetic(CPU, compiled=False)
WAYS = {
    f"{str(product).removeprefix('torch.')}, {'compiled' if compiled else 'tensors'}": Arithmetic(
        CPU, product, compiled=compiled
    )
    for product in (torch.int8, torch.float32, torch.float64)
    for compiled in (False, True)
}
BYTES_ARE_SOUND = known_answer.known_answer(Arithmetic(CPU, torch.int8)) == known_answer.KNOWN_CRC
if not BYTES_ARE_SOUND:  # as on CPUs whose products of bytes saturate
    WAYS = {name: way for name, way in WAYS.items() if way.product != torch.int8}


few_rows, any_width = st.integers(1, 9), st.integers(1, 40) | st.sampled_from([64, 192, 296])


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
    inner = st.just(data.draw(any_width))
    a = data.draw(integers(width=inner, limit=limit))
    b = data.draw(integers(rows=few_rows | st.just(64), width=inner, limit=limit))
    expected = a.numpy().astype(np.int64) @ b.numpy().astype(np.int64).T
    for arithmetic in WAYS.values():
        kind = arithmetic.operands(limit, a.shape[1], len(b))
        found = arithmetic.matmul(a.to(kind), b.to(kind).T, limit)
        assert found.to(torch.int64).tolist() == expected.tolist()


@given(st.data(), st.sampled_from(sorted(WAYS)))
def test_a_product_depends_on_no_order_and_no_company(data, way):
    arithmetic = WAYS[way]
    a = data.draw(integers(limit=127))
    inner = st.just(a.shape[1])
    b = data.draw(integers(rows=few_rows | st.just(64), width=inner, limit=127))
    kind = arithmetic.operands(127, a.shape[1], len(b))
    a, b = a.to(kind), b.to(kind).T
    whole = arithmetic.matmul(a, b, 127)
    order = torch.tensor(data.draw(st.permutations(range(a.shape[1]))))
    assert torch.equal(arithmetic.matmul(a[:, order], b[order], 127), whole)
    rows = torch.tensor(data.draw(st.permutations(range(len(a)))))
    assert torch.equal(arithmetic.matmul(a[rows], b, 127), whole[rows])
    for i in range(len(a)):
        assert torch.equal(arithmetic.matmul(a[i : i + 1], b, 127)[0], whole[i])
    cut = data.draw(st.integers(0, a.shape[1] // 8)) * 8
    parts = [
        (a[:, here].contiguous(), b[here].T.contiguous().T)
        for here in (slice(cut), slice(cut, None))
        if len(b[here])
    ]
    assert torch.equal(
        sum(arithmetic.matmul(*part, 127).double() for part in parts), whole.double()
    )


@pytest.mark.parametrize(
    ("limit", "inner"), [(63, 4096), (127, 1024), (127, 4096), (127, 99_000), (255, 258)]
)
@pytest.mark.parametrize("way", WAYS)
def test_the_largest_sums_are_exact(way, limit, inner):
    kind = WAYS[way].operands(limit, inner, 8)
    a = torch.full((8, inner), float(limit)).to(kind)
    assert WAYS[way].matmul(a, a.T, limit).unique().tolist() == [limit**2 * inner]
    a[0, 0] -= 1  # the last digit counts
    assert WAYS[way].matmul(a, a.T, limit)[1, 0] == limit**2 * inner - limit


def test_what_carries_a_product():
    bytes_, single = Arithmetic(CPU, torch.int8), Arithmetic(CPU)
    assert bytes_.operands(127, 768, 8) == torch.int8
    assert single.operands(127, 768, 8) == torch.float32
    # Operands of more bits, sums that neither 32 bits nor float32 hold, odd shapes.
    assert bytes_.operands(255, 128, 8) == torch.float32
    assert bytes_.operands(255, 260, 8) == bytes_.operands(127, 2**18, 8) == torch.float64
    assert bytes_.operands(127, 768, 5) == bytes_.operands(127, 1, 8) == torch.float32


def test_sums_that_nothing_can_hold_are_refused():
    with pytest.raises(ModelError, match=r"too large to be exact"):
        SINGLE.carrier(2**20, 2**13)
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
    weight = torch.randn(150, 7, generator=torch.Generator().manual_seed(seed)) * size
    weight[0] = 0
    whole, largest = exact.quantise_weights(weight.split([5, 145]), 63, torch.int8, CPU)
    assert whole.shape == weight.shape
    assert whole.abs().max() <= 63
    assert (largest >= 2.0**-40).all()
    assert whole[0].abs().max() == 0
    error = (whole.double() * largest / 63 - weight).abs()
    assert (error <= 0.5001 * largest / 63).all()


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
    apart = [Linear(SINGLE, layer, limit=limit)(x) for layer in layers]
    assert torch.equal(torch.cat(apart, 1), whole)
    rows = torch.tensor(data.draw(st.permutations(range(len(x)))))
    assert torch.equal(Linear(SINGLE, *layers, limit=limit)(x[rows]), whole[rows])


def test_only_far_larger_gains_are_tamed():
    norm = nn.LayerNorm(8)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 1.9, 0.6, -1.1, 3.9, -4.1, 33.0, 0.0]))
        assert tamed(norm).tolist() == [1, 1, 1, 1, 1, 2, 4, 1]
        norm.bias[1] = -(2.0**40)
        assert tamed(norm).tolist() == [1, 256, 1, 1, 1, 1, 4, 1]


def test_a_gain_that_some_machines_flush_to_0_is_tamed_as_0_is():
    flushed, kept = nn.LayerNorm(8), nn.LayerNorm(8)
    with torch.no_grad():
        for norm, tiny in ((flushed, 0.0), (kept, 1e-40)):
            norm.weight.copy_(torch.tensor([tiny] * 5 + [0.3, 1.0, 8.0]))
    assert tamed(flushed).tolist() == tamed(kept).tolist() == [1, 1, 1, 1, 1, 256, 256, 256]


@given(integers(width=st.just(16)), st.sampled_from([63, 8191]))
def test_a_tamed_norm_and_what_follows_are_the_same_layers(x, limit):
    norm, layer = nn.LayerNorm(16), linear(16, 24, 3)
    by = 2.0 ** (torch.arange(16) % 4)
    with torch.no_grad():
        norm.weight.mul_(by)
        plain = LayerNorm(SINGLE, norm)(x)
        n = LayerNorm(SINGLE, norm, by)(x)
        assert (n * by - plain).abs().max() <= by.max()
        folded = copy.deepcopy(layer)
        folded.weight.mul_(by)
        found = Linear(SINGLE, layer, limit=limit, inputs=by)(n)
    assert torch.equal(found, Linear(SINGLE, folded, limit=limit)(n))


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
    found = SINGLE.steps.gelu(x)
    expected = nn.functional.gelu(x.double() / ONE) * ONE
    assert torch.equal(found, found.round())
    assert (found - expected).abs().max() <= 0.5001


def test_gelu_goes_on_as_0_and_as_itself():
    ends = torch.tensor([-LIMIT, -8193, 8191, 8192, LIMIT])
    assert SINGLE.steps.gelu(ends).tolist() == [0, 0, 8191, 8192, LIMIT]


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


attended = integers(rows=st.sampled_from([6, 12, 18]), width=st.just(48), limit=4096)


def heads(x, way=SINGLE):
    """Rows (windows * tokens, 3 * 16) -> queries, keys and values of two heads."""
    x = x.reshape(-1, 6, 3, 16)
    q, k, v = (split(way, x[:, :, part].contiguous(), 2) for part in range(3))
    return q, Keys(k, v)


def tokens(keys, here):
    """Some tokens of a memory."""
    parts = (
        exact.Quantised(q.integers[:, :, here], q.largest[:, :, here])
        for q in (keys.keys, keys.values)
    )
    return Keys(*parts)


@pytest.mark.parametrize("way", WAYS)
def test_wide_sums_are_rounded_once(way):
    """Beyond 2**24 float32 holds no sum: all ways round the exact one, half to even."""
    layer = linear(2048, 8, 3)
    x = torch.full((1, 2048), float(ONE))
    x[0, ::2] -= 3
    with torch.no_grad():
        layer.weight.abs_().mul_(0.05).add_(1)
        made = Linear(WAYS[way], layer, limit=127)
        xi, largest = exact.quantise(x, 127)
        sums = xi.double() @ made.weight.double().T
    assert sums.max() > exact.EXACT_FLOAT32
    y = sums.float() * largest * made.scale + made.bias
    assert torch.equal(made(x), y.round().clamp(-LIMIT, LIMIT))


@few
@given(attended)
def test_attention_is_near_attention(x):
    q, k, v = x.reshape(-1, 6, 3, 2, 8).permute(2, 0, 3, 1, 4)
    found = attend(SINGLE, *heads(x)).unflatten(-1, (2, 8)).transpose(1, 2)
    expected = nn.functional.scaled_dot_product_attention(*(p.double() / ONE for p in (q, k, v)))
    # Scores are off by 2 parts in 255 of the largest products, weights and values by 1 in 255.
    largest = q.abs().amax() * k.abs().amax() * 8**0.5 / ONE**2
    tolerance = v.abs().amax() * (1 / 100 + largest / 60).clamp(max=2) + 1
    assert (found - expected * ONE).abs().max() <= tolerance


@few
@given(attended, st.sampled_from(sorted(WAYS)))
def test_later_and_absent_keys_give_the_same(x, way):
    """Why a decoder with a cache agrees with an encoder that sees the whole frame."""
    q, keys = heads(x)
    whole = attend(WAYS[way], q, keys, causal=True)
    cache = tokens(keys, slice(0, 1))
    for i in range(6):
        here = slice(i, i + 1)
        if i:
            cache = cache.then(tokens(keys, here))
        query = exact.Quantised(q.integers[:, :, here], q.largest[:, :, here])
        assert torch.equal(attend(WAYS[way], query, cache)[:, 0], whole[:, i])


@few
@given(attended, st.sampled_from(sorted(WAYS)))
def test_windows_share_one_memory(x, way):
    q, keys = heads(x)
    first = Keys(*(exact.Quantised(p.integers[:1], p.largest[:1]) for p in vars(keys).values()))
    together = Keys.together([first] * len(q.integers))
    assert torch.equal(attend(WAYS[way], q, first), attend(WAYS[way], q, together))


@few
@given(integers(rows=st.sampled_from([1, 6, 12]), width=st.just(48)), st.sampled_from([63, 127]))
def test_every_way_gives_the_same_integers(x, limit):
    """Of each step between the products, whatever they are carried in."""
    layers = linear(48, 96, 1), linear(96, 48, 2)
    norm = nn.LayerNorm(48)
    with torch.no_grad():
        norm.weight.normal_(1, 0.2)

    def everything(way):
        there, back = (Linear(way, layer, limit=limit) for layer in layers)
        mlp = Mlp(way, *layers, limit)
        n = LayerNorm(way, norm)(x)
        yield from (n, there(x), back.added(there(n), x), mlp(n), mlp.added(n, x))
        yield back.quantised(there(x)).integers.float()
        (q, k) = there.heads(n[None], 2, 2)
        yield from (q.integers, k.integers, q.largest, k.largest)
        for causal in (False, True):
            yield attend(way, q, Keys(k, q), causal=causal)
        yield there.outputs(5, 9)(x)
        yield there.outputs(0, 0)(x)

    with torch.no_grad():
        expected = list(everything(SINGLE))
        for way in WAYS.values():
            for found, same in zip(everything(way), expected, strict=True):
                assert torch.equal(found, same)


@few
@given(integers(width=st.just(48)), st.integers(0, 5))
def test_an_mlp_is_near_its_float_self(x, seed):
    x = x.clamp(-ONE * 8, ONE * 8)
    fc1, fc2 = linear(48, 20, seed), linear(20, 48, seed + 1)
    found = Mlp(SINGLE, fc1, fc2, 127)(x)
    expected = fc2(nn.functional.gelu(fc1(x / ONE))) * ONE
    assert (found - expected).abs().max() <= 0.05 * expected.abs().max() + 0.5 * ONE


def test_real_weights_become_fixed_point():
    x = torch.tensor([1.0, -0.5, 0.5 / ONE, 1.5 / ONE, 1e9, -1e9])
    assert exact.fixed(x).tolist() == [ONE, -ONE / 2, 0, 2, LIMIT, -LIMIT]


@pytest.mark.parametrize("way", WAYS)
def test_the_known_answer(way):
    assert known_answer.known_answer(WAYS[way]) == known_answer.KNOWN_CRC


def test_known_operands_are_the_same_everywhere():
    second = (1103527590 * 1103515245 + 12345) % 2**31
    found = known_answer.pseudo_random((1, 2), CPU)
    assert found.tolist() == [[1103527590 // 128 - 2**23, second // 128 - 2**23]]


@pytest.fixture
def fresh():
    """`select` as in a new process."""
    known_answer.select.cache_clear()
    yield
    known_answer.select.cache_clear()


def broken(monkeypatch, *products):
    """Make matrix products wrong by one in some types, as saturating kernels are."""
    matmul = Arithmetic.matmul

    def wrong(self, *args):
        return matmul(self, *args) + (self.product in products)

    monkeypatch.setattr(Arithmetic, "matmul", wrong)


def fastest(monkeypatch, product):
    monkeypatch.setattr(known_answer, "_seconds", lambda a: float(a.product != product))


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("product", [torch.float32, torch.int8])
def test_a_sound_device_is_taken_without_a_word_in_what_is_faster(monkeypatch, product):
    if product == torch.int8 and not BYTES_ARE_SOUND:
        pytest.skip("this CPU's products of bytes saturate")
    fastest(monkeypatch, product)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert known_answer.select("cpu").product == product
        assert known_answer.select("cpu") is known_answer.select("cpu")


@pytest.mark.usefixtures("fresh")
def test_wrong_products_of_bytes_are_not_taken(monkeypatch):
    fastest(monkeypatch, torch.int8)
    broken(monkeypatch, torch.int8)
    assert known_answer.select("cpu").product == torch.float32


@pytest.mark.usefixtures("fresh")
def test_a_device_without_products_of_bytes_is_no_trouble(monkeypatch):
    def missing(*_):
        raise RuntimeError("no such product")

    monkeypatch.setattr(Arithmetic, "_bytes", missing)
    assert known_answer.select("cpu").product == torch.float32


@pytest.mark.usefixtures("fresh")
def test_a_device_that_fails_in_float32_is_used_in_float64_with_one_warning(monkeypatch):
    broken(monkeypatch, torch.float32, torch.int8)
    with pytest.warns(RuntimeWarning, match="does not compute exactly in float32") as caught:
        chosen = [known_answer.select("cpu") for _ in range(3)]
    assert len(caught) == 1
    assert {a.product for a in chosen} == {torch.float64}


@pytest.mark.usefixtures("fresh")
def test_a_device_that_fails_is_left_for_the_cpu(monkeypatch):
    """The meta device stands in for an accelerator that gives wrong numbers."""
    answer = known_answer.known_answer
    monkeypatch.setattr(
        known_answer, "known_answer", lambda a: 0 if a.device.type == "meta" else answer(a)
    )
    with pytest.warns(RuntimeWarning, match="meta does not compute exactly"):
        chosen = known_answer.select("meta")
    assert (chosen.device.type, chosen.product) == ("cpu", torch.float64)


@pytest.mark.usefixtures("fresh")
def test_a_machine_that_fails_altogether_is_refused(monkeypatch):
    broken(monkeypatch, torch.int8, torch.float32, torch.float64)
    with pytest.raises(ModelError, match="even in float64 on the CPU"):
        known_answer.select("cpu")


STEPS = ["quantise", "normalise", "fixed", "added", "activated", "heads", "soften", "merge"]


@pytest.mark.parametrize("part", ["log", *STEPS])
@pytest.mark.usefixtures("fresh")
def test_the_known_answer_covers_more_than_products(monkeypatch, part):
    owner = Arithmetic if part == "log" else Compiled
    sound = getattr(owner, part)
    monkeypatch.setattr(owner, part, lambda *args, **named: spoilt(sound(*args, **named)))
    with pytest.raises(ModelError, match="known-answer"):
        known_answer.select("cpu")


def spoilt(found):
    """A result with its first tensor off by one."""
    if isinstance(found, torch.Tensor):
        return found + 1
    if isinstance(found, exact.Quantised):
        return exact.Quantised(found.integers, found.largest * 2)
    return (spoilt(found[0]), *found[1:])


@pytest.mark.usefixtures("fresh")
def test_choosing_draws_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    known_answer.select("cpu")
    assert torch.equal(torch.rand(1), expected)
