"""What the two terms of the objective do alone."""

from __future__ import annotations

from typing import Any

import torch
import toys
from torch import Tensor

from vocoder.evaluation.plots import new_figure
from vocoder.flows import Bijection, Chain

STEPS = 150
BOUND = 3.0
KINDS = ("both", "log π(z) alone", "log-determinant alone")


def build() -> Chain:
    """Affine couplings that alternate, their log-scales bounded: one term alone has no optimum."""
    return Chain(toys.couplings(4, BOUND))


def measure(seed: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    figures: dict[str, Any] = {}
    picture = new_figure(9, 3)
    axes = picture.subplots(1, 4)
    held_out = toys.ring(4000, torch.Generator().manual_seed(seed + 1))
    for place, kind in zip(axes[1:], KINDS, strict=True):
        torch.manual_seed(seed)
        flow = build()
        sizes: list[float] = []

        def loss(flow: Bijection, x: Tensor, kind: str = kind, sizes: Any = sizes) -> Tensor:
            z, log_det = flow(x)
            sizes.append(float(z.detach().square().mean().sqrt()))
            prior = 0.0 if kind == KINDS[2] else toys.normal_log_density(z)
            volume = 0.0 if kind == KINDS[1] else log_det
            return -torch.as_tensor(prior + volume).mean()

        toys.fit(flow, toys.ring, STEPS, seed, loss)
        with torch.no_grad():
            z, log_det = flow(held_out)
        figures[kind] = {
            "size": float(z.square().mean().sqrt()),
            "log_determinant": float(log_det.mean()),
            "log_density_of_z": float(toys.normal_log_density(z).mean()),
        }
        axes[0].semilogy(sizes, label=kind)
        spread = max(3.5, 1.1 * float(z.abs().quantile(0.99))) if kind == KINDS[2] else 3.5
        place.plot(z[:, 0, 0], z[:, 1, 0], ".", markersize=2, alpha=0.4)
        place.set_xlim(-spread, spread)
        place.set_ylim(-spread, spread)
        place.set_aspect("equal")
        place.set_title(f"z, {kind}", fontsize="small")
    axes[0].set_title("root mean square of z", fontsize="small")
    axes[0].set_xlabel("step", fontsize="small")
    axes[0].legend(fontsize="x-small")
    return figures, picture
