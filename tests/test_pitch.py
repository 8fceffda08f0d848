"""F0 and voicing from mels: tones whose pitch is known, recorded speech, windows and export."""

import sys

import numpy as np
import pytest
import torch

from tests.conftest import ROOT, scripts
from vocoder.audio import PRESETS, LogMel
from vocoder.nn.pitch import MelPitch, load_pitch
from vocoder.nn.source import HarmonicSource

RECIPES = ROOT / "recipes"
SAMPLE = RECIPES / "ljspeech" / "sample" / "wavs"


def tone(spec, f0, slope=1.0):
    """The mel of a tone whose harmonics fall by ``slope`` times 6 dB an octave, over faint noise.

    f0 is (frames,) in Hz.
    """
    source = HarmonicSource(spec.sample_rate, spec.hop_length)
    e, _ = source(f0.unsqueeze(0), torch.ones(1, len(f0)))
    spectrum = torch.fft.rfft(e)
    hertz = torch.linspace(0, spec.sample_rate / 2, spectrum.shape[1])
    audio = torch.fft.irfft(spectrum * (hertz.clamp_min(100) / 100) ** -slope, e.shape[1])
    noise = torch.randn(audio.shape, generator=torch.Generator().manual_seed(0))
    return LogMel(spec)(0.1 * audio / audio.std() + 3e-4 * noise)


def cents(a, b):
    return 1200 * torch.log2(a / b)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_gliding_tones_are_followed(preset):
    spec = PRESETS[preset]
    network = load_pitch(spec)
    for low, high in ((85.0, 130.0), (150.0, 230.0), (250.0, 380.0)):
        f0 = torch.linspace(0, 1, 120).mul(np.log(high / low)).exp() * low
        found, voicing = (x[:, : len(f0)] for x in network(tone(spec, f0)))  # centred: one more
        inner = slice(8, -8)
        error = cents(found[0], f0)[inner].abs()
        assert error.median() < 20
        assert (error > 200).float().mean() < 0.02
        assert (voicing[0, inner] > 0.5).float().mean() > 0.95


def test_noise_and_silence_are_unvoiced():
    for spec in PRESETS.values():
        network = load_pitch(spec)
        generator = torch.Generator().manual_seed(0)
        for level in (0.0, 1e-3, 0.1):
            noise = level * torch.randn(1, spec.sample_rate, generator=generator)
            f0, voicing = network(LogMel(spec)(noise))
            assert (voicing > 0.5).float().mean() < 0.05
            assert ((f0 > 49) & (f0 < 670)).all()


def test_the_recipe_learns_from_recordings(tmp_path, monkeypatch, capsys):
    with scripts("recipes/pitch") as script:
        train = script("train")
    monkeypatch.setattr(train, "LONGEST", 1.5)
    files = [str(path) for path in sorted(SAMPLE.glob("*.flac"))[:2]]
    output = tmp_path / "pitch.safetensors"
    options = ["--steps=3", "--copies=2", "--without-pitch=1", "--worse=1", f"--output={output}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *files, *options])
    train.main()
    import safetensors.torch

    weights = {k: w.float() for k, w in safetensors.torch.load_file(output).items()}
    network = MelPitch(PRESETS["ljspeech"])
    before = network.last.weight.clone()
    network.load_state_dict(weights)
    assert not torch.equal(before, network.last.weight)
    assert output.with_suffix(".labels.npz").is_file()
    assert capsys.readouterr().out.count("label ") == 3
    train.main()  # the labels are kept
    assert "label " not in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path / "no")])
    with pytest.raises(SystemExit, match="name audio files"):
        train.main()
