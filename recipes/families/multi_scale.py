"""Multi-scale architecture: half of the variables leave early, and the rest sees further."""

from __future__ import annotations

from typing import Any

import speech
import torch
import toys
from torch import Tensor, nn

from vocoder.evaluation.plots import new_figure
from vocoder.evaluation.systems import count_macs
from vocoder.flows import (
    ActNorm,
    AffineCoupling,
    Bijection,
    Chain,
    ChannelHalves,
    FactorOut,
    InvertibleConv1x1,
)
from vocoder.flows.bijection import zero_log_det

SIDE = 16
LEVELS = 3
FLOWS = 2
CHANNELS = 24
BATCH = 32
STEPS = 500


class SqueezeGrid(Bijection):
    """Blocks of 2 x 2 become channels: (batch, C, side * side) to (batch, 4 C, side * side / 4)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        grid = x.unflatten(2, (self.side, self.side))
        return nn.functional.pixel_unshuffle(grid, 2).flatten(2), zero_log_det(x)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        grid = z.unflatten(2, (self.side // 2, self.side // 2))
        return nn.functional.pixel_shuffle(grid, 2).flatten(2)


class Haar(Bijection):
    """The four values of each block of 2 x 2 as three differences and, last, their mean.

    Orthonormal, so the log-determinant is 0. Channels of one kind come together.
    """

    MATRIX = 0.5 * torch.tensor(
        [[1.0, -1.0, -1.0, 1.0], [1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0], [1.0] * 4]
    )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        blocks = x.unflatten(1, (-1, 4))
        return torch.einsum("kj,bcjn->bkcn", self.MATRIX, blocks).flatten(1, 2), zero_log_det(x)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        kinds = z.unflatten(1, (4, -1))
        return torch.einsum("kj,bkcn->bcjn", self.MATRIX, kinds).flatten(1, 2)


class Unsqueezed(Bijection):
    """A bijection of the squeezed grid; its latents go back to the places of the grid."""

    def __init__(self, side: int, pieces: list[Bijection]) -> None:
        super().__init__()
        self.squeeze = SqueezeGrid(side)
        self.inner = Chain(pieces)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.inner(self.squeeze(x)[0])
        return self.squeeze.inverse(z), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.squeeze.inverse(self.inner.inverse(self.squeeze(z)[0]))


class GridNetwork(nn.Module):
    """A conditioner on a square grid: three convolutions, the last zero at first."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, CHANNELS, 3, padding=1), nn.SiLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 1), nn.SiLU(),
            nn.Conv2d(CHANNELS, outputs, 3, padding=1),
        )  # fmt: skip
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, context: Tensor, condition: Tensor | None = None) -> Tensor:
        grid = context.unflatten(2, (self.side, self.side))
        result: Tensor = self.layers(grid).flatten(2)
        return result


def steps_of_flow(channels: int, side: int, count: int) -> list[Bijection]:
    """Steps of Glow after a Haar transform: ActNorm, 1x1 convolution, affine coupling."""
    pieces: list[Bijection] = [Haar()]
    for index in range(count):
        pieces += [
            ActNorm(channels),
            InvertibleConv1x1(channels, "identity"),
            AffineCoupling(
                GridNetwork(channels // 2, channels, side),
                ChannelHalves(swap=index % 2 == 0),  # differences given means first
                log_scale_bound=2.0,
            ),
        ]
    return pieces


def multi_scale(channels: int = 1, side: int = SIDE, levels: int = LEVELS) -> Bijection:
    """A level of steps; half of the channels are finished then, the rest goes to the next level."""
    pieces = steps_of_flow(4 * channels, side // 2, FLOWS)
    if levels > 1:
        pieces.append(FactorOut(2 * channels, multi_scale(2 * channels, side // 2, levels - 1)))
    return Unsqueezed(side, pieces)


def single_scale() -> Bijection:
    """As many steps, all of them at the first level."""
    return Unsqueezed(SIDE, steps_of_flow(4, SIDE // 2, FLOWS * LEVELS))


def levels_of(channels: int = 1, side: int = SIDE, levels: int = LEVELS) -> Tensor:
    """At which level each latent of `multi_scale` is finished, (channels, side, side)."""
    squeezed = torch.zeros(4 * channels, side // 2, side // 2)
    if levels > 1:
        squeezed[2 * channels :] = 1 + levels_of(2 * channels, side // 2, levels - 1)
    return nn.functional.pixel_shuffle(squeezed, 2)


def patches(mels: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Random stretches of SIDE frames, flattened, (count, 1, SIDE * SIDE)."""
    (found,) = speech.crops([(mel,) for mel in mels], generator, count, SIDE)
    return found.flatten(1).unsqueeze(1)


def coarse(mel: Tensor) -> Tensor:
    """Means over neighbouring bands, (SIDE, frames)."""
    return mel.unflatten(0, (SIDE, -1)).mean(dim=1)


@torch.no_grad()
def measure(seed: int, steps: int = STEPS) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    log_mel = speech.log_mel()
    seen, unseen = ([coarse(log_mel(a)) for a in part] for part in speech.recordings())
    normal = speech.Normal.of(seen)
    seen, unseen = ([normal.apply(mel) for mel in part] for part in (seen, unseen))
    held_out = patches(unseen, 512, torch.Generator().manual_seed(seed + 1))
    figures: dict[str, Any] = {"levels": LEVELS, "steps": FLOWS * LEVELS}
    flows: dict[str, Bijection] = {"single-scale": single_scale(), "multi-scale": multi_scale()}
    noise = 0.7 * torch.randn(2, 1, SIDE * SIDE, generator=torch.Generator().manual_seed(seed))
    panels: dict[str, Tensor] = {}
    for name, flow in flows.items():
        with torch.enable_grad():
            toys.fit(flow, lambda n, g: patches(seen, n, g), steps, seed, None, BATCH, 3e-3)
        figures[name] = {
            "log_likelihood": float(toys.log_density(flow, held_out).mean()) / SIDE**2,
            "macs": count_macs(lambda f=flow: f(held_out[:1])),
            "parameters": sum(p.numel() for p in flow.parameters()),
        }
        panels[f"{name}, sample"] = flow.inverse(noise)[0]
    flow, levels = flows["multi-scale"], levels_of().flatten()
    z, _ = flow(held_out)
    figures["kept"], figures["distance"] = [], []
    panels["held out"] = held_out[0]
    for last in range(LEVELS):
        keep = levels >= last
        back = flow.inverse(z * keep)
        figures["kept"].append(float(keep.float().mean()))
        figures["distance"].append(float((back - held_out).abs().mean()))
        if last:
            panels[f"with {int(keep.sum())} of {SIDE**2} latents"] = back[0]
    picture = new_figure(9, 2.2)
    for place, (title, patch) in zip(picture.subplots(1, len(panels)), panels.items(), strict=True):
        place.imshow(patch.reshape(SIDE, SIDE).numpy(), origin="lower", vmin=-2.5, vmax=2.5)
        toys.bare(place, title)
    return figures, picture
