"""Models by name: bundled, on disk or on the Hub, and the defaults of `synthesize` and `say`."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from vocoder import models
from vocoder.checkpoints import CheckpointError
from vocoder.devices import device_named
from vocoder.hub import PREFIX, download
from vocoder.models import Vocoder
from vocoder.models.base import Array
from vocoder.models.restoration import Restoration
from vocoder.models.restoration import load_checkpoint as load_restoration

if TYPE_CHECKING:
    from vocoder.audio import Refine
    from vocoder.text.acoustic import AcousticModel
    from vocoder.text.speech import TextToMel

Name = str | os.PathLike[str]
DEFAULT_NAME, ACOUSTIC_NAME, RESTORATION_NAME = "default", "acoustic", "restoration"


def load(
    name: Name | None = None, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Vocoder:
    """A trained vocoder, ready to run: in evaluation mode, weight norms fused, weights frozen.

    To train it further, use `vocoder.models.load_checkpoint`, or a recipe with ``--start_from``.

    Args:
        name: a checkpoint directory, or the weights file in one; the name of a bundled model;
            ``hf:owner/name[@revision]`` for a model on the Hugging Face Hub, which is downloaded
            once; None for the bundled default.
        dtype: type that audio is computed in on a CPU: `torch.float32`, or `torch.bfloat16`, which
            is faster on processors that support it (see `FlowVocoder.fused`).
        device: "cpu", "cuda", "cuda:1" and so on, or "auto" for CUDA if there is one.

    Raises:
        CheckpointError: there is no such model, or not one that this version reads.
        ValueError: the model cannot compute in this type, or there is no such device.
    """
    target = device_named(device)
    model = models.load_checkpoint(find_model(name)).fused(dtype).to(target)
    restoration = _restoration()
    if restoration is not None and restoration.mel_spec == model.mel_spec:
        model.restored_by(copy.deepcopy(restoration).to(target))
    return model.requires_grad_(False)  # `fused` does not freeze a model with nothing to fuse


def find_model(name: Name | None = None, default: str = DEFAULT_NAME) -> Path:
    """The checkpoint that `load` reads for a name: a directory, or the weights file in one."""
    wanted = default if name is None else os.fspath(name)
    if name is not None and Path(wanted).exists():
        return Path(wanted)
    if wanted.startswith(PREFIX):
        return download(wanted)
    if "/" in wanted or Path(wanted).suffix:
        raise CheckpointError(
            f"there is no checkpoint at {name}: check the name (hf:OWNER/NAME is on the Hub)"
        )
    kind, script = "model", "train.py --data sample"
    known = set(bundled_models()) - {RESTORATION_NAME, ACOUSTIC_NAME}
    if default == ACOUSTIC_NAME:
        kind, script = "acoustic model", "train_acoustic.py"
        known = set(bundled_models()) & {ACOUSTIC_NAME}
    if wanted in known:
        return bundled_models()[wanted]
    raise CheckpointError(
        f"there is no {kind} {wanted!r} (the bundled models are {', '.join(sorted(known))}): "
        f"train one (python recipes/ljspeech/{script}) and name what it writes, runs/NAME/model"
    )


def load_acoustic(name: Name | None = None, device: str | torch.device = "cpu") -> AcousticModel:
    """A trained acoustic model (phonemes to log-mel), ready to run; otherwise as `load`."""
    from vocoder.text.acoustic import load_checkpoint

    return load_checkpoint(find_model(name, ACOUSTIC_NAME)).fused().to(device_named(device))


def load_text_to_mel(name: Name | None = None, device: str | torch.device = "cpu") -> TextToMel:
    """As `load_acoustic`, with "tacotron2" for torchaudio's Tacotron 2, which is downloaded."""
    if name == "tacotron2" and not Path(name).exists():
        from vocoder.text.tacotron2 import Tacotron2

        return Tacotron2().to(device_named(device))
    return load_acoustic(name, device)


def bundled_models() -> dict[str, Path]:
    """The models that ship inside the package: name -> checkpoint directory."""
    weights = Path(str(resources.files("vocoder"))) / "weights"
    return {path.parent.name: path.parent for path in sorted(weights.glob("*/config.json"))}


def synthesize(
    mel: Array,
    temperature: float | None = None,
    seed: int | Sequence[int] | None = 0,
    lengths: Sequence[int] | None = None,
    refine: Refine | None = None,
    restore: float | None = None,
) -> Array:
    """`Vocoder.synthesize` of the bundled default, which is loaded on the first call and kept."""
    return _default().synthesize(mel, temperature, seed, lengths, refine, restore)


def say(
    text: str,
    temperature: float | None = None,
    *,
    voice: str | None = None,
    speaking_rate: float = 1.0,
    pitch: float = 0.0,
    seed: int = 0,
    acoustic: TextToMel | None = None,
    vocoder: Vocoder | None = None,
    refine: Refine | None = None,
    restore: float | None = None,
) -> npt.NDArray[np.float32]:
    """English text read aloud, sentence by sentence, with pauses between. The models are loaded on
    the first call and kept.

    Args:
        text: English; empty lines separate paragraphs.
        temperature, seed, refine, restore: as in `Vocoder.synthesize`.
        voice: of the acoustic model's; None for its first.
        speaking_rate: 2 is twice as fast, 0.5 half as fast; 0.25 to 4.
        pitch: semitones higher, or lower if negative; -12 to 12.
        acoustic, vocoder: models with the same `MelSpec`; None for the bundled defaults.

    Returns:
        (samples,), float32, in [-1, 1], at ``vocoder.sample_rate`` (22,050 Hz for the default).

    Raises:
        TextError: there is nothing to say, or something that cannot be read.
        ValueError: an argument is out of range, or the models' mel conventions differ.
    """
    from vocoder.text.speech import sentences, speak

    pieces = speak(
        sentences(text), acoustic or _default_acoustic(), vocoder or _default(), voice=voice,
        speaking_rate=speaking_rate, pitch=pitch, temperature=temperature, seed=seed,
        refine=refine, restore=restore,
    )  # fmt: skip
    return np.concatenate(list(pieces))


@functools.cache
def _restoration() -> Restoration | None:
    path = bundled_models().get(RESTORATION_NAME)
    return None if path is None else load_restoration(path).fused()


_default = functools.cache(load)
_default_acoustic = functools.cache(load_acoustic)
