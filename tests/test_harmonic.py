"""The harmonic base under the contract of every bijection, and as a density."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from vocoder.audio.source import HarmonicSource
from vocoder.flows import Mdct
from vocoder.flows.harmonic import HarmonicBase

BANDS, MELS, TIME = 6, 3, 5


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(previous)


def perturbed(scale: float = 0.5) -> HarmonicBase:
    piece = HarmonicBase(BANDS, MELS, sample_rate=16000, channels=4)
    with torch.no_grad():
        for parameter in piece.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return piece


def condition(piece: HarmonicBase, batch: int = 2, voicing: Tensor | None = None) -> Tensor:
    if voicing is None:
        voicing = torch.rand(batch, TIME)
    return piece.join(torch.randn(batch, MELS, TIME), voicing, torch.randn(batch, BANDS, TIME))


def test_log_det_is_autograds() -> None:
    piece = perturbed()
    x = torch.randn(1, BANDS, TIME)
    c = condition(piece, 1)
    jacobian = torch.autograd.functional.jacobian(lambda y: piece(y, c)[0].flatten(), x)
    expected = torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet
    log_det = piece(x, c)[1]
    assert log_det.shape == (1,)
    assert expected.abs() > 0.1
    assert log_det.item() == pytest.approx(expected.item(), abs=1e-10)


def test_inverse_is_exact() -> None:
    piece = perturbed()
    c = condition(piece)
    x = torch.randn(2, BANDS, TIME)
    torch.testing.assert_close(piece.inverse(piece(x, c)[0], c), x)
    torch.testing.assert_close(piece(piece.inverse(x, c), c)[0], x)


def test_batch_items_do_not_touch() -> None:
    piece = perturbed()
    c, x = condition(piece), torch.randn(2, BANDS, TIME)
    z, log_det = piece(x, c)
    alone, alone_log_det = piece(x[1:], c[1:])
    torch.testing.assert_close(z[1:], alone)
    torch.testing.assert_close(log_det[1:], alone_log_det)


def test_every_parameter_gets_a_gradient() -> None:
    piece = perturbed()
    z, log_det = piece(torch.randn(2, BANDS, TIME), condition(piece))
    (z.square().sum() / 2 - log_det.sum()).backward()
    for name, parameter in piece.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_unvoiced_is_the_identity() -> None:
    piece = perturbed()
    c = condition(piece, voicing=torch.zeros(2, TIME))
    x = torch.randn(2, BANDS, TIME)
    z, log_det = piece(x, c)
    assert torch.equal(z, x)
    assert not log_det.any()


def test_start_is_the_share_of_the_bands() -> None:
    piece = HarmonicBase(256, MELS, sample_rate=16000)
    c = piece.join(torch.randn(1, MELS, TIME), torch.ones(1, TIME), torch.randn(1, 256, TIME))
    share = piece.share(c)
    assert share[:, :64].min() > 0.93
    assert share[:, -32:].max() < 0.11
    assert torch.allclose(share[:, 128], torch.tensor(0.525), atol=0.02)
    assert torch.equal(share, share[:, :, :1].expand_as(share))


def test_share_stays_below_one_in_float32() -> None:
    piece = HarmonicBase(BANDS, MELS, sample_rate=16000).float()
    with torch.no_grad():
        piece.bias.fill_(1e4)
    c = condition(piece, voicing=torch.ones(2, TIME)).float()
    z, log_det = piece(torch.randn(2, BANDS, TIME).float(), c)
    assert z.isfinite().all()
    assert log_det.isfinite().all()
    assert log_det.dtype == torch.float32


def test_variance_stays_one_and_temperature_scales_the_noise_alone() -> None:
    torch.manual_seed(1)
    piece = perturbed(0.2)
    mel, voicing = torch.randn(1, MELS, TIME).expand(4000, -1, -1), torch.ones(4000, TIME)
    c = piece.join(mel, voicing, torch.randn(4000, BANDS, TIME))
    u = piece.inverse(torch.randn(4000, BANDS, TIME), c)
    assert torch.allclose(u.var(dim=0), torch.ones(BANDS, TIME), atol=0.15)
    tone = piece.inverse(torch.zeros(4000, BANDS, TIME), c)
    w = torch.randn(4000, BANDS, TIME)
    ratio = (piece.inverse(0.5 * w, c) - tone) / (piece.inverse(w, c) - tone)
    assert torch.allclose(ratio, torch.tensor(0.5))


def test_likelihood_prefers_the_tone_that_is_there() -> None:
    """A tone in noise is likelier under its own source than under none or under another F0."""
    bands, frames, rate = 64, 60, 16000
    source, mdct = HarmonicSource(rate, bands), Mdct(bands)
    piece = HarmonicBase(bands, MELS, sample_rate=rate)
    voicing, mel = torch.ones(1, frames), torch.zeros(1, MELS, frames)

    def harmonic(f0: float) -> Tensor:
        e, _ = source(torch.full((1, frames), f0), voicing, 0.2)
        return mdct(e.unsqueeze(1))[0]

    own = piece.join(mel, voicing, harmonic(140.0))
    u = piece.inverse(torch.randn(1, bands, frames), own).detach()

    def log_density(c: Tensor) -> float:
        with torch.no_grad():
            z, log_det = piece(u, c)
        return float(log_det - 0.5 * z.square().sum() - 0.5 * z.numel() * math.log(2 * math.pi))

    silent = piece.join(mel, 0 * voicing, harmonic(140.0))
    other = piece.join(mel, voicing, harmonic(183.0))
    assert log_density(own) > log_density(silent) + 0.2 * u.numel()
    assert log_density(silent) > log_density(other)


def test_another_condition_is_refused() -> None:
    piece = HarmonicBase(BANDS, MELS, sample_rate=16000)
    x = torch.randn(1, BANDS, TIME)
    for wrong in (None, torch.randn(1, MELS, TIME)):
        with pytest.raises(ValueError, match="needs 10"):
            piece(x, wrong)
    with pytest.raises(ValueError, match="odd"):
        HarmonicBase(BANDS, MELS, sample_rate=16000, kernel_size=4)
