"""An auto-encoder squeezes a mel through few numbers a frame better than a linear map does."""

from __future__ import annotations

from typing import Any

import speech
import torch
from autoencoder import Autoencoder
from torch import Tensor

from vocoder.evaluation.plots import new_figure

WIDTHS = (1, 2, 4)
STEPS = 1000


def train(mels: list[Tensor], width: int, seed: int, steps: int) -> Autoencoder:
    """An auto-encoder with `width` numbers a frame, of normalised mels."""
    torch.manual_seed(seed)
    model = Autoencoder(speech.SPEC.n_mels, width, channels=64, n_layers=2)

    def loss(generator: torch.Generator) -> Tensor:
        (x,) = speech.crops([(mel,) for mel in mels], generator)
        return -model.reconstruction(x).log_prob(x).mean()

    speech.fit(model, loss, steps, seed)
    return model


def principal(mels: list[Tensor], width: int) -> Tensor:
    """The first principal components of frames, orthonormal columns (n_mels, width)."""
    frames = torch.cat(mels, dim=1)
    left, _, _ = torch.linalg.svd(frames - frames.mean(dim=1, keepdim=True), full_matrices=False)
    return left[:, :width]


@torch.no_grad()
def measure(seed: int, steps: int = STEPS) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    log_mel = speech.log_mel()
    train_mels, held_out = ([log_mel(a) for a in part] for part in speech.recordings())
    normal = speech.Normal.of(train_mels)
    seen = [normal.apply(mel) for mel in train_mels]

    def error(back: list[Tensor]) -> float:
        pairs = zip(back, held_out, strict=True)
        total = sum(float((normal.undo(a) - b).abs().sum()) for a, b in pairs)
        return total / sum(mel.numel() for mel in held_out)

    figures: dict[str, Any] = {"widths": list(WIDTHS), "autoencoder": [], "principal": []}
    shown: dict[int, Tensor] = {}
    inputs = [normal.apply(mel) for mel in held_out]
    for width in WIDTHS:
        with torch.enable_grad():
            model = train(seen, width, seed, steps)
        back = [model.reconstruction(x.unsqueeze(0)).mean[0] for x in inputs]
        figures["autoencoder"].append(error(back))
        shown[width] = normal.undo(back[0])
        basis = principal(seen, width)
        figures["principal"].append(error([basis @ (basis.T @ x) for x in inputs]))
    picture = new_figure(9, 3)
    axes = picture.subplots(1, 4)
    for name, label in (("autoencoder", "auto-encoder"), ("principal", "principal components")):
        axes[0].plot(WIDTHS, figures[name], "o-", label=label)
    axes[0].set_xscale("log", base=2)
    axes[0].set_xlabel("numbers a frame")
    axes[0].set_ylabel("mel distance, nats")
    axes[0].legend(fontsize="small")
    panels = {"recorded": held_out[0], "1 number a frame": shown[1], "4 numbers": shown[4]}
    speech.show(axes[1:], panels)
    return figures, picture
