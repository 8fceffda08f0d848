"""Signals as the measures take them: checked, float32, at one rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor

Signal = Tensor | NDArray[Any]
Floats = NDArray[np.float32]

RATE = 16000
"""Most measures compare at this rate, in Hz, so that they do not depend on the audio's own."""


class MetricError(ValueError):
    """A measure has no value for these signals; the message says why."""


def pair_of(
    reference: Signal, degraded: Signal, sample_rate: int, target_rate: int = RATE
) -> tuple[Floats, Floats]:
    """Both signals, checked, as float32 at ``target_rate``."""
    if sample_rate < 1:
        raise MetricError(f"a sample rate is a positive number of Hz, got {sample_rate!r}")
    if len(reference) != len(degraded):
        raise MetricError(
            f"the reference has {len(reference)} samples and the degraded audio {len(degraded)}: "
            "they are compared sample by sample, so cut both to the same length"
        )
    return (
        resampled(reference, "reference", sample_rate, target_rate),
        resampled(degraded, "degraded audio", sample_rate, target_rate),
    )


def resampled(audio: Signal, name: str, sample_rate: int, target_rate: int = RATE) -> Floats:
    """Audio (samples,), checked, as float32 at ``target_rate``; its name is for the message.

    Raises:
        MetricError: another shape or type, no samples, NaN or infinity.
    """
    if isinstance(audio, Tensor):
        audio = audio.detach().to("cpu", torch.float32).numpy()
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise MetricError(
            f"the {name} must be (samples,) of floating point in [-1, 1], got {audio.dtype} of "
            f"shape {audio.shape}"
        )
    if not np.isfinite(audio).all():
        raise MetricError(f"the {name} holds NaN or infinity")
    samples: Floats = np.ascontiguousarray(audio, dtype=np.float32)
    if sample_rate != target_rate:
        samples = soxr.resample(samples, sample_rate, target_rate, quality="HQ")
    if len(samples) == 0:
        raise MetricError(f"the {name} has no samples")
    return samples
