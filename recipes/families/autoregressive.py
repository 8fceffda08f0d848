"""Claims about autoregressive models: order, mixtures as their output, and sampling time."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import speech
import torch
import toys
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.special import log_ndtr
from torch.utils.benchmark import Timer

from vocoder.flows import AffineCoupling, Chain, ChannelHalves
from vocoder.nn.wavenet import SMALLEST_SCALE, STEP, levels_of

NOISE = 0.3


def parabola(count: int, generator: Generator) -> Tensor:
    """x1 is normal and x2 = x1^2 - 1 + noise, (count, 2, 1)."""
    a, b = torch.randn(2, count, generator=generator)
    return torch.stack([a, a.square() - 1 + NOISE * b], dim=1).unsqueeze(-1)


def parabola_log_density(x: Tensor) -> Tensor:
    """Log density of the parabola."""
    a, b = x[:, 0, 0], (x[:, 1, 0] - x[:, 0, 0].square() + 1) / NOISE
    return -0.5 * (a.square() + b.square()) - math.log(2 * math.pi * NOISE)


class Conditional(nn.Module):
    """A mixture of Gaussians whose parameters a network reads off the other variable."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.network = toys.mlp(1, 3 * size)
        with torch.no_grad():  # components that start apart
            self.network[-1].bias[size : 2 * size] = torch.linspace(-2, 2, size + 2)[1:-1]

    def forward(self, value: Tensor, given: Tensor) -> Tensor:
        weight, mean, log_scale = self.network(given.unsqueeze(1)).chunk(3, dim=1)
        log_scale = log_scale.clamp(-6, 4)
        z = (value.unsqueeze(1) - mean) * torch.exp(-log_scale)
        normal = -0.5 * z.square() - log_scale - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(weight.log_softmax(dim=1) + normal, dim=1)


def log_density(conditionals: nn.ModuleList, order: tuple[int, int], x: Tensor) -> Tensor:
    """Log density of one variable, plus that of the other given it."""
    first, second = (x[:, index, 0] for index in order)
    return conditionals[0](first, torch.zeros_like(first)) + conditionals[1](second, first)


def order(seed: int) -> tuple[dict[str, Any], Any]:
    """The chain rule holds in every order, limited conditionals do not."""
    held_out = parabola(20_000, Generator().manual_seed(seed + 1))
    figures: dict[str, Any] = {"exact": float(parabola_log_density(held_out).mean())}
    picture = Figure(figsize=(9, 2.3), layout="constrained")
    axes = iter(picture.subplots(1, 5))
    toys.show(next(axes), parabola_log_density, 3, "density")
    for size in (1, 8):
        for which in ((0, 1), (1, 0)):
            torch.manual_seed(seed)
            conditionals = nn.ModuleList([Conditional(size), Conditional(size)])
            model = partial(log_density, conditionals, which)
            toys.minimise(
                conditionals, lambda g, m=model: -m(parabola(512, g)).mean(), 700, seed, 5e-3
            )
            name = f"x{which[0] + 1} first, {size} Gaussian{'s' * (size > 1)}"
            nats = float(model(held_out).mean())
            integral = toys.integral(model, 25, 1500)
            figures[name] = {"log_likelihood": nats, "integral": integral}
            toys.show(next(axes), model, 3, f"{name}\n{nats:.2f} nats")
    return figures, picture


SIZES = (1, 2, 8)
PAST = 32
"""Samples that a prediction sees."""


class Predictor(nn.Module):
    """The parameters of a mixture, from the last samples (or from none)."""

    def __init__(self, past: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.network = toys.mlp(max(past, 1), 3 * size if size > 1 else 2)
        self.linear = nn.Linear(max(past, 1), 1, bias=False)
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():  # components of several widths
            self.network[-1].weight.mul_(0.1)
            self.network[-1].bias.zero_()
            self.network[-1].bias[-size:] = torch.linspace(-6, -2, size) if size > 1 else -3.0

    def forward(self, past: Tensor) -> Tensor:
        """(batch, past) to (batch, parameters); a linear prediction moves all means."""
        # Quiet and loud stretches differ by powers of ten.
        found = self.network(torch.asinh(300 * past) / 3)
        before, means, scales = found.tensor_split([found.shape[1] - 2 * self.size, -self.size], 1)
        means = 0.1 * means + self.linear(past)
        return torch.cat([before, means, scales], dim=1)


def windows(audio: Tensor, count: int, past: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Random places of a recording: the samples before, (count, past), and the next, (count, 1)."""
    place = PAST + torch.randint(len(audio) - PAST, (count,), generator=generator)
    before = audio[place.unsqueeze(1) - past + torch.arange(past)] if past else torch.ones(count, 1)
    return before, audio[place].unsqueeze(1)


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


def mixture(seed: int, steps: int = 500) -> tuple[dict[str, Any], Any]:
    """One Gaussian against a mixture on samples of speech, alone and autoregressive."""
    seen, held_out = (torch.cat(part) for part in speech.recordings())
    figures: dict[str, Any] = {"sizes": list(SIZES)}
    picture = Figure(figsize=(8, 3), layout="constrained")
    histogram, axes = picture.subplots(1, 2)
    grid = torch.linspace(-0.25, 0.25, 1001)
    counts = torch.histc(held_out, 100, -0.25, 0.25) / len(held_out) / 0.005
    histogram.stairs(counts.numpy(), torch.linspace(-0.25, 0.25, 101).numpy(), fill=True, alpha=0.3)
    for past in (0, PAST):
        test = windows(held_out, 40_000, past, Generator().manual_seed(seed + 1))
        figures[f"past {past}"] = own = []
        for size in SIZES:
            torch.manual_seed(seed)
            model = Predictor(past, size)

            def loss(generator: Generator, past: int = past, m: Any = model) -> Tensor:
                return -nats(m, *windows(seen, 2048, past, generator)).mean()

            speech.fit(model, loss, steps, seed)
            own.append(float(nats(model, *test).mean()))
            if not past:
                density = nats(model, torch.ones(len(grid), 1), grid.unsqueeze(1)).exp()
                histogram.plot(grid, density[:, 0], label=f"{size} Gaussian{'s' * (size > 1)}")
    histogram.set_yscale("log")
    histogram.set_ylim(1e-2, None)
    histogram.set_xlabel("sample")
    histogram.legend()
    lines = {"no past": figures["past 0"], f"the last {PAST} samples": figures[f"past {PAST}"]}
    toys.curves(axes, SIZES, lines, "Gaussians", "held-out nats per sample", 2)
    return figures, picture


BATCH, HIDDEN, LATENTS = 16, 256, 16


class Masked(nn.Module):
    """MADE: mean and log-scale of each variable from those before it, by masked weights."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.network = toys.mlp(dimension, 2 * dimension, HIDDEN)
        inputs = torch.arange(dimension)
        hidden = torch.arange(HIDDEN) % max(1, dimension - 1)
        masks = (
            hidden[:, None] >= inputs,
            hidden[:, None] >= hidden,
            inputs.repeat(2)[:, None] > hidden,
        )
        with torch.no_grad():
            for layer, mask in zip(self.network[::2], masks, strict=True):
                layer.weight.mul_(mask)

    def sample(self, noise: Tensor) -> Tensor:
        x = torch.zeros_like(noise)
        for index in range(noise.shape[1]):
            mean, log_scale = self.network(x).chunk(2, dim=1)
            x[:, index] = mean[:, index] + log_scale[:, index].exp() * noise[:, index]
        return x


def samplers(dimension: int) -> dict[str, Callable[[], Tensor]]:
    """Functions that draw a batch of samples, one for each architecture."""
    noise, latents = torch.randn(BATCH, dimension), torch.randn(BATCH, LATENTS)
    half = dimension // 2
    flow = Chain(
        AffineCoupling(toys.PointNetwork(half, 2 * half, HIDDEN), ChannelHalves(swap), 2.0)
        for swap in (False, True, False, True)
    )
    masked = Masked(dimension)
    decoder = toys.mlp(LATENTS, 2 * dimension, HIDDEN)
    generator = toys.mlp(LATENTS, dimension, HIDDEN)

    def decoded() -> Tensor:
        mean, log_scale = decoder(latents).chunk(2, dim=1)
        return mean + log_scale.exp() * noise

    return {
        "flow": lambda: flow.inverse(noise.unsqueeze(2)),
        "autoregressive": lambda: masked.sample(noise),
        "VAE": decoded,
        "GAN": lambda: generator(latents),
    }


def dimension(
    seed: int, dimensions: tuple[int, ...] = (4, 16, 64, 256, 1024), seconds: float = 0.2
) -> tuple[dict[str, Any], Any]:
    """Sampling time against dimension: in one pass, or variable by variable."""
    torch.manual_seed(seed)
    times: dict[str, list[float]] = {}
    for size in dimensions:
        for name, sample in samplers(size).items():
            timer = Timer("sample()", globals={"sample": sample}, timer=time.process_time)
            median = timer.blocked_autorange(min_run_time=seconds).median
            times.setdefault(name, []).append(1000 * median)
    picture = Figure(figsize=(6, 3.2), layout="constrained")
    axes = picture.subplots()
    axes.set_yscale("log")
    toys.curves(axes, dimensions, times, "dimensions", f"ms for {BATCH} samples", 2)
    return {"dimensions": list(dimensions), "milliseconds": times}, picture
