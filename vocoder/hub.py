"""Checkpoints on the Hugging Face Hub, by names such as ``hf:owner/name@revision``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeGuard

from vocoder.checkpoints import CONFIG_NAME, WEIGHTS_NAME, CheckpointError
from vocoder.extras import require

PREFIX = "hf:"
"""What the name of a model on the Hub begins with."""

_NAME = re.compile(rf"{PREFIX}([\w.-]+/[\w.-]+)(?:@([^@\s]+))?")


class HubError(CheckpointError):
    """A model could not be had from the Hub; the message says why and what to do."""


def is_hub_name(name: str | os.PathLike[str] | None) -> TypeGuard[str]:
    """Whether this names a model on the Hub."""
    return isinstance(name, str) and name.startswith(PREFIX)


def download(name: str) -> Path:
    """The checkpoint directory of a model on the Hub, downloaded on first use and cached.

    Only ``config.json`` and ``model.safetensors`` are downloaded, both of one commit, with a
    progress bar on standard error. Without a network, or with ``HF_HUB_OFFLINE=1``, the cached
    files are used. The cache, the endpoint and the login are those of `huggingface_hub`.

    Args:
        name: ``hf:owner/name``, or ``hf:owner/name@revision`` with a branch, a tag or a commit.

    Raises:
        HubError: the name is not of this form; there is no such repository or revision, or it may
            not be read; it holds no model; or it is not cached and the Hub cannot be reached.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise HubError(
            f"{name} does not name a model on the Hub: give hf:owner/name, or "
            "hf:owner/name@revision with a branch, a tag or a commit"
        )
    repository, revision = parts.groups()
    wanted = f"{repository} at {revision}" if revision else repository
    hub = require("huggingface_hub", f"the model {name}", "hub")
    from huggingface_hub import constants, errors

    files = [CONFIG_NAME, WEIGHTS_NAME]
    problem = ""
    try:
        folder = Path(hub.snapshot_download(repository, revision=revision, allow_patterns=files))
    except errors.HFValidationError as error:
        problem = f"{repository} cannot be the name of a repository: {error}"
    except errors.RevisionNotFoundError:
        problem = f"{repository} on the Hub has no revision {revision}: check the name"
    except errors.GatedRepoError:
        problem = f"{repository} is gated: ask for access on its page, then run `hf auth login`"
    except errors.LocalEntryNotFoundError:
        problem = f"the Hub cannot be reached and {wanted} is not in the cache: check the network"
        if constants.is_offline_mode():
            problem = f"HF_HUB_OFFLINE is set and {wanted} is not in the cache: unset it"
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # of the client it uses
        reason = str(error).partition("\n")[0] or type(error).__name__
        problem = f"the model {name} could not be downloaded ({reason}): try again"
        status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
        if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
            problem = (
                f"there is no repository {repository} on the Hub that you may read: check the "
                "name, or log in with `hf auth login` if it is private"
            )
    if problem:
        raise HubError(problem)
    if missing := [needed for needed in files if not (folder / needed).is_file()]:
        raise HubError(
            f"the repository {repository} on the Hub has no {missing[0]}, so it is not a model of "
            "flow-vocoder: name one that holds what `model.save` writes"
        )
    return folder
