"""Options that all recipes share, and messages for recoverable errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import lightning
import torch
import yaml
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, restricted_number_type
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vocoder.checkpoints import CheckpointError
from vocoder.corpus import CorpusError
from vocoder.training.callbacks import AveragedWeights
from vocoder.training.module import TrainingError

# Arguments of Lightning's Trainer that are no options, because the recipe sets them or has its own.
_OURS = {
    "barebones", "callbacks", "check_val_every_n_epoch", "default_root_dir", "enable_checkpointing",
    "enable_model_summary", "fast_dev_run", "gradient_clip_algorithm", "gradient_clip_val",
    "logger", "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps",
    "num_sanity_val_steps", "overfit_batches", "reload_dataloaders_every_n_epochs",
    "use_distributed_sampler",
}  # fmt: skip

_MENDABLE = (
    TrainingError, CorpusError, CheckpointError, MisconfigurationException, OSError, yaml.YAMLError,
    ImportError,
)  # fmt: skip
"""Exceptions whose message tells the user what to do."""

Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])

HELP = {
    "data": "folder of a corpus in LJSpeech's layout, or 'sample' for the one that comes with the "
    "recipe; by default LJSpeech, from $LJSPEECH or data/, else downloaded",
    "run": "folder of the run (default: runs/NAME OF THE CONFIG); a run in it is resumed",
    "max_time": "training time, that before a resume included: 10m, 1h30m or 2d",
    "start_from": "checkpoint directory of a model of the same sizes, or name of a bundled one, to "
    "initialise a new run from",
    "monitor": "validation score that selects the best weights: val/log_likelihood, or "
    "val/mel_distance for configurations with spectral losses",
    "patience": "end training after this many validations without a better score; 0 for never",
}


def shared_options(program: str, description: str) -> ArgumentParser:
    """A parser with the options of every recipe; the keys of its YAML files are the same."""
    options = ArgumentParser(prog=program, description=description)
    add = options.add_argument
    add("--config", action="config", help="YAML of these options; of several, later ones win")
    for name in ("data", "run", "max_time", "start_from"):
        add(f"--{name}", type=str | None, help=HELP[name])
    add("--max_steps", type=int | None, help="total number of steps")
    add("--monitor", type=str, default="val/log_likelihood", help=HELP["monitor"])
    add("--patience", type=NonNegativeInt, default=20, help=HELP["patience"])
    add("--seed", type=Seed, default=0, help="of weights, crops and noise")
    add("--save_every", type=float, default=180, help="seconds between saves of last.ckpt")
    add("--cache", type=str, default="data/prepared", help="folder of decoded corpora")
    options.add_class_arguments(AveragedWeights, "average", instantiate=False)
    options.add_class_arguments(lightning.Trainer, "trainer", skip=_OURS, instantiate=False)
    options.set_defaults({"trainer.val_check_interval": 500})
    return options


def duration(text: str) -> timedelta:
    """A duration from 90s, 10m, 1h30m, 2d and so on."""
    units = "".join(rf"(?:(\d+(?:\.\d+)?)\s*{unit})?\s*" for unit in ("d", "h", "m(?:in)?", "s"))
    if found := re.fullmatch(units, text.strip()):
        d, h, m, s = (float(number or 0) for number in found.groups())
        if length := timedelta(days=d, hours=h, minutes=m, seconds=s):
            return length
    raise TrainingError(f"max_time {text!r} is not a duration: write 10m, 1h30m or 2d")


def sentence(error: BaseException) -> str | None:
    """What went wrong and what to do, in one line; None if the user cannot fix it."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"there is not enough memory: lower --speech.batch_size ({text[:80]})"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}; what was saved before is kept"
    return text if isinstance(error, _MENDABLE) else None


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn constructors' errors about their arguments into a message without a traceback."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{what}: {error}") from error
