"""Batch normalisation of Real NVP against the ActNorm of Glow, at large and at small batches."""

from __future__ import annotations

from typing import Any

import torch
import toys

from vocoder.evaluation.plots import new_figure
from vocoder.flows import ActNorm, BatchNorm, Bijection, Chain

STEPS = 250
COUPLINGS = 6
BATCHES = (256, 4)
KINDS: dict[str, type[ActNorm] | type[BatchNorm] | None] = {
    "neither": None,
    "BatchNorm": BatchNorm,
    "ActNorm": ActNorm,
}


def build(kind: str) -> Chain:
    """Affine couplings, with a normalisation after each."""
    norm = KINDS[kind]
    pieces: list[Bijection] = []
    for coupling in toys.couplings(COUPLINGS):
        pieces += [coupling] if norm is None else [coupling, norm(2)]
    return Chain(pieces)


def measure(seed: int, steps: int = STEPS) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    held_out = toys.ring(20_000, torch.Generator().manual_seed(seed + 1))
    figures: dict[str, Any] = {"exact": float(toys.ring_log_density(held_out).mean())}
    picture = new_figure(7, 4.8)
    rows = picture.subplots(len(BATCHES), len(KINDS))
    for axes, batch in zip(rows, BATCHES, strict=True):
        figures[str(batch)] = {}
        for place, kind in zip(axes, KINDS, strict=True):
            torch.manual_seed(seed)
            flow = build(kind)
            trained: list[float] = []

            def loss(
                flow: Bijection, x: torch.Tensor, trained: list[float] = trained
            ) -> torch.Tensor:
                value = -toys.log_density(flow, x).mean()
                trained.append(-float(value.detach()))
                return value

            toys.fit(flow, toys.ring, steps, seed, loss, batch)
            with torch.no_grad():
                nats = float(toys.log_density(flow, held_out).mean())
            last = trained[-max(1, steps // 5) :]
            figures[str(batch)][kind] = {
                "log_likelihood": nats,
                "in_training": sum(last) / len(last),
            }
            values = toys.on_grid(lambda x, f=flow: toys.log_density(f, x), -4, 4, 120)
            toys.show(place, values, -4, 4, f"{kind}, batches of {batch}: {nats:.2f} nats")
    return figures, picture
