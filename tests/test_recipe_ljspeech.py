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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.callbacks import Callback

from tests.conftest import one_thread
from vocoder.audio import fade
from vocoder.corpus import held_out
from vocoder.models import Vocoder, load_checkpoint
from vocoder.training.module import TrainingError, VocoderTraining
from vocoder.training.options import duration, parser
from vocoder.training.recipe import Recipe, main
from vocoder.training.terms import Term

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "ljspeech"
CONFIGS = sorted(
    path for path in (RECIPE / "config").glob("*.yaml") if path.stem != "acoustic"
)  # that one is of another recipe, see test_text_training.py
OF_VOCODER = Recipe("", RECIPE / "config" / "tiny.yaml", RECIPE / "sample")


class WithoutReport(Recipe):
    """Skips the report, which takes longest, and may stop itself with a signal after a step."""

    def __init__(self, stop_at: int = -1, number: int = signal.SIGTERM) -> None:
        super().__init__("", RECIPE / "config" / "tiny.yaml", RECIPE / "sample")
        self.stop_at = stop_at
        self.number = number

    def callbacks(self) -> list[Any]:
        recipe = self

        class Stop(Callback):
            def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
                if trainer.global_step == recipe.stop_at:
                    signal.raise_signal(recipe.number)

        return [Stop()]

    def report(self, *args: Any) -> None:
        pass


def train(cwd: Path, *arguments: str, config: str = "tiny") -> subprocess.Popen[str]:
    command = [sys.executable, str(RECIPE / "train.py")]
    if config:
        command += ["--config", str(RECIPE / "config" / f"{config}.yaml")]
    path = os.pathsep.join([str(ROOT), str(cwd)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment.pop("LJSPEECH", None)
    return subprocess.Popen(
        [*command, "--trainer.accelerator", "cpu", *arguments],
        cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate(timeout=150)
    assert process.returncode == code, output
    return output


def train_here(folder: Path, *arguments: str, recipe: Recipe = OF_VOCODER) -> int:
    """The same within this process, which saves the seconds of its imports; the exit code."""
    tiny = RECIPE / "config" / "tiny.yaml"
    before = logging.getLogger("lightning").level
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            options = ["--config", str(tiny), *arguments, "--trainer.accelerator", "cpu"]
            return main(recipe, options)
        except SystemExit as left:  # how jsonargparse refuses an option
            return left.code if isinstance(left.code, int) else 1
        finally:
            for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
                logging.getLogger(name).setLevel(before)


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Lines that the recipe logs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.extend(record.getMessage().splitlines())
    logger = logging.getLogger("vocoder.training")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


# A term that owns parameters, as users write one: a module of their own, named in the YAML.
OWN_TERM = """
from torch import nn
from vocoder.training.terms import TrainedTerm


class Discriminator(TrainedTerm):
    name = "adversarial"

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.network = nn.Conv1d(1, 1, 64, stride=32)

    def forward(self, step):
        return (1 - self.network(step.sample.audio.unsqueeze(1))).square().mean()

    def own_loss(self, step):
        real, generated = step.sample.recorded, step.sample.audio
        return (1 - self.network(real.unsqueeze(1))).square().mean() + self.network(
            generated.unsqueeze(1)
        ).square().mean()
"""
OWN_TERMS = """
terms:
  - class_path: vocoder.training.terms.Likelihood
  - class_path: vocoder.training.terms.Stft
    init_args: {start: 0.2}
  - class_path: own_term.Discriminator
    init_args: {weight: 0.1, start: 0.1, learning_rate: 1.0e-3}
"""
LONG = ("--config", "own_terms.yaml", "--run", "runs/tiny", "--max_steps", "100")


@pytest.fixture(scope="module")
def own_term(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a term of its own, from which modules can be imported."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "own_term.py").write_text(OWN_TERM)
    (folder / "own_terms.yaml").write_text(OWN_TERMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def trained(own_term: Path) -> tuple[Path, list[str]]:
    """A folder in which the tiny run was killed, resumed and finished, and the last log."""
    folder = own_term
    run = folder / "runs" / "tiny"
    process = train(folder, *LONG, "--save_every", "0")
    while not (run / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed_at = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < killed_at < 100
    assert not (run / "model").exists()
    with logged() as lines, one_thread():
        assert train_here(folder, *LONG) == 0
    return folder, lines


def test_a_killed_run_is_resumed_and_finishes(trained: tuple[Path, list[str]]) -> None:
    folder, lines = trained
    run = folder / "runs" / "tiny"
    assert "resuming from runs/tiny/last.ckpt" in lines
    saved = torch.load(run / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 100
    assert saved["vocoder_training"]["items_seen"] == 100 * 2
    steps = [row["step"] for row in rows(run)]
    assert steps[0] == 0
    assert steps[-1] == 100
    assert steps == sorted(steps)
    assert rows(run)[-1]["val/mel_distance"] < rows(run)[0]["val/mel_distance"]
    assert not [*run.glob("*.partial"), *run.glob(".*.part")]


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(
    trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """After kill -9, with a term that owns parameters: those too, and the optimiser's state."""
    folder, _ = trained
    (tmp_path / "own_terms.yaml").write_text(OWN_TERMS)
    with one_thread():
        assert train_here(tmp_path, *LONG) == 0
    resumed, unbroken = (
        torch.load(place / "runs/tiny/last.ckpt", weights_only=True) for place in (folder, tmp_path)
    )
    for kind in ("state_dict", "current_model_state"):
        assert resumed[kind].keys() == unbroken[kind].keys()
        for name, value in unbroken[kind].items():
            torch.testing.assert_close(resumed[kind][name], value, msg=f"{kind} {name}")
    owned = [name for name in resumed["state_dict"] if name.startswith("terms.")]
    assert owned
    moments = unbroken["optimizer_states"][0]["state"]
    for index, state in resumed["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(value, moments[index][name])


def test_the_run_leaves_a_model_wavs_and_a_report(trained: tuple[Path, list[str]]) -> None:
    folder, lines = trained
    run = folder / "runs" / "tiny"
    model = load_checkpoint(run / "model")
    best = load_checkpoint(run / "best").state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, best[name])
    for id in held_out(RECIPE / "sample").test:
        original, rate = soundfile.read(run / "held-out" / f"{id}.original.wav")
        generated, its_rate = soundfile.read(run / "held-out" / f"{id}.wav")
        assert rate == its_rate == 16000
        recorded, _ = soundfile.read(RECIPE / "sample" / "wavs" / f"{id}.flac", dtype="int16")
        faded = np.rint(fade(recorded[: len(original)].astype(np.float32), 256)) / 32768
        assert (original == faded).all()
        mel = model.mel(torch.from_numpy(original).float())
        expected = model.synthesize(mel)
        assert len(generated) == len(expected)
        torch.testing.assert_close(torch.from_numpy(generated).float(), expected, atol=1e-3, rtol=0)
    report = (run / "report.md").read_text()
    for fact in ("20 utterances to train on", "steps: 100, of which 0 skipped", "seed: 0", "nats"):
        assert fact in report
    assert len(report.splitlines()) < 60
    assert (run / "report.png").stat().st_size > 10_000
    assert lines[-1].strip() == (
        "vocoder resynthesize runs/tiny/held-out/ru_0209.original.wav "
        "--checkpoint runs/tiny/model -o out.wav"
    )


def test_another_model_in_the_same_folder_is_refused(
    trained: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    assert train_here(folder, *LONG, "--model.init_args.n_flows", "4") == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "train.py: runs/tiny holds another run (different: model.init_args.n_flows was 2, is now "
        "4): give the values it was made with to resume it, choose another folder with --run, or "
        "remove that one"
    )


def test_a_finished_model_can_be_the_start_of_a_new_run(
    trained: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    best = json.loads((folder / "runs/tiny/best/training.json").read_text())
    (kept,) = (row for row in rows(folder / "runs" / "tiny") if row["step"] == best["step"])
    for fused in (False, True):
        name = f"runs/fused-{fused}"
        start = "runs/tiny/model"
        if fused:
            start = f"{name}/start"
            load_checkpoint(folder / "runs" / "tiny" / "model").fused().save(folder / start)
        words = ["--run", name, "--start_from", start, "--max_steps", "1"]
        assert train_here(folder, *words, recipe=WithoutReport()) == 0
        first = rows(folder / name)[0]
        assert first["step"] == 0
        assert first["val/log_likelihood"] == pytest.approx(kept["val/log_likelihood"], abs=1e-3)
    start = "runs/tiny/model"
    other = ["--run", "runs/other", "--model.init_args.channels", "8"]
    assert train_here(folder, "--start_from", start, *other) == 2
    assert "weights in runs/tiny/model are of another model" in capsys.readouterr().err


@pytest.mark.parametrize("stop, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_asked_to_stop_saves_first(
    tmp_path: Path, stop: signal.Signals, code: int
) -> None:
    before = signal.getsignal(stop)
    with logged() as lines:
        words = ["--max_steps", "100000", "--trainer.val_check_interval", "100"]
        assert train_here(tmp_path, *words, recipe=WithoutReport(5, stop)) == code
    name = "Ctrl-C" if stop == signal.SIGINT else "SIGTERM"
    assert lines[-1] == f"stopped by {name}; run the same command again to resume"
    assert signal.getsignal(stop) == before
    saved = torch.load(tmp_path / "runs" / "tiny" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 5
    assert saved["vocoder_training"]["items_seen"] == 10


def test_two_devices_train_like_one_and_stop_together(tmp_path: Path) -> None:
    # At temperature 0 and on the whole batch, the sample does not depend on the device; the terms
    # set in one after the other, at steps 0, 3 and 5.
    (tmp_path / "terms.yaml").write_text(
        "terms:\n"
        "  - class_path: vocoder.training.terms.Likelihood\n"
        "  - class_path: vocoder.training.terms.Stft\n"
        "    init_args: {start: 3.0e-5}\n"
        "  - class_path: tests.test_training_terms.Discriminator\n"
        "    init_args: {start: 5.0e-5, learning_rate: 1.0e-3}\n"
        "training: {sample_temperature: 0.0, sample_fraction: 1.0, final_learning_rate: 1.0}\n"
    )
    words = ["--config", "terms.yaml", "--max_steps", "100000"]
    together = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--speech.batch_size", "1"]
    together += ["--run", "two"]
    run = tmp_path / "two"

    def stop_after(step: int, both: bool) -> dict[str, Any]:
        process = train(tmp_path, *words, *together)
        while not (run / "history.jsonl").exists() or rows(run)[-1]["step"] <= step:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        if both:  # as cluster managers do
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.send_signal(signal.SIGTERM)
        output = finish(process, 143)
        assert "run the same command again to resume" in output
        assert "Traceback" not in output
        saved: dict[str, Any] = torch.load(run / "last.ckpt", weights_only=True)
        assert saved["global_step"] > step
        return saved

    two = stop_after(0, both=False)
    step = two["global_step"]
    assert train_here(tmp_path, *words, "--run", "one", recipe=WithoutReport(step)) == 143
    one = torch.load(tmp_path / "one" / "last.ckpt", weights_only=True)
    assert one["global_step"] == step
    assert one["vocoder_training"] == two["vocoder_training"]
    # Adam turns rounding into steps of up to the learning rate, 1e-3, where gradients are small.
    for kind in ("state_dict", "current_model_state"):
        for name, value in one[kind].items():
            torch.testing.assert_close(value, two[kind][name], rtol=0, atol=3e-4 * step)

    step = stop_after(step, both=True)["global_step"]
    finish(train(tmp_path, *words, *together, "--max_steps", str(step + 2)))
    assert rows(run)[-1]["step"] == step + 2


# -- configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_builds_its_model(path: Path) -> None:
    assert path.read_text().startswith("# ")  # says why it is there
    options = parser(OF_VOCODER)
    # A file without a model states a difference from the default flow.
    whole = "class_path: vocoder.models" in path.read_text()
    files = [path] if whole else [RECIPE / "config" / "mdct.yaml", path]
    config = options.parse_args([word for file in files for word in ("--config", str(file))])
    objects = options.instantiate(config)
    assert isinstance(objects.model, Vocoder)
    assert all(isinstance(term, Term) for term in objects.terms)
    VocoderTraining(objects.model, objects.terms, **objects.training.as_dict())
    assert config.max_time is None or duration(config.max_time)


def test_the_low_latency_config_looks_ahead_as_far_as_it_says() -> None:
    path = RECIPE / "config" / "low-latency.yaml"
    files = ["--config", str(RECIPE / "config" / "mdct.yaml"), "--config", str(path)]
    model = parser(OF_VOCODER).instantiate(parser(OF_VOCODER).parse_args(files)).model
    _, ahead = model.context_frames
    milliseconds = round(1000 * ahead * model.mel_spec.hop_length / model.sample_rate)
    assert f"{ahead} frames, {milliseconds} ms" in path.read_text()


def test_later_files_and_the_command_line_override(tmp_path: Path) -> None:
    difference = tmp_path / "deep.yaml"
    difference.write_text("model:\n  init_args:\n    n_flows: 6\n    channels: 32\n")
    config = parser(OF_VOCODER).parse_args(
        ["--config", str(RECIPE / "config/tiny.yaml"), "--config", str(difference),
         "--model.init_args.channels", "24", "--trainer.devices", "2"]
    )  # fmt: skip
    assert config.model.init_args.n_flows == 6
    assert config.model.init_args.channels == 24
    assert config.model.init_args.split == "channels"
    assert str(config.trainer.devices) == "2"


@pytest.mark.parametrize(
    "text, seconds",
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800), ("5 min", 300),
     ("00:02:00:00", 7200)],
)  # fmt: skip
def test_durations(text: str, seconds: int) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "0s", "10", "soon", "-5m", "1:00"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(TrainingError, match="is not a duration"):
        duration(text)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data", "nowhere"], "nowhere has no metadata.csv"),
        (["--max_time", "soon"], "max_time 'soon' is not a duration"),
        (["--max_steps", "0"], "no budget is set"),
        (["--patience", "-1"], "--patience is -1: give 1 or more, or 0"),
        (["--model.init_args.n_flows", "-1"], "n_flows is -1"),
        (["--speech.crop_frames", "1"], "crop_frames is 1"),
        (["--average.decay", "2"], "decay is 2"),
        (["--terms", "[]"], "one of the terms must have start 0"),
        (["--terms", "[{class_path: Stft, init_args: {start: 2.0}}]"], "start is 2.0"),
        (["--trainer.devices", "none"], "`devices` selected with"),
        (["--start_from", "nowhere"], "there is no checkpoint at nowhere"),
        (["--no_such_option", "1"], "no_such_option"),
    ],
)
def test_bad_options_give_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert train_here(tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists()
