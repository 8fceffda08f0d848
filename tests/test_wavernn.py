"""What is WaveRNN's own: the equations of its GRU. The rest: test_autoregressive.py."""

from __future__ import annotations

import torch

from vocoder.audio import MelSpec
from vocoder.models import WaveRNN

SPEC = MelSpec(
    sample_rate=8000, n_fft=64, hop_length=20, win_length=64, n_mels=6, fmin=0, fmax=4000
)


def test_the_parallel_pass_is_the_equations() -> None:
    torch.manual_seed(0)
    model = WaveRNN(SPEC, hidden_size=5, head_channels=4, condition_channels=3).double()
    features = torch.randn(1, 3, 4, dtype=torch.float64)
    previous = 0.1 * torch.randn(40, dtype=torch.float64)
    condition = model.upsampling(features)[0].T
    W, U, b, b_state = model.gru.all_weights[0]
    h = torch.zeros(5, dtype=torch.float64)
    expected = []
    for x, c in zip(previous, condition, strict=True):
        given = W @ torch.cat([x[None], c]) + b
        own = U @ h + b_state
        r, z = torch.sigmoid(given[:10] + own[:10]).split(5)
        n = torch.tanh(given[10:] + r * own[10:])
        h = (1 - z) * n + z * h
        expected.append(model.head(h))
    parameters = model.predict(previous[None, None], features)[0].T
    assert torch.allclose(parameters, torch.stack(expected), atol=1e-12)


def test_the_default_is_as_wide_as_its_docstring_says() -> None:
    model = WaveRNN()
    assert model.gru.hidden_size == 512
    assert round(sum(p.numel() for p in model.parameters()) / 1e5) == 12
