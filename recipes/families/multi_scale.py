"""Multi-scale architecture: half of the variables leave early, and the rest sees further."""

from typing import Any

import speech
import torch
import toys
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from vocoder.evaluation.benchmark import count_macs
from vocoder.flows import (
    ActNorm,
    AffineCoupling,
    Bijection,
    Chain,
    ChannelHalves,
    FactorOut,
    InvertibleConv1x1,
    zero_log_det,
)

SIDE = 16
LEVELS = 3
FLOWS = 2
CHANNELS = 24


def squeeze(x: Tensor, side: int) -> Tensor:
    """Blocks of 2 x 2 become channels: (batch, C, side * side) to (batch, 4 C, side * side / 4)."""
    return F.pixel_unshuffle(x.unflatten(2, (side, side)), 2).flatten(2)


def unsqueeze(z: Tensor, side: int) -> Tensor:
    """The inverse of `squeeze`."""
    return F.pixel_shuffle(z.unflatten(2, (side // 2, side // 2)), 2).flatten(2)


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
        return self.layers(context.unflatten(2, (self.side, self.side))).flatten(2)


class Level(Bijection):
    """Glow's steps (ActNorm, 1x1 convolution, affine coupling) on a squeezed grid.

    With `further` levels, half of the channels are finished then and the rest goes on to them. The
    latents return to the places of the grid, (batch, channels, side * side).
    """

    def __init__(self, channels: int, side: int, flows: int, further: int = 0) -> None:
        super().__init__()
        self.side = side
        pieces: list[Bijection] = [Haar()]
        for index in range(flows):
            network = GridNetwork(2 * channels, 4 * channels, side // 2)
            halves = ChannelHalves(swap=index % 2 == 0)  # differences given means first
            pieces += [
                ActNorm(4 * channels),
                InvertibleConv1x1(4 * channels, "identity"),
                AffineCoupling(network, halves, log_scale_bound=2.0),
            ]
        if further:
            inner = Level(2 * channels, side // 2, flows, further - 1)
            pieces.append(FactorOut(2 * channels, inner))
        self.inner = Chain(pieces)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.inner(squeeze(x, self.side))
        return unsqueeze(z, self.side), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return unsqueeze(self.inner.inverse(squeeze(z, self.side)), self.side)


def levels_of(channels: int = 1, side: int = SIDE, levels: int = LEVELS) -> Tensor:
    """The level at which each latent is finished, (channels, side, side)."""
    squeezed = torch.zeros(4 * channels, side // 2, side // 2)
    if levels > 1:
        squeezed[2 * channels :] = 1 + levels_of(2 * channels, side // 2, levels - 1)
    return F.pixel_shuffle(squeezed, 2)


def multi_scale(seed: int, steps: int = 500) -> tuple[dict[str, Any], Any]:
    """One scale against several, with as many steps of flow."""
    # Mels with their bands averaged to SIDE.
    seen, held = (
        [speech.log_mel(audio).unflatten(0, (SIDE, -1)).mean(dim=1) for audio in part]
        for part in speech.recordings()
    )
    normal = speech.Normal.of(seen)
    items, others = ([(normal.apply(mel),) for mel in part] for part in (seen, held))

    def patches(count: int, generator: Generator, mels: Any = items) -> Tensor:
        """Random stretches of SIDE frames, flattened, (count, 1, SIDE * SIDE)."""
        return speech.crops(mels, generator, count, SIDE)[0].flatten(1).unsqueeze(1)

    held_out = patches(512, Generator().manual_seed(seed + 1), others)
    figures: dict[str, Any] = {"levels": LEVELS, "steps": FLOWS * LEVELS}
    flows = {
        "single-scale": Level(1, SIDE, FLOWS * LEVELS),
        "multi-scale": Level(1, SIDE, FLOWS, LEVELS - 1),
    }
    noise = 0.7 * torch.randn(2, 1, SIDE * SIDE, generator=Generator().manual_seed(seed))
    panels: dict[str, Tensor] = {}
    for name, flow in flows.items():
        toys.fit(flow, patches, steps, seed, None, 32, 3e-3)
        figures[name] = {
            "log_likelihood": float(toys.log_density(flow, held_out).mean()) / SIDE**2,
            "macs": count_macs(lambda f=flow: f(held_out[:1])),
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
    picture = Figure(figsize=(9, 2.2), layout="constrained")
    for place, (title, patch) in zip(picture.subplots(1, len(panels)), panels.items(), strict=True):
        place.imshow(patch.reshape(SIDE, SIDE).numpy(), origin="lower", vmin=-2.5, vmax=2.5)
        toys.bare(place, title)
    return figures, picture
