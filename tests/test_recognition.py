"""Word error rates: counted right, low for clear speech, high for noise; and their comparison."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

import vocoder
from tests.test_say import run
from vocoder.audio import MelSpec
from vocoder.evaluation import recognition
from vocoder.evaluation.estimates import estimate_rate
from vocoder.evaluation.recognition import (
    COPY_SYNTHESIS,
    RECORDING,
    SAY,
    evaluate_speech,
    recognise,
    spoken_words,
    unseen_sentences,
    word_error_rate,
    word_errors,
)
from vocoder.evaluation.recordings import EvaluationError
from vocoder.models import MdctFlow
from vocoder.text.acoustic import AcousticModel
from vocoder.text.frontend import SYMBOLS

pytest.importorskip("pocketsphinx", reason="extra metrics is not installed")
pytest.importorskip("jiwer", reason="extra metrics is not installed")

TEXT = "They were waiting for the morning train in cold weather."


@pytest.fixture(scope="module")
def speech() -> tuple[NDArray[np.float32], int]:
    """Clear English of another synthesiser, which comes with the text frontend."""
    from hibari import Hibari

    synthesiser = Hibari()
    return synthesiser(TEXT, seed=0).astype(np.float32), synthesiser.sample_rate


def test_spoken_words() -> None:
    assert " ".join(spoken_words("It's $3.50, Mr. Well-known—“O'Neill”!")) == (
        "it's three dollars and fifty cents mr well known o'neill"
    )
    assert spoken_words("at 3 a.m.") == spoken_words("at three a.m.") == ["at", "three", "am"]
    assert spoken_words(" … ") == []


def test_errors_are_counted() -> None:
    errors = word_errors("the cat sat on the mat", "the bat sat the mat now")
    assert (errors.substitutions, errors.deletions, errors.insertions) == (1, 1, 1)
    assert errors.words == 6
    assert word_errors("in 1984", "in nineteen eighty four").total == 0
    # Sums over all texts, not the mean of the rates of each.
    references = ["one two three four five six seven eight nine", "no"]
    assert word_error_rate(references, [references[0], "yes"]) == pytest.approx(1 / 10)
    assert word_error_rate(["no"], ["yes or no"]) == 2
    assert word_error_rate(["no"], [""]) == 1
    for references, hypotheses in ((["a"], []), ([], []), (["..."], ["a"])):
        with pytest.raises(ValueError, match=r"needed|no words"):
            word_error_rate(references, hypotheses)


def test_clear_speech_is_understood_and_noise_is_not(
    speech: tuple[NDArray[np.float32], int],
) -> None:
    audio, rate = speech
    heard = recognise(audio, rate)
    assert word_error_rate([TEXT], [heard]) < 0.3
    rng = np.random.default_rng(0)
    level = audio.std()
    noisy = audio + 2 * level * rng.standard_normal(len(audio), dtype=np.float32)
    half = noisy[: len(noisy) // 2]  # noise takes the recogniser long
    assert word_error_rate(["They were waiting for the"], [recognise(half, rate)]) > 0.6
    # Earlier audio makes no difference, nor does a tensor.
    assert recognise(torch.from_numpy(audio), rate) == heard
    assert len(recognise(np.zeros(8000, dtype=np.float32), 16000).split()) <= 1


def test_what_is_no_speech_is_refused() -> None:
    for bad in (np.zeros((2, 100)), np.full(100, np.nan)):
        with pytest.raises(ValueError, match=r"audio \(samples,\)"):
            recognise(bad, 16000)


@pytest.fixture(scope="module")
def corpus(
    speech: tuple[NDArray[np.float32], int], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("english")
    (folder / "wavs").mkdir()
    lines = []
    for index in range(8):
        id = f"{'ab'[index % 2]}-{index}"
        vocoder.write_audio(folder / "wavs" / f"{id}.wav", *speech)
        lines.append(f"{id}|{TEXT}|{TEXT}\n")
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return folder


def test_unseen_sentences(corpus: Path, tmp_path: Path) -> None:
    sets = vocoder.corpus.held_out(corpus)
    assert [u.id for u in unseen_sentences(corpus)] == [*sets.test, *sets.validation]
    assert [u.id for u in unseen_sentences(corpus, limit=2)] == list(sets.test[:2])
    voice = [u.id for u in unseen_sentences(corpus, prefix="a-")]
    assert voice
    assert all(id.startswith("a-") for id in voice)
    with pytest.raises(EvaluationError, match="'c-'"):
        unseen_sentences(corpus, prefix="c-")
    with pytest.raises(EvaluationError, match=r"no metadata\.csv"):
        unseen_sentences(tmp_path)


SPEC = MelSpec.preset("speech-16k")


@pytest.fixture(scope="module")
def acoustic() -> AcousticModel:
    torch.manual_seed(0)
    return AcousticModel(SYMBOLS, SPEC, encoder_channels=8, encoder_layers=1, n_flows=1).eval()


@pytest.fixture(scope="module")
def flow(tiny_flow: Callable[..., MdctFlow]) -> MdctFlow:
    return tiny_flow(SPEC)


def test_rows_are_compared_on_the_same_sentences(
    corpus: Path, acoustic: AcousticModel, flow: MdctFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    heard = itertools.cycle([TEXT, TEXT.replace("train", "bus"), "they are weighting"])

    def hears(audio: torch.Tensor, rate: int) -> str:
        given.append((len(audio), rate))
        return next(heard)

    monkeypatch.setattr(recognition, "recognise", hears)
    steps: list[tuple[int, int]] = []
    result = evaluate_speech(
        acoustic, flow, corpus, limit=2, progress=lambda done, total, _: steps.append((done, total))
    )
    assert steps == [(step, 6) for step in range(7)]
    wav = soundfile.info(unseen_sentences(corpus, 1)[0].path)
    said = len(vocoder.say(TEXT, acoustic=acoustic, vocoder=flow))
    copied = round(wav.frames * 16000 / wav.samplerate)
    assert given == [(wav.frames, wav.samplerate), (copied, 16000), (said, 16000)] * 2
    rates = {name: row["word_error_rate"]["mean"] for name, row in result["rows"].items()}
    assert rates == {RECORDING: 0, COPY_SYNTHESIS: 0.1, SAY: 0.9}
    row = result["rows"][SAY]
    assert [row[kind] for kind in ("substitutions", "deletions", "insertions")] == [4, 14, 0]
    assert result["differences"][SAY] == {"mean": 0.9, "lower": 0.9, "upper": 0.9, "n": 2}
    assert [sentence[SAY]["errors"] for sentence in result["sentences"]] == [9, 9]
    assert json.loads(json.dumps(result)) == result


def test_interval_widens_with_spread() -> None:
    same = estimate_rate([1] * 20, [10] * 20)
    assert same == {"mean": 0.1, "lower": 0.1, "upper": 0.1, "n": 20}
    spread = estimate_rate([0] * 15 + [4] * 5, [10] * 20)
    assert spread["mean"] == pytest.approx(0.1)
    # 20 draws of 0 or 0.4, a quarter of them 0.4: standard error 0.4 * sqrt(0.25 * 0.75 / 20).
    half = 1.96 * 0.4 * np.sqrt(0.25 * 0.75 / 20)
    assert spread["lower"] == pytest.approx(0.1 - half, abs=0.02)
    assert spread["upper"] == pytest.approx(0.1 + half, abs=0.02)
    assert estimate_rate([1], [4]) == {"mean": 0.25, "lower": None, "upper": None, "n": 1}


def test_command(
    corpus: Path,
    acoustic: AcousticModel,
    flow: MdctFlow,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = ("--acoustic", acoustic.save(tmp_path / "a"), "-c", flow.save(tmp_path / "f"))
    monkeypatch.setattr(recognition, "recognise", lambda *_: "they were waiting for trains")
    out, table = tmp_path / "out.json", tmp_path / "out.md"
    result = run("evaluate-speech", corpus, *models, "--limit", 2, "-o", out, "--table", table)
    assert result.exit_code == 0, result.stderr
    assert SAY in result.stdout
    assert "6/6" in result.stderr
    assert set(json.loads(out.read_text())["rows"]) == {RECORDING, COPY_SYNTHESIS, SAY}
    assert "| text to speech | 60.0 (60.0 to 60.0) | +0.0 (+0.0 to +0.0) |" in table.read_text()
    assert run("evaluate-speech", corpus, *models, "-o", out).exit_code == 2
    result = run("evaluate-speech", corpus, *models, "--prefix", "zz")
    assert result.exit_code == 2
    assert "'zz'" in result.stderr
