"""Streams with a short delay; the exact ones are in the tests of models."""

import dataclasses

import numpy as np
import pytest
import torch

import vocoder
from vocoder.audio import LogMel, MelSpec, mel_distance
from vocoder.backends.look_ahead import LEVELS, LookAheadRefiner
from vocoder.models.restoration import Restoration

SPEC = MelSpec.preset("ljspeech")
HOP = SPEC.hop_length


@pytest.fixture(scope="module")
def default():
    torch.set_num_threads(1)
    return vocoder.load().restored_by(None)


@pytest.fixture(scope="module")
def mel(default):
    """41 frames of a buzz that rises in a little noise."""
    t = torch.arange(41 * HOP) / SPEC.sample_rate
    phase = 2 * torch.pi * (110 * t + 40 * t.square())
    buzz = sum((k * phase).sin() / k for k in range(1, 30))
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    return default.mel(0.1 * buzz + 0.003 * noise)


def streamed(model, mel, sizes=1, **how):
    return torch.cat(list(model.stream(mel.split(sizes, dim=1), **how)))


def test_the_audio_does_not_depend_on_the_chunks(default, mel):
    whole = streamed(default, mel, 41, look_ahead=4)
    assert whole.shape == (41 * HOP,)
    assert whole.abs().max() > 0.05
    assert torch.equal(streamed(default, mel, [1, 7, 0, 30, 3], look_ahead=4), whole)
    assert not torch.equal(streamed(default, mel, 41, look_ahead=4, seed=1), whole)


def test_it_obeys_the_mel_nearly_as_one_pass_does(default, mel):
    def distance(audio):
        return mel_distance(audio, mel, SPEC)

    short = distance(streamed(default, mel, look_ahead=4))
    assert short < 0.7 * distance(default.synthesize(mel, refine=0))
    assert short < 2.5 * distance(default.synthesize(mel))
    assert distance(streamed(default, mel, look_ahead=1)) > short


@pytest.mark.parametrize("look_ahead", [1, 3])
def test_the_delay_is_the_look_ahead(tiny_flow, mel, look_ahead):
    model, given = tiny_flow(SPEC), 0

    def frames():
        nonlocal given
        for frame in mel.split(1, dim=1):
            given += 1
            yield frame

    samples = 0
    for audio in model.stream(frames(), look_ahead=look_ahead):
        samples += len(audio)
        assert samples == HOP * (given - look_ahead) or given == mel.shape[1]
    assert samples == HOP * mel.shape[1]
    assert model.look_ahead(look_ahead=look_ahead) == look_ahead
    # What is played does not know what comes later.
    other = torch.cat([mel[:, :20], mel[:, 20:].flip(1)], dim=1)
    first, second = (streamed(model, m, look_ahead=look_ahead) for m in (mel, other))
    same = (20 - look_ahead) * HOP
    assert torch.equal(first[:same], second[:same])
    assert not torch.equal(first[same:], second[same:])


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 5, 41])
def test_every_length_and_convention(tiny_flow, mel, frames, center):
    model = tiny_flow(dataclasses.replace(SPEC, center=center))
    for look_ahead in (1, 9):
        audio = streamed(model, mel[:, :frames], 3, look_ahead=look_ahead)
        assert audio.shape == (frames * HOP,)
        assert audio.isfinite().all()
    assert list(model.stream([], look_ahead=2)) == []
    arrays = list(model.stream([mel[:, :frames].numpy()], look_ahead=9))
    np.testing.assert_array_equal(np.concatenate(arrays), audio.numpy())


@pytest.mark.parametrize(("levels", "tolerance"), [(((1, 2),), 1e-4), (LEVELS, 2e-2)])
def test_memory_is_constant_and_audio_that_has_the_mel_stays(levels, tolerance):
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.standard_normal(103 * HOP)).astype(np.float32)
    target = LogMel(SPEC)(torch.from_numpy(audio)).numpy()
    refiner, played, sizes = LookAheadRefiner(SPEC, levels, 4), [], []
    for k in range(100):
        estimate = audio[k * HOP : (k + 1 + refiner.reach) * HOP]
        played.append(refiner.push(target[:, k], estimate))
        sizes.append(len(refiner._audio))
    assert len(set(sizes[20:])) == 1
    made = np.concatenate(played)
    np.testing.assert_allclose(made, audio[: len(made)], rtol=0, atol=tolerance)


def test_the_look_ahead_of_a_restoring_flow_is_added(tiny_flow, mel):
    model, flow = tiny_flow(SPEC), Restoration(SPEC).eval()
    model.restored_by(flow)
    assert model.look_ahead(look_ahead=2) == 2 + flow.look_ahead
    assert model.look_ahead(restore=0, look_ahead=2) == 2
    assert streamed(model, mel, 6, look_ahead=2).shape == (41 * HOP,)
    assert streamed(model, mel, 6, look_ahead=2, restore=0).shape == (41 * HOP,)


def test_wrong_values_say_what_to_do(tiny_flow, mel):
    model = tiny_flow(SPEC)
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match=r"look_ahead is .*1 or more"):
            streamed(model, mel, look_ahead=wrong)
        with pytest.raises(ValueError, match=r"look_ahead is .*1 or more"):
            model.look_ahead(look_ahead=wrong)
    with pytest.raises(ValueError, match="refine is 0: leave refine out, or look_ahead"):
        streamed(model, mel, look_ahead=4, refine=0)
    with pytest.raises(ValueError, match="draw sample by sample"):
        streamed(vocoder.load("autoregressive"), mel, look_ahead=4)
