"""Models by name: the bundled ones and those on disk, and the default that `synthesize` uses."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from vocoder.checkpoints import CheckpointError
from vocoder.models import Vocoder, load_checkpoint
from vocoder.models.base import Array

DEFAULT_NAME = "default"
"""The bundled model that `load` gives without a name."""

_HOW_TO_GET_ONE = (
    "train one (python recipes/ljspeech/train.py --data sample, or --data DIR for your own speech) "
    "and name the checkpoint it writes: vocoder.load('runs/NAME/model'), or --checkpoint "
    "runs/NAME/model on the command line"
)


def load(name: str | os.PathLike[str] | None = None) -> Vocoder:
    """A trained vocoder, ready to run: in evaluation mode, on the CPU, weight norms fused.

    To train it further, start a recipe from it (``--start_from``) or use
    `vocoder.models.load_checkpoint`, which keeps the weights as they were trained.

    Args:
        name: None for the bundled default; else the name of a bundled model, a checkpoint
            directory (``model.safetensors`` and ``config.json``), or the weights file in one. A
            path wins over a bundled name.

    Raises:
        CheckpointError: there is no such model, and how to get one; or the files are not a
            checkpoint that this version reads. Pickled files are never opened.
    """
    if name is not None and (Path(name).exists() or _looks_like_path(name)):
        return load_checkpoint(name).fused()
    wanted = DEFAULT_NAME if name is None else str(name)
    bundled = bundled_models()
    if wanted not in bundled:
        have = f"the bundled models are {', '.join(bundled)}" if bundled else "none is bundled yet"
        which = "no default model" if name is None else f"no model {wanted!r}"
        raise CheckpointError(f"there is {which} ({have}): {_HOW_TO_GET_ONE}")
    return load_checkpoint(bundled[wanted]).fused()


def bundled_models() -> dict[str, Path]:
    """The models that ship inside the package: name -> checkpoint directory."""
    weights = Path(str(resources.files("vocoder"))) / "weights"
    if not weights.is_dir():
        return {}
    return {path.name: path for path in sorted(weights.iterdir()) if path.is_dir()}


def synthesize(
    mel: Array,
    temperature: float = 0.667,
    seed: int | None = 0,
    lengths: Sequence[int] | None = None,
) -> Array:
    """Audio from a log-mel spectrogram by the bundled default; see `Vocoder.synthesize`.

    The model is loaded on the first call and kept.

    Raises:
        CheckpointError: no default model is bundled; the message says how to train one.
    """
    return _default().synthesize(mel, temperature, seed, lengths)


@functools.cache
def _default() -> Vocoder:
    return load()


def _looks_like_path(name: str | os.PathLike[str]) -> bool:
    """A name with a separator or a suffix is meant as a path, so errors should speak of paths."""
    text = os.fspath(name)
    return os.sep in text or "/" in text or Path(text).suffix != ""
