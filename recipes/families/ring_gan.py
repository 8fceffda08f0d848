r"""A GAN on a ring of eight Gaussians drops modes; a flow trained by likelihood covers them.

.. math:: \min_G \; -\mathbb E\, D(G(\epsilon)), \qquad
    \min_D \; \mathbb E \max(0, 1 - D(x)) + \mathbb E \max(0, 1 + D(G(\epsilon)))
"""

from __future__ import annotations

from typing import Any

import torch
import toys
from divergences import build
from torch import Tensor

from vocoder.evaluation.plots import new_figure
from vocoder.training.terms import hinge_loss

TITLE = "A GAN on a ring of Gaussians"
EQUATIONS = ()
SEEDS = 8
STEPS = 2500
BATCH = 128
LATENTS = 2


def recorded(seeds: int, generator: torch.Generator) -> Tensor:
    """A batch of the ring for each seed, (seeds, batch, 2)."""
    return toys.ring(seeds * BATCH, generator).reshape(seeds, BATCH, 2)


def train(seed: int) -> toys.Networks:
    """Generators of all seeds, each against its own discriminator."""
    seeds = range(seed, seed + SEEDS)
    generators = toys.Networks(seeds, LATENTS, 2)
    discriminators = toys.Networks((1000 + s for s in seeds), 2, 1)
    own = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"lr": 1e-3, "betas": (0.5, 0.9)}
    of_generators = torch.optim.Adam(generators.parameters(), **options)
    of_discriminators = torch.optim.Adam(discriminators.parameters(), **options)
    for _ in range(STEPS):
        noise = torch.randn(SEEDS, BATCH, LATENTS, generator=own)
        generated = generators(noise)
        scores = discriminators(recorded(SEEDS, own)), discriminators(generated.detach())
        loss = SEEDS * hinge_loss([[scores[0]]], [[scores[1]]])
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
    generators = train(seed)
    own = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        points = generators(torch.randn(SEEDS, 2000, LATENTS, generator=own))
    torch.manual_seed(seed)
    flow = build()
    toys.fit(flow, toys.ring, 700, seed)
    with torch.no_grad():
        of_flow = flow.inverse(torch.randn(2000, 2, 1, generator=own))[..., 0]
    figures = {
        "modes": [toys.modes_found(each) for each in points],
        "share_near_modes": [toys.share_near_modes(each) for each in points],
        "flow_modes": toys.modes_found(of_flow),
        "flow_share_near_modes": toys.share_near_modes(of_flow),
    }
    picture = new_figure(9, 3.8)
    places = picture.subplots(2, 5).flatten()
    toys.scatter(places[0], toys.ring(2000, own)[..., 0], "ring")
    for index, axes in enumerate(places[1:9]):
        toys.scatter(axes, points[index], f"GAN {index}: {figures['modes'][index]} modes")
    toys.scatter(places[9], of_flow, f"flow: {figures['flow_modes']} modes")
    return figures, picture


def say(figures: dict[str, Any]) -> str:
    """Two sentences from the figures."""
    modes, shares = figures["modes"], figures["share_near_modes"]
    whole = sum(found == toys.MODES for found in modes)
    return (
        f"Over {len(modes)} seeds, generators find {', '.join(map(str, sorted(modes)))} of the "
        f"{toys.MODES} modes (all of them in {whole}), and "
        f"{100 * sum(shares) / len(shares):.0f} % of what they make lies within three standard "
        f"deviations of one. A flow trained by likelihood on the same ring finds "
        f"{figures['flow_modes']}, with {100 * figures['flow_share_near_modes']:.0f} % near one: "
        f"it must stretch one Gaussian over all, and pays with what lies in between."
    )
