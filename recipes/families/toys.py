"""What the claims share: densities in two dimensions, networks, training, and pictures.

Points are (batch, 2, 1): two channels at one time step, as the flows of `vocoder.flows` take them.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from vocoder.flows import AffineCoupling, Bijection, Chain, ChannelHalves

MODES = 8
RING_RADIUS = 2.0
RING_SIGMA = 0.15

Density = Callable[[Tensor], Tensor]
"""Points (batch, 2, 1) -> log density in nats, (batch,)."""


def ring_centres() -> Tensor:
    """The centres of the ring of eight Gaussians, (8, 2)."""
    angle = 2 * math.pi * torch.arange(MODES) / MODES
    return RING_RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)


def ring(count: int, generator: Generator) -> Tensor:
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


def covered(points: Tensor) -> dict[str, Any]:
    """Modes with at least 2 % of the points (count, 2), and the share of points near any mode."""
    hits = near(points).float()
    return {
        "modes": int((hits.mean(dim=0) >= 0.02).sum()),
        "share_near_modes": float(hits.amax(dim=1).mean()),
    }


def funnel(count: int, generator: Generator) -> Tensor:
    """Samples whose first variable sets the width of the second, (count, 2, 1)."""
    a, b = torch.randn(2, count, generator=generator)
    return torch.stack([a, b * torch.exp(0.7 * a)], dim=1).unsqueeze(-1)


def funnel_log_density(x: Tensor) -> Tensor:
    """Log density of the funnel."""
    a, b = x[:, 0, 0], x[:, 1, 0] * torch.exp(-0.7 * x[:, 0, 0])
    return -0.5 * (a.square() + b.square()) - 0.7 * a - math.log(2 * math.pi)


def mlp(inputs: int, outputs: int, channels: int = 48) -> nn.Sequential:
    """A network of two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, channels), nn.SiLU(),
        nn.Linear(channels, channels), nn.SiLU(),
        nn.Linear(channels, outputs),
    )  # fmt: skip


class PointNetwork(nn.Module):
    """A conditioner for couplings: the same network at every time step, zero at first."""

    def __init__(self, inputs: int, outputs: int, channels: int = 48) -> None:
        super().__init__()
        self.layers = mlp(inputs, outputs, channels)
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, context: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layers(context.transpose(1, 2)).transpose(1, 2)


class Networks(nn.Module):
    """Networks of one size, one for each seed, trained side by side: (seeds, batch, inputs)."""

    def __init__(self, seeds: Iterable[int], inputs: int, outputs: int, channels: int = 64) -> None:
        super().__init__()
        generators = [Generator().manual_seed(seed) for seed in seeds]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in pairwise([inputs, channels, channels, outputs]):
            drawn = [torch.randn(before, after, generator=g) for g in generators]
            self.weights.append(torch.stack(drawn) * math.sqrt(1.5 / before))
            self.biases.append(torch.zeros(len(generators), 1, after))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = zip(self.biases, self.weights, strict=True)
        for bias, weight in hidden:
            x = F.leaky_relu(torch.baddbmm(bias, x, weight), 0.1)
        return torch.baddbmm(last[0], x, last[1])


def normal_log_density(z: Tensor) -> Tensor:
    """log N(z; 0, I), (batch,), in nats."""
    return (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum(dim=(1, 2))


def log_density(flow: Bijection, x: Tensor) -> Tensor:
    """Log density of points under a flow to a standard normal, by the change of variables."""
    z, log_det = flow(x)
    return normal_log_density(z) + log_det


def couplings(count: int = 6) -> Chain:
    """Affine couplings of the two variables, which change sides."""
    return Chain(
        AffineCoupling(PointNetwork(1, 2), ChannelHalves(swap=index % 2 == 1), 3.0)
        for index in range(count)
    )


@torch.enable_grad()
def minimise(
    model: nn.Module,
    loss: Callable[[Generator], Tensor],
    steps: int,
    seed: int,
    learning_rate: float,
    clip: float = math.inf,
    betas: tuple[float, float] = (0.9, 0.999),
) -> None:
    """Minimise a loss that draws its own batch, with Adam and cosine decay."""
    generator = Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), learning_rate, betas)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    model.train()
    for _ in range(steps):
        value = loss(generator)
        optimiser.zero_grad()
        value.backward()
        if clip < math.inf:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        schedule.step()
    model.eval()


def fit(
    flow: Bijection,
    draw: Callable[[int, Generator], Tensor],
    steps: int,
    seed: int,
    loss: Callable[[Tensor], Tensor] | None = None,
    batch: int = 256,
    learning_rate: float = 1e-2,
) -> None:
    """Maximise the likelihood of fresh samples, or minimise another loss of them."""
    own = loss or (lambda x: -log_density(flow, x).mean())
    minimise(flow, lambda g: own(draw(batch, g)), steps, seed, learning_rate, 5.0)


@torch.enable_grad()
def duel(
    critic: nn.Module,
    model: nn.Module,
    losses: Callable[[], Iterator[Tensor]],
    steps: int,
    rates: tuple[float, float],
) -> None:
    """Train a critic and a model in turns; `losses` yields the loss of each, on one batch."""
    optimisers = [
        torch.optim.Adam(network.parameters(), rate, (0.5, 0.9))
        for network, rate in zip((critic, model), rates, strict=True)
    ]
    for _ in range(steps):
        for optimiser, loss in zip(optimisers, losses(), strict=True):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    r"""The hinge loss of a discriminator's scores, :math:`D(x)` and :math:`D(\hat x)`.

    .. math:: O = \operatorname{mean} \max(0, 1 - D(x)) + \operatorname{mean} \max(0, 1 + D(\hat x))
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def grid(low: float, high: float, count: int) -> Tensor:
    """The centres of count x count cells, (count * count, 2, 1)."""
    line = low + (high - low) / count * (torch.arange(count) + 0.5)
    first, second = torch.meshgrid(line, line, indexing="xy")
    return torch.stack([first.flatten(), second.flatten()], dim=1).unsqueeze(-1)


@torch.no_grad()
def on_grid(density: Density, low: float, high: float, count: int) -> Tensor:
    """A density at the centres of a grid, (count, count), rows along the second variable."""
    parts = grid(low, high, count).split(16384)
    return torch.cat([density(part) for part in parts]).exp().reshape(count, count)


def integral(density: Density, limit: float, count: int) -> float:
    """The integral of a density over the square [-limit, limit]^2, by midpoints."""
    values = on_grid(density, -limit, limit, count)
    return float(values.double().sum() * (2 * limit / count) ** 2)


def bare(axes: Any, title: str) -> None:
    """A title and no ticks."""
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])


def show(axes: Any, density: Density, limit: float, title: str) -> None:
    """Draw a density on the square [-limit, limit]^2."""
    values = on_grid(density, -limit, limit, 150).sqrt()
    axes.imshow(values, origin="lower", extent=(-limit, limit) * 2, cmap="viridis")
    bare(axes, title)


def cloud(axes: Any, points: Tensor, title: str, limit: float = 3.5, **style: Any) -> None:
    """Draw samples (count, 2)."""
    axes.scatter(*points.T, s=2, alpha=0.4, **style)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_aspect("equal")
    bare(axes, title)


def scatter(axes: Any, points: Tensor, title: str) -> None:
    """Draw samples (count, 2) of something near the ring, and the ring's modes."""
    axes.plot(*ring_centres().T, "o", color="0.8", markersize=11, zorder=0)
    cloud(axes, points, title)


def curves(
    axes: Any, x: Any, lines: dict[str, Any], xlabel: str, ylabel: str = "", base: int = 0
) -> None:
    """Draw one line for each label; base: of a logarithmic x axis."""
    for label, y in lines.items():
        axes.plot(x, y, "o-", label=label)
    if base:
        axes.set_xscale("log", base=base)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend()
