"""A GAN on a ring of eight Gaussians: sharp, but nothing in the loss asks for every mode."""

from __future__ import annotations

from typing import Any

import torch
import toys
from divergences import build
from torch import Tensor

from vocoder.evaluation.plots import new_figure

SEEDS = 8
STEPS = 1200
RATES = {"equal rates": 1e-3, "slow discriminator": 1e-4}
"""Learning rates of the discriminator; the generator's is the first of them."""
BATCH = 128
LATENTS = 2


def recorded(seeds: int, generator: torch.Generator) -> Tensor:
    """A batch of the ring for each seed, (seeds, batch, 2)."""
    return toys.ring(seeds * BATCH, generator).reshape(seeds, BATCH, 2)


def train(seed: int, rate: float) -> toys.Networks:
    """Generators of all seeds, each against its own discriminator."""
    seeds = range(seed, seed + SEEDS)
    generators = toys.Networks(seeds, LATENTS, 2)
    discriminators = toys.Networks((1000 + s for s in seeds), 2, 1)
    own = torch.Generator().manual_seed(seed)
    betas = (0.5, 0.9)
    of_generators = torch.optim.Adam(generators.parameters(), RATES["equal rates"], betas)
    of_discriminators = torch.optim.Adam(discriminators.parameters(), rate, betas)
    for _ in range(STEPS):
        noise = torch.randn(SEEDS, BATCH, LATENTS, generator=own)
        generated = generators(noise)
        scores = discriminators(recorded(SEEDS, own)), discriminators(generated.detach())
        loss = SEEDS * toys.hinge_loss([[scores[0]]], [[scores[1]]])
        of_discriminators.zero_grad()
        loss.backward()
        of_discriminators.step()
        loss = -SEEDS * discriminators(generated).mean()
        of_generators.zero_grad()
        loss.backward()
        of_generators.step()
    return generators


def measure(seed: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    figures: dict[str, Any] = {}
    picture = new_figure(9, 3.8)
    rows = picture.subplots(2, 5)
    own = torch.Generator().manual_seed(seed + 1)
    for (name, rate), row in zip(RATES.items(), rows, strict=True):
        generators = train(seed, rate)
        with torch.no_grad():
            points = generators(torch.randn(SEEDS, 2000, LATENTS, generator=own))
        modes = [toys.modes_found(each) for each in points]
        shares = [toys.share_near_modes(each) for each in points]
        figures[name] = {"modes": modes, "share_near_modes": shares}
        for index, axes in enumerate(row[1:]):
            toys.scatter(axes, points[index], f"{name}: {modes[index]} modes")
    torch.manual_seed(seed)
    flow = build()
    toys.fit(flow, toys.ring, 300, seed)
    with torch.no_grad():
        points = flow.inverse(torch.randn(2000, 2, 1, generator=own))[..., 0]
    figures["flow"] = {
        "modes": toys.modes_found(points),
        "share_near_modes": toys.share_near_modes(points),
    }
    toys.scatter(rows[0, 0], toys.ring(2000, own)[..., 0], "ring")
    toys.scatter(rows[1, 0], points, f"flow: {figures['flow']['modes']} modes")
    return figures, picture
