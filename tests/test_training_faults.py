"""A run is what its folder says, and what goes wrong in training ends in one sentence."""

import contextlib
import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import vocoder
from tests.conftest import full_disk
from tests.test_recipe_ljspeech import SAMPLE, Tiny, train_here
from vocoder.checkpoints import CheckpointError
from vocoder.models import MdctFlow
from vocoder.training import report as report_module
from vocoder.training.module import TrainingError
from vocoder.training.recipe import sentence
from vocoder.training.run import ResumeFiles, newest_resume_file, read_resume_file

QUICK = (
    "--max_steps", "1", "--run", "run", "--speech.validation_utterances", "1",
    "--speech.validation_seconds", "0.2", "--speech.crop_frames", "8",
)  # fmt: skip


def train(folder, *words, report=False):
    return train_here(folder, *QUICK, *words, recipe=Tiny(report=report))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of one step in `run`, its corpus prepared in `data`."""
    folder = tmp_path_factory.mktemp("trained")
    assert train(folder) == 0
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def last_line(capsys):
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "words, named",
    [
        (("--seed", "1"), "seed was 0, is now 1"),
        (("--model.init_args.n_flows", "4"), "model.init_args.n_flows was 2, is now 4"),
        (("--speech.gain_db", "[-1, 1]"), "speech.gain_db was [-9.0, 3.0], is now [-1.0, 1.0]"),
        (("--speech.batch_size", "3"), "items per step"),
        (("--trainer.precision", "bf16-mixed"), "trainer.precision was none, is now bf16-mixed"),
        (("--start_from", "run/model"), "start_from was none, is now run/model"),
        (("--losses", "[{class_path: Likelihood}]"), "losses was [{"),
    ],
)
def test_resuming_with_other_values_says_which(trained, capsys, words, named):
    before = (trained / "run" / "last.ckpt").read_bytes()
    assert train(trained, *words, "--max_steps", "2") == 2
    message = last_line(capsys)
    assert named in message
    assert message.startswith("train.py: run holds another run (different: ")
    assert "choose another folder with --run" in message
    assert (trained / "run" / "last.ckpt").read_bytes() == before


def test_resuming_with_another_corpus_or_version_says_so(trained, tmp_path, capsys, monkeypatch):
    other = shutil.copytree(SAMPLE, tmp_path / "other")
    one, two, *_ = sorted((other / "wavs").iterdir())
    shutil.copyfile(two, one)
    assert train(trained, "--data", str(other), "--max_steps", "2") == 2
    assert "data was hash " in last_line(capsys)
    version = vocoder.__version__
    monkeypatch.setattr(vocoder, "__version__", "99.0")
    assert train(trained, "--max_steps", "2") == 2
    assert f"the version of flow-vocoder was {version}, is now 99.0" in last_line(capsys)


def test_what_does_not_matter_may_change(copied, tmp_path):
    moved = shutil.copytree(SAMPLE, tmp_path / "moved")
    words = (
        "--data", str(moved), "--max_steps", "2", "--max_time", "1h", "--cache", "elsewhere",
        "--save_every", "7", "--trainer.val_check_interval", "3", "--speech.workers", "1",
        "--trainer.enable_progress_bar", "false",
    )  # fmt: skip
    record = (copied / "run" / "run.json").read_text(encoding="utf-8")
    assert train(copied, *words) == 0
    assert read_resume_file(copied / "run" / "last.ckpt")["global_step"] == 2
    assert read_resume_file(copied / "run" / "previous.ckpt")["global_step"] in (1, 2)
    assert (copied / "run" / "run.json").read_text(encoding="utf-8") == record


def test_a_fine_tuning_run_names_its_parent(copied):
    child = ("--run", "child", "--start_from", "run/model")
    assert train(copied, *child) == 0
    record = json.loads((copied / "child" / "run.json").read_text(encoding="utf-8"))
    assert record["start_from"]["path"] == "run/model"
    assert len(record["start_from"]["sha256"]) == 64
    # A parent that is gone does not keep its child from going on.
    shutil.rmtree(copied / "run")
    assert train(copied, *child, "--max_steps", "2") == 0


def test_two_processes_do_not_train_in_one_folder(trained, capsys):
    with FileLock(trained / "run" / ".lock"):
        assert train(trained, "--max_steps", "2") == 2
    assert "another process is training in run: wait until it ends, or choose" in last_line(capsys)


class Malicious:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "infect":
        torch.save(torch.load(path, weights_only=True) | {"extra": Malicious()}, path)
        return
    content[len(content) // 2] ^= how == "flip"
    replaced = pickle.dumps(Malicious()) if how == "replace" else content
    path.write_bytes(replaced[:-5000] if how == "truncate" else replaced)


@pytest.mark.parametrize("how", ["truncate", "flip", "infect", "replace"])
def test_a_damaged_resume_file_runs_nothing_and_the_one_before_it_serves(
    trained, tmp_path, how, caplog
):
    for name in ("last.ckpt", "previous.ckpt"):
        shutil.copyfile(trained / "run" / "last.ckpt", tmp_path / name)
    with contextlib.chdir(tmp_path):
        damage(tmp_path / "last.ckpt", how)
        assert newest_resume_file(tmp_path) == tmp_path / "previous.ckpt"
        assert f"{tmp_path}/last.ckpt is damaged" in caplog.text
        damage(tmp_path / "previous.ckpt", how)
        with pytest.raises(CheckpointError, match=r"last\.ckpt is .*previous\.ckpt is .*remove"):
            newest_resume_file(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_run_goes_on_from_the_file_before_a_damaged_one(copied, capsys):
    run = copied / "run"
    shutil.copyfile(run / "last.ckpt", run / "previous.ckpt")
    damage(run / "last.ckpt", "truncate")
    assert train(copied, "--max_steps", "2") == 0
    assert read_resume_file(run / "last.ckpt")["global_step"] == 2
    (run / "run.json").unlink()
    assert train(copied, "--max_steps", "3") == 2
    assert "run/run.json is missing or damaged, so what made the run" in last_line(capsys)


def test_two_resume_files_are_kept_and_a_full_disk_costs_neither(tmp_path, monkeypatch):
    files, path = ResumeFiles(), tmp_path / "last.ckpt"

    def steps():
        return {p.name: read_resume_file(p)["global_step"] for p in sorted(tmp_path.iterdir())}

    for step in (1, 2, 3):
        files.save_checkpoint({"global_step": step}, path)
    assert steps() == {"last.ckpt": 3, "previous.ckpt": 2}

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left") as caught:
            files.save_checkpoint({"global_step": 4}, path)
    assert str(path) in str(sentence(caught.value))
    assert steps() == {"last.ckpt": 3, "previous.ckpt": 2}  # and no partial file


def test_what_fails_after_training_costs_neither_model_nor_report(copied, capsys, monkeypatch):
    shutil.rmtree(copied / "run" / "model")
    with monkeypatch.context() as patch:
        patch.setattr(report_module, "write_audio", full_disk)
        assert train(copied, "--max_steps", "2", report=True) == 2
    message = last_line(capsys)
    assert "the model is trained and in run/model, but its report is not complete" in message
    assert "No space left on device" in message
    assert isinstance(vocoder.load(copied / "run" / "model"), MdctFlow)
    assert "steps: 2" in (copied / "run" / "report.md").read_text(encoding="utf-8")

    def silent(self, mel, *_, **__):
        samples = mel.shape[-1] * self.mel_spec.hop_length
        return torch.full((*mel.shape[:-2], samples), torch.nan)

    monkeypatch.setattr(MdctFlow, "synthesize", silent)
    assert train(copied, "--max_steps", "3", report=True) == 2
    message = last_line(capsys)
    assert "training has diverged: what the model makes is not finite: ru_0209" in message
    assert "lower training.learning_rate" in message
    assert "steps: 3" in (copied / "run" / "report.md").read_text(encoding="utf-8")
    json.loads((copied / "run" / "report.json").read_text(), parse_constant=pytest.fail)
    assert len(list((copied / "run" / "held-out").glob("*.original.wav"))) == 3


@pytest.mark.parametrize(
    "error, words",
    [
        (TrainingError("two\n lines"), "two lines"),
        (MisconfigurationException("no GPU"), "no GPU"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied"),
        (MemoryError(), "not enough memory: lower --speech.batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "(CUDA out of memory"),
        (RuntimeError("shape"), None),
        (KeyError("x"), None),
    ],
)
def test_errors_that_users_can_mend_have_a_sentence(error, words):
    found = sentence(error)
    assert (found is None) == (words is None)
    assert (words or "") in (found or "")
    assert "\n" not in (found or "")
