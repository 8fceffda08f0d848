"""Measures of how close synthesised audio is to a recording: plain functions of two signals.

Every function takes (reference, degraded, sample_rate): two mono signals of the same length, torch
tensors or numpy arrays (samples,), floating point in [-1, 1], aligned sample by sample as copy
synthesis and its recording are (nothing is shifted or warped to fit); and their sample rate in Hz.
It returns a float. `METRICS` lists them with unit and direction, `measure` takes several at once.
No models and no files here.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import soxr  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio import LogMel, MelSpec
from vocoder.engines.jit import give_cache_to
from vocoder.extras import MissingExtraError, require

Signal = Tensor | NDArray[Any]
Floats = NDArray[np.float32]

# Most measures compare at one rate, so that figures do not depend on the rate of the audio.
_WIDE_BAND = 16000

_CEPSTRUM_SPEC = MelSpec(
    sample_rate=_WIDE_BAND,
    n_fft=1024,
    hop_length=80,
    win_length=400,
    n_mels=80,
    fmin=0.0,
    fmax=8000.0,
)
_CEPSTRUM_ORDER = 24

_PITCH_RANGE = (60.0, 600.0)  # Hz
_PITCH_WINDOW = 1024  # samples at 16 kHz: nearly four periods of the lowest pitch
_PITCH_HOP = 160

# PESQ's C source keeps 50 utterances in fixed arrays and writes beyond them. An utterance takes at
# least 0.2 s of speech and 0.2 s of pause, so 15 s hold fewer.
_PESQ_SECONDS = 15


class MetricError(ValueError):
    """A measure has no value for these signals; the message says why."""


def log_mel_distance(
    reference: Signal, degraded: Signal, sample_rate: int, mel_spec: MelSpec | str
) -> float:
    r"""Mean absolute difference of the log-mel spectrograms, in nats; 0 or more, lower is better.

    .. math:: d = \frac{1}{K F} \sum_{m, k} |M[m, k] - \hat M[m, k]|

    over all K bands m and F frames k, silent ones too; in nats also for a mel in base 10. 0.1 nats
    are 0.87 dB if `MelSpec.power` is 1.

    Args:
        mel_spec: the mel M, or the name of its preset. Audio of another rate is resampled to it.

    Raises:
        MetricError: lengths that differ, no samples, or NaN.
    """
    spec = MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec
    pair = _pair(reference, degraded, sample_rate, spec.sample_rate)
    log_mel = LogMel(spec)
    first, second = (log_mel(torch.from_numpy(audio)) for audio in pair)
    return float(spec.distance(first, second))


def mel_cepstral_distortion(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    r"""Mel-cepstral distortion (MCD) in dB; 0 or more, lower is better.

    .. math:: \mathrm{MCD} = \frac{10 \sqrt 2}{\ln 10} \frac{1}{F} \sum_k
        \Bigl(\sum_{d=1}^{24} (c_d[k] - \hat c_d[k])^2\Bigr)^{1/2}, \qquad
        c_d[k] = \frac{2}{80} \sum_{m=0}^{79} M[m, k] \cos \frac{\pi d (m + 1/2)}{80}

    with M the natural log of an 80-band magnitude mel (0-8 kHz, Slaney, 25 ms windows every 5 ms,
    floor 1e-5) of the audio at 16 kHz. With this scale of c it is the root mean square difference,
    over mel frequency, of the smoothed spectral envelopes, without their level (:math:`c_0`);
    frames are paired as they are, without time warping. The literature has many mel-cepstra
    (WORLD's, 13 coefficients): figures compare with those of the same definition only. Paper:
    Kubichek, 1993.

    Raises:
        MetricError: lengths that differ, no samples, or NaN.
    """
    pair = _pair(reference, degraded, sample_rate, _WIDE_BAND)
    log_mel = LogMel(_CEPSTRUM_SPEC)
    bands = _CEPSTRUM_SPEC.n_mels
    order = torch.arange(1, _CEPSTRUM_ORDER + 1).unsqueeze(1)
    angle = math.pi * order * (torch.arange(bands) + 0.5) / bands
    transform = 2 / bands * angle.cos()  # (24, 80)
    first, second = (transform @ log_mel(torch.from_numpy(audio)) for audio in pair)
    distance = (first - second).square().sum(dim=0).sqrt().mean()
    return 10 * math.sqrt(2) / math.log(10) * float(distance)


def stoi(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    """Short-time objective intelligibility (STOI); at most 1 (identical), higher is better.

    The mean correlation of the one-third octave band envelopes (150 Hz to 4 kHz, at 10 kHz) in
    windows of 384 ms, where the reference is not silent; about 0 for unrelated audio. By the
    package pystoi. Paper: Taal, Hendriks, Heusdens and Jensen, 2011.

    Raises:
        MetricError: lengths that differ, NaN, or less than 0.4 s of the reference is not silent.
        MissingExtraError: pystoi is not installed (extra ``metrics``).
    """
    pystoi = require("pystoi", "STOI", "metrics")
    pair = _pair(reference, degraded, sample_rate, sample_rate)
    first, second = (audio.astype(np.float64) for audio in pair)
    # pystoi fails on less than one frame, and gives 1e-5 for less than 30.
    too_short = "the reference has less than 0.4 s that are not silent, and STOI needs that"
    if len(first) < 0.4 * sample_rate or not first.any():
        raise MetricError(too_short)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(first, second, sample_rate))
        except RuntimeWarning as warning:
            raise MetricError(too_short) from warning


def pesq(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    """PESQ, wide band: predicted opinion of listeners, 1.02 to 4.64 (identical), higher is better.

    ITU-T P.862.2 (mean opinion score, listening quality objective) at 16 kHz, to which the audio is
    resampled: what lies above 8 kHz does not count. By the package pesq. Levels are equalised. The
    standard is meant for sentences: audio of more than 15 s is cut into equal pieces, and the
    result is the mean over those with speech. Paper: Rix, Beerends, Hollier and Hekstra, 2001.

    Raises:
        MetricError: lengths that differ, NaN, less than 0.25 s, or no speech in the reference or
            in the degraded audio.
        MissingExtraError: pesq is not installed (extra ``metrics``).
    """
    package = require("pesq", "PESQ", "metrics")
    first, second = _pair(reference, degraded, sample_rate, _WIDE_BAND)
    if not first.any() or not second.any():
        silent = "degraded audio" if first.any() else "reference"
        raise MetricError(f"the {silent} is silent, and PESQ compares speech with speech")
    pieces = -(-len(first) // (_PESQ_SECONDS * _WIDE_BAND))
    scores = []
    for own, other in zip(
        np.array_split(first, pieces), np.array_split(second, pieces), strict=True
    ):
        if not own.any() or not other.any():
            continue
        try:
            scores.append(float(package.pesq(_WIDE_BAND, own, other, "wb")))
        except package.BufferTooShortError as error:
            raise MetricError("PESQ needs at least 0.25 s of audio") from error
        except package.NoUtterancesError:
            continue
    if not scores:
        raise MetricError("PESQ finds no speech in the reference")
    return sum(scores) / len(scores)


def f0_rmse(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    r"""Root mean square error of the pitch, in cents; 0 or more, lower is better.

    .. math:: \Bigl(\frac{1}{|V|} \sum_{k \in V} e_k^2\Bigr)^{1/2}, \qquad
        e_k = 1200 \log_2 (\hat f_k / f_k)

    over the frames V (10 ms apart) that are voiced in both; 100 cents are a semitone. Pitch by
    probabilistic YIN (`librosa.pyin`) between 60 and 600 Hz, at 16 kHz. Paper: Mauch and Dixon,
    2014.

    Raises:
        MetricError: lengths that differ, NaN, or no frame is voiced in both.
    """
    first, second = _pair(reference, degraded, sample_rate, _WIDE_BAND)
    return _f0_rmse(_pitch(first), _pitch(second))


def voicing_f1(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    r"""F1 score of the decision voiced or unvoiced, 0 to 1 (identical), higher is better.

    .. math:: F_1 = \frac{2\, |V \cap \hat V|}{|V| + |\hat V|}

    with V and :math:`\hat V` the frames that are voiced in the reference and in the degraded
    audio, decided as in `f0_rmse`.

    Raises:
        MetricError: lengths that differ, NaN, or neither has a voiced frame.
    """
    first, second = _pair(reference, degraded, sample_rate, _WIDE_BAND)
    return _voicing_f1(_pitch(first), _pitch(second))


def periodicity_error(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    r"""Root mean square error of the periodicity, 0 (identical) to 1, lower is better.

    .. math:: \Bigl(\frac{1}{F} \sum_k (\hat r_k - r_k)^2\Bigr)^{1/2}

    with :math:`r_k`, from 0 to 1, the probability that frame k is voiced by probabilistic YIN (the
    share of its thresholds at which the frame has a period), over all F frames, 10 ms apart. A
    buzz in unvoiced sounds and noise in voiced ones both count, also where the decision of
    `voicing_f1` stays the same. Compare only with figures of the same pitch tracker: the
    literature has CREPE's. Papers: Mauch and Dixon, 2014; Morrison et al., 2022, "Chunked
    autoregressive GAN for conditional waveform synthesis".

    Raises:
        MetricError: lengths that differ, no samples, or NaN.
    """
    first, second = _pair(reference, degraded, sample_rate, _WIDE_BAND)
    return _periodicity_error(_pitch(first), _pitch(second))


@dataclass(frozen=True)
class Metric:
    """A measure: how to take it and how to read it."""

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    function: Callable[[Signal, Signal, int], float] | None
    """None for the log-mel distance, which needs a MelSpec as well."""


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("log_mel_distance", "log-mel distance", "nats", "lower", None),
        Metric("mcd", "MCD", "dB", "lower", mel_cepstral_distortion),
        Metric("stoi", "STOI", "", "higher", stoi),
        Metric("pesq", "PESQ", "MOS", "higher", pesq),
        Metric("f0_rmse", "F0 RMSE", "cents", "lower", f0_rmse),
        Metric("voicing_f1", "voicing F1", "", "higher", voicing_f1),
        Metric("periodicity_error", "periodicity error", "", "lower", periodicity_error),
    )
}
"""The measures by name."""


def installed_metrics() -> list[str]:
    """The names in `METRICS` whose packages are installed."""
    missing = missing_metrics()
    return [name for name in METRICS if name not in missing]


def missing_metrics() -> dict[str, str]:
    """The names in `METRICS` whose packages are not installed: name -> how to install it."""
    missing = {}
    for name, package in (("stoi", "pystoi"), ("pesq", "pesq")):
        try:
            require(package, METRICS[name].title, "metrics")
        except MissingExtraError as error:
            missing[name] = str(error)
    return missing


def measure(
    reference: Signal,
    degraded: Signal,
    sample_rate: int,
    mel_spec: MelSpec | str,
    names: Iterable[str] | None = None,
) -> dict[str, float | None]:
    """The measures of one pair, by name.

    Args:
        mel_spec: for the log-mel distance.
        names: keys of `METRICS`; None for all of them.

    Returns:
        The values in the order of ``names``; None for one without a value for this pair
        (no voiced frame, silence).

    Raises:
        MetricError: the pair itself is wrong: lengths that differ, no samples, NaN.
        MissingExtraError: a measure needs a package that is not installed.
        ValueError: an unknown name.
    """
    wanted = list(METRICS if names is None else names)
    unknown = [name for name in wanted if name not in METRICS]
    if unknown:
        raise ValueError(f"there is no measure {unknown[0]!r}: choose among {', '.join(METRICS)}")
    first, second = _pair(reference, degraded, sample_rate, sample_rate)

    values: dict[str, float | None] = {}
    for name in wanted:
        function = METRICS[name].function
        try:
            if function is None:
                values[name] = log_mel_distance(first, second, sample_rate, mel_spec)
            else:
                values[name] = function(first, second, sample_rate)
        except MetricError:
            values[name] = None
    return values


def tone_excess_db(audio: Signal, sample_rate: int, spacing: float) -> float:
    r"""How far tones at the multiples of a frequency stand out, in dB; about 0 if none do.

    .. math:: \frac{1}{K} \sum_{k=1}^{K} 10 \log_{10}
        \frac{P(k f)}{\operatorname{median}_{\delta} P(k f + \delta)}, \qquad
        f / 8 < |\delta| < f / 2

    P is the mean power spectrum of the audio (Hann windows of 16 / f, half overlapped), and all
    multiples below half the sample rate count. A vocoder that works in frames can leave tones at
    multiples of their rate: f is then sample rate / hop. A voice with a steady pitch has such
    tones, too: compare with the recording.

    Args:
        audio: (samples,), at least 16 / f seconds; more is steadier.
        spacing: f, Hz, so that sample rate / f is a whole number of samples.

    Raises:
        MetricError: no such spacing, too little audio, silence, or NaN.
    """
    period = round(sample_rate / spacing)
    if period < 4 or abs(period * spacing - sample_rate) > 1e-6 * sample_rate:
        raise MetricError(
            f"{spacing} Hz is not {sample_rate} Hz over a whole number of samples, 4 or more"
        )
    samples = torch.from_numpy(_samples(audio, "audio"))
    window = 16 * period
    if len(samples) < window:
        raise MetricError(f"tones {spacing} Hz apart need {window} samples, got {len(samples)}")
    frames = samples.double().unfold(0, window, window // 2)
    power = torch.fft.rfft(frames * torch.hann_window(window, dtype=torch.float64))
    power = power.abs().square().mean(dim=0)
    tones = torch.arange(1, (period + 1) // 2) * 16  # below half the sample rate
    near = torch.stack([power[tones + d] for d in range(-7, 8) if abs(d) > 2]).median(dim=0).values
    if not (near > 0).all():
        raise MetricError("the audio is silent at some frequencies, so nothing can stand out")
    return float(10 * (power[tones] / near).log10().mean())


class Pitch(NamedTuple):
    """What probabilistic YIN says of audio at 16 kHz, at 10 ms steps; both are (frames,)."""

    frequency: Floats
    """Fundamental frequency in Hz, NaN where unvoiced."""
    periodicity: Floats
    """Probability of a frame to be voiced."""


def _pitch(audio: Floats) -> Pitch:
    return _pitch_of(audio.tobytes())


# The slowest by far, and wanted by three measures, of a reference for each vocoder in turn: the
# last pairs are kept, enough for a few recordings in turn.
@functools.lru_cache(maxsize=32)
def _pitch_of(content: bytes) -> Pitch:
    give_cache_to("librosa")
    import librosa  # takes seconds to import

    low, high = _PITCH_RANGE
    frequency, voiced, probability = librosa.pyin(
        np.frombuffer(content, dtype=np.float32),
        fmin=low,
        fmax=high,
        sr=_WIDE_BAND,
        frame_length=_PITCH_WINDOW,
        hop_length=_PITCH_HOP,
    )
    return Pitch(
        np.where(voiced, frequency, np.nan).astype(np.float32), probability.astype(np.float32)
    )


def _f0_rmse(first: Pitch, second: Pitch) -> float:
    cents = 1200 * np.log2(second.frequency / first.frequency)
    both = np.isfinite(cents)
    if not both.any():
        raise MetricError("no frame is voiced in both signals, so their pitch does not compare")
    return float(np.sqrt(np.mean(np.square(cents[both]))))


def _periodicity_error(first: Pitch, second: Pitch) -> float:
    return float(np.sqrt(np.mean(np.square(second.periodicity - first.periodicity))))


def _voicing_f1(first: Pitch, second: Pitch) -> float:
    voiced, also = np.isfinite(first.frequency), np.isfinite(second.frequency)
    total = int(voiced.sum() + also.sum())
    if total == 0:
        raise MetricError("neither signal has a voiced frame, so there is no voicing to score")
    return 2 * int((voiced & also).sum()) / total


def _pair(
    reference: Signal, degraded: Signal, sample_rate: int, target_rate: int
) -> tuple[Floats, Floats]:
    """Both signals, checked, as float32 at ``target_rate``."""
    if isinstance(sample_rate, bool) or sample_rate < 1:
        raise MetricError(f"a sample rate is a positive number of Hz, got {sample_rate!r}")
    first = _samples(reference, "reference")
    second = _samples(degraded, "degraded audio")
    if len(first) != len(second):
        raise MetricError(
            f"the reference has {len(first)} samples and the degraded audio {len(second)}: they "
            "are compared sample by sample, so cut both to the same length"
        )
    if sample_rate != target_rate:
        first, second = (
            soxr.resample(audio, sample_rate, target_rate, quality="HQ")
            for audio in (first, second)
        )
    if len(first) == 0:
        raise MetricError("there are no samples to compare")
    return first, second


def _samples(audio: Signal, name: str) -> Floats:
    if isinstance(audio, Tensor):
        audio = audio.detach().to("cpu", torch.float32).numpy()
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise MetricError(
            f"the {name} must be (samples,) of floating point in [-1, 1], got {audio.dtype} of "
            f"shape {audio.shape}"
        )
    if not np.isfinite(audio).all():
        raise MetricError(f"the {name} holds NaN or infinity")
    return np.ascontiguousarray(audio, dtype=np.float32)
