"""LogMel: equal to librosa, the promised number of frames, float32 and finite gradients."""

import dataclasses

import librosa
import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from vocoder.audio import PRESETS, LogMel, MelSpec, read_audio

RECORDING = sorted((ROOT / "recipes/ljspeech/sample/wavs").glob("*.flac"))[0]
LJSPEECH = MelSpec.preset("ljspeech")
TOLERANCE = 1e-5  # in the log domain; the promise is 1e-4
VARIANTS = {
    "htk": {"mel_scale": "htk", "mel_norm": None},
    "power, base 10": {"power": 2.0, "log_base": "10", "floor": 1e-8},
    "short window": {"win_length": 800, "hop_length": 200, "fmin": 60.0},
    "odd padding": {"hop_length": 255},
}


def by_librosa(audio, spec):
    left = right = spec.n_fft // 2
    if not spec.center:
        audio = np.pad(audio, (0, -len(audio) % spec.hop_length))
        left = (spec.n_fft - spec.hop_length) // 2
        right = spec.n_fft - spec.hop_length - left
    mel = librosa.feature.melspectrogram(
        y=np.pad(audio, (left, right), mode="reflect"), sr=spec.sample_rate, n_fft=spec.n_fft,
        hop_length=spec.hop_length, win_length=spec.win_length, n_mels=spec.n_mels, fmin=spec.fmin,
        fmax=spec.fmax, htk=spec.mel_scale == "htk", norm=spec.mel_norm, power=spec.power,
        center=False,
    )  # fmt: skip
    mel = np.maximum(mel, spec.floor)
    return np.log(mel) if spec.log_base == "e" else np.log10(mel)


def speech(spec, noise=0.0):
    """A recording at the rate of the MelSpec; noise fills the band above the original one."""
    audio = read_audio(RECORDING, spec.sample_rate)[0].numpy()
    hiss = np.random.default_rng(0).standard_normal(len(audio))
    return (audio + noise * hiss).astype(np.float32)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize("name", [*PRESETS, *VARIANTS])
def test_every_convention_equals_librosa(name, noise, center):
    spec = dataclasses.replace(PRESETS.get(name, LJSPEECH), center=center, **VARIANTS.get(name, {}))
    audio = speech(spec, noise)
    mel = LogMel(spec)(torch.from_numpy(audio)).numpy()
    expected = by_librosa(audio, spec)
    assert mel.shape == expected.shape == (spec.n_mels, spec.frames(len(audio)))
    assert expected.std() * np.log(10 if spec.log_base == "10" else np.e) > 0.4
    np.testing.assert_allclose(mel, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3, 255, 256, 257, 384, 385, 512, 513, 1024])
def test_short_clips_have_their_frames_and_equal_librosa(samples, center):
    spec = dataclasses.replace(LJSPEECH, center=center)
    audio = speech(spec, noise=1e-2)[20000 : 20000 + samples]
    mel = LogMel(spec)(torch.from_numpy(audio)).numpy()
    assert mel.shape[-1] == (1 + samples // 256 if center else -(-samples // 256))
    np.testing.assert_allclose(mel, by_librosa(audio, spec), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("center", [False, True])
def test_frame_k_is_centred_where_the_convention_says(center):
    spec = dataclasses.replace(LJSPEECH, center=center)
    click = torch.zeros(5120)
    click[10 * 256 + (0 if center else 128)] = 1.0
    loudness = LogMel(spec)(click).mean(dim=0)
    assert loudness.argmax() == 10
    torch.testing.assert_close(loudness[9], loudness[11], rtol=0, atol=1e-3)


def test_float32_whatever_the_autocast_and_the_dtypes():
    audio = torch.from_numpy(speech(LJSPEECH))
    log_mel = LogMel(LJSPEECH)
    assert log_mel.state_dict() == {}
    expected = log_mel(audio)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(audio), expected)
    assert torch.equal(log_mel(audio.double()), expected)
    assert log_mel(audio.half()).dtype == torch.float32
    for cast in (torch.nn.Module.half, torch.nn.Module.bfloat16, torch.nn.Module.double):
        parent = cast(torch.nn.Sequential(LogMel(LJSPEECH), torch.nn.Linear(1, 1)))
        assert parent[1].weight.dtype != torch.float32
        assert torch.equal(parent[0](audio), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_mel():
    audio = torch.from_numpy(speech(LJSPEECH))
    log_mel = LogMel(LJSPEECH)
    expected = log_mel(audio)
    torch.testing.assert_close(log_mel.cuda()(audio.cuda()).cpu(), expected, rtol=0, atol=TOLERANCE)


def test_the_gradient_equals_finite_differences():
    log_mel = LogMel(LJSPEECH)
    audio = torch.from_numpy(speech(LJSPEECH, noise=1e-2)[20000:24000]).requires_grad_()
    direction = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    step = 1e-4 * direction
    log_mel(audio).double().mean().backward()
    assert audio.grad is not None
    with torch.no_grad():
        ahead, behind = (log_mel(audio + s).double().mean() for s in (step, -step))
    torch.testing.assert_close(
        (audio.grad @ step).item(), (ahead - behind).item() / 2, rtol=0.02, atol=0
    )


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_silence_has_a_finite_gradient(power):
    # Frames of zeros next to frames with a click, and a floor that hides as little as possible.
    spec = dataclasses.replace(LJSPEECH, power=power, floor=1e-30)
    audio = torch.zeros(5120)
    audio[2560] = 0.5
    audio.requires_grad_()
    mel = LogMel(spec)(audio)
    mel.sum().backward()
    assert audio.grad is not None
    assert audio.grad.isfinite().all()
    assert audio.grad[2560] > 0


def test_input_that_is_not_audio_is_refused():
    log_mel = LogMel(LJSPEECH)
    with pytest.raises(ValueError, match=r"\(samples,\) or \(batch, samples\).*\(1, 1, 1000\)"):
        log_mel(torch.zeros(1, 1, 1000))
    with pytest.raises(ValueError, match=r"int16.*divide int16 by 32768"):
        log_mel(torch.zeros(1000, dtype=torch.int16))
    with pytest.raises(ValueError, match="no samples"):
        log_mel(torch.zeros(2, 0))
