"""The recipe for 24 and 44.1 kHz: its corpus, and its configurations in two steps."""

import warnings

import numpy as np
import pytest
import soundfile

import vocoder
from tests.conftest import ROOT, scripts
from vocoder.audio import MelSpec
from vocoder.corpus import read_corpus
from vocoder.training.recipe import CONFIGS, Recipe, main

FOLDER = ROOT / "recipes" / "high-rate"
SOURCE = CONFIGS / "source.yaml"
CONFIGS = {"24k": ["24k"], "44k": ["44k"], "vocos": ["24k", "vocos"]}


with scripts("recipes/high-rate") as script:
    build = script("build")


def speak(path, seconds, rate, seed):
    """A gliding tone with its harmonics, a hiss, and a pause."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 60 * time) / rate
    audio = sum(np.sin(k * phase) / k for k in range(1, 20)) + 0.3 * rng.normal(size=len(time))
    audio[: len(audio) // 6] *= 1e-3
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.stack([audio, audio], axis=1), rate, format="OGG")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Built from a folder laid out as the package: good recordings, a short one, one at 8 kHz."""
    stamps = tmp_path_factory.mktemp("stamps")
    for number, language in enumerate([*build.TRAINING, build.UNSEEN]):
        for take in range(7):
            seconds = 0.5 if take == 5 else 1.1
            rate = 8000 if take == 6 else 44100
            path = stamps / "plants" / f"{take}_desc_{language}.ogg"
            speak(path, seconds, rate, 10 * number + take)
            with (path.parent / f"{take}.txt").open("a", encoding="utf-8") as file:
                file.write(f"Stamp.\n{language}.utf8=a|b {take}\n")
    folder = tmp_path_factory.mktemp("data") / "high-rate"
    assert "10 recordings" in build.build(stamps, folder)
    return folder


def test_the_corpus_is_of_two_voices_and_another_is_kept_apart(corpus):
    utterances = read_corpus(corpus).utterances
    assert {u.id.rpartition("_")[2] for u in utterances} == set(build.TRAINING)
    assert {u.text for u in utterances} == {f"a b {take}" for take in range(5)}
    for utterance in utterances:
        info = soundfile.info(utterance.path)
        assert (info.samplerate, info.channels, info.format) == (44100, 1, "FLAC")
    unseen = list(corpus.with_name("high-rate-unseen").iterdir())
    assert len(unseen) == 5
    assert all(path.stem.endswith(f"_{build.UNSEEN}") for path in unseen)


def test_without_the_package_it_says_what_to_install(tmp_path):
    with pytest.raises(FileNotFoundError, match="package tuxpaint-stamps-default"):
        build.build(tmp_path / "no", tmp_path / "out")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_trains_and_speaks(name, corpus, tmp_path):
    class WithoutReport(Recipe):
        def report(self, *arguments):
            pass

    files = [SOURCE, *(FOLDER / "config" / f"{config}.yaml" for config in CONFIGS[name])]
    options = [word for file in files for word in ("--config", str(file))]
    options += ["--data", str(corpus), "--cache", str(corpus.parent / "prepared")]
    options += ["--run", str(tmp_path / "run"), "--max_steps", "2", "--max_time", "null"]
    options += ["--speech.batch_size", "2", "--speech.crop_frames", "16"]
    options += ["--training.validation_syntheses", "1", "--trainer.accelerator", "cpu"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(WithoutReport("", SOURCE, corpus), options) == 0
    # The pitch network is in evaluation mode on purpose.
    assert not [w for w in caught if "eval mode" in str(w.message)]

    model = vocoder.load(tmp_path / "run" / "model")
    if name != "vocos":
        assert model.mel_spec == MelSpec.preset(f"speech-{name}")
    audio, rate = vocoder.read_audio(read_corpus(corpus).utterances[0].path, model.sample_rate)
    made = model.synthesize(model.mel(audio))
    assert rate == model.sample_rate == (44100 if name == "44k" else 24000)
    assert made.std() > 0.1 * audio.std()
