"""A checkpoint on disk: a directory with ``model.safetensors`` and ``config.json``, no pickle."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor
from torch.overrides import TorchFunctionMode

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
            f"give a directory with {WEIGHTS_NAME} and {CONFIG_NAME} (for weights of the published "
            "WaveGlow see vocoder.load_published_waveglow)"
        )
    config_path, weights = _parts(path)
    for needed in (config_path, weights):
        if not needed.is_file():
            raise CheckpointError(f"{needed.parent} is not a checkpoint: it has no {needed.name}")
    try:
        if config_path.stat().st_size > _LONGEST_CONFIG:
            raise ValueError("it is too long")
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
        if str(weights).isprintable():
            tensors = safetensors.torch.load_file(weights)
        else:  # safetensors opens no names that are not UTF-8
            tensors = safetensors.torch.load(weights.read_bytes())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{weights} is damaged or not a safetensors file ({error}): copy it again"
        ) from error
    return config, tensors


def _parts(path: Path) -> tuple[Path, Path]:
    """Config and weights of the checkpoint that a path to the directory or a file in it names."""
    directory = path if path.is_dir() else path.parent
    named = path.is_file() and path.name != CONFIG_NAME
    return directory / CONFIG_NAME, path if named else directory / WEIGHTS_NAME


def checkpoint_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256, in hexadecimal, of the config and weights of a checkpoint: a directory, or the
    weights file in one. Other weights files of the directory do not count.

    Raises:
        OSError: a file is not there, or cannot be read.
    """
    digest = hashlib.sha256()
    for part in _parts(Path(path)):
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


_SLACK = 4  # a layer may hold its weights twice while it is built
_SPARE_NUMBERS = 1 << 24  # of what a model keeps besides its weights: windows, filter banks, masks
_LONGEST_CONFIG = 1 << 24  # characters
# Functions of PyTorch that make tensors, and take a shape as numbers one by one.
_TAKE_A_SHAPE = {
    "empty", "zeros", "ones", "rand", "randn", "new_empty", "new_zeros", "new_ones",
    "eye", "repeat", "expand",
}  # fmt: skip
# What fills initial weights, which the checkpoint's replace.
_RANDOM = {"uniform_", "normal_", "kaiming_uniform_", "xavier_uniform_"}


@contextmanager
def no_larger_than(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> Iterator[None]:
    """Within the block, refuse to build a model that is much larger than the checkpoint's tensors.

    The sizes in a config are only numbers: a forged one could ask for any amount of memory. A
    model may have a few times as many parameters, and tensors as large, as the weights of the
    checkpoint at `path`; what goes beyond is refused with a CheckpointError before it is allocated.
    Weights are not drawn at random in the block, since the checkpoint's replace them: that takes as
    long as loading.
    """
    numbers = _SLACK * sum(value.numel() for value in tensors.values()) + _SPARE_NUMBERS
    names = _SLACK * len(tensors) + 100
    too_large = CheckpointError(
        f"the weights in {path} do not fit their config, which is of a larger model"
    )
    # A size is a dimension of some tensor, or a number of layers.
    dimensions = [n for value in tensors.values() for n in value.shape]
    largest = max([_SLACK * n for n in dimensions] + [names, 1 << 12])
    sizes = [value for name, value in config.items() if name != "mel_spec"]
    if any(isinstance(n, int | float) and abs(n) > largest for n in sizes):
        raise too_large

    # Not a `TorchDispatchMode`, for which PyTorch imports its compiler: seconds, and 120 MB.
    class Allocations(TorchFunctionMode):
        made = held = 0  # parameters, which all begin as `torch.empty`, and their numbers

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            name = getattr(func, "__name__", "")
            if name in _RANDOM:
                return args[0] if args else kwargs["tensor"]
            shapes = [v for v in (*args, *kwargs.values()) if isinstance(v, list | tuple)]
            if name in _TAKE_A_SHAPE:
                shapes.append([n for n in args if type(n) is int])
            sizes = [math.prod(map(abs, s)) for s in shapes if all(type(n) is int for n in s)]
            if name == "empty":
                self.made, self.held = self.made + 1, self.held + max(sizes, default=0)
            if self.made > names or max([self.held, *sizes]) > numbers:
                raise too_large
            return func(*args, **kwargs)

    try:
        with Allocations():
            yield
    except (RuntimeError, ArithmeticError, MemoryError, AttributeError, LookupError) as error:
        raise CheckpointError(
            f"no model can be built from the config of {path}: {error}"
        ) from error
