"""What the tabs of the demo compute, without the page; the page is in test_demo_page.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import vocoder
from tests.conftest import perturb
from vocoder import MelSpec
from vocoder.audio import mel_distance
from vocoder.checkpoints import CheckpointError
from vocoder.demo import comparison, copy_synthesis, latent_space, pictures, sound, text_to_speech
from vocoder.demo.models import Models
from vocoder.models import MdctFlow, WaveNet

WAVS = Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs"
SENTENCE, OTHER = str(WAVS / "ru_0502.flac"), str(WAVS / "ru_0813.flac")
SPEC = MelSpec.preset("speech-16k")


@pytest.fixture(scope="module")
def checkpoints(
    tiny_flow: Callable[..., MdctFlow], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """A flow, a WaveNet and an acoustic model, all small, of the same mel convention."""
    from vocoder.text.acoustic import AcousticModel
    from vocoder.text.frontend import SYMBOLS

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    wavenet = WaveNet(SPEC, channels=8, n_layers=6, cycle=6, condition_channels=8)
    perturb(wavenet)
    sizes: dict[str, Any] = {"encoder_channels": 8, "encoder_layers": 1, "n_convolutions": 1}
    acoustic = AcousticModel(SYMBOLS, SPEC, n_flows=1, channels=8, n_layers=1, **sizes)
    acoustic.normalise_by(torch.full((SPEC.n_mels,), -5.0), torch.full((SPEC.n_mels,), 2.0))
    return {
        "checkpoint": str(tiny_flow(SPEC, n_flows=2).save(folder / "flow")),
        "autoregressive": str(wavenet.save(folder / "wavenet")),
        "acoustic": str(acoustic.save(folder / "acoustic")),
    }


@pytest.fixture(scope="module")
def models(checkpoints: dict[str, str]) -> Models:
    return Models(**checkpoints)


# -- text to speech --------------------------------------------------------------------------------


def test_text_is_read_and_the_limits_hold(models: Models) -> None:
    news: list[tuple[float, str]] = []
    text = "Two words. And three more."
    speech = text_to_speech.speak(models, text, 0.5, 1.0, 4, notify=lambda *new: news.append(new))
    expected = vocoder.say(text, 0.5, seed=4, acoustic=models.acoustic(), vocoder=models.vocoder())
    np.testing.assert_array_equal(speech.sound.samples.numpy(), expected)
    assert len(speech.phonemes) == 2
    assert news[-2:] == [(0.5, "sentence 1 of 2"), (1.0, "sentence 2 of 2")]
    with pytest.raises(ValueError, match="the text has 501 characters: type at most 500"):
        text_to_speech.speak(models, "a" * 501, 0.667, 1.0, 0)
    with pytest.raises(ValueError, match="there is no text"):
        text_to_speech.speak(models, " \n", 0.667, 1.0, 0)


def test_sweeps_bring_speech_closer_to_its_mel(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = models.vocoder()
    synthesize = flow.synthesize
    distances: list[float] = []

    def measured(mel: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        audio = synthesize(mel, *arguments, **options)
        distances.append(mel_distance(audio, mel, SPEC))
        return audio

    monkeypatch.setattr(flow, "synthesize", measured)
    for sweeps in (0, 2, 8):
        speech = text_to_speech.speak(models, "Two words.", 0.5, 1.0, 4, sweeps)
    assert distances[0] > distances[1] > distances[2]
    expected = vocoder.say(
        "Two words.", 0.5, seed=4, acoustic=models.acoustic(), vocoder=flow, refine=8
    )
    np.testing.assert_array_equal(speech.sound.samples.numpy(), expected)
    for wrong in (-1, 33, 1.5):
        with pytest.raises(ValueError, match="the number of sweeps is"):
            text_to_speech.speak(models, "Two words.", 0.5, 1.0, 4, wrong)


# -- copy synthesis --------------------------------------------------------------------------------


def test_copy_synthesis_is_the_vocoder_s_own_and_is_judged(models: Models) -> None:
    result = copy_synthesis.copy_synthesis(models, SENTENCE, 0.5, 3)
    audio, _ = vocoder.read_audio(SENTENCE, 16000)
    flow = models.flow()
    expected = flow.synthesize(flow.mel(audio), 0.5, 3)[: len(audio)]
    assert torch.equal(result.copy.samples, expected)
    assert torch.equal(result.recording.samples, audio)
    assert result.timing.audio == len(audio) / 16000
    assert result.scores["log_mel_distance"] < 1
    recording, copy = result.likelihoods
    assert 3 < recording < 8
    assert copy is not None
    backwards = sound.Sound(audio.flip(0), 16000, quantised=True)
    assert sound.log_likelihood(flow, backwards, result.mels[0]) < recording


def test_sweeps_bring_a_copy_closer_to_the_recording_s_mel(models: Models) -> None:
    results = [copy_synthesis.copy_synthesis(models, SENTENCE, 0.5, 3, n) for n in (0, 2, 8)]
    none, few, many = (result.scores["log_mel_distance"] for result in results)
    assert none > few > many
    flow, audio = models.flow(), results[0].recording.samples
    expected = flow.synthesize(flow.mel(audio), 0.5, 3, refine=8)[: len(audio)]
    assert torch.equal(results[2].copy.samples, expected)
    with pytest.raises(ValueError, match="the number of sweeps is 33: give a whole number from 0"):
        copy_synthesis.copy_synthesis(models, SENTENCE, 0.5, 3, 33)


def test_a_recording_that_is_cut_off_is_judged_by_its_sound(models: Models, tmp_path: Path) -> None:
    audio, rate = vocoder.read_audio(SENTENCE)
    loud = int(audio.abs().argmax())
    vocoder.write_audio(tmp_path / "cut.wav", audio[loud : loud + rate], rate)
    result = copy_synthesis.copy_synthesis(models, str(tmp_path / "cut.wav"), 0.5, 3)
    recording, copy = result.likelihoods
    assert recording is not None
    assert copy is not None
    assert min(recording, copy) > 2


@pytest.mark.parametrize("suffix, subtype", [("wav", "PCM_24"), ("ogg", "VORBIS"), ("mp3", None)])
def test_any_format_and_rate_is_accepted(
    models: Models, tmp_path: Path, suffix: str, subtype: str | None
) -> None:
    stereo = 0.1 * np.random.default_rng(0).standard_normal((44100, 2))
    path = tmp_path / f"noise.{suffix}"
    soundfile.write(path, stereo, 44100, subtype=subtype)
    result = copy_synthesis.copy_synthesis(models, str(path), None, 0)
    assert result.copy.sample_rate == 16000
    assert result.copy.seconds == pytest.approx(1, abs=0.1)


def test_bad_input_is_explained_in_one_sentence(models: Models, tmp_path: Path) -> None:
    long, short, text = (tmp_path / name for name in ("long.flac", "short.wav", "text.wav"))
    soundfile.write(long, np.zeros(61 * 8000), 8000)
    soundfile.write(short, np.zeros(800), 8000)
    text.write_text("no audio at all")
    cases = {
        None: "there is no recording: choose, record or upload one",
        str(long): "the recording lasts 61.00 s: choose one of 0.2 to 60 s, or cut it",
        str(short): "the recording lasts 0.10 s",
        str(text): "text.wav is not audio that can be read",
    }
    for path, message in cases.items():
        with pytest.raises(ValueError, match="^" + re.escape(message)) as error:
            copy_synthesis.copy_synthesis(models, path, 0.667, 0)
        assert str(tmp_path) not in str(error.value)
    for seed in (None, -1, 2**31):
        with pytest.raises(ValueError, match="the seed is"):
            copy_synthesis.copy_synthesis(models, SENTENCE, 0.667, seed)
    with pytest.raises(ValueError, match="there is no second recording"):
        latent_space.interpolate(models, SENTENCE, None, "first")
    with pytest.raises(ValueError, match="choose at most 2 s"):
        next(comparison.compare(models, SENTENCE, 3.0, 0.667, 0))


# -- comparison ------------------------------------------------------------------------------------


def test_the_comparison_shows_its_progress_and_judges_all(models: Models) -> None:
    progress, statuses = [], []
    for state in comparison.compare(models, SENTENCE, 0.5, 0.667, 1):
        progress.append(state.rows[comparison.AUTOREGRESSIVE].progress)
        statuses.append(state.status)
    assert progress == sorted(progress)
    assert len(set(progress)) > 5
    assert any("WaveNet: 0.2" in status for status in statuses)
    assert statuses[-1] == ""
    samples = round(0.5 * 16000 / 256) * 256
    for key, row in state.rows.items():
        assert len(row.sound.samples) == samples
        assert set(row.likelihoods) == {comparison.FLOW, comparison.AUTOREGRESSIVE}
        assert (row.distance is None) == (key == comparison.RECORDING)
    assert set(state.rows) == set(comparison.WHY)
    # The loudest half second, unchanged but for its faded ends.
    audio, _ = vocoder.read_audio(SENTENCE, 16000)
    energy = audio.square().cumsum(0)
    first = round(state.start * 16000)
    loudest = (energy[samples:] - energy[:-samples]).max()
    assert energy[first + samples] - energy[first] == pytest.approx(loudest.item(), rel=1e-2)
    excerpt = state.rows[comparison.RECORDING].sound.samples
    assert torch.equal(excerpt[256:-256], audio[first + 256 : first + samples - 256])
    assert abs(excerpt[0]) < abs(audio[first]) + 1e-6
    # What was streamed is what the model makes at once.
    wavenet = models.autoregressive()
    at_once = wavenet.synthesize(wavenet.mel(excerpt), 0.667, 1)
    streamed = state.rows[comparison.AUTOREGRESSIVE].sound.samples
    torch.testing.assert_close(streamed[256:-256], at_once[256:-256], rtol=0, atol=2 / 32768)


def test_sweeps_bring_all_of_the_comparison_closer_to_the_mel(models: Models) -> None:
    keys = set(comparison.WHY) - {comparison.RECORDING}
    states = []
    for sweeps in (0, 1, 8):
        *_, state = comparison.compare(models, SENTENCE, 0.5, 0.667, 1, sweeps)
        states.append(state)
    for key in keys:
        none, one, eight = (state.rows[key].distance for state in states)
        assert none > one > eight, key
    rows = states[2].rows
    assert rows[comparison.FLOW].how == "all samples in one pass, 8 sweeps"
    # As the model makes it at once.
    wavenet, excerpt = models.autoregressive(), rows[comparison.RECORDING].sound.samples
    at_once = wavenet.synthesize(wavenet.mel(excerpt), 0.667, 1, refine=8)
    made = rows[comparison.AUTOREGRESSIVE].sound.samples
    torch.testing.assert_close(made[256:-256], at_once[256:-256], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="the number of sweeps is -1"):
        next(comparison.compare(models, SENTENCE, 0.5, 0.667, 1, refine=-1))


def test_a_mel_without_pitch_is_compared_without_a_source(
    checkpoints: dict[str, str], tmp_path: Path
) -> None:
    coarse = replace(MelSpec.preset("speech-16k"), n_mels=20)
    flow = MdctFlow(coarse, n_flows=1, channels=8, n_layers=1, scale_channels=8)
    wavenet = WaveNet(coarse, channels=8, n_layers=2, cycle=2, condition_channels=8)
    models = Models(
        **{
            **checkpoints,
            "checkpoint": str(flow.save(tmp_path / "flow")),
            "autoregressive": str(wavenet.save(tmp_path / "wavenet")),
        }
    )
    *_, state = comparison.compare(models, SENTENCE, 0.25, 0.667, 0)
    assert set(state.rows) == set(comparison.WHY) - {comparison.SOURCE}


def test_models_of_two_conventions_get_a_mel_each(
    checkpoints: dict[str, str], tmp_path: Path
) -> None:
    spec = replace(MelSpec.preset("ljspeech"), n_mels=40)
    wavenet = WaveNet(spec, channels=8, n_layers=2, cycle=2, condition_channels=8)
    named = {**checkpoints, "autoregressive": str(wavenet.save(tmp_path / "other"))}
    *_, state = comparison.compare(Models(**named), SENTENCE, 0.5, 0.667, 0)
    assert any("22,050 Hz, 40 bands" in note for note in state.notes)
    row = state.rows[comparison.AUTOREGRESSIVE]
    assert row.sound.sample_rate == 22050
    assert row.sound.seconds == pytest.approx(0.5, abs=0.02)
    assert set(row.likelihoods) == {comparison.AUTOREGRESSIVE}
    recording, griffin_lim = (
        state.rows[key] for key in (comparison.RECORDING, comparison.GRIFFIN_LIM)
    )
    assert set(recording.likelihoods) == {comparison.FLOW, comparison.AUTOREGRESSIVE}
    assert set(griffin_lim.likelihoods) == {comparison.FLOW}


# -- latent space ----------------------------------------------------------------------------------


def test_the_sweep_begins_without_noise(models: Models) -> None:
    first = latent_space.sweep(models, SENTENCE, 0, (0.0, 1.0))
    second = latent_space.sweep(models, SENTENCE, 1, (0.0, 1.0))
    assert torch.equal(first.points[0].sound.samples, second.points[0].sound.samples)
    assert not torch.equal(first.points[1].sound.samples, second.points[1].sound.samples)
    assert [point.at for point in first.points] == [0.0, 1.0]


def test_an_interpolation_ends_at_the_recordings(models: Models) -> None:
    arc = latent_space.interpolate(models, SENTENCE, OTHER, "between", 3)
    audio = [vocoder.read_audio(path, 16000)[0] for path in (SENTENCE, OTHER)]
    length = min(len(samples) // 256 for samples in audio) * 256
    for point, recording in ((arc.points[0], audio[0]), (arc.points[-1], audio[1])):
        assert len(point.sound.samples) == length
        # The first and last frames are faded.
        torch.testing.assert_close(
            point.sound.samples[256:-256], recording[256 : length - 256], rtol=0, atol=1e-4
        )
    assert arc.reconstruction < 1e-4
    assert 80 < arc.angle < 100  # the noise of two recordings is unrelated
    middle = arc.points[1].sound.samples
    assert not torch.allclose(
        middle, 0.5 * (arc.points[0].sound.samples + arc.points[2].sound.samples)
    )
    held = latent_space.interpolate(models, SENTENCE, OTHER, "first", 3)
    torch.testing.assert_close(held.points[0].sound.samples, arc.points[0].sound.samples)
    assert not torch.allclose(held.points[2].sound.samples, arc.points[2].sound.samples, atol=1e-3)


def test_the_great_circle_keeps_to_the_sphere_and_may_be_a_point(models: Models) -> None:
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(2, 8, 50, generator=generator, dtype=torch.float64)
    ends /= ends.norm(dim=(1, 2), keepdim=True)
    angle = torch.arccos((ends[0] * ends[1]).sum()).item()
    for t in (0.0, 0.25, 0.5, 1.0):
        z = latent_space._between(ends[0], ends[1], t, angle)
        assert z.norm().item() == pytest.approx(1)
        assert torch.arccos((z * ends[0]).sum().clamp(-1, 1)).item() == pytest.approx(
            t * angle, abs=1e-6
        )
    same = latent_space.interpolate(models, SENTENCE, SENTENCE, "between", 3)
    assert same.angle == pytest.approx(0, abs=0.1)
    torch.testing.assert_close(
        same.points[1].sound.samples, same.points[0].sound.samples, rtol=0, atol=1e-4
    )


# -- what the tabs share ---------------------------------------------------------------------------


def test_models_are_loaded_once_and_chosen_by_convention(
    checkpoints: dict[str, str],
    tiny_flow: Callable[..., MdctFlow],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    news: list[str] = []
    models = Models(**checkpoints)
    first = models.vocoder(lambda _, message: news.append(message))
    assert models.vocoder(lambda _, message: news.append(message)) is first
    assert news == ["loading the MDCT flow"]
    # A bundled flow that follows the mel convention is preferred.
    spec = replace(SPEC, n_mels=20)
    bundled = {
        "acoustic": Path(checkpoints["acoustic"]),
        "default": Path(checkpoints["checkpoint"]),
        "other": tiny_flow(spec).save(tmp_path / "other"),
    }
    monkeypatch.setattr("vocoder.demo.models.bundled_models", lambda: bundled)
    monkeypatch.setattr("vocoder.pretrained.bundled_models", lambda: bundled)
    models = Models()
    assert models.vocoder_for(spec).mel_spec == spec
    assert models.vocoder_for(replace(spec, n_mels=21)) is models.vocoder()
    assert models.has_acoustic
    assert models.acoustic().mel_spec == SPEC
    assert models.autoregressive_family is None
    with pytest.raises(CheckpointError, match="no autoregressive model is bundled"):
        models.autoregressive()


def test_the_model_s_own_number_of_sweeps_is_known_before_it_is_loaded(
    tiny_flow: Callable[..., MdctFlow], checkpoints: dict[str, str], tmp_path: Path
) -> None:
    assert Models(checkpoints["checkpoint"]).default_refine == 0
    models = Models(str(tiny_flow(SPEC, refine=4).save(tmp_path / "refined")))
    assert models.default_refine == 4
    own = copy_synthesis.copy_synthesis(models, SENTENCE, 0.5, 3)
    given = copy_synthesis.copy_synthesis(models, SENTENCE, 0.5, 3, 4)
    assert torch.equal(own.copy.samples, given.copy.samples)


def test_without_names_the_bundled_models_are_used() -> None:
    models = Models()
    assert (models.family, models.autoregressive_family) == (MdctFlow, WaveNet)
    assert models.autoregressive_is_bundled
    assert models.has_acoustic


def test_wrong_models_are_refused_by_name(checkpoints: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model nowhere"):
        Models("nowhere")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        Models(checkpoints["checkpoint"], str(tmp_path))
    with pytest.raises(CheckpointError, match="MDCT flow model, which makes all samples at once"):
        Models(checkpoints["checkpoint"], checkpoints["checkpoint"])
    with pytest.raises(CheckpointError, match="it is not a checkpoint of a vocoder"):
        Models(checkpoints["acoustic"])
    with pytest.raises(CheckpointError, match="a WaveNet, which has no latent space"):
        Models(checkpoints["autoregressive"]).flow()


def test_pictures_are_drawn_of_silence_too(models: Models) -> None:
    mel = models.vocoder().mel(torch.zeros(4000))
    silence = sound.Sound(torch.zeros(4000), 16000)
    for picture in (
        pictures.waveform_and_mel(silence, mel, SPEC),
        pictures.mels(["one", "two"], [mel, mel], [SPEC, SPEC]),
        pictures.mel_row(["one", "two"], [mel, mel], [SPEC, SPEC]),
    ):
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert len(np.unique(picture)) > 10  # titles and axes at least


def test_sixteen_bits_do_not_wrap_around() -> None:
    samples = sound.Sound(torch.tensor([-1.0, 0.0, 0.5, 1.0]), 16000)
    assert samples.pcm().tolist() == [-32768, 0, 16384, 32767]
