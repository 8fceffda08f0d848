"""Claims about auto-encoders: variational ones on known densities, plain ones on mels."""

import math
from typing import Any, NamedTuple

import numpy as np
import soxr
import speech
import torch
import toys
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn

from vocoder.audio.validation import limited
from vocoder.evaluation.baselines import GriffinLim
from vocoder.evaluation.metrics import stoi
from vocoder.nn import GatedConvStack


class Gaussian(NamedTuple):
    r"""Independent Gaussians, :math:`\mathcal N(\mu, \operatorname{diag} \sigma^2)`.

    mean: mu, of any shape.
    log_scale: log sigma, of the same shape.
    """

    mean: Tensor
    log_scale: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        r"""Reparametrised (Kingma and Welling, 2014): :math:`\mu + \sigma \odot \epsilon`."""
        return self.mean + self.log_scale.exp() * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each element, in nats, of the shape of x."""
        standard = (x - self.mean) * (-self.log_scale).exp()
        return -0.5 * standard.square() - self.log_scale - 0.5 * math.log(2 * math.pi)

    def kl(self) -> Tensor:
        r"""Kullback-Leibler divergence of each element from the standard normal, in nats.

        .. math:: D(\mathcal N(\mu, \sigma^2) \,\|\, \mathcal N(0, 1)) =
            \tfrac12 (\mu^2 + \sigma^2 - 1) - \log \sigma
        """
        variance = (2 * self.log_scale).exp()
        return 0.5 * (self.mean.square() + variance - 1) - self.log_scale


class Vae(nn.Module):
    """A VAE of points (batch, size): `encode` gives q(z | x), `decode` p(x | z)."""

    def elbo(self, x: Tensor, noise: Tensor) -> Tensor:
        """The bound of each point at one draw, (batch,)."""
        posterior = self.encode(x)
        likelihood = self.decode(posterior.sample(noise)).log_prob(x).sum(dim=1)
        return likelihood - posterior.kl().sum(dim=1)


SIZE, LATENTS = 8, 2


class LinearVae(Vae):
    """Linear encoder and decoder, with scales that do not depend on their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = nn.Linear(LATENTS, SIZE), nn.Linear(SIZE, LATENTS)
        self.output_scale = nn.Parameter(torch.zeros(()))
        self.posterior_scale = nn.Parameter(torch.zeros(LATENTS))

    def encode(self, x: Tensor) -> Gaussian:
        mean = self.encoder(x)
        return Gaussian(mean, self.posterior_scale.expand_as(mean))

    def decode(self, z: Tensor) -> Gaussian:
        mean = self.decoder(z)
        return Gaussian(mean, self.output_scale.expand_as(mean))

    def weighted(self, x: Tensor, draws: int, generator: Generator) -> Tensor:
        r"""The importance-weighted bound, (batch,).

        .. math:: \log \frac1k \sum_{i=1}^k \frac{p(x \mid z_i)\, \mathcal N(z_i; 0, I)}
            {q(z_i \mid x)}, \qquad z_i \sim q(z \mid x)
        """
        posterior = self.encode(x)
        z = posterior.sample(torch.randn(draws, len(x), LATENTS, generator=generator))
        prior = Gaussian(torch.zeros_like(z), torch.zeros_like(z))
        latent = (prior.log_prob(z) - posterior.log_prob(z)).sum(dim=2)
        weights = self.decode(z).log_prob(x).sum(dim=2) + latent
        return weights.logsumexp(dim=0) - math.log(draws)

    def exact(self, x: Tensor) -> Tensor:
        """log p(x), (batch,)."""
        weight, noise = self.decoder.weight, (2 * self.output_scale).exp()
        covariance = weight @ weight.T + noise * torch.eye(SIZE)
        return torch.distributions.MultivariateNormal(self.decoder.bias, covariance).log_prob(x)


def most_likely(x: Tensor) -> float:
    """Mean log-likelihood of probabilistic principal components, the best of all such models."""
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    noise = values[LATENTS:].mean()
    log_det = values[:LATENTS].log().sum() + (SIZE - LATENTS) * noise.log()
    return float(-0.5 * (SIZE * math.log(2 * math.pi) + log_det + SIZE))


def vae_bound(seed: int, steps: int = 3000) -> tuple[dict[str, Any], Any]:
    """The bounds of a VAE where the exact likelihood is known: a linear Gaussian model."""
    own = Generator().manual_seed(seed)
    torch.manual_seed(seed)
    weight, z = torch.randn(SIZE, LATENTS, generator=own), torch.randn(2000, LATENTS, generator=own)
    x = z @ weight.T + 0.5 * torch.randn(2000, SIZE, generator=own)
    model = LinearVae()
    history: list[list[float]] = []

    def loss(generator: Generator) -> Tensor:
        bound = model.elbo(x, torch.randn(len(x), LATENTS, generator=generator)).mean()
        history.append([bound.item(), model.exact(x).mean().item()])
        return -bound

    toys.minimise(model, loss, steps, seed, 1e-2)
    bounds, exact = zip(*history, strict=True)
    draws = torch.randn(20, len(x), LATENTS, generator=own)
    best = most_likely(x)
    figures: dict[str, Any] = {
        "elbo_start": bounds[0],
        "exact_start": exact[0],
        "elbo": float(torch.stack([model.elbo(x, noise) for noise in draws]).mean()),
        "exact": float(model.exact(x).mean()),
        "most_likely": best,
    }
    model.encoder.bias.add_(0.5)
    model.posterior_scale.add_(0.7)
    counts = [2**power for power in range(9)]
    figures["draws"] = counts
    figures["importance_weighted"] = [float(model.weighted(x, k, own).mean()) for k in counts]
    figures["exact_of_spoilt"] = float(model.exact(x).mean())
    picture = Figure(figsize=(8, 3), layout="constrained")
    left, right = picture.subplots(1, 2)
    left.plot(exact, label="exact")
    left.plot(bounds, label="lower bound")
    left.axhline(best, color="0.6", linestyle="--", label="most likely model")
    left.set_ylim(best - 3, best + 0.3)
    left.set_xlabel("step")
    left.set_ylabel("nats")
    left.legend()
    right.axhline(figures["exact_of_spoilt"], color="0.6", linestyle="--", label="exact")
    lines = {"importance weighted": figures["importance_weighted"]}
    toys.curves(right, counts, lines, "draws k, spoilt encoder", base=2)
    return figures, picture


class PointVae(Vae):
    """An encoder and a decoder of two hidden layers each, one latent variable and one sigma."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = toys.mlp(2, 2, 64), toys.mlp(1, 2, 64)
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor) -> Gaussian:
        return Gaussian(*self.encoder(x).chunk(2, dim=1))

    def decode(self, z: Tensor) -> Gaussian:
        mean = self.decoder(z)
        return Gaussian(mean, self.log_sigma.expand_as(mean))


def vae_blur(seed: int, steps: int = 2000) -> tuple[dict[str, Any], Any]:
    """Blur, the price of a Gaussian decoder trained by forward KL: a VAE on a ring."""
    own = Generator().manual_seed(seed)
    real = toys.ring(4000, own)[..., 0]
    figures: dict[str, Any] = {
        "sigma_of_data": toys.RING_SIGMA,
        "spread_of_data": float(real.std()),
        "share_near_modes_of_data": toys.covered(real)["share_near_modes"],
        "modes": [],
        "share_near_modes": [],
        "sigma": [],
    }
    panels = {"data": real}
    for index in range(seed, seed + 3):
        torch.manual_seed(index)
        model = PointVae()

        def loss(generator: Generator, model: Vae = model) -> Tensor:
            x = toys.ring(256, generator)[..., 0]
            return -model.elbo(x, torch.randn(256, 1, generator=generator)).mean()

        toys.minimise(model, loss, steps, index, 3e-3)
        output = model.decode(torch.randn(4000, 1, generator=own))
        points = output.sample(torch.randn(4000, 2, generator=own))
        for name, value in toys.covered(points).items():
            figures[name].append(value)
        figures["sigma"].append(float(model.log_sigma.exp()))
        if index == seed:
            panels |= {"VAE, samples": points, "VAE, means of p(x | z)": output.mean}
    picture = Figure(figsize=(8, 3), layout="constrained")
    for place, (title, points) in zip(picture.subplots(1, 3), panels.items(), strict=True):
        toys.scatter(place, points, title)
    return figures, picture


class Autoencoder(nn.Module):
    r"""A convolutional auto-encoder of mels with a Gaussian output, without noise on its latents.

    The decoder gives :math:`p(x \mid z) = \mathcal N(\mu(z), \sigma^2(z))`, and training maximises
    it for the clean x: of the input itself (plain), or of a corrupted one (denoising; Vincent et
    al., 2008). With a style (disentangling), the content z loses its mean and variance over time to
    instance normalisation, and the mean over time of a style encoder is all that the decoder learns
    about them (AutoVC, Qian et al., 2019; AdaIN-VC, Chou et al., 2019).

    Shapes: x (batch, n_mels, frames), z (batch, latents, frames), style (batch, style, 1).
    """

    def __init__(self, latents: int, n_layers: int = 3, style: int = 0) -> None:
        super().__init__()
        n_mels = speech.SPEC.n_mels

        def stack(n_in: int, n_out: int) -> GatedConvStack:
            return GatedConvStack(n_in, n_out, 0, 64, n_layers, weight_norm=False)

        self.encoder = stack(n_mels, 2 * latents)
        # Latents that start at zero would give the decoder nothing to learn from.
        self.encoder.end.reset_parameters()
        self.style_encoder = stack(n_mels, style) if style else None
        self.decoder = stack(latents + style, 2 * n_mels)

    def encode(self, x: Tensor) -> Tensor:
        """The content, z."""
        z, _ = self.encoder(x).chunk(2, dim=1)
        return nn.functional.instance_norm(z) if self.style_encoder else z

    def style(self, x: Tensor) -> Tensor:
        """What stays the same over time; nothing without a style encoder."""
        if self.style_encoder is None:
            return x.new_empty(len(x), 0, 1)
        return self.style_encoder(x).mean(dim=2, keepdim=True)

    def decode(self, z: Tensor, style: Tensor) -> Gaussian:
        """p(x | z): each part (batch, n_mels, frames)."""
        z = torch.cat([z, style.expand(-1, -1, z.shape[2])], dim=1)
        return Gaussian(*self.decoder(z).chunk(2, dim=1))

    def forward(self, x: Tensor) -> Gaussian:
        return self.decode(self.encode(x), self.style(x))


def train(
    model: Autoencoder, pairs: list[tuple[Tensor, ...]], seed: int, steps: int, frames: int = 32
) -> None:
    """Train from the first of each pair of normalised mels to the last."""

    def loss(generator: Generator) -> Tensor:
        x, *_, clean = speech.crops(pairs, generator, frames=frames) * 2
        return -model(x).log_prob(clean).mean()

    speech.fit(model, loss, steps, seed)


def distance(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference of two mels, in nats."""
    return float((a - b).abs().mean())


def autoencoder_plain(seed: int, steps: int = 1000) -> tuple[dict[str, Any], Any]:
    """An auto-encoder squeezes a mel through few numbers a frame better than a linear map does."""
    train_mels, held_out = ([speech.log_mel(a) for a in part] for part in speech.recordings())
    normal = speech.Normal.of(train_mels)
    seen, inputs = ([normal.apply(mel) for mel in part] for part in (train_mels, held_out))
    frames = torch.cat(seen, dim=1)
    left, _, _ = torch.linalg.svd(frames - frames.mean(dim=1, keepdim=True), full_matrices=False)

    def error(back: list[Tensor]) -> float:
        return distance(normal.undo(torch.cat(back, dim=1)), torch.cat(held_out, dim=1))

    widths = (1, 2, 4)
    figures: dict[str, Any] = {"widths": list(widths), "autoencoder": [], "principal": []}
    panels = {"recorded": held_out[0]}
    for width in widths:
        torch.manual_seed(seed)
        model = Autoencoder(width, n_layers=2)
        train(model, [(mel,) for mel in seen], seed, steps)
        back = [model(x.unsqueeze(0)).mean[0] for x in inputs]
        figures["autoencoder"].append(error(back))
        if width != 2:
            panels[f"{width} a frame"] = normal.undo(back[0])
        basis = left[:, :width]
        figures["principal"].append(error([basis @ (basis.T @ x) for x in inputs]))
    picture, axes = speech.picture(panels)
    names = {"auto-encoder": "autoencoder", "principal components": "principal"}
    lines = {label: figures[name] for label, name in names.items()}
    toys.curves(axes, widths, lines, "numbers a frame", "mel distance, nats", 2)
    return figures, picture


def noisy(audio: Tensor, ratio_db: float, generator: Generator) -> Tensor:
    """Audio in white noise at a signal-to-noise ratio in dB."""
    scale = audio.square().mean().sqrt() * 10 ** (-ratio_db / 20)
    return audio + scale * torch.randn(audio.shape, generator=generator)


def autoencoder_denoising(seed: int, steps: int = 500) -> tuple[dict[str, Any], Any]:
    """A denoising auto-encoder: a noisy recording in, the clean one out."""
    log_mel, own = speech.log_mel, Generator().manual_seed(seed)
    train_audio, held_out = speech.recordings()
    normal = speech.Normal.of([log_mel(audio) for audio in train_audio])
    pairs: list[tuple[Tensor, ...]] = [
        (normal.apply(log_mel(noisy(audio, ratio, own))), normal.apply(log_mel(audio)))
        for audio in train_audio
        for ratio in (20 * torch.rand(4, generator=own)).tolist()
    ]
    torch.manual_seed(seed)
    model = Autoencoder(32)
    train(model, pairs, seed, steps)
    speaker, rate = GriffinLim(speech.SPEC), speech.SPEC.sample_rate

    def spoken(mel: Tensor, audio: Tensor) -> float:
        """STOI of a mel made audible."""
        made = speaker.synthesize(limited(mel, speech.SPEC), refine=8)
        return stoi(audio, made[: len(audio)], rate)

    names = ("noisy_distance", "denoised_distance", "noisy_stoi", "denoised_stoi")
    ratios = (0, 5, 10, 20)
    figures: dict[str, Any] = {"ratios_db": list(ratios)} | {name: [] for name in names}
    panels: dict[str, Tensor] = {}
    for ratio in ratios:
        rows: list[list[float]] = []
        for audio in held_out:
            sound, clean = noisy(audio, ratio, own), log_mel(audio)
            mel = log_mel(sound)
            back = normal.undo(model(normal.apply(mel).unsqueeze(0)).mean[0])
            back = back.clamp_min(speech.SPEC.log_floor)
            scores = stoi(audio, sound, rate), spoken(back, audio)
            rows.append([distance(mel, clean), distance(back, clean), *scores])
            if ratio == 5 and not panels:
                panels = {"noisy, 5 dB": mel, "denoised": back, "clean": clean}
        for name, value in zip(names, np.mean(rows, axis=0).tolist(), strict=True):
            figures[name].append(value)
    figures["clean_stoi"] = float(np.mean([spoken(log_mel(a), a) for a in held_out]))
    picture, axes = speech.picture(panels)
    lines = {"noisy": figures[names[0]], "denoised": figures[names[1]]}
    toys.curves(axes, ratios, lines, "signal to noise, dB", "mel distance to clean, nats")
    return figures, picture


SPEEDS = (0.8, 0.9, 1.0, 1.12, 1.25)


def voices(audio: Tensor) -> list[Tensor]:
    """Mels of one utterance at all speeds, on the same frames, (n_mels, frames) each."""
    rate, frames = speech.SPEC.sample_rate, speech.log_mel(audio).shape[1]
    made = []
    for speed in SPEEDS:
        played = soxr.resample(audio.numpy(), rate, rate / speed).astype(np.float32)
        mel = speech.log_mel(torch.from_numpy(played))
        made.append(nn.functional.interpolate(mel[None], size=frames, mode="linear")[0])
    return made


def autoencoder_disentangling(seed: int, steps: int = 400) -> tuple[dict[str, Any], Any]:
    """A disentangling auto-encoder: what is said and who says it, in separate latents."""
    seen, held_out = ([voices(audio) for audio in part] for part in speech.recordings())
    mels = [mel for said in seen for mel in said]
    normal = speech.Normal.of(mels)
    torch.manual_seed(seed)
    model = Autoencoder(8, style=8)
    train(model, [(normal.apply(mel),) for mel in mels], seed, steps, frames=64)
    rows: list[list[float]] = []
    panels: dict[str, Tensor] = {}
    for index, said in enumerate(held_out):
        # The style comes from another sentence.
        source, truth, other = (
            normal.apply(mel).unsqueeze(0) for mel in (said[0], said[-1], held_out[index - 1][-1])
        )
        content, style = model.encode(source), model.style(other)
        converted = model.decode(content, style).mean
        kept = model.decode(content, model.style(source)).mean
        ceiling = model.decode(model.encode(truth), style).mean
        found = [normal.undo(x)[0] for x in (source, kept, converted, ceiling)]
        rows.append([distance(x, said[-1]) for x in found])
        panels = panels or {"source": found[0], "converted": found[2], "truth": said[-1]}
    names = ("source", "own_style", "converted", "content_of_target")
    distances = dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))
    picture, axes = speech.picture(panels)
    bars = ["source", "own style", "converted", "target's content"]
    axes.barh(bars, list(distances.values()))
    axes.invert_yaxis()
    axes.set_xlabel("mel distance to the truth, nats")
    speeds = {"from_speed": SPEEDS[0], "to_speed": SPEEDS[-1]}
    return speeds | {"distance_to_truth": distances}, picture
