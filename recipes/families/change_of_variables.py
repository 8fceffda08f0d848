"""Change of variables: a density is divided by how much a map stretches."""

from __future__ import annotations

import math
from typing import Any

import torch
import toys
from torch import Tensor

from vocoder.evaluation.plots import new_figure
from vocoder.flows import ActNorm, AffineCoupling, Chain, ChannelHalves

LINES = 25


def nonlinear() -> Chain:
    """A smooth map of the plane: two affine couplings with fixed, random networks."""
    couplings = []
    for swap in (False, True):
        network = toys.PointNetwork(1, 2, 16)
        torch.nn.init.normal_(network.layers[-1].weight, std=0.5)
        couplings.append(AffineCoupling(network, ChannelHalves(swap)))
    return Chain(couplings).double().requires_grad_(False)


def areas(corners: Tensor) -> Tensor:
    """Areas of the cells between lines of corners (rows, columns, 2), by the shoelace formula."""
    a, b, c, d = corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]
    one, other = c - a, d - b
    return 0.5 * (one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]).abs()


def measure(seed: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    torch.manual_seed(seed)
    # z = f(x) = (x - 1) / 2, as the affine layer that flows have.
    line = ActNorm(1).eval()
    with torch.no_grad():
        line.log_scale.fill_(-math.log(2))
        line.shift.fill_(-0.5)
        z = torch.rand(100_000, 1, 1)
        x = line.inverse(z).flatten()
        density = float(line(torch.full((1, 1, 1), 2.0))[1].exp())
    counts = torch.histc(x, 20, 1, 3) / (len(x) * 0.1)

    flow = nonlinear()
    ticks = torch.linspace(-2, 2, LINES, dtype=torch.float64)
    first, second = torch.meshgrid(ticks, ticks, indexing="xy")
    corners = torch.stack([first, second], dim=-1)
    moved = flow.inverse(corners.reshape(-1, 2, 1)).reshape(LINES, LINES, 2)
    middles = 0.25 * (corners[1:, 1:] + corners[:-1, 1:] + corners[1:, :-1] + corners[:-1, :-1])
    _, log_det = flow(flow.inverse(middles.reshape(-1, 2, 1)))
    stretch = (-log_det).exp().reshape(LINES - 1, LINES - 1)
    ratio = areas(moved) / areas(corners) / stretch
    figures = {
        "density": density,
        "smallest_bar": float(counts.min()),
        "largest_bar": float(counts.max()),
        "outside": int(((x < 1) | (x > 3)).sum()),
        "smallest_stretch": float(stretch.min()),
        "largest_stretch": float(stretch.max()),
        "largest_error_of_area": float((ratio - 1).abs().max()),
        "integral": toys.integral(lambda p: toys.log_density(flow, p.double()), -14, 14, 400),
    }

    picture = new_figure(9, 3)
    bars, before, after = picture.subplots(1, 3)
    bars.bar(
        torch.linspace(1.05, 2.95, 20).numpy(),
        counts.numpy(),
        0.1,
        color="C0",
        alpha=0.5,
        label="x = 2z + 1",
    )
    bars.step([0, 0, 1, 1], [0, 1, 1, 0], where="post", color="C1", label="z")
    bars.plot([1, 3], [density, density], color="C0")
    bars.set_ylim(0, 1.2)
    bars.legend(fontsize="small")
    bars.set_title("density halves where lengths double", fontsize="small")
    for axes, lines, title in ((before, corners, "z"), (after, moved, "x, by area")):
        colours = torch.ones_like(stretch) if lines is corners else stretch
        axes.pcolormesh(
            lines[..., 0].numpy(), lines[..., 1].numpy(), colours.log().numpy(), cmap="coolwarm",
            vmin=-2, vmax=2, edgecolors="0.3", linewidth=0.1,
        )  # fmt: skip
        axes.set_aspect("equal")
        axes.set_title(title, fontsize="small")
    return figures, picture
