"""Mel consistency on a CPU: the sweeps of `vocoder.audio.consistency`, in tiles or in a stream.

A tile of frames is cut, transformed, corrected and added up while it is in the cache. Fourier
transforms are scipy's; the rest is numba, imported when first used, as in
`vocoder.engines.compiled`. Threads share the frames of a step.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from vocoder.audio.consistency import (
    LARGEST_STEP,
    LEAST_COVER,
    MOMENTUM,
    Array,
    MelConsistency,
    check_audio,
    check_frames,
    check_sweeps,
    mirror,
    padding,
    pair,
    phases_of,
    tensors,
)
from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.validation import check_mel

Floats = NDArray[np.float32]
Mirrors = tuple[NDArray[np.int64], NDArray[np.int64]]

TILE = 32
"""Frames that are transformed at once: with their spectrum, 260 kB at n_fft 1,024."""

LEAST_SHARE = 48
"""Frames of a step below which another thread costs more than it saves."""

# A Python float in the midst of float32 would make numba compute in float64.
_ZERO, _ONE, _HALF, _EIGHT = np.float32(0), np.float32(1), np.float32(0.5), np.float32(8)
_NEXT = np.uint32(1)  # unsigned, or numba tests each index for being negative
_MOST = np.float32(math.exp(LARGEST_STEP))
_LEAST = np.float32(math.exp(-LARGEST_STEP))
_QUARTER = np.float32(0.25)
_E2, _E3, _E4, _E5, _E6, _E7, _E8 = (np.float32(1 / math.factorial(n)) for n in range(2, 9))
_L3, _L5, _L7, _L9, _L11 = (np.float32(1 / n) for n in (3, 5, 7, 9, 11))


def _compile(function: Any) -> Any:
    options: dict[str, Any] = {
        "fastmath": {"contract", "nsz", "reassoc"},  # sums as vectors
        "error_model": "numpy",
        "nogil": True,
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder for the cache can be written
        return numba.njit(**options)(function)


@_compile
def _cut(w: Any, distance: int, window: Any, frames: Any, count: int) -> None:
    """frames[k] = windowed samples of w from k * distance on."""
    for k in range(count):
        samples, frame = w[k * distance :], frames[k]
        for n in range(window.shape[0]):
            frame[n] = samples[n] * window[n]


@_compile
def _add(frames: Any, distance: int, window: Any, y: Any, count: int) -> None:
    """The adjoint of `_cut`: y from k * distance on += windowed frames[k]."""
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
        y = np.sqrt(np.sqrt(min(max(ratio, _LEAST), _MOST)))
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
def _correct(
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
def _finish(w: Any, y: Any, norm: Any, ahead: Any, z: Any, following: Any) -> None:
    """z becomes w + y * norm; following = z + ahead * (z - z_before)."""
    for n in range(z.shape[0]):
        new = w[n] + y[n] * norm[n]
        following[n] = new + ahead[n] * (new - z[n])
        z[n] = new


class _Plan:
    """What a MelSpec says, laid out for the loops above; the arithmetic of one step.

    Positions are those of the padded audio: sample 0 of the audio is at `left`, and frame k of
    phase p begins at (p + phases * k) * hop.
    """

    def __init__(self, mel_spec: MelSpec) -> None:
        self.mel_spec = mel_spec
        self.module = MelConsistency(mel_spec).cpu()
        self.n_fft, self.hop = mel_spec.n_fft, mel_spec.hop_length
        self.phases = phases_of(mel_spec)
        self.distance = self.phases * self.hop
        self.pieces = -(-self.n_fft // self.distance)
        self.left, self.right = padding(mel_spec)
        self.window = self.module.window.numpy()
        # From here on, covers repeat every `distance` samples.
        self.settled = -(-(self.left + self.n_fft) // self.distance) * self.distance

        filters = self.module.filters.numpy()
        spans = [np.flatnonzero(row) for row in filters]
        self.first = np.array([span[0] if span.size else 0 for span in spans])
        ends = np.array([span[-1] + 1 if span.size else 0 for span in spans])
        self.begin = np.concatenate([[0], np.cumsum(ends - self.first)])
        rows = zip(filters, self.first, ends, strict=True)
        self.weights = np.concatenate([row[first:end] for row, first, end in rows])

        spread = self.module.spread.numpy()
        n_mels, bins = spread.shape
        lower = np.where(spread.any(axis=0), (spread > 0).argmax(axis=0), -1)
        lower[: (lower >= 0).argmax()] = 0
        lower[lower < 0] = n_mels - 1
        self.lower = lower.astype(np.uint32)
        self.own = spread[lower, np.arange(bins)]
        padded = np.concatenate([spread, np.zeros_like(spread[:1])])
        self.other = padded[lower + 1, np.arange(bins)]

    def targets(self, mel: Floats, first: int = 0) -> list[Floats]:
        """exp of a log-mel (n_mels, frames), for each phase (frames, n_mels).

        Args:
            first: the number of the first frame.
        """
        spec = self.mel_spec
        linear = np.exp(np.maximum(mel.T, np.float32(spec.log_floor)) * np.float32(spec.nats))
        starts = [(phase - first) % self.phases for phase in range(self.phases)]
        return [np.ascontiguousarray(linear[start :: self.phases]) for start in starts]

    def correct(self, w: Floats, target: Floats, y: Floats) -> None:
        """Add the corrections of consecutive frames of one phase to y.

        Args:
            w: samples from the start of the first frame on.
            target: of `targets`, (count, n_mels).
            y: from the same position on.
        """
        spec, count = self.mel_spec, len(target)
        frames = np.empty((min(count, TILE), self.n_fft), np.float32)
        for begin in range(0, count, TILE):
            size = min(TILE, count - begin)
            at = begin * self.distance
            _cut(w[at:], self.distance, self.window, frames, size)
            spectra = scipy.fft.rfft(frames[:size])
            _correct(
                spectra.view(np.float32),
                size,
                target[begin : begin + size],
                np.float32(spec.floor),
                int(spec.power),
                self.first,
                self.weights,
                self.begin,
                self.lower,
                self.own,
                self.other,
            )
            parts = scipy.fft.irfft(spectra, self.n_fft, overwrite_x=True)
            _add(parts, self.distance, self.window, y[at:], size)

    def mirrors(self, samples: int) -> Mirrors:
        """The samples that padding repeats before and after the audio."""
        before, after = torch.arange(-self.left, 0), torch.arange(samples, samples + self.right)
        return mirror(before, samples).numpy(), mirror(after, samples).numpy()

    def cover(self, phase: int, first: int, last: int, ended: tuple[int, int] | None) -> Floats:
        """Sum of the squared windows over the samples first to last - 1 of the audio.

        Args:
            ended: number of frames and samples; None if more audio than this follows.
        """
        hops = self.settled // self.hop
        if ended is None:
            cover = self._cover(3 * hops + phase, 3 * self.settled, phase)
            index = np.arange(first, last)
            return cover[
                np.where(index < self.settled, index, self.settled + index % self.distance)
            ]
        frames, samples = ended
        # What repeats in the middle is left out before, and put back after.
        cut = max(frames - 4 * hops, 0) // self.phases * self.phases
        cover = self._cover(frames - cut, samples - cut * self.hop, phase)
        index = np.arange(first, last)
        late = index - cut * self.hop
        middle = self.settled + index % self.distance
        index = np.where(index < self.settled, index, np.where(late < self.settled, middle, late))
        return cover[index]

    def norm(self, cover: Floats, samples: int) -> Floats:
        """What sums of corrections are multiplied by; samples that are padding stay zero."""
        norm: Floats = _ONE / np.maximum(cover, np.float32(LEAST_COVER))
        norm[samples:] = 0
        return norm

    def ahead(self, cover: Floats) -> Floats:
        """The momentum of a step that has this cover."""
        return np.float32(MOMENTUM) * np.minimum(cover / np.float32(LEAST_COVER), _ONE)

    def reflect(self, w: Floats, mirrors: Mirrors) -> None:
        """Fill what padding adds before and after the audio in w."""
        before, after = mirrors
        w[: self.left] = w[self.left + before]
        w[len(w) - self.right :] = w[self.left + after]

    def fold_left(self, y: Floats, mirrors: Mirrors) -> None:
        """Add what lies before the audio to the samples that it repeats; y from 0 on."""
        np.add.at(y, self.left + mirrors[0], y[: self.left].copy())

    def fold_right(self, y: Floats, start: int, inner: int, mirrors: Mirrors) -> None:
        """The same for what lies after the audio of `inner` samples; y from `start` on."""
        end = self.left + inner - start
        np.add.at(y, self.left + mirrors[1] - start, y[end : end + self.right].copy())

    @lru_cache(maxsize=8)  # noqa: B019  (plans live as long as the process)
    def _cover(self, frames: int, samples: int, phase: int) -> Floats:
        if phase >= frames:
            return np.zeros(samples, np.float32)
        cover: Floats = self.module.cover(frames, samples, phase, torch.float32)[0].numpy()
        return cover


@lru_cache(maxsize=8)
def _plan(mel_spec: MelSpec) -> _Plan:
    return _Plan(mel_spec)


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="mel-consistency")


def refine(
    audio: Array, mel: Array, mel_spec: MelSpec, sweeps: int, threads: int | None = None
) -> Array:
    """`vocoder.audio.refine_mel` on the CPU, several times as fast: equal to 1e-5 in float32.

    Args:
        audio, mel, mel_spec, sweeps: as for `refine_mel`; tensors must be on the CPU. Gradients
            are not recorded.
        threads: how many may work at once; None for as many as PyTorch uses.

    Returns:
        As `refine_mel`; the result does not depend on the number of threads by more than
        rounding.

    Raises:
        MelError, ValueError: as for `refine_mel`, or the tensors are on another device.
    """
    check_sweeps(sweeps)
    samples, target = pair(audio, mel, mel_spec)
    if samples.device.type != "cpu":
        raise ValueError(f"This engine runs on the CPU, but the audio is on {samples.device}.")
    threads = torch.get_num_threads() if threads is None else threads
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}.")
    plan = _plan(mel_spec)
    items = _floats(samples).reshape(-1, samples.shape[-1])
    mels = _floats(target).reshape(-1, *target.shape[-2:])
    if 1 < threads <= len(items):
        pairs = zip(items, mels, strict=True)
        refined = list(_pool().map(lambda both: _refine(plan, both[0], both[1], sweeps, 1), pairs))
    else:
        refined = [
            _refine(plan, item, own, sweeps, threads) for item, own in zip(items, mels, strict=True)
        ]
    result = torch.from_numpy(np.stack(refined)).reshape(samples.shape).to(samples.dtype)
    return result if isinstance(audio, torch.Tensor) else result.numpy()


def _floats(values: torch.Tensor) -> Floats:
    array: Floats = values.detach().float().numpy()
    return array


def _refine(plan: _Plan, audio: Floats, mel: Floats, sweeps: int, threads: int) -> Floats:
    """Audio (samples,) after some sweeps over mel (n_mels, frames)."""
    samples, frames = len(audio), mel.shape[1]
    inner = samples if plan.mel_spec.center else frames * plan.hop
    left, hop, distance = plan.left, plan.hop, plan.distance
    targets = plan.targets(mel)
    covers = [plan.cover(p, 0, inner, (frames, inner)) for p in range(plan.phases)]
    norms = [plan.norm(cover, samples) for cover in covers]
    aheads = [plan.ahead(cover) for cover in covers]
    mirrors = plan.mirrors(inner)
    total = left + inner + plan.right
    z = np.zeros(inner, np.float32)
    z[:samples] = audio
    # The step's input, and that of the next one.
    w, following = np.empty(total, np.float32), np.empty(total, np.float32)
    w[left : left + inner] = z
    plan.reflect(w, mirrors)
    parts = max(min(threads, len(targets[0]) // max(LEAST_SHARE, 4 * plan.pieces)), 1)
    sums = [np.empty(total, np.float32) for _ in range(parts)]  # each in use in part

    def work(part: int, phase: int, next_phase: int) -> None:
        """One step on a share of the frames, and on the samples from its first frame on."""
        count, offset = len(targets[phase]), phase * hop
        first, last = count * part // parts, count * (part + 1) // parts
        begin = offset + first * distance if part else 0
        end = offset + last * distance if part < parts - 1 else total
        # The frames before that reach into these samples are computed again.
        lead = max(first - plan.pieces + 1, 0)
        start = offset + lead * distance if part else 0
        y = sums[part][: max(end, offset + (last - 1) * distance + plan.n_fft) - start]
        y[:] = 0
        at = offset + lead * distance
        plan.correct(w[at:], targets[phase][lead:last], y[at - start :])
        if part == 0:
            plan.fold_left(y, mirrors)
        if part == parts - 1:
            plan.fold_right(y, start, inner, mirrors)
        begin, end = max(begin - left, 0), min(end - left, inner)
        _finish(
            w[left + begin : left + end],
            y[left + begin - start :],
            norms[phase][begin:end],
            aheads[next_phase][begin:end],
            z[begin:end],
            following[left + begin : left + end],
        )

    for number in range(sweeps * plan.phases):
        phase, next_phase = number % plan.phases, (number + 1) % plan.phases
        others = [_pool().submit(work, part, phase, next_phase) for part in range(1, parts)]
        work(0, phase, next_phase)
        for other in others:
            other.result()
        w, following = following, w
        plan.reflect(w, mirrors)
    return z[:samples]


class _Stage:
    """One (half) step of a stream. Audio comes in as two: the step's input w and z before it."""

    def __init__(self, plan: _Plan, phase: int, next_phase: int) -> None:
        self.plan, self.phase, self.next_phase = plan, phase, next_phase
        self.received = 0  # samples
        self.released = 0
        self.frame = 0  # of this phase, the first that is not done
        self._origin = 0  # position of w[0] and y[0] in the padded audio
        self._w = self._z = self._y = np.empty(0, np.float32)  # z from `released` on
        self._padded = self._folded = False

    def ready(self, received: int) -> int:
        """How many frames of this phase can be done when so many samples are there."""
        plan = self.plan
        room = plan.left + received - plan.n_fft - self.phase * plan.hop
        return room // plan.distance + 1 if room >= 0 and received > plan.left else 0

    def final(self, received: int, frame: int) -> int:
        """How many samples cannot change any more when the frames before `frame` are done."""
        plan = self.plan
        start = self.phase * plan.hop + frame * plan.distance
        # What the end of the audio may yet be folded back to is not final either.
        return max(min(start - plan.left, received - 1 - plan.right), 0)

    def push(
        self, w: Floats, z: Floats, target: Floats, first: int, ended: tuple[int, int] | None
    ) -> tuple[Floats, Floats]:
        """Takes more audio, and returns what it completes, as the next step wants it.

        Args:
            w, z: of one length.
            target: what there is of the phase's part of `_Plan.targets`, from row `first` on.
            first: of the phase's frames.
            ended: number of frames and samples of all the audio if this is its end.
        """
        plan, left = self.plan, self.plan.left
        self.received += len(w)
        self._w, self._z = np.concatenate([self._w, w]), np.concatenate([self._z, z])
        inner = self.received
        mirrors = plan.mirrors(inner)
        if not self._padded and (ended or inner > left):
            self._w = np.concatenate([self._w[mirrors[0]], self._w])
            self._padded = True
        if ended:
            after = left + mirrors[1] - self._origin
            self._w = np.concatenate([self._w, self._w[after]])
        self._y = np.concatenate([self._y, np.zeros(len(self._w) - len(self._y), np.float32)])

        last = first + len(target)
        if not ended:
            last = max(min(last, self.ready(inner)), self.frame)
        at = self.phase * plan.hop + self.frame * plan.distance - self._origin
        if last > self.frame:
            plan.correct(self._w[at:], target[self.frame - first : last - first], self._y[at:])
        self.frame = last
        return self._release(inner, mirrors, ended)

    def _release(
        self, inner: int, mirrors: Mirrors, ended: tuple[int, int] | None
    ) -> tuple[Floats, Floats]:
        plan, left = self.plan, self.plan.left
        following_frame = self.phase * plan.hop + self.frame * plan.distance
        if self._padded and not self._folded and (ended or following_frame >= left):
            plan.fold_left(self._y, mirrors)
            self._folded = True
        if ended:
            plan.fold_right(self._y, self._origin, inner, mirrors)

        first, last = self.released, inner if ended else self.final(inner, self.frame)
        last = max(first, last)
        cover = plan.cover(self.phase, first, last, ended and (ended[0], inner))
        norm = plan.norm(cover, ended[1] - first if ended else len(cover))
        following_cover = plan.cover(self.next_phase, first, last, ended and (ended[0], inner))
        z, self._z = self._z[: last - first].copy(), self._z[last - first :]
        following = np.empty_like(z)
        begin, end = left + first - self._origin, left + last - self._origin
        w, y = self._w[begin:end], self._y[begin:end]
        _finish(w, y, norm, plan.ahead(following_cover), z, following)
        self.released = last

        if self._folded:
            keep = min(following_frame, left + last, left + inner - plan.right - 1)
            dropped = max(keep - self._origin, 0)
            self._w, self._y = self._w[dropped:], self._y[dropped:]
            self._origin += dropped
        return following, z


class ConsistencyStream:
    """Sweeps of mel consistency over audio that comes in pieces, in constant memory.

    The pieces that come out, put together, equal `refine` of the whole (to 1e-6), however the
    audio and the mel are cut. Every step follows the one before it as closely as its frames allow,
    so nothing is computed twice.

        stream = ConsistencyStream(mel_spec, sweeps=4)
        for audio, mel in pieces:
            play(stream.push(audio, mel))
        play(stream.finish())

    Args:
        mel_spec: the definition of the mel.
        sweeps: number of sweeps; the delay grows with it (`look_ahead`).

    Raises:
        ValueError: the number of sweeps is out of range.
    """

    def __init__(self, mel_spec: MelSpec, sweeps: int) -> None:
        check_sweeps(sweeps)
        self.mel_spec, self.sweeps = mel_spec, sweeps
        self._plan = plan = _plan(mel_spec)
        phases = plan.phases
        self._stages = [
            _Stage(plan, number % phases, (number + 1) % phases)
            for number in range(sweeps * phases)
        ]
        self._samples = self._frames = self._released = 0
        self._targets = [np.empty((0, mel_spec.n_mels), np.float32) for _ in range(phases)]
        self._first = [0] * phases  # of the frames in _targets
        self._ended = False
        self._as_tensor = False

    @property
    def look_ahead(self) -> int:
        """The delay in frames: of the audio and mel that have come in, what is not out yet.

        That is the most there is after whole frames have come in, rounded up; about six frames for
        a sweep.
        """
        stages, hop = self._stages, self._plan.hop
        far = 2 * (len(stages) + 2) * self._plan.pieces * self._plan.phases
        delays = []
        for frames in range(far, far + 2):
            samples = frames * hop
            for stage in stages:
                samples = stage.final(samples, stage.ready(samples))
            delays.append(frames * hop - samples)
        return -(-max(delays) // hop)

    def push(self, audio: Array, mel: Array) -> Array:
        """Takes the next piece of audio and of mel, and returns the audio that they complete.

        Args:
            audio: (samples,), floating point, of any length, none included; a torch tensor on the
                CPU or a numpy array.
            mel: (n_mels, frames), of any number of frames; what belongs to the samples may come
                earlier or later, and is kept until then.

        Returns:
            (samples,) float32, of the kind of `audio`, `look_ahead` frames behind.

        Raises:
            MelError: the mel cannot come from the MelSpec.
            ValueError: the audio is not (samples,), floating point and finite, or the stream has
                ended.
        """
        if self._ended:
            raise ValueError("This stream has ended: make a new one for other audio.")
        samples, target = tensors(audio, mel)
        if samples.ndim != 1 or target.ndim != 2:
            raise ValueError(
                f"A stream takes audio (samples,) and a mel (n_mels, frames), got shapes "
                f"{tuple(samples.shape)} and {tuple(target.shape)}."
            )
        if len(samples):
            check_audio(samples)
        if target.shape[1]:
            check_mel(target, self.mel_spec)
            for phase, rows in enumerate(self._plan.targets(_floats(target), self._frames)):
                self._targets[phase] = np.concatenate([self._targets[phase], rows])
        self._frames += target.shape[1]
        self._samples += len(samples)
        self._as_tensor = isinstance(audio, torch.Tensor)
        result: Array = self._advance(_floats(samples), None)
        return result

    def finish(self) -> torch.Tensor | Floats:
        """Ends the stream and returns the rest of its audio.

        Raises:
            MelError: the frames that came in are not those of the samples; see `refine_mel`.
            ValueError: the stream has ended before.
        """
        if self._ended:
            raise ValueError("This stream has ended: make a new one for other audio.")
        if self._samples or self._frames:
            check_frames(self._samples, self._frames, self.mel_spec)
        self._ended = True
        missing = 0 if self.mel_spec.center else -self._samples % self._plan.hop
        rest = np.zeros(missing, np.float32)
        ended = (self._frames, self._samples) if self._samples else None
        result: torch.Tensor | Floats = self._advance(rest, ended)
        return result

    def _advance(self, audio: Floats, ended: tuple[int, int] | None) -> Any:
        w = z = audio
        for stage in self._stages:
            first = self._first[stage.phase]
            w, z = stage.push(w, z, self._targets[stage.phase], first, ended)
        for phase in range(self._plan.phases):
            done = [stage.frame for stage in self._stages if stage.phase == phase]
            dropped = min(done, default=self._first[phase]) - self._first[phase]
            self._targets[phase] = self._targets[phase][dropped:]
            self._first[phase] += dropped
        if self._ended:
            z = z[: self._samples - self._released]
        self._released += len(z)
        z = z.copy()
        return torch.from_numpy(z) if self._as_tensor else z
