"""flow-vocoder: log-mel spectrograms to speech by a normalizing flow, in one parallel pass.

>>> import vocoder
>>> model = vocoder.load("runs/my-voice/model")  # doctest: +SKIP
>>> audio = model.synthesize(mel)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

# Name -> the module that defines it. Resolved on first use, because importing torch takes seconds
# and `vocoder --help` does not need it.
_HOMES = {
    "CheckpointError": "vocoder.checkpoints",
    "MelError": "vocoder.audio",
    "MelSpec": "vocoder.audio",
    "TextError": "vocoder.text.frontend",
    "Vocoder": "vocoder.models",
    "convert_mel": "vocoder.audio",
    "load": "vocoder.pretrained",
    "load_acoustic": "vocoder.pretrained",
    "load_published_waveglow": "vocoder.models",
    "read_audio": "vocoder.audio",
    "refine_audio": "vocoder.audio",
    "say": "vocoder.pretrained",
    "synthesize": "vocoder.pretrained",
    "write_audio": "vocoder.audio",
}

if TYPE_CHECKING:
    from vocoder.audio import MelError, MelSpec, convert_mel, read_audio, refine_audio, write_audio
    from vocoder.checkpoints import CheckpointError
    from vocoder.models import Vocoder, load_published_waveglow
    from vocoder.pretrained import load, load_acoustic, say, synthesize
    from vocoder.text.frontend import TextError

__all__ = [
    "CheckpointError", "MelError", "MelSpec", "TextError", "Vocoder", "__version__", "convert_mel",
    "load", "load_acoustic", "load_published_waveglow", "read_audio", "refine_audio", "say",
    "synthesize", "write_audio",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vocoder' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
