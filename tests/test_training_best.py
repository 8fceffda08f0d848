"""Which weights a run ends with, on the sample corpus."""

import math

import pytest
import torch

from tests.conftest import one_thread
from tests.test_recipe_ljspeech import Tiny, rows, train_here
from vocoder.models import load_checkpoint
from vocoder.training.callbacks import AveragedWeights, Validations

LIKELIHOOD = "{class_path: vocoder.training.losses.Likelihood}"
WORDS = (
    "--run", "run", "--losses", f"[{LIKELIHOOD}]",
    "--monitor", "val/log_likelihood", "--average.decay", "0.5",
    "--speech.validation_utterances", "1", "--speech.validation_seconds", "0.3",
)  # fmt: skip


def spoil(after):
    """For `Tiny`: noise on the weights from a step on."""

    def every_step(trainer, module):
        if trainer.global_step > after:
            torch.manual_seed(trainer.global_step)
            for parameter in module.model.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)

    return every_step


def best(run):
    """Step and score of the best validation that counts, the first of equals."""
    counting = [row for row in rows(run) if row["counts"]]
    row = max(counting, key=lambda row: row["val/log_likelihood"])
    return row["step"], row["val/log_likelihood"]


def assert_same_model(one, other):
    a, b = (load_checkpoint(path).fused().state_dict() for path in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name])


def test_a_run_that_gets_worse_ends_with_its_best_weights(tmp_path):
    run = tmp_path / "run"
    with one_thread():
        recipe = Tiny(spoil(10), report=True)
        assert train_here(tmp_path, *WORDS, "--max_steps", "25", recipe=recipe) == 0
        scores = {row["step"]: row["val/log_likelihood"] for row in rows(run)}
        assert list(scores) == [0, 10, 20, 25]
        assert scores[10] > scores[20] > scores[25]
        assert best(run) == (10, scores[10])
        assert_same_model(run / "model", run / "best")
        # It scores what it says.
        words = [*WORDS, "--run", "again", "--start_from", "run/model", "--max_steps", "10"]
        assert train_here(tmp_path, *words, recipe=Tiny(spoil(0))) == 0
    assert rows(tmp_path / "again")[0]["val/log_likelihood"] == pytest.approx(scores[10])
    page = (run / "report.md").read_text()
    assert f"the best by val/log_likelihood, {scores[10]:.3f}, of step 10 after " in page
    assert f"(start {scores[0]:.3f}, end {scores[25]:.3f})" in page
    # A start that is better than all that follows is what the run ends with.
    assert best(tmp_path / "again")[0] == 0
    assert_same_model(tmp_path / "again" / "model", run / "model")


def test_patience_ends_a_run_that_gets_no_better(tmp_path):
    words = [*WORDS, "--max_steps", "1000", "--patience", "2"]
    with one_thread():
        for _ in range(2):  # the same command again changes nothing
            assert train_here(tmp_path, *words, recipe=Tiny(spoil(10))) == 0
            assert [row["step"] for row in rows(tmp_path / "run")] == [0, 10, 20, 30]
            assert best(tmp_path / "run")[0] == 10
        longer = [*words[:-1], "3"]
        assert train_here(tmp_path, *longer, recipe=Tiny(spoil(10))) == 0
    assert rows(tmp_path / "run")[-1]["step"] == 40
    assert_same_model(tmp_path / "run" / "model", tmp_path / "run" / "best")


def test_validations_before_all_losses_apply_do_not_count(tmp_path):
    found = Validations(tmp_path, AveragedWeights(), "val/mel_distance", 2, from_start=True)
    scores = [(0, True, 3.0), (5, False, 1.0), (10, True, 2.0), (15, True, math.nan), (20, True, 2)]
    rows = [{"step": n, "counts": yes, "val/mel_distance": value} for n, yes, value in scores]
    assert found.best(rows) == (rows[2], 2)
    assert found.best(rows[:2]) == (rows[0], 0)
    assert found.best(rows[1:2]) == (None, 0)


def test_a_score_that_is_not_measured_is_refused(tmp_path, capsys):
    assert train_here(tmp_path, *WORDS, "--monitor", "val/pesq") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "train.py: --monitor val/pesq is not among the scores of a validation: give one of "
        "val/log_likelihood, val/mel_distance"
    )
