"""Optional packages: imported on use, and named with the extra that installs them if missing."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtraError(ImportError):
    """A package of an extra is not installed; the message says how to install it."""


def require(module: str, purpose: str, extra: str) -> Any:
    """The module of that name, imported now.

    Args:
        module: name to import.
        purpose: what needs it, the subject of the message's sentence.
        extra: the extra of flow-vocoder that installs it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{purpose} needs the package {error.name}, which is not installed: "
            f'pip install "flow-vocoder[{extra}]"'
        ) from error
