"""One Gaussian against a mixture on samples of speech, alone and as an autoregressive output."""

from __future__ import annotations

import math
from typing import Any

import speech
import torch
from torch import Tensor, nn
from torch.special import log_ndtr

from vocoder.evaluation.plots import new_figure
from vocoder.nn.mixture import SMALLEST_SCALE, STEP, levels_of

SIZES = (1, 2, 8)
PASTS = (0, 32)
"""Samples that the prediction sees."""
STEPS = 500
BATCH = 2048


class Predictor(nn.Module):
    """The parameters of a mixture, from the last samples (or from none)."""

    def __init__(self, past: int, size: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(max(past, 1), 48), nn.SiLU(),
            nn.Linear(48, 48), nn.SiLU(),
            nn.Linear(48, 3 * size if size > 1 else 2),
        )  # fmt: skip
        self.linear = nn.Linear(max(past, 1), 1, bias=False)
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():  # components of several widths
            self.network[-1].weight.mul_(0.1)
            self.network[-1].bias.zero_()
            self.network[-1].bias[-size:] = torch.linspace(-6, -2, size) if size > 1 else -3.0
        self.size = size

    def forward(self, past: Tensor) -> Tensor:
        """(batch, past) to (batch, parameters); a linear prediction moves all means."""
        # Quiet and loud stretches differ by powers of ten.
        found = self.network(torch.asinh(300 * past) / 3)
        before, means, scales = found.tensor_split([found.shape[1] - 2 * self.size, -self.size], 1)
        means = 0.1 * means + self.linear(past)
        return torch.cat([before, means, scales], dim=1)


def windows(audio: Tensor, count: int, past: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Random places of a recording: the samples before, (count, past), and the next, (count, 1)."""
    longest = max(PASTS)
    place = longest + torch.randint(len(audio) - longest, (count,), generator=generator)
    if not past:
        return torch.ones(count, 1), audio[place].unsqueeze(1)
    return audio[place.unsqueeze(1) - past + torch.arange(past)], audio[place].unsqueeze(1)


def nats(model: Predictor, past: Tensor, x: Tensor) -> Tensor:
    """Log density of each sample of audio in [-1, 1], dequantised from 16 bits, (batch, 1).

    Each Gaussian is integrated over the quantisation step of the sample.
    """
    found, size = model(past).double(), model.size
    logits, means, scales = found.tensor_split([found.shape[1] - 2 * size, -size], 1)
    scales = SMALLEST_SCALE + scales.exp()
    # On the side below the mean, where the difference does not cancel.
    z, half = -(levels_of(x) * STEP - means).abs() / scales, STEP / 2 / scales
    below, above = log_ndtr(z - half), log_ndtr(z + half)
    each = above + torch.log1p(-torch.exp(below - above))
    if size > 1:
        each = each + logits.log_softmax(dim=1)
    return each.logsumexp(dim=1, keepdim=True) - math.log(STEP)


@torch.no_grad()
def measure(seed: int, steps: int = STEPS) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    seen, unseen = (torch.cat(part) for part in speech.recordings())
    figures: dict[str, Any] = {"sizes": list(SIZES)}
    picture = new_figure(8, 3)
    histogram, curve = picture.subplots(1, 2)
    grid = torch.linspace(-0.25, 0.25, 1001)
    counts = torch.histc(unseen, 100, -0.25, 0.25) / len(unseen) / 0.005
    histogram.stairs(counts.numpy(), torch.linspace(-0.25, 0.25, 101).numpy(), fill=True, alpha=0.3)
    for past in PASTS:
        test = windows(unseen, 40_000, past, torch.Generator().manual_seed(seed + 1))
        figures[f"past {past}"] = own = []
        for size in SIZES:
            torch.manual_seed(seed)
            model = Predictor(past, size)

            def loss(generator: torch.Generator, past: int = past, m=model) -> Tensor:
                return -nats(m, *windows(seen, BATCH, past, generator)).mean()

            with torch.enable_grad():
                speech.fit(model, loss, steps, seed)
            own.append(float(nats(model, *test).mean()))
            if not past:
                density = nats(model, torch.ones(len(grid), 1), grid.unsqueeze(1)).exp()
                histogram.plot(grid, density[:, 0], label=f"{size} Gaussian{'s' * (size > 1)}")
        title = f"the last {past} samples" if past else "no past"
        curve.plot(SIZES, own, "o-", label=title)
    histogram.set_yscale("log")
    histogram.set_ylim(1e-2, None)
    histogram.set_xlabel("sample")
    histogram.legend(fontsize="small")
    curve.set_xscale("log", base=2)
    curve.set_xlabel("Gaussians")
    curve.set_ylabel("held-out nats per sample")
    curve.legend(fontsize="small")
    return figures, picture
