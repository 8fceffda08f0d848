"""Measures of quality: perfect for identical audio, in the right order for known distortions."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from vocoder.audio import MelSpec, read_audio
from vocoder.evaluation import METRICS, MetricError, MissingExtraError, measure, metrics

WAVS = ROOT / "recipes/ljspeech/sample/wavs"
RATE = 16000
SPEC = MelSpec.preset("speech-16k")

PERFECT = {
    "pesq": 4.644,  # the top of the scale of P.862.2
    "stoi": 1.0,
    "log_mel_distance": 0.0,
    "periodicity_error": 0.0,
    "voicing_f1": 1.0,
    "speaker_similarity": 1.0,
}
COMPARING = [name for name, metric in METRICS.items() if metric.reference]
JUDGING = [name for name in METRICS if name not in COMPARING and name != "word_error_rate"]


def score(name, reference, degraded):
    """One measure of a pair; skips what needs a package that is missing."""
    if name not in metrics.installed_metrics():
        pytest.skip(f"{name} needs a package that is not installed (extra metrics)")
    return measure(reference, degraded, RATE, SPEC, [name])[name]


@pytest.fixture(scope="module", params=["ru_0813", "ru_0264"])
def speech(request):
    audio, rate = read_audio(WAVS / f"{request.param}.flac")
    assert rate == RATE
    return audio.numpy()[: 3 * RATE]


def noisy(audio, snr):
    noise = np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
    scale = math.sqrt(np.mean(audio**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    return audio + np.float32(scale) * noise


def low_passed(audio, hertz):
    spectrum = np.fft.rfft(audio)
    spectrum[np.fft.rfftfreq(len(audio), 1 / RATE) > hertz] = 0
    return np.fft.irfft(spectrum, len(audio)).astype(np.float32)


def clipped(audio, share):
    limit = share * np.abs(audio).max()
    return np.clip(audio, -limit, limit)


@pytest.mark.parametrize("name", PERFECT)
def test_identical_audio_is_perfect(name, speech):
    assert score(name, speech, speech.copy()) == pytest.approx(PERFECT[name], abs=1e-3)


DISTORTIONS = {
    "noise": [lambda x, s=s: noisy(x, s) for s in (30, 20, 10, 0)],
    "low-pass": [lambda x, f=f: low_passed(x, f) for f in (6000, 3000, 1000)],
    "clipping": [lambda x, c=c: clipped(x, c) for c in (0.5, 0.2, 0.05)],
}
# Pitch survives all of them until the noise is loud: no order to ask for.
ORDERED = [(name, kind) for name in ("log_mel_distance", "pesq") for kind in DISTORTIONS]
# STOI ends at 4 kHz and normalises levels: only what is cut below that is worse for it.
ORDERED += [("stoi", "noise"), ("stoi", "clipping"), ("speaker_similarity", "noise")]


@pytest.mark.parametrize("name, kind", ORDERED)
def test_more_distortion_scores_worse(name, kind, speech):
    scores = [score(name, speech, f(speech)) for f in (np.copy, *DISTORTIONS[kind])]
    sign = 1 if METRICS[name].better == "lower" else -1
    assert all(sign * a < sign * b for a, b in itertools.pairwise(scores)), scores


@pytest.mark.parametrize("name", JUDGING)
def test_listeners_that_are_predicted_hear_noise(name):
    speech = read_audio(WAVS / "ru_0813.flac")[0].numpy()  # whole: the end of a cut is heard
    clean, bad, worse = (score(name, speech, noisy(speech, snr)) for snr in (60, 15, 0))
    assert 5 >= clean > bad > worse >= 1


def tone(hertz, seconds=1.0, rate=RATE):
    """A harmonic tone: what pitch trackers are sure of."""
    time = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 6))
    return (0.2 * wave).astype(np.float32)


def test_voicing_counts_frames():
    # Half of the voiced frames are missed and none is added: F1 = 2 / 3.
    whole, half = tone(150, 2), tone(150, 2)
    half[RATE:] = 0
    assert metrics.voicing_f1(whole, half, RATE) == pytest.approx(2 / 3, abs=0.03)
    # Of the periodicity it is the root mean square: a half of it lost is 0.71 of all lost.
    lost = metrics.periodicity_error(whole, np.zeros_like(whole), RATE)
    assert 0.7 < lost < 1
    error = metrics.periodicity_error(whole, half, RATE)
    assert error == pytest.approx(lost * 0.5**0.5, rel=0.05)


TIME = np.arange(2 * RATE) / RATE
CARRIER = np.sin(2 * np.pi * 3000 * TIME)
PULSES = (np.arange(2 * RATE) % 160 == 0).astype(np.float64)
NOISE = np.random.default_rng(0).standard_normal(2 * RATE)


@pytest.mark.parametrize(
    "signal, low, high",
    [
        (CARRIER, 0, 0.01),  # its envelope is steady
        # An envelope of 1 + m cos has a mean of 1 and a standard deviation of m / sqrt(2).
        ((1 + 0.8 * np.cos(2 * np.pi * 86.1 * TIME)) * CARRIER, 0.56, 0.572),
        (NOISE, 0.50, 0.53),  # sqrt(4 / pi - 1) = 0.523; a little less over short windows
        (NOISE + 30 * PULSES, 0.8, 2),
        (PULSES, 2, 5),
    ],
)
def test_envelope_depth_of_known_signals(signal, low, high):
    depth = metrics.envelope_depth(tone(150, 2), signal, RATE)
    assert low <= depth <= high
    # Levels do not count.
    quiet = metrics.envelope_depth(tone(150, 2), 0.1 * signal, RATE)
    assert quiet == pytest.approx(depth, abs=1e-4)


HOP = 256


def tones(samples, level):
    """Tones at all multiples of RATE / HOP, each of an amplitude ``level``."""
    time = np.arange(samples) / RATE
    orders = range(1, HOP // 2)
    return level * sum(np.sin(2 * np.pi * k * RATE / HOP * time + k) for k in orders)


def artifacts(audio, spacing=RATE / HOP):
    return metrics.tonal_artifacts_db(audio, RATE, spacing)


def test_tones_stand_out_of_noise_by_what_they_are():
    noise, level = 0.1 * np.random.default_rng(0).standard_normal(20 * RATE), 0.01
    assert abs(artifacts(noise)) < 0.5
    # Power of a windowed tone over that of windowed noise: (a / 2)^2 (sum w)^2 / (s^2 sum w^2).
    window = np.hanning(16 * HOP)
    ratio = (level / 2) ** 2 * window.sum() ** 2 / (0.01 * (window**2).sum())
    buzzing = noise + tones(len(noise), level)
    assert artifacts(buzzing) == pytest.approx(10 * math.log10(1 + ratio), abs=0.7)
    assert artifacts(buzzing) > 8
    assert abs(artifacts(buzzing, RATE / 250)) < 3  # tones of another spacing are not counted


@pytest.mark.parametrize("base", ["e", "10"])
def test_log_mel_distance_of_a_gain_is_its_log(base, speech):
    spec = MelSpec.from_dict({**SPEC.to_dict(), "log_base": base, "floor": 1e-9})
    distance = metrics.log_mel_distance(speech, speech * np.float32(0.5), RATE, spec)
    assert distance == pytest.approx(math.log(2), rel=1e-3)


def test_pesq_of_minutes_with_many_pauses_does_not_overflow():
    pytest.importorskip("pesq")
    word = read_audio(WAVS / "ru_0813.flac")[0].numpy()[RATE : RATE + 4000]
    audio = np.tile(np.concatenate([word, np.zeros(5000, np.float32)]), 107)  # a minute
    assert 1 < metrics.pesq(audio, noisy(audio, 20), RATE) < 4.6


@pytest.mark.parametrize(
    "first, second, message",
    [
        (np.zeros(100, np.float32), np.zeros(101, np.float32), "same length"),
        (np.zeros(0, np.float32), np.zeros(0, np.float32), "no samples"),
        (np.ones(9, np.float32), np.full(9, np.nan, np.float32), "degraded audio holds NaN"),
        (np.zeros(100, np.int16), np.zeros(100, np.int16), "floating point"),
        (np.zeros((2, 9), np.float32), np.zeros((2, 9), np.float32), r"shape \(2, 9\)"),
    ],
)
def test_a_wrong_pair_is_one_sentence(first, second, message):
    for function in (measure, metrics.envelope_depth, metrics.log_mel_distance):
        with pytest.raises(MetricError, match=message) as caught:
            function(first, second, RATE)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", COMPARING)
def test_silence_has_no_value_but_does_not_stop_the_others(name):
    silent = np.zeros(RATE, np.float32)
    without = name not in ("log_mel_distance", "periodicity_error")
    assert (score(name, silent, silent) is None) == without


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.packages])
def test_a_missing_package_is_named_with_the_way_to_it(name, monkeypatch):
    package = METRICS[name].packages[0]
    monkeypatch.setitem(sys.modules, package, None)
    assert name not in metrics.installed_metrics()
    with pytest.raises(MissingExtraError, match="pip install ") as caught:
        measure(tone(150), tone(150), RATE, SPEC, [name], text="one")
    assert f"the package {package}, which" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_measure_takes_all_that_is_installed(speech):
    other = noisy(speech, 20)
    values = measure(torch.from_numpy(speech), torch.from_numpy(other), RATE)
    assert list(values) == metrics.installed_metrics()
    assert values["envelope_depth"] == metrics.envelope_depth(speech, other, RATE)
    assert values.pop("word_error_rate", None) is None  # without a text
    assert None not in values.values()
