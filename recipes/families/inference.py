"""Adversarial auto-encoders and adversarially learned inference: generators that also encode."""

from __future__ import annotations

from typing import Any

import torch
import toys
from ring_gan import BATCH, LATENTS, recorded
from torch import Tensor

from vocoder.evaluation.plots import new_figure

SEEDS = 4
STEPS = 2000
KINDS = ("AAE", "ALI")


def train(kind: str, seed: int) -> tuple[toys.Networks, toys.Networks]:
    """Encoders, which take noise too, and decoders of all seeds."""
    seeds = range(seed, seed + SEEDS)
    encoders = toys.Networks(seeds, 2 + LATENTS, LATENTS)
    decoders = toys.Networks((500 + s for s in seeds), LATENTS, 2)
    inputs = LATENTS if kind == "AAE" else 2 + LATENTS
    discriminators = toys.Networks((1000 + s for s in seeds), inputs, 1)
    own = torch.Generator().manual_seed(seed)
    betas = (0.5, 0.9)
    model = torch.optim.Adam([*encoders.parameters(), *decoders.parameters()], 5e-4, betas)
    critic = torch.optim.Adam(discriminators.parameters(), 2e-3, betas)
    for _ in range(STEPS):
        x, z = recorded(SEEDS, own), torch.randn(SEEDS, BATCH, LATENTS, generator=own)
        codes = encode(encoders, x, own)
        if kind == "AAE":
            one, other = z, codes
            loss = (x - decoders(codes)).square().mean()
        else:
            one, other = torch.cat([x, codes], dim=2), torch.cat([decoders(z), z], dim=2)
            loss = torch.zeros(())
        first, second = discriminators(one.detach()), discriminators(other.detach())
        critic.zero_grad()
        (SEEDS * toys.hinge_loss([[first]], [[second]])).backward()
        critic.step()
        # Both sides of the pair learn to look like the other.
        sides = discriminators(other).mean() - discriminators(one).mean()
        model.zero_grad()
        (SEEDS * (loss - sides)).backward()
        model.step()
    return encoders, decoders


def encode(encoders: toys.Networks, x: Tensor, generator: torch.Generator) -> Tensor:
    """Codes drawn from q(z | x)."""
    noise = torch.randn(*x.shape[:2], LATENTS, generator=generator)
    result: Tensor = encoders(torch.cat([x, noise], dim=2))
    return result


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|, 0 for equal distributions (Székely, 2003)."""

    def within(x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return float(2 * torch.cdist(a, b).mean() - within(a) - within(b))


@torch.no_grad()
def measure(seed: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    figures: dict[str, Any] = {}
    picture = new_figure(9, 4.4)
    rows = picture.subplots(2, 4)
    for axes, kind in zip(rows, KINDS, strict=True):
        with torch.enable_grad():
            encoders, decoders = train(kind, seed)
        own = torch.Generator().manual_seed(seed + 1)
        x = toys.ring(SEEDS * 2000, own).reshape(SEEDS, 2000, 2)
        z = torch.randn(SEEDS, 2000, LATENTS, generator=own)
        codes, points = encode(encoders, x, own), decoders(z)
        back = decoders(codes)
        pairs = torch.cat([x, codes], dim=2), torch.cat([points, z], dim=2)
        figures[kind] = {
            "modes": [toys.modes_found(each) for each in points],
            "share_near_modes": [toys.share_near_modes(each) for each in points],
            "reconstruction": [float(e) for e in (x - back).square().sum(2).mean(1).sqrt()],
            "joint_distance": [energy_distance(a, b) for a, b in zip(*pairs, strict=True)],
        }
        shuffled = torch.cat([x, z], dim=2)
        figures[kind]["joint_distance_unmatched"] = [
            energy_distance(a, b) for a, b in zip(shuffled, pairs[1], strict=True)
        ]
        found = figures[kind]["modes"][0]
        toys.scatter(axes[0], points[0], f"{kind}: G(z), {found} modes")
        toys.scatter(axes[1], back[0], f"{kind}: G(E(x))")
        side = torch.atan2(x[0, :, 1], x[0, :, 0])
        for place, values, hue, title in (
            (axes[2], codes[0], side, "E(x), by angle of x"),
            (axes[3], z[0], torch.atan2(points[0, :, 1], points[0, :, 0]), "z, by angle of G(z)"),
        ):
            place.scatter(values[:, 0], values[:, 1], s=2, c=hue, cmap="hsv")
            place.set_xlim(-3.5, 3.5)
            place.set_ylim(-3.5, 3.5)
            place.set_aspect("equal")
            toys.bare(place, f"{kind}: {title}")
    return figures, picture
