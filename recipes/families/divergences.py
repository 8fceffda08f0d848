"""The two directions of the KL divergence: covering and collapsing."""

from __future__ import annotations

import math
from typing import Any

import torch
import toys
from torch import Tensor

from vocoder.evaluation.plots import new_figure
from vocoder.flows import Bijection, Chain

STEPS = 400
LINE_STEPS = 600
STARTS = 8
SEPARATION = 2.0
SIGMA = 0.6


def log_normal(x: Tensor, mean: Tensor | float, sigma: Tensor | float) -> Tensor:
    """log N(x; mean, sigma^2)."""
    sigma = torch.as_tensor(sigma)
    return -0.5 * ((x - mean) / sigma).square() - sigma.log() - 0.5 * math.log(2 * math.pi)


def log_two(x: Tensor) -> Tensor:
    """Log density of two Gaussians of equal weight, on a line."""
    sides = [log_normal(x, side * SEPARATION, SIGMA) for side in (-1, 1)]
    return torch.logsumexp(torch.stack(sides), dim=0) - math.log(2)


def fit_line(forward: bool, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Means and widths of one Gaussian fitted from each start, by integrals on a grid."""
    x = torch.linspace(-16, 16, 1601)[:, None]
    mean = starts.clone().requires_grad_()
    log_sigma = torch.zeros_like(starts).requires_grad_()

    def divergence() -> Tensor:
        p, q = log_two(x), log_normal(x, mean, log_sigma.exp())
        one, other = (p, q) if forward else (q, p)
        return (one.exp() * (one - other)).sum() * 0.02

    toys.minimise([mean, log_sigma], divergence, LINE_STEPS, 0.05)
    return mean.detach(), log_sigma.detach().exp()


def build() -> Chain:
    """A flow on the plane."""
    return Chain(toys.couplings(6))


def reverse(flow: Bijection, z: Tensor) -> Tensor:
    """KL(q || p) for q the flow and p the ring, up to the prior's constant, from latents z."""
    x = flow.inverse(z)
    return (toys.log_density(flow, x) - toys.ring_log_density(x)).mean()


def measure(seed: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    starts = 2 * torch.randn(STARTS, generator=torch.Generator().manual_seed(seed))
    figures: dict[str, Any] = {"starts": STARTS, "distance": 2 * SEPARATION}
    picture = new_figure(9, 2.7)
    line, cover, collapse = picture.subplots(1, 3, width_ratios=[1.5, 1, 1])
    x = torch.linspace(-5, 5, 500)
    line.fill_between(x, log_two(x).exp(), color="0.85", label="p")
    for name, forward, colour in (("forward", True, "C0"), ("reverse", False, "C3")):
        mean, sigma = fit_line(forward, starts)
        figures[name] = {
            "mean_distance_from_centre": float(mean.abs().mean()),
            "sigma": float(sigma.mean()),
            "left": int((mean < -1).sum()),
            "right": int((mean > 1).sum()),
        }
        for index in (int(mean.argmin()), int(mean.argmax())):
            density = log_normal(x, mean[index], sigma[index]).exp()
            label = name if index == int(mean.argmin()) else None
            line.plot(x, density, color=colour, label=label)
    line.legend(fontsize="small")
    line.set_title("one Gaussian fitted to two", fontsize="small")

    def normal(count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, 2, 1, generator=generator)

    for name, axes in (("forward", cover), ("reverse", collapse)):
        torch.manual_seed(seed)
        flow = build()
        if name == "forward":
            toys.fit(flow, toys.ring, STEPS, seed)
        else:
            toys.fit(flow, normal, STEPS, seed, reverse)
        with torch.no_grad():
            points = flow.inverse(normal(4000, torch.Generator().manual_seed(seed + 1)))[..., 0]
        figures[name]["modes"] = toys.modes_found(points)
        figures[name]["share_near_modes"] = toys.share_near_modes(points)
        title = f"flow, {name}: {figures[name]['modes']} of {toys.MODES} modes"
        toys.scatter(axes, points, title)
    return figures, picture
