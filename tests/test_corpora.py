"""The scripts that build corpora: the recorded Russian one, and synthetic English speech."""

import sys
import threading

import numpy as np
import pytest
import soundfile

from tests.conftest import ROOT, scripts
from vocoder.corpus import read_corpus

RECIPES = ROOT / "recipes"
SAMPLE = RECIPES / "ljspeech" / "sample"


with scripts("recipes/festvox-ru") as script:
    festvox = script("build")
with scripts("recipes/synthetic-english") as script:
    english, sentences, voices = script("build"), script("sentences"), script("voices")

needs_festvox = pytest.mark.skipif(
    not (festvox.VOICE / "wav").is_dir(), reason="Debian's package festvox-ru is not installed"
)


@needs_festvox
def test_festvox_is_the_recordings_in_ljspeech_layout(tmp_path):
    folder = tmp_path / "festvox-ru"
    festvox.build(festvox.VOICE, folder, sample=False)
    corpus = read_corpus(folder)
    assert len(corpus.utterances) == 620
    for utterance in corpus.utterances[::100]:
        original = festvox.VOICE / "wav" / utterance.path.name
        assert utterance.path.read_bytes() == original.read_bytes()
        assert utterance.path.stat().st_mtime_ns == original.stat().st_mtime_ns
        assert "+" not in utterance.normalised
    assert any("+" in utterance.text for utterance in corpus.utterances)
    assert "Shmyrev" in (folder / "COPYRIGHT").read_text()


@needs_festvox
def test_sample_corpus_comes_out_the_same_to_the_bit(tmp_path):
    festvox.build(festvox.VOICE, tmp_path, sample=True)
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(made) == festvox.SAMPLE_COUNT + 1
    for path in made:
        assert (tmp_path / path).read_bytes() == (SAMPLE / path).read_bytes()


def test_festvox_without_recordings_writes_nothing_and_says_what_to_install(tmp_path):
    with pytest.raises(FileNotFoundError, match="install Debian's package festvox-ru"):
        festvox.build(tmp_path / "nowhere", tmp_path / "out", sample=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("And the LORD said unto me, Go up the hill and look around.",
         "And the Lord said unto me, Go up the hill and look around."),
        ("A kludge (as Mr. Bell said) isn’t ‘clean’ — but it works.",
         "A kludge, as Mister Bell said, isn't clean, but it works."),
        ("He washed the disciples' feet, e.g. with water, soap etc. and oil.",
         "He washed the disciples' feet, for example with water, soap et cetera and oil."),
        ("The year was 1984 and nobody had noticed it until then.", None),
        ("Every NASA engineer knows the answer to that by heart.", None),
        ("Call the function do_it twice, then go on with the rest.", None),
        ("It ends. and goes on in the same sentence, as it seems.", None),
        ("Far too short.", None),
        ("Word " + "after word " * 20 + "is too long.", None),
        ("There is no full stop at the end of this long sentence", None),
    ],
)  # fmt: skip
def test_normalise(text, expected):
    assert sentences.normalise(text) == expected


def some_sentences(n):
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    numbers = [(words[i // 100], words[i // 10 % 10], words[i % 10]) for i in range(n)]
    texts = [f"Here are the numbers {' and '.join(three)}." for three in numbers]
    return [sentences.Sentence(text, text) for text in texts]


def test_dealing_gives_every_sentence_to_one_voice_by_share_and_seed_changes_only_the_order():
    texts = [some_sentences(800), some_sentences(1000)[800:]]
    shares = {"a": 3.0, "b": 1.0}
    dealt = sentences.deal(texts, shares, seed=0)
    assert {s.key for d in dealt.values() for s in d} == {s.key for text in texts for s in text}
    assert sum(map(len, dealt.values())) == 1000
    assert 2.2 < len(dealt["a"]) / len(dealt["b"]) < 4
    assert all(s in texts[i % 2] for i, s in enumerate(dealt["a"][:20]))

    again = sentences.deal(texts, shares, seed=1)
    assert again["a"] != dealt["a"]
    assert set(again["a"]) == set(dealt["a"])

    wider = sentences.deal(texts, {**shares, "c": 1.0}, seed=0)
    assert set(wider["a"]) < set(dealt["a"])
    assert set(wider["b"]) < set(dealt["b"])


def test_no_style_of_an_unseen_voice_is_trained_on():
    def styles(names):
        return {style for name in names for style in voices.Voice.parse(name).styles}

    assert not styles(voices.TRAINING) & styles(voices.UNSEEN)
    lowest = min(voices.Voice.parse(name).percent for name in [*voices.TRAINING, *voices.UNSEEN])
    assert 24000 * lowest / 100 >= english.LOWEST_RATE


class StandIn:
    """Voices that hum for as long as the text is, in noise of its seed; their work is counted."""

    def __init__(self, fail_at=None):
        self.spoken = []
        self.fail_at = fail_at
        self.lock = threading.Lock()

    def __call__(self, voice, text, seed):
        with self.lock:
            self.spoken.append(text)
            if len(self.spoken) == self.fail_at:
                raise RuntimeError("stopped")
        random = np.random.default_rng(seed)
        hum = random.standard_normal(len(text) * 24000 // 15, np.float32) * 0.1
        silence = np.zeros(24000, np.float32)
        return np.concatenate([silence, hum, silence]), 24000


def build(folder, synthesisers, utterances):
    wanted = english.Amount(utterances=utterances)
    items = [("voice", sentence) for sentence in some_sentences(60)]
    return english.build(folder, items, synthesisers, wanted)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_stopped_build_resumes_and_gives_what_one_go_gives(tmp_path):
    done = build(tmp_path / "whole", [StandIn()], 20)
    corpus = read_corpus(tmp_path / "whole")
    assert [u.id for u in corpus.utterances] == sorted(f"voice-{s.key}" for s in some_sentences(20))
    durations = [soundfile.info(u.path).duration for u in corpus.utterances]
    assert {soundfile.info(u.path).samplerate for u in corpus.utterances} == {22050}
    assert sum(durations) == pytest.approx(done.seconds)
    for utterance, duration in zip(corpus.utterances, durations, strict=True):
        speech = len(utterance.text) / 15
        assert speech < duration < speech + 2 * english.PAUSE + 0.1

    with pytest.raises(RuntimeError, match="stopped"):
        build(tmp_path / "corpus", [StandIn(fail_at=9)], 20)
    before = read_corpus(tmp_path / "corpus").utterances
    assert 0 < len(before) < 9
    pair, idle = [StandIn(), StandIn()], StandIn()
    build(tmp_path / "corpus", pair, 20)
    spoken = [text for stand_in in pair for text in stand_in.spoken]
    assert not {u.text for u in before} & set(spoken)
    build(tmp_path / "corpus", [idle], 20)
    assert idle.spoken == []
    assert files(tmp_path / "corpus") == files(tmp_path / "whole")


def test_main_builds_the_unseen_voices_next_to_the_others(tmp_path, monkeypatch, capsys):
    class Spoken(StandIn):
        def __init__(self, python, kokoro):
            super().__init__()

        def close(self):
            pass

    monkeypatch.setattr(english, "Speaker", Spoken)
    monkeypatch.setattr(english, "read_texts", lambda: [some_sentences(1000)])
    words = ["--sentences", "12", "--unseen", "2", "--workers", "2", "--output"]
    monkeypatch.setattr(sys, "argv", ["build.py", *words, str(tmp_path / "corpus")])
    english.main()
    assert "12 utterances" in capsys.readouterr().out

    def voices_of(folder):
        return [u.id.rpartition("-")[0] for u in read_corpus(folder).utterances]

    assert sorted(voices_of(tmp_path / "corpus-unseen")) == sorted([*voices.UNSEEN] * 2)
    trained = voices_of(tmp_path / "corpus")
    assert len(trained) == 12
    assert set(trained) <= set(voices.TRAINING)

    monkeypatch.setattr(sys, "argv", ["build.py", "--voices", "af_sarah"])
    with pytest.raises(SystemExit):
        english.main()
    assert "invalid choice: 'af_sarah'" in capsys.readouterr().err
