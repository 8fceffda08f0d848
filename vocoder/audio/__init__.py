"""Sound, no models: audio files, `MelSpec`, the log-mel transform, and the check of a mel."""

from vocoder.audio.fades import fade
from vocoder.audio.files import AudioWriter, read_audio, write_audio
from vocoder.audio.log_mel import LogMel
from vocoder.audio.mel_spec import PRESETS, MelSpec
from vocoder.audio.validation import MelError, check_mel

__all__ = [
    "PRESETS",
    "AudioWriter",
    "LogMel",
    "MelError",
    "MelSpec",
    "check_mel",
    "fade",
    "read_audio",
    "write_audio",
]
