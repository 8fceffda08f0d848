"""Mels of other conventions: what is exact equals the mel of the target, the rest is refused."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import vocoder
from vocoder.audio import LogMel, MelError, MelSpec, convert_mel, read_audio

RECORDING = sorted((Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs").glob("*.flac"))[0]
AUDIO = read_audio(RECORDING, 22050)[0][: 256 * 200]
LJSPEECH = MelSpec.preset("ljspeech")
MEL = LogMel(LJSPEECH)(AUDIO)


@pytest.mark.parametrize("change", [{"log_base": "10"}, {"log_base": "10", "floor": 1e-8}])
def test_base_and_floor_are_converted(change):
    source = dataclasses.replace(LJSPEECH, **change)
    mel = LogMel(source)(torch.cat([AUDIO, torch.zeros(5120)]))
    assert mel.min() < source.log(LJSPEECH.floor) + 1e-6
    expected = LogMel(LJSPEECH)(torch.cat([AUDIO, torch.zeros(5120)]))
    torch.testing.assert_close(convert_mel(mel, source, LJSPEECH), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["number", "bands"])
def test_normalisation_is_undone_in_the_logarithm_of_the_source(kind):
    source = dataclasses.replace(LJSPEECH, log_base="10", floor=1e-10)
    raw = LogMel(source)(AUDIO)
    mean, std = (raw.mean(), raw.std()) if kind == "number" else (raw.mean(1), raw.std(1))
    normalised = (raw - mean[..., None]) / std[..., None] if kind == "bands" else (raw - mean) / std
    converted = convert_mel(normalised, source, "ljspeech", mean=mean, std=std)
    torch.testing.assert_close(converted, MEL, rtol=0, atol=1e-5)


def test_audio_from_a_centred_mel_is_half_a_hop_late():
    """The mel of Tacotron 2 is that of the same audio, 128 samples later, in uncentred frames."""
    converted = convert_mel(LogMel(MelSpec.preset("tacotron2"))(AUDIO), "tacotron2", LJSPEECH)
    late = LogMel(LJSPEECH)(torch.cat([torch.zeros(128), AUDIO, torch.zeros(128)]))
    inside = slice(3, -3)  # frames that the reflection at the ends does not reach
    torch.testing.assert_close(converted[:, inside], late[:, inside], rtol=0, atol=1e-5)
    assert (converted[:, inside] - MEL[:, 3:-2]).abs().max() > 1


@pytest.mark.parametrize("kind", ["numpy", "batch", "half"])
def test_kind_and_shape_stay(kind):
    mel = {"numpy": MEL.numpy(), "batch": MEL.repeat(2, 1, 1), "half": MEL.half()}[kind]
    before = mel.copy() if kind == "numpy" else mel.clone()
    converted = vocoder.convert_mel(mel, "ljspeech", "tacotron2")
    assert type(converted) is type(mel)
    assert converted.shape == mel.shape
    assert str(converted.dtype).endswith("float32")
    np.testing.assert_array_equal(mel, before)
    np.testing.assert_allclose(converted, before, rtol=0, atol=3e-3 if kind == "half" else 1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_rate": 24000}, "sample_rate is 24000 there and 22050 here"),
        ({"hop_length": 300, "win_length": 800}, "hop_length is 300 there and 256 here, win_len"),
        ({"fmin": 80.0, "fmax": 7600.0}, "fmin is 80.0 there and 0.0 here, fmax is 7600.0 there"),
        ({"mel_scale": "htk", "mel_norm": None}, "mel_scale is htk there.*mel_norm is None there"),
        ({"power": 2.0}, "power is 2.0 there and 1.0 here"),
        ({"floor": 1e-4}, r"below its floor, 0\.0001, is lost, and the floor here is 1e-05"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_way_out(change, message):
    source = dataclasses.replace(LJSPEECH, **change)
    way_out = r".*compute the mel from audio with model\.mel, or train a vocoder"
    with pytest.raises(MelError, match=message + way_out):
        convert_mel(torch.zeros(source.n_mels, 20), source, LJSPEECH)


def test_a_preset_is_named_in_the_refusal():
    with pytest.raises(MelError, match="A mel of espnet cannot be converted exactly: fmin is 80"):
        convert_mel(MEL, "espnet", "ljspeech")
    with pytest.raises(ValueError, match="no MelSpec preset 'espresso'"):
        convert_mel(MEL, "espresso", "ljspeech")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"std": 0.0}, "std must be greater than 0"),
        ({"mean": math.nan}, "mean must be finite"),
        ({"mean": torch.zeros(3)}, r"mean must be one number or 80, got shape \(3,\)"),
    ],
)
def test_statistics_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        convert_mel(MEL, "ljspeech", "ljspeech", **arguments)


def test_a_mel_that_cannot_come_from_the_source_is_refused():
    with pytest.raises(MelError, match="transposed"):
        convert_mel(MEL.T, "tacotron2", "ljspeech")
    with pytest.raises(MelError, match="looks like decibels"):
        convert_mel(MEL * 20 / math.log(10), "tacotron2", "ljspeech")
    with pytest.raises(MelError, match="values run from"):  # denormalised twice
        convert_mel(MEL, "tacotron2", "ljspeech", mean=-5.5, std=2.1)
    with pytest.raises(ValueError, match="torch tensor or a numpy array, got list"):
        convert_mel([[0.0]], "tacotron2", "ljspeech")
