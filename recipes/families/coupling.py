"""Additive couplings keep volumes, affine ones do not."""

from __future__ import annotations

from typing import Any

import torch
import toys

from vocoder.evaluation.plots import new_figure
from vocoder.flows import (
    ActNorm,
    AdditiveCoupling,
    Bijection,
    Chain,
    ChannelHalves,
)

STEPS = 300
COUPLINGS = 6
DATA = {
    "ring": (toys.ring, toys.ring_log_density, 5.0),
    "funnel": (toys.funnel, toys.funnel_log_density, 5.0),
}
KINDS = ("additive", "additive and scale", "affine")


def build(kind: str) -> Chain:
    """A stack of couplings that alternate between the two variables."""
    if kind == "affine":
        return Chain(toys.couplings(COUPLINGS))
    pieces: list[Bijection] = [
        AdditiveCoupling(toys.PointNetwork(1, 1), ChannelHalves(swap=index % 2 == 1))
        for index in range(COUPLINGS)
    ]
    if kind == "additive and scale":
        pieces.append(ActNorm(2))
    return Chain(pieces)


def measure(seed: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    figures: dict[str, Any] = {}
    picture = new_figure(9, 4.8)
    rows = picture.subplots(len(DATA), len(KINDS) + 1)
    for axes, (name, (draw, exact, size)) in zip(rows, DATA.items(), strict=True):
        held_out = draw(20_000, torch.Generator().manual_seed(seed + 1))
        own = figures[name] = {"exact": float(exact(held_out).mean())}
        toys.show(axes[0], toys.on_grid(exact, -size, size, 160), -size, size, name)
        for place, kind in zip(axes[1:], KINDS, strict=True):
            torch.manual_seed(seed)
            flow = build(kind)
            toys.fit(flow, draw, STEPS, seed)

            def density(x: torch.Tensor, flow: Chain = flow) -> torch.Tensor:
                return toys.log_density(flow, x)

            with torch.no_grad():
                nats = float(density(held_out).mean())
            values = toys.on_grid(density, -size, size, 160)
            own[kind] = {
                "log_likelihood": nats,
                "integral": toys.integral(density, -20, 20, 640),
                "highest_density": float(values.max()),
            }
            toys.show(place, values, -size, size, f"{kind}: {nats:.2f} nats")
    return figures, picture
