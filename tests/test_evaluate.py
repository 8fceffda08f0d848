"""Copy synthesis measured through the whole path: stand-ins that are known, and the command."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from tests.conftest import ROOT, command
from vocoder.audio import MelSpec, read_audio
from vocoder.corpus import held_out
from vocoder.evaluation import copy_synthesis, tables
from vocoder.evaluation.copy_synthesis import MEASURES, EvaluationError, evaluate, find_recordings
from vocoder.evaluation.results import estimate
from vocoder.models import Vocoder

SAMPLE = ROOT / "recipes/ljspeech/sample"
RATE = 16000
SEVERAL = {"clean": 0.0, "hiss": 0.002, "roar": 0.05}  # level of the noise that a stand-in adds


class StandIn(Vocoder):
    """Remembers the audio whose mel it computed, and returns it with white noise.

    If it has a likelihood, every sample is uniform in [-1, 1]; it checks its input.
    """

    architecture = title = "stand-in"
    default_temperature = 0.5
    context_frames = (0, 0)

    def __init__(self, mel_spec="speech-16k", level=0.0, likelihood=None):
        super().__init__(mel_spec)
        self.level, self.likelihood = level, likelihood
        self.weight = nn.Parameter(torch.zeros(()))

    def mel(self, audio):
        self.audio = audio
        return super().mel(audio)

    def generate(self, mel, noise, temperature, first_frame=0):
        samples = mel.shape[2] * self.mel_spec.hop_length
        audio = torch.zeros(samples)  # a centred mel has one frame more than the audio
        known = self.audio[:samples]
        audio[: len(known)] = known
        hiss = torch.randn(samples, generator=torch.Generator().manual_seed(0))
        return (audio + self.level * hiss).unsqueeze(0)

    def log_likelihood(self, audio, mel):
        noise = 32768 * (audio[0] - self.audio)
        assert noise.abs().max() <= 0.5 + 1e-2
        assert noise.std().item() == pytest.approx(12**-0.5, rel=0.05)
        self.seen = audio
        return torch.full((audio.shape[0],), audio.shape[1] * -math.log(2))


def uniform(mel_spec="speech-16k"):
    return StandIn(mel_spec, likelihood="exact")


def shorten(name, target, seconds=1.5, rate=RATE):
    audio, _ = read_audio(SAMPLE / f"wavs/{name}.flac", rate)
    soundfile.write(target, audio[: round(seconds * rate)].numpy(), rate, subtype="PCM_16")


@pytest.fixture(scope="module")
def wavs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wavs")
    (folder / "speaker").mkdir()
    shorten("ru_0813", folder / "a.wav")
    shorten("ru_0264", folder / "speaker/b.flac")
    return folder


TAKEN = ("log_mel_distance", "envelope_depth", "stoi", "tonal_artifacts", "log_likelihood")


@pytest.fixture(scope="module")
def result(wavs):
    """Three known distortions."""
    models = {name: StandIn(level=level) for name, level in SEVERAL.items()}
    return evaluate(models, wavs, measures=TAKEN)


def test_a_model_that_returns_the_recording_is_perfect_and_noise_is_worse(result):
    def means(measure):
        return [result["rows"][name][measure]["mean"] for name in SEVERAL]

    row = result["rows"]["clean"]
    assert row["log_mel_distance"] == {"mean": 0, "lower": 0, "upper": 0, "n": 2}
    for name in ("envelope_depth", "tonal_artifacts"):
        assert row[name] == result["rows"]["recording"][name]
    # The recording is judged only by what needs no reference.
    taken = {name for name, row in result["rows"]["recording"].items() if row["n"]}
    assert taken == {"tonal_artifacts", "envelope_depth"}
    clean, hiss, roar = means("log_mel_distance")
    assert clean == 0 < result["rows"]["Griffin-Lim"]["log_mel_distance"]["mean"] < hiss < roar
    if "stoi" in result["measures"]:
        clean, hiss, roar = means("stoi")
        assert 0.999 < clean <= 1.0001
        assert clean > hiss > roar
    # Differences are paired.
    assert list(result["differences"]) == ["hiss", "roar", "Griffin-Lim"]
    values = [file["values"] for file in result["files"]]
    expected = estimate([v["clean"]["stoi"] - v["roar"]["stoi"] for v in values])
    assert result["differences"]["roar"]["stoi"] == expected
    assert expected["mean"] > 0
    assert result["differences"]["roar"]["log_likelihood"]["mean"] is None


def test_an_estimate_is_students_t():
    # By a printed table: t = 2.776 at 97.5 % and 4 degrees of freedom; s = sqrt(2.5).
    half = 2.7764 * math.sqrt(2.5 / 5)
    got = estimate([1, 2, 3, 4, 5])
    assert (got["mean"], got["n"]) == (3, 5)
    assert [got["lower"], got["upper"]] == pytest.approx([3 - half, 3 + half], abs=1e-4)
    assert estimate([7.0]) == {"mean": 7.0, "lower": None, "upper": None, "n": 1}
    assert estimate([]) == {"mean": None, "lower": None, "upper": None, "n": 0}


@pytest.fixture
def quick(monkeypatch):
    """Only the measures that take no time, and PESQ, whose package is missing."""
    names = ("log_mel_distance", "times_real_time", "log_likelihood", "pesq")
    measures = {name: MEASURES[name] for name in names}
    measures["pesq"] = replace(measures["pesq"], packages=["no_such_package"])
    monkeypatch.setattr(copy_synthesis, "MEASURES", measures)


@pytest.mark.usefixtures("quick")
def test_log_likelihood_is_of_faded_audio_dequantised_with_noise_that_stays(tmp_path):
    model = uniform()
    hop = model.mel_spec.hop_length
    soundfile.write(tmp_path / "cut.wav", np.full(8192, 0.25), RATE, subtype="PCM_16")
    seen = []
    for _ in range(2):
        row = evaluate({"uniform": model}, tmp_path)["rows"]["uniform"]
        assert row["log_likelihood"]["mean"] == pytest.approx(-math.log(2))
        assert row["times_real_time"]["mean"] > 0
        seen.append(model.seen[0])
    assert torch.equal(*seen)
    assert seen[0][[0, -1]].abs().max() < 1e-3
    assert (seen[0][hop:-hop] - 0.25).abs().max() < 1e-4


def test_only_the_measures_asked_for_are_taken(wavs):
    asked = ["stoi", "log_mel_distance"]
    result = evaluate({"uniform": uniform()}, wavs, limit=1, measures=asked)
    assert sorted(result["measures"]) == sorted(asked)
    values = result["files"][0]["values"]["uniform"]
    assert sorted(values) == sorted(asked)
    assert None not in values.values()
    with pytest.raises(ValueError, match="no measure 'stoy': choose from pesq, "):
        evaluate({"uniform": uniform()}, wavs, measures=["stoy"])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("center", [False, True])
def test_models_and_griffin_lim_are_measured_with_each_number_of_iterations(wavs, center):
    spec = MelSpec.from_dict({**MelSpec.preset("speech-16k").to_dict(), "center": center})
    models = {"roar": StandIn(spec, level=0.05), "uniform": uniform(spec)}
    result = evaluate(models, wavs, limit=1, refine=[0, 1, 4, 1])
    numbers = {"0 iterations": 0, "1 iteration": 1, "4 iterations": 4}
    systems = [f"{name}, {n}" for name in (*models, "Griffin-Lim") for n in numbers]
    assert list(result["rows"]) == ["recording", *systems]
    assert result["about"]["refine"] == {name: numbers[name.split(", ")[1]] for name in systems}
    for name in ("roar", "Griffin-Lim"):
        none, one, four = (
            result["rows"][f"{name}, {n}"]["log_mel_distance"]["mean"] for n in numbers
        )
        assert none > one > four
    assert list(result["differences"]) == systems[1:]
    assert result["differences"]["roar, 4 iterations"]["log_mel_distance"]["mean"] > 0
    # Refinement does not enter the likelihood.
    likelihood = result["rows"]["uniform, 4 iterations"]["log_likelihood"]["mean"]
    assert likelihood == pytest.approx(-math.log(2))
    assert " | roar, 4 iterations | " in tables.copy_synthesis(result)


@pytest.mark.usefixtures("quick")
def test_models_of_other_rates_compare_but_not_in_nats_per_sample(wavs):
    models = {"narrow": uniform(), "wide": uniform("ljspeech")}
    result = evaluate(models, wavs, limit=1)
    assert result["rows"]["wide"]["log_mel_distance"]["mean"] == pytest.approx(0, abs=1e-6)
    assert result["differences"]["wide"]["log_likelihood"]["n"] == 0
    assert result["differences"]["wide"]["log_mel_distance"]["n"] == 1


@pytest.mark.usefixtures("quick")
def test_bad_files_are_skipped_and_named(wavs, tmp_path):
    shutil.copy(wavs / "a.wav", tmp_path)
    (tmp_path / "broken.wav").write_text("no audio")
    soundfile.write(tmp_path / "short.wav", np.zeros(100), RATE)
    (tmp_path / ".hidden.wav").write_text("not looked at")
    result = evaluate({"clean": StandIn()}, tmp_path)
    assert [file["file"] for file in result["files"]] == ["a.wav"]
    assert result["skipped"].keys() == {"broken.wav", "short.wav"}
    assert "not audio" in result["skipped"]["broken.wav"]
    assert "too short" in result["skipped"]["short.wav"]
    assert "broken.wav" in tables.caption(result)
    (tmp_path / "a.wav").unlink()
    with pytest.raises(EvaluationError, match=r"none of the 2 recordings.*broken\.wav"):
        evaluate({"clean": StandIn()}, tmp_path)
    with pytest.raises(EvaluationError, match="stand-in made NaN"):
        evaluate({"worn out": StandIn(level=math.nan)}, wavs)


def test_of_a_corpus_the_test_utterances_are_taken():
    found = find_recordings(SAMPLE)
    assert {path.stem for path in found} == set(held_out(SAMPLE).test)
    assert None not in found.values()
    assert len(find_recordings(SAMPLE / "wavs")) > len(found)


# -- the command -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tiny_flow, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return [tiny_flow(n_layers=n).save(folder / f"{n}") for n in (1, 2)]


@pytest.mark.usefixtures("quick")
def test_the_command_writes_json_and_markdown(wavs, checkpoints, tmp_path):
    model, other = checkpoints
    out, table = tmp_path / "e.json", tmp_path / "e.md"
    arguments = (wavs, "-c", model, "--against", other, "--refine", "0, 2", "--device", "cpu")
    done = command("evaluate", *arguments, "--json", "--output", out, "--table", table)
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads(out.read_text()) == result
    names = [f"{name}, {n} iterations" for name in (model, other, "Griffin-Lim") for n in (0, 2)]
    assert list(result["rows"]) == ["recording", *names]
    assert all(name in table.read_text() for name in names)
    assert result["about"]["models"][names[0]]["architecture"] == "mdct-flow"
    for row in (*result["rows"].values(), *result["differences"].values()):
        assert row.keys() == result["measures"].keys()
        for value in row.values():
            assert value.keys() == {"mean", "lower", "upper", "n"}
    assert result["rows"][names[0]]["log_likelihood"]["n"] == 2
    assert result["differences"][names[2]]["log_likelihood"]["mean"] != 0
    for file in result["files"]:
        assert file["seconds"] == pytest.approx(1.5, abs=0.02)
        assert file["values"].keys() == result["rows"].keys()
    # It prints a table, too, and what was left out.
    shutil.copy(wavs / "a.wav", tmp_path)
    (tmp_path / "b.wav").write_text("no audio")
    done = command("evaluate", tmp_path, "-c", model)
    assert done.exit_code == 0, done.stderr
    words = " ".join(done.stdout.split())
    for expected in ("Griffin-Lim", "Left out, not installed: pesq.", "Skipped: b.wav."):
        assert expected in words
    assert "PESQ needs the package no_such_package" in done.stderr
    assert "b.wav is not audio" in done.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["none"], "no folder"),
        ([SAMPLE.parents[1] / "restoration" / "config"], "no audio"),
        ([SAMPLE, "--refine", "two"], "refine must be"),
        ([SAMPLE, "--refine", "-1"], "0 to 1,000"),
        ([SAMPLE, "--against", "default", "-c", "default"], "itself"),
        ([SAMPLE, "--output", SAMPLE / "metadata.csv"], "--force"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments, words, checkpoints):
    done = command("evaluate", "-c", checkpoints[0], *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr
