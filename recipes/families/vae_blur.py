r"""Blur, the price of a Gaussian decoder trained by forward KL: a VAE on a ring of eight Gaussians.

.. math:: \min \mathrm{KL}\bigl(p_{\text{data}} \,\|\, p\bigr) \le
    \min \; -\mathbb E_{p_{\text{data}}}\, \mathrm{ELBO}(x) + \text{const}, \qquad
    p(x) = \int \mathcal N\bigl(x;\, \mu(z), \sigma^2 I\bigr)\, \mathcal N(z; 0, I)\, dz

A missed sample costs without limit, one in between little: so no mode is dropped, and what the
decoder cannot place exactly is smeared out. The samples between modes are what blurs an image or
makes speech breathy. The decoder is a small network of one latent variable; sigma is learnt.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vocoder.evaluation.plots import new_figure
from vocoder.nn import Gaussian

TITLE = "VAE: blur as the price of covering"
EQUATIONS = ()
MODES, RADIUS, SIGMA = 8, 2.0, 0.15
STEPS = 2000
BATCH = 256
SEEDS = 3


def centres() -> Tensor:
    """The centres of the ring, (8, 2)."""
    angle = 2 * math.pi * torch.arange(MODES) / MODES
    return RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)


def ring(count: int, generator: torch.Generator) -> Tensor:
    """Samples of the ring, (count, 2)."""
    which = torch.randint(MODES, (count,), generator=generator)
    return centres()[which] + SIGMA * torch.randn(count, 2, generator=generator)


def near(points: Tensor) -> Tensor:
    """Whether each point lies within three standard deviations of each mode, (count, 8)."""
    return torch.cdist(points, centres()) < 3 * SIGMA


class VaeVocoder(nn.Module):
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


def train(seed: int, steps: int) -> VaeVocoder:
    """A VAE of the ring."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = VaeVocoder()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x = ring(BATCH, generator)
        loss = -model.elbo(x, torch.randn(BATCH, 1, generator=generator)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model


@torch.no_grad()
def measure(seed: int, steps: int = STEPS) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    generator = torch.Generator().manual_seed(seed)
    real = ring(4000, generator)
    figures: dict[str, Any] = {
        "sigma_of_data": SIGMA,
        "share_near_modes_of_data": float(near(real).any(dim=1).float().mean()),
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
        found = near(points)
        figures["modes"].append(int((found.float().mean(dim=0) >= 0.02).sum()))
        figures["share_near_modes"].append(float(found.any(dim=1).float().mean()))
        figures["sigma"].append(float(model.log_sigma.exp()))
        if index == seed:
            panels |= {"VAE, samples": points, "VAE, means of p(x | z)": output.mean}
    picture = new_figure(8, 3)
    for place, (title, points) in zip(picture.subplots(1, 3), panels.items(), strict=True):
        place.plot(points[:, 0], points[:, 1], ".", markersize=2, alpha=0.3)
        place.set_xlim(-3.2, 3.2)
        place.set_ylim(-3.2, 3.2)
        place.set_aspect("equal")
        place.set_title(title, fontsize="small")
        place.set_xticks([])
        place.set_yticks([])
    return figures, picture


def say(figures: dict[str, Any]) -> str:
    """Two sentences from the figures."""
    shares = figures["share_near_modes"]
    return (
        f"Over {len(shares)} seeds the VAE covers {', '.join(map(str, figures['modes']))} of "
        f"{MODES} modes. But {100 * sum(shares) / len(shares):.0f} % of its samples lie near a "
        f"mode, of the data's {100 * figures['share_near_modes_of_data']:.0f} %, and it learns a "
        f"sigma of {sum(figures['sigma']) / len(shares):.2f} where the data have "
        f"{figures['sigma_of_data']:.2f}."
    )
