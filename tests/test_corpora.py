"""The scripts that build corpora, on recordings laid out as those that they start from."""

import csv
import threading
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

import vocoder
from tests.conftest import ROOT, scripts
from vocoder.corpus import read_corpus
from vocoder.training.recipe import CONFIGS, Recipe, main

RECIPES = ROOT / "recipes"
SAMPLE = RECIPES / "ljspeech" / "sample"


with scripts("recipes/festvox-ru") as script:
    festvox = script("build")
with scripts("recipes/high-rate") as script:
    high_rate = script("build")
with scripts("recipes/unseen-speakers") as script:
    unseen = script("build")
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


# -- from Debian packages of recordings --------------------------------------------------------


def record(path, seconds, rate, seed):
    """A gliding tone with its harmonics, a hiss, and a pause, in two channels."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 60 * time) / rate
    audio = sum(np.sin(k * phase) / k for k in range(1, 20)) + 0.3 * rng.normal(size=len(time))
    audio[: len(audio) // 6] *= 1e-3
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.stack([audio, audio], axis=1), rate, format="OGG")


def stamp(folder, take, language, seconds, rate, text):
    record(folder / f"{take}_desc_{language}.ogg", seconds, rate, take)
    with (folder / f"{take}.txt").open("a", encoding="utf-8") as file:
        file.write(f"Stamp.\n{language}.utf8={text}\n")


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    """The corpus of recipes/high-rate, from good recordings, a short one and one at 8 kHz."""
    plants = tmp_path_factory.mktemp("stamps") / "plants"
    for language in [*high_rate.TRAINING, high_rate.UNSEEN]:
        for take in range(7):
            rate = 8000 if take == 6 else 44100
            stamp(plants, take, language, 0.5 if take == 5 else 1.1, rate, f"a|b {take}")
    folder = tmp_path_factory.mktemp("data") / "high-rate"
    assert "10 recordings" in high_rate.build(plants.parent, folder)
    return folder


def test_the_corpus_is_of_two_voices_and_another_is_kept_apart(stamps, tmp_path):
    utterances = read_corpus(stamps).utterances
    assert {u.id.rpartition("_")[2] for u in utterances} == set(high_rate.TRAINING)
    assert {u.text for u in utterances} == {f"a b {take}" for take in range(5)}
    for utterance in utterances:
        info = soundfile.info(utterance.path)
        assert (info.samplerate, info.channels, info.format) == (44100, 1, "FLAC")
    others = list(stamps.with_name("high-rate-unseen").iterdir())
    assert len(others) == 5
    assert all(path.stem.endswith(f"_{high_rate.UNSEEN}") for path in others)
    with pytest.raises(FileNotFoundError, match="package tuxpaint-stamps-default"):
        high_rate.build(tmp_path / "no", tmp_path / "out")


@pytest.mark.parametrize("names, rate", [(["44k"], 44100), (["24k", "vocos"], 24000)])
def test_a_configuration_of_high_rate_trains_and_speaks(names, rate, stamps, tmp_path):
    class WithoutReport(Recipe):
        def report(self, *arguments):
            pass

    source = CONFIGS / "source.yaml"
    files = [source, *(RECIPES / f"high-rate/config/{name}.yaml" for name in names)]
    options = [word for file in files for word in ("--config", str(file))]
    options += ["--data", str(stamps), "--cache", str(tmp_path / "prepared")]
    options += ["--run", str(tmp_path / "run"), "--max_steps", "2", "--max_time", "null"]
    options += ["--speech.batch_size", "2", "--speech.crop_frames", "16"]
    options += ["--training.validation_syntheses", "1", "--trainer.accelerator", "cpu"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(WithoutReport("", source, stamps), options) == 0
    # The pitch network is in evaluation mode on purpose.
    assert not [w for w in caught if "eval mode" in str(w.message)]
    model = vocoder.load(tmp_path / "run" / "model")
    audio, _ = vocoder.read_audio(read_corpus(stamps).utterances[0].path, rate)
    assert model.sample_rate == rate
    assert model.synthesize(model.mel(audio)).std() > 0.1 * audio.std()


def test_both_halves_of_unseen_speakers_are_as_planned(tmp_path):
    fillets, stamps, folder = (tmp_path / name for name in ("fillets", "stamps", "out"))
    for voice in unseen.VOICES:
        for take in range(voice.development + voice.test + 2):
            seconds = 1.0 if take < 2 else 2.2  # the first two are too short
            if not voice.source.startswith("font_"):
                stamp(stamps / "animals", take, voice.source, seconds, 44100, f"текст {take}")
                continue
            level, name = "pub" if voice.level == "*" else voice.level, f"{voice.name}-{take}"
            record(fillets / "sound" / level / "cs" / f"{name}.ogg", seconds, 22050, take)
            (fillets / "script" / level).mkdir(parents=True, exist_ok=True)
            with (fillets / "script" / level / "dialogs_cs.lua").open("a") as file:
                file.write(f'dialogId("{name}", "{voice.source}", "English")\n')
                file.write(f'dialogStr("Česky \\"{take}\\"")\n\n')
    summary = unseen.build(fillets, stamps, folder)
    with (folder / "list.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for half in unseen.HALVES:
        planned = {v.name: n for v in unseen.VOICES if (n := getattr(v, half))}
        mine = [row for row in rows if row["half"] == half]
        assert f"{half}: {sum(planned.values())} recordings" in summary
        assert Counter(row["voice"] for row in mine) == planned
        files = {p.relative_to(folder / half).as_posix() for p in (folder / half).rglob("*.wav")}
        assert files == {row["file"] for row in mine}
    assert len({row["file"] for row in rows}) == len(rows)  # no recording is in both
    for path in folder.rglob("*.wav"):
        info = soundfile.info(path)
        rate = {"22k": 22050, "44k": 44100}[path.parent.name]
        assert (info.samplerate, info.channels, info.subtype) == (rate, 1, "PCM_16")
        assert unseen.SECONDS[0] <= info.duration <= unseen.SECONDS[1]
    for row in rows:
        name = Path(row["file"]).stem
        czech = f'Česky "{name.rpartition("-")[2]}"'
        text = czech if row["language"] == "Czech" else f"текст {name.split('_')[1]}"
        assert row["text"] == text


def test_clipped_silent_noisy_and_short_recordings_are_refused(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 22050).astype(np.float32)
    speech = noise.copy()
    speech[:8000] *= 1e-3  # a pause
    assert unseen.usable(speech, 22050)
    for wrong in (noise, speech[:22050], 0.05 * speech, np.clip(8 * speech, -1, 1)):
        assert not unseen.usable(wrong, 22050)
    with pytest.raises(FileNotFoundError, match="install Debian's packages fillets-ng-data"):
        unseen.build(tmp_path / "no", tmp_path / "no", tmp_path / "out")
    assert not (tmp_path / "out").exists()
