r"""The Fourier transform of eight real frames at once, for lengths that are powers of two.

A frame x of N samples is transformed as M = N/2 complex values z_n = x_2n + i x_(2n+1), with Z
their transform and W = exp(-2πi / N):

.. math::
    E_k = \tfrac12 (Z_k + \bar Z_{M-k}), \quad O_k = \tfrac1{2i} (Z_k - \bar Z_{M-k}), \quad
    X_k = E_k + W^k O_k, \quad \bar X_{M-k} = E_k - W^k O_k

The complex transform is in place: radix-4 butterflies in decimation in frequency (Gentleman and
Sande, 1966), the last three of its halvings at once in registers where their number is odd. That
leaves the bins in digit-reversed order, where gains can be applied as well as in any other: the
inverse is the same steps backwards, and nothing is ever reordered. See Van Loan, "Computational
Frameworks for the Fast Fourier Transform", 1992.

Eight frames lie next to each other, as the lanes of a vector (`lanes`): row n of a tile, of LANES
values, holds sample n of each. So z_n is two rows in a row, and so is every bin. Where a function
takes an offset, it is that of the first of LANES values in the flat tile.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocoder.engines.jit import jit

from .lanes import LANES, load, sqrt, store

_compile = jit({"contract", "nsz"}, inner=True)

_RE, _IM, _STEP = 0, LANES, 2 * LANES  # of a complex value, and from one to the next
_ROOT = np.float32(math.sqrt(0.5))
_ZERO = np.float32(0)


class Tables(NamedTuple):
    """What the transforms of one length have in common.

    Attributes:
        twiddles: cos and sin of the three twiddle factors of every butterfly, in the order of use.
        offsets: (M,), where each bin is in a tile.
        turns: (M / 2 + 1, 2), cos and sin of W^k.
    """

    twiddles: NDArray[np.float32]
    offsets: NDArray[np.int64]
    turns: NDArray[np.float32]


def suits(n_fft: int) -> bool:
    """Whether this transform can do n_fft samples: a power of two, at least 16."""
    return n_fft >= 16 and n_fft & (n_fft - 1) == 0


def tables(n_fft: int) -> Tables:
    """The tables for frames of n_fft samples."""
    half = n_fft // 2
    places = np.arange(half)
    twiddles, size = [], half
    while size > 2 and size != 8:
        turns = np.arange(size // 4)[:, None] * np.arange(1, 4) / size
        twiddles.append(_turns(turns).ravel())
        # Of the bins in a block, those that are r modulo 4 move to its r-th quarter.
        places = places.reshape(-1, size // 4, 4).swapaxes(1, 2).ravel()
        size //= 4
    return Tables(
        np.concatenate([*twiddles, np.empty(0, np.float32)]),
        _STEP * np.argsort(places),
        _turns(np.arange(half // 2 + 1) / n_fft),
    )


def _turns(turns: NDArray[np.float64]) -> NDArray[np.float32]:
    """cos and sin of -2π turns, on a new last axis."""
    angles = -2 * np.pi * turns
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)


@_compile
def forward(tile: Any, tables: Any, power: int, out: Any) -> None:
    """Twice the Fourier transform of eight frames in place, and |2X|^power.

    Args:
        tile: (n_fft, LANES).
        power: 1 or 2.
        out: (bins, LANES), magnitudes in the order of frequency.
    """
    half = tile.shape[0] // 2
    size, at = half, 0
    while size > 2 and size != 8:
        for start in range(0, half, size):
            _split(tile, _STEP * start, size // 4, tables.twiddles, at)
        at += 6 * (size // 4)
        size //= 4
    if size == 8:
        for start in range(0, half, 8):
            _eight(tile, _STEP * start, _RE, _IM)

    re, im = load(tile, _RE), load(tile, _IM)  # X_0 and X_M are real, and share a place
    first, last = re + im, re - im
    first, last = first + first, last + last
    store(tile, _RE, first)
    store(tile, _IM, last)
    store(out, 0, _magnitude(first * first, power))
    store(out, LANES * half, _magnitude(last * last, power))
    for k in range(1, half // 2 + 1):
        i, j = tables.offsets[k], tables.offsets[half - k]
        cos, sin = tables.turns[k, 0], tables.turns[k, 1]
        a_re, a_im, b_re, b_im = (
            load(tile, i + _RE),
            load(tile, i + _IM),
            load(tile, j + _RE),
            load(tile, j + _IM),
        )
        e_re, e_im = a_re + b_re, a_im - b_im
        o_re, o_im = a_im + b_im, b_re - a_re
        p_re, p_im = cos * o_re - sin * o_im, cos * o_im + sin * o_re
        a_re, a_im, b_re, b_im = e_re + p_re, e_im + p_im, e_re - p_re, p_im - e_im
        store(tile, i + _RE, a_re)
        store(tile, i + _IM, a_im)
        store(tile, j + _RE, b_re)
        store(tile, j + _IM, b_im)
        store(out, LANES * k, _magnitude(a_re * a_re + a_im * a_im, power))
        store(out, LANES * (half - k), _magnitude(b_re * b_re + b_im * b_im, power))


@_compile
def inverse(tile: Any, tables: Any, gains: Any) -> None:
    """n_fft times the inverse transform of gains * X, where the tile holds X; in place.

    Args:
        tile: (n_fft, LANES), of `forward`.
        gains: (bins, LANES), in the order of frequency.
    """
    half = tile.shape[0] // 2
    first = load(gains, 0) * load(tile, _RE)
    last = load(gains, LANES * half) * load(tile, _IM)
    store(tile, _RE, first + last)
    store(tile, _IM, first - last)
    for k in range(1, half // 2 + 1):
        i, j = tables.offsets[k], tables.offsets[half - k]
        cos, sin = tables.turns[k, 0], tables.turns[k, 1]
        g, h = load(gains, LANES * k), load(gains, LANES * (half - k))
        a_re, a_im = g * load(tile, i + _RE), g * load(tile, i + _IM)
        b_re, b_im = h * load(tile, j + _RE), h * load(tile, j + _IM)
        e_re, e_im = a_re + b_re, a_im - b_im
        p_re, p_im = a_re - b_re, a_im + b_im
        o_re, o_im = cos * p_re + sin * p_im, cos * p_im - sin * p_re
        store(tile, i + _RE, e_re - o_im)
        store(tile, i + _IM, e_im + o_re)
        store(tile, j + _RE, e_re + o_im)
        store(tile, j + _IM, o_re - e_im)

    size = half
    while size > 8 or size == 4:
        size //= 4
    if size == 8:
        for start in range(0, half, 8):
            _eight(tile, _STEP * start, _IM, _RE)  # parts swapped: the inverse
    else:
        size = 1
    at = tables.twiddles.shape[0]
    while size < half:
        at -= 6 * size
        for start in range(0, half, 4 * size):
            _join(tile, _STEP * start, size, tables.twiddles, at)
        size *= 4


@_compile
def _magnitude(power_spectrum: Any, power: int) -> Any:
    return sqrt(power_spectrum) if power == 1 else power_spectrum


@_compile
def _get(tile: Any, i: int) -> Any:
    return load(tile, i + _RE), load(tile, i + _IM)


@_compile
def _put(tile: Any, i: int, re: Any, im: Any) -> None:
    store(tile, i + _RE, re)
    store(tile, i + _IM, im)


@_compile
def _four(a: Any, b: Any, c: Any, d: Any) -> Any:
    """The transform of four complex values: a radix-4 butterfly."""
    s_re, s_im, d_re, d_im = a[0] + c[0], a[1] + c[1], a[0] - c[0], a[1] - c[1]
    u_re, u_im, v_re, v_im = b[0] + d[0], b[1] + d[1], b[0] - d[0], b[1] - d[1]
    return (
        (s_re + u_re, s_im + u_im),
        (d_re + v_im, d_im - v_re),
        (s_re - u_re, s_im - u_im),
        (d_re - v_im, d_im + v_re),
    )


@_compile
def _split(tile: Any, start: int, size: int, twiddles: Any, at: int) -> None:
    """One step of 4 * size values: radix-4 butterflies, then twiddle factors."""
    quarter = _STEP * size
    for n in range(size):
        i, t = start + _STEP * n, at + 6 * n
        j, k, l = i + quarter, i + 2 * quarter, i + 3 * quarter
        a, b, c, d = _four(_get(tile, i), _get(tile, j), _get(tile, k), _get(tile, l))
        _put(tile, i, a[0], a[1])
        cos, sin = twiddles[t], twiddles[t + 1]
        _put(tile, j, cos * b[0] - sin * b[1], cos * b[1] + sin * b[0])
        cos, sin = twiddles[t + 2], twiddles[t + 3]
        _put(tile, k, cos * c[0] - sin * c[1], cos * c[1] + sin * c[0])
        cos, sin = twiddles[t + 4], twiddles[t + 5]
        _put(tile, l, cos * d[0] - sin * d[1], cos * d[1] + sin * d[0])


@_compile
def _turned(tile: Any, i: int, twiddles: Any, at: int) -> Any:
    """A complex value of a tile times a conjugate twiddle factor, parts swapped."""
    re, im = load(tile, i + _RE), load(tile, i + _IM)
    cos, sin = twiddles[at], twiddles[at + 1]
    return cos * im - sin * re, cos * re + sin * im


@_compile
def _join(tile: Any, start: int, size: int, twiddles: Any, at: int) -> None:
    """The inverse of `_split`, times 4.

    With real and imaginary parts swapped before and after, a transform is its inverse.
    """
    quarter = _STEP * size
    for n in range(size):
        i, t = start + _STEP * n, at + 6 * n
        j, k, l = i + quarter, i + 2 * quarter, i + 3 * quarter
        first = load(tile, i + _IM), load(tile, i + _RE)
        b, c = _turned(tile, j, twiddles, t), _turned(tile, k, twiddles, t + 2)
        d = _turned(tile, l, twiddles, t + 4)
        a, b, c, d = _four(first, b, c, d)
        _put(tile, i, a[1], a[0])
        _put(tile, j, b[1], b[0])
        _put(tile, k, c[1], c[0])
        _put(tile, l, d[1], d[0])


@_compile
def _pair(tile: Any, i: int, re: int, im: int, even: Any, odd: Any) -> None:
    """Sum and difference of two complex vectors become a value and the fourth one after it."""
    store(tile, i + re, even[0] + odd[0])
    store(tile, i + im, even[1] + odd[1])
    store(tile, i + 4 * _STEP + re, even[0] - odd[0])
    store(tile, i + 4 * _STEP + im, even[1] - odd[1])


@_compile
def _value(tile: Any, i: int, re: int, im: int) -> Any:
    return load(tile, i + re), load(tile, i + im)


@_compile
def _eight(tile: Any, i: int, re: int, im: int) -> None:
    """The transform of eight values, whose parts are at `re` and `im`, in registers."""
    a = _value(tile, i, re, im), _value(tile, i + 2 * _STEP, re, im)
    b = _value(tile, i + 4 * _STEP, re, im), _value(tile, i + 6 * _STEP, re, im)
    even = _four(a[0], a[1], b[0], b[1])
    i += _STEP
    a = _value(tile, i, re, im), _value(tile, i + 2 * _STEP, re, im)
    b = _value(tile, i + 4 * _STEP, re, im), _value(tile, i + 6 * _STEP, re, im)
    odd = _four(a[0], a[1], b[0], b[1])
    i -= _STEP
    first, second, third = odd[1], odd[2], odd[3]
    _pair(tile, i, re, im, even[0], odd[0])
    turned = _ROOT * (first[0] + first[1]), _ROOT * (first[1] - first[0])
    _pair(tile, i + _STEP, re, im, even[1], turned)
    minus = _ZERO - second[0]
    _pair(tile, i + 2 * _STEP, re, im, even[2], (second[1], minus))
    turned = _ROOT * (third[1] - third[0]), -_ROOT * (third[0] + third[1])
    _pair(tile, i + 3 * _STEP, re, im, even[3], turned)
