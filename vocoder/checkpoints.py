"""A checkpoint on disk: a directory with ``model.safetensors`` and ``config.json``, no pickle."""

from __future__ import annotations

import hashlib
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
    """Write ``config`` and ``tensors`` into ``directory``, which is created if missing; returns it.

    Each file is replaced atomically, weights first: an interrupted write leaves the previous one.
    CheckpointError if ``directory`` is a file, or has a file's suffix (such as ``.safetensors``).
    """
    directory = Path(directory)
    if directory.is_file() or directory.suffix in _PICKLE_SUFFIXES | {".safetensors"}:
        raise CheckpointError(
            f"{directory} names a file, not a checkpoint: give the name of a directory"
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

    CheckpointError if it is not there, pickled, damaged, or in the format of another version.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}: check the name")
    if path.is_file() and path.suffix in _PICKLE_SUFFIXES:
        raise CheckpointError(
            f"{path} is a pickled file, which could run code when loaded, so it is not opened: "
            f"give a directory with {WEIGHTS_NAME} and {CONFIG_NAME} (for weights of the published "
            "WaveGlow see vocoder.load_published_waveglow)"
        )
    config_path, weights = _parts(path)
    for needed in (config_path, weights):
        if not needed.is_file():
            raise CheckpointError(f"{needed.parent} is not a checkpoint: it has no {needed.name}")
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{config_path} is not valid JSON: {error}") from error
    version = config.pop("format_version", None) if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{config_path} has format_version {version!r} and this package reads "
            f"{FORMAT_VERSION}: upgrade flow-vocoder, or use a checkpoint that it wrote"
        )
    try:
        return config, safetensors.torch.load_file(weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{weights} is damaged or not a safetensors file ({error}): copy it again"
        ) from error


def _parts(path: Path) -> tuple[Path, Path]:
    """Config and weights of the checkpoint that a path to the directory or a file in it names."""
    directory = path if path.is_dir() else path.parent
    named = path.is_file() and path.name != CONFIG_NAME
    return directory / CONFIG_NAME, path if named else directory / WEIGHTS_NAME


def checkpoint_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256, in hexadecimal, of the config and weights of a checkpoint directory, or of the
    weights file in one. Other weights files of the directory do not count.
    """
    digest = hashlib.sha256()
    for part in _parts(Path(path)):
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
