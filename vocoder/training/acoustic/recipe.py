"""The recipe of the acoustic model: its options, what they build, and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from jsonargparse import ArgumentParser, Namespace

from vocoder.text.acoustic import AcousticModel, load_checkpoint
from vocoder.text.frontend import SYMBOLS
from vocoder.training.acoustic.data import TextAndSpeech
from vocoder.training.acoustic.module import AcousticTraining
from vocoder.training.acoustic.report import write_acoustic_report
from vocoder.training.recipe import Recipe, corpus_folder
from vocoder.training.run_folder import Record


class AcousticRecipe(Recipe):
    """Trains the acoustic model on a corpus of English speech with text."""

    program = "train_acoustic.py"
    mel_spec_option = "--model.mel_spec"

    def add_arguments(self, options: ArgumentParser) -> None:
        options.add_class_arguments(AcousticModel, "model", skip={"symbols"}, instantiate=False)
        options.add_class_arguments(
            AcousticTraining, "training", skip={"model", "seed"}, instantiate=False
        )
        skip = {"mel_spec", "folder", "cache", "seed"}
        options.add_class_arguments(TextAndSpeech, "speech", skip=skip, instantiate=False)

    def build(self, objects: Namespace, config: Namespace) -> tuple[Any, Any]:
        model = AcousticModel(SYMBOLS, **objects.model.as_dict())
        module = AcousticTraining(model, **objects.training.as_dict(), seed=config.seed)
        data = TextAndSpeech(
            model.mel_spec,
            corpus_folder(config.data, self.sample),
            Path(config.cache),
            **objects.speech.as_dict(),
            seed=config.seed,
        )
        return module, data

    def begin(self, module: Any, data: Any) -> None:
        module.model.normalise_by(*data.statistics())

    def callbacks(self) -> list[lightning.Callback]:
        return []

    def load(self, path: str) -> Any:
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
        write_acoustic_report(run, trainer, module, data, rows, record)
