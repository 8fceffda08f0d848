"""Packages that are imported on use, and what to install where that fails."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any


class MissingExtraError(ImportError):
    """A package of an extra is not installed; the message says how to install it."""


def require(module: str, purpose: str, extra: str) -> Any:
    """The module of that name; MissingExtraError that says that `purpose` needs the `extra`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{purpose} needs the package {error.name}, which is not installed: "
            f'pip install "flow-vocoder[{extra}]"'
        ) from error


def torchaudio() -> Any:
    """The module torchaudio; ImportError that names the version that fits torch, if none does."""
    try:
        return importlib.import_module("torchaudio")
    # A missing symbol is an OSError, another CUDA a RuntimeError, a missing operator either.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        torch = metadata.version("torch")
        raise ImportError(
            f"torchaudio does not load with torch {torch}: from the index that torch is from, "
            f'pip install "torchaudio=={fitting_torchaudio(torch)}"'
        ) from error


def fitting_torchaudio(torch: str) -> str:
    """The torchaudio for a torch: up to 2.11 of the same number, 2.11.1 for all later ones."""
    release = torch.partition("+")[0]
    major, minor = (int(number) for number in release.split(".")[:2])
    return release if (major, minor) <= (2, 11) else "2.11.1"
