"""The CPU backend of refinement equals the plain path, whole or in pieces."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vocoder.audio import LogMel, MelError, MelSpec, read_audio
from vocoder.audio.refinement import refine_audio
from vocoder.backends.refinement import RefineStream
from vocoder.backends.refinement import refine_audio as refine

WAVS = sorted((Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs").glob("*.flac"))
SPEECH = MelSpec.preset("speech-16k")
SPECS = {
    "ljspeech": MelSpec.preset("ljspeech"),
    "speech-44k": MelSpec.preset("speech-44k"),
    "centred": dataclasses.replace(SPEECH, center=True),
    "power, base 10": dataclasses.replace(SPEECH, power=2.0, log_base="10", floor=1e-10),
    "short window, not a multiple": dataclasses.replace(
        SPEECH, win_length=600, hop_length=125, fmin=60.0, fmax=7000.0
    ),
    "two hops, centred": dataclasses.replace(SPEECH, n_fft=512, win_length=512, center=True),
    "no overlap": dataclasses.replace(SPEECH, n_fft=256, win_length=256, n_mels=20),
    "ten hops": dataclasses.replace(SPEECH, hop_length=100),
    "eight hops, few samples": dataclasses.replace(
        SPEECH, n_fft=16, win_length=16, hop_length=2, n_mels=2
    ),
    "2048": dataclasses.replace(SPEECH, n_fft=2048, win_length=2000, hop_length=301, center=True),
    "one band": dataclasses.replace(SPEECH, n_mels=1),
    "empty bands": dataclasses.replace(SPEECH, n_mels=300, center=True),
    "odd": dataclasses.replace(SPEECH, n_fft=401, win_length=401, hop_length=99, n_mels=40),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


@cache
def _recording(rate: int) -> Tensor:
    return read_audio(WAVS[3], rate)[0].float()


def material(spec: MelSpec, samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Speech with noise on it, and the mel of the speech."""
    rate = spec.sample_rate
    audio = _recording(rate)[rate // 2 :][:samples]
    assert len(audio) == samples
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return audio + 0.02 * noise, LogMel(spec)(audio)


def lengths(spec: MelSpec) -> list[int]:
    hop = spec.hop_length
    return [1, hop - 1, hop, hop + 1, spec.n_fft, 2 * spec.n_fft + 3, 31 * hop, 40 * hop + 7]


@every_spec
def test_equals_the_plain_path(spec: MelSpec) -> None:
    for samples in lengths(spec):
        audio, mel = material(spec, samples)
        if mel.shape[1] != spec.frames(samples):
            continue
        expected = refine_audio(audio, mel, spec, 3)
        refined = refine(audio, mel, spec, 3, threads=1)
        assert refined.dtype == torch.float32
        assert (refined - expected).abs().max() < 1e-5
        assert (refined - audio).abs().max() > 1e-4 or samples < spec.n_fft


def test_refusals() -> None:
    audio, mel = material(SPEECH, 512)
    with pytest.raises(ValueError, match="refine must"):
        refine(audio, mel, SPEECH, -1)
    with pytest.raises(ValueError, match="NaN"):
        refine(audio * torch.nan, mel, SPEECH, 1)
    with pytest.raises(MelError, match="512 samples have 2 frames"):
        refine(audio, mel[:, :1], SPEECH, 1)
    with pytest.raises(ValueError, match="runs on the CPU, but the audio is on meta"):
        RefineStream(SPEECH, 1).push(torch.empty(0, device="meta"), mel[:, :0])
    with pytest.raises(ValueError, match="threads must be"):
        refine(audio, mel, SPEECH, 1, threads=0)


def pieces(audio: Tensor, mel: Tensor, hop: int, cut: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Audio and mel, cut in one of several ways."""
    samples, frames = len(audio), mel.shape[1]
    rng = np.random.default_rng(0)
    at = frame = 0
    while at < samples or frame < frames:
        if cut == "frames":
            size, count = hop, 1
        elif cut == "whole":
            size, count = samples, frames
        elif cut == "mel first":
            size, count = 333, frames
        elif cut == "mel last":
            size, count = samples, 1 if at else 0
        else:
            size, count = int(rng.integers(0, 3 * hop)), int(rng.integers(0, 4))
        yield audio[at : at + size], mel[:, frame : frame + count]
        at, frame = at + size, frame + count


def streamed(stream: RefineStream, audio: Tensor, mel: Tensor, cut: str) -> Tensor:
    hop = stream.mel_spec.hop_length
    parts = [stream.push(*piece) for piece in pieces(audio, mel, hop, cut)]
    return torch.cat([*parts, stream.finish()])


@every_spec
@pytest.mark.parametrize("cut", ["frames", "whole", "mel first", "mel last", "random"])
def test_pieces_put_together_equal_the_whole(spec: MelSpec, cut: str) -> None:
    for samples in lengths(spec):
        audio, mel = material(spec, samples)
        if mel.shape[1] != spec.frames(samples):
            continue
        for iterations in (1, 3):
            expected = refine(audio, mel, spec, iterations, threads=1)
            together = streamed(RefineStream(spec, iterations), audio, mel, cut)
            assert together.shape == expected.shape
            assert (together - expected).abs().max() < 2e-6


@pytest.mark.parametrize("name", ["ljspeech", "centred", "two hops, centred", "ten hops"])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_look_ahead_is_the_delay(name: str, iterations: int) -> None:
    spec = SPECS[name]
    stream = RefineStream(spec, iterations)
    hop = spec.hop_length
    audio, mel = material(spec, 100 * hop)
    delays, out = [], 0
    for frame in range(100):
        part = audio[frame * hop : (frame + 1) * hop]
        out += len(stream.push(part, mel[:, frame : frame + 1]))
        delays.append((frame + 1) * hop - out)
    longest = max(delays)
    assert stream.look_ahead == -(-longest // hop)
    if name == "ljspeech":
        assert stream.look_ahead == {0: 0, 1: 7, 4: 25}[iterations]


@pytest.mark.parametrize("iterations", [3, "fast"])
def test_a_stream_keeps_little(iterations: int | str) -> None:
    stream = RefineStream(SPECS["ljspeech"], iterations)
    audio, mel = 0.1 * torch.ones(256), torch.full((80, 1), -5.0)
    sizes = []
    for _ in range(600):
        stream.push(audio, mel)
        sizes.append(len(pickle.dumps(stream)))
    assert max(sizes[300:]) < max(sizes[:300]) + 100  # pickled numbers grow
    assert max(sizes) < 8e6


def test_stream_refuses() -> None:
    audio, mel = material(SPEECH, 1024)
    with pytest.raises(ValueError, match="refine must"):
        RefineStream(SPEECH, 1001)
    stream = RefineStream(SPEECH, 2)
    with pytest.raises(ValueError, match="NaN"):
        stream.push(audio * torch.nan, mel)
    with pytest.raises(MelError, match="NaN"):
        stream.push(audio, mel * torch.nan)
    with pytest.raises(MelError):
        stream.push(audio, mel[:-1])
    with pytest.raises(ValueError, match=r"takes audio \(samples,\)"):
        stream.push(audio[None], mel[None])
    with pytest.raises(ValueError, match="int16"):
        stream.push((audio * 32768).to(torch.int16), mel)
    # What was refused has left no trace.
    assert (
        streamed(stream, audio, mel, "random") - refine(audio, mel, SPEECH, 2)
    ).abs().max() < 1e-6
    for call in (stream.finish, lambda: stream.push(audio, mel)):
        with pytest.raises(ValueError, match="has ended"):
            call()
    stream = RefineStream(SPEECH, 2)
    stream.push(audio, mel[:, :3])
    with pytest.raises(MelError, match="1,024 samples have 4 frames"):
        stream.finish()
    stream.push(audio[:0], mel[:, 3:])  # what was missing may still come
    assert len(stream.finish()) == 1024
