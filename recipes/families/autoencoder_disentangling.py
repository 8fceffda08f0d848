"""A disentangling auto-encoder: what is said and who says it, in separate latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr
import speech
import torch
from autoencoder import Autoencoder
from torch import Tensor

from vocoder.evaluation.plots import new_figure

STEPS = 400
CONTENT, STYLE = 8, 8
SPEEDS = (0.8, 0.9, 1.0, 1.12, 1.25)
FROM, TO = SPEEDS[0], SPEEDS[-1]


def voices(audio: Tensor) -> list[Tensor]:
    """Mels of one utterance at all speeds, on the same frames, (n_mels, frames) each."""
    log_mel, rate = speech.log_mel(), speech.SPEC.sample_rate
    frames = log_mel(audio).shape[1]
    made = []
    for speed in SPEEDS:
        played = soxr.resample(audio.numpy(), rate, rate / speed).astype(np.float32)
        mel = log_mel(torch.from_numpy(played))
        made.append(torch.nn.functional.interpolate(mel[None], size=frames, mode="linear")[0])
    return made


def train(mels: list[Tensor], seed: int, steps: int) -> Autoencoder:
    """A disentangling auto-encoder of normalised mels."""
    torch.manual_seed(seed)
    model = Autoencoder(
        speech.SPEC.n_mels,
        CONTENT,
        channels=64,
        n_layers=3,
        style_channels=STYLE,
    )

    def loss(generator: torch.Generator) -> Tensor:
        (x,) = speech.crops([(mel,) for mel in mels], generator, frames=64)
        return -model.reconstruction(x).log_prob(x).mean()

    speech.fit(model, loss, steps, seed)
    return model


@torch.no_grad()
def measure(seed: int, steps: int = STEPS) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    seen, held_out = ([voices(audio) for audio in part] for part in speech.recordings())
    normal = speech.Normal.of([mel for mels in seen for mel in mels])
    with torch.enable_grad():
        model = train([normal.apply(mel) for mels in seen for mel in mels], seed, steps)
    first, last = SPEEDS.index(FROM), SPEEDS.index(TO)
    rows: list[list[float]] = []
    panels: dict[str, Tensor] = {}
    for index, mels in enumerate(held_out):
        source, truth = (normal.apply(mels[i]).unsqueeze(0) for i in (first, last))
        # The style comes from another sentence.
        other = normal.apply(held_out[index - 1][last]).unsqueeze(0)
        content = model.encode(source).mean
        converted = model.decode(content, style=model.style(other)).mean
        kept = model.decode(content, style=model.style(source)).mean
        ceiling = model.decode(model.encode(truth).mean, style=model.style(other)).mean
        rows.append(
            [
                float((normal.undo(x) - normal.undo(truth)).abs().mean())
                for x in (source, kept, converted, ceiling)
            ]
        )
        if not panels:
            found = {"source": source, "converted": converted, "truth": truth}
            panels = {name: normal.undo(x)[0] for name, x in found.items()}
    names = ("source", "own_style", "converted", "content_of_target")
    values = torch.tensor(rows).mean(dim=0).tolist()
    figures: dict[str, Any] = {
        "from_speed": FROM,
        "to_speed": TO,
        "distance_to_truth": dict(zip(names, values, strict=True)),
    }
    picture = new_figure(9, 3)
    axes = picture.subplots(1, 4)
    axes[0].barh(["source", "own style", "converted", "target's content"], values)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("mel distance to the truth, nats")
    axes[0].tick_params(labelsize="small")
    speech.show(axes[1:], panels)
    return figures, picture
