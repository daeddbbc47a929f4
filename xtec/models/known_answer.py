"""Which arithmetic a device can be trusted with: it must give a known answer first.

Below: exact_layers. Above: engine.
"""

import math
import time
import warnings
import zlib
from functools import lru_cache

import torch
from torch import Tensor, nn

from xtec.errors import ModelError
from xtec.models.arithmetic import Arithmetic
from xtec.models.exact import ATTENTION_LIMIT, BYTE_LIMIT, LIMIT, Keys, leaky_relu
from xtec.models.exact_layers import LayerNorm, Linear, attend

KNOWN_CRC = 0x01BD0B9F
WORST = ((63, 4096), (BYTE_LIMIT, 1024), (BYTE_LIMIT, 4096), (ATTENTION_LIMIT, 128))
"""Operands and how many of them: sums near the end of what float32 holds, and beyond it."""
WIDE = 1536
"""Inputs of a layer whose sums are rounded to float32."""
TRIAL = 512, 768, 768
"""A product to time."""


@lru_cache
def select(device: str) -> Arithmetic:
    """The arithmetic of a device, once it has given the known answer.

    Bytes are taken where the device multiplies them rightly and faster than float32; without
    instructions for them some CPUs do neither. A device whose float32 products fail is tried in
    float64, then left for the CPU, with one warning.

    Raises
    ------
    ModelError
        Not even float64 on the CPU gives the known answer.
    """
    attempts = [(device, torch.float32), (device, torch.float64), ("cpu", torch.float64)]
    for number, (name, product) in enumerate(attempts):
        arithmetic = Arithmetic(torch.device(name), product)
        if known_answer(arithmetic) == KNOWN_CRC:
            if number:
                warnings.warn(
                    f"{device} does not compute exactly in float32; using {name} in {product}.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return arithmetic
            return _with_bytes(arithmetic)
    raise ModelError("this machine fails the known-answer test even in float64 on the CPU.")


def _with_bytes(plain: Arithmetic) -> Arithmetic:
    """Arithmetic with products of bytes, where they are right and faster."""
    other = Arithmetic(plain.device, torch.int8)
    try:
        if known_answer(other) == KNOWN_CRC and _seconds(other) < _seconds(plain):
            return other
    except RuntimeError:  # a device or a build of torch that has no such product
        pass
    return plain


def _seconds(arithmetic: Arithmetic) -> float:
    """The best of a few products."""
    rows, inner, outer = TRIAL
    kind = arithmetic.operands(63, inner, outer)
    a, b = (torch.ones(n, inner, dtype=kind, device=arithmetic.device) for n in (rows, outer))
    best = math.inf
    for _ in range(5):
        begin = time.perf_counter()
        int(arithmetic.matmul(a, b.T, 63)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - begin)
    return best


@torch.no_grad()
def known_answer(arithmetic: Arithmetic) -> int:
    """CRC-32 of every operation on worst-case and on pseudo-random operands."""
    crc = 0

    def absorb(x: Tensor) -> Tensor:
        nonlocal crc
        crc = zlib.crc32(x.cpu().to(torch.int64).numpy().tobytes(), crc)
        return x

    device, d, a = arithmetic.device, 64, arithmetic
    # Full-range operands of one sign are what saturating kernels for bytes get wrong.
    for limit, inner in WORST:
        kind = a.operands(limit, inner, 40)
        worst = torch.full((40, inner), float(limit), device=device).to(kind)
        absorb(a.matmul(worst, -worst.T, limit))
    x = pseudo_random((48, d), device) * (LIMIT / 2**24)
    layer = nn.Linear(d, 3 * d, device="meta")  # elsewhere it would draw random numbers
    layer.weight = nn.Parameter(pseudo_random((3 * d, d), device) / 2**26)
    layer.bias = nn.Parameter(pseudo_random((3 * d,), device) / 2**24)
    back = nn.Linear(3 * d, d, device="meta")
    back.weight, back.bias = nn.Parameter(layer.weight.T), nn.Parameter(layer.bias[:d])
    norm = nn.LayerNorm(d, device=device)
    norm.weight.copy_(pseudo_random((d,), device) / 2**22)
    n = absorb(LayerNorm(a, norm)(x.round()))
    absorb(a.log(n))
    for limit in (63, BYTE_LIMIT, 8191):
        there, home = (Linear(a, x, limit=limit) for x in (layer, back))
        y = absorb(leaky_relu(there(n)))
        absorb(home.added(there.activated(n, home), n))
        absorb(home(y))
        q, k, v = there.heads(n.view(3, 16, d), 3, 4)
        for causal in (False, True):
            absorb(attend(a, q, Keys(k, v), causal=causal))
    wide = nn.Linear(WIDE, 8, device="meta")
    wide.weight = nn.Parameter(pseudo_random((8, WIDE), device) / 2**26)
    wide.bias = nn.Parameter(torch.zeros(8, device=device))
    absorb(Linear(a, wide, limit=BYTE_LIMIT)(wide.weight.abs().mul(LIMIT).round()))
    return crc


def pseudo_random(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Integers from -2**23 to 2**23 that are the same everywhere."""
    count = math.prod(shape)
    values, state = [], 1
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        values.append(state // 2**7 - 2**23)
    return torch.tensor(values, dtype=torch.float32, device=device).reshape(shape)
