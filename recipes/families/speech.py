"""What the claims about speech share: mels of the sample corpus, crops of them, training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import toys
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn

from vocoder.audio import LogMel, MelSpec, read_audio
from vocoder.corpus import read_corpus

SAMPLE = Path(__file__).parents[1] / "ljspeech" / "sample"
SPEC = MelSpec.preset("speech-16k")
HELD_OUT = 4
"""The last utterances of the corpus, never trained on."""
log_mel = LogMel(SPEC)


def recordings() -> tuple[list[Tensor], list[Tensor]]:
    """Audio of the sample corpus at 16 kHz: to train on, and held out."""
    found = [read_audio(u.path, SPEC.sample_rate)[0] for u in read_corpus(SAMPLE).utterances]
    return found[:-HELD_OUT], found[-HELD_OUT:]


class Normal(NamedTuple):
    """Mean and standard deviation of each mel band, (n_mels, 1)."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, mels: list[Tensor]) -> Normal:
        frames = torch.cat(mels, dim=1)
        return cls(frames.mean(dim=1, keepdim=True), frames.std(dim=1, keepdim=True))

    def apply(self, mel: Tensor) -> Tensor:
        return (mel - self.mean) / self.scale

    def undo(self, mel: Tensor) -> Tensor:
        return mel * self.scale + self.mean


def show(places: Iterable[Any], panels: Mapping[str, Tensor]) -> None:
    """Draw the beginnings of mels, 3.2 s at most, one on each of the axes."""
    for axes, (title, mel) in zip(places, panels.items(), strict=True):
        axes.imshow(mel[:, :200].numpy(), origin="lower", aspect="auto", vmin=-10, vmax=2)
        toys.bare(axes, title)


def picture(panels: Mapping[str, Tensor]) -> tuple[Any, Any]:
    """A picture of three mels, and axes to the left of them."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    first, *places = figure.subplots(1, 4)
    show(places, panels)
    return figure, first


def crops(
    items: list[tuple[Tensor, ...]], generator: Generator, batch: int = 8, frames: int = 32
) -> tuple[Tensor, ...]:
    """Random crops, (batch, channels, frames) each, at the same places of sequences that belong
    together, (channels, time)."""
    chosen = []
    for index in torch.randint(len(items), (batch,), generator=generator).tolist():
        last = items[index][0].shape[1] - frames
        start = int(torch.randint(last + 1, (), generator=generator))
        chosen.append([item[:, start : start + frames] for item in items[index]])
    return tuple(torch.stack(column) for column in zip(*chosen, strict=True))


def fit(model: nn.Module, loss: Callable[[Generator], Tensor], steps: int, seed: int) -> None:
    """Minimise a loss that draws its own batch."""
    toys.minimise(model, loss, steps, seed, 5e-3, clip=1.0, betas=(0.9, 0.99))
