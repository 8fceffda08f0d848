"""Sound without models: audio files, 16-bit samples, `MelSpec`, log-mels and checks."""

from vocoder.audio.conversion import convert_mel
from vocoder.audio.log_mel import LogMel
from vocoder.audio.mel_spec import PRESETS, MelSpec
from vocoder.audio.pcm import dequantise, fade, from_pcm16, to_pcm16
from vocoder.audio.reading import AudioReader, read_audio
from vocoder.audio.refinement import MelGriffinLim, Refine, check_refine, mel_distance, refine_audio
from vocoder.audio.validation import MelError, check_mel, check_temperature
from vocoder.audio.writing import AudioStream, AudioWriter, write_audio

__all__ = [
    "PRESETS", "AudioReader", "AudioStream", "AudioWriter", "LogMel", "MelError", "MelGriffinLim",
    "MelSpec", "Refine", "check_mel", "check_refine", "check_temperature", "convert_mel",
    "dequantise", "fade", "from_pcm16", "mel_distance", "read_audio", "refine_audio", "to_pcm16",
    "write_audio",
]  # fmt: skip
