"""Text to speech: the sentences of a text, their audio, and the file it is written to."""

import copy
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

import vocoder
from tests.conftest import command
from vocoder.text.frontend import LONGEST_TEXT
from vocoder.text.speech import PARAGRAPH_PAUSE, SENTENCE_PAUSE, sentences, speak

needs_signals = pytest.mark.skipif(os.name == "nt", reason="no such signals")


@pytest.fixture(scope="module")
def acoustic(tiny_acoustic):
    return tiny_acoustic()


@pytest.fixture(scope="module")
def flow(tiny_flow):
    return tiny_flow()


@pytest.fixture(scope="module")
def models(acoustic, flow, tmp_path_factory):
    """Command line options that name the two models on disk."""
    folder = tmp_path_factory.mktemp("models")
    return "--acoustic", acoustic.save(folder / "a"), "--checkpoint", flow.save(folder / "f")


def test_sentences_and_their_pauses():
    parts = sentences("Hello there. How do you do?\n\n* * *\n\nA new paragraph! And the end")
    pauses = [SENTENCE_PAUSE, PARAGRAPH_PAUSE, SENTENCE_PAUSE, 0]
    texts = ["Hello there.", "How do you do?", "A new paragraph!", "And the end"]
    assert [(s.text, s.pause) for s in parts] == list(zip(texts, pauses, strict=True))
    assert "".join(parts[0].phonemes) == "həlˈoʊ ðˈɛɹ."
    numbers = " ".join(["1234567890"] * 36)  # longer than a model takes at once
    parts = sentences(f"Hello. {numbers}")
    assert all(len(sentence.phonemes) <= LONGEST_TEXT for sentence in parts)
    assert " ".join(sentence.text for sentence in parts[1:]) == numbers


def test_a_sentence_sounds_the_same_wherever_it_stands(acoustic, flow):
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


def test_rate_refinement_and_temperature_reach_the_models(acoustic, flow):
    parts = sentences("It was late, and nobody had come. Rain fell.")

    def spoken(**options):
        return np.concatenate(list(speak(parts, acoustic, flow, **options)))

    slow, plain, fast = (len(spoken(speaking_rate=rate)) for rate in (0.5, 1, 2))
    assert slow > 1.4 * plain > 1.9 * fast
    pure, refined = spoken(refine=0), spoken(refine=3)
    assert not np.array_equal(pure, refined)
    mel = acoustic.synthesize(parts[0].phonemes)
    limits = flow.mel_spec.log_floor, flow.mel_spec.log_ceiling
    expected = flow.synthesize(mel.clamp(*limits), refine=3).numpy()
    middle = refined[plain // 8 : plain // 6]  # the ends are cut off, by some samples
    windows = np.lib.stride_tricks.sliding_window_view(expected, len(middle))
    sizes = np.linalg.norm(windows, axis=1) * np.linalg.norm(middle)  # the level is another
    assert (windows @ middle / np.maximum(sizes, 1e-9)).max() > 1 - 1e-6


def test_sentences_have_one_level_and_mels_far_from_speech_are_accepted(acoustic, flow):
    quiet, far = copy.deepcopy(acoustic), copy.deepcopy(acoustic)
    quiet.mel_mean -= 2
    far.mel_scale *= 30
    for model in (acoustic, quiet, far):
        (audio,) = speak(sentences("It was late."), model, flow)
        assert np.isfinite(audio).all()
        rms = 20 * np.log10(np.sqrt(np.mean(audio.astype(np.float64) ** 2)))
        at_peak = np.abs(audio).max() == pytest.approx(0.95)
        assert rms == pytest.approx(-20, abs=0.1) or at_peak or model is far


def test_arguments_are_checked_before_any_audio_is_generated(acoustic, flow, tiny_flow):
    parts = sentences("One.")
    wrong = {"temperature": -1, "speaking_rate": 0.1, "pitch": 20, "seed": -1, "refine": -1}
    for name, value in {**wrong, "voice": "eve"}.items():
        with pytest.raises(ValueError, match="no voice 'eve'" if name == "voice" else name):
            speak(parts, acoustic, flow, **{name: value})
    with pytest.raises(ValueError, match="same mel_spec"):
        speak(parts, acoustic, tiny_flow("ljspeech"))
    with pytest.raises(vocoder.TextError, match="Cyrillic"):
        vocoder.say("Fine. Это нет. Fine.", acoustic=acoustic, vocoder=flow)
    for nothing in ("", " \n ", "* * *", "..."):
        with pytest.raises(vocoder.TextError, match="at least one word"):
            vocoder.say(nothing, acoustic=acoustic, vocoder=flow)


def test_command_from_argument_file_and_standard_input(models, acoustic, flow, tmp_path):
    text = "Café? Yes: $3.50.\n\nThe end."
    (tmp_path / "notes.txt").write_text(text, encoding="utf-8")
    out, audio = tmp_path / "out.wav", []
    for way in ((text,), ("--file", tmp_path / "notes.txt"), ("-",)):
        result = command("say", *way, "-fo", out, *models, stdin=text.encode())
        assert result.exit_code == 0, result.stderr
        assert "s until the first audio" in result.stdout
        assert "3/3" in result.stderr  # sentences
        audio.append(out.read_bytes())
    assert audio[0] == audio[1] == audio[2]
    written, rate = soundfile.read(out, dtype="float32")
    assert rate == flow.sample_rate
    expected = vocoder.say(text, acoustic=acoustic, vocoder=flow)
    np.testing.assert_allclose(written, expected, atol=0.51 / 32768)
    options = ("--speaking-rate", 2, "--temperature", 0, "--seed", 1)
    assert command("say", text, "-o", tmp_path / "fast.flac", *options, *models).exit_code == 0
    assert soundfile.info(tmp_path / "fast.flac").frames < 0.7 * len(written)


def test_command_errors_are_one_sentence_and_write_nothing(models, tmp_path):
    out = tmp_path / "out.wav"
    (tmp_path / "latin1.txt").write_bytes("Café".encode("latin-1"))
    (tmp_path / "taken.wav").write_bytes(b"precious")
    cases = [
        (("-o", out), "--file"),
        (("Hi.", "--file", tmp_path / "latin1.txt", "-o", out), "once"),
        (("--file", tmp_path / "latin1.txt", "-o", out), "not UTF-8"),
        (("--file", tmp_path / "none.txt", "-o", out), "none.txt"),
        (("", "-o", out), "at least one word"),
        (("-", "-o", out), "at least one word"),
        (("日本語", "-o", out), "only English"),
        (("Hi.", "-o", out, "--temperature", -1), "temperature"),
        (("Hi.", "-o", tmp_path / "taken.wav"), "--force"),
    ]
    before = sorted(tmp_path.iterdir())
    for arguments, words in cases:
        result = command("say", *arguments, *models)
        assert result.exit_code == 2, arguments
        assert words in result.stderr
        assert "Traceback" not in result.stderr
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "taken.wav").read_bytes() == b"precious"


@needs_signals
def test_a_terminated_process_leaves_no_file(models, tmp_path):
    text = tmp_path / "long.txt"
    text.write_text("The rain fell on and on, and nobody came. " * 1000)
    folder = tmp_path / "out"
    folder.mkdir()
    program = [sys.executable, "-m", "vocoder", "say"]
    process = subprocess.Popen(
        [*program, "--file", text, "-o", folder / "out.wav", *map(str, models)],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )
    try:
        while not any(path.stat().st_size > 100_000 for path in folder.iterdir()):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert list(folder.iterdir()) == []


@needs_signals
def test_a_slow_player_hears_all_and_one_that_leaves_ends_it(models):
    def playing(text):
        words = [sys.executable, "-m", "vocoder", "say", text, "-o", "-", *map(str, models)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    text = "One. Two. Three."
    with playing(text) as process:
        heard = process.stdout.read(44)
        while chunk := process.stdout.read1(4096):
            heard += chunk
            time.sleep(0.001)
    assert process.returncode == 0
    assert heard[:4] == b"RIFF"
    assert heard == command("say", text, "-o", "-", *models).stdout_bytes
    with playing("The rain fell on and on, and nobody came. " * 50) as process:
        process.stdout.read(44)
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert not any(word in said for word in (b"Traceback", b"BrokenPipe"))


def test_text_may_begin_with_a_dash(models, tmp_path):
    minus, words = tmp_path / "minus.wav", tmp_path / "words.wav"
    for text, path in (("-5 degrees", minus), ("minus five degrees", words)):
        assert command("say", text, "-o", path, *models).exit_code == 0
    assert minus.read_bytes() == words.read_bytes()
    assert command("say", "--temprature", "1", "-fo", minus).exit_code == 2


def test_lines_become_files_of_their_own(models, tmp_path):
    lines, folder = tmp_path / "lines.txt", tmp_path / "out"
    lines.write_text(
        "One.\n\na/b|Two, three.|Two, three.\nЭто нет.\na/b|Again.\n", encoding="utf-8"
    )
    say = ("say", "--lines", lines, "-o", folder, *models)
    result = command(*say)
    assert result.exit_code == 1
    assert {path.name for path in folder.iterdir()} == {"0001.wav", "a_b.wav", "failed.csv"}
    failed = (folder / "failed.csv").read_text(encoding="utf-8")
    assert "0003,'Это' is written in Cyrillic" in failed
    assert "line 4,\"another line has the id 'a/b'" in failed
    alone = command("say", "Two, three.", "-o", tmp_path / "alone.wav", *models)
    assert alone.exit_code == 0
    assert (folder / "a_b.wav").read_bytes() == (tmp_path / "alone.wav").read_bytes()
    lines.write_text("One.\na/b|Four.\n")
    os.utime(lines, (0, 0))
    assert "2 were there already" in command(*say).stdout
    assert (folder / "a_b.wav").read_bytes() == (tmp_path / "alone.wav").read_bytes()
    assert not (folder / "failed.csv").exists()
    assert command(*say, "--force").exit_code == 0
    assert (folder / "a_b.wav").read_bytes() != (tmp_path / "alone.wav").read_bytes()
    for wrong in (("Hi.",), ("--timestamps", tmp_path / "t.json"), ("--voice", "eve")):
        assert command(*say, *wrong).exit_code == 2


def test_words_have_the_times_at_which_they_are_heard(models, acoustic, flow, tmp_path):
    out, times = tmp_path / "a.wav", tmp_path / "a.json"
    text = "Dr. Smith paid $3.50, twenty-one times. He left on 3 March 1999."
    result = command("say", text, "-o", out, "--timestamps", times, *models)
    assert result.exit_code == 0, result.stderr
    words = json.loads(times.read_text())
    heard = "Dr. Smith paid $3.50, twenty-one times. He left on"
    assert " ".join(word["word"] for word in words).startswith(heard)
    bounds = [bound for word in words for bound in (word["start"], word["end"])]
    assert bounds == sorted(bounds)
    length = soundfile.info(out).duration
    assert 0 <= bounds[0] < bounds[-1] <= length
    pause = next(b["start"] - a["end"] for a, b in itertools.pairwise(words) if b["word"] == "He")
    assert pause >= SENTENCE_PAUSE
    # Of one sentence, the durations of the model, without the silence that is cut off.
    found = []
    (part,) = sentences("Rain fell.")
    list(speak([part], acoustic, flow, words=found))
    frames = acoustic.durations(part.phonemes).reshape(-1, acoustic.states).sum(1).tolist()
    symbols = frames[1 + part.phonemes.index(" ") + 1 : -2]  # of "fell"
    hop = flow.mel_spec.hop_length / flow.sample_rate
    assert found[1].word == "fell."
    assert found[1].end - found[1].start == pytest.approx(sum(symbols) * hop, abs=0.03)
    assert (
        command("say", text, "-o", tmp_path / "b.wav", "--timestamps", times, *models).exit_code
        == 2
    )


def test_phonemes_are_said_as_they_are(models, tmp_path):
    text, spoken = tmp_path / "text.wav", tmp_path / "phonemes.wav"
    assert command("say", "Hello, Bob. It was late.", "-o", text, *models).exit_code == 0
    given = [
        " ".join(s.phonemes).replace("   ", " _ ") for s in sentences("Hello, Bob. It was late.")
    ]
    result = command("say", "--phonemes", "\n".join(given), "-o", spoken, *models)
    assert result.exit_code == 0, result.stderr
    assert text.read_bytes() == spoken.read_bytes()
    for wrong, words in (("h q", "knows no phoneme 'q'"), (" ", "no phonemes")):
        result = command("say", "--phonemes", wrong, "-fo", spoken, *models)
        assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
