"""The source-filter density under the contract of every bijection, and as a density."""

import math

import pytest
import torch

from vocoder.flows import Mdct
from vocoder.nn import SourceFilter
from vocoder.nn.source import HarmonicSource

pytestmark = pytest.mark.usefixtures("double_precision")

BANDS, MELS, TIME = 6, 3, 5
SEEN = MELS + 2


def condition(batch=2, voicing=None, bands=BANDS, tone=None):
    """[mel, v, v ln F0, one channel that is not used, E, Q]"""
    voicing = torch.rand(batch, TIME) if voicing is None else voicing
    time = voicing.shape[1]
    tone = torch.randn(batch, 2 * bands, time) if tone is None else tone
    mel, others = torch.randn(batch, MELS, time), torch.randn(batch, 2, time)
    return torch.cat([mel, voicing.unsqueeze(1), others, tone], dim=1)


def test_the_start_is_the_share_of_the_bands():
    piece = SourceFilter(256, SEEN, sample_rate=16000)
    share, of_q, log_sigma = piece.coefficients(condition(1, torch.ones(1, TIME), 256))
    assert share[:, :64].min() > 0.93
    assert share[:, -32:].max() < 0.11
    assert torch.allclose(share[:, 128], torch.tensor(0.525), atol=0.02)
    assert torch.equal(share, share[:, :, :1].expand_as(share))
    assert not of_q.any()
    # The variance of a tone of unit power and the noise together is one.
    torch.testing.assert_close(share.square() + (2 * log_sigma).exp(), torch.ones_like(share))


def test_generation_sets_high_harmonics_in_phase():
    """Above `PULSES_HZ` the tone is h E with a fixed h, less where voicing is unclear; below, and
    unvoiced, all is as ever."""
    piece = SourceFilter(256, SEEN, sample_rate=16000, channels=4)
    for parameter in piece.parameters():
        parameter.data.add_(0.5 * torch.randn_like(parameter))
    none = torch.zeros(1, 256, TIME)
    voicing = torch.rand(1, TIME)
    voicing[0, :4] = 0.99
    c = condition(1, voicing, 256)
    low, high = slice(0, 52), slice(64, None)  # bands of 31 Hz
    made, exact = piece.generate(none, c), piece.inverse(none, c)
    assert torch.equal(made[:, low], exact[:, low])
    tone = c[:, -512:-256]
    share = (made / tone)[:, high]
    clear = share[:, :, :1]
    assert clear[:, : 4000 // 31 - 64].min() > 0.9
    assert clear[:, 7000 // 31 - 64 :].max() < 0.15
    torch.testing.assert_close(
        share, clear * (voicing / 0.97).clamp_max(1) ** 12, atol=1e-5, rtol=1e-3
    )
    # The level of tone and noise together stays.
    (of_e, of_q, log_sigma), w = piece.coefficients(c), torch.ones(1, 256, TIME)
    noise = (piece.generate(w, c) - made)[:, high]
    before, after = 1 - of_e.square() - of_q.square(), 1 - share.square()
    ratio = noise.log() - (log_sigma - 0.5 * before.log())[:, high] - 0.5 * after.log()
    assert ratio.abs().max() < 1e-4
    silent = condition(1, torch.zeros(1, TIME), 256)
    torch.testing.assert_close(piece.generate(w, silent), piece.inverse(w, silent))


def test_likelihood_prefers_the_tone_that_is_there():
    """A tone in noise is likelier under its own source than under none or under another F0."""
    bands, frames, rate = 64, 60, 16000
    source, mdct = HarmonicSource(rate, bands), Mdct(bands)
    piece = SourceFilter(bands, SEEN, sample_rate=rate)
    voiced = torch.ones(1, frames)

    def given(f0, voicing):
        tone = source(torch.full((1, frames), f0), voicing, 0.2)
        bands_of = torch.cat([mdct(x.unsqueeze(1))[0] for x in tone], dim=1)
        return condition(1, voicing, bands, bands_of)

    own = given(140.0, voiced)
    u = piece.inverse(torch.randn(1, bands, frames), own).detach()

    def log_density(c):
        with torch.no_grad():
            z, log_det = piece(u, c)
        return float(log_det - 0.5 * z.square().sum() - 0.5 * z.numel() * math.log(2 * math.pi))

    silent, other = given(140.0, 0 * voiced), given(183.0, voiced)
    assert log_density(own) > log_density(silent) + 0.2 * u.numel()
    assert log_density(silent) > log_density(other)
