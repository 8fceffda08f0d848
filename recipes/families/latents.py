"""Latents of speech: what the flow from mels to latents makes of them, and directions in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import speech
import torch
from torch import Tensor

import vocoder
from vocoder.audio import LogMel, read_audio
from vocoder.evaluation.plots import new_figure
from vocoder.nn.pitch import load_pitch
from vocoder.text.acoustic import AcousticModel
from vocoder.text.frontend import phonemes
from vocoder.text.mel_flow import FRAMES_PER_STEP

EXAMPLES = Path(vocoder.__file__).parent / "demo" / "examples"
TEXT = "The north wind and the sun were disputing."
TEMPERATURES = (0.0, 0.33, 0.67, 1.0)
SEEDS = 4
GAIN = 9.0
"""dB, between the loud and the soft recording."""
DB = 8.686
"""Decibels in a neper: a log-mel of magnitudes is in nepers."""


class Latents:
    """Log-mels (n_mels, frames) to the latents of the acoustic model's flow, and back.

    Latents are (n_mels, frames / 2, 2): even and odd frames apart.
    """

    def __init__(self, model: AcousticModel) -> None:
        self.model = model

    def encode(self, mel: Tensor) -> Tensor:
        if mel.shape[1] % FRAMES_PER_STEP:
            mel = torch.cat([mel, mel[:, -1:]], dim=1)
        z, _ = self.model(mel.unsqueeze(0), torch.tensor([mel.shape[1]]))
        return z[0].unflatten(1, (-1, FRAMES_PER_STEP))

    def decode(self, z: Tensor) -> Tensor:
        mel = self.model.inverse(z.flatten(1).unsqueeze(0))[0]
        return mel.clamp_min(self.model.mel_spec.log_floor)


def contrast(mel: Tensor) -> float:
    """Mean absolute difference of neighbouring bands, nats: blurred mels have less."""
    return float(mel.diff(dim=0).abs().mean())


@torch.no_grad()
def latents(seed: int) -> tuple[dict[str, Any], Any]:
    """Round trip, interpolation, temperature, and directions of loudness and of voice."""
    acoustic = vocoder.load_acoustic()
    flow, pitch = Latents(acoustic), load_pitch(acoustic.mel_spec)
    log_mel, rate = LogMel(acoustic.mel_spec), acoustic.mel_spec.sample_rate
    files = [EXAMPLES / f"english-{voice}.flac" for voice in ("female", "male")]
    sounds = [read_audio(file, rate)[0] for file in files]
    mels = [log_mel(sound) for sound in sounds]
    frames = min(mel.shape[1] for mel in mels) // 4 * 4
    female, male = (mel[:, :frames] for mel in mels)
    first, second = flow.encode(female), flow.encode(male)
    middle, mean = flow.decode(0.5 * (first + second)), 0.5 * (female + male)

    said = phonemes(TEXT)
    warmth: list[dict[str, float]] = []
    for temperature in TEMPERATURES:
        made = [acoustic.synthesize(said, temperature, seed=seed + i) for i in range(SEEDS)]
        warmth.append({"spread": float(torch.stack(made).std(dim=0).mean())})

    gain = 10 ** (GAIN / 40)
    loud, soft = (flow.encode(log_mel(sounds[0] * g)).mean(1, True) for g in (gain, 1 / gain))
    soft_male = log_mel(sounds[1] / gain)[:, :frames]
    louder = flow.decode(flow.encode(soft_male) + loud - soft)
    speaking = soft_male.mean(dim=0) > soft_male.mean()  # elsewhere noise and floor do not scale

    half = first.shape[1] // 2
    voice = first[:, :half].mean(1, True) - second[:, :half].mean(1, True)

    def f0(mel: Tensor) -> float:
        frequency, voicing = pitch(mel.unsqueeze(0))
        return float(frequency[voicing > 0.5].median())

    figures = {
        "round_trip": float((flow.decode(first) - female).abs().max()),
        "contrast": [contrast(female), contrast(male)],
        "contrast_of_middle": {"latents": contrast(middle), "mels": contrast(mean)},
        "temperatures": list(TEMPERATURES),
        "temperature": warmth,
        "gain": {"wanted": GAIN, "found": DB * float((louder - soft_male)[:, speaking].mean())},
        "f0": {
            "source": f0(male[:, 2 * half :]),
            "converted": f0(flow.decode(second[:, half:] + voice)),
            "target": f0(female),
        },
    }
    picture = new_figure(10, 3.6)
    panels = {
        "first voice": female,
        "middle of the latents": middle,
        "mean of the mels": mean,
        "second voice": male,
        "said at temperature 0": acoustic.synthesize(said, 0.0),
        "said at temperature 1": acoustic.synthesize(said, 1.0, seed=seed),
        "soft": soft_male,
        "soft, towards loud": louder,
    }
    speech.show(picture.subplots(2, 4).flat, panels)
    return figures, picture
