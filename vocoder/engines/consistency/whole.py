"""Sweeps over whole audio, in threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from vocoder.audio.consistency import Array, pair
from vocoder.audio.levels import REACH, Refine, Schedule, down_taps, schedule, up_taps
from vocoder.audio.mel_spec import MelSpec

from .loops import finish
from .plan import Floats, Plan, floats, plan_of
from .step import step_of

MIN_SHARE = 48
"""Fewest frames of a step that are worth a thread of their own."""


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="mel-consistency")


def refine(
    audio: Array, mel: Array, mel_spec: MelSpec, refine: Refine, threads: int | None = None
) -> Array:
    """`vocoder.audio.refine_mel` on the CPU, several times as fast: equal to 1e-5 in float32.

    Args:
        audio, mel, mel_spec, refine: as for `refine_mel`; tensors must be on the CPU. Gradients
            are not recorded.
        threads: how many may work at once; None for PyTorch's number.

    Returns:
        As `refine_mel`; the result does not depend on the number of threads by more than
        rounding.

    Raises:
        MelError, ValueError: as for `refine_mel`, or the tensors are on another device.
    """
    levels = schedule(refine, mel_spec)
    samples, target = pair(audio, mel, mel_spec)
    threads = torch.get_num_threads() if threads is None else threads
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}.")
    items = floats(samples).reshape(-1, samples.shape[-1])
    mels = floats(target).reshape(-1, *target.shape[-2:])
    if 1 < threads <= len(items):
        pairs = zip(items, mels, strict=True)
        refined = list(
            _pool().map(lambda both: _on_levels(mel_spec, levels, both[0], both[1], 1), pairs)
        )
    else:
        refined = [
            _on_levels(mel_spec, levels, item, own, threads)
            for item, own in zip(items, mels, strict=True)
        ]
    result = torch.from_numpy(np.stack(refined)).reshape(samples.shape).to(samples.dtype)
    return result if isinstance(audio, torch.Tensor) else result.numpy()


def _on_levels(
    mel_spec: MelSpec, levels: Schedule, audio: Floats, mel: Floats, threads: int
) -> Floats:
    """Audio (samples,) after the iterations of a schedule over mel (n_mels, frames)."""
    for decimation, iterations in levels:
        plan = plan_of(mel_spec, decimation)
        if decimation == 1:
            audio = _refine(plan, audio, mel, iterations, threads)
        elif len(audio) >= decimation:
            low = lowered(np.pad(audio, REACH * decimation), decimation)
            low = low[: len(audio) // decimation]
            change = np.pad(_refine(plan, low, mel, iterations, threads) - low, (REACH, REACH + 1))
            audio = audio + raised(change, decimation)[: len(audio)]
    return audio


# Summed tap by tap, so that a sample does not depend on how the audio is cut: many iterations
# amplify what rounding leaves.


def lowered(padded: Floats, decimation: int) -> Floats:
    """`vocoder.audio.levels.down` of samples with the reach of the filter on either side."""
    taps = down_taps(decimation)
    taps = np.pad(taps, (0, -len(taps) % decimation)).reshape(-1, decimation)
    count = (len(padded) - 2 * REACH * decimation - 1) // decimation + 1
    if count < 1:
        return np.empty(0, np.float32)
    rows = (count + len(taps) - 1) * decimation
    blocks = np.pad(padded[:rows], (0, max(rows - len(padded), 0))).reshape(-1, decimation)
    total = np.zeros((count, decimation), np.float32)
    for k, row in enumerate(taps):
        total += blocks[k : k + count] * row
    result: Floats = total.sum(axis=1)
    return result


def raised(padded: Floats, decimation: int) -> Floats:
    """`vocoder.audio.levels.up` of samples with the reach of the filter on either side."""
    taps = up_taps(decimation)
    count = max(len(padded) - len(taps) + 1, 0)
    total = np.zeros((count, decimation), np.float32)
    for k, row in enumerate(taps):
        total += padded[k : k + count, None] * row
    return total.reshape(-1)


def _refine(plan: Plan, audio: Floats, mel: Floats, sweeps: int, threads: int) -> Floats:
    """Audio (samples,) after some iterations on one level over mel (n_mels, frames)."""
    samples = len(audio)
    end = mel.shape[1], samples
    inner = plan.inner(end)
    left, hop, distance = plan.left, plan.hop, plan.distance
    targets = plan.targets(mel)
    norms = [plan.norm(phase, 0, inner, end) for phase in range(plan.phases)]
    aheads = [plan.ahead(phase, 0, inner, end) for phase in range(plan.phases)]
    mirrors = plan.mirrors(inner)
    total = left + inner + plan.right
    z = np.zeros(inner, np.float32)
    z[:samples] = audio
    # The step's input, and that of the next one.
    w, following = np.empty(total, np.float32), np.empty(total, np.float32)
    w[left : left + inner] = z
    plan.reflect(w, mirrors)
    parts = max(min(threads, len(targets[0]) // max(MIN_SHARE, 4 * plan.pieces)), 1)
    sums = [np.empty(total, np.float32) for _ in range(parts)]  # each in use in part
    steps = [step_of(plan) for _ in range(parts)]

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
        steps[part].correct(w[at:], targets[phase][lead:last], y[at - start :])
        if part == 0:
            plan.fold_left(y, mirrors)
        if part == parts - 1:
            plan.fold_right(y, start, inner, mirrors)
        begin, end = max(begin - left, 0), min(end - left, inner)
        finish(
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
