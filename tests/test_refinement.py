"""Refinement: what stays, what gets nearer, what is refused; the CPU backend equals it.

`refine_audio` is the plain path, `backend.refine_audio` and `RefineStream` are compiled.
"""

import dataclasses
import itertools
import pickle
from functools import cache

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from vocoder.audio import LogMel, MelError, MelSpec, read_audio
from vocoder.audio.refinement import (
    Level,
    MelGriffinLim,
    decimations,
    down,
    mel_distance,
    refine_audio,
)
from vocoder.backends import refinement as backend
from vocoder.backends.refinement import RefineStream

WAVS = sorted((ROOT / "recipes/ljspeech/sample/wavs").glob("*.flac"))
SPEECH = MelSpec.preset("speech-16k")
SPEC = MelSpec.preset("ljspeech")
PRESETS = ("ljspeech", "speech-16k", "speech-24k", "speech-44k", "tacotron2")


def like_speech(**changes):
    return dataclasses.replace(SPEECH, **changes)


SPECS = {
    **{name: MelSpec.preset(name) for name in PRESETS[:4]},
    "centred": like_speech(center=True),
    "power, base 10": like_speech(power=2.0, log_base="10", floor=1e-10),
    "htk without norm": like_speech(mel_scale="htk", mel_norm=None),
    "not a multiple": like_speech(win_length=600, hop_length=125, fmin=60.0, fmax=7000.0),
    "three hops": like_speech(win_length=600, hop_length=200),
    "two hops, centred": like_speech(n_fft=512, win_length=512, center=True),
    "no overlap": like_speech(n_fft=256, win_length=256, n_mels=20),
    "ten hops": like_speech(hop_length=100),
    "odd": like_speech(n_fft=401, win_length=401, hop_length=99, n_mels=40),
}
STRANGE = {
    "eight hops, few samples": like_speech(n_fft=16, win_length=16, hop_length=2, n_mels=2),
    "2048": like_speech(n_fft=2048, win_length=2000, hop_length=301, center=True),
    "one band": like_speech(n_mels=1),
    "empty bands": like_speech(n_mels=300, center=True),
}
both = pytest.mark.parametrize("refine", [refine_audio, backend.refine_audio], ids=["torch", "cpu"])
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
even_strange = pytest.mark.parametrize(
    "spec", (SPECS | STRANGE).values(), ids=(SPECS | STRANGE).keys()
)


@cache
def _recording(rate):
    return read_audio(WAVS[3], rate)[0].float()


def speech(spec, samples=None):
    """A second of a recording, from amid a word to amid another."""
    rate = spec.sample_rate
    return _recording(rate)[rate // 2 :][: samples or rate].clone()


def noise(samples, *batch, scale=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*batch, samples, generator=generator)


def material(spec, samples):
    """Speech with noise on it, and the mel of the speech."""
    audio = speech(spec, samples)
    return audio + noise(samples, scale=0.02), LogMel(spec)(audio)


@every_spec
def test_audio_that_has_the_mel_stays(spec):
    for samples in (spec.sample_rate, 20 * spec.hop_length, 20 * spec.hop_length + 37):
        audio = speech(spec, samples)
        assert audio[:100].abs().max() > 1e-3
        assert audio[-100:].abs().max() > 1e-3
        refined = refine_audio(audio, LogMel(spec)(audio), spec, 8)
        assert (refined - audio).abs().max() < 1e-5


@every_spec
def test_every_iteration_from_noise_comes_nearer(spec):
    audio = speech(spec)
    mel = LogMel(spec)(audio)
    start = noise(len(audio))
    distances = [
        mel_distance(refine_audio(start, mel, spec, iterations), mel, spec)
        for iterations in range(7)
    ]
    assert all(after < before for before, after in itertools.pairwise(distances))
    assert distances[-1] < 0.35 * distances[0]


@both
def test_silence_stays_silent(refine):
    silence = torch.full((SPEECH.n_mels, 63), SPEECH.log_floor)
    start = noise(16000)
    refined = refine(start, silence, SPEECH, 24)
    assert LogMel(SPEECH)(refined).max() < SPEECH.log_floor + 0.05
    assert refined.abs().max() < 1e-4
    quiet = 1e-7 * start  # below the floor already, so the mel asks for nothing
    assert (refine(quiet, silence, SPEECH, 8) - quiet).abs().max() < 1e-12
    loud = LogMel(SPEECH)(speech(SPEECH))
    assert torch.equal(refine(torch.zeros(16000), loud, SPEECH, 8), torch.zeros(16000))


@every_spec
def test_any_mel_gives_finite_audio(spec):
    generator = torch.Generator().manual_seed(0)
    low, high = spec.log_floor, spec.log_ceiling
    frames = 6
    drawn = low + (high - low) * torch.rand(2, spec.n_mels, frames, generator=generator)
    extreme = torch.where(drawn > (low + high) / 2, high, low)
    samples = frames * spec.hop_length - (1 if spec.center else 0)
    for mel in (drawn, extreme, torch.full_like(drawn, high), torch.full_like(drawn, -1e4)):
        for start in (noise(samples, 2), noise(samples, 2, scale=1e-30), torch.ones(2, samples)):
            refined = MelGriffinLim(spec)(start, mel[..., : spec.frames(samples)], 10)
            assert refined.isfinite().all()


@both
def test_kinds_and_dtypes(refine):
    audio = speech(SPEECH, 4000)
    start, mel = noise(4000), LogMel(SPEECH)(audio)
    expected = refine(start, mel, SPEECH, 2)
    assert expected.dtype == torch.float32
    for dtype in (np.float32, np.float64):
        refined = refine(start.numpy().astype(dtype), mel.numpy(), SPEECH, 2)
        assert isinstance(refined, np.ndarray)
        assert refined.dtype == dtype
        assert np.abs(refined - expected.numpy()).max() < 1e-5
    half = refine(start.half(), mel, SPEECH, 2)
    assert half.dtype == torch.float16
    assert (half.float() - expected).abs().max() < 1e-2
    untouched = refine(start, mel, SPEECH, 0)
    assert torch.equal(untouched, start)
    assert untouched.data_ptr() != start.data_ptr()
    mixed = refine(start.numpy(), mel.requires_grad_(), SPEECH, 2)
    assert np.abs(mixed - expected.numpy()).max() < 1e-6
    assert torch.equal(start, noise(4000))


SMALL = MelSpec(
    sample_rate=8000, n_fft=64, hop_length=16, win_length=64, n_mels=6, fmin=0, fmax=4000
)


def test_gradients():
    start = noise(50, 1).double().requires_grad_()
    mel = LogMel(SMALL)(noise(50, 1, seed=2)).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda audio, mel: MelGriffinLim(SMALL)(audio, mel, 2), (start, mel), atol=1e-4
    )


AUDIO = torch.zeros(512)
MEL = torch.zeros(80, 2)


@pytest.mark.parametrize(
    "iterations", [-1, 1001, 1.5, "two", "3:2", True, float("nan"), ((3, 1),), (1, 2)]
)
def test_absurd_numbers_of_iterations_are_refused(iterations):
    for refine in (refine_audio, backend.refine_audio):
        with pytest.raises(ValueError, match=r"^refine must .*\.$"):
            refine(AUDIO, MEL, SPEECH, iterations)


@pytest.mark.parametrize(
    "audio, mel, error, message",
    [
        (torch.full((512,), torch.nan), MEL, ValueError, "NaN or infinite samples"),
        (AUDIO, torch.full((80, 2), torch.nan), MelError, "NaN"),
        (AUDIO, torch.full((80, 2), 50.0), MelError, "values run from"),
        (AUDIO, torch.zeros(81, 2), MelError, "81"),
        (AUDIO, torch.zeros(80, 3), MelError, "512 samples have 2 frames"),
        (torch.zeros(513), MEL, MelError, "513 samples have 3 frames"),
        (torch.zeros(2, 512), MEL, MelError, "do not belong together"),
        (torch.zeros(1, 2, 512), MEL, ValueError, r"\(samples,\) or \(batch, samples\)"),
        (torch.zeros(0), MEL, ValueError, "no samples"),
        (torch.zeros(512, dtype=torch.int16), MEL, ValueError, "int16"),
        ([0.0] * 512, MEL, ValueError, "audio must be a torch tensor or a numpy array"),
        (AUDIO, [[0.0]], ValueError, "mel must be a torch tensor or a numpy array"),
    ],
)
def test_audio_and_mel_that_do_not_fit_are_refused(audio, mel, error, message):
    for function in (
        lambda *pair: refine_audio(*pair, 1),
        lambda *pair: backend.refine_audio(*pair, 1),
        mel_distance,
    ):
        with pytest.raises(error, match=message):
            function(audio, mel, SPEECH)


def lengths(spec):
    hop = spec.hop_length
    return [1, hop - 1, hop, hop + 1, spec.n_fft, 2 * spec.n_fft + 3, 31 * hop, 40 * hop + 7]


@even_strange
def test_equals_the_plain_path(spec):
    for samples in lengths(spec):
        audio, mel = material(spec, samples)
        expected = refine_audio(audio, mel, spec, 3)
        refined = backend.refine_audio(audio, mel, spec, 3)
        assert refined.dtype == torch.float32
        assert (refined - expected).abs().max() < 1e-5
        assert (refined - audio).abs().max() > 1e-4 or samples < spec.n_fft


def pieces(audio, mel, hop, cut):
    """Audio and mel, cut in one of several ways."""
    samples, frames = len(audio), mel.shape[1]
    rng = np.random.default_rng(0)
    at = frame = 0
    while at < samples or frame < frames:
        size, count = {
            "frames": (hop, 1),
            "whole": (samples, frames),
            "mel first": (333, frames),
            "mel last": (samples, 1 if at else 0),
            "random": (int(rng.integers(0, 3 * hop)), int(rng.integers(0, 4))),
        }[cut]
        yield audio[at : at + size], mel[:, frame : frame + count]
        at, frame = at + size, frame + count


def streamed(stream, audio, mel, cut):
    hop = stream.mel_spec.hop_length
    cuts = pieces(audio.numpy(), mel.numpy(), hop, cut)
    parts = [stream.push(*piece) for piece in cuts]
    return torch.from_numpy(np.concatenate([*parts, stream.finish()]))


@even_strange
def test_pieces_put_together_equal_the_whole(spec):
    for samples, iterations in itertools.product(lengths(spec), (1, 3)):
        audio, mel = material(spec, samples)
        expected = backend.refine_audio(audio, mel, spec, iterations)
        for cut in ("frames", "whole", "mel first", "mel last", "random"):
            together = streamed(RefineStream(spec, iterations), audio, mel, cut)
            assert together.shape == expected.shape, cut
            assert (together - expected).abs().max() < 2e-6, cut


@pytest.mark.parametrize("name", ["ljspeech", "centred", "two hops, centred", "ten hops"])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_look_ahead_is_the_delay(name, iterations):
    spec = SPECS[name]
    stream = RefineStream(spec, iterations)
    hop = spec.hop_length
    audio, mel = material(spec, 100 * hop)
    delays, out = [], 0
    for frame in range(100):
        part = audio[frame * hop : (frame + 1) * hop]
        out += len(stream.push(part.numpy(), mel[:, frame : frame + 1].numpy()))
        delays.append((frame + 1) * hop - out)
    longest = max(delays)
    assert stream.look_ahead == -(-longest // hop)
    if name == "ljspeech":
        assert stream.look_ahead == {0: 0, 1: 7, 4: 25}[iterations]


@pytest.mark.parametrize("iterations", [3, "fast"])
def test_a_stream_keeps_little(iterations):
    stream = RefineStream(SPECS["ljspeech"], iterations)
    audio, mel = np.full(256, 0.1, np.float32), np.full((80, 1), -5, np.float32)
    sizes = []
    for _ in range(600):
        stream.push(audio, mel)
        sizes.append(len(pickle.dumps(stream)))
    assert max(sizes[300:]) < max(sizes[:300]) + 100  # pickled numbers grow
    assert max(sizes) < 8e6


@pytest.mark.parametrize("preset", PRESETS)
def test_a_level_sees_the_low_bands_of_the_mel(preset):
    """The recording's own mel is a fixed point of every level, but for what the filters take."""
    spec = MelSpec.preset(preset)
    whole = _recording(spec.sample_rate)
    audio = whole[whole.abs().argmax() // 2 :][: spec.sample_rate]  # not cut within loud speech
    mel = LogMel(spec)(audio)
    assert decimations(spec)
    for decimation in decimations(spec):
        low = down(audio[None], decimation)
        change = Level(spec, decimation)(low, mel[None], 1) - low
        assert change.square().mean() < 2e-3 * low.square().mean()


@pytest.mark.parametrize("refinement", ["default", "8:4+1:1", 3])
@pytest.mark.parametrize("preset", PRESETS)
def test_whole_audio_and_streams_equal_the_reference(preset, refinement):
    spec = MelSpec.preset(preset)
    audio = speech(spec, round(0.7 * spec.sample_rate))
    mel, start = LogMel(spec)(audio), noise(len(audio), scale=0.01)
    expected = refine_audio(start, mel, spec, refinement)
    made = backend.refine_audio(start, mel, spec, refinement)
    # Many iterations amplify what rounding leaves: by as much as they do a change of 1e-7.
    other = refine_audio(start + 1e-7 * noise(len(start), seed=1).sign(), mel, spec, refinement)
    bound = 1e-5 + 10 * (other - expected).abs().max().item()
    assert (made - expected).abs().max() < bound
    together = streamed(RefineStream(spec, refinement), start, mel, "random")
    assert together.shape == made.shape
    assert (together - made).abs().max() < bound


@pytest.mark.parametrize("decimation", [4, 8, 16])
def test_any_number_of_iterations_is_stable(decimation):
    mel = LogMel(SPEC)(speech(SPEC))
    start = noise(22050, scale=0.01)
    few, many = (
        mel_distance(backend.refine_audio(start, mel, SPEC, f"{decimation}:{k}+1:1"), mel, SPEC)
        for k in (32, 1000)
    )
    assert many < 1.05 * few
