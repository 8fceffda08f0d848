"""Sweeps over whole audio, in threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from vocoder.audio.consistency import Array, check_sweeps, pair
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
    audio: Array, mel: Array, mel_spec: MelSpec, sweeps: int, threads: int | None = None
) -> Array:
    """`vocoder.audio.refine_mel` on the CPU, several times as fast: equal to 1e-5 in float32.

    Args:
        audio, mel, mel_spec, sweeps: as for `refine_mel`; tensors must be on the CPU. Gradients
            are not recorded.
        threads: how many may work at once; None for PyTorch's number.

    Returns:
        As `refine_mel`; the result does not depend on the number of threads by more than
        rounding.

    Raises:
        MelError, ValueError: as for `refine_mel`, or the tensors are on another device.
    """
    check_sweeps(sweeps)
    samples, target = pair(audio, mel, mel_spec)
    threads = torch.get_num_threads() if threads is None else threads
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}.")
    plan = plan_of(mel_spec)
    items = floats(samples).reshape(-1, samples.shape[-1])
    mels = floats(target).reshape(-1, *target.shape[-2:])
    if 1 < threads <= len(items):
        pairs = zip(items, mels, strict=True)
        refined = list(_pool().map(lambda both: _refine(plan, both[0], both[1], sweeps, 1), pairs))
    else:
        refined = [
            _refine(plan, item, own, sweeps, threads) for item, own in zip(items, mels, strict=True)
        ]
    result = torch.from_numpy(np.stack(refined)).reshape(samples.shape).to(samples.dtype)
    return result if isinstance(audio, torch.Tensor) else result.numpy()


def _refine(plan: Plan, audio: Floats, mel: Floats, sweeps: int, threads: int) -> Floats:
    """Audio (samples,) after some sweeps over mel (n_mels, frames)."""
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
