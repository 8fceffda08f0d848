"""`refine_audio` on a CPU, whole or in pieces, by numba: see `vocoder.audio.refinement`.

Each (half) step follows the one before it as closely as its frames allow; whole audio is a stream
of one piece. Fourier transforms are rocket-fft's, which compiles `scipy.fft` into numba's loops.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import rocket_fft  # noqa: F401  (numba finds it by itself: this says if it is missing)
import scipy.fft
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio import refinement as reference
from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.refinement import REACH, Level, Refine, low_pass, schedule, up_taps
from vocoder.audio.validation import Array, check_frames, pair
from vocoder.backends import jit

Floats = NDArray[np.float32]

_BLOCK, _PIECE = 32, 1 << 13  # frames and samples that are worked on at once, for the cache
_FAR = 1 << 60  # the end of audio that goes on
_NOTHING = np.empty(0, np.float32)

_FAST = {"contract", "nsz", "reassoc"}
_compiled, _inner = jit(_FAST), jit(_FAST, inner=True)
_f = np.float32
_LEAST, _MOST = _f(math.exp(-reference.MAX_STEP)), _f(math.exp(reference.MAX_STEP))
_MIN_COVER, _MOMENTUM = _f(reference.MIN_COVER), _f(reference.MOMENTUM)
# Series of 2 artanh(s) / 2s in s² and of exp(x), by Horner's rule.
_ARTANH = np.array([1 / n for n in (11, 9, 7, 5, 3, 1)], _f)
_EXP = np.array([1 / math.factorial(n) for n in range(8, -1, -1)], _f)


class _Tables(NamedTuple):
    """A level of a `MelSpec`, laid out for the loops: see `Level`."""

    hop: int
    left: int  # frame k begins at sample k * hop - left
    right: int
    phases: int  # the frames of a step are so many apart
    power: int
    floor: np.float32
    window: Floats
    first: NDArray[np.int64]  # bin of the filter of each band
    begin: NDArray[np.int64]  # the filter of band m is weights[begin[m] : begin[m + 1]]
    weights: Floats
    lower: NDArray[np.int64]  # bin f interpolates the gains of bands lower[f] and lower[f] + 1
    own: Floats
    other: Floats


@lru_cache(maxsize=32)
def _tables(mel_spec: MelSpec, decimation: int) -> _Tables:
    with torch.device("cpu"):
        level = Level(mel_spec, decimation)
    filters = level.filters.numpy()
    spans = [np.flatnonzero(row) if row.any() else np.arange(1) for row in filters]
    first = np.array([span[0] for span in spans])
    ends = np.array([span[-1] + 1 for span in spans])
    spread = level.spread.numpy()
    bands, bins = spread.shape
    lower = np.where(spread.any(axis=0), (spread > 0).argmax(axis=0), -1)
    lower[: (lower >= 0).argmax()] = 0
    lower[lower < 0] = bands - 1
    padded = np.concatenate([spread, np.zeros_like(spread[:1])])
    begin = np.concatenate([[0], np.cumsum(ends - first)])
    weights = np.concatenate([row[a:b] for row, a, b in zip(filters, first, ends, strict=True)])
    return _Tables(
        hop=level.hop,
        left=level.padding[0],
        right=level.padding[1],
        phases=level.phases,
        power=int(mel_spec.power),
        floor=np.float32(mel_spec.floor),
        window=level.window.numpy(),
        first=first,
        begin=begin,
        weights=weights,
        lower=lower,
        own=spread[lower, np.arange(bins)],
        other=padded[lower + 1, np.arange(bins)],
    )


@_inner
def _mirror(position: int, end: int) -> int:
    """The sample that padding repeats at a position: 0 1 2 1 0 1 2 ... for an end of 3."""
    period = max(2 * (end - 1), 1)
    position %= period
    return min(position, period - position)


@_inner
def _cut(w: Any, origin: int, start: int, end: int, window: Any, frame: Any) -> None:
    """A frame that begins at sample `start`, of samples from `origin` on."""
    n = window.shape[0]
    if start >= origin and start + n <= min(end, origin + w.shape[0]):
        at = start - origin
        for i in range(n):
            frame[i] = w[at + i] * window[i]
    else:
        for i in range(n):
            frame[i] = w[_mirror(start + i, end) - origin] * window[i]


@_inner
def _add(frame: Any, window: Any, y: Any, origin: int, start: int, end: int) -> None:
    """The adjoint of `_cut`: add frame * window to the samples y, from `origin` on."""
    n = window.shape[0]
    if start >= origin and start + n <= min(end, origin + y.shape[0]):
        at = start - origin
        for i in range(n):
            y[at + i] += frame[i] * window[i]
    else:
        for i in range(n):
            at = _mirror(start + i, end) - origin
            if 0 <= at < y.shape[0]:
                y[at] += frame[i] * window[i]


@_inner
def _correct(spectra: Any, target: Any, skipped: int, r: Any, x: Any, t: Any) -> None:
    """Multiply spectra by exp(W r) - 1, with r = ln(target / max(B |X|^p, floor)) / p.

    Spectra (count, 2 * bins) are real and imaginary parts by turns; the first one's target, exp of
    the mel, is row `skipped`. `r` and `x` are buffers, frames last for vector code.
    """
    count, bins, bands = spectra.shape[0], x.shape[0], t.first.shape[0]
    for i in range(count):
        for f in range(bins):
            re, im = spectra[i, 2 * f], spectra[i, 2 * f + 1]
            x[f, i] = re * re + im * im
    if t.power == 1:
        for f in range(bins):
            for i in range(count):
                x[f, i] = np.sqrt(x[f, i])
    for m in range(bands):
        row = r[m]
        row[:count] = 0
        for at in range(t.begin[m], t.begin[m + 1]):
            weight, values = t.weights[at], x[t.first[m] + at - t.begin[m]]
            for i in range(count):
                row[i] += weight * values[i]
        for i in range(count):
            row[i] = target[skipped + i * t.phases, m] / max(row[i], t.floor)
        if t.power == 2:
            for i in range(count):
                row[i] = np.sqrt(row[i])
        for i in range(count):
            # The fourth root y is near 1: ln y = 2 artanh((y - 1) / (y + 1)).
            y = np.sqrt(np.sqrt(min(max(row[i], _LEAST), _MOST)))
            s = (y - _f(1)) / (y + _f(1))
            total = _ARTANH[0]
            for n in range(1, 6):
                total = total * s * s + _ARTANH[n]
            row[i] = _f(8) * s * total
    r[bands, :count] = 0
    for f in range(bins):
        lower, upper, gain = r[t.lower[f]], r[t.lower[f] + 1], x[f]
        own, other = _f(0.25) * t.own[f], _f(0.25) * t.other[f]
        for i in range(count):
            nats = own * lower[i] + other * upper[i]
            e = _EXP[0]
            for n in range(1, 9):
                e = e * nats + _EXP[n]
            e = e * e
            gain[i] = e * e - _f(1)
    for i in range(count):
        for f in range(bins):
            spectra[i, 2 * f] *= x[f, i]
            spectra[i, 2 * f + 1] *= x[f, i]


@_inner
def _project(
    w: Any, origin: int, k: int, ready: int, end: int, target: Any, skipped: int, y: Any, t: Any
) -> Any:
    """Add the corrections of samples w, by the frames k, k + phases, ... before `ready`, to y."""
    n_fft = t.window.shape[0]
    r = np.empty((t.first.shape[0] + 1, _BLOCK), np.float32)
    x = np.empty((t.own.shape[0], _BLOCK), np.float32)
    while k < ready:
        count = min((ready - k + t.phases - 1) // t.phases, _BLOCK)
        block = np.empty((count, n_fft), np.float32)
        for i in range(count):
            _cut(w, origin, (k + i * t.phases) * t.hop - t.left, end, t.window, block[i])
        spectra = scipy.fft.rfft(block)
        _correct(spectra.view(np.float32), target, k - skipped, r, x, t)
        block = scipy.fft.irfft(spectra, n_fft)
        for i in range(count):
            _add(block[i], t.window, y, origin, (k + i * t.phases) * t.hop - t.left, end)
        k += count * t.phases
    return k


@_compiled
def _covers(t: Any, first: int, last: int, frames: int, end: int) -> Any:
    """Factors of corrections and momentum at samples first to last - 1: (phases, samples) each."""
    cover = np.zeros((t.phases, last - first), np.float32)
    n = t.window.shape[0]
    begin, end_frame = (first + t.left - n) // t.hop, (last + t.left) // t.hop + 1
    for k in range(max(begin, 0), min(frames, end_frame)):
        _add(t.window, t.window, cover[k % t.phases], first, k * t.hop - t.left, end)
    return 1 / np.maximum(cover, _MIN_COVER), _MOMENTUM * np.minimum(cover / _MIN_COVER, _f(1))


@_compiled
def _advance(
    held: Any, at: Any, audio: Any, target: Any, skipped: int, norms: Any, aheads: Any,
    frames: int, end: int, t: Any,
) -> Any:  # fmt: skip
    """All steps over the next piece of audio; returns the samples that the last step releases.

    `held`, (steps, 3, n_fft + 1), has the samples that a step has not released: input, result of
    the step before, sum of corrections; `at`, (steps, 3), how many it has released and received,
    and its next frame. `target` is the exp of the mel of the known `frames` from number `skipped`
    on; `norms` and `aheads` begin at the first sample that the last step has not released.
    """
    n_fft = t.window.shape[0]
    first = at[-1, 0]
    made = np.empty(at[0, 1] + audio.shape[0] - first, np.float32)
    given, taken = 0, 0
    while True:
        w = audio[taken : taken + _PIECE].copy()
        z, taken = w.copy(), taken + w.shape[0]
        for step in range(held.shape[0]):
            released, received, k = at[step, 0], at[step, 1], at[step, 2]
            kept = received - released
            received += w.shape[0]
            if kept:
                w = np.concatenate((held[step, 0, :kept], w))
                z = np.concatenate((held[step, 1, :kept], z))
            y = np.zeros(w.shape[0], np.float32)
            y[:kept] = held[step, 2, :kept]

            ready = k
            while ready < frames:
                start = ready * t.hop - t.left
                needed = max(start + n_fft, t.left + 1) if start < 0 else start + n_fft
                if received < end and needed > received:
                    break
                ready += t.phases
            k = _project(w, released, k, ready, end, target, skipped, y, t)
            # Neither frames nor the reflected end of the audio reach back behind here.
            final = min(k * t.hop - t.left, received - 1 - t.right) if received < end else end
            count = max(final - released, 0)
            norm = norms[step % t.phases, released - first :]
            ahead = aheads[(step + 1) % t.phases, released - first :]
            for i in range(count):
                new = w[i] + y[i] * norm[i]
                w[i] = new + ahead[i] * (new - z[i])
                z[i] = new
            kept = w.shape[0] - count
            held[step, 0, :kept], held[step, 1, :kept] = w[count:], z[count:]
            held[step, 2, :kept] = y[count:]
            at[step, 0], at[step, 1], at[step, 2] = released + count, received, k
            w, z = w[:count], z[:count]
        made[given : given + z.shape[0]] = z
        given += z.shape[0]
        if taken == audio.shape[0]:
            return made[:given]


@_compiled
def _lowered(padded: Any, taps: Any, decimation: int) -> Any:
    """`vocoder.audio.refinement.down` of samples with the reach of the filter on either side."""
    size = taps.shape[0]
    low = np.empty(max((padded.shape[0] - size) // decimation + 1, 0), np.float32)
    for n in range(low.shape[0]):
        total = _f(0)
        for k in range(size):
            total += taps[k] * padded[n * decimation + k]
        low[n] = total
    return low


@_compiled
def _raised(padded: Any, taps: Any) -> Any:
    """`vocoder.audio.refinement.up` of samples with the reach of the filter on either side."""
    size, decimation = taps.shape
    high = np.zeros((max(padded.shape[0] - size + 1, 0), decimation), np.float32)
    for n in range(high.shape[0]):
        for k in range(size):
            for p in range(decimation):
                high[n, p] += taps[k, p] * padded[n + k]
    return high.reshape(-1)


def _target_of(mel: Floats, mel_spec: MelSpec) -> Floats:
    """exp of a log-mel (bands, frames), as `_correct` takes it: (frames, bands)."""
    target: Floats = np.exp(np.maximum(mel.T, _f(mel_spec.log_floor)) * _f(mel_spec.nats))
    return target


class _Level:
    """The iterations of one level: audio at its rate and mel in, refined audio out."""

    def __init__(self, mel_spec: MelSpec, decimation: int, iterations: int) -> None:
        self.mel_spec, self.tables = mel_spec, _tables(mel_spec, decimation)
        steps = self.tables.phases * iterations
        self._held = np.empty((steps, 3, len(self.tables.window) + 1), np.float32)
        self._at = np.zeros((steps, 3), np.int64)
        self._at[:, 2] = np.arange(steps) % self.tables.phases
        self._target = np.empty((0, len(self.tables.first)), np.float32)
        self._skipped = 0  # frames before those of _target
        self._waiting = _NOTHING  # audio whose mel has not come
        self._samples = 0

    @property
    def look_ahead(self) -> int:  # as in `RefineStream`
        t, steps, n_fft = self.tables, len(self._at), len(self.tables.window)
        distance, most = t.phases * t.hop, 0
        for frames in range(2 * (steps + 2) * n_fft // t.hop, 2 * (steps + 2) * n_fft // t.hop + 2):
            samples = frames * t.hop
            for step in range(steps):
                start = step % t.phases * t.hop - t.left
                done = (samples - n_fft - start) // distance + 1
                samples = min(start + done * distance, samples - 1 - t.right)
            most = max(most, frames * t.hop - samples)
        return -(-most // t.hop)

    def push(self, audio: Floats, mel: Floats, final: bool) -> Floats:
        """Take more audio and mel; with `final`, all that is left comes out."""
        t, spec = self.tables, self.mel_spec
        target = _target_of(mel[: self._target.shape[1]], spec)
        self._target = np.concatenate([self._target, target])
        frames, end = self._skipped + len(self._target), _FAR
        audio = np.concatenate([self._waiting, audio])
        total = self._samples + len(audio)
        if final:
            end = total if spec.center else frames * t.hop
            audio = np.concatenate([audio, np.zeros(end - total, np.float32)])
        ready = len(audio) if final else max(frames * t.hop - self._samples, 0)
        audio, self._waiting = audio[:ready], audio[ready:]
        self._samples += len(audio)
        first = int(self._at[-1, 0])
        norms, aheads = _covers(t, first, self._samples, frames if final else _FAR, end)
        norms[:, max(total - first, 0) :] = 0  # what the mel pads with zeros stays zero
        made: Floats = _advance(
            self._held, self._at, audio, self._target, self._skipped, norms, aheads, frames, end, t
        )
        done = max(int(self._at[:, 2].min()) - self._skipped, 0)
        self._target, self._skipped = self._target[done:], self._skipped + done
        return made[: total - first] if final else made


class _CoarseLevel:
    """The iterations of a coarse level: the audio at the whole rate in and out."""

    def __init__(self, mel_spec: MelSpec, decimation: int, iterations: int) -> None:
        self._level = _Level(mel_spec, decimation, iterations)
        self._decimation = decimation
        self._input = np.zeros(REACH * decimation, np.float32)  # for the next sample of `low`
        self._waiting = _NOTHING  # audio that is not released
        self._low = _NOTHING  # of which the level has not given the result
        self._change = np.zeros(REACH, np.float32)
        self._received = self._lowered = 0

    @property
    def look_ahead(self) -> int:
        return self._level.look_ahead - (-(2 * REACH + 2) // self._level.tables.hop)

    def push(self, audio: Floats, mel: Floats, final: bool) -> Floats:
        d = self._decimation
        self._received += len(audio)
        self._waiting = np.concatenate([self._waiting, audio])
        end = np.zeros(final * REACH * d, np.float32)
        self._input = np.concatenate([self._input, audio, end])
        low: Floats = _lowered(self._input, low_pass(d), d)
        low = low[: self._received // d - self._lowered] if final else low
        self._input = self._input[len(low) * d :]
        self._lowered += len(low)
        if final and not self._lowered:  # too short for this level
            return self._waiting

        self._low = np.concatenate([self._low, low])
        refined = self._level.push(low, mel, final)
        change, self._low = refined - self._low[: len(refined)], self._low[len(refined) :]
        end = np.zeros(final * (REACH + 1), np.float32)
        self._change = np.concatenate([self._change, change, end])
        rise = _raised(self._change, up_taps(d))
        self._change = self._change[len(rise) // d :]
        rise = rise[: len(self._waiting)]
        result: Floats = self._waiting[: len(rise)] + rise
        self._waiting = self._waiting[len(rise) :]
        return result


def refine_audio(
    audio: Array, mel: Array, mel_spec: MelSpec, iterations: Refine = "default"
) -> Array:
    """`vocoder.audio.refine_audio` on a CPU, several times as fast: equal to 1e-5 in float32.

    Without gradients. The recordings of a batch are worked on at once, by PyTorch's threads.
    """
    schedule(iterations, mel_spec)
    samples, target = pair(audio, mel, mel_spec)
    result = refine_checked(samples, target, mel_spec, iterations)
    return result if isinstance(audio, torch.Tensor) else result.numpy()


def refine_checked(samples: Tensor, mel: Tensor, mel_spec: MelSpec, iterations: Refine) -> Tensor:
    """`refine_audio` of tensors that are known to fit."""

    def refined(item: Floats, own: Floats) -> Floats:
        return RefineStream(mel_spec, iterations).push(item, own, final=True)

    items = samples.detach().float().numpy().reshape(-1, samples.shape[-1])
    mels = mel.detach().float().numpy().reshape(-1, *mel.shape[-2:])
    with ThreadPoolExecutor(min(torch.get_num_threads(), len(items))) as pool:
        stacked = np.stack(list(pool.map(refined, items, mels)))
    return torch.from_numpy(stacked).reshape(samples.shape).to(samples.dtype)


class RefineStream:
    """`refine_audio` over audio that comes in pieces, in constant memory: equal to 1e-6.

    stream = RefineStream(mel_spec, iterations=4)
    for audio, mel in pieces:
        play(stream.push(audio, mel))
    play(stream.finish())
    """

    def __init__(self, mel_spec: MelSpec, iterations: Refine) -> None:
        self.mel_spec = mel_spec
        self._levels = [
            (_Level if decimation == 1 else _CoarseLevel)(mel_spec, decimation, count)
            for decimation, count in schedule(iterations, mel_spec)
        ]
        self._samples = self._frames = 0

    @property
    def look_ahead(self) -> int:
        """How far the output can lag the input, in frames."""
        return sum(level.look_ahead for level in self._levels)

    def push(self, audio: Floats, mel: Floats, final: bool = False) -> Floats:
        """Take the next piece of audio (samples,) and of mel (n_mels, frames), each of any length,
        and return the audio that they complete; all of it with `final`.
        """
        self._samples, self._frames = self._samples + len(audio), self._frames + mel.shape[1]
        for level in self._levels:
            audio = level.push(audio, mel, final)
        return audio

    def finish(self) -> Floats:
        """The rest of the audio; MelError if the frames are not those of the samples."""
        if not self._samples and not self._frames:
            return _NOTHING
        check_frames(self._samples, self._frames, self.mel_spec)
        return self.push(_NOTHING, np.empty((self.mel_spec.n_mels, 0), np.float32), final=True)
