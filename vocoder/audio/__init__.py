"""Sound without models: audio files, 16-bit samples, `MelSpec`, log-mels and checks."""

import warnings
from typing import Any

from vocoder.audio.conversion import convert_mel
from vocoder.audio.log_mel import LogMel
from vocoder.audio.mel_spec import PRESETS, MelSpec
from vocoder.audio.pcm import dequantise, fade, from_pcm16, to_pcm16
from vocoder.audio.reading import AudioReader, read_audio
from vocoder.audio.refinement import (
    MelGriffinLim,
    Refine,
    check_refine,
    mel_distance,
    refine_audio,
    refine_mel,
)
from vocoder.audio.validation import MelError, check_mel, check_temperature
from vocoder.audio.writing import AudioStream, AudioWriter, write_audio

__all__ = [
    "PRESETS", "AudioReader", "AudioStream", "AudioWriter", "LogMel", "MelError", "MelGriffinLim",
    "MelSpec", "Refine", "check_mel", "check_refine", "check_temperature", "convert_mel",
    "dequantise", "fade", "from_pcm16", "mel_distance", "read_audio", "refine_audio", "refine_mel",
    "to_pcm16", "write_audio",
]  # fmt: skip

_FORMER = {"MelConsistency": MelGriffinLim, "WavStream": AudioStream}


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        now = _FORMER[name]
        warnings.warn(f"{name} is now {now.__name__}", DeprecationWarning, stacklevel=2)
        return now
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
