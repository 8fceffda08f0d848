"""A `MelSpec` laid out for the loops: tables, covers and reflections."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from vocoder.audio.consistency import (
    MIN_COVER,
    MOMENTUM,
    Level,
    mirror,
    phases_of,
)
from vocoder.audio.mel_spec import MelSpec

from .fft import Tables, suits, tables
from .loops import Bands

Floats = NDArray[np.float32]
Mirrors = tuple[NDArray[np.int64], NDArray[np.int64]]
End = tuple[int, int]  # number of frames and of samples of the whole audio

_KEPT = 1 << 16
"""Most samples of norms and momentum that are kept for pieces of a stream."""


def floats(values: torch.Tensor) -> Floats:
    """The values of a tensor as a float32 array.

    Raises:
        ValueError: the tensor is not on the CPU.
    """
    if values.device.type != "cpu":
        raise ValueError(f"This engine runs on the CPU, but the audio is on {values.device}.")
    array: Floats = values.detach().float().numpy()
    return array


class Plan:
    """A `MelSpec` laid out for the loops.

    Positions are those of the padded audio: sample 0 of the audio is at `left`, and frame k of
    phase p begins at (p + phases * k) * hop.

    Args:
        mel_spec: the definition of the mel.
        decimation: of a coarse level, see `Level`.
    """

    def __init__(self, mel_spec: MelSpec, decimation: int = 1) -> None:
        self.mel_spec = mel_spec
        with torch.device("cpu"):
            self.module = Level(mel_spec, decimation)
        self.n_fft, self.hop, self.n_mels = self.module.n_fft, self.module.hop, self.module.bands
        self.phases = phases_of(mel_spec)
        self.distance = self.phases * self.hop
        self.pieces = -(-self.n_fft // self.distance)
        self.left, self.right = self.module.padding
        window = self.module.window.numpy()
        self.analysis = self.synthesis = window
        self.tables: Tables | None = None  # of `fft`, if it can do n_fft samples
        if suits(self.n_fft):
            self.tables = tables(self.n_fft)
            # The factors that these transforms leave out.
            self.analysis, self.synthesis = window / 2, window / self.n_fft
        # From here on, covers repeat every `distance` samples.
        self.settled = -(-(self.left + self.n_fft) // self.distance) * self.distance

        self.bands = self._bands()

    def _bands(self) -> Bands:
        filters = self.module.filters.numpy()
        spans = [np.flatnonzero(row) for row in filters]
        first = np.array([span[0] if span.size else 0 for span in spans])
        ends = np.array([span[-1] + 1 if span.size else 0 for span in spans])
        rows = zip(filters, first, ends, strict=True)

        spread = self.module.spread.numpy()
        n_mels, bins = spread.shape
        lower = np.where(spread.any(axis=0), (spread > 0).argmax(axis=0), -1)
        lower[: (lower >= 0).argmax()] = 0
        lower[lower < 0] = n_mels - 1
        padded = np.concatenate([spread, np.zeros_like(spread[:1])])
        return Bands(
            first=first,
            begin=np.concatenate([[0], np.cumsum(ends - first)]),
            weights=np.concatenate([row[first:end] for row, first, end in rows]),
            lower=lower,
            own=spread[lower, np.arange(bins)],
            other=padded[lower + 1, np.arange(bins)],
            floor=np.float32(self.mel_spec.floor),
            power=int(self.mel_spec.power),
        )

    def targets(self, mel: Floats, first: int = 0) -> list[Floats]:
        """exp of the plan's bands of a log-mel (bands, frames), for each phase (frames, bands).

        Args:
            first: the number of the first frame.
        """
        spec, mel = self.mel_spec, mel[: self.n_mels]
        linear = np.exp(np.maximum(mel.T, np.float32(spec.log_floor)) * np.float32(spec.nats))
        starts = [(phase - first) % self.phases for phase in range(self.phases)]
        return [np.ascontiguousarray(linear[start :: self.phases]) for start in starts]

    def mirrors(self, samples: int) -> Mirrors:
        """The samples that padding repeats before and after the audio."""
        before, after = np.arange(-self.left, 0), np.arange(samples, samples + self.right)
        cpu = torch.from_numpy
        return mirror(cpu(before), samples).numpy(), mirror(cpu(after), samples).numpy()

    def inner(self, end: End) -> int:
        """How many samples the audio has with the zeros that the mel pads it with."""
        frames, samples = end
        return samples if self.mel_spec.center else frames * self.hop

    def norm(self, phase: int, first: int, last: int, end: End | None) -> Floats:
        """Factor of the summed corrections of samples first to last - 1; 0 in padding zeros.

        Args:
            end: number of frames and samples of all; None if more audio than this follows.
        """
        if end is None:
            return self._steady(phase, first, last)[0]
        norm = _norm(self._cover(phase, first, last, end))
        norm[max(end[1] - first, 0) :] = 0
        return norm

    def ahead(self, phase: int, first: int, last: int, end: End | None) -> Floats:
        """The momentum of samples first to last - 1 in a step of this phase."""
        if end is None:
            return self._steady(phase, first, last)[1]
        return _ahead(self._cover(phase, first, last, end))

    def _steady(self, phase: int, first: int, last: int) -> tuple[Floats, Floats]:
        """Norm and momentum where more audio follows: all but the start is periodic."""
        begin = first if first < self.settled else self.settled + first % self.distance
        end = begin + last - first
        if end > _KEPT:
            cover = self._cover(phase, first, last, None)
            return _norm(cover), _ahead(cover)
        norm, ahead = self._kept(phase, 1 << (end - 1).bit_length())
        return norm[begin:end], ahead[begin:end]

    @lru_cache(maxsize=32)  # noqa: B019  (plans live as long as the process)
    def _kept(self, phase: int, size: int) -> tuple[Floats, Floats]:
        cover = self._cover(phase, 0, size, None)
        return _norm(cover), _ahead(cover)

    def _cover(self, phase: int, first: int, last: int, end: End | None) -> Floats:
        """Sum of the squared windows over the samples first to last - 1 of the audio."""
        hops = self.settled // self.hop
        index = np.arange(first, last)
        middle = self.settled + index % self.distance
        if end is None:
            cover = self._short_cover(3 * hops + phase, 3 * self.settled, phase)
            return cover[np.where(index < self.settled, index, middle)]
        # Computed without the repeating middle, which is put back by the index.
        frames = end[0]
        cut = max(frames - 4 * hops, 0) // self.phases * self.phases
        cover = self._short_cover(frames - cut, self.inner(end) - cut * self.hop, phase)
        late = index - cut * self.hop
        index = np.where(index < self.settled, index, np.where(late < self.settled, middle, late))
        return cover[index]

    @lru_cache(maxsize=8)  # noqa: B019
    def _short_cover(self, frames: int, samples: int, phase: int) -> Floats:
        if phase >= frames:
            return np.zeros(samples, np.float32)
        cover: Floats = self.module.cover(frames, samples, phase, torch.float32)[0].numpy()
        return cover

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


def _norm(cover: Floats) -> Floats:
    return np.reciprocal(np.maximum(cover, np.float32(MIN_COVER)))


def _ahead(cover: Floats) -> Floats:
    return np.float32(MOMENTUM) * np.minimum(cover / np.float32(MIN_COVER), np.float32(1))


@lru_cache(maxsize=32)
def plan_of(mel_spec: MelSpec, decimation: int = 1) -> Plan:
    """The plan of a level of a MelSpec, built once."""
    return Plan(mel_spec, decimation)
