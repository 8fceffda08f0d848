"""Autoregressive models: the chain rule holds in every order, limited conditionals do not."""

from __future__ import annotations

import math
from typing import Any

import torch
import toys
from torch import Tensor, nn

from vocoder.evaluation.plots import new_figure

STEPS = 700
NOISE = 0.3
ORDERS = ((0, 1), (1, 0))
SIZES = (1, 8)


def parabola(count: int, generator: torch.Generator) -> Tensor:
    """x1 is normal and x2 = x1^2 - 1 + noise, (count, 2, 1)."""
    a, b = torch.randn(2, count, generator=generator)
    return torch.stack([a, a.square() - 1 + NOISE * b], dim=1).unsqueeze(-1)


def parabola_log_density(x: Tensor) -> Tensor:
    """Log density of the parabola."""
    a, b = x[:, 0, 0], (x[:, 1, 0] - x[:, 0, 0].square() + 1) / NOISE
    return -0.5 * (a.square() + b.square()) - math.log(2 * math.pi * NOISE)


class Conditional(nn.Module):
    """A mixture of Gaussians whose parameters a network reads off the other variable."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.network = nn.Sequential(
            nn.Linear(1, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 3 * size)
        )
        with torch.no_grad():  # components that start apart
            self.network[-1].bias[size : 2 * size] = torch.linspace(-2, 2, size + 2)[1:-1]

    def forward(self, value: Tensor, given: Tensor) -> Tensor:
        weight, mean, log_scale = self.network(given.unsqueeze(1)).chunk(3, dim=1)
        log_scale = log_scale.clamp(-6, 4)
        z = (value.unsqueeze(1) - mean) * torch.exp(-log_scale)
        normal = -0.5 * z.square() - log_scale - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(weight.log_softmax(dim=1) + normal, dim=1)


class Autoregressive(nn.Module):
    """One variable, then the other given it."""

    def __init__(self, order: tuple[int, int], size: int) -> None:
        super().__init__()
        self.order = order
        self.first = Conditional(size)
        self.second = Conditional(size)

    def forward(self, x: Tensor) -> Tensor:
        first, second = (x[:, index, 0] for index in self.order)
        result: Tensor = self.first(first, torch.zeros_like(first)) + self.second(second, first)
        return result


def fit(model: Autoregressive, seed: int) -> None:
    """Maximum likelihood."""
    generator = torch.Generator().manual_seed(seed)
    toys.minimise(model.parameters(), lambda: -model(parabola(512, generator)).mean(), STEPS, 5e-3)


def measure(seed: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    held_out = parabola(20_000, torch.Generator().manual_seed(seed + 1))
    figures: dict[str, Any] = {"exact": float(parabola_log_density(held_out).mean())}
    picture = new_figure(9, 2.3)
    axes = iter(picture.subplots(1, 5))
    toys.show(next(axes), toys.on_grid(parabola_log_density, -3, 3, 150), -3, 3, "density")
    for size in SIZES:
        for order in ORDERS:
            torch.manual_seed(seed)
            model = Autoregressive(order, size)
            fit(model, seed)
            with torch.no_grad():
                nats = float(model(held_out).mean())
            name = f"x{order[0] + 1} first, {size} Gaussian{'s' * (size > 1)}"
            figures[name] = {
                "log_likelihood": nats,
                "integral": toys.integral(model, -25, 25, 1500),
            }
            title = f"{name}\n{nats:.2f} nats"
            toys.show(next(axes), toys.on_grid(model, -3, 3, 150), -3, 3, title)
    return figures, picture
