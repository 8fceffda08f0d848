"""Studies of variants: each builds at the cost it claims; the runner; the tables."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import scripts
from vocoder.models import FlowVocoder
from vocoder.training.recipe import Recipe, main, parser

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "ljspeech"
STUDY = RECIPE / "ablation"
OF_VOCODER = Recipe("", RECIPE / "config" / "mdct.yaml", RECIPE / "sample")
VARIANTS = sorted(
    (path.parent.name, path.stem) for path in STUDY.glob("*/*.yaml") if path.stem != "study"
)


@pytest.fixture(scope="module")
def runner() -> Iterator[Any]:
    with scripts("recipes/ljspeech/ablation") as script:
        yield script("run")


@pytest.fixture(scope="module")
def ablation() -> Iterator[Any]:
    """The command that prints the table."""
    with scripts("docs/scripts") as script:
        yield script("ablation")


@pytest.fixture(scope="module")
def report() -> Iterator[Any]:
    with scripts("docs/scripts") as script:
        yield script("report.ablation")


def given(runner: Any, folder: Path, *words: str, study: str = "flow") -> Any:
    runs = ["--runs", str(folder / "runs")]
    return runner.options([study, "--data", "sample", *runs, *words])


# -- variants ----------------------------------------------------------------------------------


@pytest.mark.parametrize("study", sorted({study for study, _ in VARIANTS}))
def test_every_variant_builds_and_costs_what_the_base_does(
    runner: Any, tmp_path: Path, study: str
) -> None:
    arguments = given(runner, tmp_path, "--model.init_args.mel_spec", "speech-16k", study=study)
    recipe = parser(OF_VOCODER)
    costs = {}
    for name, path in runner.variants(study).items():
        config = recipe.parse_args(runner.recipe_words(arguments, name))
        for key, value in runner.difference(path).items():
            if key != "terms":  # whose defaults have been filled in
                assert config[key] == value, f"{name}: {key}"
        made = recipe.instantiate(config)
        assert isinstance(made.model, FlowVocoder)
        costs[name] = runner.cost(made.model)
    assert costs["base"] == pytest.approx(0.318e9, rel=0.01)
    for name, cost in costs.items():
        assert cost == pytest.approx(costs["base"], rel=0.06), name


@pytest.mark.parametrize("study, name", VARIANTS)
def test_every_variant_says_what_it_asks_and_states_a_difference(
    runner: Any, study: str, name: str
) -> None:
    path = STUDY / study / f"{name}.yaml"
    question = path.read_text().splitlines()[0]
    assert question.startswith("# ")
    assert question.endswith((".", "?"))
    assert 1 <= len(runner.difference(path)) <= 3


# -- the runner --------------------------------------------------------------------------------


def test_a_study_runs_skips_what_is_done_and_records_failures(
    runner: Any,
    ablation: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    study = tmp_path / "studies" / "small"
    study.mkdir(parents=True)
    (study / "study.yaml").write_text("snapshot_minutes: null\n")
    (study / "broken.yaml").write_text("# No such number.\nmodel:\n  init_args:\n    n_flows: -1\n")
    monkeypatch.setattr(runner, "HERE", study.parent)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    in_a_process = runner.train

    def train(words: list[str], log: Path) -> int:
        """In a process of its own, but here where that succeeds: its imports take seconds."""
        if words[-1].endswith("broken"):
            return int(in_a_process(words, log))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return main(OF_VOCODER, words)

    monkeypatch.setattr(runner, "train", train)
    words = ["small", "--data", "sample", "--runs", str(tmp_path / "runs"), "--utterances", "1"]
    for option, value in {
        "max_steps": "2",
        "model.init_args.mel_spec": "speech-16k",
        "model.init_args.channels": "8",
        "model.init_args.n_layers": "1",
        "speech.batch_size": "2",
        "speech.validation_seconds": "1",
        "training.validation_syntheses": "1",
        "trainer.accelerator": "cpu",
        "cache": str(tmp_path / "cache"),
    }.items():
        words += [f"--{option}", value]
    assert runner.main(words) == 0
    out = capfd.readouterr().out
    assert "base: finished" in out
    assert "broken: failed" in out
    path = tmp_path / "runs" / "small" / "result.json"
    assert f"python docs/scripts/ablation.py {path}" in out
    monkeypatch.setattr(sys, "argv", ["ablation.py", str(path)])
    ablation.main()
    table = capfd.readouterr().out
    assert "| **base** |" in table
    assert "failed: train.py" in table
    result = json.loads(path.read_text())
    (row,) = result["runs"]
    assert (row["name"], row["steps"]) == ("base", 2)
    (utterance,) = row["test"]
    assert {"utterance", "log_likelihood", "log_mel_distance"} <= utterance.keys()
    (failure,) = result["failures"]
    assert "n_flows is -1" in failure["message"]
    # The same command skips what is finished and tries again what failed.
    tried = []
    monkeypatch.setattr(runner, "train", lambda words, _: tried.append(words[-1]) or 130)
    assert runner.main(words) == 130
    assert "base: already finished" in capfd.readouterr().out
    assert tried == [str(tmp_path / "runs" / "small" / "broken")]
    # Another command does not take these results for its own.
    assert runner.main([*words, "--max_steps", "3"]) == 2
    assert "other settings" in capfd.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--utterances", "0"], "--utterances must be 1 or more"),
        (["--only", "nothing"], "there is no variant nothing"),
    ],
)
def test_bad_options_give_one_sentence(
    runner: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        given(runner, tmp_path, *words)
    assert message in capsys.readouterr().err


def test_after_an_interruption_nothing_more_is_started(
    runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def work(_: argparse.Namespace, name: str) -> int:
        started.append(name)
        return 130 if name == "flows-2" else 0

    monkeypatch.setattr(runner, "work", work)
    words = ["flow", "--data", "sample", "--runs", str(tmp_path)]
    assert runner.main([*words, "--only", "base", "flows-2", "flows-8"]) == 130
    assert started == ["base", "flows-2"]


# -- the tables --------------------------------------------------------------------------------


def row(name: str, changes: dict[str, Any], likelihood: float, pesq: float) -> dict[str, Any]:
    """A finished run of two utterances around the given means."""
    test = [
        {"utterance": id, "log_likelihood": likelihood + d, "pesq": pesq + d, "stoi": None}
        for id, d in (("a", 0.1), ("b", -0.1))
    ]
    return {
        "name": name,
        "difference": changes,
        "settings": {"minutes": 15.0},
        "facts": {"data": "speech", "hardware": "CPU", "precision": "32"},
        "parameters": 8_850_000,
        "gmac_per_audio_second": 0.556,
        "look_ahead_frames": 57,
        "steps": 1000,
        "audio_seconds": 12_345.6,
        "times_real_time_per_core": 66.0,
        "temperature": 0.5,
        "test": test,
    }


def test_the_tables_say_what_was_measured(report: Any) -> None:
    changes = {"model.init_args.n_flows": 4, "model.init_args.conv1x1_init": ["even-odd", "x|y"]}
    terms = [{"class_path": "a.L"}, {"class_path": "a.Stft", "init_args": {"weight": 1.5}}]
    runs = [
        row("base", {}, 4.9, 1.8),
        row("likelihood", {"terms": terms}, 5.0, 1.3),
        row("flows-4", changes, 4.8, 1.9),
    ]
    result = {"runs": runs, "failures": [{"name": "deep", "message": "too slow"}]}
    table = report.ablation_table(result).splitlines()
    names = [line.split("|")[1].strip() for line in table[2:6]]
    assert names == ["flows-4", "**base**", "likelihood", "deep"]  # best PESQ first
    assert "n_flows 4; conv1x1_init even-odd, x\\|y" in table[2]
    assert "1.90 (+0.10 ± 0.00)" in table[2]
    assert "4.800 (-0.100 ± 0.000)" in table[2]
    assert "| terms L, Stft (weight 1.5) |" in table[4]
    assert "failed: too slow" in table[5]
    assert len({line.replace("\\|", "").count("|") for line in table[:6]}) == 1
    assert "15 minutes" in table[-1]
    assert "tone" not in table[0]
    with_tones = {**result, "runs": [{**run, "tone_excess_db": 6.54} for run in runs]}
    assert "| 6.5 dB |" in report.ablation_table(with_tones).splitlines()[2]
    shaped = [{"temperature": 0.8, "band_temperature": [1.0, 0.5], "test": runs[0]["test"]}]
    temperature = report.temperature_table({"temperatures": shaped})
    assert temperature.splitlines()[2] == "| 0.8 | 1 → 0.5 | 1.80 |"
    nothing = report.ablation_table({"runs": [], "failures": result["failures"]})
    assert "failed: too slow" in nothing
