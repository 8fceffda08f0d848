"""Couplings that never change sides leave half of the variables as they are."""

from __future__ import annotations

from typing import Any

import torch
import toys
from torch import Tensor, nn

from vocoder.evaluation.plots import new_figure
from vocoder.flows import (
    AffineCoupling,
    Bijection,
    Chain,
    ChannelHalves,
    ChannelMask,
    Checkerboard,
    InvertibleConv1x1,
    Swap,
)

CHANNELS, TIME = 4, 4
COUPLINGS = 4
KINDS = ("none", "swap", "channel mask", "checkerboard", "1x1 convolution")
TRAINED = ("none", "swap", "1x1 convolution")


class Neighbours(nn.Module):
    """A conditioner that sees three time steps, with random weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(inputs, 16, 3, padding=1), nn.Tanh(), nn.Conv1d(16, outputs, 1)
        )

    def forward(self, context: Tensor, condition: Tensor | None = None) -> Tensor:
        result: Tensor = self.layers(context)
        return result


def stack(kind: str, network: type[nn.Module], channels: int) -> Chain:
    """Affine couplings with one way to alternate."""
    pieces: list[Bijection] = []
    half = channels // 2
    for index in range(COUPLINGS):
        if kind == "channel mask":
            keep = [(channel + index) % 2 == 0 for channel in range(channels)]
            pieces.append(AffineCoupling(network(channels, 2 * channels), ChannelMask(keep)))
        elif kind == "checkerboard":
            partition = Checkerboard(index % 2)
            pieces.append(AffineCoupling(network(channels, 2 * channels), partition))
        else:
            pieces.append(AffineCoupling(network(half, 2 * half), ChannelHalves(), 3.0))
            if kind == "swap":
                pieces.append(Swap())
            if kind == "1x1 convolution":
                pieces.append(InvertibleConv1x1(channels, "rotation"))
    return Chain(pieces)


def measure(seed: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    figures: dict[str, Any] = {"variables": CHANNELS * TIME}
    picture = new_figure(9, 4.2)
    grid = picture.add_gridspec(2, 15)
    for column, kind in enumerate(KINDS):
        torch.manual_seed(seed)
        flow = stack(kind, Neighbours, CHANNELS).double().requires_grad_(False)
        x = torch.randn(1, CHANNELS, TIME, dtype=torch.float64)
        z = flow(x)[0]
        jacobian = torch.autograd.functional.jacobian(lambda x, f=flow: f(x)[0].flatten(), x)
        depends = jacobian.reshape(CHANNELS * TIME, -1).abs() > 1e-9
        figures[kind] = {
            "unchanged": int((z == x).sum()),
            "dependencies": float(depends.double().mean()),
        }
        axes = picture.add_subplot(grid[0, 3 * column : 3 * column + 3])
        axes.imshow(depends, cmap="Greys", vmin=0, vmax=1)
        toys.bare(axes, kind)
        if not column:
            axes.set_ylabel("z depends on x", fontsize="small")
    held_out = toys.ring(10_000, torch.Generator().manual_seed(seed + 1))
    for column, kind in enumerate(TRAINED):
        torch.manual_seed(seed)
        flow = stack(kind, toys.PointNetwork, 2)
        toys.fit(flow, toys.ring, 300, seed)
        with torch.no_grad():
            nats = float(toys.log_density(flow, held_out).mean())
        figures[kind]["log_likelihood"] = nats
        axes = picture.add_subplot(grid[1, 5 * column : 5 * column + 5])
        values = toys.on_grid(lambda x, f=flow: toys.log_density(f, x), -4, 4, 120)
        toys.show(axes, values, -4, 4, f"{kind}: {nats:.2f} nats")
    figures["exact"] = float(toys.ring_log_density(held_out).mean())
    return figures, picture
