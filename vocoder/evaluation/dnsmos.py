"""DNSMOS: opinions of listeners, predicted by a network without a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import Tensor

from vocoder.engines.jit import give_cache_to
from vocoder.extras import require

from .metrics import MetricError

_RATE = 16000  # Hz, what the networks were trained at


def dnsmos(audio: Tensor | NDArray[Any], sample_rate: int) -> float:
    """DNSMOS P.835, overall quality: predicted opinion of listeners, 1 to 5, higher is better.

    The mean over windows of 9 s, every 1 s; shorter audio is repeated to fill one. Audio is
    resampled to 16 kHz: what lies above 8 kHz does not count. Designed for noise suppressors, it
    judges noise and distortion, not whether the words and the speaker are right. By the package
    speechmos, which brings Microsoft's networks. Paper: Reddy, Gopal and Cutler, 2022,
    "DNSMOS P.835".

    Args:
        audio: (samples,), floating point in [-1, 1].
        sample_rate: in Hz.

    Raises:
        MetricError: no samples, or NaN.
        MissingExtraError: speechmos, or what it imports, is not installed (extra ``metrics``).
    """
    give_cache_to("librosa")  # which it imports
    package = require("speechmos.dnsmos", "DNSMOS", "metrics")
    if isinstance(audio, Tensor):
        audio = audio.detach().cpu().numpy()
    samples = np.asarray(audio, dtype=np.float32)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise MetricError("DNSMOS judges audio of shape (samples,), without NaN or infinity")
    if sample_rate != _RATE:
        samples = soxr.resample(samples, sample_rate, _RATE, quality="HQ")
    if len(samples) == 0:
        raise MetricError("there are no samples for DNSMOS to judge")
    # Resampling overshoots a little, and the package refuses values beyond 1.
    return float(package.run(np.clip(samples, -1, 1), _RATE)["ovrl_mos"])
