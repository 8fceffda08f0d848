"""Claims about divergences and discriminators: KL in both directions, GANs, encoders in them."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import toys
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn import functional as F

SEPARATION, SIGMA = 2.0, 0.6


def log_normal(x: Tensor, mean: Tensor | float, sigma: Tensor | float) -> Tensor:
    """log N(x; mean, sigma^2)."""
    sigma = torch.as_tensor(sigma)
    return -0.5 * ((x - mean) / sigma).square() - sigma.log() - 0.5 * math.log(2 * math.pi)


def log_two(x: Tensor) -> Tensor:
    """Log density of two Gaussians of equal weight, on a line."""
    sides = [log_normal(x, side * SEPARATION, SIGMA) for side in (-1, 1)]
    return torch.logsumexp(torch.stack(sides), dim=0) - math.log(2)


def normal(count: int, generator: Generator) -> Tensor:
    """Samples of a standard normal, (count, 2, 1)."""
    return torch.randn(count, 2, 1, generator=generator)


def divergences(seed: int) -> tuple[dict[str, Any], Any]:
    """The two directions of the KL divergence: covering and collapsing."""
    starts = 2 * torch.randn(8, generator=Generator().manual_seed(seed))
    figures: dict[str, Any] = {"starts": len(starts)}
    picture = Figure(figsize=(9, 2.7), layout="constrained")
    line, *places = picture.subplots(1, 3, width_ratios=[1.5, 1, 1])
    x = torch.linspace(-5, 5, 500)
    line.fill_between(x, log_two(x).exp(), color="0.85", label="p")
    grid = torch.linspace(-16, 16, 1601)[:, None]
    for name, axes in zip(("forward", "reverse"), places, strict=True):
        fitted = nn.ParameterList([starts.clone(), torch.zeros_like(starts)])

        def on_line(_: Generator, own: Any = fitted, name: str = name) -> Tensor:
            p, q = log_two(grid), log_normal(grid, own[0], own[1].exp())
            one, other = (p, q) if name == "forward" else (q, p)
            return (one.exp() * (one - other)).sum() * 0.02

        toys.minimise(fitted, on_line, 600, seed, 0.05)
        mean, sigma = fitted[0], fitted[1].exp()
        colour = "C0" if name == "forward" else "C3"
        for index, label in ((mean.argmin(), name), (mean.argmax(), None)):
            density = log_normal(x, mean[index], sigma[index]).exp()
            line.plot(x, density, color=colour, label=label)

        torch.manual_seed(seed)
        flow = toys.couplings()

        def reverse(z: Tensor, flow: Any = flow) -> Tensor:
            """KL(q || p) for q the flow and p the ring, up to a constant, from latents z."""
            points = flow.inverse(z)
            return (toys.log_density(flow, points) - toys.ring_log_density(points)).mean()

        if name == "forward":
            toys.fit(flow, toys.ring, 400, seed)
        else:
            toys.fit(flow, normal, 400, seed, reverse)
        points = flow.inverse(normal(4000, Generator().manual_seed(seed + 1)))[..., 0]
        figures[name] = toys.covered(points) | {
            "sigma": float(sigma.mean()),
            "left": int((mean < -1).sum()),
            "right": int((mean > 1).sum()),
        }
        title = f"flow, {name}: {figures[name]['modes']} of {toys.MODES} modes"
        toys.scatter(axes, points, title)
    line.legend()
    line.set_title("one Gaussian fitted to two")
    return figures, picture


WIDTH = 2.0


def against(loss: Any, seed: int) -> toys.Networks:
    """A discriminator of p, two Gaussians, and of q, one that covers both."""
    network = toys.Networks([seed], 1, 1)

    def value(generator: Generator) -> Tensor:
        side = 2.0 * torch.randint(2, (1, 512, 1), generator=generator) - 1
        p = SEPARATION * side + SIGMA * torch.randn(1, 512, 1, generator=generator)
        return loss(network(p), network(WIDTH * torch.randn(1, 512, 1, generator=generator)))

    toys.minimise(network, value, 2500, seed, 3e-3)
    return network


def discriminator(seed: int) -> tuple[dict[str, Any], Any]:
    """The optimal discriminator of two known densities."""
    x = torch.linspace(-7, 7, 2001)
    step = float(x[1] - x[0])
    p, q = log_two(x).exp(), log_normal(x, 0.0, WIDTH).exp()
    best = p / (p + q)

    def logistic(real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    found, scores = (
        against(loss, seed)(x[None, :, None]).flatten() for loss in (logistic, toys.hinge_loss)
    )
    both = 0.5 * (p + q) * step
    optimum = float((p * best.log() + q * (1 - best).log()).sum() * step)
    figures = {
        "mean_error": float(((found.sigmoid() - best).abs() * both).sum()),
        "value": -float((p * F.softplus(-found) + q * F.softplus(found)).sum() * step),
        "optimal_value": optimum,
        "jensen_shannon": 0.5 * optimum + math.log(2),
        "hinge_loss": float((p * F.relu(1 - scores) + q * F.relu(1 + scores)).sum() * step),
        "optimal_hinge_loss": 2 - float((p - q).abs().sum() * step),
        "hinge_signs_agree": float((both * (scores.sign() == (p - q).sign())).sum()),
    }
    picture = Figure(figsize=(9, 2.7), layout="constrained")
    densities, probability, sign = picture.subplots(1, 3)
    densities.plot(x, p, label="p")
    densities.plot(x, q, label="q")
    probability.plot(x, best, color="0.8", linewidth=5, label="p / (p + q)")
    probability.plot(x, found.sigmoid(), color="C2", label="trained, logistic")
    sign.plot(x, (p - q).sign(), color="0.8", linewidth=5, label="sign(p - q)")
    sign.plot(x, scores, color="C3", label="trained, hinge")
    sign.set_ylim(-1.6, 1.6)
    for axes in (densities, probability, sign):
        axes.legend()
    return figures, picture


BATCH, LATENTS = 128, 2


def batch_of_ring(seeds: int, generator: Generator, count: int = BATCH) -> Tensor:
    """A batch of the ring for each seed, (seeds, count, 2)."""
    return toys.ring(seeds * count, generator).reshape(seeds, count, 2)


def each(points: Tensor) -> dict[str, list[Any]]:
    """What `toys.covered` says of each seed's points."""
    found = [toys.covered(own) for own in points]
    return {key: [own[key] for own in found] for key in found[0]}


def ring_gan(seed: int) -> tuple[dict[str, Any], Any]:
    """A GAN on a ring of eight Gaussians: sharp, but nothing in the loss asks for every mode."""
    figures: dict[str, Any] = {}
    picture = Figure(figsize=(9, 3.8), layout="constrained")
    rows = picture.subplots(2, 5)
    later = Generator().manual_seed(seed + 1)
    rates = {"equal rates": 1e-3, "slow discriminator": 1e-4}
    for (name, rate), row in zip(rates.items(), rows, strict=True):
        generators = toys.Networks(range(seed, seed + 8), LATENTS, 2)
        critics = toys.Networks(range(seed + 1000, seed + 1008), 2, 1)
        own = Generator().manual_seed(seed)

        def losses(g: Any = generators, d: Any = critics, own: Generator = own) -> Iterator[Tensor]:
            made = g(torch.randn(8, BATCH, LATENTS, generator=own))
            yield 8 * toys.hinge_loss(d(batch_of_ring(8, own)), d(made.detach()))
            yield -8 * d(made).mean()

        toys.duel(critics, generators, losses, 1200, (rate, 1e-3))
        points = generators(torch.randn(8, 2000, LATENTS, generator=later))
        figures[name] = each(points)
        for axes, modes, cloud in zip(row[1:], figures[name]["modes"], points, strict=False):
            toys.scatter(axes, cloud, f"{name}: {modes} modes")
    torch.manual_seed(seed)
    flow = toys.couplings()
    toys.fit(flow, toys.ring, 300, seed)
    points = flow.inverse(normal(2000, later))[..., 0]
    figures["flow"] = toys.covered(points)
    toys.scatter(rows[0, 0], toys.ring(2000, later)[..., 0], "ring")
    toys.scatter(rows[1, 0], points, f"flow: {figures['flow']['modes']} modes")
    return figures, picture


def encode(encoders: toys.Networks, x: Tensor, generator: Generator) -> Tensor:
    """Codes drawn from q(z | x)."""
    noise = torch.randn(*x.shape[:2], LATENTS, generator=generator)
    return encoders(torch.cat([x, noise], dim=2))


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|, 0 for equal distributions (Székely, 2003)."""

    def within(x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return float(2 * torch.cdist(a, b).mean() - within(a) - within(b))


def inference(seed: int) -> tuple[dict[str, Any], Any]:
    """Adversarial auto-encoders and adversarially learned inference."""
    figures: dict[str, Any] = {}
    picture = Figure(figsize=(9, 4.4), layout="constrained")
    seeds = range(seed, seed + 4)
    for axes, kind in zip(picture.subplots(2, 4), ("AAE", "ALI"), strict=True):
        encoders = toys.Networks(seeds, 2 + LATENTS, LATENTS)
        decoders = toys.Networks((500 + s for s in seeds), LATENTS, 2)
        size = LATENTS if kind == "AAE" else 2 + LATENTS
        critics = toys.Networks((1000 + s for s in seeds), size, 1)
        own = Generator().manual_seed(seed)

        def losses(
            kind: str = kind, e: Any = encoders, g: Any = decoders, d: Any = critics, own: Any = own
        ) -> Iterator[Tensor]:
            x, z = batch_of_ring(4, own), torch.randn(4, BATCH, LATENTS, generator=own)
            codes = encode(e, x, own)
            if kind == "AAE":
                one, other, loss = z, codes, (x - g(codes)).square().mean()
            else:
                one, other = torch.cat([x, codes], dim=2), torch.cat([g(z), z], dim=2)
                loss = torch.zeros(())
            yield 4 * toys.hinge_loss(d(one.detach()), d(other.detach()))
            # Both sides of the pair learn to look like the other.
            yield 4 * (loss - d(other).mean() + d(one).mean())

        model = nn.ModuleList([encoders, decoders])
        toys.duel(critics, model, losses, 2000, (2e-3, 5e-4))
        later = Generator().manual_seed(seed + 1)
        x, z = batch_of_ring(4, later, 2000), torch.randn(4, 2000, LATENTS, generator=later)
        codes, points = encode(encoders, x, later), decoders(z)
        back = decoders(codes)
        drawn = torch.cat([points, z], dim=2)
        figures[kind] = each(points) | {
            "reconstruction": [float(e) for e in (x - back).square().sum(2).mean(1).sqrt()],
        }
        for name, latents in (("joint_distance", codes), ("joint_distance_unmatched", z)):
            pairs = zip(torch.cat([x, latents], dim=2), drawn, strict=True)
            figures[kind][name] = [energy_distance(a, b) for a, b in pairs]
        toys.scatter(axes[0], points[0], f"{kind}: G(z), {figures[kind]['modes'][0]} modes")
        toys.scatter(axes[1], back[0], f"{kind}: G(E(x))")
        for place, values, of, title in (
            (axes[2], codes[0], x[0], "E(x), by angle of x"),
            (axes[3], z[0], points[0], "z, by angle of G(z)"),
        ):
            angle = torch.atan2(of[:, 1], of[:, 0])
            toys.cloud(place, values, f"{kind}: {title}", c=angle, cmap="hsv")
    return figures, picture
