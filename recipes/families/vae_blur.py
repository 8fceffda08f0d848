"""Blur, the price of a Gaussian decoder trained by forward KL: a VAE on a ring."""

from __future__ import annotations

from typing import Any

import torch
import toys
from autoencoder import Gaussian
from torch import Tensor, nn

from vocoder.evaluation.plots import new_figure

STEPS = 2000
BATCH = 256
SEEDS = 3


class Vae(nn.Module):
    """An encoder and a decoder of two hidden layers each, and one sigma."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()

        def network(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(inputs, channels), nn.SiLU(),
                nn.Linear(channels, channels), nn.SiLU(),
                nn.Linear(channels, outputs),
            )  # fmt: skip

        self.encoder, self.decoder = network(2, 2), network(1, 2)
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def decode(self, z: Tensor) -> Gaussian:
        """p(x | z)."""
        mean = self.decoder(z)
        return Gaussian(mean, self.log_sigma.expand_as(mean))

    def elbo(self, x: Tensor, noise: Tensor) -> Tensor:
        """The bound of each point at one draw, (batch,)."""
        posterior = Gaussian.of(self.encoder(x))
        likelihood = self.decode(posterior.sample(noise)).log_prob(x).sum(dim=1)
        return likelihood - posterior.kl().sum(dim=1)


def train(seed: int, steps: int) -> Vae:
    """A VAE of the ring."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Vae()

    def loss() -> Tensor:
        x = toys.ring(BATCH, generator)[..., 0]
        return -model.elbo(x, torch.randn(BATCH, 1, generator=generator)).mean()

    toys.minimise(model.parameters(), loss, steps, 3e-3)
    return model


@torch.no_grad()
def measure(seed: int, steps: int = STEPS) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    generator = torch.Generator().manual_seed(seed)
    real = toys.ring(4000, generator)[..., 0]
    figures: dict[str, Any] = {
        "sigma_of_data": toys.RING_SIGMA,
        "spread_of_data": float(real.std()),
        "share_near_modes_of_data": toys.share_near_modes(real),
        "modes": [],
        "share_near_modes": [],
        "sigma": [],
    }
    panels = {"data": real}
    for index in range(seed, seed + SEEDS):
        with torch.enable_grad():
            model = train(index, steps)
        output = model.decode(torch.randn(4000, 1, generator=generator))
        points = output.sample(torch.randn(4000, 2, generator=generator))
        figures["modes"].append(toys.modes_found(points))
        figures["share_near_modes"].append(toys.share_near_modes(points))
        figures["sigma"].append(float(model.log_sigma.exp()))
        if index == seed:
            panels |= {"VAE, samples": points, "VAE, means of p(x | z)": output.mean}
    picture = new_figure(8, 3)
    for place, (title, points) in zip(picture.subplots(1, 3), panels.items(), strict=True):
        toys.scatter(place, points, title)
    return figures, picture
