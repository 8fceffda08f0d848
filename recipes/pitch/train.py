"""Trains the network that reads F0 and voicing off a mel (`vocoder.nn.pitch.MelPitch`).

    python recipes/pitch/train.py RECORDINGS... --output pitch.safetensors

RECORDINGS are audio files or folders of speech, one speaker at a time and with little noise. Each
is labelled by probabilistic YIN, with the settings of `vocoder.evaluation.metrics`; some are
labelled again after reverberation, filtering, overdrive and noise. They become mels of all presets,
at several speeds, which scale F0. Babble and chords stand for sound without a single pitch. In
training, mels are filtered and mixed with noise. The seed is 0; labels are kept next to the output,
in OUTPUT.labels.npz, for the next run.
"""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import soxr
import torch
from numpy.typing import NDArray
from scipy import signal
from torch import Tensor
from torch.nn import functional as F

from vocoder.atomic import write_atomic
from vocoder.audio import PRESETS, LogMel, read_audio
from vocoder.corpus import SUFFIXES
from vocoder.nn.pitch import BINS_PER_OCTAVE, MelPitch, candidates

Floats = NDArray[np.float32]

LABEL_RATE = 16000  # Hz
LABEL_STEP = 160  # samples
LONGEST = 12.0  # seconds of a recording that are used
SHARES = {"ljspeech": 0.35, "speech-16k": 0.3, "speech-24k": 0.2, "speech-44k": 0.15}
SILENCE = math.log(1e-5)


class Recording(NamedTuple):
    """Audio with F0 every 10 ms, 0 where unvoiced."""

    audio: Floats
    sample_rate: int
    f0: Floats


class Example(NamedTuple):
    """A mel (n_mels, frames) with its labels (frames,): F0, and voicing from 0 to 1."""

    preset: str
    mel: Tensor
    f0: Tensor
    voicing: Tensor


def yin(audio: Floats, rate: int) -> Floats:
    """F0 every 10 ms by probabilistic YIN, 0 where unvoiced."""
    import librosa  # takes seconds to import

    f0, voiced, _ = librosa.pyin(
        soxr.resample(audio, rate, LABEL_RATE),
        fmin=60.0, fmax=600.0, sr=LABEL_RATE, frame_length=1024, hop_length=LABEL_STEP,
    )  # fmt: skip
    return np.where(voiced, f0, 0).astype(np.float32)


def read(path: Path) -> tuple[Floats, int]:
    """The beginning of a recording and its sample rate."""
    audio, rate = read_audio(path)
    return np.asarray(audio, dtype=np.float32)[: round(LONGEST * rate)], rate


def worsen(audio: Floats, rate: int, rng: np.random.Generator, speed: float) -> Floats:
    """3.5 s played faster, in a random room, filtered, overdriven and with noise, at 16 kHz."""
    short = audio[: int(3.5 * rate)]
    x = soxr.resample(short, rate * speed, LABEL_RATE).astype(np.float64)
    if rng.uniform() < 0.75:
        size = int(LABEL_RATE * rng.uniform(0.1, 0.6))
        tail = rng.normal(size=size) * np.exp(-6.9 * np.arange(size) / size)
        tail *= 10 ** (-rng.uniform(0, 16) / 20) / np.sqrt(np.sum(tail**2))
        delay = int(rng.uniform(0, 0.02) * LABEL_RATE)
        room = np.concatenate([[1.0], np.zeros(delay), tail])
        x = signal.fftconvolve(x, room)[: len(x)]
    hertz = np.array([0, 100, 300, 600, 1200, 2500, 5000, 8000])
    gain = 10 ** (np.cumsum(np.append(rng.normal(0, 8), rng.normal(0, 5, 7))) / 20)
    gain = np.maximum(gain / gain.max(), 1e-3)
    x = signal.lfilter(signal.firwin2(255, hertz / 8000, gain), 1, x)
    x = x / np.abs(x).max()
    if rng.uniform() < 0.4:
        drive = rng.uniform(1, 6)
        x = np.tanh(drive * x) / np.tanh(drive)
    noise = np.fft.rfft(rng.normal(size=len(x)))
    slope = rng.uniform(0, 0.6)
    noise = np.fft.irfft(noise / np.maximum(np.arange(len(noise)), 20) ** slope, len(x))
    x = x + noise / noise.std() * x.std() * 10 ** (-rng.uniform(12, 50) / 20)
    x = x * 0.9 * 10 ** (-rng.uniform(0, 12) / 20) / np.abs(x).max()
    return x.astype(np.float32)


def labelled(paths: list[Path], worse: int, store: Path) -> list[Recording]:
    """The recordings, and `worse` excerpts in bad conditions, with their labels.

    Labelling takes longest, so labels are kept in `store`.
    """
    known = dict(np.load(store)) if store.is_file() else {}
    recordings: list[Recording] = []

    def add(key: str, audio: Floats, rate: int) -> None:
        if key not in known:
            print(f"label {len(recordings) + 1}: {key}", flush=True)
            known[key] = yin(audio, rate)
        recordings.append(Recording(audio, rate, known[key]))

    for path in paths:
        add(str(path.resolve()), *read(path))
    rng = np.random.default_rng(7)
    order = rng.permutation(len(paths))
    for number in range(worse):
        path = paths[order[number % len(paths)]]
        audio, rate = read(path)
        speed = float(np.exp(rng.uniform(np.log(0.65), np.log(1.6)))) if number % 2 else 1.0
        add(f"worse {number}: {path.name}", worsen(audio, rate, rng, speed), LABEL_RATE)
    np.savez(store, **known)
    return [r for r in recordings if np.mean(r.f0 > 0) > 0.2]


def frame_labels(f0: Floats, times: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """F0 and voicing at times in seconds, between labels 10 ms apart."""
    place = times * LABEL_RATE / LABEL_STEP
    left = np.clip(np.floor(place).astype(int), 0, len(f0) - 1)
    right = np.clip(left + 1, 0, len(f0) - 1)
    after = place - np.floor(place)
    a, b = f0[left], f0[right]
    both = np.exp((1 - after) * np.log(np.maximum(a, 1)) + after * np.log(np.maximum(b, 1)))
    between = np.where((a > 0) & (b > 0), both, np.maximum(a, b))
    voicing = (1 - after) * (a > 0) + after * (b > 0)
    return between.astype(np.float32), voicing.astype(np.float32)


class Examples:
    """Makes the training examples, all from one random generator."""

    def __init__(self, recordings: list[Recording], seed: int = 0) -> None:
        self.recordings = recordings
        self.rng = np.random.default_rng(seed)
        self.mels = {name: LogMel(spec) for name, spec in PRESETS.items()}

    def preset(self) -> str:
        """A preset at random."""
        return str(self.rng.choice(list(SHARES), p=list(SHARES.values())))

    def example(self, preset: str, audio: Floats, f0: Floats, voicing: Floats) -> Example:
        mel = self.mels[preset](torch.from_numpy(audio).unsqueeze(0))[0]
        return Example(preset, mel.half(), torch.from_numpy(f0), torch.from_numpy(voicing))

    def speech(self, recording: Recording, first: bool) -> Example:
        """A recording at its own speed, or at one that gives a random median F0, 75 to 420 Hz."""
        preset = self.preset()
        spec = PRESETS[preset]
        median = float(np.median(recording.f0[recording.f0 > 0]))
        target = 75 * (420 / 75) ** self.rng.uniform()
        speed = 1.0 if first else float(np.clip(target / median, 0.5, 2.0))
        audio = soxr.resample(recording.audio, recording.sample_rate * speed, spec.sample_rate)
        centres = (np.arange(spec.frames(len(audio))) + 0.5) * spec.hop_length / spec.sample_rate
        f0, voicing = frame_labels(recording.f0, centres * speed)
        return self.example(preset, audio, f0 * np.float32(speed), voicing)

    def without_pitch(self, preset: str, audio: NDArray[np.float64], level: float) -> Example:
        audio = audio * level / np.sqrt(np.mean(audio**2))
        frames = PRESETS[preset].frames(len(audio))
        silent = np.zeros(frames, np.float32)
        return self.example(preset, audio.astype(np.float32), silent + 120, silent)

    def babble(self) -> Example:
        """Four to seven voices at once, 4 s."""
        preset = self.preset()
        rate = PRESETS[preset].sample_rate
        mixed = np.zeros(4 * rate)
        for index in self.rng.choice(len(self.recordings), self.rng.integers(4, 8)):
            recording, speed = self.recordings[index], float(self.rng.uniform(0.7, 1.4))
            voice = soxr.resample(recording.audio, recording.sample_rate * speed, rate)
            voice = np.resize(voice, len(mixed))
            loudness = 10 ** self.rng.uniform(-0.15, 0.15) / np.sqrt(np.mean(voice**2))
            mixed += loudness * voice
        return self.without_pitch(preset, mixed, 0.05)

    def chords(self) -> Example:
        """Chords of three to five tones of random spectra, 0.3 to 1.5 s each, 4 s in all."""
        preset = self.preset()
        rate = PRESETS[preset].sample_rate
        played: list[NDArray[np.float64]] = []
        while sum(map(len, played)) < 4 * rate:
            t = np.arange(int(rate * self.rng.uniform(0.3, 1.5))) / rate
            root = self.rng.uniform(80, 300)
            chord = np.zeros(len(t))
            for semitones in np.cumsum(self.rng.choice([3, 4, 5, 8, 9], self.rng.integers(3, 6))):
                f0 = root * 2 ** (semitones / 12)
                slope, gain = self.rng.uniform(0.5, 2), 10 ** self.rng.uniform(-0.2, 0.2)
                for k in range(1, int(min(rate / 2, 8000) / f0)):
                    phase = self.rng.uniform()
                    chord += gain * k**-slope * np.cos(2 * np.pi * (k * f0 * t + phase))
            played.append(chord * np.exp(-t * self.rng.uniform(0, 3)))
        audio = np.concatenate(played)[: 4 * rate]
        audio += self.rng.normal(0, 1e-3 * np.sqrt(np.mean(audio**2)), len(audio))
        return self.without_pitch(preset, audio, 0.08)

    def all(self, copies: int, without_pitch: int) -> list[Example]:
        """``copies`` of each recording, ``without_pitch`` of babble, and as many of chords."""
        examples = [self.speech(r, copy == 0) for r in self.recordings for copy in range(copies)]
        examples += [self.babble() for _ in range(without_pitch)]
        return examples + [self.chords() for _ in range(without_pitch)]


def distort(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Random filter, level and noise, in the mel: (batch, n_mels, frames)."""
    batch, n_mels, _ = mel.shape
    x = torch.linspace(0, 1, n_mels).view(1, -1, 1)

    def normal(deviation: float) -> Tensor:
        return torch.from_numpy(rng.normal(0, deviation, (batch, 1, 1)).astype(np.float32))

    def uniform(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (batch, 1, 1)).astype(np.float32))

    curve = normal(1.5) - 0.3 + normal(1.2) * (2 * x - 1)
    for k in range(2, 7):
        curve = curve + normal(1.2 / k) * torch.cos(math.pi * k * x)
    mel = mel + curve - (uniform(-0.2, 0.12) - x).clamp_min(0) * uniform(10, 60)  # high pass
    level = mel.amax(dim=(1, 2), keepdim=True) - uniform(6, 11)
    noise = level + normal(1.5) * x + normal(1.0) * torch.cos(2 * math.pi * x)
    noise = noise + 0.4 * torch.randn(mel.shape)
    noisy = torch.where(uniform(0, 1) < 0.3, torch.logaddexp(2 * mel, 2 * noise) / 2, mel)
    return noisy.clamp_min(SILENCE)


def crop(example: Example, frames: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """`frames` frames of an example, from a random place; a short one ends in silence."""
    missing = max(0, frames - example.mel.shape[1])
    start = int(rng.integers(0, example.mel.shape[1] + missing - frames + 1))
    part = slice(start, start + frames)
    return (
        F.pad(example.mel.float(), (0, missing), value=SILENCE)[:, part],
        F.pad(example.f0, (0, missing), value=120.0)[part],
        F.pad(example.voicing, (0, missing))[part],
    )


def loss_of(network: MelPitch, mel: Tensor, f0: Tensor, voicing: Tensor) -> Tensor:
    """Cross-entropy of the candidates in voiced frames, plus twice that of the voicing."""
    logits, voiced = network.scores(mel)
    cents = torch.log2(candidates()).float() - torch.log2(f0).unsqueeze(2)
    target = torch.exp(-0.5 * (cents * BINS_PER_OCTAVE).square())
    weight = (voicing > 0.99).float() * (target.sum(dim=2) > 0.5)
    target = target / target.sum(dim=2, keepdim=True).clamp_min(1e-6)
    cross = -(target * F.log_softmax(logits, dim=2)).sum(dim=2)
    pitch = (cross * weight).sum() / weight.sum().clamp_min(1)
    return pitch + 2 * F.binary_cross_entropy_with_logits(voiced, voicing)


def train(examples: list[Example], steps: int, batch: int = 12, frames: int = 128) -> MelPitch:
    """The network, its weights averaged over the second half of training."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    networks = {name: MelPitch(PRESETS[name]) for name in SHARES}
    network = networks["ljspeech"]
    for other in networks.values():  # one set of weights behind every front end
        other.first, other.blocks, other.last = network.first, network.blocks, network.last
    lengths = np.array([example.mel.shape[1] for example in examples], dtype=np.float64)
    members = {name: np.array([e.preset == name for e in examples]) * lengths for name in SHARES}
    share = np.array([sizes.sum() for sizes in members.values()])
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, betas=(0.9, 0.98), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=steps, pct_start=0.1
    )
    average = {name: value.clone() for name, value in network.state_dict().items()}
    started = time.perf_counter()
    for step in range(steps):
        preset = list(SHARES)[rng.choice(len(SHARES), p=share / share.sum())]
        sizes = members[preset]
        chosen = rng.choice(len(sizes), batch, p=sizes / sizes.sum())
        crops = [crop(examples[i], frames, rng) for i in chosen]
        mel, f0, voicing = (torch.stack(parts) for parts in zip(*crops, strict=True))
        loss = loss_of(networks[preset], distort(mel, rng), f0, voicing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for name, value in network.state_dict().items():
            average[name].lerp_(value, 0.01 if step > steps // 2 else 1.0)
        if (step + 1) % 200 == 0:
            seconds = time.perf_counter() - started
            print(f"step {step + 1}: loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
    network.load_state_dict(average)
    return network


def find(paths: list[Path]) -> list[Path]:
    """Audio files, those in folders included."""
    found = [f for path in paths for f in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    found = [path for path in found if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        raise FileNotFoundError("there is no audio: name audio files or folders of them")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=Path("pitch.safetensors"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--copies", type=int, default=3, help="of each recording, at other speeds")
    parser.add_argument("--worse", type=int, default=360, help="recordings in bad conditions")
    parser.add_argument("--without-pitch", type=int, default=12, help="babble and chords, of each")
    arguments = parser.parse_args()
    try:
        store = arguments.output.with_suffix(".labels.npz")
        recordings = labelled(find(arguments.recordings), arguments.worse, store)
    except (OSError, ValueError) as error:
        sys.exit(f"train.py: {error}")
    examples = Examples(recordings).all(arguments.copies, arguments.without_pitch)
    network = train(examples, arguments.steps)
    weights = {name: w.half().contiguous() for name, w in network.state_dict().items()}
    write_atomic(arguments.output, safetensors.torch.save(weights))


if __name__ == "__main__":
    main()
