"""Word error rate: whether an offline recogniser understands what a model says.

`recognise` and `word_error_rate` are the measure. `evaluate_speech` applies them to the held-out
sentences of a corpus, synthesised and recorded; `.tables` shows its result.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio import read_audio, to_pcm16
from vocoder.corpus import CorpusError, Utterance, held_out, read_corpus
from vocoder.extras import require
from vocoder.text.frontend import TextError, normalise, phonemes
from vocoder.text.speech import ACOUSTIC_TEMPERATURE, sentences, speak

from .estimates import CONFIDENCE, estimate_rate
from .recordings import EvaluationError
from .results import Progress, Result, machine_facts

if TYPE_CHECKING:
    from vocoder.models import Vocoder
    from vocoder.text.acoustic import AcousticModel

RECORDING = "recording"
"""Name of the row of the recordings themselves."""

COPY_SYNTHESIS = "copy synthesis"
"""Name of the row of the recordings through the vocoder."""

SAY = "text to speech"
"""Name of the row of the acoustic model and the vocoder."""

# The recogniser's own front end.
_RATE = 16000

# These did best on recordings (docs/text.md). The default language weight, 6.5, trusts the language
# model too much for other kinds of text; cepstral means over a whole utterance ("batch") make the
# result independent of what was recognised before.
_SETTINGS: dict[str, Any] = {"lw": 5.0, "cmn": "batch"}


@dataclass(frozen=True)
class Errors:
    """Differences between a hypothesis and its reference, in whole words."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    """Words of the reference."""

    @property
    def total(self) -> int:
        return self.substitutions + self.deletions + self.insertions


def spoken_words(text: str) -> list[str]:
    """The words of a text as they are spoken, in lower case: what error rates count.

    Numbers and abbreviations are written out (`vocoder.text.frontend.normalise`), hyphens separate
    words, punctuation is dropped, apostrophes within words are kept.
    """
    spoken = normalise(text).lower().replace("’", "'") if text.strip() else ""
    spoken = re.sub(r"[^\w\s']|_", " ", spoken.replace(".", ""))
    return [word for word in (word.strip("'") for word in spoken.split()) if word]


def word_errors(reference: str, hypothesis: str) -> Errors:
    """The errors of the best alignment of two texts; both become `spoken_words` first.

    Raises:
        ValueError: the reference has no words.
        MissingExtraError: jiwer is not installed (extra ``metrics``).
    """
    jiwer = require("jiwer", "the word error rate", "metrics")
    words = spoken_words(reference)
    if not words:
        raise ValueError(f"there are no words in the reference {reference!r}")
    heard = " ".join(spoken_words(hypothesis))
    found = jiwer.process_words(" ".join(words), heard)
    return Errors(found.substitutions, found.deletions, found.insertions, len(words))


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    r"""Word error rate of recognised texts; 0 is best, and it can exceed 1.

    .. math:: \mathrm{WER} = \frac{\sum_i S_i + D_i + I_i}{\sum_i N_i}

    with S words substituted, D deleted and I inserted of the N words of text i.

    Raises:
        ValueError: not as many hypotheses as references, none at all, or a reference without words.
        MissingExtraError: jiwer is not installed (extra ``metrics``).
    """
    if not references or len(references) != len(hypotheses):
        raise ValueError(
            f"{len(references)} references and {len(hypotheses)} hypotheses: one hypothesis for "
            "each reference is needed, and at least one"
        )
    errors = [word_errors(r, h) for r, h in zip(references, hypotheses, strict=True)]
    return sum(error.total for error in errors) / sum(error.words for error in errors)


def recognise(audio: Tensor | NDArray[Any], sample_rate: int) -> str:
    """English speech to text by PocketSphinx: words in lower case, without punctuation.

    It uses the acoustic model, dictionary and trigram language model of its package. It is a
    recogniser of the 2000s that makes many errors on recordings too: compare its error rates with
    those of recordings of the same words. The same audio always gives the same words.

    Args:
        audio: (samples,), floating point in [-1, 1]; of one sentence or so.
        sample_rate: in Hz; resampled to 16 kHz.

    Raises:
        ValueError: other shapes, NaN or infinity.
        MissingExtraError: pocketsphinx is not installed (extra ``metrics``).
    """
    if isinstance(audio, Tensor):
        audio = audio.detach().cpu().numpy()
    samples = np.asarray(audio, dtype=np.float32)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise ValueError("speech to recognise is audio (samples,), without NaN or infinity")
    if sample_rate != _RATE:
        samples = soxr.resample(samples, sample_rate, _RATE, quality="HQ")
    decoder = _decoder()
    decoder.start_utt()
    decoder.process_raw(to_pcm16(samples).tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    # "read(2)" is the second pronunciation of "read".
    return "" if hypothesis is None else re.sub(r"\(\d+\)", "", hypothesis.hypstr)


@functools.lru_cache(maxsize=1)
def _decoder() -> Any:
    pocketsphinx = require("pocketsphinx", "recognising speech", "metrics")
    config = pocketsphinx.Config(loglevel="FATAL", samprate=float(_RATE), **_SETTINGS)
    return pocketsphinx.Decoder(config)


def unseen_sentences(
    directory: str | os.PathLike[str], limit: int = 50, prefix: str = ""
) -> list[Utterance]:
    """Up to `limit` utterances that no recipe trains on: test, then validation, in corpus order.

    Utterances whose text the frontend refuses are left out.

    Args:
        directory: a corpus in LJSpeech's layout.
        limit: how many at most.
        prefix: only utterances whose id begins with it, such as one voice of several.

    Raises:
        EvaluationError: no such corpus, or no such utterance in it.
    """
    folder = Path(directory)
    try:
        sets = held_out(folder)
        by_id = {utterance.id: utterance for utterance in read_corpus(folder).utterances}
    except CorpusError as error:
        raise EvaluationError(str(error)) from error
    found: list[Utterance] = []
    for id in (*sets.test, *sets.validation):
        if id.startswith(prefix) and len(found) < limit:
            try:
                phonemes(by_id[id].normalised)
            except TextError:
                continue
            found.append(by_id[id])
    if not found:
        voice = f" with an id that begins with {prefix!r}" if prefix else ""
        raise EvaluationError(
            f"{directory} holds no English utterance{voice} that is held out from training"
        )
    return found


def evaluate_speech(
    acoustic: AcousticModel,
    vocoder: Vocoder,
    directory: str | os.PathLike[str],
    *,
    limit: int = 50,
    prefix: str = "",
    temperature: float | None = None,
    acoustic_temperature: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    r"""Word error rates of text to speech, of the recordings, and of their copy synthesis.

    The same sentences, recogniser and settings for all three rows. Intervals are those of
    `estimate_rate`; in differences the sentences of both rows are drawn together.

    Args:
        acoustic, vocoder: of the same `MelSpec`.
        directory, limit, prefix: see `unseen_sentences`.
        temperature: of the vocoder; None for the default of its family.
        acoustic_temperature, seed: see `vocoder.text.speech.speak`; None for the default.
        progress: called with (steps done, steps in all, what is next).

    Returns:
        JSON values:

        - about: the settings, the recogniser, and the machine;
        - rows: name -> word_error_rate (mean, lower, upper, n sentences), substitutions,
          deletions, insertions, words;
        - differences: name of a row -> the same interval of its difference to the recordings;
        - sentences: id, text, and for each row the recognised words and the errors.

    Raises:
        EvaluationError: nothing to evaluate in that directory.
        ValueError: an argument is out of range.
        MissingExtraError: pocketsphinx or jiwer is not installed.
    """
    if limit < 1:
        raise ValueError(f"the limit is {limit}: take at least 1 sentence")
    if temperature is None:
        temperature = vocoder.default_temperature
    if acoustic_temperature is None:
        acoustic_temperature = ACOUSTIC_TEMPERATURE
    require("pocketsphinx", "recognising speech", "metrics")
    require("jiwer", "the word error rate", "metrics")
    utterances = unseen_sentences(directory, limit, prefix)

    def copy_synthesis(utterance: Utterance) -> tuple[Tensor | NDArray[Any], int]:
        audio, rate = read_audio(utterance.path, vocoder.sample_rate)
        return vocoder.synthesize(vocoder.mel(audio), temperature, seed)[: len(audio)], rate

    def text_to_speech(utterance: Utterance) -> tuple[Tensor | NDArray[Any], int]:
        pieces = speak(
            sentences(utterance.normalised),
            acoustic,
            vocoder,
            temperature=temperature,
            acoustic_temperature=acoustic_temperature,
            seed=seed,
        )
        return np.concatenate(list(pieces)), vocoder.sample_rate

    systems: dict[str, Callable[[Utterance], tuple[Tensor | NDArray[Any], int]]] = {
        RECORDING: lambda utterance: read_audio(utterance.path),
        COPY_SYNTHESIS: copy_synthesis,
        SAY: text_to_speech,
    }
    total = len(utterances) * len(systems)
    heard: list[dict[str, Any]] = []
    errors: dict[str, list[Errors]] = {name: [] for name in systems}
    for index, utterance in enumerate(utterances):
        line: dict[str, Any] = {"id": utterance.id, "text": utterance.normalised}
        for turn, (name, synthesize) in enumerate(systems.items()):
            if progress is not None:
                progress(index * len(systems) + turn, total, f"{utterance.id}: {name}")
            hypothesis = recognise(*synthesize(utterance))
            errors[name].append(word_errors(utterance.normalised, hypothesis))
            line[name] = {"heard": hypothesis, "errors": errors[name][-1].total}
        line["words"] = errors[RECORDING][-1].words
        heard.append(line)
    if progress is not None:
        progress(total, total, "done")
    return {
        "about": {
            "corpus": Path(directory).resolve().name,
            "prefix": prefix,
            "temperature": temperature,
            "acoustic_temperature": acoustic_temperature,
            "seed": seed,
            "recogniser": _recogniser(),
            "confidence": CONFIDENCE,
            "interval": "percentile bootstrap over sentences",
            "machine": machine_facts(vocoder.device),
        },
        "rows": {name: _row(found) for name, found in errors.items()},
        "differences": {
            name: estimate_rate(
                [a.total - b.total for a, b in zip(found, errors[RECORDING], strict=True)],
                [a.words for a in found],
            )
            for name, found in errors.items()
            if name != RECORDING
        },
        "sentences": heard,
    }


def _recogniser() -> dict[str, Any]:
    return {
        "name": "PocketSphinx",
        "version": metadata.version("pocketsphinx"),
        "model": "en-us",
        "settings": _SETTINGS,
    }


def _row(errors: Sequence[Errors]) -> dict[str, Any]:
    return {
        "word_error_rate": estimate_rate([e.total for e in errors], [e.words for e in errors]),
        "substitutions": sum(e.substitutions for e in errors),
        "deletions": sum(e.deletions for e in errors),
        "insertions": sum(e.insertions for e in errors),
        "words": sum(e.words for e in errors),
    }
