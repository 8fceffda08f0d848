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
from vocoder.training.module import Training
from vocoder.training.recipe import Recipe
from vocoder.training.run_folder import Record


class AcousticRecipe(Recipe):
    """Trains the acoustic model on a corpus of English speech with text."""

    program = "train_acoustic.py"
    mel_spec_option = "--model.mel_spec"

    module_class = AcousticTraining
    data_class = TextAndSpeech

    def add_arguments(self, options: ArgumentParser) -> None:
        skip = {"symbols", "voices"}
        options.add_class_arguments(AcousticModel, "model", skip=skip, instantiate=False)

    def module(self, objects: Namespace, **optimisation: Any) -> Training:
        self._voices, self._started = list(objects.speech.voices or ["speaker"]), False
        model = AcousticModel(SYMBOLS, voices=self._voices, **objects.model.as_dict())
        return AcousticTraining(model, **optimisation)

    def begin(self, module: Any, data: Any) -> None:
        model = module.model
        bands = (model.mel_mean, model.mel_scale) if self._started else data.bands()
        model.normalise_by(*bands, data.prosody(model.voices, *bands))

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
