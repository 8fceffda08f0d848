"""Checkpoints on the Hugging Face Hub, by names such as ``hf:owner/name@revision``."""

from __future__ import annotations

import re
from pathlib import Path

from vocoder.checkpoints import CONFIG_NAME, WEIGHTS_NAME, CheckpointError
from vocoder.extras import require

PREFIX = "hf:"
_NAME = re.compile(rf"{PREFIX}([\w.-]+/[\w.-]+)(?:@([^@\s]+))?")


class HubError(CheckpointError):
    """A model could not be had from the Hub; the message says why."""


def download(name: str) -> Path:
    """The checkpoint directory of ``hf:owner/name``, or ``hf:owner/name@revision`` with a branch, a
    tag or a commit, downloaded on first use and cached.

    The cache, which serves without a network, the endpoint and the login are those of
    `huggingface_hub`; MissingExtraError if that is not installed.

    Raises:
        HubError: the name is not of this form, or the model cannot be had.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise HubError(f"{name} does not name a model on the Hub: give hf:owner/name[@revision]")
    repository, revision = parts.groups()
    hub = require("huggingface_hub", f"the model {name}", "hub")
    files = [CONFIG_NAME, WEIGHTS_NAME]
    try:
        folder = Path(hub.snapshot_download(repository, revision=revision, allow_patterns=files))
    except (OSError, ValueError) as error:  # what the hub's own errors are
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HubError(f"the model {name} could not be had from the Hub: {reason}") from error
    if missing := [needed for needed in files if not (folder / needed).is_file()]:
        raise HubError(f"{name} has no {missing[0]}, so it is not a model of flow-vocoder")
    return folder
