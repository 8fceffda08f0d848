"""Linear prediction from a mel: its equations, its stability, and what it says of speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vocoder
from vocoder.audio import PRESETS, LogMel
from vocoder.nn.linear_prediction import MelLinearPrediction, levinson

SPEC = PRESETS["speech-16k"]
SAMPLE = Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs/ru_0024.flac"


def test_levinson_solves_the_normal_equations() -> None:
    signal = np.random.default_rng(0).standard_normal((3, 50)).cumsum(1)
    r = np.stack([np.correlate(x, x, "full")[49:58] for x in signal])  # (3, 9)
    a, error = levinson(torch.from_numpy(r).unsqueeze(2))
    for row, own, left in zip(r, a[..., 0].numpy(), error[:, 0].numpy(), strict=True):
        toeplitz = row[np.abs(np.subtract.outer(range(8), range(8)))]
        assert np.allclose(toeplitz @ own, row[1:])
        assert np.isclose(left, row[0] - own @ row[1:])


@pytest.mark.parametrize("order", [2, 16, 32])
def test_the_synthesis_filter_is_stable(order: int) -> None:
    """All poles lie within the unit circle, for speech and for mels of no audio."""
    audio, _ = vocoder.read_audio(SAMPLE)
    mels = torch.cat(
        [LogMel(SPEC)(audio), 12 * torch.rand(SPEC.n_mels, 50) - 10, torch.full((80, 1), -11.5)], 1
    )
    found = MelLinearPrediction(SPEC, order)(mels[None].double())
    polynomials = np.concatenate(
        [np.ones((1, mels.shape[1])), -found.coefficients[0].numpy()], axis=0
    )
    for polynomial in polynomials.T:
        assert np.abs(np.roots(polynomial)).max() < 1
    assert (found.gain > 0).all()
    assert (found.gain <= found.level).all()
