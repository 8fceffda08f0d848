"""From the command line to a trained model: what all training recipes share."""

from __future__ import annotations

import logging
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from vocoder.atomic import write_atomic
from vocoder.checkpoints import CheckpointError
from vocoder.corpus import CorpusError, download_ljspeech, find_ljspeech
from vocoder.models import Vocoder, load_checkpoint
from vocoder.nn.weight_norm import fuse_weight_norm
from vocoder.training.callbacks import (
    AveragedWeights,
    HeldOutSound,
    History,
    Interrupted,
    LastCheckpoint,
    Snapshots,
    TrainingBar,
)
from vocoder.training.crops import SpeechData
from vocoder.training.module import TrainingError, VocoderTraining
from vocoder.training.report import write_report
from vocoder.training.terms import Term

log = logging.getLogger("vocoder.training")

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


class Recipe:
    """What differs between recipes; this one trains a vocoder on crops of speech.

    Args:
        description: for `--help`.
        default_config: used if the command line has no `--config`.
        sample: the corpus that `--data sample` stands for.
    """

    program = "train.py"
    """Name in messages."""

    mel_spec_option = "--model.init_args.mel_spec"
    """The option that sets the model's mel, for messages."""

    def __init__(self, description: str, default_config: Path, sample: Path) -> None:
        self.description = description
        self.default_config = default_config
        self.sample = sample

    def add_arguments(self, options: ArgumentParser) -> None:
        """Add the options that `build` needs."""
        options.add_subclass_arguments(Vocoder, "model", required=True)
        options.add_argument(
            "--terms", type=list[Term], required=True, help="of the loss: a list of classes"
        )
        options.add_class_arguments(
            VocoderTraining, "training", skip={"model", "terms", "seed"}, instantiate=False
        )
        options.add_class_arguments(
            SpeechData, "speech", skip={"mel_spec", "folder", "cache", "seed"}, instantiate=False
        )

    def build(self, objects: Namespace, config: Namespace) -> tuple[Any, Any]:
        """The Lightning module and the data module, from `config` and its instantiated classes."""
        module = VocoderTraining(
            objects.model, objects.terms, **objects.training.as_dict(), seed=config.seed
        )
        data = SpeechData(
            module.model.mel_spec,
            corpus_folder(config.data, self.sample),
            Path(config.cache),
            **objects.speech.as_dict(),
            seed=config.seed,
        )
        return module, data

    def begin(self, module: Any, data: Any) -> None:
        """Called once before a new run starts, after the data is set up."""

    def callbacks(self) -> list[lightning.Callback]:
        """Callbacks in addition to those that every recipe has."""
        return [HeldOutSound()]

    def load(self, path: str) -> Any:
        """The model of `--start_from`, not fused."""
        return load_checkpoint(path)

    def report(
        self,
        run: Path,
        trainer: lightning.Trainer,
        module: Any,
        data: Any,
        rows: list[dict[str, Any]],
        seed: int,
    ) -> None:
        """Write the finished run's model and report."""
        write_report(run, trainer, module, data, rows, seed)


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


def main(recipe: Recipe, arguments: Sequence[str] | None = None) -> int:
    """Run a recipe; returns the exit code.

    Args:
        recipe: what to train.
        arguments: the command line, `sys.argv[1:]` by default.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    # Lightning's tips are for authors of training scripts.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*`IterableDataset`.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not any(word == "--config" or word.startswith("--config=") for word in words):
        words = ["--config", str(recipe.default_config), *words]
    options = parser(recipe)
    config = options.parse_args(words)
    try:
        train(recipe, options, config)
    except Interrupted as stop:
        log.info("stopped by %s; run the same command again to resume", stop)
        return 128 + stop.number
    except SIGTERMException:  # before the first step
        log.info("stopped by SIGTERM before the first step; nothing to save")
        return 128 + signal.SIGTERM
    except (TrainingError, CorpusError, CheckpointError, MisconfigurationException) as error:
        sys.stderr.write(f"{recipe.program}: {' '.join(str(error).split())}\n")
        return 2
    return 0


def train(recipe: Recipe, options: ArgumentParser, config: Namespace) -> None:
    """Find the data, resume or start, fit, write model and report."""
    budget = duration(config.max_time) if config.max_time else None
    if budget is None and not config.max_steps:
        raise TrainingError("no budget is set: give --max_time (such as 2h) or --max_steps")
    run = Path(config.run or default_run(config))
    checkpoint = resumable(run, options, config)

    lightning.seed_everything(config.seed, verbose=False)
    with readable("the configuration cannot be built"):
        objects = options.instantiate(config)
        module, data = recipe.build(objects, config)
        averaged = AveragedWeights(**objects.average.as_dict())
        snapshots = Snapshots(run / "snapshots", config.snapshot_minutes)
    if config.start_from and checkpoint is None:
        start_from(module.model, recipe.load(config.start_from), config.start_from)

    if first_process():
        # Before Lightning starts other processes, which would wait forever if this one failed.
        data.prepare_data()
    data.setup()
    check_rate(data, recipe.mel_spec_option)

    history = History(run / "history.jsonl")
    with readable("the trainer cannot be built"):
        trainer = lightning.Trainer(
            **objects.trainer.as_dict(),
            max_steps=config.max_steps or -1,
            max_epochs=-1,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            enable_checkpointing=True,
            enable_model_summary=False,
            use_distributed_sampler=False,  # `CropSampler` does it
            default_root_dir=run,
            logger=TensorBoardLogger(run, name="", version="tensorboard"),
            callbacks=[
                Timer(budget, verbose=False),
                averaged,
                snapshots,
                *recipe.callbacks(),
                history,
                TrainingBar(),
                LastCheckpoint(run / "last.ckpt", config.save_every),
            ],
        )
    if trainer.is_global_zero:
        run.mkdir(parents=True, exist_ok=True)
        write_atomic(run / "config.yaml", options.dump(config).encode())
        announce(run, module.model, data, checkpoint)
    if checkpoint is None:
        recipe.begin(module, data)
        trainer.validate(module, data, verbose=False)
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False)
    averaged.apply_to(module)
    trainer.validate(module, data, verbose=False)
    if trainer.is_global_zero:
        recipe.report(run, trainer, module, data, history.rows(), config.seed)
    if trainer.world_size > 1:
        # The others wait for the report: Lightning takes an early exit for a failure and kills the
        # rest, and exiting with an open process group may abort.
        trainer.strategy.barrier()
        torch.distributed.destroy_process_group()


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn constructors' errors about their arguments into a message without a traceback."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{what}: {error}") from error


def first_process() -> bool:
    """Whether this is the only process of the run, or the one that logs and writes for all."""
    return getattr(rank_zero_only, "rank", 0) == 0


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


def resumable(run: Path, options: ArgumentParser, config: Namespace) -> Path | None:
    """The checkpoint to resume from, or None for a new run.

    Raises:
        TrainingError: the folder holds a run of another model.
    """
    checkpoint = run / "last.ckpt"
    if not checkpoint.exists():
        return None
    before = yaml.safe_load((run / "config.yaml").read_text())
    now = yaml.safe_load(options.dump(config))
    different = differing_keys(before.get("model"), now.get("model"), "model")
    if different:
        raise TrainingError(
            f"{run} holds a run of another model (different: {', '.join(different)}): "
            "choose another folder with --run, or remove that one"
        )
    return checkpoint


def differing_keys(a: Any, b: Any, name: str) -> list[str]:
    """Dotted names of the values in which two configurations differ.

    Keys that only one of them has are ignored, so that a run can be resumed even if the model has
    gained or lost an argument since.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted(a.keys() & b.keys())
        return [d for key in keys for d in differing_keys(a[key], b[key], f"{name}.{key}")]
    return [] if a == b else [name]


def start_from(model: nn.Module, trained: nn.Module, path: str) -> None:
    """Copy the weights of a trained model, read from `path`, into `model`.

    Either may be weight-normalised or fused.

    Raises:
        TrainingError: the weights have other names or shapes.
    """
    weights = fuse_weight_norm(trained.state_dict())
    own = fuse_weight_norm(model.state_dict()).keys()
    different = sorted(own ^ weights.keys())
    if different:
        raise TrainingError(f"the weights in {path} are of another model: {different[0]} differs")
    try:
        with torch.no_grad():
            for name, value in weights.items():
                module = model.get_submodule(name.rpartition(".")[0])
                attribute = name.rpartition(".")[2]
                if is_parametrized(module, attribute):
                    setattr(module, attribute, value)  # sets gain and direction
                else:
                    getattr(module, attribute).copy_(value)
    except RuntimeError as error:
        raise TrainingError(f"the weights in {path} are of another model: {error}") from error


def corpus_folder(data: str | None, sample: Path) -> Path:
    """The folder that `--data` stands for; LJSpeech is downloaded if it is not found."""
    if data == "sample":
        return sample
    if data:
        return Path(data)
    return find_ljspeech() or download_ljspeech()


def check_rate(data: Any, mel_spec_option: str) -> None:
    """Warn if the recordings have a lower sample rate than the model."""
    original = data.prepared.original_sample_rate
    if original < data.mel_spec.sample_rate and first_process():
        log.warning(
            "%s is recorded at %d Hz and the model works at %d Hz: there is nothing to learn above "
            "%d Hz; for speech at 16 kHz give %s speech-16k",
            data.prepared.name,
            original,
            data.mel_spec.sample_rate,
            original // 2,
            mel_spec_option,
        )


def announce(run: Path, model: Any, data: Any, checkpoint: Path | None) -> None:
    """Log one paragraph at the start: what is trained, on what, where."""
    parameters = sum(p.numel() for p in model.parameters())
    prepared, split = data.prepared, data.split
    log.info(
        "%s, %.1fM parameters, %d Hz; %s: %d utterances to train on (%.1f min), %d to validate, "
        "%d to test; run folder %s",
        type(model).__name__,
        parameters / 1e6,
        model.sample_rate,
        prepared.name,
        len(split.train),
        prepared.seconds(split.train) / 60,
        len(split.validation),
        len(split.test),
        run,
    )
    if checkpoint is not None:
        log.info("resuming from %s", checkpoint)
