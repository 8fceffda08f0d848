"""Which weights a run ends with, on the sample corpus."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.conftest import one_thread
from tests.test_recipe_ljspeech import RECIPE, ROOT, rows, train_here
from vocoder.models import load_checkpoint
from vocoder.training.recipe import Recipe

WORDS = (
    "--run", "run", "--terms", "[{class_path: vocoder.training.terms.Likelihood}]",
    "--monitor", "val/log_likelihood", "--average.decay", "0.5",
    "--speech.validation_utterances", "1", "--speech.validation_seconds", "0.3",
)  # fmt: skip


class Spoiled(Recipe):
    """From a step on, noise is added to the weights; at another the process kills itself."""

    def __init__(
        self, after: int, kill_at: int = -1, report: bool = False, noise: float = 0.02
    ) -> None:
        super().__init__("", RECIPE / "config" / "tiny.yaml", RECIPE / "sample")
        self.after = after
        self.kill_at = kill_at
        self.reports = report
        self.noise = noise

    def callbacks(self) -> list[Any]:
        recipe = self

        class Spoil(Callback):
            def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
                step = trainer.global_step
                if step == recipe.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                if step > recipe.after:
                    torch.manual_seed(step)
                    for parameter in pl_module.model.parameters():
                        parameter.data += recipe.noise * torch.randn_like(parameter)

        return [Spoil()]

    def report(self, *args: Any) -> None:
        if self.reports:
            super().report(*args)


def best(run: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((run / "best" / "training.json").read_text())
    return facts


def assert_same_model(one: Path, other: Path) -> None:
    a, b = (load_checkpoint(path).fused().state_dict() for path in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name])


def test_a_run_that_gets_worse_ends_with_its_best_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with one_thread():
        recipe = Spoiled(10, report=True)
        assert train_here(tmp_path, *WORDS, "--max_steps", "25", recipe=recipe) == 0
        scores = {row["step"]: row["val/log_likelihood"] for row in rows(run)}
        assert list(scores) == [0, 10, 20, 25]
        assert scores[10] > scores[20] > scores[25]
        facts = best(run)
        assert (facts["step"], facts["score"]) == (10, scores[10])
        assert not (run / "best.next").exists()
        assert_same_model(run / "model", run / "best")
        # It scores what it says.
        words = [*WORDS, "--run", "again", "--start_from", "run/model", "--max_steps", "10"]
        assert train_here(tmp_path, *words, recipe=Spoiled(0)) == 0
    assert rows(tmp_path / "again")[0]["val/log_likelihood"] == pytest.approx(scores[10])
    page = (run / "report.md").read_text()
    assert f"the best by val/log_likelihood, {scores[10]:.3f}, of step 10 after " in page
    assert f"the start ({scores[0]:.3f}) was " in page
    # A start that is better than all that follows is what the run ends with.
    assert best(tmp_path / "again")["step"] == 0
    assert_same_model(tmp_path / "again" / "model", run / "model")


def test_patience_ends_a_run_that_gets_no_better(tmp_path: Path) -> None:
    words = [*WORDS, "--max_steps", "1000", "--patience", "2"]
    with one_thread():
        for _ in range(2):  # the same command again changes nothing
            assert train_here(tmp_path, *words, recipe=Spoiled(10)) == 0
            assert [row["step"] for row in rows(tmp_path / "run")] == [0, 10, 20, 30]
            assert best(tmp_path / "run")["step"] == 10
        longer = [*words[:-1], "3"]
        assert train_here(tmp_path, *longer, recipe=Spoiled(10)) == 0
    assert rows(tmp_path / "run")[-1]["step"] == 40
    assert_same_model(tmp_path / "run" / "model", tmp_path / "run" / "best")


def test_a_killed_run_remembers_its_best(tmp_path: Path) -> None:
    words = [*WORDS, "--max_steps", "40", "--save_every", "0"]
    script = (
        "import sys; from tests.test_training_best import *; "
        f"train_here(Path({str(tmp_path)!r}), *sys.argv[1:], recipe=Spoiled(10, kill_at=25))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script, *words], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    found = best(tmp_path / "run")
    assert found["step"] == 10
    with one_thread():
        assert train_here(tmp_path, *words, recipe=Spoiled(10)) == 0
    assert best(tmp_path / "run") == found
    assert [row["step"] for row in rows(tmp_path / "run")] == [0, 10, 20, 30, 40]
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert saved["callbacks"]["Best"] == {"waited": 3}
    assert_same_model(tmp_path / "run" / "model", tmp_path / "run" / "best")


def test_a_best_that_was_being_replaced_at_a_kill_is_whole(tmp_path: Path) -> None:
    with one_thread():
        words = [*WORDS, "--max_steps", "20"]
        assert train_here(tmp_path, *words, recipe=Spoiled(100)) == 0
        run = tmp_path / "run"
        found = best(run)
        (run / "best").rename(run / "best.next")  # between the two steps of the exchange
        assert train_here(tmp_path, *words, recipe=Spoiled(100)) == 0
        assert best(run) == found
        (run / "best.next").mkdir()  # within the first: nothing of it counts
        assert train_here(tmp_path, *words, recipe=Spoiled(100)) == 0
    assert best(run) == found


def test_until_all_terms_have_started_no_validation_is_the_best(tmp_path: Path) -> None:
    stft = "{class_path: vocoder.training.terms.Stft, init_args: {start: 0.6}}"
    words = [*WORDS[:2], "--terms", f"[{{class_path: vocoder.training.terms.Likelihood}}, {stft}]"]
    words += [*WORDS[4:], "--max_steps", "40", "--patience", "1"]
    with one_thread():
        assert train_here(tmp_path, *words, recipe=Spoiled(10, noise=0.004)) == 0
    assert best(tmp_path / "run")["step"] == 30
    assert rows(tmp_path / "run")[1]["val/log_likelihood"] > best(tmp_path / "run")["score"]


def test_a_score_that_is_not_measured_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path, *WORDS, "--monitor", "val/pesq", recipe=Spoiled(0)) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "train.py: --monitor val/pesq is not among the scores of a validation: give one of "
        "val/log_likelihood, val/mel_distance"
    )
