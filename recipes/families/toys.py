"""What the claims share: densities in two dimensions, small networks and flows, grids.

Points are (batch, 2, 1): two channels at one time step, as the flows of `vocoder.flows` take them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.flows import AffineCoupling, Bijection, ChannelHalves

MODES = 8
RING_RADIUS = 2.0
RING_SIGMA = 0.15

Density = Callable[[Tensor], Tensor]
"""Points (batch, 2, 1) -> log density in nats, (batch,)."""


# -- densities ---------------------------------------------------------------------------------


def ring_centres() -> Tensor:
    """The centres of the ring of eight Gaussians, (8, 2)."""
    angle = 2 * math.pi * torch.arange(MODES) / MODES
    return RING_RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)


def ring(count: int, generator: torch.Generator) -> Tensor:
    """Samples of the ring: eight Gaussians of equal weight, (count, 2, 1)."""
    which = torch.randint(MODES, (count,), generator=generator)
    noise = torch.randn(count, 2, generator=generator)
    return (ring_centres()[which] + RING_SIGMA * noise).unsqueeze(-1)


def ring_log_density(x: Tensor) -> Tensor:
    """Log density of the ring."""
    squares = (x[:, None, :, 0] - ring_centres().to(x.dtype)).square().sum(dim=2)
    normal = -0.5 * squares / RING_SIGMA**2 - math.log(2 * math.pi * RING_SIGMA**2)
    return torch.logsumexp(normal, dim=1) - math.log(MODES)


def near(points: Tensor) -> Tensor:
    """Whether each of the points (count, 2) is within 3 sigma of each mode, (count, 8)."""
    return torch.cdist(points, ring_centres()) < 3 * RING_SIGMA


def modes_found(points: Tensor, least: float = 0.02) -> int:
    """Modes of the ring that hold at least a share of the points (count, 2) within 3 sigma."""
    return int((near(points).float().mean(dim=0) >= least).sum())


def share_near_modes(points: Tensor) -> float:
    """Share of the points (count, 2) within 3 sigma of a mode; 0.989 for the ring itself."""
    return float(near(points).any(dim=1).float().mean())


def funnel(count: int, generator: torch.Generator) -> Tensor:
    """Samples whose second variable is as wide as the first one says, (count, 2, 1)."""
    a, b = torch.randn(2, count, generator=generator)
    return torch.stack([a, b * torch.exp(0.7 * a)], dim=1).unsqueeze(-1)


def funnel_log_density(x: Tensor) -> Tensor:
    """Log density of the funnel."""
    a, b = x[:, 0, 0], x[:, 1, 0]
    return (
        -0.5 * (a.square() + (b * torch.exp(-0.7 * a)).square()) - 0.7 * a - math.log(2 * math.pi)
    )


# -- networks ----------------------------------------------------------------------------------


class PointNetwork(nn.Module):
    """A conditioner for couplings: the same network at every time step, zero at first."""

    def __init__(self, inputs: int, outputs: int, channels: int = 48) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, channels), nn.SiLU(),
            nn.Linear(channels, channels), nn.SiLU(),
            nn.Linear(channels, outputs),
        )  # fmt: skip
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, context: Tensor, condition: Tensor | None = None) -> Tensor:
        result: Tensor = self.layers(context.transpose(1, 2)).transpose(1, 2)
        return result


class Networks(nn.Module):
    """Networks of one size, one for each seed, trained side by side: (seeds, batch, inputs)."""

    def __init__(
        self, seeds: Iterable[int], inputs: int, outputs: int, channels: int = 64, hidden: int = 2
    ) -> None:
        super().__init__()
        sizes = [inputs, *[channels] * hidden, outputs]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for before, after in pairwise(sizes):
            drawn = [torch.randn(before, after, generator=g) for g in generators]
            self.weights.append(torch.stack(drawn) * math.sqrt(1.5 / before))
            self.biases.append(torch.zeros(len(generators), 1, after))

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if layer < last:
                x = nn.functional.leaky_relu(x, 0.1)
        return x


# -- flows -------------------------------------------------------------------------------------


def normal_log_density(z: Tensor) -> Tensor:
    """log N(z; 0, I), (batch,), in nats."""
    return (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum(dim=(1, 2))


def log_density(flow: Bijection, x: Tensor) -> Tensor:
    """Log density of points under a flow to a standard normal, by the change of variables."""
    z, log_det = flow(x)
    return normal_log_density(z) + log_det


def couplings(count: int, bound: float = 3.0) -> list[AffineCoupling]:
    """Affine couplings of the two variables, which change sides."""
    return [
        AffineCoupling(PointNetwork(1, 2), ChannelHalves(swap=index % 2 == 1), bound)
        for index in range(count)
    ]


# -- training ----------------------------------------------------------------------------------


def minimise(
    parameters: Iterable[Tensor],
    loss: Callable[[], Tensor],
    steps: int,
    learning_rate: float,
    clip: float | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
) -> None:
    """Minimise a loss that draws its own batch, with Adam and cosine decay."""
    parameters = list(parameters)
    optimiser = torch.optim.Adam(parameters, learning_rate, betas)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        value = loss()
        optimiser.zero_grad()
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimiser.step()
        schedule.step()


def fit(
    flow: Bijection,
    draw: Callable[[int, torch.Generator], Tensor],
    steps: int,
    seed: int,
    loss: Callable[[Bijection, Tensor], Tensor] | None = None,
    batch: int = 256,
    learning_rate: float = 1e-2,
) -> None:
    """Maximise the likelihood of fresh samples, or minimise another loss of them."""
    generator = torch.Generator().manual_seed(seed)

    def value() -> Tensor:
        x = draw(batch, generator)
        return -log_density(flow, x).mean() if loss is None else loss(flow, x)

    flow.train()
    minimise(flow.parameters(), value, steps, learning_rate, 5.0)
    flow.eval()


def hinge_loss(
    recorded: Sequence[Sequence[Tensor]], generated: Sequence[Sequence[Tensor]]
) -> Tensor:
    r"""The discriminators' loss on their features of recordings and of samples.

    .. math:: O = \frac1K \sum_k \operatorname{mean} \max(0, 1 - D_k(x))
        + \operatorname{mean} \max(0, 1 + D_k(\hat x))

    Returns:
        A scalar, 0 or more: 0 where all scores of recordings are above 1 and all those of samples
        below -1, 2 where all scores are 0.
    """
    losses = [
        F.relu(1 - real[-1]).mean() + F.relu(1 + fake[-1]).mean()
        for real, fake in zip(recorded, generated, strict=True)
    ]
    return torch.stack(losses).mean()


# -- grids -------------------------------------------------------------------------------------


def grid(low: float, high: float, count: int) -> tuple[Tensor, float]:
    """The centres of count x count cells, (count * count, 2, 1), and the area of a cell."""
    size = (high - low) / count
    line = low + size * (torch.arange(count) + 0.5)
    first, second = torch.meshgrid(line, line, indexing="xy")
    return torch.stack([first.flatten(), second.flatten()], dim=1).unsqueeze(-1), size * size


@torch.no_grad()
def on_grid(density: Density, low: float, high: float, count: int) -> Tensor:
    """A density at the centres of a grid, (count, count), rows along the second variable."""
    points, _ = grid(low, high, count)
    values = torch.cat([density(part) for part in points.split(16384)])
    return values.exp().reshape(count, count)


def integral(density: Density, low: float, high: float, count: int) -> float:
    """The integral of a density over a square, by midpoints."""
    _, area = grid(low, high, count)
    return float(on_grid(density, low, high, count).double().sum() * area)


def bare(axes: Any, title: str) -> None:
    """A title and no ticks."""
    axes.set_title(title, fontsize="small")
    axes.set_xticks([])
    axes.set_yticks([])


def show(axes: Any, values: Tensor, low: float, high: float, title: str) -> None:
    """Draw a density on a grid."""
    axes.imshow(values.sqrt(), origin="lower", extent=(low, high, low, high), cmap="viridis")
    bare(axes, title)


def scatter(axes: Any, points: Tensor, title: str, size: float = 3.0) -> None:
    """Draw samples (count, 2) of something near the ring, and the ring's modes."""
    centres = ring_centres()
    axes.plot(centres[:, 0], centres[:, 1], "o", color="0.8", markersize=11, zorder=0)
    axes.plot(points[:, 0], points[:, 1], ".", markersize=size, alpha=0.4)
    axes.set_xlim(-3.2, 3.2)
    axes.set_ylim(-3.2, 3.2)
    axes.set_aspect("equal")
    bare(axes, title)
