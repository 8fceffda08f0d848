"""Iterations push audio onto its mel: what stays, what gets nearer, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vocoder
from vocoder.audio import LogMel, MelError, MelSpec, read_audio
from vocoder.audio.refinement import (
    MelGriffinLim,
    mel_distance,
    refine_audio,
)
from vocoder.backends import refinement as backend

WAVS = sorted((Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs").glob("*.flac"))
SPEECH = MelSpec.preset("speech-16k")
SPECS = {
    "ljspeech": MelSpec.preset("ljspeech"),
    "speech-16k": SPEECH,
    "speech-24k": MelSpec.preset("speech-24k"),
    "speech-44k": MelSpec.preset("speech-44k"),
    "centred": dataclasses.replace(SPEECH, center=True),
    "power, base 10": dataclasses.replace(SPEECH, power=2.0, log_base="10", floor=1e-10),
    "htk without norm": dataclasses.replace(SPEECH, mel_scale="htk", mel_norm=None),
    "short window, not a multiple": dataclasses.replace(
        SPEECH, win_length=600, hop_length=125, fmin=60.0, fmax=7000.0
    ),
    "three hops": dataclasses.replace(SPEECH, win_length=600, hop_length=200),
    "two hops, centred": dataclasses.replace(SPEECH, n_fft=512, win_length=512, center=True),
    "no overlap": dataclasses.replace(SPEECH, n_fft=256, win_length=256, n_mels=20),
    "ten hops": dataclasses.replace(SPEECH, hop_length=100),
    "odd": dataclasses.replace(SPEECH, n_fft=401, win_length=401, hop_length=99, n_mels=40),
}
both = pytest.mark.parametrize("refine", [refine_audio, backend.refine_audio], ids=["torch", "cpu"])
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


@cache
def _recording(rate: int) -> Tensor:
    return read_audio(WAVS[3], rate)[0].float()


def speech(spec: MelSpec, samples: int | None = None) -> Tensor:
    """A second of a recording, from amid a word to amid another."""
    rate = spec.sample_rate
    return _recording(rate)[rate // 2 :][: samples or rate].clone()


def noise(samples: int, *batch: int, scale: float = 0.1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*batch, samples, generator=generator)


@every_spec
def test_audio_that_has_the_mel_stays(spec: MelSpec) -> None:
    for samples in (spec.sample_rate, 20 * spec.hop_length, 20 * spec.hop_length + 37):
        audio = speech(spec, samples)
        assert audio[:100].abs().max() > 1e-3
        assert audio[-100:].abs().max() > 1e-3
        refined = refine_audio(audio, LogMel(spec)(audio), spec, 8)
        assert (refined - audio).abs().max() < 1e-5


@every_spec
def test_every_iteration_from_noise_comes_nearer(spec: MelSpec) -> None:
    audio = speech(spec)
    mel = LogMel(spec)(audio)
    start = noise(len(audio))
    distances = [
        mel_distance(refine_audio(start, mel, spec, iterations), mel, spec)
        for iterations in range(7)
    ]
    assert all(after < before for before, after in pairwise(distances))
    assert distances[-1] < 0.35 * distances[0]


@both
def test_silence_stays_silent(refine: Callable[..., Any]) -> None:
    silence = torch.full((SPEECH.n_mels, 63), SPEECH.log_floor)
    start = noise(16000)
    refined = refine(start, silence, SPEECH, 24)
    assert LogMel(SPEECH)(refined).max() < SPEECH.log_floor + 0.05
    assert refined.abs().max() < 1e-4
    quiet = 1e-7 * start  # below the floor already, so the mel asks for nothing
    assert (refine(quiet, silence, SPEECH, 8) - quiet).abs().max() < 1e-12
    loud = LogMel(SPEECH)(speech(SPEECH))
    assert torch.equal(refine(torch.zeros(16000), loud, SPEECH, 8), torch.zeros(16000))


@both
@pytest.mark.parametrize("amplitude", [1e-3, 1.0, 100.0])
def test_no_louder_than_the_mel(refine: Callable[..., Any], amplitude: float) -> None:
    audio = speech(SPEECH)
    mel = LogMel(SPEECH)(audio)
    refined = refine(noise(len(audio), scale=amplitude), mel, SPEECH, 8)
    assert refined.square().mean() < 1.05 * audio.square().mean()
    assert refined.abs().max() < 1.5 * audio.abs().max()
    assert (LogMel(SPEECH)(refined) - mel).clamp(min=0).mean() < 0.15


@every_spec
def test_any_mel_gives_finite_audio(spec: MelSpec) -> None:
    generator = torch.Generator().manual_seed(0)
    low, high = spec.log_floor, spec.log_ceiling
    frames = 6
    drawn = low + (high - low) * torch.rand(2, spec.n_mels, frames, generator=generator)
    extreme = torch.where(drawn > (low + high) / 2, high, low)
    samples = frames * spec.hop_length - (1 if spec.center else 0)
    for mel in (drawn, extreme, torch.full_like(drawn, high), torch.full_like(drawn, -1e4)):
        for start in (noise(samples, 2), noise(samples, 2, scale=1e-30), torch.ones(2, samples)):
            refined = MelGriffinLim(spec)(start, mel[..., : spec.frames(samples)], 10)
            assert refined.isfinite().all()


def test_a_batch_equals_its_items() -> None:
    audio = torch.stack([speech(SPEECH), speech(SPEECH).flip(0), torch.zeros(16000)])
    mel = LogMel(SPEECH)(audio.roll(100))
    start = audio + noise(16000, 3, scale=0.01)
    together = refine_audio(start, mel, SPEECH, 3)
    for item in range(3):
        alone = refine_audio(start[item], mel[item], SPEECH, 3)
        assert (together[item] - alone).abs().max() < 1e-6


@both
def test_kinds_and_dtypes(refine: Callable[..., Any]) -> None:
    audio = speech(SPEECH, 4000)
    start, mel = noise(4000), LogMel(SPEECH)(audio)
    expected = refine(start, mel, SPEECH, 2)
    assert expected.dtype == torch.float32
    kept = start.clone()
    for dtype in (np.float32, np.float64):
        refined = refine(start.numpy().astype(dtype), mel.numpy(), SPEECH, 2)
        assert isinstance(refined, np.ndarray)
        assert refined.dtype == dtype
        assert np.abs(refined - expected.numpy()).max() < 1e-5
    half = refine(start.half(), mel, SPEECH, 2)
    assert half.dtype == torch.float16
    assert (half.float() - expected).abs().max() < 1e-2
    untouched = refine(start, mel, SPEECH, 0)
    assert torch.equal(untouched, start)
    assert untouched.data_ptr() != start.data_ptr()
    mixed = refine(start.numpy(), mel.requires_grad_(), SPEECH, 2)
    assert np.abs(mixed - expected.numpy()).max() < 1e-6
    assert torch.equal(start, kept)


SMALL = MelSpec(
    sample_rate=8000, n_fft=64, hop_length=16, win_length=64, n_mels=6, fmin=0, fmax=4000
)


def test_gradients() -> None:
    start = noise(50, 1).double().requires_grad_()
    mel = LogMel(SMALL)(noise(50, 1, seed=2)).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda audio, mel: MelGriffinLim(SMALL)(audio, mel, 2), (start, mel), atol=1e-4
    )


AUDIO = torch.zeros(512)
MEL = torch.zeros(80, 2)


@pytest.mark.parametrize(
    "iterations", [-1, 1001, 1.5, "two", "3:2", True, float("nan"), ((3, 1),), (1, 2)]
)
def test_absurd_numbers_of_iterations_are_refused(iterations: int) -> None:
    with pytest.raises(ValueError, match=r"^refine must .*\.$"):
        refine_audio(AUDIO, MEL, SPEECH, iterations)


@pytest.mark.parametrize(
    "audio, mel, error, message",
    [
        (torch.full((512,), torch.nan), MEL, ValueError, "NaN or infinite samples"),
        (torch.full((512,), torch.inf), MEL, ValueError, "NaN or infinite samples"),
        (AUDIO, torch.full((80, 2), torch.nan), MelError, "NaN"),
        (AUDIO, torch.full((80, 2), 50.0), MelError, "values run from"),
        (AUDIO, torch.zeros(81, 2), MelError, "81"),
        (AUDIO, torch.zeros(80, 3), MelError, "512 samples have 2 frames"),
        (torch.zeros(513), MEL, MelError, "513 samples have 3 frames"),
        (torch.zeros(2, 512), MEL, MelError, "do not belong together"),
        (torch.zeros(2, 512), torch.zeros(3, 80, 2), MelError, "do not belong together"),
        (torch.zeros(1, 2, 512), MEL, ValueError, r"\(samples,\) or \(batch, samples\)"),
        (torch.zeros(0), MEL, ValueError, "no samples"),
        (torch.zeros(512, dtype=torch.int16), MEL, ValueError, "int16"),
        ([0.0] * 512, MEL, ValueError, "audio must be a torch tensor or a numpy array"),
        (AUDIO, [[0.0]], ValueError, "mel must be a torch tensor or a numpy array"),
    ],
)
def test_audio_and_mel_that_do_not_fit_are_refused(
    audio: Tensor, mel: Tensor, error: type[Exception], message: str
) -> None:
    for function in (lambda *pair: refine_audio(*pair, 1), mel_distance):
        with pytest.raises(error, match=message):
            function(audio, mel, SPEECH)


@pytest.mark.parametrize("name", ["refine", "sweeps"])
def test_former_names_work_with_a_warning(name: str) -> None:
    with pytest.warns(DeprecationWarning, match="refine_mel is now refine_audio"):
        made = vocoder.refine_mel(AUDIO, MEL, SPEECH, **{name: 2})
    assert torch.equal(made, refine_audio(AUDIO, MEL, SPEECH, 2))
    with pytest.warns(DeprecationWarning, match="MelGriffinLim"):
        assert vocoder.audio.MelConsistency is MelGriffinLim
