"""Latents of speech: what the flow from mels to latents makes of them, and directions in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import speech
import torch
from torch import Tensor

import vocoder
from vocoder.audio import read_audio
from vocoder.evaluation.plots import new_figure
from vocoder.nn.pitch import load_pitch
from vocoder.text.acoustic import AcousticModel
from vocoder.text.frontend import phonemes
from vocoder.text.mel_flow import FRAMES_PER_STEP

EXAMPLES = Path(vocoder.__file__).parent / "demo" / "examples"
FEMALE, MALE = "english-female.flac", "english-male.flac"
TEXT = "The north wind and the sun were disputing."
TEMPERATURES = (0.0, 0.33, 0.67, 1.0)
SEEDS = 4
GAIN = 9.0
"""dB, between the loud and the soft recording."""
DB = 8.686
"""Decibels in a neper: a log-mel of magnitudes is in nepers."""


class Latents:
    """Log-mels to the latents of the acoustic model's flow, and back."""

    def __init__(self, model: AcousticModel) -> None:
        self.model = model

    def encode(self, mel: Tensor) -> Tensor:
        """(n_mels, frames) to latents (n_mels, frames / 2, 2): even and odd frames apart."""
        if mel.shape[1] % FRAMES_PER_STEP:
            mel = torch.cat([mel, mel[:, -1:]], dim=1)
        z, _ = self.model(mel.unsqueeze(0), torch.tensor([mel.shape[1]]))
        return z[0].unflatten(1, (-1, FRAMES_PER_STEP))

    def decode(self, z: Tensor) -> Tensor:
        """Latents to a mel, (n_mels, frames)."""
        mel = self.model.inverse(z.flatten(1).unsqueeze(0))[0]
        return mel.clamp_min(self.model.mel_spec.log_floor)


def frames_mean(items: list[Tensor]) -> Tensor:
    """Mean over all frames of several utterances; frames are in dimension 1."""
    return torch.cat(items, dim=1).mean(dim=1, keepdim=True)


def contrast(mel: Tensor) -> float:
    """Mean absolute difference of neighbouring bands, nats: blurred mels have less."""
    return float(mel.diff(dim=0).abs().mean())


@torch.no_grad()
def measure(seed: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the picture."""
    acoustic = vocoder.load_acoustic()
    spec = acoustic.mel_spec
    latents, pitch = Latents(acoustic), load_pitch(spec)
    sounds = [read_audio(EXAMPLES / name, spec.sample_rate)[0] for name in (FEMALE, MALE)]
    log_mel = speech.LogMel(spec)
    mels = [log_mel(sound) for sound in sounds]
    frames = min(mel.shape[1] for mel in mels) // 4 * 4
    female, male = (mel[:, :frames] for mel in mels)
    first, second = latents.encode(female), latents.encode(male)

    def f0(mel: Tensor) -> float:
        frequency, voicing = pitch(mel.unsqueeze(0))
        return float(frequency[voicing > 0.5].median())

    figures: dict[str, Any] = {
        "round_trip": float((latents.decode(first) - female).abs().max()),
        "contrast": [contrast(female), contrast(male)],
    }
    middle = latents.decode(0.5 * (first + second))
    figures["contrast_of_middle"] = {
        "latents": contrast(middle),
        "mels": contrast(0.5 * (female + male)),
    }

    said = phonemes(TEXT)
    figures["temperatures"] = list(TEMPERATURES)
    figures["temperature"] = []
    for temperature in TEMPERATURES:
        made = [acoustic.synthesize(said, temperature, seed=seed + i) for i in range(SEEDS)]
        figures["temperature"].append(
            {
                "spread": float(torch.stack(made).std(dim=0).mean()),
                "contrast": sum(map(contrast, made)) / SEEDS,
            }
        )

    gain = 10 ** (GAIN / 40)
    loud, soft = (latents.encode(log_mel(sounds[0] * g)) for g in (gain, 1 / gain))
    direction = frames_mean([loud]) - frames_mean([soft])
    soft_male = log_mel(sounds[1] / gain)[:, :frames]
    louder = latents.decode(latents.encode(soft_male) + direction)
    speaking = soft_male.mean(dim=0) > soft_male.mean()  # elsewhere noise and floor do not scale
    figures["gain"] = {
        "wanted": GAIN,
        "found": DB * float((louder - soft_male)[:, speaking].mean()),
    }

    half = first.shape[1] // 2
    voice = frames_mean([first[:, :half]]) - frames_mean([second[:, :half]])
    converted = latents.decode(second[:, half:] + voice)
    figures["f0"] = {
        "source": f0(male[:, 2 * half :]),
        "converted": f0(converted),
        "target": f0(female),
    }

    picture = new_figure(10, 3.6)
    panels = {
        "first voice": female,
        "middle of the latents": middle,
        "mean of the mels": 0.5 * (female + male),
        "second voice": male,
        "said at temperature 0": acoustic.synthesize(said, 0.0),
        "said at temperature 1": acoustic.synthesize(said, 1.0, seed=seed),
        "soft": soft_male,
        "soft, towards loud": louder,
    }
    speech.show(picture.subplots(2, 4).flat, panels)
    return figures, picture
