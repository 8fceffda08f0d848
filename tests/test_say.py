"""Text to speech: the sentences of a text, their audio, and the file it is written to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner, Result

import vocoder
from vocoder import cli
from vocoder.audio import AudioWriter
from vocoder.models import MdctFlow
from vocoder.text.acoustic import LONGEST_TEXT, AcousticModel
from vocoder.text.speech import PARAGRAPH_PAUSE, SENTENCE_PAUSE, sentences, speak

needs_signals = pytest.mark.skipif(os.name == "nt", reason="no such signals")


@pytest.fixture(scope="module")
def acoustic(tiny_acoustic: Callable[..., AcousticModel]) -> AcousticModel:
    return tiny_acoustic()


@pytest.fixture(scope="module")
def flow(tiny_flow: Callable[..., MdctFlow]) -> MdctFlow:
    return tiny_flow()


@pytest.fixture(scope="module")
def models(
    acoustic: AcousticModel, flow: MdctFlow, tmp_path_factory: pytest.TempPathFactory
) -> tuple[object, ...]:
    """Command line options that name the two models on disk."""
    folder = tmp_path_factory.mktemp("models")
    return "--acoustic", acoustic.save(folder / "a"), "--checkpoint", flow.save(folder / "f")


def run(*arguments: object, stdin: bytes = b"") -> Result:
    """The command within this process."""
    arguments = tuple(map(str, arguments))
    return CliRunner().invoke(cli.app, arguments, input=stdin, catch_exceptions=False)


def test_sentences_and_their_pauses() -> None:
    parts = sentences("Hello there. How do you do?\n\n* * *\n\nA new paragraph! And the end")
    assert [s.text for s in parts] == [
        "Hello there.",
        "How do you do?",
        "A new paragraph!",
        "And the end",
    ]
    assert [s.pause for s in parts] == [SENTENCE_PAUSE, PARAGRAPH_PAUSE, SENTENCE_PAUSE, 0]
    assert "".join(parts[0].phonemes) == "həlˈoʊ ðˈɛɹ."


def test_a_sentence_of_many_numbers_is_split(acoustic: AcousticModel, flow: MdctFlow) -> None:
    parts = sentences("Hello. " + "1234567890 " * 36)
    assert all(len(sentence.phonemes) <= LONGEST_TEXT for sentence in parts)
    numbers = " ".join(sentence.text for sentence in parts[1:])
    assert numbers == " ".join(["1234567890"] * 36)
    for temperature in (3.0, 30.0):  # of mels far from speech
        pieces = speak(parts[:1], acoustic, flow, acoustic_temperature=temperature)
        assert all(np.isfinite(audio).all() for audio in pieces)


def test_a_sentence_sounds_the_same_wherever_it_stands(
    acoustic: AcousticModel, flow: MdctFlow
) -> None:
    alone = vocoder.say("It was late.", acoustic=acoustic, vocoder=flow, seed=3)
    both = list(speak(sentences("Rain fell. It was late."), acoustic, flow, seed=3))
    np.testing.assert_array_equal(alone, both[1])
    together = vocoder.say("Rain fell. It was late.", acoustic=acoustic, vocoder=flow, seed=3)
    np.testing.assert_array_equal(together, np.concatenate(both))
    assert alone.dtype == np.float32
    assert np.abs(alone).max() <= 1
    pause = round(SENTENCE_PAUSE * flow.sample_rate)
    assert not both[0][-pause:].any()
    assert both[0][:-pause].any()
    other = vocoder.say("It was late.", acoustic=acoustic, vocoder=flow, seed=4)
    assert len(other) != len(alone) or not np.array_equal(other, alone)


def test_silence_at_the_ends_is_cut_off(acoustic: AcousticModel, flow: MdctFlow) -> None:
    class Padding(torch.nn.Module):
        mel_spec, sample_rate = flow.mel_spec, flow.sample_rate
        default_temperature = flow.default_temperature

        def synthesize(self, mel: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            tone = 0.5 * torch.sin(torch.arange(16000) * 0.1)
            return torch.cat([torch.zeros(12000), tone, torch.zeros(20000)])

    (audio,) = speak(sentences("One."), acoustic, Padding())  # type: ignore[arg-type]
    assert 16000 <= len(audio) <= 16000 + 4 * 160
    assert audio[0] == 0  # faded in, so that the cut does not click


def test_refine_is_passed_to_the_vocoder(acoustic: AcousticModel, flow: MdctFlow) -> None:
    (sentence,) = sentences("One.")
    (pure,), (refined,) = (
        list(speak([sentence], acoustic, flow, refine=sweeps)) for sweeps in (0, 3)
    )
    mel = acoustic.synthesize(sentence.phonemes, seed=0)
    mel = mel.clamp(flow.mel_spec.log_floor, flow.mel_spec.log_ceiling)
    assert not np.array_equal(pure, refined)
    expected = flow.synthesize(mel, refine=3).numpy()
    middle = refined[len(refined) // 4 : len(refined) // 2]
    assert any(
        np.allclose(expected[start : start + len(middle)], middle, atol=1e-5)
        for start in range(len(expected) - len(middle))
        if abs(expected[start] - middle[0]) < 1e-5
    )
    with pytest.raises(ValueError, match="refine must"):
        speak([sentence], acoustic, flow, refine=-1)


def test_speaking_rate(acoustic: AcousticModel, flow: MdctFlow) -> None:
    text = "It was late, and nobody had come. Rain fell."
    lengths = [
        len(vocoder.say(text, acoustic=acoustic, vocoder=flow, speaking_rate=rate))
        for rate in (0.5, 1, 2)
    ]
    assert lengths[0] > 1.4 * lengths[1] > 1.9 * lengths[2]


def test_arguments_are_checked_before_any_audio_is_generated(
    acoustic: AcousticModel, flow: MdctFlow, tiny_flow: Callable[..., MdctFlow]
) -> None:
    parts = sentences("One.")
    for arguments, words in (
        ({"temperature": -1}, "temperature"),
        ({"acoustic_temperature": float("nan")}, "acoustic_temperature"),
        ({"speaking_rate": 0.1}, "speaking_rate is 0.1"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(ValueError, match=words):
            speak(parts, acoustic, flow, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same mel_spec"):
        speak(parts, acoustic, tiny_flow("ljspeech"))
    with pytest.raises(vocoder.TextError, match="Cyrillic"):
        vocoder.say("Fine. Это нет. Fine.", acoustic=acoustic, vocoder=flow)
    for nothing in ("", " \n ", "* * *", "..."):
        with pytest.raises(vocoder.TextError, match="at least one word"):
            vocoder.say(nothing, acoustic=acoustic, vocoder=flow)


def test_a_long_text_is_spoken_one_sentence_at_a_time(
    acoustic: AcousticModel, flow: MdctFlow
) -> None:
    parts = sentences("The rain fell on and on. " * 2000)
    assert len(parts) == 2000
    calls = 0

    class Counting:
        mel_spec = acoustic.mel_spec

        def synthesize(self, *arguments: object) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return acoustic.synthesize(*arguments)  # type: ignore[arg-type]

    pieces = speak(parts, Counting(), flow)  # type: ignore[arg-type]
    assert calls == 0
    for count in range(1, 4):
        assert len(next(pieces)) < 10 * flow.sample_rate
        assert calls == count


def test_a_missing_or_another_model_is_refused(
    models: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(vocoder.CheckpointError, match="no acoustic model"):
        vocoder.load_acoustic(models[3])  # type: ignore[arg-type]
    monkeypatch.setattr("vocoder.pretrained.bundled_models", dict)
    with pytest.raises(vocoder.CheckpointError, match=r"train_acoustic\.py"):
        vocoder.load_acoustic()


def test_command_from_argument_file_and_standard_input(
    models: tuple[object, ...],
    acoustic: AcousticModel,
    flow: MdctFlow,
    tmp_path: Path,
) -> None:
    text = "Café? Yes: $3.50.\n\nThe end."
    (tmp_path / "notes.txt").write_text(text, encoding="utf-8")
    ways = {
        "argument.wav": (text,),
        "file.wav": ("--file", tmp_path / "notes.txt"),
        "stdin.wav": ("-",),
    }
    for name, way in ways.items():
        result = run("say", *way, "-o", tmp_path / name, *models, stdin=text.encode())
        assert result.exit_code == 0, result.stderr
        assert "s until the first audio, then " in result.stdout
        assert "times real time" in result.stdout
        assert "3/3" in result.stderr  # sentences
    first = (tmp_path / "argument.wav").read_bytes()
    assert first == (tmp_path / "file.wav").read_bytes() == (tmp_path / "stdin.wav").read_bytes()
    audio, rate = soundfile.read(tmp_path / "file.wav", dtype="float32")
    assert rate == flow.sample_rate
    expected = vocoder.say(text, acoustic=acoustic, vocoder=flow)
    np.testing.assert_allclose(audio, expected, atol=0.51 / 32768)
    options = ("--speaking-rate", 2, "--temperature", 0, "--acoustic-temperature", 0, "--seed", 1)
    result = run("say", text, "-o", tmp_path / "fast.flac", *options, *models)
    assert result.exit_code == 0
    assert soundfile.info(tmp_path / "fast.flac").frames < 0.7 * len(audio)


def test_command_errors_are_one_sentence_and_write_nothing(
    models: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out.wav"
    (tmp_path / "latin1.txt").write_bytes("Café".encode("latin-1"))
    (tmp_path / "taken.wav").write_bytes(b"precious")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("-o", out), "--file"),
        (("Hi.", "--file", tmp_path / "latin1.txt", "-o", out), "once"),
        (("--file", tmp_path / "latin1.txt", "-o", out), "not UTF-8"),
        (("--file", tmp_path / "none.txt", "-o", out), "none.txt"),
        (("", "-o", out), "at least one word"),
        (("-", "-o", out), "at least one word"),
        (("日本語", "-o", out), "only English"),
        (("Hi.", "-o", out, "--speaking-rate", 9), "speaking_rate is 9"),
        (("Hi.", "-o", out, "--temperature", -1), "temperature"),
        (("Hi.", "-o", tmp_path / "out.xyz"), "xyz"),
        (("Hi.", "-o", tmp_path / "no" / "out.wav"), "no directory"),
        (("Hi.", "-o", tmp_path / "taken.wav"), "--force"),
    ]
    before = sorted(tmp_path.iterdir())
    for arguments, words in cases:
        result = run("say", *arguments, *models)
        assert result.exit_code == 2, arguments
        assert words in result.stderr
        assert "Traceback" not in result.stderr
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "taken.wav").read_bytes() == b"precious"
    assert run("say", "Hi.", "-o", tmp_path / "taken.wav", "--force", *models).exit_code == 0
    assert soundfile.info(tmp_path / "taken.wav").frames > 0


@needs_signals
def test_a_terminated_process_leaves_no_file(models: tuple[object, ...], tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text("The rain fell on and on, and nobody came. " * 1000)
    folder = tmp_path / "out"
    folder.mkdir()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "vocoder", "say", "--file", text,
            "-o", folder / "out.wav", *map(str, models),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not any(path.stat().st_size > 100_000 for path in folder.iterdir()):
            assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert list(folder.iterdir()) == []


def test_audio_in_pieces_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def write(pieces: Iterable[torch.Tensor]) -> None:
        with AudioWriter(tmp_path / "pieces.wav", 16000) as file:
            for piece in pieces:
                file.write(piece)

    torch.manual_seed(0)
    audio = 0.7 * torch.randn(100_000)  # some of it beyond full scale
    with pytest.warns(UserWarning, match="Clipped"):
        vocoder.write_audio(tmp_path / "whole.wav", audio, 16000)
    with pytest.warns(UserWarning, match=r"Clipped 15237 of 100000 samples of pieces\.wav"):
        write(audio.split(777))
    whole = (tmp_path / "whole.wav").read_bytes()
    for faulty, words in (([torch.zeros(10), torch.full((1,), torch.nan)], "NaN"), ([], "no sam")):
        with pytest.raises(ValueError, match=words):
            write(faulty)
    assert (tmp_path / "pieces.wav").read_bytes() == whole
    assert len(list(tmp_path.iterdir())) == 2


@needs_signals
def test_a_slow_player_hears_all_and_one_that_leaves_ends_it(models: tuple[object, ...]) -> None:
    text = "One. Two. Three."
    command = [sys.executable, "-m", "vocoder", "say", text, "-o", "-", *map(str, models)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        heard = process.stdout.read(44)
        while chunk := process.stdout.read1(4096):  # type: ignore[attr-defined]
            heard += chunk
            time.sleep(0.001)
    assert process.returncode == 0
    assert heard[:4] == b"RIFF"
    expected = run("say", text, "-o", "-", *models).stdout_bytes
    assert heard == expected

    long = "The rain fell on and on, and nobody came. " * 50
    command[4] = long
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(44)
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_text_may_begin_with_a_dash(tmp_path: Path) -> None:
    minus, words = tmp_path / "minus.wav", tmp_path / "words.wav"
    for text, path in (("-5 degrees", minus), ("minus five degrees", words)):
        assert run("say", text, "-o", path).exit_code == 0
    assert minus.read_bytes() == words.read_bytes()
    assert run("say", "--temprature", "1", "-o", minus, "-f").exit_code == 2
