"""The GAN vocoder: its generator, its refusal of a likelihood. The rest is in test_contract.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import perturb
from vocoder.audio import MelSpec, Noise, read_audio
from vocoder.models import GanVocoder, load_checkpoint
from vocoder.nn.convnext import ConvNextBlock

SPEC = MelSpec(
    sample_rate=8000, n_fft=64, hop_length=16, win_length=64, n_mels=6, fmin=0, fmax=4000
)
SAMPLE = Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs/ru_0024.flac"
SMALL: dict[str, Any] = {
    "channels": 8, "n_layers": 2, "kernel_size": 3, "noise_channels": 3, "scale_channels": 4
}  # fmt: skip


def build(spec: MelSpec = SPEC, **arguments: Any) -> GanVocoder:
    torch.manual_seed(0)
    model = GanVocoder(spec, **(SMALL | arguments))
    perturb(model)
    return model.eval()


@pytest.fixture(params=[False, True], ids=["not centred", "centred"])
def model(request: pytest.FixtureRequest) -> GanVocoder:
    return build(dataclasses.replace(SPEC, center=request.param))


def random_mel(frames: int, batch: int | None = None) -> Tensor:
    shape = (SPEC.n_mels, frames) if batch is None else (batch, SPEC.n_mels, frames)
    return -4 + 2 * torch.rand(shape, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 33])
def test_samples_are_frames_times_hop(model: GanVocoder, frames: int) -> None:
    audio = model.synthesize(random_mel(frames))
    assert audio.shape == (frames * SPEC.hop_length,)
    assert audio.isfinite().all()
    assert audio.abs().max() > 1e-3
    assert model.synthesize(random_mel(frames, 2)).shape == (2, frames * SPEC.hop_length)


def test_the_transform_back_is_the_inverse_of_torchs(model: GanVocoder) -> None:
    audio = torch.randn(2, 12 * SPEC.hop_length, dtype=torch.float64)
    spec, double = model.mel_spec, model.double()
    left = spec.padding[0]
    padded = torch.nn.functional.pad(audio, (left, spec.n_fft))
    frames = padded.unfold(1, spec.n_fft, spec.hop_length)[:, :12] * double.window
    back = double._inverse_stft(torch.fft.rfft(frames))
    # Where all frames that reach a sample are there.
    inner = slice(spec.n_fft, -spec.n_fft)
    torch.testing.assert_close(back[:, inner], audio[:, inner])


def test_context_frames_is_what_the_output_depends_on(model: GanVocoder) -> None:
    model, hop = model.double(), SPEC.hop_length
    past, ahead = model.context_frames
    mel = random_mel(61, 1).double().requires_grad_()
    audio = model.generate(mel, Noise(0), 1.0)
    (gradient,) = torch.autograd.grad(audio[0, 30 * hop : 31 * hop].square().sum(), mel)
    used = gradient.abs().sum(dim=(0, 1)).nonzero().flatten()
    # The window is zero at its first sample, which may spare one frame.
    assert 30 - past <= int(used.min()) <= 30 - past + 1
    assert 30 + ahead - 1 <= int(used.max()) <= 30 + ahead


def test_gradient_reaches_every_parameter(model: GanVocoder) -> None:
    noise = torch.randn(2, 10, model.noise_per_frame)
    model.train().sample(random_mel(10, 2), noise, 1.0).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_an_untrained_generator_has_the_level_of_its_mel() -> None:
    audio, rate = read_audio(SAMPLE)
    torch.manual_seed(0)
    model = GanVocoder("speech-16k", channels=16, n_layers=1).eval()
    assert rate == model.sample_rate
    mel = model.mel(audio[16000:48000])
    generated = model.mel(model.synthesize(mel))
    assert model.mel_spec.distance(generated, mel) < 1.0
    assert model.mel_spec.distance(mel.roll(20, dims=1), mel) > 1.5  # what would be far


def test_the_likelihood_is_refused_with_its_reason(model: GanVocoder) -> None:
    assert model.likelihood is None
    mel = random_mel(4)
    with pytest.raises(NotImplementedError, match=r"3 numbers into 16 samples.*without a density"):
        model.log_prob(torch.zeros(4 * SPEC.hop_length), mel)
    with pytest.raises(NotImplementedError, match="no likelihood"):
        model.training_loss({"audio": torch.zeros(1, 64), "mel": mel.unsqueeze(0)})


def test_saving_and_loading_gives_the_same_audio(model: GanVocoder, tmp_path: Path) -> None:
    loaded = load_checkpoint(model.save(tmp_path / "model"))
    assert isinstance(loaded, GanVocoder)
    assert loaded.config == model.config
    mel = random_mel(20)
    assert torch.equal(loaded.synthesize(mel), model.synthesize(mel))
    assert torch.equal(loaded.fused().synthesize(mel), model.synthesize(mel))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n_layers": 0}, "n_layers is 0"),
        ({"noise_channels": 0}, "noise_channels is 0"),
        ({"kernel_size": 4}, "kernel_size is 4"),
        ({"mel_spec": dataclasses.replace(SPEC, hop_length=40)}, "two hops of 40"),
        ({"mel_spec": "nope"}, "presets"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GanVocoder(**arguments)


def test_a_block_is_its_equation() -> None:
    torch.manual_seed(0)
    block = ConvNextBlock(4, kernel_size=3, expansion=2, scale=0.5).double()
    perturb(block)
    x = torch.randn(1, 4, 9, dtype=torch.float64)
    step = 5
    taps = x[0, :, step - 1 : step + 2]
    mixed = (block.depthwise.weight[:, 0] * taps).sum(dim=1) + block.depthwise.bias
    normal = (mixed - mixed.mean()) / (mixed.var(correction=0) + 1e-5).sqrt()
    hidden = block.widen(normal * block.norm.weight + block.norm.bias)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    expected = x[0, :, step] + block.scale * block.narrow(hidden)
    torch.testing.assert_close(block(x)[0, :, step], expected)
