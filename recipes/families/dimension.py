"""Sampling time against dimension: what is sampled in one pass, and what variable by variable."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from vocoder.evaluation.plots import new_figure
from vocoder.flows import AffineCoupling, Bijection, Chain, ChannelHalves

DIMENSIONS = (4, 16, 64, 256, 1024)
BATCH = 16
HIDDEN = 256
LATENTS = 16
COUPLINGS = 4
SECONDS = 0.2
"""That each time is taken over, at least."""


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.SiLU(),
        nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
        nn.Linear(HIDDEN, outputs),
    )  # fmt: skip


class Conditioner(nn.Module):
    """A network of all channels, for couplings."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.network = network(inputs, outputs)

    def forward(self, context: Tensor, condition: Tensor | None = None) -> Tensor:
        result: Tensor = self.network(context.flatten(1)).unsqueeze(2)
        return result


class Masked(nn.Module):
    """MADE: mean and log-scale of each variable from those before it, by masked weights."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.network = network(dimension, 2 * dimension)
        inputs = torch.arange(dimension)
        hidden = torch.arange(HIDDEN) % max(1, dimension - 1)
        outputs = inputs.repeat(2)
        masks = (
            hidden[:, None] >= inputs, hidden[:, None] >= hidden, outputs[:, None] > hidden,
        )  # fmt: skip
        layers = [layer for layer in self.network if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for layer, mask in zip(layers, masks, strict=True):
                layer.weight.mul_(mask)

    def sample(self, noise: Tensor) -> Tensor:
        x = torch.zeros_like(noise)
        for index in range(self.dimension):
            mean, log_scale = self.network(x).chunk(2, dim=1)
            x[:, index] = mean[:, index] + log_scale[:, index].exp() * noise[:, index]
        return x


def flow(dimension: int) -> Chain:
    """Affine couplings that alternate."""
    half = dimension // 2
    pieces: list[Bijection] = [
        AffineCoupling(Conditioner(half, 2 * half), ChannelHalves(bool(index % 2)), 2.0)
        for index in range(COUPLINGS)
    ]
    return Chain(pieces)


def samplers(dimension: int) -> dict[str, Callable[[], Tensor]]:
    """What draws a batch of samples, for each family."""
    noise, latents = torch.randn(BATCH, dimension), torch.randn(BATCH, LATENTS)
    bijection, masked = flow(dimension), Masked(dimension)
    decoder, generator = network(LATENTS, 2 * dimension), network(LATENTS, dimension)

    def decoded() -> Tensor:
        mean, log_scale = decoder(latents).chunk(2, dim=1)
        return mean + log_scale.exp() * noise

    return {
        "flow": lambda: bijection.inverse(noise.unsqueeze(2)),
        "autoregressive": lambda: masked.sample(noise),
        "VAE": decoded,
        "GAN": lambda: generator(latents),
    }


@torch.no_grad()
def measure(
    seed: int, dimensions: tuple[int, ...] = DIMENSIONS, seconds: float = SECONDS
) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    torch.manual_seed(seed)
    figures: dict[str, Any] = {"dimensions": list(dimensions), "milliseconds": {}}
    for dimension in dimensions:
        for name, sample in samplers(dimension).items():
            timer = Timer("sample()", globals={"sample": sample}, timer=time.process_time)
            median = timer.blocked_autorange(min_run_time=seconds).median
            figures["milliseconds"].setdefault(name, []).append(1000 * median)
    picture = new_figure(6, 3.2)
    axes = picture.subplots()
    for name, times in figures["milliseconds"].items():
        axes.plot(dimensions, times, "o-", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("dimensions")
    axes.set_ylabel(f"ms for {BATCH} samples")
    axes.legend(fontsize="small")
    return figures, picture
