"""Text to audio, sentence by sentence: `sentences` turns text into phonemes, and refuses what
cannot be read before any audio is made; `speak` makes audio one sentence at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from vocoder.text.frontend import (
    LONGEST_TEXT,
    MAX_SENTENCE,
    PARAGRAPHS,
    PUNCTUATION,
    WORD_BOUNDARY,
    TextError,
    normalise,
    phonemes,
    split_sentences,
)

if TYPE_CHECKING:
    from vocoder.audio import Refine
    from vocoder.models import Vocoder
    from vocoder.text.acoustic import AcousticModel
    from vocoder.text.tacotron2 import Tacotron2

    TextToMel = AcousticModel | Tacotron2
    Audio = npt.NDArray[np.float32]

SENTENCE_PAUSE, PARAGRAPH_PAUSE = 0.3, 0.7
"""Seconds of silence after a sentence and after a paragraph, at speaking rate 1."""

LEVEL_DB = -20.0
"""Root mean square of every sentence in dB of full scale, as other text to speech has it."""


@dataclass(frozen=True)
class Sentence:
    """A sentence, or a part of a long one, its `phonemes`, and the seconds of silence after it."""

    text: str
    phonemes: tuple[str, ...]
    pause: float

    def read_by(self, acoustic: TextToMel) -> Sequence[str]:
        """What an acoustic model takes: phonemes, or letters for one that reads them."""
        return list(normalise(self.text)) if acoustic.reads_text else self.phonemes


class Word(NamedTuple):
    """A word as it is written, and when it is heard, in seconds."""

    word: str
    start: float
    end: float


def sentences(text: str) -> list[Sentence]:
    """The sentences of a text of any length, with their phonemes. Empty lines separate paragraphs;
    sentences without a letter or digit (a row of asterisks) are left out.

    Raises:
        TextError: nothing to say at all, or something that cannot be read; the message names it.
    """
    script: list[Sentence] = []
    for paragraph in PARAGRAPHS.split(text):
        if breaths := [Sentence(*breath, SENTENCE_PAUSE) for breath in _breaths(paragraph)]:
            script += [*breaths[:-1], replace(breaths[-1], pause=PARAGRAPH_PAUSE)]
    if not script:
        raise TextError("there is no text to read: give at least one word")
    return [*script[:-1], replace(script[-1], pause=0.0)]


def phoneme_sentences(text: str) -> list[Sentence]:
    """Sentences of phonemes as `phonemes` gives them, separated by spaces, a sentence on each line.

    An underscore stands between words: ``h ə l ˈoʊ _ b ˈɑ b .``

    Raises:
        TextError: there are none.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise TextError("there are no phonemes to say: give at least one")
    sounds = [tuple(s.replace("_", WORD_BOUNDARY) for s in line.split()) for line in lines]
    pauses = [SENTENCE_PAUSE] * (len(lines) - 1) + [0.0]
    return list(map(Sentence, lines, sounds, pauses))


def _breaths(
    paragraph: str, max_characters: int = MAX_SENTENCE
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Sentences with their phonemes, at most `LONGEST_TEXT`: digits stand for many."""
    for sentence in split_sentences(paragraph, max_characters):
        if not any(character.isalnum() for character in sentence):
            continue
        sounds = tuple(phonemes(sentence))
        if len(sounds) > LONGEST_TEXT and max_characters > 1:
            yield from _breaths(sentence, max_characters // 2)
        else:
            yield sentence, sounds


def speak(
    script: Iterable[Sentence],
    acoustic: TextToMel,
    vocoder: Vocoder,
    *,
    voice: str | None = None,
    speaking_rate: float = 1.0,
    pitch: float = 0.0,
    temperature: float | None = None,
    seed: int = 0,
    refine: Refine | None = None,
    restore: float | None = None,
    words: list[Word] | None = None,
) -> Iterator[Audio]:
    """The audio of each sentence in turn, followed by its pause.

    Silence at the ends of the generated audio is cut off, and every sentence has the level
    `LEVEL_DB`, or less where its peaks would exceed 0.95. A sentence sounds the same wherever it
    stands: its audio is a function of its phonemes, the seed and the other arguments.

    Args:
        script: from `sentences`.
        acoustic: phonemes, or letters, to log-mel.
        vocoder: log-mel to audio; of the same `MelSpec`.
        voice: one of `AcousticModel.voices`; None takes the first.
        speaking_rate: 2 is twice as fast, 0.5 half as fast, pauses included; 0.25 to 4.
        pitch: semitones higher, or lower if negative; -12 to 12.
        temperature: scale of the vocoder's latent noise, as in `Vocoder.synthesize`.
        seed: of the noise.
        refine, restore: as in `Vocoder.synthesize`.
        words: a list to which the words of each sentence are added once its audio is made.

    Yields:
        (samples,), float32, in [-1, 1], at `vocoder.sample_rate`.

    Raises:
        ValueError: an argument is out of range, or the models have different mel conventions;
            raised by the call itself, before the first sentence is asked for.
    """
    # They load PyTorch, which `sentences` does not need.
    from vocoder.audio import check_refine, check_temperature
    from vocoder.audio.validation import limited

    if temperature is not None:
        check_temperature(temperature)
    acoustic.check(voice, speaking_rate, pitch)
    if refine is not None:
        check_refine(refine)
    if seed < 0:
        raise ValueError(f"seed is {seed}: it must be a non-negative integer")
    spec, sample_rate = acoustic.mel_spec, vocoder.sample_rate
    if spec != vocoder.mel_spec:
        raise ValueError(
            f"the acoustic model makes mels of {spec} and the vocoder takes {vocoder.mel_spec}: "
            "give two models that were trained with the same mel_spec"
        )

    def pieces() -> Iterator[Audio]:
        samples = 0
        for sentence in script:
            symbols, durations = sentence.read_by(acoustic), None
            if words is not None:
                durations = acoustic.durations(symbols, voice, speaking_rate)
            mel = acoustic.synthesize(symbols, voice, speaking_rate, pitch, durations)
            # An untrained model's mels leave the range of recordings, which vocoders refuse.
            mel = limited(mel.clamp(spec.log_floor, spec.log_ceiling), spec)
            made = vocoder.synthesize(mel, temperature, seed, refine=refine, restore=restore)
            kept, first = _trimmed(made.cpu().numpy(), sample_rate)
            if words is not None and durations is not None:
                ends = durations.reshape(-1, acoustic.states).sum(1).cumsum(0).numpy()
                bounds = np.clip(ends * spec.hop_length - first, 0, len(kept)) + samples
                words.extend(_words(sentence, bounds / sample_rate))
            pause = round(sentence.pause / speaking_rate * sample_rate)
            samples += len(kept) + pause
            yield np.pad(_levelled(kept), (0, pause))

    return pieces()


def _words(sentence: Sentence, bounds: npt.NDArray[np.float64]) -> Iterator[Word]:
    """The words of a sentence, given the ends of its symbols, after that of the silence before.

    As they are written, if each by itself has as many spoken words as in the sentence; else as they
    are spoken ("$3.50" is five), or, where even these differ, as phonemes.
    """
    between = (WORD_BOUNDARY, *PUNCTUATION)
    runs, at = [], 0
    for pause, run in groupby(sentence.phonemes, lambda symbol: symbol in between):
        symbols = list(run)
        if not pause:
            runs.append(("".join(symbols), bounds[at], bounds[at + len(symbols)]))
        at += len(symbols)

    def spoken(word: str) -> int:
        try:
            return sum(not p for p, _ in groupby(phonemes(word), lambda symbol: symbol in between))
        except TextError:
            return 0

    for text in (lambda: sentence.text, lambda: normalise(sentence.text)):
        counts = [(word, spoken(word)) for word in text().split()]
        if sum(count for _, count in counts) == len(runs):
            ends = np.cumsum([count for _, count in counts])
            for (word, count), end in zip(counts, ends, strict=True):
                if count:
                    yield Word(word, float(runs[end - count][1]), float(runs[end - 1][2]))
            return
    yield from (Word(word, float(start), float(end)) for word, start, end in runs)


def _trimmed(audio: Audio, sample_rate: int) -> tuple[Audio, int]:
    """Audio without the silence at its ends (50 dB below the loudest 10 ms), faded in and out; the
    place of its first sample. (Importing `librosa.effects.trim` takes seconds.)"""
    block = round(0.01 * sample_rate)
    blocks = np.pad(audio, (0, -len(audio) % block)).reshape(-1, block)
    power = np.square(blocks, dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 1e-5)
    if not len(loud):
        return audio, 0
    first = int(max(loud[0] - 1, 0)) * block
    kept = audio[first : (loud[-1] + 2) * block].copy()
    ramp = np.linspace(0, 1, round(0.005 * sample_rate), dtype=np.float32)
    kept[: len(ramp)] *= ramp
    kept[-len(ramp) :] *= ramp[::-1]
    return kept, first


def _levelled(audio: Audio) -> Audio:
    """Audio at `LEVEL_DB`; silence stays silence."""
    rms = math.sqrt(float(np.square(audio, dtype=np.float64).mean())) if len(audio) else 0.0
    if rms < 1e-4:
        return audio
    peak = float(np.abs(audio).max())
    return audio * np.float32(min(10 ** (LEVEL_DB / 20) / rms, 0.95 / peak))
