"""Powers of two, fast on a processor.

On the CPU, MLX computes `exp` one number at a time, about 11 ns each: in attention, in the gate of the MLP and in the
loss that is more time than all matrix products of a small model take. What is here is made of operations that run over
whole vectors. On a GPU MLX's own `exp` is fast, and is taken.
"""

from __future__ import annotations

import math

import mlx.core as mx

LOG2E = math.log2(math.e)

# 2^f for f in [-1/2, 1/2]: the Taylor series at 0, whose seventh term is below half of a float32's last bit.
_TERMS = tuple(math.log(2) ** n / math.factorial(n) for n in range(7))
_ROUND = 1.5 * 2.0**23  # added and taken away again, it leaves a float32 rounded to a whole number


def on_cpu() -> bool:
    """Whether MLX computes on the processor."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def exp2(z: mx.array) -> mx.array:
    """2^z, float32, within 3e-7 relative; 0 below 2^-126, and wrong for a z of 128 or more.

    Args:
        z: float32, any shape. Any number down to -3e38, but no infinity.
    """
    return _power_of_two(z) if on_cpu() else mx.exp(z * (1.0 / LOG2E))


def exp(x: mx.array) -> mx.array:
    """e^x of a float32, as `exp2`; x·log2(e) is rounded, which is up to 1e-7·|x| of the result."""
    return _power_of_e(x) if on_cpu() else mx.exp(x)


def _by_parts(z: mx.array) -> mx.array:
    """2^z = 2^k · 2^f with k whole and |f| <= 1/2: k becomes the exponent's bits, 2^f a polynomial."""
    k = (z + _ROUND) - _ROUND
    f = z - k
    mantissa = f * _TERMS[6] + _TERMS[5]
    for term in _TERMS[4::-1]:
        mantissa = mantissa * f + term
    exponent = mx.clip((k + 127.0).astype(mx.int32), 0, 254) * (1 << 23)
    return mantissa * exponent.view(mx.float32)


_power_of_two = mx.compile(_by_parts)
_power_of_e = mx.compile(lambda x: _by_parts(x * LOG2E))


@mx.custom_function
def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """gate · σ(gate) · x, by float32, in the dtype of `x`. The backward pass keeps what went in, and nothing else."""
    wide = gate.astype(mx.float32)
    return (wide / (1.0 + exp(-wide)) * x).astype(x.dtype)


@swiglu.vjp
def _pull_swiglu(primals: list[mx.array], dy: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
    gate, x = mx.depends(primals, [dy])  # another array for the compiler, which would keep the forward pass's results
    wide = gate.astype(mx.float32)
    share = 1.0 / (1.0 + exp(-wide))
    active = wide * share
    return (dy * x * (share + active * (1.0 - share))).astype(gate.dtype), (dy * active).astype(x.dtype)
