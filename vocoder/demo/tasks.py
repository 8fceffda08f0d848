"""What the tabs of the page do, from text or a recording to sound and figures; knows no page.

Limits are checked here, so that they hold for whoever calls. What a visitor can mend is raised as a
ValueError of one sentence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio import MelSpec, read_audio
from vocoder.evaluation.griffin_lim import griffin_lim
from vocoder.evaluation.metrics import installed_metrics, measure
from vocoder.models import Vocoder

from .models import Models, Notify

TEXT_LIMIT = 500
"""Characters of text that are spoken at once."""

SECONDS_LIMIT = 60.0
"""The longest recording that is taken, seconds."""

SHORTEST_SECONDS = 0.2
"""The shortest recording that is taken, seconds."""

UPLOAD_LIMIT = "20mb"
"""The largest file that may be uploaded."""

EXCERPT_LIMIT = 2.0
"""The longest excerpt that is made sample by sample, seconds: it takes many times as long."""

LATENT_LIMIT = 15.0
"""What is taken of a recording whose latents are played with, seconds."""

SEED_LIMIT = 2**31 - 1
"""The greatest seed."""

Condition = Literal["first", "between"]
"""The mel that latents in between are decoded with: the first recording's, or one in between."""

# Mel frames that the autoregressive model makes between two looks at how far it is.
_STREAMED_FRAMES = 2

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sound:
    """Mono audio: samples (samples,), float32 in [-1, 1], and its rate in Hz."""

    samples: Tensor
    sample_rate: int
    quantised: bool = False
    """Whether it is 16-bit audio, which a density wants dequantised: recordings are, and what is
    made level by level, but not what a flow computes."""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.sample_rate

    def pcm(self) -> NDArray[np.int16]:
        """The samples in 16 bits."""
        return _levels(self.samples).astype(np.int16)

    def beginning(self, samples: int) -> Sound:
        """Its first samples."""
        return Sound(self.samples[:samples], self.sample_rate, self.quantised)

    def excerpt(self, first: int, length: int, fade: int) -> Sound:
        """A stretch of it, whose ends rise from zero and fall to it where they cut through sound.

        A jump at the end of audio is in no recording, and no flow that works on a lapped transform
        thinks it likely: one alone costs it a hundred nats per sample.
        """
        samples = _faded(
            self.samples[first : first + length],
            fade if first > 0 else 0,
            fade if first + length < len(self.samples) else 0,
        )
        return Sound(samples, self.sample_rate, self.quantised)


def _faded(samples: Tensor, rise: int, fall: int) -> Tensor:
    """The first ``rise`` samples rise from zero, the last ``fall`` fall to it (sine squared)."""
    gain = torch.ones(len(samples))
    gain[:rise] *= _ramp(rise)[: len(samples)]
    gain[len(samples) - min(fall, len(samples)) :] *= _ramp(fall).flip(0)[-len(samples) :]
    return samples * gain


def _ramp(size: int) -> Tensor:
    return torch.sin(math.pi / 2 * (torch.arange(size) + 0.5) / max(size, 1)).square()


@dataclass(frozen=True)
class Timing:
    """How long making ``audio`` seconds of audio took, in seconds."""

    taken: float
    audio: float

    @property
    def times_real_time(self) -> float:
        """Seconds of audio made in a second."""
        return self.audio / self.taken


# -- text to speech ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spoken:
    """Text made to speech."""

    sound: Sound
    mel: Tensor
    mel_spec: MelSpec
    timing: Timing
    """Of both models together, from phonemes to audio."""
    phonemes: list[str]
    """What was read, sentence by sentence."""


def speak(
    models: Models,
    text: str,
    temperature: float,
    speaking_rate: float,
    seed: int | None,
    notify: Notify | None = None,
) -> Spoken:
    """Text to speech by the acoustic model and the flow, sentence by sentence.

    Raises:
        ValueError: no text, too much of it or none that can be read; a seed, temperature or rate
            out of range.
        CheckpointError: there is no acoustic model.
    """
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"the text has {len(text)} characters: type at most {TEXT_LIMIT}")
    seed = _checked_seed(seed)
    from vocoder.text.speech import sentences
    from vocoder.text.speech import speak as spoken

    said = sentences(text)
    acoustic = models.acoustic(notify)
    flow = models.flow_beside(acoustic.mel_spec, notify)
    if flow.mel_spec != acoustic.mel_spec:
        raise ValueError(
            f"the acoustic model makes mels of {_convention(acoustic.mel_spec)} and the flow takes "
            f"{_convention(flow.mel_spec)}: start the demo with two of the same convention"
        )
    start = time.perf_counter()
    pieces = []
    audio = spoken(
        said, acoustic, flow, temperature=temperature, speaking_rate=speaking_rate, seed=seed
    )
    for index, piece in enumerate(audio):
        pieces.append(torch.from_numpy(piece))
        _notify(notify, (index + 1) / len(said), f"sentence {index + 1} of {len(said)}")
    taken = time.perf_counter() - start
    sound = Sound(torch.cat(pieces), flow.sample_rate)
    return Spoken(
        sound,
        flow.mel(sound.samples),
        flow.mel_spec,
        Timing(taken, sound.seconds),
        ["".join(sentence.phonemes) for sentence in said],
    )


# -- copy synthesis ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copied:
    """A recording and what the flow made of its mel."""

    original: Sound
    made: Sound
    mels: tuple[Tensor, Tensor]
    """Of the recording and of what was made."""
    mel_spec: MelSpec
    timing: Timing
    likelihoods: tuple[float | None, float | None]
    """Log-likelihood of the recording and of what was made, nats per sample, given the mel."""
    scores: dict[str, float | None]
    """Measures by name, see `vocoder.evaluation.METRICS`."""


def copy_synthesis(
    models: Models,
    path: str | None,
    temperature: float,
    seed: int | None,
    notify: Notify | None = None,
) -> Copied:
    """The mel of a recording, turned back into audio, and how close it comes.

    Raises:
        ValueError: no recording, one that cannot be read, or is too long or too short; a seed or
            temperature out of range.
    """
    seed = _checked_seed(seed)
    _check_recording(path)
    flow = models.flow(notify)
    original = _read(path, flow.sample_rate)
    _notify(notify, 0.3, "making audio")
    mel = flow.mel(original.samples)
    samples, timing = _timed(lambda: flow.synthesize(mel, temperature, seed), original.seconds)
    whole = Sound(samples, flow.sample_rate)
    made = whole.beginning(len(original.samples))
    _notify(notify, 0.6, "comparing it with the recording")
    # Sound that was cut off in its midst would cost more than all the rest of it.
    hop = flow.mel_spec.hop_length
    faded, made_faded = (
        replace(sound, samples=_faded(sound.samples, hop, hop)) for sound in (original, made)
    )
    told = flow.mel(faded.samples)
    quick = [name for name in ("log_mel_distance", "stoi", "pesq") if name in installed_metrics()]
    return Copied(
        original=original,
        made=made,
        mels=(mel, flow.mel(made.samples)),
        mel_spec=flow.mel_spec,
        timing=timing,
        likelihoods=(_likelihood(flow, faded, told), _likelihood(flow, made_faded, told)),
        scores=measure(original.samples, made.samples, flow.sample_rate, flow.mel_spec, quick),
    )


# -- flow against autoregressive -----------------------------------------------------------------


@dataclass
class Entry:
    """A row of the comparison."""

    name: str
    how: str
    sound: Sound | None = None
    mel: Tensor | None = None
    mel_spec: MelSpec | None = None
    timing: Timing | None = None
    """Of what has been made so far."""
    progress: float = 0.0
    """What share of it has been made."""
    distance: float | None = None
    """Log-mel distance from the recording, nats."""
    likelihoods: dict[str, float] = field(default_factory=dict)
    """Log-likelihood in nats per sample, by the name of the model that judges."""


@dataclass
class Comparison:
    """How far the comparison has come; grows from one moment to the next."""

    seconds: float
    """How long the excerpt is."""
    start: float
    """Where it begins in the recording, seconds."""
    entries: dict[str, Entry]
    judges: list[str]
    """The entries whose models say how likely audio is."""
    notes: list[str]
    status: str


RECORDING, FLOW, WAVENET, GRIFFIN_LIM = "recording", "flow", "wavenet", "griffin-lim"
"""The rows of the comparison."""


def compare(
    models: Models,
    path: str | None,
    seconds: float,
    temperature: float,
    seed: int | None,
    engine: str | None = None,
    notify: Notify | None = None,
) -> Iterator[Comparison]:
    """The same stretch of a recording through the flow, Griffin-Lim and the autoregressive model.

    Of the recording the loudest ``seconds`` are taken. The flow and Griffin-Lim are timed after a
    pass of the same length that is thrown away; the autoregressive model after one of a frame. Its
    time is that of the computation alone, without what is shown meanwhile.

    Args:
        engine: one of the autoregressive model's engines; None for its own choice.

    Yields:
        The same `Comparison`, whenever there is something new in it.

    Raises:
        ValueError, CheckpointError: as `copy_synthesis`; or there is no autoregressive model.
    """
    seed = _checked_seed(seed)
    if not 0 < seconds <= EXCERPT_LIMIT:
        raise ValueError(f"the excerpt lasts {seconds} s: choose at most {EXCERPT_LIMIT:g} s")
    _check_recording(path)
    wavenet = models.wavenet(notify)
    flow = models.flow_beside(wavenet.mel_spec, notify)
    wavenet.engine = engine
    whole = _read(path, flow.sample_rate)
    first, length = _loudest(whole, seconds, flow.mel_spec.hop_length)
    judges = {FLOW: _Judge(flow, whole.excerpt(first, length, flow.mel_spec.hop_length))}
    same = wavenet.mel_spec == flow.mel_spec
    if same:
        judges[WAVENET] = _Judge(wavenet, judges[FLOW].excerpt)
    else:
        again = _read(path, wavenet.sample_rate)
        hop = wavenet.mel_spec.hop_length
        begin = round(first / flow.sample_rate * wavenet.sample_rate)
        count = max(round(length / flow.sample_rate * wavenet.sample_rate / hop), 1) * hop
        judges[WAVENET] = _Judge(wavenet, again.excerpt(begin, count, hop))
    given = judges[FLOW]
    entries = {
        RECORDING: Entry("Recording", ""),
        FLOW: Entry(_NAMES[flow.family], "all samples in one pass"),
        WAVENET: Entry(_NAMES[wavenet.family], f"sample by sample, {wavenet.engine}"),
        GRIFFIN_LIM: Entry("Griffin-Lim", "32 rounds, no model"),
    }
    state = Comparison(
        given.excerpt.seconds, first / flow.sample_rate, entries, list(judges), [], ""
    )
    state.notes.append(
        "All of them are given the same mel spectrogram."
        if same
        else f"The models take mels of different conventions ({_convention(flow.mel_spec)}; "
        f"{_convention(wavenet.mel_spec)}), so each is given its own mel of the same excerpt and "
        "judges only audio at its own rate."
    )
    if models.wavenet_is_bundled:
        state.notes.append(
            f"The {_NAMES[wavenet.family]} that ships was trained for a short time on little "
            "speech: it is here for its way of working and its pace, and says nothing of how well "
            "its kind can sound."
        )
    given.finish(entries[RECORDING], given.excerpt)

    state.status = "Griffin-Lim and the flow …"
    yield state
    phases = griffin_lim(flow.mel_spec, seed)
    samples, timing = _timed(lambda: phases(given.mel), given.excerpt.seconds)
    given.finish(entries[GRIFFIN_LIM], given.ended(samples), timing)
    samples, timing = _timed(
        lambda: flow.synthesize(given.mel, temperature, seed), given.excerpt.seconds
    )
    given.finish(entries[FLOW], Sound(samples[:length], flow.sample_rate), timing)
    yield state

    entry, given = entries[WAVENET], judges[WAVENET]
    state.status = f"{entry.name}: getting ready …"
    yield state
    wavenet.synthesize(given.mel[:, :1], temperature, seed)  # compiles, where there is a compiler
    made = []
    for chunk, timing in _streamed(wavenet, given.mel, temperature, seed):
        made.append(chunk)
        entry.timing, entry.progress = timing, min(timing.audio / given.excerpt.seconds, 0.999)
        state.status = f"{entry.name}: {timing.audio:.2f} of {given.excerpt.seconds:.2f} s"
        yield state
    given.finish(entry, given.ended(torch.cat(made), quantised=True), timing)

    for name, judge in judges.items():
        for key, other in entries.items():
            sound = judge.excerpt if key == RECORDING else other.sound
            assert sound is not None
            if sound.sample_rate != judge.model.sample_rate:
                continue  # resampled audio has empty bands, of which a likelihood says nothing
            state.status = f"Likelihood of {other.name} under {entries[name].name} …"
            yield state
            value = _likelihood(judge.model, sound, judge.mel)
            if value is not None:
                other.likelihoods[name] = value
    state.status = ""
    yield state


_NAMES = {"waveglow": "WaveGlow", "wavenet": "WaveNet", "wavernn": "WaveRNN"}


class _Judge:
    """A model of the comparison, with the excerpt and its mel at the model's rate."""

    def __init__(self, model: Vocoder, excerpt: Sound) -> None:
        self.model = model
        self.excerpt = excerpt
        self.mel = model.mel(excerpt.samples)

    def ended(self, samples: Tensor, quantised: bool = False) -> Sound:
        """Audio of one that cannot tell from a mel that sound ends: faded as the excerpt was."""
        hop = self.model.mel_spec.hop_length
        samples = _faded(samples[: len(self.excerpt.samples)], hop, hop)
        return Sound(samples, self.model.sample_rate, quantised)

    def finish(self, entry: Entry, sound: Sound, timing: Timing | None = None) -> None:
        """Fill in all but the likelihoods."""
        entry.sound, entry.timing, entry.progress = sound, timing, 1.0
        entry.mel, entry.mel_spec = self.model.mel(sound.samples), self.model.mel_spec
        if timing is not None:
            entry.distance = _distance(self.excerpt, sound, self.model.mel_spec)


def _streamed(
    model: Vocoder, mel: Tensor, temperature: float, seed: int
) -> Iterator[tuple[Tensor, Timing]]:
    """Chunks of audio, and the time that all of them so far took."""
    chunks = model.stream(mel.split(_STREAMED_FRAMES, dim=1), temperature, seed)
    taken = seconds = 0.0
    while True:
        start = time.perf_counter()
        chunk = next(chunks, None)
        taken += time.perf_counter() - start
        if chunk is None:
            return
        seconds += len(chunk) / model.sample_rate
        yield chunk, Timing(taken, seconds)


# -- latent space --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """Audio made from one point of the latent space."""

    at: float
    """The temperature, or how far it is from the first recording to the second."""
    sound: Sound
    mel: Tensor
    likelihood: float | None
    """Log-likelihood in nats per sample, given the mel that it was made with."""
    distance: float
    """Log-mel distance from the mel that it was made with, nats."""


@dataclass(frozen=True)
class Walk:
    """Points of the latent space, in order."""

    points: list[Point]
    mel_spec: MelSpec
    seconds: float
    """How long each of them lasts."""


@dataclass(frozen=True)
class Arc(Walk):
    """Points between the latents of two recordings."""

    angle: float
    """Between the latents of the two, degrees."""
    rms: tuple[float, float]
    """Root mean square of the latents of each: 1 where they are standard normal."""
    reconstruction: float
    """Largest difference of the decoded latents of the first recording from it, full scale 1."""


def sweep(
    models: Models,
    path: str | None,
    seed: int | None,
    temperatures: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    notify: Notify | None = None,
) -> Walk:
    """The mel of a recording made to audio at several temperatures, with the same noise.

    Raises:
        ValueError, CheckpointError: as `copy_synthesis`.
    """
    seed = _checked_seed(seed)
    _check_recording(path)
    flow = models.flow(notify)
    original = _beginning(_read(path, flow.sample_rate), flow)
    mel = flow.mel(original.samples)
    points = []
    for index, temperature in enumerate(temperatures):
        _notify(notify, index / len(temperatures), f"temperature {temperature:g}")
        samples = flow.synthesize(mel, temperature, seed)
        points.append(_point(flow, temperature, samples, mel))
    return Walk(points, flow.mel_spec, original.seconds)


def interpolate(
    models: Models,
    first: str | None,
    second: str | None,
    condition: Condition,
    steps: int = 5,
    notify: Notify | None = None,
) -> Arc:
    r"""Audio along the great circle from the latents of one recording to those of another.

    .. math:: z(t) = \frac{\sin((1 - t)\theta)}{\sin\theta} z_0 + \frac{\sin(t\theta)}{\sin\theta}
        z_1, \qquad \cos\theta = \frac{\langle z_0, z_1 \rangle}{\|z_0\| \|z_1\|}

    with :math:`z = f(x; m)` of each recording given its own mel. Latents in many dimensions lie
    near a sphere, which straight lines would leave. The longer recording is cut to the length of
    the shorter. z(t) is decoded with the mel of the first recording (``condition="first"``: what
    changes is all that the mel does not say) or with :math:`(1 - t) m_0 + t m_1`
    (``"between"``: from one recording to the other, whole). Paper: White, 2016, "Sampling
    generative networks".

    Args:
        steps: number of points, both ends included.

    Raises:
        ValueError: a recording is missing or cannot be used.
        CheckpointError: the model is no flow.
    """
    _check_recording(first, "first ")
    _check_recording(second, "second ")
    flow = models.latent_flow(notify)
    _notify(notify, 0.0, "from audio to latents")
    sounds = [_beginning(_read(path, flow.sample_rate), flow) for path in (first, second)]
    length = min(len(sound.samples) for sound in sounds)
    hop = flow.mel_spec.hop_length
    audio = [sound.excerpt(0, length, hop).samples for sound in sounds]
    mels = [flow.mel(samples) for samples in audio]
    with torch.no_grad():
        z_0, z_1 = (
            flow.forward(samples, mel)[0].double() for samples, mel in zip(audio, mels, strict=True)
        )
        cosine = (z_0 * z_1).sum() / (z_0.norm() * z_1.norm())
        angle = float(torch.arccos(cosine.clamp(-1, 1)))
        points = []
        for t in np.linspace(0, 1, steps).tolist():
            _notify(notify, t, f"from latents to audio, {t:.0%} of the way")
            z = _between(z_0, z_1, t, angle).float()
            mel = mels[0] if condition == "first" else torch.lerp(mels[0], mels[1], t)
            samples = flow.inverse(z, mel)
            if t == 0:
                reconstruction = float((samples[:length] - audio[0]).abs().max())
            points.append(_point(flow, t, samples.clamp(-1, 1)[:length], mel))
    return Arc(
        points,
        flow.mel_spec,
        length / flow.sample_rate,
        angle=math.degrees(angle),
        rms=(_rms(z_0), _rms(z_1)),
        reconstruction=reconstruction,
    )


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _between(z_0: Tensor, z_1: Tensor, t: float, angle: float) -> Tensor:
    if math.sin(angle) < 1e-6:  # the same recording twice: the circle has no direction
        return torch.lerp(z_0, z_1, t)
    return (math.sin((1 - t) * angle) * z_0 + math.sin(t * angle) * z_1) / math.sin(angle)


def _point(flow: Vocoder, at: float, samples: Tensor, mel: Tensor) -> Point:
    sound = Sound(samples, flow.sample_rate)
    own = flow.mel(samples)
    frames = min(own.shape[1], mel.shape[1])
    nats = 1.0 if flow.mel_spec.log_base == "e" else math.log(10)
    distance = nats * float((own[:, :frames] - mel[:, :frames]).abs().mean())
    return Point(at, sound, own, _likelihood(flow, sound, mel), distance)


# -- recordings and figures ----------------------------------------------------------------------


def _check_recording(path: str | None, which: str = "") -> None:
    """Whether there is a recording that is worth loading a model for."""
    if not path:
        raise ValueError(f"there is no {which}recording: choose, record or upload one")
    try:
        # The header only: a small file can hold hours.
        seconds = soundfile.info(path).duration
    except soundfile.LibsndfileError:
        _read(path, None)  # which says what is wrong
        raise
    if not SHORTEST_SECONDS <= seconds <= SECONDS_LIMIT:
        raise ValueError(
            f"the {which}recording lasts {seconds:.2f} s: choose one of {SHORTEST_SECONDS:g} to "
            f"{SECONDS_LIMIT:g} s, or cut it with the scissors below it"
        )


def _read(path: str | None, sample_rate: int | None) -> Sound:
    assert path is not None, "see _check_recording"
    try:
        samples, rate = read_audio(path, sample_rate)
    except (ValueError, OSError) as error:
        # The folder that an upload lies in says nothing to who uploaded it.
        raise ValueError(str(error).replace(str(Path(path)), Path(path).name)) from error
    return Sound(samples.clamp(-1, 1), rate, quantised=True)


def _beginning(sound: Sound, model: Vocoder) -> Sound:
    """The beginning of a recording that is long, in whole frames."""
    hop = model.mel_spec.hop_length
    frames = min(len(sound.samples), round(LATENT_LIMIT * sound.sample_rate)) // hop
    return sound.excerpt(0, frames * hop, hop)


def _loudest(sound: Sound, seconds: float, hop: int) -> tuple[int, int]:
    """First sample and length of the stretch of about so many seconds that has the most energy."""
    length = min(round(seconds * sound.sample_rate / hop), len(sound.samples) // hop) * hop
    energy = torch.cat([torch.zeros(1).double(), sound.samples.double().square().cumsum(0)])
    return int((energy[length:] - energy[:-length]).argmax()), length


def _levels(samples: Tensor) -> NDArray[np.float64]:
    return np.clip(np.rint(samples.double().numpy() * 32768), -32768, 32767)


def _likelihood(model: Vocoder, sound: Sound, mel: Tensor) -> float | None:
    """Nats per sample given a mel; None where there is none, or it is not finite.

    What has been quantised to 16 bits is rounded to them and dequantised by uniform noise.
    """
    audio = sound.samples
    if sound.quantised:
        levels = _levels(audio)
        noise = np.random.default_rng(0).random(levels.size) - 0.5
        audio = torch.from_numpy(((levels + noise) / 32768).astype(np.float32))
    frames = -(-len(audio) // model.mel_spec.hop_length)
    try:
        with torch.no_grad():
            value = float(model.log_prob(audio, mel[:, :frames])) / len(audio)
    except NotImplementedError:  # the model defines none
        return None
    return value if math.isfinite(value) else None


def _distance(reference: Sound, made: Sound, spec: MelSpec) -> float | None:
    pair = (reference.samples, made.samples)
    return measure(*pair, reference.sample_rate, spec, ["log_mel_distance"])["log_mel_distance"]


def _timed(make: Callable[[], Result], seconds: float) -> tuple[Result, Timing]:
    """What a function makes, and the time of its second call: the first prepares for its sizes."""
    make()
    start = time.perf_counter()
    result = make()
    return result, Timing(time.perf_counter() - start, seconds)


def _checked_seed(seed: int | None) -> int:
    if seed is None or not 0 <= seed <= SEED_LIMIT:
        raise ValueError(f"the seed is {seed}: give a whole number from 0 to {SEED_LIMIT}")
    return int(seed)


def _convention(spec: MelSpec) -> str:
    return f"{spec.sample_rate:,} Hz, {spec.n_mels} bands"


def _notify(notify: Notify | None, share: float, message: str) -> None:
    if notify is not None:
        notify(share, message)
