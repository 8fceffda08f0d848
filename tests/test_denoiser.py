"""The denoiser, and the measure of the tones it is there to remove."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vocoder.audio import MelSpec, read_audio
from vocoder.evaluation import MetricError
from vocoder.evaluation.metrics import tone_excess_db
from vocoder.models import MdctFlow, denoiser
from vocoder.models.denoiser import Denoiser

SPEC = MelSpec(
    sample_rate=8000, n_fft=64, hop_length=16, win_length=64, n_mels=6, fmin=0, fmax=4000
)
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
    assert abs(tone_excess_db(noise, RATE, RATE / HOP)) < 0.5
    level = 0.01
    # Power of a windowed tone over that of windowed noise: (a / 2)^2 (sum w)^2 / (s^2 sum w^2).
    window = np.hanning(16 * HOP)
    ratio = (level / 2) ** 2 * window.sum() ** 2 / (0.01 * (window**2).sum())
    excess = tone_excess_db(noise + tones(len(noise), level), RATE, RATE / HOP)
    assert abs(excess - 10 * math.log10(1 + ratio)) < 0.7
    assert excess > 8
    # Tones of another spacing are not counted.
    assert abs(tone_excess_db(noise + tones(len(noise), level), RATE, RATE / 250)) < 3


def test_speech_has_no_tones_of_the_frame_rate() -> None:
    speech, _ = read_audio(SAMPLE, RATE)
    assert abs(tone_excess_db(speech, RATE, RATE / HOP)) < 2
    assert tone_excess_db(speech + tones(len(speech), 1e-3), RATE, RATE / HOP) > 10
    assert tone_excess_db(speech.numpy(), RATE, RATE / HOP) == tone_excess_db(
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
        tone_excess_db(audio, RATE, spacing)


class Hum(MdctFlow):
    """A vocoder whose audio always holds the same tones."""

    def synthesize(self, mel, *_, **__):  # type: ignore[no-untyped-def]
        return tones(mel.shape[-1] * HOP, 0.01)


@pytest.fixture(scope="module")
def hum() -> Denoiser:
    return Denoiser(Hum("speech-16k", n_flows=1, channels=4, n_layers=1))


def test_tones_are_removed_and_speech_stays(hum: Denoiser) -> None:
    speech, _ = read_audio(SAMPLE, RATE)
    noisy = speech + tones(len(speech), 0.003)
    clean = hum(noisy, 0.3)
    assert tone_excess_db(noisy, RATE, RATE / HOP) > 15
    assert tone_excess_db(clean, RATE, RATE / HOP) < tone_excess_db(noisy, RATE, RATE / HOP) - 10
    assert (clean - speech).square().sum() < 0.25 * (noisy - speech).square().sum()


def test_no_strength_changes_nothing(hum: Denoiser) -> None:
    speech, _ = read_audio(SAMPLE, RATE)
    for length in (1, 255, 1024, len(speech)):
        assert (hum(speech[:length], 0) - speech[:length]).abs().max() < 1e-5
    assert not hum(torch.zeros(500)).any()


def test_segments_batches_and_numpy_do_not_matter(
    hum: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech, _ = read_audio(SAMPLE, RATE)
    whole = hum(speech, 0.1)
    pair = hum(torch.stack([speech, speech.flip(0)]), 0.1)
    assert (pair[0] - whole).abs().max() < 1e-6
    monkeypatch.setattr(denoiser, "_SEGMENT", 5000)
    assert (hum(speech, 0.1) - whole).abs().max() < 1e-5
    made = hum(speech.numpy(), 0.1)
    assert isinstance(made, np.ndarray)
    assert np.abs(made - whole.numpy()).max() < 1e-5


def test_bad_input_is_refused(hum: Denoiser) -> None:
    for strength in (-1.0, math.nan):
        with pytest.raises(ValueError, match="strength is"):
            hum(torch.zeros(9), strength)
    with pytest.raises(ValueError, match=r"of shape \(1, 1, 9\)"):
        hum(torch.zeros(1, 1, 9))
    with pytest.raises(ValueError, match="divide int16 samples by 32768"):
        hum(np.zeros(9, dtype=np.int16))


def test_the_bias_is_what_the_model_makes_of_nothing() -> None:
    torch.manual_seed(0)
    model = MdctFlow(SPEC, n_flows=2, channels=4, n_layers=2, split="channels")
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    # The middle of a long neutral utterance is all bias, so nothing of it remains.
    neutral = model.synthesize(torch.zeros(SPEC.n_mels, 400), temperature=0)
    rest = Denoiser(model, n_fft=64)(neutral, 1.5)[100 * 16 : 300 * 16]
    assert rest.abs().max() < 0.02 * neutral.abs().max()
