"""Coarse levels of `refine`: cheap iterations on low bands, equal in every backend, stable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vocoder
from vocoder.audio import LogMel, MelSpec, mel_distance, read_audio, refine_audio
from vocoder.audio.refinement import SCHEDULES, Level, decimations, down, low_pass, schedule, up
from vocoder.backends.refinement import RefineStream
from vocoder.backends.refinement import refine_audio as refine

WAV = sorted((Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs").glob("*.flac"))[3]
SPEC = MelSpec.preset("ljspeech")
PRESETS = ("ljspeech", "speech-16k", "speech-24k", "speech-44k", "tacotron2")


def speech(spec: MelSpec, seconds: float = 1.0) -> Tensor:
    audio = read_audio(WAV, spec.sample_rate)[0]
    start = audio.abs().argmax().item() // 2
    return audio[start : start + round(seconds * spec.sample_rate)]


def noise(samples: int, seed: int = 0) -> Tensor:
    return 0.01 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("decimation", [2, 4, 8, 16])
def test_a_tone_below_the_edge_survives_the_way_down_and_up(decimation: int) -> None:
    time = torch.arange(40_000) / 22050
    for share, kept in ((0.3, True), (0.6, True), (1.3, False)):
        tone = torch.sin(2 * torch.pi * share * 11025 / decimation * time)[None]
        there = up(down(tone, decimation), decimation, 40_000)[:, 5000:-5000]
        expected = tone[:, 5000:-5000] if kept else torch.zeros(1)
        assert (there - expected).abs().max() < 0.01
    assert len(low_pass(decimation, 1.0)) % 2 == 1  # linear phase: no delay of part of a sample


@pytest.mark.parametrize("preset", PRESETS)
def test_a_level_sees_the_low_bands_of_the_mel(preset: str) -> None:
    """The recording's own mel is a fixed point of every level, but for what the filters take."""
    spec = MelSpec.preset(preset)
    audio = speech(spec)
    mel = LogMel(spec)(audio)
    assert decimations(spec)
    for decimation in decimations(spec):
        low = down(audio[None], decimation)
        change = Level(spec, decimation)(low, mel[None], 1) - low
        assert change.square().mean() < 2e-3 * low.square().mean()


@pytest.mark.parametrize("refinement", ["fast", "default", "8:4+1:1", 3])
@pytest.mark.parametrize("preset", PRESETS)
def test_whole_audio_and_streams_equal_the_reference(preset: str, refinement: int | str) -> None:
    spec = MelSpec.preset(preset)
    audio = speech(spec, 0.7)
    mel, start = LogMel(spec)(audio), noise(len(audio))
    expected = refine_audio(start, mel, spec, refinement)
    made = refine(start, mel, spec, refinement)
    # Many iterations amplify what rounding leaves: by as much as they do a change of 1e-7.
    other = refine_audio(start + 1e-7 * noise(len(start), 1).sign(), mel, spec, refinement)
    bound = 1e-5 + 10 * (other - expected).abs().max().item()
    assert (made - expected).abs().max() < bound
    stream = RefineStream(spec, refinement)
    rng, at, frame, pieces = np.random.default_rng(0), 0, 0, []
    while at < len(start) or frame < mel.shape[1]:
        samples, frames = int(rng.integers(4000)), int(rng.integers(16))
        pieces.append(stream.push(start[at : at + samples], mel[:, frame : frame + frames]))
        at, frame = at + samples, frame + frames
        given, taken = sum(map(len, pieces)), min(at, frame * spec.hop_length, len(start))
        assert given >= taken - (stream.look_ahead + 1) * spec.hop_length
    streamed = torch.cat([*pieces, stream.finish()])
    assert streamed.shape == made.shape
    assert (streamed - made).abs().max() < bound


@pytest.mark.parametrize("decimation", [4, 8, 16])
def test_any_number_of_iterations_is_stable(decimation: int) -> None:
    mel = LogMel(SPEC)(speech(SPEC))
    start = noise(22050)
    few, many = (
        mel_distance(refine(start, mel, SPEC, f"{decimation}:{k}+1:1"), mel, SPEC)
        for k in (32, 1000)
    )
    assert many < 1.05 * few


def test_coarse_levels_pay() -> None:
    """At equal cost, six iterations, the low bands come much closer to the mel."""
    audio = speech(SPEC, 2.0)
    mel, start = LogMel(SPEC)(audio), noise(len(audio))
    bands = Level(SPEC, 8).bands
    fine, coarse = (
        (LogMel(SPEC)(refine(start, mel, SPEC, levels)) - mel)[:bands].abs().mean()
        for levels in ("1:6", "8:32+1:2")
    )
    assert coarse < 0.7 * fine


def test_levels_that_a_mel_does_not_have_are_left_out() -> None:
    odd = MelSpec.from_dict({**SPEC.to_dict(), "hop_length": 257})
    assert decimations(odd) == ()
    assert schedule("default", odd) == ((1, 2),)
    assert schedule("default", SPEC) == SCHEDULES["default"]
    assert schedule("8:32+1:2", SPEC) == schedule(((8, 32), (1, 2)), SPEC) == SCHEDULES["fast"]
    assert schedule(5, SPEC) == schedule("5", SPEC) == ((1, 5),)
    assert schedule(0, SPEC) == schedule("0", SPEC) == ()


def test_models_take_schedules() -> None:
    model = vocoder.load()
    mel = model.mel(speech(model.mel_spec))
    made = model.synthesize(mel, refine="fast")
    assert not torch.equal(made, model.synthesize(mel))
    batch = model.synthesize(torch.stack([mel, mel]), refine="fast")
    torch.testing.assert_close(batch[1], made, rtol=0, atol=5e-3)  # rounding, amplified
    with pytest.raises(ValueError, match="one of fast, default, best, or levels such as"):
        model.synthesize(mel, refine="fastest")
