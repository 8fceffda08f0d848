"""Claims about flows on two variables: volume, couplings, normalisation and the objective."""

import math
from functools import partial
from typing import Any

import torch
import toys
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn

from vocoder.flows import (
    ActNorm,
    AffineCoupling,
    Bijection,
    Chain,
    ChannelHalves,
    InvertibleConv1x1,
    Partition,
)


class Shift(toys.PointNetwork):
    """A conditioner of additive couplings (NICE, Dinh et al., 2015): no scale."""

    def forward(self, context: Tensor, condition: Tensor | None = None) -> Tensor:
        shift = super().forward(context, condition)
        return torch.cat([shift, torch.zeros_like(shift)], dim=1)


class BatchNorm(Bijection):
    """Batch normalisation with its log-determinant (Real NVP, Dinh et al., 2017, section 3.7).

    By the statistics of the batch in training mode, else by their running averages.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(channels, 1))
        self.variance = nn.Buffer(torch.ones(channels, 1))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, variance = self.mean, self.variance
        if self.training:
            mean = x.mean(dim=(0, 2)).unsqueeze(1)
            variance = x.var(dim=(0, 2), correction=0).unsqueeze(1)
            self.mean.lerp_(mean.detach(), 0.1)
            self.variance.lerp_(variance.detach(), 0.1)
        log_det = -0.5 * x.shape[-1] * (variance + 1e-5).log().sum()
        return (x - mean) * (variance + 1e-5).rsqrt(), log_det.expand(len(x))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z * (self.variance + 1e-5).sqrt() + self.mean


class Masked(Partition):
    """The conditioner sees x, (batch, channels, time), where it is kept, and zeros elsewhere."""

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.keep = keep

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.keep, x

    def merge(self, x: Tensor, target: Tensor) -> Tensor:
        return torch.where(self.keep, x, target)

    def changes(self, x: Tensor) -> Tensor:
        return (~self.keep).to(x.dtype)


def areas(corners: Tensor) -> Tensor:
    """Areas of the cells between lines of corners (rows, columns, 2), by the shoelace formula."""
    a, b, c, d = corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]
    one, other = c - a, d - b
    return 0.5 * (one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]).abs()


def change_of_variables(seed: int) -> tuple[dict[str, Any], Any]:
    """A density is divided by how much a map stretches."""
    torch.manual_seed(seed)
    # z = f(x) = (x - 1) / 2, as the affine layer that flows have.
    line = ActNorm(1).eval()
    line.log_scale.fill_(-math.log(2))
    line.shift.fill_(-0.5)
    x = line.inverse(torch.rand(100_000, 1, 1)).flatten()
    density = float(line(torch.full((1, 1, 1), 2.0))[1].exp())
    counts = torch.histc(x, 20, 1, 3) / (len(x) * 0.1)

    # A smooth map of the plane: two affine couplings with random networks.
    pieces = []
    for swap in (False, True):
        network = toys.PointNetwork(1, 2, 16)
        nn.init.normal_(network.layers[-1].weight, std=0.5)
        pieces.append(AffineCoupling(network, ChannelHalves(swap)))
    flow = Chain(pieces).double()
    ticks = torch.linspace(-2, 2, 25, dtype=torch.float64)
    corners = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1)
    moved = flow.inverse(corners.reshape(-1, 2, 1)).reshape(corners.shape)
    middles = 0.25 * (corners[1:, 1:] + corners[:-1, 1:] + corners[1:, :-1] + corners[:-1, :-1])
    _, log_det = flow(flow.inverse(middles.reshape(-1, 2, 1)))
    stretch = (-log_det).exp().reshape(middles.shape[:2])
    ratio = areas(moved) / areas(corners) / stretch
    figures = {
        "density": density,
        "smallest_bar": float(counts.min()),
        "largest_bar": float(counts.max()),
        "smallest_stretch": float(stretch.min()),
        "largest_stretch": float(stretch.max()),
        "largest_error_of_area": float((ratio - 1).abs().max()),
        "integral": toys.integral(lambda p: toys.log_density(flow, p.double()), 14, 400),
    }
    picture = Figure(figsize=(9, 3), layout="constrained")
    bars, before, after = picture.subplots(1, 3)
    bars.stairs(counts.numpy(), torch.linspace(1, 3, 21).numpy(), fill=True, label="x = 2z + 1")
    bars.step([0, 0, 1, 1], [0, 1, 1, 0], where="post", color="C1", label="z")
    bars.legend()
    bars.set_title("density halves where lengths double")
    colours = torch.ones_like(stretch), stretch
    for axes, lines, colour in zip((before, after), (corners, moved), colours, strict=True):
        axes.pcolormesh(
            lines[..., 0].numpy(), lines[..., 1].numpy(), colour.log().numpy(), cmap="coolwarm",
            vmin=-2, vmax=2, edgecolors="0.3", linewidth=0.1,
        )  # fmt: skip
        axes.set_aspect("equal")
        axes.set_title("z" if lines is corners else "x, by area")
    return figures, picture


def trained(flow: Chain, draw: Any, held_out: Tensor, seed: int, axes: Any, title: str) -> float:
    """Train a flow by likelihood, draw its density; mean log-likelihood of held-out points."""
    toys.fit(flow, draw, 300, seed)
    nats = float(toys.log_density(flow, held_out).mean())
    toys.show(axes, partial(toys.log_density, flow), 4, f"{title}: {nats:.2f} nats")
    return nats


def stack(kind: str) -> Chain:
    """Six couplings that alternate between the two variables."""
    if kind == "affine":
        return toys.couplings()
    pieces: list[Bijection] = [
        AffineCoupling(Shift(1, 1), ChannelHalves(swap=index % 2 == 1)) for index in range(6)
    ]
    return Chain([*pieces, ActNorm(2)] if kind == "additive and scale" else pieces)


def coupling(seed: int) -> tuple[dict[str, Any], Any]:
    """Additive couplings keep volumes, affine ones do not."""
    figures: dict[str, Any] = {}
    picture = Figure(figsize=(9, 4.8), layout="constrained")
    for axes, name in zip(picture.subplots(2, 4), ("ring", "funnel"), strict=True):
        draw, exact = getattr(toys, name), getattr(toys, f"{name}_log_density")
        held_out = draw(20_000, Generator().manual_seed(seed + 1))
        figures[name] = {"exact": float(exact(held_out).mean())}
        toys.show(axes[0], exact, 4, name)
        kinds = ("additive", "additive and scale", "affine")
        for place, kind in zip(axes[1:], kinds, strict=True):
            torch.manual_seed(seed)
            flow = stack(kind)
            nats = trained(flow, draw, held_out, seed, place, kind)
            density = partial(toys.log_density, flow)
            figures[name][kind] = {
                "log_likelihood": nats,
                "integral": toys.integral(density, 20, 640),
                "highest_density": float(toys.on_grid(density, -5, 5, 160).max()),
            }
    return figures, picture


def normalization(seed: int, steps: int = 250) -> tuple[dict[str, Any], Any]:
    """Batch normalisation of Real NVP against the ActNorm of Glow, at large and small batches."""
    kinds: dict[str, Any] = {"neither": None, "BatchNorm": BatchNorm, "ActNorm": ActNorm}
    held_out = toys.ring(20_000, Generator().manual_seed(seed + 1))
    figures: dict[str, Any] = {"exact": float(toys.ring_log_density(held_out).mean())}
    picture = Figure(figsize=(7, 4.8), layout="constrained")
    for axes, batch in zip(picture.subplots(2, 3), (256, 4), strict=True):
        figures[str(batch)] = {}
        for place, (kind, norm) in zip(axes, kinds.items(), strict=True):
            torch.manual_seed(seed)
            layers = toys.couplings().pieces
            flow = Chain(layers if norm is None else (p for c in layers for p in (c, norm(2))))
            reported: list[float] = []

            def loss(x: Tensor, flow: Chain = flow, reported: Any = reported) -> Tensor:
                value = -toys.log_density(flow, x).mean()
                reported.append(-float(value.detach()))
                return value

            toys.fit(flow, toys.ring, steps, seed, loss, batch)
            nats = float(toys.log_density(flow, held_out).mean())
            last = reported[-(steps // 5) :]
            figures[str(batch)][kind] = {
                "log_likelihood": nats,
                "in_training": sum(last) / len(last),
            }
            title = f"{kind}, batches of {batch}: {nats:.2f} nats"
            toys.show(place, partial(toys.log_density, flow), 4, title)
    return figures, picture


CHANNELS, TIME = 4, 4
ALTERNATIONS = ("none", "swap", "channel mask", "checkerboard", "1x1 convolution")


class Neighbours(nn.Sequential):
    """A conditioner that sees three time steps, with random weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers = nn.Conv1d(inputs, 16, 3, padding=1), nn.Tanh(), nn.Conv1d(16, outputs, 1)
        super().__init__(*layers)

    def forward(self, context: Tensor, condition: Tensor | None = None) -> Tensor:
        return super().forward(context)


def alternating(kind: str, network: type[nn.Module], channels: int) -> Chain:
    """Four affine couplings with one way to alternate."""
    pieces: list[Bijection] = []
    half = channels // 2
    for index in range(4):
        if kind in ("channel mask", "checkerboard"):
            size = channels if kind == "channel mask" else TIME
            keep = (torch.arange(size) + index) % 2 == 0
            keep = keep[:, None] if kind == "channel mask" else keep
            pieces.append(AffineCoupling(network(channels, 2 * channels), Masked(keep)))
        else:
            pieces.append(AffineCoupling(network(half, 2 * half), ChannelHalves(), 3.0))
            if kind == "swap":
                pieces.append(InvertibleConv1x1(channels, "half-swap").requires_grad_(False))
            if kind == "1x1 convolution":
                pieces.append(InvertibleConv1x1(channels, "rotation"))
    return Chain(pieces)


def alternation(seed: int) -> tuple[dict[str, Any], Any]:
    """Couplings that never change sides leave half of the variables as they are."""
    figures: dict[str, Any] = {"variables": CHANNELS * TIME}
    picture = Figure(figsize=(9, 4.2), layout="constrained")
    grid = picture.add_gridspec(2, 15)
    for column, kind in enumerate(ALTERNATIONS):
        torch.manual_seed(seed)
        flow = alternating(kind, Neighbours, CHANNELS).double()
        x = torch.randn(1, CHANNELS, TIME, dtype=torch.float64)
        with torch.enable_grad():
            jacobian = torch.autograd.functional.jacobian(lambda x, f=flow: f(x)[0].flatten(), x)
        depends = jacobian.reshape(CHANNELS * TIME, -1).abs() > 1e-9
        figures[kind] = {
            "unchanged": int((flow(x)[0] == x).sum()),
            "dependencies": float(depends.double().mean()),
        }
        axes = picture.add_subplot(grid[0, 3 * column : 3 * column + 3])
        axes.imshow(depends, cmap="Greys", vmin=0, vmax=1)
        toys.bare(axes, f"{kind}: z by x")
    held_out = toys.ring(10_000, Generator().manual_seed(seed + 1))
    for column, kind in enumerate(("none", "swap", "1x1 convolution")):
        torch.manual_seed(seed)
        flow = alternating(kind, toys.PointNetwork, 2)
        axes = picture.add_subplot(grid[1, 5 * column : 5 * column + 5])
        figures[kind]["log_likelihood"] = trained(flow, toys.ring, held_out, seed, axes, kind)
    figures["exact"] = float(toys.ring_log_density(held_out).mean())
    return figures, picture


def objective(seed: int) -> tuple[dict[str, Any], Any]:
    """What the two terms of the objective do alone; bounded log-scales keep them finite."""
    kinds = {"both": (1, 1), "log π(z) alone": (1, 0), "log-determinant alone": (0, 1)}
    figures: dict[str, Any] = {}
    picture = Figure(figsize=(9, 3), layout="constrained")
    sizes, *places = picture.subplots(1, 4)
    held_out = toys.ring(4000, Generator().manual_seed(seed + 1))
    for place, (kind, (prior, volume)) in zip(places, kinds.items(), strict=True):
        torch.manual_seed(seed)
        flow = toys.couplings(4)
        size: list[float] = []

        def loss(
            x: Tensor, f: Chain = flow, p: int = prior, v: int = volume, size: Any = size
        ) -> Tensor:
            z, log_det = f(x)
            size.append(float(z.detach().square().mean().sqrt()))
            return -(p * toys.normal_log_density(z) + v * log_det).mean()

        toys.fit(flow, toys.ring, 150, seed, loss)
        z, log_det = flow(held_out)
        figures[kind] = {
            "size": float(z.square().mean().sqrt()),
            "log_determinant": float(log_det.mean()),
        }
        sizes.semilogy(size, label=kind)
        spread = 3.5 if prior else 1.1 * float(z.abs().quantile(0.99))
        toys.cloud(place, z[..., 0], f"z, {kind}", spread)
    sizes.set_title("root mean square of z")
    sizes.set_xlabel("step")
    sizes.legend()
    return figures, picture
