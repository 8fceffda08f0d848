"""The command line of the recipes, and the configuration that it gives."""

from __future__ import annotations

import json
import locale
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from jsonargparse import ArgumentParser, Namespace

from vocoder.training.callbacks import AveragedWeights
from vocoder.training.module import TrainingError

if TYPE_CHECKING:
    from vocoder.training.recipe import Recipe

# Arguments of Lightning's Trainer that are no options, because the recipe sets them or has its own.
_OURS = {
    "barebones",
    "callbacks",
    "check_val_every_n_epoch",
    "default_root_dir",
    "enable_checkpointing",
    "enable_model_summary",
    "fast_dev_run",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "logger",
    "max_epochs",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "num_sanity_val_steps",
    "overfit_batches",
    "reload_dataloaders_every_n_epochs",
    "use_distributed_sampler",
}


def parser(recipe: Recipe) -> ArgumentParser:
    """The options of a training recipe; the keys of its YAML files are the same."""
    options = ArgumentParser(prog=recipe.program, description=recipe.description)
    options.add_argument(
        "--config", action="config", help="YAML of these options; may be repeated, later ones win"
    )
    options.add_argument(
        "--data",
        type=str | None,
        help="folder of a corpus in LJSpeech's layout, or 'sample' for the small one that comes "
        "with the recipe; by default LJSpeech, from $LJSPEECH or data/, else downloaded",
    )
    options.add_argument(
        "--run",
        type=str | None,
        help="folder of the run (default: runs/NAME OF THE CONFIG); a run in it is resumed",
    )
    options.add_argument("--max_steps", type=int | None, help="total number of steps")
    options.add_argument(
        "--max_time",
        type=str | None,
        help="total training time, including that before a resume: 10m, 1h30m, 2d or DD:HH:MM:SS",
    )
    options.add_argument(
        "--start_from",
        type=str | None,
        help="checkpoint directory of a model of the same sizes, to initialise a new run from",
    )
    options.add_argument(
        "--monitor",
        type=str,
        default="val/log_likelihood",
        help="score of the validations by which the run ends with its best weights: "
        "val/log_likelihood, or val/mel_distance where the loss has terms on the sound",
    )
    options.add_argument(
        "--patience",
        type=int,
        default=20,
        help="validations without a better one after which training ends; 0 for never",
    )
    options.add_argument("--seed", type=int, default=0, help="of weights, crops and noise")
    options.add_argument(
        "--save_every", type=float, default=180, help="seconds between saves of last.ckpt"
    )
    options.add_argument(
        "--snapshot_minutes",
        type=list[float] | None,
        default=[5, 10, 20, 40, 80, 160, 320, 640],
        help="save the averaged model after these minutes of training, in RUN/snapshots",
    )
    options.add_argument(
        "--cache", type=str, default="data/prepared", help="folder of decoded corpora"
    )
    recipe.add_arguments(options)
    options.add_class_arguments(AveragedWeights, "average", instantiate=False)
    options.add_class_arguments(lightning.Trainer, "trainer", skip=_OURS, instantiate=False)
    options.set_defaults({"trainer.val_check_interval": 500})
    return options


PRECISIONS = ("32-true", "32", "bf16-mixed", "16-mixed")
"""Of Lightning's. Weights in half precision do not train, and mels are float32 in any case."""


def check_options(config: Namespace) -> None:
    """Check what can be known to fail before any data is read.

    Raises:
        TrainingError: a seed, a patience or a precision that cannot be used.
    """
    if config.patience < 0:
        raise TrainingError(f"--patience is {config.patience}: give 1 or more, or 0 for no end")
    if not 0 <= config.seed < 2**32:
        raise TrainingError(f"--seed is {config.seed}: it must be from 0 to {2**32 - 1}")
    precision = config.trainer.precision
    if precision is not None and str(precision) not in PRECISIONS:
        raise TrainingError(
            f"--trainer.precision {precision} is not supported: give one of {', '.join(PRECISIONS)}"
        )


def plain(config: Namespace) -> dict[str, Any]:
    """A configuration as JSON values, with its nulls, which a dump may leave out."""

    def inner(value: Any) -> Any:
        return value.as_dict() if isinstance(value, Namespace) else str(value)

    values: dict[str, Any] = json.loads(json.dumps(config.as_dict(), default=inner))
    return values


def default_run(config: Namespace) -> Path:
    """runs/NAME, from the names of the config files."""
    return Path("runs") / "+".join(Path(str(path)).stem for path in config.config)


def duration(text: str) -> timedelta:
    """A duration from 90s, 10m, 1h30m, 2d (and so on) or from DD:HH:MM:SS.

    Raises:
        TrainingError: in neither form, or zero.
    """
    units = re.fullmatch(
        r"\s*(?:(\d+(?:\.\d+)?)\s*d)?\s*(?:(\d+(?:\.\d+)?)\s*h)?"
        r"\s*(?:(\d+(?:\.\d+)?)\s*m(?:in)?)?\s*(?:(\d+(?:\.\d+)?)\s*s)?\s*",
        text,
    )
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", text.strip())
    found = clock or units
    if found is not None:
        days, hours, minutes, seconds = (float(number or 0) for number in found.groups())
        length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if length:
            return length
    raise TrainingError(f"max_time {text!r} is not a duration: write 10m, 1h30m or 00:02:00:00")


def in_utf8() -> None:
    """Start the process again in Python's UTF-8 mode if the locale is not UTF-8.

    Configurations and lists of corpora are UTF-8, and the libraries that read them go by the
    locale.
    """
    plain = locale.getencoding().lower().replace("-", "") != "utf8"
    if plain and not sys.flags.utf8_mode and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        again = [sys.executable, *sys.orig_argv[1:]]
        if sys.platform == "win32":  # exec returns at once there, and splits arguments at spaces
            sys.exit(subprocess.run(again, check=False).returncode)
        os.execv(sys.executable, again)
