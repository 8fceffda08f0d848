"""A denoising auto-encoder: a noisy recording in, the clean one out."""

from __future__ import annotations

from typing import Any

import speech
import torch
from autoencoder import Autoencoder
from torch import Tensor

from vocoder.evaluation.griffin_lim import griffin_lim
from vocoder.evaluation.metrics import stoi
from vocoder.evaluation.plots import new_figure

STEPS = 500
LATENTS = 32
RATIOS_DB = (0, 5, 10, 20)
"""Signal-to-noise ratios that are tested."""


def noisy(audio: Tensor, ratio_db: float, generator: torch.Generator) -> Tensor:
    """Audio in white noise at a signal-to-noise ratio in dB."""
    scale = audio.square().mean().sqrt() * 10 ** (-ratio_db / 20)
    return audio + scale * torch.randn(audio.shape, generator=generator)


def train(pairs: list[tuple[Tensor, Tensor]], seed: int, steps: int) -> Autoencoder:
    """An auto-encoder from the first of each pair to the second, normalised mels."""
    torch.manual_seed(seed)
    model = Autoencoder(speech.SPEC.n_mels, LATENTS, channels=64, n_layers=3)

    def loss(generator: torch.Generator) -> Tensor:
        x, clean = speech.crops(pairs, generator)
        return -model.reconstruction(x).log_prob(clean).mean()

    speech.fit(model, loss, steps, seed)
    return model


@torch.no_grad()
def measure(seed: int, steps: int = STEPS) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    log_mel, generator = speech.log_mel(), torch.Generator().manual_seed(seed)
    train_audio, held_out = speech.recordings()
    normal = speech.Normal.of([log_mel(audio) for audio in train_audio])

    def mel_of(audio: Tensor) -> Tensor:
        return normal.apply(log_mel(audio))

    pairs = [
        (mel_of(noisy(audio, ratio, generator)), mel_of(audio))
        for audio in train_audio
        for ratio in (20 * torch.rand(4, generator=generator)).tolist()
    ]
    with torch.enable_grad():
        model = train(pairs, seed, steps)
    speaker, rate = griffin_lim(speech.SPEC, refine=8), speech.SPEC.sample_rate

    def spoken(mel: Tensor, audio: Tensor) -> float:
        """STOI of a mel made audible."""
        return stoi(audio, speaker(mel)[: len(audio)], rate)

    figures: dict[str, Any] = {"ratios_db": list(RATIOS_DB)}
    for name in ("noisy_distance", "denoised_distance", "noisy_stoi", "denoised_stoi"):
        figures[name] = []
    panels: dict[str, Tensor] = {}
    for ratio in RATIOS_DB:
        found: list[list[float]] = []
        for audio in held_out:
            sound, clean = noisy(audio, ratio, generator), log_mel(audio)
            mel = log_mel(sound)
            back = normal.undo(model.reconstruction(normal.apply(mel).unsqueeze(0)).mean[0])
            back = back.clamp_min(speech.SPEC.log_floor)
            distances = [float((m - clean).abs().mean()) for m in (mel, back)]
            found.append([*distances, stoi(audio, sound, rate), spoken(back, audio)])
            if ratio == 5 and not panels:
                panels = {"noisy, 5 dB": mel, "denoised": back, "clean": clean}
        columns = torch.tensor(found).mean(dim=0).tolist()
        names = ("noisy_distance", "denoised_distance", "noisy_stoi", "denoised_stoi")
        for name, value in zip(names, columns, strict=True):
            figures[name].append(value)
    clean_stoi = [spoken(log_mel(audio), audio) for audio in held_out]
    figures["clean_stoi"] = sum(clean_stoi) / len(clean_stoi)
    picture = new_figure(9, 3)
    axes = picture.subplots(1, 4)
    for name, label in (("noisy_distance", "noisy"), ("denoised_distance", "denoised")):
        axes[0].plot(RATIOS_DB, figures[name], "o-", label=label)
    axes[0].set_xlabel("signal to noise, dB")
    axes[0].set_ylabel("mel distance to clean, nats")
    axes[0].legend(fontsize="small")
    speech.show(axes[1:], panels)
    return figures, picture
