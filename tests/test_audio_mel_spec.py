"""MelSpec: refused values, conversion to plain values, and the bounds of a mel."""

import dataclasses
import json
import math

import pytest
import torch

from vocoder.audio import PRESETS, LogMel, MelSpec

LJSPEECH = MelSpec.preset("ljspeech")


def test_ljspeech_is_the_convention_of_hifi_gan():
    assert LJSPEECH.to_dict() == {
        "sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "win_length": 1024, "n_mels": 80,
        "fmin": 0.0, "fmax": 8000.0, "mel_scale": "slaney", "mel_norm": "slaney", "power": 1.0,
        "log_base": "e", "floor": 1e-5, "center": False,
    }  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_a_mel_spec_survives_json(name):
    spec = dataclasses.replace(MelSpec.preset(name), mel_norm=None, center=True)
    assert MelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"'ljspech'.*ljspeech, speech-16k, speech-24k, speech-44k, tacotron2"
    ):
        MelSpec.preset("ljspech")


def test_unknown_and_missing_keys_are_named():
    with pytest.raises(ValueError, match="has no 'hop_size', 'ref_level_db'"):
        MelSpec.from_dict(LJSPEECH.to_dict() | {"hop_size": 256, "ref_level_db": 20})
    values = LJSPEECH.to_dict()
    del values["fmax"], values["floor"]
    with pytest.raises(ValueError, match="needs 'fmax'"):
        MelSpec.from_dict(values)
    assert MelSpec.from_dict(values | {"fmax": 8000}) == LJSPEECH


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sample_rate", 22050.0, "sample_rate must be a whole number"),
        ("n_mels", True, "n_mels must be a whole number"),
        ("n_mels", 0, "n_mels must be from 1 to 1,024"),
        ("hop_length", -256, "hop_length must be from 1 to 32,768"),
        ("hop_length", 1025, r"hop_length \(1025\) must not exceed win_length"),
        ("win_length", 1025, r"win_length \(1025\) must not exceed n_fft"),
        ("fmin", -1, "fmin must be at least 0"),
        ("fmin", 8000, r"fmax \(8000\) must lie above fmin"),
        ("fmax", 11026, "fmax .* above half the sample rate"),
        ("fmax", None, "fmax must be a number"),
        ("fmax", math.nan, "fmax must be finite"),
        ("mel_scale", "bark", "mel_scale must be 'slaney' or 'htk'"),
        ("mel_norm", "htk", "mel_norm must be 'slaney' or None"),
        ("power", 1.5, "power must be 1.0 or 2.0"),
        ("log_base", 10, "log_base must be 'e' or '10'"),
        ("floor", 0, "floor must be greater than 0"),
        ("floor", "1e-5", "floor must be a number.*1.0e-5"),
        ("center", 1, "center must be True or False"),
    ],
)
def test_a_bad_field_is_refused_by_name(field, value, message):
    with pytest.raises(ValueError, match=rf"^MelSpec\.{message}"):
        dataclasses.replace(LJSPEECH, **{field: value})


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("log_base", ["e", "10"])
@pytest.mark.parametrize("name", PRESETS)
def test_floor_and_ceiling_bound_the_mel_of_any_audio(name, log_base, power):
    spec = dataclasses.replace(MelSpec.preset(name), log_base=log_base, power=power)
    log_mel = LogMel(spec)
    time = torch.arange(8 * spec.n_fft) / spec.sample_rate
    tones = torch.stack(
        [torch.sin(2 * math.pi * f * time) for f in (50.0, 100.0, 440.0, 1000.0, 3000.0, 7000.0)]
    )
    noise = torch.rand(1, len(time), generator=torch.Generator().manual_seed(0)) * 2 - 1
    loud = log_mel(torch.cat([tones, tones.sign(), torch.ones(1, len(time)), noise.sign()]))
    assert loud.max() < spec.log_ceiling
    # A bound far above the loudest audio would let decibels through.
    assert loud.max() > spec.log_ceiling - power * (1.5 if log_base == "e" else 0.65)

    silent = log_mel(torch.zeros(len(time)))
    assert torch.allclose(silent, torch.tensor(spec.log_floor))
    assert loud.min() >= silent.min()
