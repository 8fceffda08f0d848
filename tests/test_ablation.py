"""The architecture study: its variants build at the cost they claim, its runner and its tables."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from vocoder.models import WaveGlow
from vocoder.training.objectives import Objective
from vocoder.training.recipe import parser

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "recipes" / "ljspeech" / "ablation"
STUDIES = sorted(path.parent.name for path in STUDY.glob("*/study.yaml"))
VARIANTS = sorted(
    (path.parent.name, path.stem) for path in STUDY.glob("*/*.yaml") if path.stem != "study"
)
CHEAPER = {"frames-narrow", "separable"}
"""Variants that are meant to cost less than the base."""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The modules of the study, which are scripts beside each other and not in a package."""
    before = set(sys.modules)
    for folder in (STUDY, ROOT / "docs"):
        monkeypatch.syspath_prepend(str(folder))
    names = ("run", "job", "ablation")
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in set(sys.modules) - before:
        if name in {*names, "filling"}:
            del sys.modules[name]


def given(run: ModuleType, folder: Path, *words: str) -> argparse.Namespace:
    runs = ["--runs", str(folder / "runs"), "--out", str(folder / "out")]
    found: argparse.Namespace = run.options(
        ["frames", "--data", "sample", "--minutes", "0.02", *runs, *words]
    )
    return found


# -- variants ----------------------------------------------------------------------------------


@pytest.mark.parametrize("study", STUDIES)
def test_every_variant_builds_and_costs_what_the_base_does(
    scripts: SimpleNamespace, tmp_path: Path, study: str
) -> None:
    arguments = given(scripts.run, tmp_path, "--model.init_args.mel_spec", "speech-16k")
    arguments.study = study
    recipe = parser(scripts.job.Variant(arguments))
    costs = {}
    for name in scripts.run.variants(study):
        config = recipe.parse_args(scripts.run.recipe_words(arguments, name))
        for key, value in scripts.run.difference(study, name).items():
            assert config[key] == value, f"{name}: {key}"
        made = recipe.instantiate(config)
        assert isinstance(made.model, WaveGlow)
        assert isinstance(made.objective, Objective)
        costs[name] = scripts.job.cost(made.model)
    base = costs["base"]
    assert base == pytest.approx({"bands": 0.556e9, "frames": 0.318e9}[study], rel=0.01)
    for name, cost in costs.items():
        cheap = name in CHEAPER
        assert cost < 0.65 * base if cheap else cost == pytest.approx(base, rel=0.06), name


@pytest.mark.parametrize("study, name", VARIANTS)
def test_every_variant_says_what_it_asks_and_states_a_difference(
    scripts: SimpleNamespace, study: str, name: str
) -> None:
    assert (STUDY / study / f"{name}.yaml").read_text().startswith("# ")
    assert scripts.run.question(study, name).endswith((".", "?"))
    assert 1 <= len(scripts.run.difference(study, name)) <= 3


# -- the runner --------------------------------------------------------------------------------


def test_the_study_runs_skips_what_is_done_and_records_failures(
    scripts: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Plain blocks have no bands, so that variant fails by an option that the base takes.
    words = ["--only", "blocks", "base", "--utterances", "1"]
    for option, value in {
        "model.init_args.mel_spec": "speech-16k",
        "model.init_args.n_flows": "2",
        "model.init_args.channels": "8",
        "model.init_args.n_layers": "1",
        "model.init_args.band_temperature": "[1.0, 0.9]",
        "speech.batch_size": "2",
        "trainer.accelerator": "cpu",
        "cache": str(tmp_path / "cache"),
    }.items():
        words += [f"--{option}", value]
    arguments = given(scripts.run, tmp_path, *words)
    assert scripts.run.run(arguments) == 0
    out = capsys.readouterr().out
    assert "base: finished" in out
    assert "blocks: failed" in out
    result = json.loads((tmp_path / "out" / "ablation" / "frames.json").read_text())
    (row,) = result["runs"]
    assert row["name"] == "base"
    assert row["steps"] > 0
    # The end comes between two steps, and steps are short here.
    assert 1.2 <= row["processor_seconds"] < 4
    assert row["wall_seconds"] > 0.9 * row["processor_seconds"]
    (utterance,) = row["test"]
    assert {"utterance", "log_likelihood", "log_mel_distance"} <= utterance.keys()
    assert -20 < row["tone_excess_db"] < 60
    (failure,) = result["failures"]
    assert "band_temperature" in failure["message"]
    page = (tmp_path / "out" / "ablation.md").read_text()
    assert "failed: train.py" in page
    assert (tmp_path / "out" / "ablation" / "frames.png").stat().st_size > 5000
    # The same command has nothing left to do, and another one does not take these for its own.
    assert scripts.run.run(arguments) == 0
    out = capsys.readouterr().out
    assert "base: finished before" in out
    assert "blocks: failed before" in out
    assert "starts" not in out
    arguments.minutes = 1.0
    assert scripts.run.run(arguments) == 2
    assert "other settings (minutes)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--minutes", "0"], "--minutes must be above 0"),
        (["--only", "nothing"], "there is no variant nothing"),
    ],
)
def test_bad_options_give_one_sentence(
    scripts: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        given(scripts.run, tmp_path, *words)
    assert message in capsys.readouterr().err


def test_more_jobs_than_cores_are_refused(
    scripts: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scripts.run.run(given(scripts.run, tmp_path, "--jobs", "10000")) == 2
    assert "share cores" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_after_an_interruption_nothing_more_is_started(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def start(given: argparse.Namespace, name: str, cores: list[int]) -> SimpleNamespace:
        """The first stops for a signal at once, the second only after some looks at it."""
        started.append(name)
        looks = iter([130] if name == "blocks" else [None, None, 0])
        process = SimpleNamespace(returncode=None)

        def poll() -> int | None:
            process.returncode = next(looks)
            return process.returncode

        process.poll = poll
        return process

    monkeypatch.setattr(scripts.run, "start", start)
    before = signal.getsignal(signal.SIGTERM)
    arguments = given(scripts.run, tmp_path)
    assert scripts.run.work_off(arguments, ["blocks", "plu", "shared"], [[0], [1]]) == 130
    assert started == ["blocks", "plu"]
    signal.signal(signal.SIGTERM, before)


def test_the_clock_counts_work_and_not_waiting(scripts: SimpleNamespace) -> None:
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    module: Any = None
    clock = scripts.job.ProcessorTime(timedelta(minutes=1), threads=1)
    clock.load_state_dict({"time_elapsed": {"train": 10.0}})
    assert clock.time_elapsed() == 10
    clock.on_train_start(trainer, module)
    time.sleep(0.3)
    assert clock.time_elapsed() < 10.2
    began = time.process_time()
    while time.process_time() - began < 0.2:
        pass
    clock.on_train_end(trainer, module)
    ended = clock.time_elapsed()
    assert 10.2 <= ended < 10.4
    assert clock.time_remaining() == 60 - ended
    while time.process_time() - began < 0.4:
        pass
    assert clock.time_elapsed() == ended
    assert clock.state_dict()["time_elapsed"]["train"] == ended


# -- the tables --------------------------------------------------------------------------------


def row(name: str, weight: float | None, likelihood: float, pesq: float) -> dict[str, Any]:
    """A finished run of two utterances, around the means that are given."""
    objective: dict[str, Any] = {"class_path": "a.MaximumLikelihood"}
    changes: dict[str, Any] = {} if name == "base" else {"objective.class_path": "a.M"}
    if weight is not None:
        objective = {"class_path": "a.LikelihoodAndSpectral", "init_args": {"weight": weight}}
        changes = {} if name == "base" else {"objective.init_args.weight": weight}
    if name == "flows-4":
        changes = {"model.init_args.n_flows": 4, "model.init_args.mixing": ["even-odd", "x|y"]}
    test = [
        {"utterance": id, "log_likelihood": likelihood + d, "pesq": pesq + d, "stoi": None}
        for id, d in (("a", 0.1), ("b", -0.1))
    ]
    return {
        "name": name,
        "difference": changes,
        "objective": objective,
        "settings": {"study": "frames", "minutes": 15.0},
        "facts": {"data": "speech", "hardware": "CPU", "precision": "32", "commit": "abc"},
        "parameters": 8_850_000,
        "gmac_per_audio_second": 0.556,
        "look_ahead_frames": 57,
        "steps": 1000,
        "audio_seconds": 12_345.6,
        "processor_seconds": 900.0,
        "wall_seconds": 1000.0,
        "times_real_time_per_core": 66.0,
        "temperature": 0.667,
        "test": test,
    }


def test_the_tables_say_what_was_measured(scripts: SimpleNamespace, tmp_path: Path) -> None:
    runs = [
        row("base", 1.5, 4.9, 1.8),
        row("likelihood", None, 5.0, 1.3),
        row("flows-4", 1.5, 4.8, 1.9),
    ]
    failure = {"name": "plu", "message": "too slow", "settings": {"study": "frames"}}
    result = {"runs": runs, "failures": [failure]}
    table = scripts.ablation.ablation_table(result).splitlines()
    names = [line.split("]")[0] for line in table[2:6]]
    assert names == ["| [flows-4", "| **[base", "| [likelihood", "| [plu"]  # best PESQ first
    assert "n_flows 4; mixing even-odd, x\\|y" in table[2]
    assert "1.90 (+0.10 ± 0.00)" in table[2]
    assert "4.800 (-0.100 ± 0.000)" in table[2]
    assert "failed: too slow" in table[5]
    assert len({line.replace("\\|", "").count("|") for line in table[:6]}) == 1
    assert "90%" in table[-1].replace(" %", "%")
    assert "tone" not in table[0]
    with_tones = {**result, "runs": [{**run, "tone_excess_db": 6.54} for run in runs]}
    assert "| 6.5 dB |" in scripts.ablation.ablation_table(with_tones).splitlines()[2]
    objective = scripts.ablation.objective_table(result).splitlines()
    weights = [line.split("|")[1:5] for line in objective[2:]]  # flows-4 is no objective
    assert [cell.strip() for line in weights for cell in line] == [
        *("0", "1,000", "", "5.000"),
        *("1.5", "1,000", "0.100 ± 0.000", "4.900"),
    ]
    assert "1.80 (+0.50 ± 0.00)" in objective[3]
    shaped = [{"temperature": 0.8, "band_temperature": [1.0, 0.5], "test": runs[0]["test"]}]
    temperature = scripts.ablation.temperature_table({"temperatures": shaped})
    assert temperature.splitlines()[2] == "| 0.8 | 1 → 0.5 | 1.80 |"


def test_the_page_keeps_its_prose(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = {"runs": [row("base", 1.5, 4.9, 1.8)], "failures": [], "temperatures": []}
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "frames.json").write_text(json.dumps(result))
    monkeypatch.setattr(sys, "argv", ["ablation.py", "frames", "--folder", str(tmp_path)])
    scripts.ablation.main()
    page = tmp_path / "ablation.md"
    page.write_text(page.read_text() + "\nWidth pays.\n")
    result["runs"].append(row("likelihood", None, 5.0, 1.3))
    (tmp_path / "ablation" / "frames.json").write_text(json.dumps(result))
    scripts.ablation.main()
    text = page.read_text()
    assert text.endswith("\nWidth pays.\n")
    assert text.count("[likelihood](") == 1
    assert text.count("<!-- frames:begin -->") == 1
