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
        skip = {"symbols", "voices"}
        options.add_class_arguments(AcousticModel, "model", skip=skip, instantiate=False)
        options.add_class_arguments(
            AcousticTraining, "training", skip={"model", "seed"}, instantiate=False
        )
        skip = {"mel_spec", "folder", "cache", "seed"}
        options.add_class_arguments(TextAndSpeech, "speech", skip=skip, instantiate=False)

    def build(self, objects: Namespace, config: Namespace) -> tuple[Any, Any]:
        self._voices, self._started = list(objects.speech.voices or ["speaker"]), False
        model = AcousticModel(SYMBOLS, voices=self._voices, **objects.model.as_dict())
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
        model = module.model
        bands = (model.mel_mean, model.mel_scale) if self._started else data.bands()
        model.normalise_by(*bands, data.prosody(model.voices, *bands))

    def callbacks(self) -> list[lightning.Callback]:
        return []

    def load(self, path: str) -> Any:
        self._started = True  # so the statistics of the bands stay what the weights know
        return load_checkpoint(path).with_voices(self._voices)

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
