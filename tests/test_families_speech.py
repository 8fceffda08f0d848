"""The comparison of families on speech: what is measured once, and what the tables say of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import scripts
from vocoder.audio import read_audio, write_audio
from vocoder.models import MdctFlow, VaeVocoder

ROOT = Path(__file__).parents[1]
RECORDING = ROOT / "vocoder/demo/examples/english-female.flac"


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    with scripts("docs/scripts") as script:
        yield script("families_speech")


@pytest.fixture(scope="module")
def report() -> Iterator[Any]:
    with scripts("docs/scripts") as script:
        yield script("report.families_speech")


@pytest.fixture
def run(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """The command, on one second of speech, with its files in a folder of the test."""
    audio, rate = read_audio(RECORDING)
    (tmp_path / "speech").mkdir()
    write_audio(tmp_path / "speech/a.wav", audio[: 3 * rate // 2], rate)
    monkeypatch.setattr(script, "FILE", tmp_path / "result.json")
    monkeypatch.setattr(script, "PICTURES", tmp_path)
    monkeypatch.setattr(script, "ROUNDS", 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)

    def command(*arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["families_speech.py", *arguments])
        script.main()
        result: dict[str, Any] = json.loads((tmp_path / "result.json").read_text("utf-8"))
        return result

    return command


def test_models_are_measured_once_and_bounds_are_marked(
    run: Callable[..., dict[str, Any]],
    report: Any,
    script: Any,
    tmp_path: Path,
    tiny_flow: Callable[..., MdctFlow],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_flow("ljspeech").save(tmp_path / "flow")
    torch.manual_seed(0)
    sizes = {"latent_channels": 2, "channels": 8, "n_layers": 1, "scale_channels": 8}
    VaeVocoder("ljspeech", **sizes).save(tmp_path / "vae")
    speech = f"voices={tmp_path / 'speech'}"
    models = ("--model", f"flow={tmp_path / 'flow'}", "--model", f"VAE={tmp_path / 'vae'}")
    result = run("--speech", speech, *models)
    assert list(result["models"]) == ["flow", "VAE"]
    flow, vae = result["models"].values()
    assert (flow["likelihood"], vae["likelihood"]) == ("exact", "lower bound")
    for entry in (flow, vae):
        rows = entry["speech"]["voices"]
        assert list(rows) == [str(n) for n in script.SWEEPS]
        # Likelihood does not know of sweeps, and the mel does.
        assert rows["0"]["log_likelihood"] == rows["16"]["log_likelihood"]
        distances = [row["log_mel_distance"]["mean"] for row in rows.values()]
        assert distances == sorted(distances, reverse=True)
        assert 0 < entry["diversity"] < 1.5
        assert entry["times_real_time"] > 0
    lines = report.families(result).splitlines()
    assert "| exact |" in lines[2]
    assert "≥" not in lines[2]
    assert "| lower bound | ≥ " in lines[3]
    assert report.short(result).count("\n") == 3
    assert not (tmp_path / "flow_gan.png").exists()  # there is no run of Flow-GAN

    def never(*_: Any) -> None:
        raise AssertionError("measured again")

    for name in ("quality", "diversity", "speed"):
        monkeypatch.setattr(script, name, never)
    assert run("--speech", speech, *models)["models"] == result["models"]
    with pytest.raises(AssertionError, match="measured again"):
        run("--speech", speech, "--model", f"flow={tmp_path / 'vae'}")
    assert list(run("--draw", "--forget", "flow")["models"]) == ["VAE"]


def test_the_same_audio_is_not_diverse(script: Any) -> None:
    sound = torch.randn(script.SEEDS, 20_000)
    assert script.diversity(torch.zeros(80, 4), lambda mel, n, seed: sound[0]) < 1e-9
    different = script.diversity(torch.zeros(80, 4), lambda mel, n, seed: sound[seed])
    assert different == pytest.approx(1, abs=0.05)


def test_runs_of_flow_gan_have_their_own_table(report: Any) -> None:
    row = {name: {"mean": 1.0} for name in (*report.MEASURES, "log_likelihood")}

    def entry(weights: str, training: dict[str, Any]) -> dict[str, Any]:
        speech = {"voices": {"0": row, "16": row}}
        return {"weights": weights, "training": training, "speech": speech, "likelihood": "exact"}

    facts = {"started_from": "a", "steps": "7"}
    models = {
        "strong": entry("c", {**facts, "adversarial_weight": 10.0}),
        "weak": entry("b", {**facts, "adversarial_weight": 0.1}),
        "start": entry("a", {}),
    }
    lines = report.flow_gan({"models": models}).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| start", "| 0.1", "| 10"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "there is no speech to measure on"),
        (["--speech", "nothing"], "is not NAME=VALUE"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    run: Callable[..., dict[str, Any]],
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(*arguments)
    assert words in capsys.readouterr().err


def test_a_folder_without_recordings_is_refused(script: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no recordings"):
        script.chosen(tmp_path)
