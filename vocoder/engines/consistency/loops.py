"""The arithmetic of a step in machine code: numba, float32, one core, eight frames at once.

Frames are processed in tiles of `LANES`, with equal samples, bins or bands of a tile's frames next
to each other (see `lanes`). A tile that is not full repeats its last frame, so the result for a
frame does not depend on its place in a tile. Imported on first use.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocoder.audio.consistency import MAX_STEP
from vocoder.engines.jit import jit

from .fft import forward, inverse
from .lanes import LANES, Array, Index, Vector, dot, kernel, transposed

compiled = jit({"contract", "nsz"})
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


@kernel
def _cut(
    w: Array, at: Index, distance: Index, last: Index, window: Array, n: Index, tile: Array
) -> None:
    """LANES samples from `n` on of each of eight frames."""
    scale = window[n]
    places = [at + n + (last.at_most(lane)) * distance for lane in range(LANES)]
    rows = transposed([w[place] * scale for place in places])
    for row, values in enumerate(rows):
        tile[(n + row) * LANES] = values


@kernel
def _add(
    tile: Array, window: Array, n: Index, y: Array, at: Index, distance: Index, last: Index
) -> None:
    """The adjoint of `_cut`, for the lanes up to `last`."""
    scale = window[n]
    rows = transposed([tile[(n + row) * LANES] for row in range(LANES)])
    for lane, values in enumerate(rows):
        with last.if_at_least(lane):
            place = at + n + distance * lane
            y[place] = y[place] + values * scale


@kernel
def _root(x: Array, at: Index) -> None:
    """Square roots, in place."""
    x[at] = x[at].sqrt()


@kernel
def _ratio(
    weights: Array,
    begin: Index,
    count: Index,
    magnitudes: Array,
    first: Index,
    floor: Vector,
    target: Array,
    r: Array,
    m: Index,
) -> None:
    """r = target / max(B |X|^p, floor) for one band."""
    band = dot(weights, begin, magnitudes, first, count)
    r[m] = target[m] / band.at_least(floor)


@kernel
def _log(r: Array, m: Index) -> None:
    """The clamped logarithm, in place.

    The fourth root y is near 1: log y = 2 artanh((y - 1) / (y + 1)), by its series.
    """
    y = r[m].at_least(math.exp(-MAX_STEP)).at_most(math.exp(MAX_STEP)).sqrt().sqrt()
    s = (y - 1.0) / (y + 1.0)
    q = s * s
    series = q * (1 / 11)
    for n in (9, 7, 5, 3):
        series = (series + 1 / n) * q
    r[m] = s * 8.0 * (series + 1.0)


@kernel
def _gain(r: Array, m: Index, own: Array, other: Array, f: Index, out: Array) -> None:
    """exp(W r) - 1 for one bin; exp is the fourth power of its series at a quarter."""
    x = (r[m] * own.everywhere(f) + r[m + LANES] * other.everywhere(f)) * 0.25
    e = x * (1 / math.factorial(8))
    for n in range(7, 0, -1):
        e = (e + 1 / math.factorial(n)) * x
    e = e + 1.0
    e = e * e
    out[f * LANES] = e * e - 1.0


@_inner
def cut(w: Any, at: int, distance: int, window: Any, count: int, tile: Any) -> None:
    """tile[n, k] = window[n] * w[at + k * distance + n], for `count` frames k."""
    last = min(count, LANES) - 1
    size = window.shape[0]
    whole = size - size % LANES
    for n in range(0, whole, LANES):
        _cut(w, at, distance, last, window, n, tile)
    for n in range(whole, size):
        for k in range(LANES):
            tile[n, k] = window[n] * w[at + distance * min(k, last) + n]


@_inner
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
        _add(tile, window, n, y, at, distance, last)


@_inner
def ratios(spectrum: Any, target: Any, bands: Any, r: Any) -> None:
    """r = log(target / max(B |X|^p, floor)) / p, clamped to what a step may change.

    Args:
        spectrum: (bins, LANES), |X|²; overwritten.
        target: (n_mels, LANES), exp of the mel.
        r: (n_mels, LANES).
    """
    if bands.power == 1:
        for f in range(bands.own.shape[0]):
            _root(spectrum, LANES * f)
    for m in range(bands.first.shape[0]):
        begin, at = bands.begin[m], LANES * m
        first, count = LANES * bands.first[m], bands.begin[m + 1] - begin
        _ratio(bands.weights, begin, count, spectrum, first, bands.floor, target, r, at)
        if bands.power == 2:
            _root(r, at)
        _log(r, at)


@_inner
def gains(r: Any, bands: Any, out: Any) -> None:
    """out = exp(W r) - 1.

    Args:
        r: (n_mels + 1, LANES), of `ratios`; the last row is only read with a weight of 0.
        out: (bins, LANES).
    """
    for f in range(bands.own.shape[0]):
        _gain(r, LANES * bands.lower[f], bands.own, bands.other, f, out)


@compiled
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
    """Spectra of frames, and how far their bands are from the mel.

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
        forward(spectra[t], tables, scratch[0])
        cut(rows, k * n_mels, n_mels, ones, count - k, scratch[1])
        ratios(scratch[0], scratch[1], bands, r[t])


@compiled
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
    """Scale the spectra of `count` frames by exp(W r) - 1, and add the frames to y.

    Args:
        spectra, r: of `analyse`; the spectra are overwritten.
        y: from the start of the first frame on.
    """
    for t in range((count + LANES - 1) // LANES):
        k = t * LANES
        gains(r[t], bands, scratch[0])
        inverse(spectra[t], tables, scratch[0])
        add(spectra[t], window, y, k * distance, distance, count - k)


@compiled
def finish(w: Any, y: Any, norm: Any, ahead: Any, z: Any, following: Any) -> None:
    """z becomes w + y * norm; following = z + ahead * (z - z_before)."""
    for n in range(z.shape[0]):
        new = w[n] + y[n] * norm[n]
        following[n] = new + ahead[n] * (new - z[n])
        z[n] = new
