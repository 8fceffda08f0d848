"""The optimal discriminator of two known densities."""

from __future__ import annotations

import math
from typing import Any

import torch
import toys
from divergences import log_normal, log_two
from torch import Tensor
from torch.nn import functional as F

from vocoder.evaluation.plots import new_figure

STEPS = 2500
BATCH = 512
Q_SIGMA = 2.0


def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Samples of p, two Gaussians, and of q, one that covers both; (1, batch, 1) each."""
    side = 2.0 * torch.randint(2, (1, BATCH, 1), generator=generator) - 1
    p = 2.0 * side + 0.6 * torch.randn(1, BATCH, 1, generator=generator)
    return p, Q_SIGMA * torch.randn(1, BATCH, 1, generator=generator)


def train(loss: str, seed: int) -> toys.Networks:
    """A discriminator of p and q."""
    network = toys.Networks([seed], 1, 1)
    generator = torch.Generator().manual_seed(seed)

    def value() -> Tensor:
        p, q = draw(generator)
        real, fake = network(p), network(q)
        if loss == "hinge":
            return toys.hinge_loss([[real]], [[fake]])
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    toys.minimise(network.parameters(), value, STEPS, 3e-3)
    return network


@torch.no_grad()
def measure(seed: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    x = torch.linspace(-7, 7, 2001)
    step = float(x[1] - x[0])
    p, q = log_two(x).exp(), log_normal(x, 0.0, Q_SIGMA).exp()
    best = p / (p + q)
    with torch.enable_grad():
        logistic, hinge = (train(loss, seed) for loss in ("logistic", "hinge"))
    found = logistic(x[None, :, None]).flatten()
    scores = hinge(x[None, :, None]).flatten()
    mixture = 0.5 * (p + q) * step
    value = -float(((p * F.softplus(-found)) + (q * F.softplus(found))).sum() * step)
    optimum = float((p * best.log() + q * (1 - best).log()).sum() * step)
    hinge_value = float((p * F.relu(1 - scores) + q * F.relu(1 + scores)).sum() * step)
    figures = {
        "mean_error": float(((found.sigmoid() - best).abs() * mixture).sum()),
        "value": value,
        "optimal_value": optimum,
        "jensen_shannon": 0.5 * optimum + math.log(2),
        "hinge_loss": hinge_value,
        "optimal_hinge_loss": 2 - float((p - q).abs().sum() * step),
        "hinge_signs_agree": float((mixture * (scores.sign() == (p - q).sign())).sum()),
    }
    picture = new_figure(9, 2.7)
    densities, probability, sign = picture.subplots(1, 3)
    densities.plot(x, p, label="p")
    densities.plot(x, q, label="q")
    densities.legend(fontsize="small")
    probability.plot(x, best, color="0.8", linewidth=5, label="p / (p + q)")
    probability.plot(x, found.sigmoid(), color="C2", label="trained, logistic")
    probability.legend(fontsize="small")
    sign.plot(x, (p - q).sign(), color="0.8", linewidth=5, label="sign(p - q)")
    sign.plot(x, scores, color="C3", label="trained, hinge")
    sign.set_ylim(-1.6, 1.6)
    sign.legend(fontsize="small")
    return figures, picture
