"""Sound without models: audio files, 16-bit samples, `MelSpec`, log-mels, checks, noise."""

import warnings
from typing import Any

from vocoder.audio.conversion import convert_mel, mel_from_linear
from vocoder.audio.log_mel import LogMel
from vocoder.audio.mel_spec import PRESETS, MelSpec
from vocoder.audio.noise import BatchNoise, Noise, check_temperature
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
from vocoder.audio.validation import MelError, check_mel
from vocoder.audio.writing import AudioWriter, WavStream, write_audio

__all__ = [
    "PRESETS", "AudioReader", "AudioWriter", "BatchNoise", "LogMel", "MelError", "MelGriffinLim",
    "MelSpec", "Noise", "Refine", "WavStream", "check_mel", "check_refine", "check_temperature",
    "convert_mel", "dequantise", "fade", "from_pcm16", "mel_distance", "mel_from_linear",
    "read_audio", "refine_audio", "refine_mel", "to_pcm16", "write_audio",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "MelConsistency":
        warnings.warn("MelConsistency is now MelGriffinLim", DeprecationWarning, stacklevel=2)
        return MelGriffinLim
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
