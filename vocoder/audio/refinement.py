"""`refine`: mel-domain Griffin-Lim, iterations that match the mel of audio to a given one.

This is the reference, in plain PyTorch; `vocoder.backends.refinement` is faster on a CPU. Coarse
levels come first, where iterations are cheap: audio x is brought to a D-th of its rate, and what
they change there is added to x, as in a multigrid method (Brandt, 1977):

    low = down(x, D);   x + up(iterated(low) - low, D)
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vocoder.audio.log_mel import ExactBuffers, LogMel, mirror
from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.validation import Array, pair

Schedule = tuple[tuple[int, int], ...]
"""Levels in order: (decimation, iterations) each; the decimation of the whole rate is 1."""

Refine = int | str | Sequence[Sequence[int]]
"""A number of iterations at the whole rate, the name of a schedule, or a schedule."""

SCHEDULES: Mapping[str, Schedule] = {
    "fast": ((8, 32), (1, 2)),
    "default": ((16, 32), (8, 32), (4, 8), (1, 2)),
    "best": ((16, 64), (8, 64), (4, 32), (2, 8), (1, 8)),
}

DECIMATIONS = (16, 8, 4, 2)  # of the coarse levels, coarsest first
EDGE = 0.94  # share of the Nyquist frequency of a coarse level below which its bands must end
REACH = 16  # half the length of the resampling filters, in samples of the lower rate
# Share of the lower Nyquist frequency at which the filter on the way up is at -6 dB: the highest
# bands are faded out, since above them the level knows nothing.
_UP = 0.84
MOMENTUM = 0.9  # how far each step starts ahead, in units of the step before
MAX_STEP = 2.3  # largest change of a magnitude in one step, in nats: tenfold
# Corrections are divided by the sum of the squared windows, but never by less than this, which
# damps steps where few frames reach. With half of it, two iterations from noise come closer to the
# mel, but eight from the audio of a vocoder end further away.
MIN_COVER = 0.6


def refine_audio(
    audio: Array, mel: Array, mel_spec: MelSpec, iterations: Refine = "default"
) -> Array:
    """Audio after iterations that match its mel to a given one: see `MelGriffinLim`.

    Audio that has the mel already does not change, and silence stays silent. Iterations only scale
    magnitudes, so they need something to start from: the output of a vocoder, or noise.

    Args:
        audio: (samples,) or (batch, samples), floating point, at `mel_spec.sample_rate`, best in
            [-1, 1]; a torch tensor or a numpy array. It is not changed.
        mel: (n_mels, frames) or (batch, n_mels, frames), where frames =
            `mel_spec.frames(samples)`. It need not be the mel of any audio.
        mel_spec: the definition of the mel.
        iterations: their number, 0 to change nothing; the name of a schedule, "fast", "default" or
            "best"; or levels, such as ((8, 32), (1, 2)): see `schedule`.

    Returns:
        Audio of the shape, kind, dtype and device of `audio`; not clipped to [-1, 1]. Use
        `mel_distance` to see how far from the mel it is.

    Raises:
        MelError: the mel cannot come from the MelSpec, or does not belong to the audio.
        ValueError: the audio has a wrong shape or type or is not finite, or iterations is out of
            range.
    """
    levels = schedule(iterations, mel_spec)
    samples, target = pair(audio, mel, mel_spec)
    batch, targets = (samples, target) if samples.ndim == 2 else (samples[None], target[None])
    if not levels:
        refined = samples.clone()
    else:
        refined = MelGriffinLim(mel_spec).to(samples.device)(batch, targets, levels)
        refined = refined.reshape(samples.shape).to(samples.dtype)
    return refined if isinstance(audio, Tensor) else refined.detach().numpy()


def mel_distance(audio: Array, mel: Array, mel_spec: MelSpec) -> float:
    """How far audio is from a log-mel: the mean absolute difference in nats.

    That is `mel_spec.distance(LogMel(mel_spec)(audio), mel)`, the mel clamped to the floor. The
    audio of a vocoder is some 0.2 off. For mels that no audio has, such as those of an acoustic
    model, part of the distance remains after any number of iterations.

    Args:
        audio, mel, mel_spec: as for `refine_audio`.

    Raises:
        MelError, ValueError: as for `refine_audio`.
    """
    samples, target = pair(audio, mel, mel_spec)
    with torch.no_grad():
        own = LogMel(mel_spec).to(samples.device)(samples)
        return mel_spec.distance(own, target.clamp(min=mel_spec.log_floor)).item()


def schedule(refine: Refine, mel_spec: MelSpec) -> Schedule:
    """The levels that `refine` stands for, without those that the `MelSpec` does not have.

    ``refine`` is a number of iterations at the whole rate, a name of `SCHEDULES`, or levels, such
    as ((8, 32), (1, 2)) or "8:32+1:2"; ValueError if it is none of these, or out of range.
    """
    there = (*decimations(mel_spec), 1)
    return tuple((d, k) for d, k in check_refine(refine) if k and d in there)


def check_refine(refine: Refine) -> Schedule:
    """`schedule` where no `MelSpec` is known yet: all of the levels."""
    levels: Any = SCHEDULES.get(refine, refine) if isinstance(refine, str) else refine
    if isinstance(levels, int | np.integer) and not isinstance(levels, bool):
        levels = ((1, int(levels)),)
    if isinstance(levels, str) and re.fullmatch(r"-?\d+|\d+:\d+(\+\d+:\d+)*", levels):
        levels = [[1, *map(int, part.split(":"))][-2:] for part in levels.split("+")]
    if not isinstance(levels, list | tuple) or not all(
        isinstance(level, list | tuple) and [*map(type, level)] == [int, int] for level in levels
    ):
        raise ValueError(
            f"refine must be a number of iterations, one of {', '.join(SCHEDULES)}, or levels such "
            f"as 8:32+1:2 (decimation:iterations), got {refine!r}."
        )
    for decimation, iterations in levels:
        if decimation not in (*DECIMATIONS, 1):
            raise ValueError(f"refine must have decimations 16, 8, 4, 2 or 1, got {decimation}.")
        if not 0 <= iterations <= 1000:
            raise ValueError(f"refine must have from 0 to 1,000 iterations, got {iterations}.")
    return tuple((d, k) for d, k in levels)


def bands_of(mel_spec: MelSpec, decimation: int) -> int:
    """How many bands a level iterates on: those that end well below its Nyquist frequency."""
    if decimation == 1:
        return mel_spec.n_mels
    highest = EDGE * mel_spec.n_fft / 2 / decimation  # bin
    ends = [int(torch.nonzero(row).max()) if row.any() else 0 for row in mel_spec.filters()]
    return sum(end <= highest for end in ends)


@lru_cache(maxsize=32)
def decimations(mel_spec: MelSpec) -> tuple[int, ...]:
    """The coarse levels that a `MelSpec` has, coarsest first: those with some bands, and with
    frames where those of the whole audio are, so that window, hop and padding are divisible.
    """
    spec = mel_spec
    window_start = (spec.n_fft - spec.win_length) // 2
    sizes = (spec.n_fft, spec.win_length, spec.hop_length, *spec.padding, window_start)
    return tuple(
        d
        for d in DECIMATIONS
        if all(size % d == 0 for size in sizes) and spec.n_fft // d >= 32 and bands_of(spec, d) >= 8
    )


@lru_cache(maxsize=32)
def low_pass(decimation: int, share: float = 1.0) -> NDArray[np.float32]:
    """The filter of `down`: a sinc in a Kaiser window, at -6 dB at `share` of the lower Nyquist
    frequency, (2 * `REACH` * decimation + 1,).
    """
    reach = REACH * decimation
    n = np.arange(-reach, reach + 1)
    taps = np.sinc(share / decimation * n) * np.kaiser(2 * reach + 1, 7.0)
    result: NDArray[np.float32] = (taps / taps.sum()).astype(np.float32)
    return result


@lru_cache(maxsize=8)
def up_taps(decimation: int) -> NDArray[np.float32]:
    """The filter of `up`: sample n * decimation + p is the sum over k of taps[k, p] * low[n + k -
    `REACH`].
    """
    taps = np.concatenate([decimation * low_pass(decimation, _UP), np.zeros(decimation - 1)])
    # Sample m of the higher rate meets low sample j at tap m - j * decimation + reach.
    last = 2 * REACH
    rows = [taps[(last - k) * decimation :][:decimation] for k in range(last + 1)]
    return np.stack(rows).astype(np.float32)


def down(audio: Tensor, decimation: int) -> Tensor:
    """Audio (batch, samples) at a lower rate, (batch, samples // decimation), silent beyond."""
    taps = torch.from_numpy(low_pass(decimation)).to(audio)
    reach = REACH * decimation
    padded = F.pad(audio, (reach, reach))
    return (padded.unfold(1, len(taps), decimation) @ taps)[:, : audio.shape[1] // decimation]


def up(low: Tensor, decimation: int, samples: int) -> Tensor:
    """Audio (batch, samples) at the rate before `down`, without what is above the level's bands."""
    taps = torch.from_numpy(up_taps(decimation)).to(low)
    # One more sample of the lower rate may begin before the end of the audio.
    padded = F.pad(low, (REACH, REACH + 1))
    return (padded.unfold(1, len(taps), 1) @ taps).flatten(1)[:, :samples]


class MelGriffinLim(nn.Module):
    """Iterations that match the mel of audio to a log-mel, on several levels: see `Level`.

    In plain PyTorch: batched, differentiable, on any device. With a fixed schedule it exports to
    ONNX with dynamic batch and length. Nothing is checked here: see `refine_audio`.

    Args:
        mel_spec: the definition of the mel.
    """

    def __init__(self, mel_spec: MelSpec) -> None:
        super().__init__()
        self.mel_spec = mel_spec
        levels = (1, *decimations(mel_spec))
        self.levels = nn.ModuleDict({str(d): Level(mel_spec, d) for d in levels})

    def forward(self, audio: Tensor, mel: Tensor, iterations: Refine) -> Tensor:
        """Audio (batch, samples), float64 if it is and else float32, after the iterations.

        Args:
            mel: (batch, n_mels, frames), with `mel_spec.frames(samples)` frames.
            iterations: as for `refine_audio`; ValueError if it is out of range.
        """
        dtype = torch.float64 if audio.dtype == torch.float64 else torch.float32
        audio, mel = audio.to(dtype), mel.to(dtype)
        for decimation, count in schedule(iterations, self.mel_spec):
            level = self.levels[str(decimation)]
            if decimation == 1:
                audio = level(audio, mel, count)
            elif audio.shape[1] >= decimation:
                low = down(audio, decimation)
                change = level(low, mel, count) - low
                audio = audio + up(change, decimation, audio.shape[1])
        return audio


class Level(ExactBuffers):
    r"""Iterations that match the mel of audio x to m: projections in the Fourier domain.

    One step, with X the short-time Fourier transform of `LogMel`, B its filters, p its power, ε
    its floor and w its window:

    .. math::
        r &= \mathrm{clamp}\bigl(\ln m - \tfrac1p \ln \max(B |X|^p, \epsilon),\; \pm 2.3\bigr) \\
        C &= X\, (e^{W r} - 1) \\
        x &\leftarrow x + \frac{\sum_k w\, \mathcal{F}^{-1} C_k}{\max(\sum_k w^2,\; 0.6)}

    Here ln m is the mel in nats of magnitude, at least the floor, and W (bins, n_mels)
    interpolates the gains of bands to bins (see `spread`). Phases stay. The sums run over the
    frames k of the padded audio; what falls into the reflected ends is folded back.

    Where a window is at least four hops long, an iteration is two half steps, the first on the even
    frames, the second on the odd ones (Gauss-Seidel): each costs half of a step, yet both together
    do the work of two. With shorter windows, half of the frames would not cover the audio, and an
    iteration is one step on all of them (Jacobi).

    Each (half) step starts ahead of the last result z, from z + 0.9 a (z - z_before), where a =
    min(sum of w² / 0.6, 1): samples that the step hardly reaches are not carried on by momentum.

    Audio that has the mel is a fixed point. Mels below the floor count as the floor, and so does
    audio: at the floor, the mel says "at most this much". Samples that the mel's convention pads
    with zeros stay zero. Bins outside of [fmin, fmax] keep their magnitudes.

    Autocast does not apply. The gradient is finite, in silence too. Memory: 20 kB for each frame.

    Papers: Griffin and Lim, 1984 (projection of a modified STFT); Perraudin, Balazs and
    Søndergaard, 2013 (momentum); Masuyama et al., 2023 (arXiv 2307.12232) and 2025 (arXiv
    2501.05557), which recover magnitude and phase jointly from a mel.

    With a decimation D, x is audio at a D-th of the sample rate: its frames lie where those of the
    whole audio do, and their spectra are the low bins of the whole ones divided by D. So the same
    iteration runs at a D-th of the cost on the bands whose filters end below `EDGE` of the lower
    Nyquist frequency. Above the last of them the gain stays, since what no band sees would grow.

    Args:
        mel_spec: the definition of the mel.
        decimation: D, one of `decimations(mel_spec)`.
    """

    filters: Tensor  # (bands, bins), times D^p
    spread: Tensor  # W transposed, (bands, bins)
    window: Tensor  # (n_fft / D,)

    def __init__(self, mel_spec: MelSpec, decimation: int = 1) -> None:
        super().__init__()
        self.mel_spec = mel_spec
        self.decimation = decimation
        self.n_fft, self.hop = mel_spec.n_fft // decimation, mel_spec.hop_length // decimation
        left, right = mel_spec.padding
        self.padding = left // decimation, right // decimation
        self.bands = bands_of(mel_spec, decimation)
        # Steps that make an iteration: 2 on alternate frames, or 1 on all of them.
        self.phases = 2 if mel_spec.win_length >= 4 * mel_spec.hop_length else 1
        device = torch.get_default_device()
        bins = self.n_fft // 2 + 1
        filters = mel_spec.filters()[: self.bands, :bins] * decimation**mel_spec.power
        weights = spread(mel_spec)[: self.bands, :bins].clone()
        if decimation > 1:
            weights[-1, int(weights[-1].argmax()) :] = 1
        hann = torch.hann_window(mel_spec.win_length, dtype=torch.float64, device="cpu").float()
        before = (mel_spec.n_fft - mel_spec.win_length) // 2
        window = F.pad(hann, (before, mel_spec.n_fft - mel_spec.win_length - before))[::decimation]
        for name, buffer in (("filters", filters), ("spread", weights), ("window", window)):
            self.register_buffer(name, buffer.to(device), persistent=False)

    def forward(self, audio: Tensor, mel: Tensor, iterations: int) -> Tensor:
        """Audio (batch, samples) at the level's rate after iterations on a mel of all bands."""
        with torch.autocast(audio.device.type, enabled=False):
            spec, mel = self.mel_spec, mel[:, : self.bands]
            # (batch, frames, bands), in nats of magnitude
            target = mel.clamp(min=spec.log_floor).transpose(1, 2) * (spec.nats / spec.power)
            frames, samples = target.shape[1], audio.shape[1]
            squares, covers = self.window.to(audio.dtype).square(), []
            for phase in range(self.phases):
                count = (frames - phase + self.phases - 1) // self.phases
                windows = squares.expand(1, count, -1)
                covers.append(self._overlap_add(windows, frames, samples, phase))
            z = before = audio
            for number in range(self.phases * iterations):
                phase = number % self.phases
                ahead = MOMENTUM * (covers[phase] / MIN_COVER).clamp(max=1)
                start = z + ahead * (z - before)
                before, z = z, self._step(start, target, phase, covers[phase])
            return z

    def _step(self, audio: Tensor, target: Tensor, phase: int, cover: Tensor) -> Tensor:
        """One step on the frames `phase`, `phase` + phases, ...; `cover` is of their windows."""
        spec, dtype = self.mel_spec, audio.dtype
        frames, samples = target.shape[1], audio.shape[1]
        if phase >= frames:  # a single frame has no odd ones
            return audio
        window = self.window.to(dtype)
        spectrum = torch.fft.rfft(self._frames(audio, frames, phase) * window)
        power = spectrum.real.square() + spectrum.imag.square()
        if spec.power == 1:
            power = power.clamp(min=1e-24).sqrt()  # the root's gradient at 0 would be NaN
        bands = (power @ self.filters.T.to(dtype)).clamp(min=spec.floor)
        own = bands.log() / spec.power
        ratio = (target[:, phase :: self.phases] - own).clamp(-MAX_STEP, MAX_STEP)
        gain = (ratio @ self.spread.to(dtype)).exp() - 1
        correction = torch.fft.irfft(spectrum * gain, self.n_fft) * window
        correction = self._overlap_add(correction, frames, samples, phase)
        return audio + correction / cover.clamp(min=MIN_COVER)

    def _frames(self, audio: Tensor, frames: int, phase: int) -> Tensor:
        """Audio (batch, samples) cut into the frames of a phase: (batch, count, n_fft)."""
        if not self.mel_spec.center:
            audio = F.pad(audio, (0, frames * self.hop - audio.shape[1]))
        before, after = self._mirrors(audio)
        padded = torch.cat([audio[:, before], audio, audio[:, after]], dim=1)
        return padded[:, phase * self.hop :].unfold(1, self.n_fft, self.phases * self.hop)

    def _overlap_add(self, parts: Tensor, frames: int, samples: int, phase: int) -> Tensor:
        """The adjoint of `_frames`: (batch, count, n_fft) added up to (batch, samples)."""
        distance = self.phases * self.hop
        pieces = -(-self.n_fft // distance)
        parts = F.pad(parts, (0, pieces * distance - self.n_fft))
        parts = parts.unflatten(2, (pieces, distance))  # (batch, count, pieces, distance)
        total = sum(
            F.pad(parts[:, :, piece], (0, 0, piece, pieces - 1 - piece)) for piece in range(pieces)
        )
        assert isinstance(total, Tensor)  # (batch, count + pieces - 1, distance)
        left, right = self.padding
        inner = samples if self.mel_spec.center else frames * self.hop
        start = phase * self.hop
        total = total.flatten(1)
        total = F.pad(total, (start, left + inner + right - start - total.shape[1]))
        audio = total[:, left : left + inner]
        before, after = self._mirrors(audio)
        audio = audio.index_add(1, before, total[:, :left])
        audio = audio.index_add(1, after, total[:, left + inner :])
        return audio[:, :samples]

    def _mirrors(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """For each sample that padding adds before and after the audio, the sample it repeats."""
        (left, right), samples = self.padding, audio.shape[1]
        before = torch.arange(-left, 0, device=audio.device)
        after = torch.arange(samples, samples + right, device=audio.device)
        return mirror(before, samples), mirror(after, samples)


def spread(mel_spec: MelSpec) -> Tensor:
    """W of `Level`, transposed, (n_mels, bins): band gains in nats to those of bins.

    Linear interpolation between the centres of the bands. Outside of the outermost centres it
    fades to 0 at fmin and fmax, since iterations diverge where the gain jumps from one bin to the
    next; at 0 Hz and at half the sample rate, where nothing follows, it stays.
    """
    hats = dataclasses.replace(mel_spec, mel_norm=None).filters().double()
    bins = torch.arange(hats.shape[1], device="cpu") * (mel_spec.sample_rate / mel_spec.n_fft)
    middle = (mel_spec.fmin + mel_spec.fmax) / 2
    if mel_spec.fmin == 0:
        hats[0, (bins < middle) & (hats[1:].sum(dim=0) == 0)] = 1
    if mel_spec.fmax == mel_spec.sample_rate / 2:
        hats[-1, (bins >= middle) & (hats[:-1].sum(dim=0) == 0)] = 1
    return hats.float()
