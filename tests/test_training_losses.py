"""The training step and its losses, on real audio and a small flow."""

import pytest
import torch

from tests.test_recipe_ljspeech import SAMPLE
from vocoder.audio import read_audio
from vocoder.training.losses import Likelihood, Mel, Step, Stft, total_loss


@pytest.fixture(scope="module")
def speech():
    """Four crops of recorded speech, (4, 16 * 256)."""
    audio, _ = read_audio(SAMPLE / "wavs" / "ru_0813.flac")
    return torch.stack([audio[start : start + 4096] for start in range(16000, 48000, 8000)])


@pytest.fixture
def model(tiny_flow):
    return tiny_flow()


def step_of(model, audio, budget_used=0.5, **options):
    generator = torch.Generator().manual_seed(0)
    return Step(model, audio, model.mel(audio), budget_used, generator, **options)


def test_the_sample_is_of_a_part_of_the_batch_at_its_temperature(model, speech):
    sample = step_of(model, speech, temperature=0.3, fraction=0.6).sample
    assert sample.audio.shape == (2, 4096)
    assert torch.equal(sample.recorded, speech[:2])
    assert torch.equal(sample.recorded_mel, model.mel(speech)[:2])
    assert torch.equal(sample.mel, model.mel(sample.audio))
    z, _ = model(sample.audio, sample.recorded_mel)
    assert float(z.detach().std()) == pytest.approx(0.3, rel=0.05)
    assert step_of(model, speech, fraction=0.01).sample.audio.shape[0] == 1


def test_losses_set_in_at_their_start_and_have_their_weight(model, speech):
    losses = [Likelihood(), Stft(2.0, 0.3), Mel(1.5, 0.6)]
    before, between, after = (
        total_loss(losses, step_of(model, speech, used)) for used in (0.29, 0.3, 0.6)
    )
    assert list(before) == ["loss", "nll"]
    assert list(between) == ["loss", "nll", "stft"]
    assert list(after) == ["loss", "nll", "stft", "mel_distance"]
    assert torch.equal(before["loss"].detach(), before["nll"])
    nll = -model.log_prob(speech, model.mel(speech)).mean() / speech.shape[1]
    torch.testing.assert_close(before["nll"], nll.detach(), rtol=1e-5, atol=1e-5)
    for values in (between, after):
        expected = values["nll"] + 2 * values["stft"] + 1.5 * values.get("mel_distance", 0)
        torch.testing.assert_close(values["loss"].detach(), expected)
    # The difference of two losses keeps the gradient of the spectral ones and no other.
    (after["loss"] - before["loss"]).backward()
    weights = model.flow.pieces[-1].pieces[0].weight
    assert weights.grad.abs().max() > 1e-3


@pytest.mark.parametrize("arguments", [{"weight": 0.0}, {"start": -0.1}, {"start": 1.1}])
def test_weights_and_starts_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=rf"{next(iter(arguments))} is"):
        Stft(**arguments)


def test_spectral_distance_orders_distortions(speech):
    noise = torch.randn(speech.shape, generator=torch.Generator().manual_seed(0))
    distance = Stft().distance
    same, close, far = (float(distance(speech + s * noise, speech)) for s in (0, 1e-3, 1e-2))
    assert abs(same) < 1e-6
    assert 1e-3 < close < far
    assert distance(torch.zeros_like(speech), speech) > far
    assert distance(speech, torch.zeros_like(speech)).isfinite()
