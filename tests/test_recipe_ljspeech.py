"""The training recipe as its users run it, on the sample corpus."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from unittest import TestCase

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.callbacks import Callback

from tests.conftest import ROOT, command, one_thread
from vocoder.audio import fade
from vocoder.corpus import held_out
from vocoder.models import Vocoder, load_checkpoint
from vocoder.training.losses import Loss
from vocoder.training.module import VocoderTraining
from vocoder.training.recipe import CONFIGS, Recipe, duration, main, parser

RECIPE = ROOT / "recipes" / "ljspeech"
SAMPLE = RECIPE / "sample"
TINY = CONFIGS / "tiny.yaml"
# Without that of another recipe, see test_text_training.py.
OF_VOCODERS = sorted({*CONFIGS.glob("*.yaml")} - {CONFIGS / "acoustic.yaml"})


class EveryStep(Callback):
    """Calls a function with trainer and module after every step."""

    def __init__(self, function):
        self.function = function

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.function(trainer, pl_module)


class Tiny(Recipe):
    """The tiny recipe, with or without its report, which takes longest."""

    def __init__(self, every_step=lambda trainer, module: None, report=False):
        super().__init__("", TINY, SAMPLE)
        self.every_step, self.reports = every_step, report

    def build(self, *args):
        module, data = super().build(*args)
        module.configure_callbacks = lambda: [EveryStep(self.every_step)]
        return module, data

    def report(self, *args):
        if self.reports:
            super().report(*args)


def stop_at(step, number):
    """For `Tiny`: a signal to this process after a step."""

    def send(trainer, module):
        if trainer.global_step == step:
            os.kill(os.getpid(), number)

    return send


def train(cwd, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(RECIPE / "train.py"), "--config", str(TINY),
         "--trainer.accelerator", "cpu", *arguments],
        cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def train_here(folder, *arguments, recipe=None, config=TINY):
    """The same within this process, which saves the seconds of its imports; the exit code."""
    before = logging.getLogger("lightning").level
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            options = ["--config", str(config), *arguments, "--trainer.accelerator", "cpu"]
            return main(recipe or Tiny(), options)
        except SystemExit as left:  # how jsonargparse refuses an option
            return left.code if isinstance(left.code, int) else 1
        finally:
            for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
                logging.getLogger(name).setLevel(before)


@contextlib.contextmanager
def logged():
    """Lines that the recipe logs."""
    lines = []
    with TestCase().assertLogs("vocoder.training", "INFO") as log:
        yield lines
    lines += [line for record in log.records for line in record.getMessage().splitlines()]


def rows(run):
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


LONG = ("--run", "runs/tiny", "--max_steps", "60", "--monitor", "val/log_likelihood")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which the tiny run was killed, resumed and finished, and the last log."""
    folder = tmp_path_factory.mktemp("recipe")
    run = folder / "runs" / "tiny"
    process = train(folder, *LONG, "--save_every", "0")
    while not (run / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed_at = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < killed_at < 60
    assert not (run / "model").exists()
    with logged() as lines, one_thread():
        assert train_here(folder, *LONG, recipe=Tiny(report=True)) == 0
    return folder, lines


def test_a_killed_run_is_resumed_and_finishes(trained):
    folder, lines = trained
    run = folder / "runs" / "tiny"
    assert "resuming from runs/tiny/last.ckpt" in lines
    saved = torch.load(run / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 60
    assert saved["vocoder_training"]["items_seen"] == 60 * 2
    assert [row["step"] for row in rows(run)] == list(range(0, 61, 10))
    assert not [*run.glob("*.partial"), *run.glob(".*.part")]


def test_the_run_leaves_a_model_wavs_and_a_report(trained):
    folder, lines = trained
    run = folder / "runs" / "tiny"
    model = load_checkpoint(run / "model")
    best = load_checkpoint(run / "best").state_dict()
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())
    for id in held_out(SAMPLE).test:
        original, rate = soundfile.read(run / "held-out" / f"{id}.original.wav")
        generated, its_rate = soundfile.read(run / "held-out" / f"{id}.wav")
        assert rate == its_rate == 16000
        recorded, _ = soundfile.read(SAMPLE / "wavs" / f"{id}.flac", dtype="int16")
        faded = np.rint(fade(recorded[: len(original)].astype(np.float32), 256)) / 32768
        assert (original == faded).all()
        expected = model.synthesize(model.mel(torch.from_numpy(original).float()))
        torch.testing.assert_close(torch.from_numpy(generated).float(), expected, atol=1e-3, rtol=0)
    report = (run / "report.md").read_text()
    for fact in ("20 utterances to train on", "steps: 60, of which 0 skipped", "seed: 0", "nats"):
        assert fact in report
    assert lines[-1].strip() == (
        "vocoder resynthesize runs/tiny/held-out/ru_0209.original.wav "
        "--checkpoint runs/tiny/model -o out.wav"
    )


def test_a_finished_model_can_be_the_start_of_a_new_run(trained, capsys):
    folder, _ = trained
    best = max(row["val/log_likelihood"] for row in rows(folder / "runs/tiny") if row["counts"])
    load_checkpoint(folder / "runs/tiny/model").fused().save(folder / "fused")
    for name, start in {"plain": "runs/tiny/model", "from-fused": "fused"}.items():
        words = ["--run", name, "--start_from", start, "--max_steps", "1"]
        assert train_here(folder, *words) == 0
        first = rows(folder / name)[0]
        assert first["step"] == 0
        assert first["val/log_likelihood"] == pytest.approx(best, abs=1e-3)
    other = ["--run", "other", "--model.init_args.channels", "8"]
    assert train_here(folder, "--start_from", "runs/tiny/model", *other) == 2
    assert "weights in runs/tiny/model are of another model" in capsys.readouterr().err


@pytest.mark.parametrize("stop, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_asked_to_stop_saves_first(tmp_path, stop, code):
    before = signal.getsignal(stop)
    with logged() as lines:
        words = ["--max_steps", "100000", "--trainer.val_check_interval", "100"]
        assert train_here(tmp_path, *words, recipe=Tiny(stop_at(5, stop))) == code
    name = "Ctrl-C" if stop == signal.SIGINT else "SIGTERM"
    assert lines[-1] == f"stopped by {name}; run the same command again to resume"
    assert signal.getsignal(stop) == before
    saved = torch.load(tmp_path / "runs" / "tiny" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 5
    assert saved["vocoder_training"]["items_seen"] == 10


def test_two_devices_stop_together_and_resume(tmp_path):
    """That they train like one is shown in test_clusters.py."""
    run = tmp_path / "two"
    words = ["--run", "two", "--max_steps", "100000", "--speech.batch_size", "1"]
    words += ["--speech.validation_utterances", "1", "--speech.validation_seconds", "0.2"]
    words += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    step = 0
    for both in (False, True):
        process = train(tmp_path, *words)
        while not (run / "history.jsonl").exists() or rows(run)[-1]["step"] <= step:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        if both:  # as cluster managers do
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=150)
        assert process.returncode == 143, output
        assert "run the same command again to resume" in output
        assert "Traceback" not in output
        before, step = step, torch.load(run / "last.ckpt", weights_only=True)["global_step"]
        assert step > before


@pytest.mark.parametrize("path", OF_VOCODERS, ids=lambda path: path.stem)
def test_every_shipped_config_builds_its_model(path):
    text = path.read_text()
    assert text.startswith("# ")  # says why it is there
    options = parser(Tiny())
    # A file without a model states a difference from mdct.yaml.
    files = [path] if "class_path: vocoder.models" in text else [path.with_name("mdct.yaml"), path]
    config = options.parse_args([word for file in files for word in ("--config", str(file))])
    objects = options.instantiate(config)
    assert isinstance(objects.model, Vocoder)
    assert all(isinstance(loss, Loss) for loss in objects.losses)
    VocoderTraining(objects.model, objects.losses, **objects.training.as_dict())
    assert config.max_time is None or duration(config.max_time)
    if path.stem == "low-latency":
        _, ahead = objects.model.context_frames
        hop, rate = objects.model.mel_spec.hop_length, objects.model.sample_rate
        assert f"{ahead} frames, {round(1000 * ahead * hop / rate)} ms" in text


def test_later_files_and_the_command_line_override(tmp_path):
    difference = tmp_path / "deep.yaml"
    difference.write_text(
        "model:\n  init_args:\n    n_flows: 6\n    channels: 32\n"
        "losses:\n- class_path: vocoder.training.losses.Likelihood\n"
    )
    words = ["--config", str(TINY), "--config", str(difference)]
    config = parser(Tiny()).parse_args([*words, "--model.init_args.channels", "24"])
    assert config.model.init_args.n_flows == 6
    assert config.model.init_args.channels == 24
    assert [loss.class_path.rpartition(".")[2] for loss in config.losses] == ["Likelihood"]


@pytest.mark.parametrize(
    "text, seconds",
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800), ("5 min", 300)],
)  # fmt: skip
def test_durations(text, seconds):
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data", "nowhere"], "nowhere has no metadata.csv"),
        (["--max_time", "soon"], "max_time 'soon' is not a duration"),
        (["--max_steps", "0"], "no budget is set"),
        (["--patience", "-1"], "-1 does not conform to restriction v>=0"),
        (["--seed", "5000000000"], "5000000000 does not conform to restriction"),
        (["--model.init_args.n_flows", "-1"], "n_flows is -1"),
        (["--speech.crop_frames", "1"], "crop_frames is 1"),
        (["--average.decay", "2"], "decay is 2"),
        (["--losses", "[]"], "one of the losses must have start 0"),
        (["--losses", "[{class_path: Stft, init_args: {start: 2.0}}]"], "start is 2.0"),
        (["--trainer.devices", "none"], "`devices` selected with"),
        (["--start_from", "nowhere"], "there is no checkpoint at nowhere"),
        (["--no_such_option", "1"], "no_such_option"),
    ],
)
def test_bad_options_give_one_sentence(tmp_path, capsys, arguments, message):
    assert train_here(tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_the_command_trains_as_the_recipe_does(tmp_path):
    options = ["--config", "tiny", "--max_steps", "2", "--run", "run", "--start_from", "gone"]
    words = ["train", RECIPE / "sample", *options, "--trainer.accelerator", "cpu"]
    with contextlib.chdir(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = command(*words)
        assert result.exit_code == 2
        assert "vocoder train: there is no checkpoint" in result.stderr
        result = command(*[word for word in words if word not in ("--start_from", "gone")])
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["program"] == "train.py"
    assert (tmp_path / "run/report.md").is_file()
    result = command("train", "--max_steps", "2", tmp_path)
    assert result.exit_code == 2
    assert "give the folder before --max_steps" in result.stderr
