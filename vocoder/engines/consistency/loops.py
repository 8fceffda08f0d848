"""The loops between the Fourier transforms, in machine code: numba, float32, one core.

Imported on first use. `vocoder.engines.compiled` says how such loops are written.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vocoder.audio.consistency import MAX_STEP
from vocoder.engines.jit import jit

# A Python float among float32 values would make numba compute in float64.
_ZERO, _ONE, _HALF, _EIGHT = np.float32(0), np.float32(1), np.float32(0.5), np.float32(8)
_NEXT = np.uint32(1)  # unsigned, or numba tests each index for being negative
_MAX_RATIO = np.float32(math.exp(MAX_STEP))
_MIN_RATIO = np.float32(math.exp(-MAX_STEP))
_QUARTER = np.float32(0.25)
_E2, _E3, _E4, _E5, _E6, _E7, _E8 = (np.float32(1 / math.factorial(n)) for n in range(2, 9))
_L3, _L5, _L7, _L9, _L11 = (np.float32(1 / n) for n in (3, 5, 7, 9, 11))


_compile = jit({"contract", "nsz", "reassoc"})  # reassociated, sums become vector code


@_compile
def cut(w: Any, distance: int, window: Any, frames: Any, count: int) -> None:
    """frames[k] = windowed samples of w from k * distance on."""
    for k in range(count):
        samples, frame = w[k * distance :], frames[k]
        for n in range(window.shape[0]):
            frame[n] = samples[n] * window[n]


@_compile
def add(frames: Any, distance: int, window: Any, y: Any, count: int) -> None:
    """The adjoint of `cut`: y from k * distance on += windowed frames[k]."""
    for k in range(count):
        samples, frame = y[k * distance :], frames[k]
        for n in range(window.shape[0]):
            samples[n] += frame[n] * window[n]


@_compile
def _magnitudes(spectrum: Any, power: int, out: Any) -> None:
    """out = |X|^power of interleaved real and imaginary parts."""
    if power == 1:
        for f in range(out.shape[0]):
            re, im = spectrum[2 * f], spectrum[2 * f + 1]
            out[f] = np.sqrt(re * re + im * im)
    else:
        for f in range(out.shape[0]):
            re, im = spectrum[2 * f], spectrum[2 * f + 1]
            out[f] = re * re + im * im


@_compile
def _dot(a: Any, b: Any) -> Any:
    """Sum of a * b."""
    total = _ZERO
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@_compile
def _ratios(bands: Any, target: Any, floor: Any, power: int, r: Any) -> None:
    """r = log(target / max(bands, floor)) / power, clamped.

    The ratio's fourth root y is near 1: log y = 2 artanh((y - 1) / (y + 1)), by its series.
    """
    for m in range(bands.shape[0]):
        ratio = target[m] / max(bands[m], floor)
        if power == 2:
            ratio = np.sqrt(ratio)
        y = np.sqrt(np.sqrt(min(max(ratio, _MIN_RATIO), _MAX_RATIO)))
        s = (y - _ONE) / (y + _ONE)
        q = s * s
        series = _L3 + q * (_L5 + q * (_L7 + q * (_L9 + q * _L11)))
        r[m] = _EIGHT * s * (_ONE + q * series)


@_compile
def _interpolate(r: Any, lower: Any, own: Any, other: Any, gains: Any) -> None:
    """gains[f] = own[f] * r[lower[f]] + other[f] * r[lower[f] + 1]."""
    for f in range(gains.shape[0]):
        m = lower[f]
        gains[f] = own[f] * r[m] + other[f] * r[m + _NEXT]


@_compile
def _scale(gains: Any, spectrum: Any) -> None:
    """X *= exp(gain) - 1 for |gain| <= 2.3; exp is the fourth power of its series at a quarter."""
    for f in range(gains.shape[0]):
        x = _QUARTER * gains[f]
        e = _E4 + x * (_E5 + x * (_E6 + x * (_E7 + x * _E8)))
        e = _ONE + x * (_ONE + x * (_E2 + x * (_E3 + x * e)))
        e = e * e
        e = e * e - _ONE
        spectrum[2 * f] *= e
        spectrum[2 * f + 1] *= e


@_compile
def correct(
    spectra: Any,
    count: int,
    target: Any,
    floor: Any,
    power: int,
    first: Any,
    weights: Any,
    begin: Any,
    lower: Any,
    own: Any,
    other: Any,
) -> None:
    """Spectra (count, 2 * bins) times exp(W r) - 1, in place.

    Args:
        target: (count, n_mels), exp of the mel.
        first: (n_mels,), first bin of each filter.
        weights, begin: the filters' weights one after the other; those of band m are
            weights[begin[m] : begin[m + 1]].
        lower: (bins,), the lower one of the two bands that each bin lies between.
        own, other: (bins,), the weights of that band and of the next.
    """
    n_mels, bins = first.shape[0], own.shape[0]
    magnitudes = np.empty(bins, np.float32)
    gains = np.empty(bins, np.float32)
    bands = np.empty(n_mels, np.float32)
    r = np.zeros(n_mels + 1, np.float32)
    for k in range(count):
        _magnitudes(spectra[k], power, magnitudes)
        for m in range(n_mels):
            size = begin[m + 1] - begin[m]
            bands[m] = _dot(
                weights[begin[m] : begin[m + 1]], magnitudes[first[m] : first[m] + size]
            )
        _ratios(bands, target[k], floor, power, r)
        _interpolate(r, lower, own, other, gains)
        _scale(gains, spectra[k])


@_compile
def finish(w: Any, y: Any, norm: Any, ahead: Any, z: Any, following: Any) -> None:
    """z becomes w + y * norm; following = z + ahead * (z - z_before)."""
    for n in range(z.shape[0]):
        new = w[n] + y[n] * norm[n]
        following[n] = new + ahead[n] * (new - z[n])
        z[n] = new
