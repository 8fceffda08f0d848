"""One job of the study in a process of its own: train a variant and measure it. See run.py."""

from __future__ import annotations

import argparse
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import RunningStage
from run import (
    BASE,
    RECIPE,
    TEMPERATURE_CURVES,
    TEMPERATURES,
    difference,
    folder,
    question,
    recipe_words,
    settings,
    write_json,
)

from vocoder.evaluation import installed_metrics, measure, metrics
from vocoder.evaluation.systems import count_macs
from vocoder.models import WaveGlow, load_checkpoint
from vocoder.training.crops import SpeechData
from vocoder.training.recipe import Recipe, main, parser

MEASURES = ("stoi", "pesq", "log_mel_distance", "mcd")


class ProcessorTime(Timer):
    """Ends training after so much time of this process's processors, divided by its threads.

    On a GPU, for which the processor waits, it is the time of the clock. Kept in the checkpoint, so
    a resumed run goes on counting.
    """

    def __init__(self, duration: timedelta, threads: int) -> None:
        super().__init__(duration, verbose=False)
        self.threads = threads
        self._gpu = False
        self._began: float | None = None
        self._ended: float | None = None

    def _now(self) -> float:
        return time.monotonic() if self._gpu else time.process_time() / self.threads

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        super().on_train_start(trainer, pl_module)
        self._gpu = trainer.strategy.root_device.type != "cpu"
        self._began = self._now()

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        super().on_train_end(trainer, pl_module)
        self._ended = self._now()

    def time_elapsed(self, stage: str = RunningStage.TRAINING) -> float:
        """Seconds of training so far, those before a resume included."""
        if stage != RunningStage.TRAINING:
            return super().time_elapsed(stage)
        if self._began is None:
            return self._offset
        return self._offset + (self._now() if self._ended is None else self._ended) - self._began


class Variant(Recipe):
    """The recipe of vocoders with the study's clock and the study's measures."""

    def __init__(self, given: argparse.Namespace) -> None:
        super().__init__(
            description="One variant of the architecture study.",
            default_config=RECIPE / "config" / "mdct.yaml",
            sample=RECIPE / "sample",
        )
        self.given = given
        self.clock = ProcessorTime(timedelta(minutes=given.minutes), given.threads)

    def callbacks(self) -> list[lightning.Callback]:
        return [self.clock]

    def report(
        self,
        run: Path,
        trainer: lightning.Trainer,
        module: Any,
        data: Any,
        rows: list[dict[str, Any]],
        seed: int,
    ) -> None:
        super().report(run, trainer, module, data, rows, seed)
        facts = json.loads((run / "report.json").read_text(encoding="utf-8"))["facts"]
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        name = self.given.work
        # In the form that checkpoints have: in float32, whatever the training was in.
        model = load_checkpoint(run / "model")
        assert isinstance(model, WaveGlow)
        write_json(
            run / "result.json",
            {
                "name": name,
                "question": question(self.given.study, name),
                "difference": difference(self.given.study, name),
                "settings": settings(self.given, name),
                "objective": config["objective"],
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "gmac_per_audio_second": cost(model) / 1e9,
                "look_ahead_frames": model.context_frames[1],
                "steps": trainer.global_step,
                "skipped": module.skipped,
                "audio_seconds": module.samples_seen / model.sample_rate,
                "processor_seconds": self.clock.time_elapsed(),
                "wall_seconds": rows[-1]["train_seconds"],
                "validation": rows,
                "facts": facts,
                **score(model, data, self.given.utterances),
            },
        )


def cost(model: WaveGlow, seconds: float = 1.0) -> float:
    """Multiply-accumulates per second of audio of one inverse pass, by the flow's own equations.

    An engine may do more of them to be faster; this is the same for all variants.
    """
    model = model.fused()
    spec = model.mel_spec
    frames = round(seconds * spec.sample_rate / spec.hop_length)
    mel = torch.zeros(1, spec.n_mels, frames)
    z = torch.zeros(1, model.n_group, frames * model.steps_per_frame)
    with torch.no_grad():
        model.inverse(z, mel)  # once, for the inverse matrices that are kept
        macs = count_macs(lambda: model.inverse(z, mel))
    return macs * spec.sample_rate / (frames * spec.hop_length)


def score(
    model: WaveGlow, data: SpeechData, utterances: int, temperature: float = 0.667
) -> dict[str, Any]:
    """Every measure of every test utterance, the tones of all together, and the speed of making
    them, in processor time."""
    model = model.fused()
    held_out = data.held_out(data.split.test[:utterances])
    names = [name for name in MEASURES if name in installed_metrics()]
    spec = model.mel_spec
    rows: list[dict[str, Any]] = []
    everything = []
    spent = 0.0
    with torch.no_grad():
        for index in range(len(held_out)):
            item = held_out[index]
            original, audio = torch.from_numpy(item["clean"]), torch.from_numpy(item["audio"])
            mel = model.mel(original)
            if index == 0:
                model.synthesize(mel, temperature)  # warm-up
            began = time.process_time()
            made = model.synthesize(mel, temperature)
            spent += time.process_time() - began
            everything.append(made)
            rows.append(
                {
                    "utterance": item["id"],
                    "log_likelihood": float(model.log_prob(audio, mel)) / audio.numel(),
                    **measure(original, made[: len(original)], spec.sample_rate, spec, names),
                }
            )
    audio = torch.cat(everything)
    return {
        "temperature": temperature,
        "test": rows,
        "tone_excess_db": metrics.tone_excess_db(
            audio, spec.sample_rate, spec.sample_rate / (2 * spec.hop_length)
        ),
        "times_real_time_per_core": len(audio) / spec.sample_rate / spent,
    }


def temperatures(given: argparse.Namespace) -> int:
    """Measure temperatures, and temperatures by band, on the trained base."""
    recipe = Variant(given)
    options = parser(recipe)
    config = options.parse_args(recipe_words(given, BASE))
    _, data = recipe.build(options.instantiate(config), config)
    data.prepare_data()
    data.setup()
    model = load_checkpoint(folder(given, BASE) / "model")
    assert isinstance(model, WaveGlow)
    rows = []
    for temperature, curve in TEMPERATURE_CURVES:
        shaped = WaveGlow(**{**model.config, "mel_spec": model.mel_spec, "band_temperature": curve})
        shaped.load_state_dict(model.state_dict())
        scores = score(shaped, data, given.utterances, temperature)
        rows.append({"temperature": temperature, "band_temperature": curve, "test": scores["test"]})
    write_json(
        folder(given, TEMPERATURES) / "result.json",
        {"name": TEMPERATURES, "settings": settings(given, TEMPERATURES), "rows": rows},
    )
    return 0


def work(given: argparse.Namespace) -> int:
    """Do the job that `given.work` names; the exit code."""
    if given.work == TEMPERATURES:
        return temperatures(given)
    return main(Variant(given), recipe_words(given, given.work))
