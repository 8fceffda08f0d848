"""Linear prediction from a mel: its equations, its stability, and what it says of speech."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import vocoder
from vocoder.audio import PRESETS, LogMel
from vocoder.nn.wavenet import MelLinearPrediction

SPEC = PRESETS["speech-16k"]
SAMPLE = Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs/ru_0024.flac"


@pytest.mark.parametrize("order", [2, 16, 32])
def test_the_synthesis_filter_is_stable(order):
    """All poles lie within the unit circle, for speech and for mels of no audio."""
    audio, _ = vocoder.read_audio(SAMPLE)
    mels = torch.cat(
        [LogMel(SPEC)(audio), 12 * torch.rand(SPEC.n_mels, 50) - 10, torch.full((80, 1), -11.5)], 1
    )
    a, gain, rms = MelLinearPrediction(SPEC, order)(mels[None].double())
    polynomials = np.concatenate([np.ones((1, mels.shape[1])), -a[0].numpy()], axis=0)
    for polynomial in polynomials.T:
        assert np.abs(np.roots(polynomial)).max() < 1
    assert (gain > 0).all()
    assert (gain <= rms).all()


def test_what_is_left_of_speech_is_small_white_and_of_the_gain_that_the_mel_says():
    audio, _ = vocoder.read_audio(SAMPLE)
    speech, hop = audio[16000 : 16000 + 64 * 256], SPEC.hop_length
    a, gain, rms = MelLinearPrediction(SPEC, 16)(LogMel(SPEC)(speech)[None])
    before = torch.nn.functional.pad(speech, (16, 0))
    coefficients = a[0].repeat_interleave(hop, dim=1)
    e = speech - sum(coefficients[k] * before[15 - k : -1 - k] for k in range(16))
    assert speech.square().sum() / e.square().sum() > 30
    normalised = e / gain[0].repeat_interleave(hop)
    assert 0.6 < normalised.square().mean().sqrt() < 1.2
    level = speech.unflatten(0, (-1, hop)).square().mean(1).sqrt()
    assert 0.7 < (rms[0] / level).median() < 1.3
    correlation = [float((x[1:] * x[:-1]).sum() / x.square().sum()) for x in (speech, e)]
    assert correlation[0] > 0.7
    assert abs(correlation[1]) < 0.2


@pytest.mark.parametrize(
    "spec",
    [
        *PRESETS.values(),
        dataclasses.replace(SPEC, power=2.0, log_base="10", mel_scale="htk", mel_norm=None),
        dataclasses.replace(SPEC, n_fft=256, win_length=256),  # with filters that hold no bin
        dataclasses.replace(SPEC, center=True, fmin=80.0, fmax=7600.0),
    ],
)
def test_white_noise_cannot_be_predicted_in_any_convention(spec):
    noise = 0.1 * torch.randn(1, 200 * spec.hop_length, generator=torch.Generator().manual_seed(0))
    mel = LogMel(spec)(noise)
    # Of the mean power, since each frame is an estimate.
    average = (2 / spec.power * spec.nats * mel).exp().mean(-1, keepdim=True)
    flat = average.log() * spec.power / 2 / spec.nats
    _, gain, rms = MelLinearPrediction(spec, 16)(flat)
    assert gain > 0.9 * rms
    assert 0.08 < rms < 0.12
