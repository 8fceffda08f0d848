"""Text to audio: sentence by sentence, the acoustic model, then the vocoder, then the pauses.

`sentences` decides what is said and refuses what cannot be, before any audio is made; `speak` makes
the audio of one sentence after the other, so that a book takes no more memory than its longest
sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vocoder.text.frontend import (
    MAX_SENTENCE,
    TextError,
    normalise,
    phonemes,
    split_sentences,
)

if TYPE_CHECKING:
    from vocoder.models import Vocoder
    from vocoder.text.acoustic import AcousticModel

SENTENCE_PAUSE = 0.3
"""Seconds of silence between sentences, at speaking rate 1."""

PARAGRAPH_PAUSE = 0.7
"""Seconds of silence between paragraphs, at speaking rate 1."""

ACOUSTIC_TEMPERATURE = 0.333
"""Temperature of the acoustic model: what Glow-TTS (Kim et al., 2020) was judged at."""

# Below the loudest, in decibels: what is quieter at the ends of a sentence is silence. Recordings
# and models leave different amounts of it, and the pauses should not depend on that.
_SILENCE_DB = 50.0
_BLOCK_SECONDS = 0.01
_FADE_SECONDS = 0.005


@dataclass(frozen=True)
class Sentence:
    """What is said in one breath.

    text: as it was given. phonemes: see `vocoder.text.frontend.phonemes`. pause: seconds of silence
    after it, at speaking rate 1.
    """

    text: str
    phonemes: tuple[str, ...]
    pause: float


def sentences(text: str) -> list[Sentence]:
    """The sentences of a text of any length, ready to be spoken.

    Empty lines separate paragraphs. Sentences without a letter or digit (a row of asterisks) say
    nothing and are left out.

    Raises:
        TextError: nothing to say at all, or something in it cannot be read; the message names it.
    """
    if not text.strip():
        raise TextError("there is no text to read: give at least one word")
    from vocoder.text.acoustic import LONGEST_TEXT  # PyTorch, which reading text does without

    said: list[Sentence] = []
    for paragraph in re.split(r"\n\s*\n", text):
        first = len(said)
        for sentence, sounds in _breaths(paragraph, LONGEST_TEXT):
            said.append(Sentence(sentence, sounds, SENTENCE_PAUSE))
        if len(said) > first:
            said[-1] = replace(said[-1], pause=PARAGRAPH_PAUSE)
    if not said:
        raise TextError("nothing in the text can be pronounced: give at least one word")
    said[-1] = replace(said[-1], pause=0.0)
    return said


def _breaths(
    text: str, longest: int, max_characters: int = MAX_SENTENCE
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Sentences with their phonemes, `longest` at most: numbers have far more than characters."""
    for sentence in split_sentences(text, max_characters):
        if not any(character.isalnum() for character in sentence):
            continue
        sounds = tuple(phonemes(sentence))
        if len(sounds) > longest and max_characters > 1:
            yield from _breaths(sentence, longest, max_characters // 2)
        else:
            yield sentence, sounds


def speak(
    said: Iterable[Sentence],
    acoustic: AcousticModel,
    vocoder: Vocoder,
    *,
    temperature: float | None = None,
    acoustic_temperature: float | None = None,
    speaking_rate: float = 1.0,
    seed: int = 0,
) -> Iterator[npt.NDArray[np.float32]]:
    """The audio of each sentence with the pause after it, one after the other.

    Silence at the ends of what the models make is cut off. A sentence sounds the same wherever it
    stands: its audio is a function of its phonemes, the seed and the other arguments.

    Args:
        said: from `sentences`.
        acoustic: phonemes to log-mel.
        vocoder: log-mel to audio; of the same `MelSpec`.
        temperature: scale of the vocoder's latent noise, as in `Vocoder.synthesize`.
        acoustic_temperature: scale of the acoustic model's noise; 0 is the flattest intonation,
            None `ACOUSTIC_TEMPERATURE`.
        speaking_rate: 2 is twice as fast, 0.5 half as fast; pauses too.
        seed: of both models' noise.

    Yields:
        (samples,), float32, in [-1, 1], at `vocoder.sample_rate`.

    Raises:
        ValueError: an argument is out of range, or the models are of different mel conventions; at
            the call, before the first sentence is asked for.
    """
    if temperature is None:
        temperature = vocoder.default_temperature
    if acoustic_temperature is None:
        acoustic_temperature = ACOUSTIC_TEMPERATURE
    for name, value in (
        ("temperature", temperature),
        ("acoustic_temperature", acoustic_temperature),
    ):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}: it must be a number from 0 up, usually to 1")
    if not 0.25 <= speaking_rate <= 4:
        raise ValueError(
            f"speaking_rate is {speaking_rate}: it must be from 0.25 (slow) to 4 (fast); 1 is the "
            "rate of the recordings"
        )
    if seed < 0:
        raise ValueError(f"seed is {seed}: it must be a non-negative integer")
    if acoustic.mel_spec != vocoder.mel_spec:
        raise ValueError(
            f"the acoustic model makes mels of {acoustic.mel_spec} and the vocoder takes "
            f"{vocoder.mel_spec}: give two models that were trained with the same mel_spec"
        )
    return _spoken(said, acoustic, vocoder, temperature, acoustic_temperature, speaking_rate, seed)


def _spoken(
    said: Iterable[Sentence],
    acoustic: AcousticModel,
    vocoder: Vocoder,
    temperature: float,
    acoustic_temperature: float,
    speaking_rate: float,
    seed: int,
) -> Iterator[npt.NDArray[np.float32]]:
    spec = acoustic.mel_spec
    for sentence in said:
        mel = acoustic.synthesize(sentence.phonemes, acoustic_temperature, speaking_rate, seed)
        # At high temperatures the model leaves the range of recordings, which a vocoder refuses.
        audio = (
            vocoder.synthesize(mel.clamp(spec.log_floor, spec.log_ceiling), temperature, seed)
            .cpu()
            .numpy()
        )
        pause = round(sentence.pause / speaking_rate * vocoder.sample_rate)
        yield np.pad(_trimmed(audio, vocoder.sample_rate), (0, pause))


def _trimmed(audio: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float32]:
    # librosa.effects.trim does the same, but importing it takes longer than saying a sentence.
    block = round(_BLOCK_SECONDS * sample_rate)
    blocks = np.pad(audio, (0, -len(audio) % block)).reshape(-1, block)
    power = np.square(blocks, dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-_SILENCE_DB / 10))
    if not len(loud):
        return audio
    kept = audio[max(loud[0] - 1, 0) * block : (loud[-1] + 2) * block].copy()
    fade = min(round(_FADE_SECONDS * sample_rate), len(kept) // 2)
    if fade:
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        kept[:fade] *= ramp
        kept[-fade:] *= ramp[::-1]
    return kept


__all__ = ["Sentence", "TextError", "normalise", "phonemes", "sentences", "speak"]
