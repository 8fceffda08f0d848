"""From the command line to a trained model: shared by all recipes."""

from __future__ import annotations

import logging
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, restricted_number_type
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from vocoder.atomic import write_atomic
from vocoder.checkpoints import CheckpointError
from vocoder.corpus import CorpusError, download_ljspeech, find_ljspeech
from vocoder.evaluation.results import save_result
from vocoder.models import Vocoder, load_checkpoint
from vocoder.nn import fuse_weight_norm
from vocoder.pretrained import bundled_models
from vocoder.training.callbacks import (
    AveragedWeights,
    Interrupted,
    LastCheckpoint,
    Progress,
    Validations,
)
from vocoder.training.data import CorpusData, SpeechData, manifest
from vocoder.training.losses import Loss
from vocoder.training.module import DivergedError, Training, TrainingError, VocoderTraining
from vocoder.training.report import Finished, report_vocoder, setting_facts
from vocoder.training.run import LAST, RECORD, describe, locked, newest_resume_file, resume_files

log = logging.getLogger("vocoder.training")

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

CONFIGS = Path(__file__).parent / "config"
"""Folder of the configurations that come with the package."""


class Recipe:
    """What differs between recipes; this one trains a vocoder on crops of speech.

    `default_config` is used without `--config`, `sample` is the corpus of `--data sample`, and
    `program` is the name in messages.
    """

    program = "train.py"
    module_class: type[Training] = VocoderTraining
    data_class: Callable[..., CorpusData] = SpeechData

    def __init__(
        self, description: str, default_config: Path, sample: Path, program: str | None = None
    ) -> None:
        self.shown = program or self.program
        self.description, self.default_config, self.sample = description, default_config, sample

    def add_model(self, options: ArgumentParser) -> None:
        """Add the options of `model`, and of what the module takes besides it."""
        options.add_subclass_arguments(Vocoder, "model", required=True)
        losses = "a list of classes, see vocoder.training.losses"
        options.add_argument("--losses", type=list[Loss], required=True, help=losses)

    def model(self, objects: Namespace) -> Any:
        """The model, from instantiated classes."""
        return objects.model

    def build(self, objects: Namespace, config: Namespace) -> tuple[Any, Any]:
        """The Lightning module and the data module, from `config` and its instantiated classes."""
        how = objects.training.as_dict() | {"seed": config.seed}
        if "losses" in objects:
            how["losses"] = objects.losses
        module = self.module_class(self.model(objects), **how)
        if config.data == "sample" and not Path(config.data).is_dir():
            folder = self.sample
        else:
            folder = Path(config.data) if config.data else find_ljspeech() or download_ljspeech()
        places = module.model.mel_spec, folder, Path(config.cache)
        return module, self.data_class(*places, **objects.speech.as_dict(), seed=config.seed)

    def begin(self, module: Any, data: Any, started: bool) -> None:
        """Called once before a new run starts; `started` if it has weights of `--start_from`."""

    def load(self, path: str, model: Any) -> Any:
        """The model of a checkpoint, not fused, for its weights to be copied into `model`."""
        return load_checkpoint(path)

    def report(self, run: Finished) -> None:
        """Write the finished run's report; the model is there already."""
        report_vocoder(run)


def parser(recipe: Recipe) -> ArgumentParser:
    """The options of a training recipe; the keys of its YAML files are the same."""
    options = ArgumentParser(prog=recipe.shown, description=recipe.description)
    add = options.add_argument
    add("--config", action="config", help="YAML of these options; of several, later ones win")
    for name, what in {
        "data": "folder of a corpus in LJSpeech's layout, or 'sample' for that of the recipe; by "
        "default LJSpeech, from $LJSPEECH or data/, else downloaded",
        "run": "folder of the run (default: runs/NAME OF THE CONFIG); a run in it is resumed",
        "max_time": "training time, that before a resume included: 10m, 1h30m or 2d",
        "start_from": "checkpoint of a model of the same sizes, or name of a bundled one, to "
        "initialise a new run from",
    }.items():
        add(f"--{name}", type=str | None, help=what)
    add("--max_steps", type=int | None, help="total number of steps")
    better = "validation score of which the best selects the weights, such as val/mel_distance"
    add("--monitor", type=str, default="val/log_likelihood", help=better)
    add("--patience", type=NonNegativeInt, default=20, help="validations to wait for a better one")
    add("--seed", type=Seed, default=0, help="of weights, crops and noise")
    add("--save_every", type=float, default=180, help="seconds between saves of last.ckpt")
    add("--cache", type=str, default="data/prepared", help="folder of decoded corpora")
    recipe.add_model(options)
    for name, described, skip in (
        ("average", AveragedWeights, set()),
        ("trainer", lightning.Trainer, _OURS),
        ("training", recipe.module_class, {"model", "losses", "seed"}),
        ("speech", recipe.data_class, {"mel_spec", "folder", "cache", "seed"}),
    ):
        options.add_class_arguments(described, name, skip=skip, instantiate=False)
    options.set_defaults({"trainer.val_check_interval": 500})
    return options


def command_line(words: Sequence[str], default_config: Path) -> list[str]:
    """The words with the default configuration if they have none, and paths for names of those in
    `CONFIGS`, such as ``--config sound``."""
    given = [part for word in words for part in re.split("(?<=^--config)=", word)]
    for index, word in enumerate(given[1:], 1):
        named = CONFIGS / f"{word}.yaml"
        if given[index - 1] == "--config" and named.is_file():
            given[index] = str(named)
    return given if "--config" in given else ["--config", str(default_config), *given]


def main(recipe: Recipe, arguments: Sequence[str] | None = None) -> int:
    """Run a recipe; returns the exit code.

    0 for a finished run, 2 after an error that the user can fix (one sentence on stderr), 128 + n
    after signal n. `arguments` are `sys.argv[1:]` by default.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    # Lightning's tips are for authors of training scripts.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for tip in ("does not have many workers", "LeafSpec", "in eval mode at the start of train"):
        warnings.filterwarnings("ignore", f".*{tip}")
    words = sys.argv[1:] if arguments is None else arguments
    options = parser(recipe)
    config = options.parse_args(command_line(words, recipe.default_config))
    if config.start_from and not Path(config.start_from).exists():
        config.start_from = str(bundled_models().get(config.start_from, config.start_from))
    try:
        train(recipe, options, config)
    except (Interrupted, SIGTERMException) as stop:  # the latter is before the first step
        number = stop.args[0] if isinstance(stop, Interrupted) else signal.SIGTERM
        which = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        log.info("stopped by %s; run the same command again to resume", which)
        return 128 + number
    except Exception as error:
        message = sentence(error)
        if message is None:
            raise
        sys.stderr.write(f"{recipe.shown}: {message}\n")
        return 2
    return 0


def train(recipe: Recipe, options: ArgumentParser, config: Namespace) -> None:
    """Find the data, resume or start, fit, write model and report."""
    budget = duration(config.max_time) if config.max_time else None
    if budget is None and not config.max_steps:
        raise TrainingError("no budget is set: give --max_time (such as 2h) or --max_steps")
    run = Path(config.run or Path("runs", "+".join(Path(str(path)).stem for path in config.config)))
    lightning.seed_everything(config.seed, verbose=False)
    with readable("the configuration cannot be built"):
        objects = options.instantiate(config)
        module, data = recipe.build(objects, config)
        averaged = AveragedWeights(**objects.average.as_dict())
    started = bool(config.start_from)
    if started and not resume_files(run):
        trained = recipe.load(config.start_from, module.model)
        start_from(module.model, trained, config.start_from)
    data.setup()  # before Lightning starts other processes, which would wait if this one failed
    first = getattr(rank_zero_only, "rank", 0) == 0
    original, rate = data.prepared.original_sample_rate, data.mel_spec.sample_rate
    if first and original < rate:
        log.warning(
            f"{data.prepared.name} is recorded at {original} Hz and the model works at {rate} Hz: "
            f"there is nothing to learn above {original // 2} Hz; for speech at 16 kHz give "
            "--model.mel_spec speech-16k"
        )
    validations = Validations(run, averaged, config.monitor, config.patience, started)
    shown = [Progress()] * (config.trainer.enable_progress_bar is not False)  # Lightning's default
    saves = LastCheckpoint(run / LAST, config.save_every)
    with readable("the trainer cannot be built"):
        trainer = lightning.Trainer(
            **{**objects.trainer.as_dict(), "enable_progress_bar": False},
            max_steps=config.max_steps or -1,
            max_epochs=-1,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            use_distributed_sampler=False,  # `Batches` does it
            default_root_dir=run,
            logger=TensorBoardLogger(run, name="", version="tensorboard"),
            callbacks=[Timer(budget, verbose=False), averaged, validations, *shown, saves],
        )
    corpus = {
        "name": data.prepared.name,
        "path": str(data.folder.absolute()),
        "sha256": manifest(data.corpus, data.prepared, data.trains_on_text),
    }
    items = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
    record = describe(run, recipe.program, config, corpus, items)
    with locked(run) if first else nullcontext():
        checkpoint = newest_resume_file(run)
        if first:
            dumped = options.dump(config).encode(errors="surrogateescape")
            write_atomic(run / "config.yaml", dumped)
            facts = setting_facts(module.model, data).values()
            log.info("%s; run folder %s", "; ".join(facts), run)
            if checkpoint is None:
                save_result(record, run / RECORD)
            else:
                log.info("resuming from %s", checkpoint)
        if checkpoint is None:
            recipe.begin(module, data, started)
        fit(recipe, Finished(run, trainer, module, data, validations), checkpoint)
        if trainer.world_size > 1:
            # Lightning takes an exit before the report for a failure and kills the rest, and
            # exiting with an open process group may abort.
            trainer.strategy.barrier()
            torch.distributed.destroy_process_group()


def fit(recipe: Recipe, run: Finished, checkpoint: Path | None) -> None:
    """Train, leave the best averaged weights in the module and in `run`/model, write the report.
    The model is written even if training diverges or the report fails; the message says where."""
    trainer, module, model = run.trainer, run.module, run.folder / "model"

    def save_best() -> None:
        if trainer.is_global_zero:
            run.validations.restore(module.model, recipe.load)
            module.model.save(model)

    if checkpoint is None:
        trainer.validate(module, run.data, verbose=False)
    fitted = False
    try:
        trainer.fit(module, run.data, ckpt_path=checkpoint, weights_only=True)
        run.validations.average.apply_to(module)
        fitted = True
        if trainer.is_global_zero:
            module.model.save(model)  # first of all: what comes now may fail
        trainer.validate(module, run.data, verbose=False)
        save_best()
        if trainer.is_global_zero:
            recipe.report(run)
    except DivergedError as error:
        if not fitted:
            run.validations.average.apply_to(module)
        save_best()
        raise DivergedError(
            f"{error}; the best model so far is in {model}: lower training.learning_rate, or train "
            f"with --trainer.precision 32, in a new run (--run DIR; with --start_from {model} it "
            "starts from that model)"
        ) from error
    except Exception as error:
        message = sentence(error)
        if not fitted or message is None:
            raise
        raise TrainingError(
            f"the model is trained and in {model}, but its report is not complete: {message}"
        ) from error


def start_from(model: nn.Module, trained: nn.Module, path: str) -> None:
    """Copy the weights of a trained model, fused or weight-normalised, into `model`."""
    weights = fuse_weight_norm(trained.state_dict())
    different = sorted(fuse_weight_norm(model.state_dict()).keys() ^ weights.keys())
    try:
        if different:
            raise RuntimeError(f"{different[0]} differs")
        with torch.no_grad():
            for name, value in weights.items():
                owner, _, attribute = name.rpartition(".")
                module = model.get_submodule(owner)
                if is_parametrized(module, attribute):
                    setattr(module, attribute, value)  # sets gain and direction
                else:
                    getattr(module, attribute).copy_(value)
    except RuntimeError as error:
        raise TrainingError(f"the weights in {path} are of another model: {error}") from error


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
