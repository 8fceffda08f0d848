"""The bounds of a VAE where the exact likelihood is known: a linear Gaussian model."""

from __future__ import annotations

import math
from typing import Any

import torch
from autoencoder import Gaussian
from torch import Tensor, nn

from vocoder.evaluation.plots import new_figure

SIZE, LATENTS = 8, 2
STEPS = 3000
DRAWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class LinearVae(nn.Module):
    """Linear encoder and decoder, with scales that do not depend on their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(LATENTS, SIZE)
        self.encoder = nn.Linear(SIZE, LATENTS)
        self.output_scale = nn.Parameter(torch.zeros(()))
        self.posterior_scale = nn.Parameter(torch.zeros(LATENTS))

    def encode(self, x: Tensor) -> Gaussian:
        """q(z | x)."""
        mean = self.encoder(x)
        return Gaussian(mean, self.posterior_scale.expand_as(mean))

    def decode(self, z: Tensor) -> Gaussian:
        """p(x | z)."""
        mean = self.decoder(z)
        return Gaussian(mean, self.output_scale.expand_as(mean))

    def elbo(self, x: Tensor, noise: Tensor) -> Tensor:
        """The bound of each row of x at one draw, (batch,)."""
        posterior = self.encode(x)
        likelihood = self.decode(posterior.sample(noise)).log_prob(x).sum(dim=1)
        return likelihood - posterior.kl().sum(dim=1)

    def weighted(self, x: Tensor, draws: int, generator: torch.Generator) -> Tensor:
        r"""The importance-weighted bound, (batch,).

        .. math:: \log \frac1k \sum_{i=1}^k \frac{p(x \mid z_i)\, \mathcal N(z_i; 0, I)}
            {q(z_i \mid x)}, \qquad z_i \sim q(z \mid x)
        """
        posterior = self.encode(x)
        noise = torch.randn(draws, len(x), LATENTS, generator=generator)
        z = posterior.sample(noise)
        prior = Gaussian(torch.zeros_like(z), torch.zeros_like(z))
        weights = self.decode(z).log_prob(x).sum(dim=2) + prior.log_prob(z).sum(dim=2)
        weights = weights - posterior.log_prob(z).sum(dim=2)
        return weights.logsumexp(dim=0) - math.log(draws)

    def exact(self, x: Tensor) -> Tensor:
        """log p(x), (batch,)."""
        weight, noise = self.decoder.weight, (2 * self.output_scale).exp()
        covariance = weight @ weight.T + noise * torch.eye(SIZE)
        return torch.distributions.MultivariateNormal(self.decoder.bias, covariance).log_prob(x)


def most_likely(x: Tensor) -> float:
    """Mean log-likelihood of probabilistic principal components, the best of all such models."""
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    noise = values[LATENTS:].mean()
    log_det = values[:LATENTS].log().sum() + (SIZE - LATENTS) * noise.log()
    return float(-0.5 * (SIZE * math.log(2 * math.pi) + log_det + SIZE))


def data(count: int, generator: torch.Generator) -> Tensor:
    """Samples of a linear Gaussian model."""
    weight = torch.randn(SIZE, LATENTS, generator=generator)
    z = torch.randn(count, LATENTS, generator=generator)
    return z @ weight.T + 0.5 * torch.randn(count, SIZE, generator=generator)


@torch.no_grad()
def measure(seed: int, steps: int = STEPS) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    x = data(2000, generator)
    model = LinearVae()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    at: list[int] = []
    bounds: list[float] = []
    exact: list[float] = []
    for step in range(steps + 1):
        noise = torch.randn(len(x), LATENTS, generator=generator)
        if step % max(1, steps // 50) == 0:
            at.append(step)
            draws = torch.randn(20, len(x), LATENTS, generator=generator)
            bounds.append(float(torch.stack([model.elbo(x, d) for d in draws]).mean()))
            exact.append(float(model.exact(x).mean()))
        with torch.enable_grad():
            loss = -model.elbo(x, noise).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.encoder.bias.add_(0.5)
    model.posterior_scale.add_(0.7)
    value = float(model.exact(x).mean())
    weighted = [float(model.weighted(x, k, generator).mean()) for k in DRAWS]
    figures = {
        "elbo_start": bounds[0], "exact_start": exact[0],
        "elbo": bounds[-1], "exact": exact[-1], "most_likely": most_likely(x),
        "draws": list(DRAWS), "importance_weighted": weighted, "exact_of_spoilt": value,
    }  # fmt: skip
    picture = new_figure(8, 3)
    left, right = picture.subplots(1, 2)
    left.plot(at, exact, label="exact")
    left.plot(at, bounds, label="lower bound")
    left.axhline(figures["most_likely"], color="0.6", linestyle="--", label="most likely model")
    left.set_ylim(figures["most_likely"] - 3, figures["most_likely"] + 0.3)
    left.set_xlabel("step")
    left.set_ylabel("nats")
    left.legend(fontsize="small")
    right.plot(DRAWS, weighted, "o-", label="importance weighted")
    right.axhline(value, color="0.6", linestyle="--", label="exact")
    right.set_xscale("log", base=2)
    right.set_xlabel("draws k, spoilt encoder")
    right.legend(fontsize="small")
    return figures, picture
