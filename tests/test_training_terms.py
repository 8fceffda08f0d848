"""The step and the terms of the loss, on real audio and a small flow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vocoder.audio import read_audio
from vocoder.models import MdctFlow
from vocoder.training.step import Step
from vocoder.training.terms import (
    Likelihood,
    Mel,
    Stft,
    Term,
    TrainedTerm,
    multi_resolution_stft,
    total_loss,
)

SAMPLE = Path(__file__).parents[1] / "recipes" / "ljspeech" / "sample"


class Discriminator(TrainedTerm):
    """A least-squares GAN of two convolutions."""

    name = "adversarial"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.network = nn.Sequential(
            nn.Conv1d(1, 4, 15, stride=8), nn.LeakyReLU(0.1), nn.Conv1d(4, 1, 3)
        )

    def forward(self, step: Step) -> Tensor:
        return (1 - self.network(step.sample.audio.unsqueeze(1))).square().mean()

    def own_loss(self, step: Step) -> Tensor:
        real = self.network(step.sample.recorded.unsqueeze(1))
        return (1 - real).square().mean() + self.network(
            step.sample.audio.unsqueeze(1)
        ).square().mean()


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """Four crops of recorded speech, (4, 16 * 256)."""
    audio, _ = read_audio(SAMPLE / "wavs" / "ru_0813.flac")
    return torch.stack([audio[start : start + 4096] for start in range(16000, 48000, 8000)])


@pytest.fixture
def model(tiny_flow: Callable[..., MdctFlow]) -> MdctFlow:
    return tiny_flow()


def step_of(model: MdctFlow, audio: Tensor, budget_used: float = 0.5, **options: Any) -> Step:
    generator = torch.Generator().manual_seed(0)
    return Step(model, audio, model.mel(audio), budget_used, generator, **options)


# -- the step ----------------------------------------------------------------------------------


def test_likelihood_and_sample_are_computed_once_and_only_if_asked_for(
    model: MdctFlow, speech: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: Any) -> Tensor:
            calls.append(name)
            return run(*args)

        return call

    for name in ("log_likelihood", "sample"):
        monkeypatch.setattr(model, name, counted(name, getattr(model, name)))
    step = step_of(model, speech, 0.4)
    total_loss([Likelihood(), Stft(start=0.5)], step)
    assert calls == ["log_likelihood"]
    total_loss([Likelihood(), Stft(), Mel()], step)
    assert calls == ["log_likelihood", "sample"]


def test_the_sample_is_of_a_part_of_the_batch_at_its_temperature(
    model: MdctFlow, speech: Tensor
) -> None:
    sample = step_of(model, speech, temperature=0.3, fraction=0.6).sample
    assert sample.audio.shape == (2, 4096)
    assert torch.equal(sample.recorded, speech[:2])
    assert torch.equal(sample.recorded_mel, model.mel(speech)[:2])
    assert torch.equal(sample.mel, model.mel(sample.audio))
    z, _ = model(sample.audio, sample.recorded_mel)
    assert float(z.detach().std()) == pytest.approx(0.3, rel=0.05)
    assert step_of(model, speech, fraction=0.01).sample.audio.shape[0] == 1
    assert torch.equal(
        step_of(model, speech, temperature=0.0).sample.audio,
        model.inverse(torch.zeros(2, 256, 16), model.mel(speech)[:2]),
    )


def test_a_detached_step_has_the_same_sample_without_its_gradient(
    model: MdctFlow, speech: Tensor
) -> None:
    step = step_of(model, speech)
    detached = step.detached()
    assert torch.equal(detached.sample.audio, step.sample.audio)
    assert step.sample.audio.requires_grad
    assert not detached.sample.audio.requires_grad
    assert not detached.sample.mel.requires_grad


# -- the sum of the terms ----------------------------------------------------------------------


@pytest.mark.parametrize("terms", [[Likelihood()], [Likelihood(), Stft(), Mel(), Discriminator()]])
def test_gradients_reach_every_parameter(
    model: MdctFlow, speech: Tensor, terms: list[Term]
) -> None:
    values = total_loss(terms, step_of(model, speech))
    values["loss"].backward()
    for part in (model, *terms):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name
    expected = -model.log_prob(speech, model.mel(speech)).mean() / speech.shape[1]
    torch.testing.assert_close(values["nll"], expected.detach(), rtol=1e-5, atol=1e-5)


def test_terms_set_in_at_their_start_and_have_their_weight(model: MdctFlow, speech: Tensor) -> None:
    terms = [Likelihood(), Stft(2.0, 0.3), Mel(1.5, 0.6)]
    before, between, after = (
        total_loss(terms, step_of(model, speech, used)) for used in (0.29, 0.3, 0.6)
    )
    assert list(before) == ["loss", "nll"]
    assert list(between) == ["loss", "nll", "stft"]
    assert list(after) == ["loss", "nll", "stft", "mel_distance"]
    assert torch.equal(before["loss"].detach(), before["nll"])
    for values in (between, after):
        expected = values["nll"] + 2 * values["stft"] + 1.5 * values.get("mel_distance", 0)
        torch.testing.assert_close(values["loss"].detach(), expected)
    # The difference of two losses keeps the gradient of the spectral terms and no other.
    (after["loss"] - before["loss"]).backward()
    weights = model.flow.pieces[-1].pieces[0].weight
    assert weights.grad.abs().max() > 1e-3


def test_a_terms_own_parameters_learn_from_its_own_loss_alone(
    model: MdctFlow, speech: Tensor
) -> None:
    term = Discriminator(weight=3.0)
    step = step_of(model, speech)
    values = total_loss([term], step)
    torch.testing.assert_close(
        values["loss"].detach(), 3 * values["adversarial"] + values["adversarial_own"]
    )
    values["loss"].backward()
    own = torch.autograd.grad(term.own_loss(step.detached()), list(term.parameters()))
    for parameter, gradient in zip(term.parameters(), own, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    parameters = list(model.parameters())
    alone = torch.autograd.grad(3 * term(step_of(model, speech)), parameters)
    for parameter, gradient in zip(parameters, alone, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_before_its_start_a_terms_parameters_have_a_gradient_of_zero(
    model: MdctFlow, speech: Tensor
) -> None:
    term = Discriminator(start=0.8)
    values = total_loss([Likelihood(), term], step_of(model, speech))
    assert list(values) == ["loss", "nll"]
    values["loss"].backward()
    assert all(not parameter.grad.any() for parameter in term.parameters())


@pytest.mark.parametrize("arguments", [{"weight": 0.0}, {"start": -0.1}, {"start": 1.1}])
def test_weights_and_starts_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(arguments))} is"):
        Stft(**arguments)


# -- each term ---------------------------------------------------------------------------------


def test_mel_term_is_the_distance_in_nats(model: MdctFlow, speech: Tensor) -> None:
    step = step_of(model, speech)
    mels = model.mel(step.sample.audio), model.mel(speech[:2])
    torch.testing.assert_close(Mel()(step), (mels[0] - mels[1]).abs().mean())


def test_the_stft_term_is_of_the_sample(model: MdctFlow, speech: Tensor) -> None:
    step = step_of(model, speech)
    generated = step.sample.audio
    assert Stft(resolutions=[256])(step) == multi_resolution_stft(generated, speech[:2], [256])


def test_spectral_distance_orders_distortions(speech: Tensor) -> None:
    noise = torch.randn(speech.shape, generator=torch.Generator().manual_seed(0))
    same, close, far = (
        float(multi_resolution_stft(speech + s * noise, speech)) for s in (0, 1e-3, 1e-2)
    )
    assert abs(same) < 1e-6
    assert 1e-3 < close < far
    assert multi_resolution_stft(torch.zeros_like(speech), speech) > far
    assert multi_resolution_stft(speech, torch.zeros_like(speech)).isfinite()
