"""The VAE: bounds that are bounds, also where the exact value is known, and its term of the loss.

What it shares with other families: test_contract.py.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.test_contract import SPEC, build, random_mel
from tests.test_recipe_ljspeech import train_here
from vocoder.audio import read_audio
from vocoder.models import MdctFlow, VaeVocoder
from vocoder.nn import Autoencoder, Gaussian
from vocoder.training.step import Step
from vocoder.training.terms import Elbo, Likelihood, Mel, Stft, total_loss

RECIPE = Path(__file__).parents[1] / "recipes/ljspeech"
SAMPLE = RECIPE / "sample/wavs/ru_0024.flac"


# -- Gaussians ---------------------------------------------------------------------------------


def test_densities_and_divergences_are_those_of_torch() -> None:
    torch.manual_seed(0)
    mean, log_scale, x = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    ours = Gaussian.of(torch.cat([mean, log_scale], dim=1))
    theirs = torch.distributions.Normal(mean, log_scale.exp())
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(ours.kl(), torch.distributions.kl_divergence(theirs, standard))
    torch.testing.assert_close(ours.sample(x), mean + log_scale.exp() * x)


# -- a model whose likelihood is known ---------------------------------------------------------


class Linear(nn.Module):
    """p(y | z) = N(W z + b, sigma^2) in every frame, or q(z | y) of the same form."""

    def __init__(self, weight: Tensor, bias: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = weight, bias, scale

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        mean = torch.einsum("oi,bit->bot", self.weight, x) + self.bias[:, None]
        return torch.cat([mean, self.scale.log()[:, None].expand_as(mean)], dim=1)


BANDS, LATENTS = SPEC.hop_length, 3


def linear_model(exact_posterior: bool) -> tuple[VaeVocoder, Callable[[Tensor, Tensor], Tensor]]:
    """A VAE with linear Gaussian parts in float64, and its exact log p(audio | mel).

    y = W z + b + sigma e with orthogonal columns in W, so that the posterior has independent
    elements, and an encoder can be exact.
    """
    model: VaeVocoder = build("vae").double()
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    columns = torch.linalg.qr(drawn(BANDS, LATENTS))[0]
    weight = columns * torch.tensor([0.4, 1.0, 2.0], dtype=torch.float64)
    bias, sigma = 0.2 * drawn(BANDS), 0.7
    precision = 1 + weight.square().sum(dim=0) / sigma**2
    back = weight.T / sigma**2 / precision[:, None]
    offset, spread = -back @ bias, precision.rsqrt()
    if not exact_posterior:
        offset, spread = offset + 0.3, 1.3 * spread
    model.autoencoder.decoder = Linear(weight, bias, torch.full((BANDS,), sigma).double())  # type: ignore[assignment]
    model.autoencoder.encoder = Linear(back, offset, spread)  # type: ignore[assignment]
    covariance = weight @ weight.T + sigma**2 * torch.eye(BANDS, dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(bias, covariance)

    def exact(audio: Tensor, mel: Tensor) -> Tensor:
        # By the Jacobian of the transform, not by its own account.
        def transform(x: Tensor) -> Tensor:
            return model.front(x.reshape(1, 1, -1), mel[None])[0][0].T.flatten()

        jacobian = torch.autograd.functional.jacobian(transform, audio)
        frames = transform(audio).reshape(-1, BANDS)
        return marginal.log_prob(frames).sum() + torch.linalg.slogdet(jacobian).logabsdet

    return model, exact


@pytest.fixture(scope="module")
def audio_and_mel() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    audio = 0.1 * torch.randn(3 * SPEC.hop_length, generator=generator, dtype=torch.float64)
    return audio, random_mel(3).double()


def many_bounds(model: VaeVocoder, audio: Tensor, mel: Tensor) -> Tensor:
    """The bound at 4,000 draws."""
    noise = torch.randn(
        (4000, LATENTS, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    with torch.no_grad():
        return model.bound(audio.expand(4000, -1), mel.expand(4000, -1, -1), noise).elbo


def test_the_exact_posterior_makes_every_bound_the_exact_value(
    audio_and_mel: tuple[Tensor, Tensor],
) -> None:
    model, exact = linear_model(exact_posterior=True)
    audio, mel = audio_and_mel
    value = exact(audio, mel).detach()
    # One draw of all latents has the exact value as its weight, whatever the draw.
    for k, seed in ((1, 0), (1, 5), (7, 1)):
        torch.testing.assert_close(model.importance_weighted(audio, mel, k, seed).detach(), value)
    found = many_bounds(model, audio, mel)
    assert abs(float(found.mean() - value)) < 4 * float(found.std()) / math.sqrt(len(found))


def test_importance_weighted_bounds_rise_with_k_and_stay_below_the_exact_value(
    audio_and_mel: tuple[Tensor, Tensor],
) -> None:
    model, exact = linear_model(exact_posterior=False)
    audio, mel = audio_and_mel
    draws, means = 100, []
    for k in (1, 4, 16):
        values = torch.stack(
            [model.importance_weighted(audio, mel, k, seed).detach() for seed in range(draws)]
        )
        means.append((float(values.mean()), float(values.std()) / math.sqrt(draws)))
    for (low, error), (high, other) in itertools.pairwise(means):
        assert high - low > 3 * math.hypot(error, other)
    value = float(exact(audio, mel).detach())
    assert means[-1][0] + 2 * means[-1][1] < value
    assert value - means[-1][0] < 0.5 * (value - means[0][0])
    # The closed form of the KL term has the same expectation as the weights of single draws.
    bounds = many_bounds(model, audio, mel)
    error = math.hypot(means[0][1], float(bounds.std()) / math.sqrt(len(bounds)))
    assert abs(float(bounds.mean()) - means[0][0]) < 4 * error


# -- the vocoder -------------------------------------------------------------------------------


def test_log_prob_is_the_bound_at_one_fixed_draw() -> None:
    model = build("vae")
    mel, audio = random_mel(5, 2), 0.1 * torch.randn(2, 5 * SPEC.hop_length)
    found = model.log_prob(audio, mel)
    assert torch.equal(found, model.log_prob(audio, mel))
    torch.testing.assert_close(found[1], model.log_prob(audio[1], mel[1]))
    assert "lower bound" in (VaeVocoder.log_prob.__doc__ or "")
    assert model.likelihood == "lower bound"
    with pytest.raises(ValueError, match="k is 0"):
        model.importance_weighted(audio, mel, 0)
    assert model.importance_weighted(audio.numpy(), mel.numpy(), 2).shape == (2,)
    assert model.importance_weighted(audio[0], mel[0], 2).shape == ()


def test_gradient_of_the_loss_reaches_every_parameter() -> None:
    model = build("vae").train()
    audio, mel = 0.1 * torch.randn(2, 10 * SPEC.hop_length), random_mel(10, 2)
    model.training_loss({"audio": audio, "mel": mel}).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_bounds_prefer_speech_with_its_own_mel() -> None:
    audio, _ = read_audio(SAMPLE)
    model = VaeVocoder("speech-16k", latent_channels=4, channels=16, n_layers=2).eval()
    mel = model.mel(audio)
    assert model.log_prob(audio, mel) > model.log_prob(audio, mel.flip(1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"latent_channels": 0}, "latent_channels is 0"),
        ({"n_layers": 0}, "at least one layer"),
        ({"kernel_size": 2}, "odd"),
        ({"look_ahead": -1}, "look_ahead is -1"),
        ({"mel_spec": "nope"}, "presets"),
        ({"refine": -1}, "sweeps must be"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VaeVocoder(**({"mel_spec": SPEC, "channels": 4, "n_layers": 1} | arguments))


# -- its term of the loss ----------------------------------------------------------------------


def step_of(model: Any, seed: int = 0) -> Step:
    torch.manual_seed(1)
    audio, mel = 1e-3 * torch.randn(4, 10 * SPEC.hop_length), random_mel(10, 4)
    return Step(model, audio, mel, 0.5, torch.Generator().manual_seed(seed))


def test_the_term_is_the_bound_at_the_noise_of_the_step() -> None:
    model = build("vae")
    step = step_of(model)
    loss = Elbo()(step)
    noise = torch.randn(4, LATENTS, 10, generator=torch.Generator().manual_seed(0))
    expected = -model.bound(step.audio, step.mel, noise).elbo.mean() / step.audio.shape[1]
    torch.testing.assert_close(loss, expected)
    torch.manual_seed(99)  # as in a resumed run
    assert torch.equal(Elbo()(step_of(model)), loss)
    assert not torch.equal(Elbo()(step_of(model, seed=1)), loss)


def test_free_bits_charge_a_channel_from_their_threshold_on() -> None:
    model = build("vae")
    encoder = model.autoencoder.encoder
    with torch.no_grad():  # q(z | x): one channel at the prior, the others at means 1 and 2
        encoder.end.weight.zero_()
        encoder.end.bias.copy_(torch.tensor([0.0, 1.0, 2.0, 0.0, 0.0, 0.0]))
    frames, samples = 10, 10 * SPEC.hop_length
    plain, free = (Elbo(free_bits=bits)(step_of(model)).item() for bits in (0.0, 0.7))
    divergences = torch.tensor([0.0, 0.5, 2.0])
    extra = (divergences.clamp_min(0.7) - divergences).sum() * frames / samples
    assert free - plain == pytest.approx(float(extra), rel=1e-3)
    gradient = torch.autograd.grad(
        total_loss([Elbo(free_bits=0.7)], step_of(model))["loss"]
        - total_loss([Elbo(free_bits=3.0)], step_of(model))["loss"],
        encoder.end.bias,
    )[0]
    # Only the third channel's KL has a gradient: d/d mu of mu^2 / 2 in every frame.
    expected = torch.tensor([0.0, 0.0, 2.0, 0.0, 0.0, 0.0]) * frames / samples
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_the_term_refuses_other_models_and_numbers(tiny_flow: Callable[..., MdctFlow]) -> None:
    with pytest.raises(NotImplementedError, match="MdctFlow has no evidence lower bound"):
        Elbo()(step_of(tiny_flow(SPEC)))
    with pytest.raises(ValueError, match="free_bits is -1"):
        Elbo(free_bits=-1)


def test_all_terms_train_it() -> None:
    audio, _ = read_audio(SAMPLE)
    model = VaeVocoder(
        "speech-16k", latent_channels=4, channels=8, n_layers=1, scale_channels=8
    ).train()
    crops = audio[16000:][: 2 * 4096].reshape(2, -1)
    step = Step(model, crops, model.mel(crops), 0.5, torch.Generator().manual_seed(0))
    values = total_loss([Elbo(free_bits=0.05), Stft(), Mel()], step)
    assert list(values) == ["loss", "negative_elbo", "stft", "mel_distance"]
    values["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert Likelihood()(step).isfinite()


def test_the_recipe_trains_it(tmp_path: Path) -> None:
    """The shipped configuration, small and for four steps: a model, held-out sound, a report."""
    small = ["--model.init_args.mel_spec", "speech-16k", "--model.init_args.channels", "8"]
    small += ["--model.init_args.n_layers", "1", "--model.init_args.latent_channels", "4"]
    budget = ["--max_time", "1d", "--max_steps", "4", "--trainer.val_check_interval", "2"]
    budget += ["--speech.batch_size", "2", "--speech.crop_frames", "16"]
    config = ["--config", str(RECIPE / "config/vae.yaml"), "--run", "runs/vae"]
    assert train_here(tmp_path, *config, *small, *budget) == 0
    run = tmp_path / "runs/vae"
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4
    assert math.isfinite(lines[-1]["val/log_likelihood"])
    assert any("train/negative_elbo" in line for line in lines)
    assert "The model gives a lower bound." in (run / "report.md").read_text()
    assert json.loads((run / "model/config.json").read_text())["family"] == "vae"


# -- auto-encoders -----------------------------------------------------------------------------


def perturbed(**arguments: Any) -> Autoencoder:
    torch.manual_seed(2)
    model = Autoencoder(5, 3, channels=8, n_layers=2, **arguments)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_without_noise_the_latents_are_the_encoders_mean() -> None:
    model, x = perturbed(), torch.randn(2, 5, 20)
    expected = model.decode(model.encode(x).mean)
    for ours, theirs in zip(model.reconstruction(x), expected, strict=True):
        assert torch.equal(ours, theirs)
    zero = torch.zeros(2, 3, 20)
    encoded = model.encode(x)
    bound = model.bound(x, zero)
    torch.testing.assert_close(bound.reconstruction, expected.log_prob(x).sum(dim=(1, 2)))
    torch.testing.assert_close(bound.kl, encoded.kl())


def test_content_has_no_statistics_and_style_no_time() -> None:
    model, x = perturbed(style_channels=4), torch.randn(2, 5, 50)
    content, style = model.encode(x).mean, model.style(x)
    torch.testing.assert_close(content.mean(dim=2), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        content.var(dim=2, correction=0), torch.ones(2, 3), rtol=1e-2, atol=0
    )
    assert style is not None
    assert style.shape == (2, 4, 1)
    swapped = model.decode(content, style=style.flip(0))
    assert not torch.allclose(swapped.mean, model.reconstruction(x).mean)
    with pytest.raises(ValueError, match="give the style"):
        model.decode(content)
    with pytest.raises(ValueError, match="leave the style out"):
        perturbed().decode(content, style=style)
    for arguments in ({"style_channels": -1}, {"latent_channels": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            Autoencoder(**({"in_channels": 5, "latent_channels": 3} | arguments))
