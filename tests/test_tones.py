"""The measure of tones at multiples of the frame rate."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vocoder.audio import read_audio
from vocoder.evaluation import MetricError
from vocoder.evaluation.metrics import tonal_artifacts_db

SAMPLE = Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs/ru_0024.flac"
RATE, HOP = 16000, 256


def tones(samples: int, level: float) -> Tensor:
    """Tones at all multiples of RATE / HOP, each of an amplitude ``level``."""
    time = torch.arange(samples, dtype=torch.float64) / RATE
    orders = range(1, HOP // 2)
    return (
        level
        * torch.stack([torch.sin(2 * math.pi * k * RATE / HOP * time + k) for k in orders])
        .sum(dim=0)
        .float()
    )


def test_tones_stand_out_of_noise_by_what_they_are() -> None:
    noise = 0.1 * torch.randn(20 * RATE, generator=torch.Generator().manual_seed(0))
    assert abs(tonal_artifacts_db(noise, RATE, RATE / HOP)) < 0.5
    level = 0.01
    # Power of a windowed tone over that of windowed noise: (a / 2)^2 (sum w)^2 / (s^2 sum w^2).
    window = np.hanning(16 * HOP)
    ratio = (level / 2) ** 2 * window.sum() ** 2 / (0.01 * (window**2).sum())
    excess = tonal_artifacts_db(noise + tones(len(noise), level), RATE, RATE / HOP)
    assert abs(excess - 10 * math.log10(1 + ratio)) < 0.7
    assert excess > 8
    # Tones of another spacing are not counted.
    assert abs(tonal_artifacts_db(noise + tones(len(noise), level), RATE, RATE / 250)) < 3


def test_speech_has_no_tones_of_the_frame_rate() -> None:
    speech, _ = read_audio(SAMPLE, RATE)
    assert abs(tonal_artifacts_db(speech, RATE, RATE / HOP)) < 2
    assert tonal_artifacts_db(speech + tones(len(speech), 1e-3), RATE, RATE / HOP) > 10
    assert tonal_artifacts_db(speech.numpy(), RATE, RATE / HOP) == tonal_artifacts_db(
        speech, RATE, RATE / HOP
    )


@pytest.mark.parametrize(
    ("audio", "spacing", "words"),
    [
        (torch.zeros(RATE), RATE / HOP, "silent"),
        (torch.ones(1000), RATE / HOP, "need 4096 samples"),
        (torch.ones(RATE), 61.0, "whole number of samples"),
        (torch.full((RATE,), math.nan), RATE / HOP, "NaN"),
    ],
)
def test_tones_that_cannot_be_measured(audio: Tensor, spacing: float, words: str) -> None:
    with pytest.raises(MetricError, match=words):
        tonal_artifacts_db(audio, RATE, spacing)
