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
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from vocoder.training.errors import TrainingError
from vocoder.training.objectives import Objective

from vocoder.audio import fade
from vocoder.corpus import held_out
from vocoder.models import Vocoder, load_checkpoint
from vocoder.training.recipe import Recipe, differing_keys, duration, main, parser

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "ljspeech"
CONFIGS = sorted(
    path for path in (RECIPE / "config").glob("*.yaml") if path.stem != "acoustic"
)  # that one is of another recipe, see test_text_training.py
OF_VOCODER = Recipe("", RECIPE / "config" / "tiny.yaml", RECIPE / "sample")


def train(cwd: Path, *arguments: str, config: str = "tiny") -> subprocess.Popen[str]:
    command = [sys.executable, str(RECIPE / "train.py")]
    if config:
        command += ["--config", str(RECIPE / "config" / f"{config}.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
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


def train_here(folder: Path, *arguments: str) -> int:
    """The same within this process, which saves the seconds of its imports; the exit code."""
    tiny = RECIPE / "config" / "tiny.yaml"
    before = logging.getLogger("lightning").level
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            options = ["--config", str(tiny), *arguments, "--trainer.accelerator", "cpu"]
            return main(OF_VOCODER, options)
        except SystemExit as left:  # how jsonargparse refuses an option
            return left.code if isinstance(left.code, int) else 1
        finally:
            for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
                logging.getLogger(name).setLevel(before)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the tiny run was killed, resumed and finished, and its last output."""
    folder = tmp_path_factory.mktemp("recipe")
    run = folder / "runs" / "tiny"
    process = train(folder, "--max_steps", "100", "--save_every", "0")
    while not (run / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed_at = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < killed_at < 100
    assert not (run / "model").exists()
    return folder, finish(train(folder, "--max_steps", "100"))


def test_a_killed_run_goes_on_and_finishes(trained: tuple[Path, str]) -> None:
    folder, output = trained
    run = folder / "runs" / "tiny"
    assert "going on from runs/tiny/last.ckpt" in output
    saved = torch.load(run / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 100
    assert saved["vocoder_training"]["items_seen"] == 100 * 2
    steps = [row["step"] for row in rows(run)]
    assert steps[0] == 0
    assert steps[-1] == 100
    assert steps == sorted(steps)
    assert rows(run)[-1]["val/mel_distance"] < rows(run)[0]["val/mel_distance"]
    assert not [*run.glob("*.partial"), *run.glob(".*.part")]


def test_the_run_leaves_a_model_wavs_and_a_report(trained: tuple[Path, str]) -> None:
    folder, output = trained
    run = folder / "runs" / "tiny"
    model = load_checkpoint(run / "model")
    # The averaged weights, not the last ones.
    saved = torch.load(run / "last.ckpt", weights_only=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, saved["state_dict"][f"model.{name}"])
    for id in held_out(RECIPE / "sample").test:
        original, rate = soundfile.read(run / "held-out" / f"{id}.original.wav")
        made, made_rate = soundfile.read(run / "held-out" / f"{id}.wav")
        assert rate == made_rate == 16000
        recorded, _ = soundfile.read(RECIPE / "sample" / "wavs" / f"{id}.flac", dtype="int16")
        faded = np.rint(fade(recorded[: len(original)].astype(np.float32), 256)) / 32768
        assert (original == faded).all()
        mel = model.mel(torch.from_numpy(original).float())
        expected = model.synthesize(mel, 0.667, seed=0)
        assert len(made) == len(expected)
        torch.testing.assert_close(torch.from_numpy(made).float(), expected, atol=1e-3, rtol=0)
    report = (run / "report.md").read_text()
    for fact in ("20 utterances to train on", "steps: 100, of which 0 skipped", "seed: 0", "nats"):
        assert fact in report
    assert len(report.splitlines()) < 60
    assert (run / "report.png").stat().st_size > 10_000
    command = output.strip().splitlines()[-1].strip()
    assert command == (
        "vocoder resynthesize runs/tiny/held-out/ru_0209.original.wav "
        "--checkpoint runs/tiny/model -o out.wav"
    )


def test_another_model_in_the_same_folder_is_refused(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    assert train_here(folder, "--model.init_args.n_flows", "4") == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "train.py: runs/tiny holds a run of another model (model.init_args.n_flows differ): "
        "choose another folder with --run, or remove that one"
    )


def test_a_finished_model_can_be_the_start_of_a_new_run(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    last = rows(folder / "runs" / "tiny")[-1]
    for fused in (False, True):
        name = f"runs/fused-{fused}"
        start = "runs/tiny/model"
        if fused:
            start = f"{name}/start"
            load_checkpoint(folder / "runs" / "tiny" / "model").fused().save(folder / start)
        code = train_here(folder, "--run", name, "--start_from", start, "--max_steps", "1")
        assert code == 0
        first = rows(folder / name)[0]
        assert first["step"] == 0
        assert first["val/log_likelihood"] == pytest.approx(last["val/log_likelihood"], abs=1e-3)
    start = "runs/tiny/model"
    other = ["--run", "runs/other", "--model.init_args.channels", "8"]
    assert train_here(folder, "--start_from", start, *other) == 2
    assert "weights in runs/tiny/model are of another model" in capsys.readouterr().err


@pytest.mark.parametrize("stop, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_asked_to_stop_saves_first(
    tmp_path: Path, stop: signal.Signals, code: int
) -> None:
    process = train(tmp_path, "--max_steps", "100000", "--trainer.val_check_interval", "5")
    history = tmp_path / "runs" / "tiny" / "history.jsonl"
    while not history.exists() or rows(history.parent)[-1]["step"] < 5:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(stop)
    assert "the same command goes on from here" in finish(process, code)
    saved = torch.load(history.parent / "last.ckpt", weights_only=True)
    assert saved["global_step"] >= 5
    assert saved["vocoder_training"]["items_seen"] == 2 * saved["global_step"]


def test_two_devices_train_together(tmp_path: Path) -> None:
    together = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--speech.batch_size", "1"]
    finish(train(tmp_path, "--max_steps", "6", "--run", "two", *together))
    assert train_here(tmp_path, "--max_steps", "6", "--run", "one") == 0
    # The same crops in batches of the same size: the same weights but for rounding, as long as
    # the spectral term, of which every device computes its share, has not set in.
    scores = [rows(tmp_path / run)[-1] for run in ("one", "two")]
    assert scores[0]["audio_seconds"] == scores[1]["audio_seconds"]
    assert scores[0]["step"] == scores[1]["step"] == 6
    assert scores[0]["val/log_likelihood"] == pytest.approx(
        scores[1]["val/log_likelihood"], abs=0.2
    )


@pytest.mark.parametrize("both", [True, False])
def test_devices_that_are_asked_to_stop_do_so_together(tmp_path: Path, both: bool) -> None:
    together = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--speech.batch_size", "1"]
    process = train(tmp_path, "--max_steps", "100000", *together)
    run = tmp_path / "runs" / "tiny"
    while not (run / "history.jsonl").exists() or len(rows(run)) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    if both:  # as cluster managers do
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    output = finish(process, 143)
    assert "the same command goes on from here" in output
    assert "Traceback" not in output
    step = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    finish(train(tmp_path, "--max_steps", str(step + 2), *together))
    assert rows(run)[-1]["step"] == step + 2


# -- configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_builds_its_model(path: Path) -> None:
    assert path.read_text().startswith("# ")  # says why it is there
    options = parser(OF_VOCODER)
    # A file that names no model of its own is a difference from the default flow.
    whole = "class_path: vocoder.models" in path.read_text()
    files = [path] if whole else [RECIPE / "config" / "mdct.yaml", path]
    config = options.parse_args([word for file in files for word in ("--config", str(file))])
    made = options.instantiate(config)
    assert isinstance(made.model, Vocoder)
    assert isinstance(made.objective, Objective)
    assert config.max_time is None or duration(config.max_time)


def test_the_low_latency_config_looks_ahead_as_far_as_it_says() -> None:
    path = RECIPE / "config" / "low-latency.yaml"
    files = ["--config", str(RECIPE / "config" / "mdct.yaml"), "--config", str(path)]
    made = parser(OF_VOCODER).instantiate(parser(OF_VOCODER).parse_args(files)).model
    _, ahead = made.context_frames
    milliseconds = round(1000 * ahead * made.mel_spec.hop_length / made.sample_rate)
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
    assert config.model.init_args.squeeze == "lapped"
    assert str(config.trainer.devices) == "2"


@pytest.mark.parametrize(
    "text, seconds",
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800), ("5 min", 300),
     ("00:02:00:00", 7200)],
)  # fmt: skip
def test_durations(text: str, seconds: int) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "0s", "10", "soon", "-5m", "1:00"])
def test_no_durations(text: str) -> None:
    with pytest.raises(TrainingError, match="no length of time"):
        duration(text)


def test_differences_are_named() -> None:
    a = {"class_path": "A", "init_args": {"x": 1, "y": [1, 2], "gone": 1}}
    b = {"class_path": "A", "init_args": {"x": 1, "y": [1, 3], "new": 2}}
    assert differing_keys(a, b, "model") == ["model.init_args.y"]
    assert differing_keys(a, {"class_path": "B"}, "model") == ["model.class_path"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data", "nowhere"], "nowhere has no metadata.csv"),
        (["--max_time", "soon"], "max_time 'soon' is no length of time"),
        (["--max_steps", "0"], "there is no end"),
        (["--model.init_args.n_flows", "0"], "n_flows is 0"),
        (["--speech.crop_frames", "1"], "crop_frames is 1"),
        (["--average.decay", "2"], "decay is 2"),
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
