"""What the compiled loops of the autoregressive models are made of: numba, float32, one core.

Imported on first use, since compilation takes some seconds (see `vocoder.engines.jit`). Matrices
are (in, out), so that inner loops run along memory; sums are contracted to fused multiply-adds and
otherwise keep the written order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .jit import jit

Floats = NDArray[np.float32]

# A Python float among float32 values would make numba compute in float64.
_ZERO = np.float32(0)
_HALF = np.float32(0.5)
_ONE = np.float32(1)
_TWO = np.float32(2)
_QUARTER = np.float32(0.25)
_SATURATED = np.float32(9)
# Numerator and denominator of the [5/6] Pade approximant of tanh, from Lambert's fraction.
_P2, _P4 = np.float32(1260 / 10395), np.float32(21 / 10395)
_Q2, _Q4, _Q6 = np.float32(4725 / 10395), np.float32(210 / 10395), np.float32(1 / 10395)


def array(tensor: Tensor) -> Floats:
    """A tensor's values as a contiguous float32 array on the CPU."""
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())


_compile = jit({"contract", "nsz"})


@_compile
def tanh(x: Any) -> Any:
    """tanh to 3e-7, without a branch or a call, so that loops over it become vector code.

    The Pade approximant p/q of tanh(x/4), then tanh 2u = 2 tanh u / (1 + tanh^2 u) twice; all of
    it in numerators and denominators, for one division.
    """
    u = _QUARTER * min(max(x, -_SATURATED), _SATURATED)
    v = u * u
    p = u * (_ONE + v * (_P2 + v * _P4))
    q = _ONE + v * (_Q2 + v * (_Q4 + v * _Q6))
    s = _TWO * p * q
    c = p * p + q * q
    return _TWO * s * c / (s * s + c * c)


@_compile
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), by way of `tanh`."""
    return _HALF + _HALF * tanh(_HALF * x)


# Loops run over whole vectors: with an offset in the index, numba tests each index for being
# negative, and does not vectorise.


@_compile
def copy(x: Any, y: Any) -> None:
    """y = x."""
    for c in range(x.shape[0]):
        y[c] = x[c]


@_compile
def add(x: Any, y: Any) -> None:
    """y += x."""
    for c in range(x.shape[0]):
        y[c] += x[c]


@_compile
def rectify(x: Any) -> None:
    """x = max(x, 0)."""
    for c in range(x.shape[0]):
        x[c] = max(x[c], _ZERO)


@_compile
def gate(a: Any, b: Any, y: Any) -> None:
    """y = tanh(a) * sigmoid(b)."""
    for c in range(y.shape[0]):
        y[c] = tanh(a[c]) * sigmoid(b[c])


@_compile
def multiply_add(x: Any, w: Any, y: Any, first: int, rows: int) -> None:
    """y[first + r] += x[r] @ w for r < rows; x (.., in), w (in, out), y (.., out).

    Four rows and four inputs at a time: w is the largest operand, so it is read once for as many
    rows as fit in registers.
    """
    n, m = w.shape
    fours = n - n % 4
    r = 0
    while r + 4 <= rows:
        a, b, c, d = y[first + r], y[first + r + 1], y[first + r + 2], y[first + r + 3]
        for i in range(0, fours, 4):
            a0, a1, a2, a3 = x[r, i], x[r, i + 1], x[r, i + 2], x[r, i + 3]
            b0, b1, b2, b3 = x[r + 1, i], x[r + 1, i + 1], x[r + 1, i + 2], x[r + 1, i + 3]
            c0, c1, c2, c3 = x[r + 2, i], x[r + 2, i + 1], x[r + 2, i + 2], x[r + 2, i + 3]
            d0, d1, d2, d3 = x[r + 3, i], x[r + 3, i + 1], x[r + 3, i + 2], x[r + 3, i + 3]
            for o in range(m):
                w0, w1, w2, w3 = w[i, o], w[i + 1, o], w[i + 2, o], w[i + 3, o]
                a[o] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                b[o] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                c[o] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                d[o] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
        r += 4
    while r < rows:
        a = y[first + r]
        for i in range(0, fours, 4):
            a0, a1, a2, a3 = x[r, i], x[r, i + 1], x[r, i + 2], x[r, i + 3]
            for o in range(m):
                a[o] += a0 * w[i, o] + a1 * w[i + 1, o] + a2 * w[i + 2, o] + a3 * w[i + 3, o]
        r += 1
    for i in range(fours, n):
        for r in range(rows):
            for o in range(m):
                y[first + r, o] += x[r, i] * w[i, o]


@_compile
def interpolate(frames: Any, frame: int, weights: Any, j: int, begin: int, out: Any) -> None:
    """out = channels from ``begin`` on of sample j of a frame, as in `LinearUpsampling`.

    ``frames`` (frames + 2, channels) begin one frame earlier.
    """
    # One of the two neighbours has weight 0.
    own = frames[frame + 1][begin:]
    other = frames[frame if weights[0, j] > 0 else frame + 2][begin:]
    weight, share = weights[1, j], max(weights[0, j], weights[2, j])
    for o in range(out.shape[0]):
        out[o] = weight * own[o] + share * other[o]
