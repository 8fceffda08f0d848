"""The arithmetic of a step in machine code: numba, float32, one core, eight frames at once.

Frames are worked on in tiles of `LANES`, whose values of one kind lie next to each other (see
`lanes`); the last tile of a step may be filled up with copies of its last frame. So the result of
a frame does not depend on its place in a tile. Imported on first use.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocoder.audio.consistency import MAX_STEP
from vocoder.engines.jit import jit

from .fft import forward, inverse
from .lanes import LANES, add_from_lanes, load, splat, sqrt, store, to_lanes

# A Python float among float32 values would make numba compute in float64.
_ZERO, _ONE, _QUARTER, _EIGHT = (np.float32(x) for x in (0, 1, 0.25, 8))
_MAX_RATIO = np.float32(math.exp(MAX_STEP))
_MIN_RATIO = np.float32(math.exp(-MAX_STEP))
_E2, _E3, _E4, _E5, _E6, _E7, _E8 = (np.float32(1 / math.factorial(n)) for n in range(2, 9))
_L3, _L5, _L7, _L9, _L11 = (np.float32(1 / n) for n in (3, 5, 7, 9, 11))

_compile = jit({"contract", "nsz"})
_inner = jit({"contract", "nsz"}, inner=True)


class Bands(NamedTuple):
    """The filters and the interpolation of a `MelSpec`.

    Attributes:
        first: (n_mels,), first bin of each filter.
        begin, weights: the filters' weights one after the other; those of band m are
            weights[begin[m] : begin[m + 1]].
        lower: (bins,), the lower one of the two bands that each bin lies between.
        own, other: (bins,), the weights of that band and of the next.
        floor: the MelSpec's.
        power: the MelSpec's.
    """

    first: NDArray[np.int64]
    begin: NDArray[np.int64]
    weights: NDArray[np.float32]
    lower: NDArray[np.int64]
    own: NDArray[np.float32]
    other: NDArray[np.float32]
    floor: np.float32
    power: int


@_compile
def cut(w: Any, at: int, distance: int, window: Any, count: int, tile: Any) -> None:
    """tile[n, k] = window[n] * w[at + k * distance + n], for `count` frames k."""
    last = min(count, LANES) - 1
    size = window.shape[0]
    whole = size - size % LANES
    for n in range(0, whole, LANES):
        to_lanes(w, at + n, distance, last, load(window, n), tile, LANES * n)
    for n in range(whole, size):
        for k in range(LANES):
            tile[n, k] = window[n] * w[at + distance * min(k, last) + n]


@_compile
def add(tile: Any, window: Any, y: Any, at: int, distance: int, count: int) -> None:
    """The adjoint of `cut`: y[at + k * distance + n] += window[n] * tile[n, k].

    From the ends of the frames to their starts, so that every sample is the sum of its frames in
    their order, whichever of them are in one tile.
    """
    last = min(count, LANES) - 1
    size = window.shape[0]
    whole = size - size % LANES
    for n in range(size - 1, whole - 1, -1):
        for k in range(last + 1):
            y[at + k * distance + n] += window[n] * tile[n, k]
    for n in range(whole - LANES, -1, -LANES):
        add_from_lanes(tile, LANES * n, load(window, n), y, at + n, distance, last)


@_compile
def ratios(magnitudes: Any, target: Any, bands: Any, r: Any) -> None:
    """r = log(target / max(B |X|^p, floor)) / p, clamped.

    The ratio's fourth root y is near 1: log y = 2 artanh((y - 1) / (y + 1)), by its series.

    Args:
        magnitudes: (bins, LANES), |X|^p.
        target: (n_mels, LANES), exp of the mel.
        r: (n_mels, LANES).
    """
    for m in range(bands.first.shape[0]):
        begin, end = bands.begin[m], bands.begin[m + 1]
        shift = bands.first[m] - begin
        total = splat(_ZERO)
        for i in range(begin, end):
            total = total + bands.weights[i] * load(magnitudes, LANES * (shift + i))
        ratio = load(target, LANES * m) / max(total, bands.floor)
        if bands.power == 2:
            ratio = sqrt(ratio)
        y = sqrt(sqrt(min(max(ratio, _MIN_RATIO), _MAX_RATIO)))
        s = (y - _ONE) / (y + _ONE)
        q = s * s
        series = _L3 + q * (_L5 + q * (_L7 + q * (_L9 + q * _L11)))
        store(r, LANES * m, _EIGHT * s * (_ONE + q * series))


@_compile
def gains(r: Any, bands: Any, out: Any) -> None:
    """out = exp(W r) - 1 for |r| <= 2.3; exp is the fourth power of its series at a quarter.

    Args:
        r: (n_mels + 1, LANES), of `ratios`; the last row is only read with a weight of 0.
        out: (bins, LANES).
    """
    for f in range(bands.own.shape[0]):
        m = LANES * bands.lower[f]
        x = bands.own[f] * load(r, m) + bands.other[f] * load(r, m + LANES)
        x = _QUARTER * x
        e = _E4 + x * (_E5 + x * (_E6 + x * (_E7 + x * _E8)))
        e = _ONE + x * (_ONE + x * (_E2 + x * (_E3 + x * e)))
        e = e * e
        store(out, LANES * f, e * e - _ONE)


@_compile
def analyse(
    w: Any,
    distance: int,
    window: Any,
    target: Any,
    ones: Any,
    tables: Any,
    bands: Any,
    spectra: Any,
    r: Any,
    scratch: Any,
) -> None:
    """Cut frames, and see how far each band is from the mel: spectra and r of every tile.

    Args:
        w: samples from the start of the first frame on.
        target: (count, n_mels), exp of the mel.
        ones: (n_mels,).
        tables: of `fft`.
        spectra: (tiles, n_fft, LANES), of `fft.forward`.
        r: (tiles, n_mels + 1, LANES), of `ratios`.
        scratch: (2, bins, LANES).
    """
    count, n_mels = target.shape
    rows = target.reshape(-1)
    for t in range((count + LANES - 1) // LANES):
        k = t * LANES
        cut(w, k * distance, distance, window, count - k, spectra[t])
        forward(spectra[t], tables, bands.power, scratch[0])
        cut(rows, k * n_mels, n_mels, ones, count - k, scratch[1])
        ratios(scratch[0], scratch[1], bands, r[t])


@_compile
def synthesise(
    spectra: Any,
    r: Any,
    count: int,
    tables: Any,
    bands: Any,
    window: Any,
    y: Any,
    distance: int,
    scratch: Any,
) -> None:
    """Add what exp(W r) changes in the spectra of `count` frames to the samples y.

    Args:
        spectra, r: of `analyse`; the spectra are overwritten.
        y: from the start of the first frame on.
    """
    for t in range((count + LANES - 1) // LANES):
        k = t * LANES
        gains(r[t], bands, scratch[0])
        inverse(spectra[t], tables, scratch[0])
        add(spectra[t], window, y, k * distance, distance, count - k)


@_compile
def finish(w: Any, y: Any, norm: Any, ahead: Any, z: Any, following: Any) -> None:
    """z becomes w + y * norm; following = z + ahead * (z - z_before)."""
    for n in range(z.shape[0]):
        new = w[n] + y[n] * norm[n]
        following[n] = new + ahead[n] * (new - z[n])
        z[n] = new
