r"""The Fourier transform of eight real frames at once, for lengths that are powers of two.

A frame x of N samples is transformed as M = N/2 complex values z_n = x_2n + i x_(2n+1), with Z
their transform and W = exp(-2πi / N):

.. math::
    E_k = \tfrac12 (Z_k + \bar Z_{M-k}), \quad O_k = \tfrac1{2i} (Z_k - \bar Z_{M-k}), \quad
    X_k = E_k + W^k O_k, \quad \bar X_{M-k} = E_k - W^k O_k

(Sorensen et al., 1987). The complex transform is in place: radix-4 butterflies with decimation in
frequency (Gentleman and Sande, 1966), and eight values at a time at the end if log2 M is odd. That
leaves the bins in digit-reversed order. Gains can be applied in any order, and the inverse is the
same steps backwards, so nothing is ever reordered. See Van Loan, "Computational Frameworks for the
Fast Fourier Transform", 1992.

Row n of a tile (N, LANES) holds sample n of each frame, so z_n is two consecutive rows, and so is
every bin. Offsets count floats in the flat tile. `forward` and `inverse` are for compiled callers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocoder.engines.jit import jit

from .lanes import LANES, Array, Index, Vector, kernel

_inner = jit({"contract", "nsz"}, inner=True)

_STEP = 2 * LANES  # from a complex value to the next


class Tables(NamedTuple):
    """The constants of the transforms of one length.

    Attributes:
        last: size of the transforms that remain after the radix-4 steps, 8 or 1.
        twiddles: cos and sin of the three twiddle factors of every butterfly, in the order of use.
        offsets: (M,), of each bin in a tile; bin 0 holds the real values of X_0 and X_M.
        turns: (M / 2 + 1, 2), real and imaginary part of -i W^k.
    """

    last: int
    twiddles: NDArray[np.float32]
    offsets: NDArray[np.int64]
    turns: NDArray[np.float32]


def suits(n_fft: int) -> bool:
    """Whether n_fft is a power of two and at least 16."""
    return n_fft >= 16 and n_fft & (n_fft - 1) == 0


def tables(n_fft: int) -> Tables:
    """The tables for frames of n_fft samples."""
    half = n_fft // 2
    places = np.arange(half)
    last = 8 if half.bit_length() % 2 == 0 else 1
    twiddles, size = [], half
    while size > last:
        turns = np.arange(size // 4)[:, None] * np.arange(1, 4) / size
        twiddles.append(_turns(turns).ravel())
        # Of the bins in a block, those that are r modulo 4 move to its r-th quarter.
        places = places.reshape(-1, size // 4, 4).swapaxes(1, 2).ravel()
        size //= 4
    return Tables(
        last,
        np.concatenate([*twiddles, np.empty(0, np.float32)]),
        _STEP * np.argsort(places),
        _turns(np.arange(half // 2 + 1) / n_fft + 0.25),
    )


def _turns(turns: NDArray[np.float64]) -> NDArray[np.float32]:
    """cos and sin of -2π turns, on a new last axis."""
    angles = -2 * np.pi * turns
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class _Complex:
    """Eight complex values known at run time."""

    re: Vector
    im: Vector

    def __add__(self, other: _Complex) -> _Complex:
        return _Complex(self.re + other.re, self.im + other.im)

    def __sub__(self, other: _Complex) -> _Complex:
        return _Complex(self.re - other.re, self.im - other.im)

    def __mul__(self, other: _Complex) -> _Complex:
        re = self.re * other.re - self.im * other.im
        return _Complex(re, self.re * other.im + self.im * other.re)

    def times_conjugate(self, other: _Complex) -> _Complex:
        re = self.re * other.re + self.im * other.im
        return _Complex(re, self.im * other.re - self.re * other.im)

    def scaled(self, factor: Vector | float) -> _Complex:
        return _Complex(self.re * factor, self.im * factor)

    def plus_i(self, other: _Complex) -> _Complex:
        """This + i * other."""
        return _Complex(self.re - other.im, self.im + other.re)

    def minus_i(self, other: _Complex) -> _Complex:
        """This - i * other."""
        return _Complex(self.re + other.im, self.im - other.re)


def _get(tile: Array, at: Index) -> _Complex:
    return _Complex(tile[at], tile[at + LANES])


def _put(tile: Array, at: Index, value: _Complex) -> None:
    tile[at], tile[at + LANES] = value.re, value.im


def _turn(turns: Array, at: Index) -> _Complex:
    return _Complex(turns.everywhere(at), turns.everywhere(at + 1))


def _transform(values: list[_Complex], inverse: bool = False) -> list[_Complex]:
    """The transform of four or eight values in registers, or its inverse times their number."""
    plus, minus = _Complex.plus_i, _Complex.minus_i
    if inverse:
        plus, minus = minus, plus
    if len(values) == 4:
        a, b, c, d = values
        s, t, u, v = a + c, a - c, b + d, b - d
        return [s + u, minus(t, v), s - u, plus(t, v)]
    even, odd = _transform(values[::2], inverse), _transform(values[1::2], inverse)
    root = math.sqrt(0.5)
    first, third = minus(odd[1], odd[1]).scaled(root), plus(odd[3], odd[3]).scaled(root)
    return [
        even[0] + odd[0],
        even[1] + first,
        minus(even[2], odd[2]),
        even[3] - third,
        even[0] - odd[0],
        even[1] - first,
        plus(even[2], odd[2]),
        even[3] + third,
    ]


@kernel
def _split(tile: Array, i: Index, quarter: Index, twiddles: Array, t: Index) -> None:
    """A butterfly of values `quarter` apart, then the twiddle factors."""
    places = [i + quarter * r for r in range(4)]
    values = _transform([_get(tile, place) for place in places])
    for r in range(1, 4):
        values[r] *= _turn(twiddles, t + 2 * (r - 1))
    for place, value in zip(places, values, strict=True):
        _put(tile, place, value)


@kernel
def _join(tile: Array, i: Index, quarter: Index, twiddles: Array, t: Index) -> None:
    """The inverse of `_split`, times 4."""
    places = [i + quarter * r for r in range(4)]
    values = [_get(tile, place) for place in places]
    for r in range(1, 4):
        values[r] = values[r].times_conjugate(_turn(twiddles, t + 2 * (r - 1)))
    for place, value in zip(places, _transform(values, inverse=True), strict=True):
        _put(tile, place, value)


@kernel
def _eight(tile: Array, i: Index) -> None:
    """The transform of eight values in a row."""
    places = [i + _STEP * n for n in range(8)]
    values = _transform([_get(tile, place) for place in places])
    for place, value in zip(places, values, strict=True):
        _put(tile, place, value)


@kernel
def _eight_inverse(tile: Array, i: Index) -> None:
    """The inverse of `_eight`, times 8."""
    places = [i + _STEP * n for n in range(8)]
    values = _transform([_get(tile, place) for place in places], inverse=True)
    for place, value in zip(places, values, strict=True):
        _put(tile, place, value)


@kernel
def _ends(tile: Array, out: Array, first: Index, last: Index) -> None:
    """2 X_0 and 2 X_M, which are real and share a place, from Z_0."""
    z = _get(tile, first)
    x = _Complex(z.re + z.im, z.re - z.im).scaled(2.0)
    _put(tile, first, x)
    out[first], out[last] = x.re * x.re, x.im * x.im


@kernel
def _ends_inverse(tile: Array, gains: Array, first: Index, last: Index) -> None:
    """2 Z_0 from X_0 and X_M times their gains."""
    x = _get(tile, first)
    x = _Complex(x.re * gains[first], x.im * gains[last])
    _put(tile, first, _Complex(x.re + x.im, x.re - x.im))


@kernel
def _untangle(
    tile: Array, i: Index, j: Index, turns: Array, t: Index, out: Array, k: Index, m: Index
) -> None:
    """2 X_k and 2 X_(M-k), at i and j, from Z_k and Z_(M-k); their powers, at k and m."""
    z, y = _get(tile, i), _get(tile, j)
    even = _Complex(z.re + y.re, z.im - y.im)
    odd = _Complex(z.re - y.re, z.im + y.im) * _turn(turns, t)  # 2i O_k times -i W^k
    x, y = even + odd, _Complex(even.re - odd.re, odd.im - even.im)
    _put(tile, i, x)
    _put(tile, j, y)
    out[k], out[m] = x.re * x.re + x.im * x.im, y.re * y.re + y.im * y.im


@kernel
def _tangle(
    tile: Array, i: Index, j: Index, turns: Array, t: Index, gains: Array, k: Index, m: Index
) -> None:
    """2 Z_k and 2 Z_(M-k), at i and j, from X_k and X_(M-k) times their gains, at k and m."""
    x, y = _get(tile, i).scaled(gains[k]), _get(tile, j).scaled(gains[m])
    even = _Complex(x.re + y.re, x.im - y.im)
    odd = _Complex(x.re - y.re, x.im + y.im).times_conjugate(_turn(turns, t))
    _put(tile, i, even + odd)
    _put(tile, j, _Complex(even.re - odd.re, odd.im - even.im))


@_inner
def forward(tile: Any, tables: Any, out: Any) -> None:
    """Twice the Fourier transform of eight frames, in place, and its power |2X|².

    Args:
        tile: (n_fft, LANES).
        out: (bins, LANES), in the order of frequency.
    """
    half = tile.shape[0] // 2
    size, at = half, 0
    while size > tables.last:
        quarter = size // 4
        for start in range(0, half, size):
            for n in range(quarter):
                i = _STEP * (start + n)
                _split(tile, i, _STEP * quarter, tables.twiddles, at + 6 * n)
        at += 6 * quarter
        size = quarter
    if tables.last == 8:
        for start in range(0, half, 8):
            _eight(tile, _STEP * start)

    _ends(tile, out, 0, LANES * half)
    for k in range(1, half // 2 + 1):
        i, j = tables.offsets[k], tables.offsets[half - k]
        _untangle(tile, i, j, tables.turns, 2 * k, out, LANES * k, LANES * (half - k))


@_inner
def inverse(tile: Any, tables: Any, gains: Any) -> None:
    """n_fft times the inverse transform of gains * X, where the tile holds X; in place.

    Args:
        tile: (n_fft, LANES), of `forward`.
        gains: (bins, LANES), in the order of frequency.
    """
    half = tile.shape[0] // 2
    _ends_inverse(tile, gains, 0, LANES * half)
    for k in range(1, half // 2 + 1):
        i, j = tables.offsets[k], tables.offsets[half - k]
        _tangle(tile, i, j, tables.turns, 2 * k, gains, LANES * k, LANES * (half - k))

    quarter, at = tables.last, tables.twiddles.shape[0]
    if quarter == 8:
        for start in range(0, half, 8):
            _eight_inverse(tile, _STEP * start)
    while quarter < half:
        at -= 6 * quarter
        for start in range(0, half, 4 * quarter):
            for n in range(quarter):
                i = _STEP * (start + n)
                _join(tile, i, _STEP * quarter, tables.twiddles, at + 6 * n)
        quarter *= 4
