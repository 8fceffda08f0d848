"""The source that is read off the mel: pieces equal the whole, and it follows a recording."""

import math

import pytest
import torch
from torch import Tensor

from tests.conftest import ROOT
from vocoder import MelSpec, read_audio
from vocoder.audio import LogMel
from vocoder.flows import log_density
from vocoder.models import MdctFlow
from vocoder.nn import MelSource

SPEC = MelSpec.preset("speech-16k")
SAMPLE = ROOT / "recipes/ljspeech/sample/wavs/ru_0024.flac"


@pytest.fixture(scope="module")
def source():
    return MelSource(SPEC, SPEC.hop_length).eval()


def seen(source, mel, *arguments, **named):
    """[v, v ln F0, E, Q]: what the source adds to the mel."""
    return source.condition(source.read(mel), *arguments, **named)[:, SPEC.n_mels :]


@pytest.fixture(scope="module")
def speech():
    """Two seconds of recorded speech and their mel."""
    audio = torch.as_tensor(read_audio(SAMPLE, SPEC.sample_rate)[0]).float()
    frames = 2 * SPEC.sample_rate // SPEC.hop_length
    audio = audio[None, : frames * SPEC.hop_length]
    return audio, LogMel(SPEC)(audio)[:, :, :frames]


def test_streams_stay_in_phase_for_minutes(speech):
    model = MdctFlow(SPEC, n_flows=0, source=True).eval()
    mel = speech[1][0].repeat(1, 60)
    whole = model.synthesize(mel, temperature=0)
    streamed = torch.cat(list(model.stream(mel.split(101, dim=1), temperature=0)))
    assert (streamed - whole).abs().max() < 1e-4


def test_locked_to_a_tone_the_source_is_that_tone(source):
    """F0 read off a mel is some cents off; locked to the fundamental, the source stays with it."""
    frames = 150
    f0 = 130 + 20 * torch.sin(torch.arange(frames) / 25)[None].double()
    tone, _ = source.source(f0, torch.ones(1, frames), 0.3)
    audio = 0.1 * tone
    mel = LogMel(SPEC)(audio)[:, :, :frames]
    expected = source.mdct(tone.unsqueeze(1))[0]
    low = slice(0, 60)  # bands; what is left of the error grows with the harmonic

    def agreement(s):
        e = s[:, 2 : 2 + SPEC.hop_length]
        a, b = e[:, low, 10:-10], expected[:, low, 10:-10]
        return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())

    assert agreement(seen(source, mel, audio=audio)) > 0.9
    assert agreement(seen(source, mel, 0.3)) < 0.5


def test_likelihood_is_the_mixture_over_phases(speech):
    model = MdctFlow(SPEC, n_flows=0, source=True).double().eval()
    audio, mel = (x.double() for x in speech)
    with torch.no_grad():
        conditions = [model.condition(mel, k / 16) for k in range(16)]
        given = [log_density(*model.flow(audio.unsqueeze(1), own)) for own in conditions]
        mixture = torch.stack(given).logsumexp(dim=0) - math.log(16)
    assert model.log_prob(audio, mel).item() == pytest.approx(mixture.item(), rel=1e-12)
    assert max(given) - math.log(16) <= mixture <= max(given)


def test_a_chord_and_noise_have_no_tone(source):
    """Sound without a single pitch is left to the noise of the base density."""
    time = torch.arange(2 * SPEC.sample_rate, dtype=torch.float64) / SPEC.sample_rate
    notes = (220.0, 277.2, 329.6)
    chord = sum(
        (2 * math.pi * note * k * time + k).sin() / k
        for note in notes
        for k in range(1, int(7000 / note))
    )
    assert isinstance(chord, Tensor)
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    for sound in (0.05 * chord.float(), 0.05 * noise):
        s = seen(source, LogMel(SPEC)(sound[None]))
        assert (s[0, 0] >= 0.5).float().mean() < 0.05
        assert s[0, 2:].square().mean() < 0.05
