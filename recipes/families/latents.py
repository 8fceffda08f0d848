r"""Latents of speech: what the flow from mels to latents makes of them, and directions in it.

.. math:: z = f(x), \qquad x' = f^{-1}\bigl(z + \alpha\, (\bar z_{\text{B}} - \bar z_{\text{A}})
    \bigr)

The flow is that of the bundled acoustic model (Glow-TTS); it was not trained on the two recordings,
of two synthetic voices. A direction is the difference of two mean latents (Kingma and Dhariwal,
2018): of a recording played loud and soft, or of two speakers, from the first half of each
recording and used in the second. voice_conversion.py does the last on a corpus, with sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import speech
import torch
from torch import Tensor
from voice_conversion import Latents, frames_mean

import vocoder
from vocoder.audio import read_audio
from vocoder.evaluation.plots import new_figure
from vocoder.nn.pitch import load_pitch
from vocoder.text.frontend import phonemes

TITLE = "Latents of speech"
EQUATIONS = ()
EXAMPLES = Path(vocoder.__file__).parent / "demo" / "examples"
FEMALE, MALE = "english-female.flac", "english-male.flac"
TEXT = "The north wind and the sun were disputing."
TEMPERATURES = (0.0, 0.33, 0.67, 1.0)
SEEDS = 4
GAIN = 9.0
"""dB, between the loud and the soft recording."""
DB = 8.686
"""Decibels in a neper: a log-mel of magnitudes is in nepers."""


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


def say(figures: dict[str, Any]) -> str:
    """A few sentences from the figures."""
    middle, own = figures["contrast_of_middle"], figures["contrast"]
    spread = ", ".join(f"{row['spread']:.2f}" for row in figures["temperature"])
    temperatures = ", ".join(f"{t:g}" for t in figures["temperatures"])
    gain, f0 = figures["gain"], figures["f0"]
    return (
        f"There and back, mels differ by {figures['round_trip']:.1g} nats at most. Half-way "
        f"between two voices, neighbouring bands differ by {middle['latents']:.2f} nats through "
        f"the latents and by {middle['mels']:.2f} in the mean of the mels, where the voices have "
        f"{own[0]:.2f} and {own[1]:.2f}. At temperatures of {temperatures} the mels of one "
        f"sentence vary over seeds by {spread} nats. The direction from soft to loud, found in one "
        f"voice, makes the other louder by {gain['found']:.1f} of {gain['wanted']:.0f} dB; that "
        f"between the speakers brings a median F0 of {f0['source']:.0f} Hz to "
        f"{f0['converted']:.0f} Hz, where the other speaks at {f0['target']:.0f} Hz."
    )
