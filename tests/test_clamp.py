"""Mels that are too loud for any audio are refused by name; what is clamped is counted."""

import logging
import math

import pytest
import torch

import vocoder
from tests.conftest import ROOT
from vocoder.audio import PRESETS, LogMel, MelError, MelSpec, read_audio
from vocoder.audio.validation import MIN_FRAMES, Clamp

WAVS = sorted((ROOT / "recipes/ljspeech/sample/wavs").glob("*.flac"))
SPEC = MelSpec.preset("ljspeech")


@pytest.fixture(scope="module")
def mel():
    audio, _ = read_audio(WAVS[3], SPEC.sample_rate)
    return LogMel(SPEC)(audio[: 2 * SPEC.sample_rate])


@pytest.fixture(scope="module")
def model():
    return vocoder.load()


def unit(mel):
    return (mel - mel.min()) / (mel.max() - mel.min())


NORMALISED = {
    "Matcha-TTS": (lambda mel: (mel + 5.5) / 2.1, "mean 0 and standard deviation 1.*2.1 - 5.5"),
    "own statistics": (lambda mel: (mel - mel.mean()) / mel.std(), "mean 0 and standard deviation"),
    "[0, 1]": (unit, r"normalised to \[0, 1\]"),
    "[-1, 1]": (lambda mel: 2 * unit(mel) - 1, r"normalised to \[-1, 1\]"),
    "[-4, 4]": (lambda mel: 8 * unit(mel) - 4, r"normalised to \[-4, 4\]"),
    "too loud": (lambda mel: mel + math.log(8), "beyond .-1, 1., or of another level"),
}


@pytest.mark.parametrize("kind", NORMALISED)
def test_normalised_mels_are_refused_and_named(model, mel, kind):
    normalise, words = NORMALISED[kind]
    wrong = normalise(mel)
    with pytest.raises(MelError, match=words):
        model.synthesize(wrong)
    with pytest.raises(MelError, match=r"looks normalised|another level"):
        list(model.stream(wrong.split(30, dim=1)))
    with pytest.raises(MelError, match=words):  # one item of a batch
        model.synthesize(torch.stack([mel, wrong]))


def test_right_mels_pass_and_loud_ones_are_counted(model, mel):
    model.synthesize(mel)  # warnings are errors here
    with pytest.warns(UserWarning, match=r"Clamped [\d,]+ of 44,[\d,]+ samples.*very loud audio"):
        audio = model.synthesize(mel + math.log(3))
    assert audio.abs().max() == 1


def test_a_model_that_is_too_loud_is_logged_and_the_mel_not_blamed(mel, caplog):
    clamp = Clamp(SPEC, temperature=0.667)
    clamp.expect(mel)
    with caplog.at_level(logging.WARNING):
        clamped = clamp(torch.linspace(-4, 4, 9))
        clamp.finish()
    assert clamped.tolist() == [-1, -1, -1, -1, 0, 1, 1, 1, 1]
    assert "Clamped 8 of 9 samples" in caplog.text
    assert "the model is too loud" in caplog.text


def test_audio_of_the_wrong_layout_or_scale_has_no_mel(model):
    audio = 0.1 * torch.sin(torch.arange(22050) * 0.1)
    with pytest.raises(ValueError, match=r"\(samples, channels\).*audio.mean\(1\)"):
        model.mel(torch.stack([audio, audio], dim=1))
    assert model.mel(torch.stack([audio, audio])).shape[0] == 2
    with pytest.raises(ValueError, match="divide int16 samples by 32768"):
        model.mel(audio * 32768)
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.mel(audio / 0)


@pytest.mark.parametrize("kind", ["clipped speech", "square wave", "noise of two values"])
def test_the_mel_of_a_recording_is_never_refused(model, kind):
    """However loud a recording in [-1, 1] is, its copy is limited, with a warning."""
    speech = read_audio(WAVS[3], model.sample_rate)[0][:22050]
    time = torch.arange(22050) / model.sample_rate
    audio = {
        "clipped speech": (100 * speech).clamp(-1, 0.9999),
        "square wave": torch.sign(torch.sin(2 * torch.pi * 220 * time + 0.1)),
        "noise of two values": torch.randn(22050, generator=torch.Generator()).sign(),
    }[kind]
    with pytest.warns(UserWarning, match="Clamped .* very loud audio"):
        copy = model.synthesize(model.mel(audio))
    assert copy.abs().max() <= 1
    assert copy.square().mean() > 0.1


@pytest.mark.parametrize("preset", PRESETS)
def test_no_recording_is_too_loud_by_any_convention(preset):
    spec = MelSpec.preset(preset)
    speech = read_audio(WAVS[3], spec.sample_rate)[0]
    time = torch.arange(spec.sample_rate) / spec.sample_rate
    slow = torch.randn(spec.sample_rate // 8, generator=torch.Generator().manual_seed(0))
    pulses = torch.where(torch.sin(2 * torch.pi * 20 * time) > 0.7, 1.0, -1.0)
    sweep = torch.sin(2 * torch.pi * (50 * time + spec.sample_rate / 4 * time**2)).sign()
    for audio in ((1e4 * speech).clamp(-1, 1), slow.sign().repeat_interleave(8), pulses, sweep):
        for piece in LogMel(spec)(audio).split(MIN_FRAMES, dim=1):
            Clamp(spec, temperature=1).expect(piece)
