"""A checkpoint on disk: a directory with ``model.safetensors`` and ``config.json``, no pickle.

This module handles files, tensors and JSON, whatever the model: `vocoder.models.load_checkpoint`
builds one from them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from vocoder.atomic import write_atomic

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
FORMAT_VERSION = 1

_PICKLE_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".tar"}


class CheckpointError(ValueError):
    """A checkpoint cannot be read or written; the message says why and what to do."""


def write_checkpoint(
    directory: str | os.PathLike[str], config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write ``config`` and ``tensors`` into ``directory``, which is created if missing.

    Each file is replaced atomically, weights first: an interrupted write leaves the previous one.

    Returns:
        The directory.

    Raises:
        CheckpointError: ``directory`` is a file, or has a file's suffix (such as ``.safetensors``).
    """
    directory = Path(directory)
    if directory.is_file() or directory.suffix in _PICKLE_SUFFIXES | {".safetensors"}:
        raise CheckpointError(
            f"a checkpoint is a directory ({WEIGHTS_NAME} and {CONFIG_NAME}), and {directory} "
            "names a file: give the name of a directory"
        )
    directory.mkdir(parents=True, exist_ok=True)
    # safetensors refuses tensors that share storage, and views.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2, ensure_ascii=False)
    write_atomic(directory / WEIGHTS_NAME, safetensors.torch.save(plain, metadata={"format": "pt"}))
    write_atomic(directory / CONFIG_NAME, (text + "\n").encode())
    return directory


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read ``(config, tensors)`` from a checkpoint directory or from the weights file in one.

    Raises:
        CheckpointError: the path does not exist or is not a checkpoint, a file is pickled or
            damaged, or the format has another version.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}: check the name")
    if path.is_file() and path.suffix in _PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path} is a pickled file, which could run code when loaded, so it is not opened: "
            f"give the directory with {WEIGHTS_NAME} and {CONFIG_NAME} that a training run writes "
            "(for weights of the published WaveGlow see vocoder.load_published_waveglow)"
        )
    directory = path if path.is_dir() else path.parent
    weights = path if path.is_file() and path.name != CONFIG_NAME else directory / WEIGHTS_NAME
    config_path = directory / CONFIG_NAME
    for needed in (config_path, weights):
        if not needed.is_file():
            raise CheckpointError(
                f"{directory} is not a checkpoint: it has no {needed.name}, and a checkpoint is a "
                f"directory with {WEIGHTS_NAME} and {CONFIG_NAME}"
            )
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{config_path} is not valid JSON: {error}") from error
    version = config.pop("format_version", None) if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{config_path} has format_version {version!r} and this package reads "
            f"{FORMAT_VERSION}: upgrade flow-vocoder, or use a checkpoint that it wrote"
        )
    try:
        tensors = safetensors.torch.load_file(weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{weights} is damaged or not a safetensors file ({error}): copy it again"
        ) from error
    _check_sizes(config.get("config"), tensors, config_path)
    return config, tensors


def _check_sizes(arguments: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse sizes that the weights cannot have, before a model of them fills the memory.

    A size is a dimension of some tensor, or a number of layers, each with tensors of its own.

    Raises:
        CheckpointError: a number in the config is larger than either, and than any other setting.
    """
    if not isinstance(arguments, Mapping):
        return
    most = max([4096, len(tensors), *(size for value in tensors.values() for size in value.shape)])
    for name, value in arguments.items():
        if name == "mel_spec":  # has limits of its own
            continue
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, int) and abs(number) > most for number in numbers):
            raise CheckpointError(
                f"{path} has {name} {value!r}, which does not fit its weights: copy it again"
            )
