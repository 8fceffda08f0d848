"""What is WaveNet's own: receptive field and default size. The rest: test_autoregressive.py."""

from __future__ import annotations

import pytest
import torch

from vocoder.audio import MelSpec
from vocoder.models import WaveNet

SPEC = MelSpec(
    sample_rate=8000, n_fft=64, hop_length=20, win_length=64, n_mels=6, fmin=0, fmax=4000
)


@pytest.mark.parametrize(("kernel_size", "n_layers", "cycle"), [(2, 5, 5), (3, 4, 3), (4, 3, 2)])
def test_the_receptive_field_is_what_the_output_depends_on(
    kernel_size: int, n_layers: int, cycle: int
) -> None:
    """In float64, from the newest to the oldest sample in it and none before."""
    torch.manual_seed(0)
    model = WaveNet(
        SPEC, channels=6, n_layers=n_layers, cycle=cycle, kernel_size=kernel_size
    ).double()
    field = model.stack.receptive_field
    assert field == (kernel_size - 1) * sum(2 ** (k % cycle) for k in range(n_layers)) + 1
    audio = (0.1 * torch.randn(1, 200, dtype=torch.float64)).requires_grad_()
    features = torch.randn(1, 80, 12, dtype=torch.float64)
    last = model.predict(audio.unsqueeze(1), features)[..., 150].sum()
    (gradient,) = torch.autograd.grad(last, audio)
    used = gradient[0].nonzero()
    assert used.min() == 150 - field + 1
    assert used.max() == 150


def test_the_default_is_the_size_of_the_published_baseline() -> None:
    model = WaveNet()
    assert model.stack.n_layers == 30
    assert model.stack.channels == 128
    assert model.stack.receptive_field == 6139
    assert 4.5e6 < sum(p.numel() for p in model.parameters()) < 4.7e6


def test_before_the_first_sample_there_is_silence() -> None:
    """Audio of silence before and no audio before are the same to every layer."""
    torch.manual_seed(0)
    model = WaveNet(SPEC, channels=6, n_layers=4)
    mel = -4 + torch.rand(1, 6, 1)
    first = model(torch.zeros(1, 20), mel)[..., 0]
    other = model(0.5 * torch.ones(1, 20), mel)[..., 0]
    assert torch.equal(first, other)
