"""From the command line to a trained model: what all training recipes share."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from vocoder.atomic import write_atomic
from vocoder.corpus import download_ljspeech, find_ljspeech
from vocoder.models import Vocoder, load_checkpoint
from vocoder.nn.weight_norm import fuse_weight_norm
from vocoder.training.callbacks import (
    AveragedWeights,
    Best,
    HeldOutSound,
    History,
    Interrupted,
    LastCheckpoint,
    Snapshots,
    TrainingBar,
)
from vocoder.training.crops import SpeechData
from vocoder.training.faults import readable, sentence
from vocoder.training.module import DivergedError, TrainingError, VocoderTraining
from vocoder.training.options import (
    check_options,
    default_run,
    duration,
    in_utf8,
    parser,
    plain,
)
from vocoder.training.report import write_report
from vocoder.training.resume import LAST, newest_resume_file, resume_files
from vocoder.training.run_folder import (
    CONFIG,
    Record,
    describe,
    locked,
    read_record,
    refuse_another,
    write_record,
)
from vocoder.training.terms import Term

log = logging.getLogger("vocoder.training")


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
        record: Record,
    ) -> None:
        """Write the finished run's report; the model is there already."""
        write_report(run, trainer, module, data, rows, record)


def main(recipe: Recipe, arguments: Sequence[str] | None = None) -> int:
    """Run a recipe; returns the exit code.

    0 for a finished run, 2 after an error that the user can mend (one sentence on stderr), 128 + n
    after signal n.

    Args:
        recipe: what to train.
        arguments: the command line, `sys.argv[1:]` by default.
    """
    if arguments is None:
        in_utf8()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    # Lightning's tips are for authors of training scripts. What is in evaluation mode when training
    # starts (the pitch network) is meant to be.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*`IterableDataset`.*",
        ".*LeafSpec.*",
        ".*in eval mode at the start of training.*",
    ):
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
    except Exception as error:
        words_for_it = sentence(error)
        if words_for_it is None:
            raise
        sys.stderr.write(f"{recipe.program}: {words_for_it}\n")
        return 2
    return 0


def train(recipe: Recipe, options: ArgumentParser, config: Namespace) -> None:
    """Find the data, resume or start, fit, write model and report."""
    budget = duration(config.max_time) if config.max_time else None
    if budget is None and not config.max_steps:
        raise TrainingError("no budget is set: give --max_time (such as 2h) or --max_steps")
    check_options(config)
    run = Path(config.run or default_run(config))
    record = describe(recipe.program, plain(config))
    refuse_another(run, record)  # for the first time, as soon as it can be known

    lightning.seed_everything(config.seed, verbose=False)
    with readable("the configuration cannot be built"):
        objects = options.instantiate(config)
        module, data = recipe.build(objects, config)
        averaged = AveragedWeights(**objects.average.as_dict())
        snapshots = Snapshots(run / "snapshots", config.snapshot_minutes)
    if config.start_from and not resume_files(run):
        start_from(module.model, recipe.load(config.start_from), config.start_from)

    with locked(run) if first_process() else nullcontext():
        if first_process():
            # Before Lightning starts other processes, which would wait forever if this one failed.
            data.prepare_data()
        data.setup()
        check_rate(data, recipe.mel_spec_option)
        history = History(run / "history.jsonl")
        best = Best(run / "best", config.monitor, config.patience, bool(config.start_from))
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
                    best,
                    *([TrainingBar()] if shows_progress(config) else []),
                    LastCheckpoint(run / LAST, config.save_every),
                ],
            )
        record["corpus"] = {
            "name": data.prepared.name,
            "path": str(data.folder.absolute()),
            "sha256": data.manifest(),
        }
        record["items_per_step"] = (
            data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
        )
        refuse_another(run, record)
        checkpoint = newest_resume_file(run)
        if trainer.is_global_zero:
            write_atomic(run / CONFIG, options.dump(config).encode(errors="surrogateescape"))
            if checkpoint is None:
                write_record(run, record)
            announce(run, module.model, data, checkpoint)
        fit(recipe, run, trainer, module, data, averaged, best, checkpoint)
        finish(recipe, run, trainer, module, data, best, history)
        if trainer.world_size > 1:
            # The others wait for the report: Lightning takes an early exit for a failure and kills
            # the rest, and exiting with an open process group may abort.
            trainer.strategy.barrier()
            torch.distributed.destroy_process_group()


def shows_progress(config: Namespace) -> bool:
    """Whether there is a progress bar: Lightning's own default is that there is."""
    return config.trainer.enable_progress_bar is not False


def fit(
    recipe: Recipe,
    run: Path,
    trainer: lightning.Trainer,
    module: Any,
    data: Any,
    averaged: AveragedWeights,
    best: Best,
    checkpoint: Path | None,
) -> None:
    """Train, and leave the averaged model in the module and in `run`/model.

    Raises:
        TrainingError: training has diverged; the model is written all the same.
    """
    best.begin(checkpoint is None, trainer.is_global_zero)
    if checkpoint is None:
        recipe.begin(module, data)
        trainer.validate(module, data, verbose=False)
    try:
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    except DivergedError as error:
        if trainer.is_global_zero:
            averaged.apply_to(module)
            best.restore(module.model, recipe.load)
            module.model.save(run / "model")
        which = "averaged" if best.found is None else "best"
        raise DivergedError(
            f"{error}; the {which} model so far is in {run / 'model'}: {instead(run)}"
        ) from error
    averaged.apply_to(module)
    if trainer.is_global_zero:
        # First of all: what comes now may fail.
        module.model.save(run / "model")


def finish(
    recipe: Recipe,
    run: Path,
    trainer: lightning.Trainer,
    module: Any,
    data: Any,
    best: Best,
    history: History,
) -> None:
    """Validate the averaged model, take the best one, and write the report on that.

    Raises:
        TrainingError: the model has diverged, or something that the user can mend; the message
            says where the model is.
    """
    try:
        try:
            trainer.validate(module, data, verbose=False)
        finally:  # the end may have diverged
            if trainer.is_global_zero:
                best.restore(module.model, recipe.load)
                module.model.save(run / "model")
        if trainer.is_global_zero:
            recipe.report(run, trainer, module, data, history.rows(), read_record(run))
    except DivergedError as error:
        raise DivergedError(f"{error}; the model is in {run / 'model'}: {instead(run)}") from error
    except Exception as error:
        words = sentence(error)
        if words is None:
            raise
        raise TrainingError(
            f"the model is trained and in {run / 'model'}, but its report is not complete: {words}"
        ) from error


def instead(run: Path) -> str:
    """What to do after a run that has diverged."""
    return (
        "lower training.learning_rate, or train with --trainer.precision 32, in a new run (--run "
        f"DIR; with --start_from {run / 'model'} it starts from that model)"
    )


def first_process() -> bool:
    """Whether this is the only process of the run, or the one that logs and writes for all."""
    return getattr(rank_zero_only, "rank", 0) == 0


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
    """The folder that `--data` stands for; LJSpeech is downloaded if it is not found.

    ``sample`` is the bundled sample corpus, unless there is a folder of that name.
    """
    if data == "sample" and not Path(data).is_dir():
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
