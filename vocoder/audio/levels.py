"""The levels of `refine`: schedules, and the way between sample rates.

Iterations are cheap where the sample rate is low, and the low bands are where they are needed
most. So a schedule runs coarse levels first: audio x is brought to a D-th of its rate, iterated on
there, and what that has changed is added to x:

    low = down(x, D);   x + up(iterated(low) - low, D)

as in a multigrid method (Brandt, 1977). What is above the level's bands does not change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vocoder.audio.mel_spec import MelSpec

Schedule = tuple[tuple[int, int], ...]
"""Levels in order: (decimation, iterations) each; the decimation of the whole rate is 1."""

Refine = int | str | Sequence[Sequence[int]]
"""A number of iterations at the whole rate, the name of a schedule, or a schedule."""

SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "fast": ((8, 32), (1, 2)),
        "default": ((16, 32), (8, 32), (4, 8), (1, 2)),
        "best": ((16, 64), (8, 64), (4, 32), (2, 8), (1, 8)),
    }
)

MOST_ITERATIONS = 1000
"""More iterations than this on one level are refused as a mistake."""

DECIMATIONS = (16, 8, 4, 2)
"""Of the coarse levels, coarsest first."""

EDGE = 0.94
"""Share of the Nyquist frequency of a coarse level below which its bands must end."""

REACH = 16
"""Half the length of the resampling filters, in samples of the lower rate."""

# Shares of the lower Nyquist frequency at which the filters are at -6 dB. On the way up the
# highest bands are faded out: above them, the level knows nothing.
_DOWN, _UP = 1.0, 0.84


def schedule(refine: Refine, mel_spec: MelSpec) -> Schedule:
    """The levels that `refine` stands for, without those that the `MelSpec` does not have.

    Args:
        refine: a number of iterations at the whole rate; a name of `SCHEDULES`; or levels, such as
            ((8, 32), (1, 2)) or "8:32+1:2".
        mel_spec: the definition of the mel.

    Raises:
        ValueError: it is none of these, or a number is out of range.
    """
    there = (*decimations(mel_spec), 1)
    return tuple((d, k) for d, k in check_refine(refine) if k and d in there)


def check_refine(refine: Refine) -> Schedule:
    """The levels that `refine` stands for, where no `MelSpec` is known yet.

    Raises:
        ValueError: it is not what `schedule` takes.
    """
    levels = _parsed(refine)
    for decimation, iterations in levels:
        if decimation not in (*DECIMATIONS, 1):
            raise ValueError(
                f"refine must have levels of decimation {', '.join(map(str, DECIMATIONS))} or 1, "
                f"the whole rate, got {decimation}."
            )
        if not 0 <= iterations <= MOST_ITERATIONS:
            raise ValueError(
                f"refine must have from 0 to {MOST_ITERATIONS:,} iterations, got {iterations}."
            )
    return levels


def _parsed(refine: object) -> Schedule:
    if isinstance(refine, int | np.integer) and not isinstance(refine, bool):
        return ((1, int(refine)),)
    if isinstance(refine, str) and refine in SCHEDULES:
        return SCHEDULES[refine]
    if isinstance(refine, str) and re.fullmatch(r"\d+|\d+:\d+(\+\d+:\d+)*", refine):
        refine = [[1, *map(int, part.split(":"))][-2:] for part in refine.split("+")]
    if isinstance(refine, list | tuple) and all(
        isinstance(level, list | tuple) and [*map(type, level)] == [int, int] for level in refine
    ):
        return tuple((d, k) for d, k in refine)
    raise ValueError(
        f"refine must be a whole number of iterations, one of {', '.join(SCHEDULES)}, or levels "
        f"such as 8:32+1:2 (decimation:iterations), got {refine!r}."
    )


def bands_of(mel_spec: MelSpec, decimation: int) -> int:
    """How many bands a level iterates on: those that end well below its Nyquist frequency."""
    if decimation == 1:
        return mel_spec.n_mels
    highest = EDGE * mel_spec.n_fft / 2 / decimation  # bin
    ends = [int(torch.nonzero(row).max()) if row.any() else 0 for row in mel_spec.filters()]
    return sum(end <= highest for end in ends)


@lru_cache(maxsize=32)
def decimations(mel_spec: MelSpec) -> tuple[int, ...]:
    """The coarse levels that a `MelSpec` has, coarsest first.

    Frames must lie where those of the whole audio do, so the sizes of window, hop and padding must
    be divisible; and a level needs some bands.
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
def low_pass(decimation: int, share: float) -> NDArray[np.float32]:
    """A linear-phase low-pass filter of 2 * `REACH` * decimation + 1 samples.

    A sinc in a Kaiser window, at -6 dB at `share` of the lower Nyquist frequency. Its sum is 1.
    """
    reach = REACH * decimation
    n = np.arange(-reach, reach + 1)
    taps = np.sinc(share / decimation * n) * np.kaiser(2 * reach + 1, 7.0)
    result: NDArray[np.float32] = (taps / taps.sum()).astype(np.float32)
    return result


def down_taps(decimation: int) -> NDArray[np.float32]:
    """The filter of `down`."""
    return low_pass(decimation, _DOWN)


@lru_cache(maxsize=8)
def up_taps(decimation: int) -> NDArray[np.float32]:
    """The filter of `up` by phases: (2 * `REACH` + 1, decimation).

    Sample n * decimation + p is the sum over k of taps[k, p] * low[n + k - `REACH`].
    """
    taps = np.concatenate([decimation * low_pass(decimation, _UP), np.zeros(decimation - 1)])
    # Sample m of the higher rate meets low sample j at tap m - j * decimation + reach.
    last = 2 * REACH
    rows = [taps[(last - k) * decimation :][:decimation] for k in range(last + 1)]
    return np.stack(rows).astype(np.float32)


def down(audio: Tensor, decimation: int) -> Tensor:
    """Audio (batch, samples) at a lower rate: (batch, samples // decimation).

    Sample n lies where sample n * decimation was; beyond the ends, the audio counts as silent.
    """
    taps = torch.from_numpy(down_taps(decimation)).to(audio)
    reach = REACH * decimation
    padded = F.pad(audio, (reach, reach))
    return (padded.unfold(1, len(taps), decimation) @ taps)[:, : audio.shape[1] // decimation]


def up(low: Tensor, decimation: int, samples: int) -> Tensor:
    """Audio at the rate before `down`, without what is above the level's bands: (batch, samples).

    Beyond the ends, `low` counts as silent.
    """
    taps = torch.from_numpy(up_taps(decimation)).to(low)
    # One more sample of the lower rate may begin before the end of the audio.
    padded = F.pad(low, (REACH, REACH + 1))
    return (padded.unfold(1, len(taps), 1) @ taps).flatten(1)[:, :samples]
