"""Measures of quality: perfect for identical audio, in the right order for known distortions."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vocoder.audio import MelSpec, read_audio
from vocoder.evaluation import METRICS, MetricError, MissingExtraError, measure, metrics

WAVS = Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs"
RATE = 16000
SPEC = MelSpec.preset("speech-16k")

PERFECT = {
    "log_mel_distance": 0.0,
    "mcd": 0.0,
    "stoi": 1.0,
    "pesq": 4.644,  # the top of the scale of P.862.2
    "f0_rmse": 0.0,
    "voicing_f1": 1.0,
    "periodicity_error": 0.0,
}
Measure = Callable[[np.ndarray, np.ndarray], float]


def of(name: str) -> Measure:
    """The measure as a function of the pair alone; skips what needs a package that is missing."""
    if name in ("stoi", "pesq"):
        pytest.importorskip("pystoi" if name == "stoi" else name)
    function = METRICS[name].function
    if function is None:
        return lambda a, b: metrics.log_mel_distance(a, b, RATE, SPEC)
    return lambda a, b: function(a, b, RATE)


@pytest.fixture(scope="module", params=["ru_0813", "ru_0264"])
def speech(request: pytest.FixtureRequest) -> np.ndarray:
    audio, rate = read_audio(WAVS / f"{request.param}.flac")
    assert rate == RATE
    return audio.numpy()[: 3 * RATE]


def noisy(audio: np.ndarray, snr: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
    scale = math.sqrt(np.mean(audio**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    return audio + np.float32(scale) * noise


def low_passed(audio: np.ndarray, hertz: float) -> np.ndarray:
    spectrum = np.fft.rfft(audio)
    spectrum[np.fft.rfftfreq(len(audio), 1 / RATE) > hertz] = 0
    return np.fft.irfft(spectrum, len(audio)).astype(np.float32)


def clipped(audio: np.ndarray, share: float) -> np.ndarray:
    limit = share * np.abs(audio).max()
    return np.clip(audio, -limit, limit)


@pytest.mark.parametrize("name", METRICS)
def test_identical_audio_is_perfect(name: str, speech: np.ndarray) -> None:
    assert of(name)(speech, speech.copy()) == pytest.approx(PERFECT[name], abs=1e-3)


DISTORTIONS = {
    "noise at 30, 20, 10, 0 dB": [lambda x, s=s: noisy(x, s) for s in (30, 20, 10, 0)],
    "low-pass": [lambda x, f=f: low_passed(x, f) for f in (6000, 3000, 1000)],
    "clipping": [lambda x, c=c: clipped(x, c) for c in (0.5, 0.2, 0.05)],
}
# Pitch survives all of them until the noise is loud: no order to ask for.
ORDERED = [(name, kind) for name in ("log_mel_distance", "mcd", "pesq") for kind in DISTORTIONS]
# STOI ends at 4 kHz and normalises levels: only what is cut below that is worse for it.
ORDERED += [("stoi", "noise at 30, 20, 10, 0 dB"), ("stoi", "clipping")]


@pytest.mark.parametrize("name, kind", ORDERED)
def test_more_distortion_scores_worse(name: str, kind: str, speech: np.ndarray) -> None:
    take = of(name)
    scores = [take(speech, speech.copy())]
    scores += [take(speech, distort(speech)) for distort in DISTORTIONS[kind]]
    sign = 1 if METRICS[name].better == "lower" else -1
    assert all(sign * a < sign * b for a, b in itertools.pairwise(scores)), scores


def test_noise_hurts_voicing_and_periodicity(speech: np.ndarray) -> None:
    voicing, periodicity = [], []
    for snr in (40, 10, -10):
        other = noisy(speech, snr)
        voicing.append(metrics.voicing_f1(speech, other, RATE))
        periodicity.append(metrics.periodicity_error(speech, other, RATE))
    assert voicing[0] > 0.9 > voicing[2] >= 0
    assert 0 < periodicity[0] < periodicity[1] < periodicity[2] <= 1, periodicity


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """A harmonic tone: what pitch trackers are sure of."""
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 6))
    return (0.2 * wave).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 22050])
def test_a_semitone_is_100_cents(rate: int) -> None:
    pair = tone(150, rate=rate), tone(150 * 2 ** (1 / 12), rate=rate)
    # pyin's pitch grid is a tenth of a semitone.
    assert metrics.f0_rmse(*pair, rate) == pytest.approx(100, abs=12)
    assert metrics.voicing_f1(*pair, rate) == pytest.approx(1, abs=0.05)


def test_voicing_counts_frames() -> None:
    # Half of the voiced frames are missed and none is added: F1 = 2 / 3.
    whole, half = tone(150, 2), tone(150, 2)
    half[RATE:] = 0
    assert metrics.voicing_f1(whole, half, RATE) == pytest.approx(2 / 3, abs=0.03)
    # Of the periodicity it is the root mean square: a half of it lost is 0.71 of all lost.
    lost = metrics.periodicity_error(whole, np.zeros_like(whole), RATE)
    assert 0.7 < lost < 1
    error = metrics.periodicity_error(whole, half, RATE)
    assert error == pytest.approx(lost * 0.5**0.5, rel=0.05)


@pytest.mark.parametrize("base", ["e", "10"])
def test_log_mel_distance_of_a_gain_is_its_log(base: str, speech: np.ndarray) -> None:
    spec = MelSpec.from_dict({**SPEC.to_dict(), "log_base": base, "floor": 1e-9})
    distance = metrics.log_mel_distance(speech, speech * np.float32(0.5), RATE, spec)
    assert distance == pytest.approx(math.log(2), rel=1e-3)


def test_log_mel_distance_resamples_to_its_mel() -> None:
    pair = tone(150, rate=22050), tone(170, rate=22050)
    at_own = metrics.log_mel_distance(tone(150), tone(170), RATE, "speech-16k")
    assert metrics.log_mel_distance(*pair, 22050, "speech-16k") == pytest.approx(at_own, rel=0.1)


def test_mcd_ignores_level_and_measures_envelopes_in_decibels(speech: np.ndarray) -> None:
    loud = noisy(speech, 30)  # no frame at the floor, where a gain would not be one
    half = metrics.mel_cepstral_distortion(loud, loud * np.float32(0.5), RATE)
    assert half == pytest.approx(0, abs=0.05)
    # The envelope times exp(a cos(theta)), theta from 0 to pi over the mel bands, is c_1 + a in
    # every frame: an MCD of 10 sqrt(2) / ln(10) * a, up to the filters' width.
    spec = metrics._CEPSTRUM_SPEC
    centres = spec.filters().argmax(dim=1).numpy() * RATE / spec.n_fft
    frequency = np.fft.rfftfreq(len(loud), 1 / RATE)
    theta = np.pi * (np.interp(frequency, centres, np.arange(80)) + 0.5) / 80
    coloured = np.fft.irfft(np.fft.rfft(loud) * np.exp(0.5 * np.cos(theta)), len(loud))
    expected = 10 * math.sqrt(2) / math.log(10) * 0.5
    measured = metrics.mel_cepstral_distortion(loud, coloured.astype(np.float32), RATE)
    assert measured == pytest.approx(expected, rel=0.05)


def test_torch_and_numpy_agree(speech: np.ndarray) -> None:
    other = noisy(speech, 20)
    tensors = torch.from_numpy(speech), torch.from_numpy(other).double()
    assert metrics.mel_cepstral_distortion(*tensors, RATE) == pytest.approx(
        metrics.mel_cepstral_distortion(speech, other, RATE), rel=1e-6
    )


def test_pesq_of_long_audio_is_the_mean_of_its_pieces() -> None:
    package = pytest.importorskip("pesq")
    audio = np.concatenate([read_audio(path)[0].numpy() for path in sorted(WAVS.glob("*"))[:4]])
    audio = audio[: 20 * RATE]
    other = noisy(audio, 15)
    halves = [package.pesq(RATE, audio[p], other[p], "wb") for p in np.split(np.arange(320000), 2)]
    assert metrics.pesq(audio, other, RATE) == pytest.approx(np.mean(halves), abs=1e-6)


def test_pesq_of_minutes_with_many_pauses_does_not_overflow() -> None:
    pytest.importorskip("pesq")
    word = read_audio(WAVS / "ru_0813.flac")[0].numpy()[RATE : RATE + 4000]
    audio = np.tile(np.concatenate([word, np.zeros(5000, np.float32)]), 107)  # a minute
    assert 1 < metrics.pesq(audio, noisy(audio, 20), RATE) < 4.6


BAD = {
    "lengths": (np.zeros(100, np.float32), np.zeros(101, np.float32), "same length"),
    "empty": (np.zeros(0, np.float32), np.zeros(0, np.float32), "no samples"),
    "NaN": (np.ones(100, np.float32), np.full(100, np.nan, np.float32), "degraded audio holds NaN"),
    "int16": (np.zeros(100, np.int16), np.zeros(100, np.int16), "floating point"),
    "stereo": (np.zeros((2, 9), np.float32), np.zeros((2, 9), np.float32), r"shape \(2, 9\)"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", METRICS)
def test_a_wrong_pair_is_one_sentence(name: str, case: str) -> None:
    first, second, message = BAD[case]
    with pytest.raises(MetricError, match=message) as caught:
        of(name)(first, second)
    assert "\n" not in str(caught.value)
    with pytest.raises(MetricError, match=message):
        measure(first, second, RATE, SPEC)


def test_silence_has_no_value_but_does_not_stop_the_others(speech: np.ndarray) -> None:
    speech = speech[:RATE]
    silent = np.zeros_like(speech)
    for name in ("stoi", "pesq", "f0_rmse", "voicing_f1"):
        with pytest.raises(MetricError):
            of(name)(silent, silent)
    names = ["log_mel_distance", "mcd", "f0_rmse", "voicing_f1"]
    assert measure(silent, silent, RATE, SPEC, names) == {
        "log_mel_distance": 0.0,
        "mcd": 0.0,
        "f0_rmse": None,
        "voicing_f1": None,
    }
    assert measure(speech, silent, RATE, SPEC, ["voicing_f1", "f0_rmse"]) == {
        "voicing_f1": 0.0,
        "f0_rmse": None,
    }


@pytest.mark.parametrize("name", ["stoi", "pesq"])
def test_too_short(name: str) -> None:
    with pytest.raises(MetricError, match="needs"):
        of(name)(tone(150, 0.2), tone(160, 0.2))


@pytest.mark.parametrize("name, package", [("stoi", "pystoi"), ("pesq", "pesq")])
def test_a_missing_package_is_named_with_its_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r'pip install "flow-vocoder\[metrics\]"') as caught:
        measure(tone(150), tone(150), RATE, SPEC, [name])
    assert package in str(caught.value)
    assert "\n" not in str(caught.value)
    assert name not in metrics.installed_metrics()


def test_measure_agrees_with_the_functions(speech: np.ndarray) -> None:
    speech = speech[: 2 * RATE]
    other = noisy(speech, 20)
    names = metrics.installed_metrics()
    values = measure(speech, other, RATE, SPEC, names)
    assert list(values) == names
    assert {"log_mel_distance", "mcd", "f0_rmse", "voicing_f1"} <= values.keys()
    for name, value in values.items():
        assert value == pytest.approx(of(name)(speech, other), rel=1e-6)
    with pytest.raises(ValueError, match=r"'mos'.*log_mel_distance"):
        measure(speech, other, RATE, SPEC, ["mos"])
