"""The harmonic source against its definition in float64, in pieces, and over hours."""

import itertools
import math

import numpy as np
import pytest
import torch

from vocoder.nn.source import HarmonicSource

RATES = [(16000, 256), (22050, 256), (24000, 300), (44100, 512), (8000, 5)]


def track(frames, seed=0):
    """F0 that wanders between 70 and 400 Hz, and voicing with voiced, unvoiced and half frames."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(2, frames, generator=generator, dtype=torch.float64)
    f0 = 170 * torch.exp2((0.1 * steps.cumsum(1)).sin() * 1.2)
    voicing = (0.25 * steps.flip(1).cumsum(1)).sin().mul(2).clamp(0, 1)
    return f0, voicing


def defined(f0, voicing, rate, hop, theta):
    """e and q of one utterance, sample by sample and harmonic by harmonic."""
    position = (np.arange(len(f0) * hop) + 0.5) / hop - 0.5
    left = np.clip(np.floor(position).astype(int), 0, len(f0) - 1)
    right = np.clip(left + 1, 0, len(f0) - 1)
    left = np.where(position < 0, 0, left)
    right = np.where(position < 0, 0, right)
    after = position - np.floor(position)
    shares = (1 - after) * (voicing[left] + 1e-6), after * (voicing[right] + 1e-6)
    f = (shares[0] * f0[left] + shares[1] * f0[right]) / (shares[0] + shares[1])
    v = (1 - after) * voicing[left] + after * voicing[right]
    phi = 2 * np.pi * (theta + np.cumsum(f) / rate)
    count = rate / 2 / f - 1
    e, q = np.zeros_like(f), np.zeros_like(f)
    for k in range(1, int(count.max()) + 2):
        a = np.clip(count - (k - 1), 0, 1)
        e += a * np.cos(k * phi)
        q += a * np.sin(k * phi)
    gain = 2 * v * np.sqrt(f / rate)
    return gain * e, gain * q


@pytest.mark.parametrize("rate, hop", RATES)
def test_source_is_its_definition(rate, hop):
    f0, voicing = track(40)
    e, q = HarmonicSource(rate, hop)(f0, voicing, torch.tensor([0.3, 0.9], dtype=torch.float64))
    for row, theta in enumerate((0.3, 0.9)):
        expected = defined(f0[row].numpy(), voicing[row].numpy(), rate, hop, theta)
        np.testing.assert_allclose(e[row].numpy(), expected[0], atol=1e-8)
        np.testing.assert_allclose(q[row].numpy(), expected[1], atol=1e-8)


def test_phase_zero_is_the_peak():
    # A period of 100 samples: every hundredth sample is at phase 0 exactly, or next to it.
    f0 = torch.full((1, 20), 160.0)
    for theta in (0.0, 1e-12, -1e-9, 1e-7, 1e-5):
        e, q = HarmonicSource(16000, 256)(f0, torch.ones(1, 20), theta)
        assert e.isfinite().all()
        assert q.isfinite().all()
        peaks = e[0, 99::100]
        assert torch.allclose(peaks, torch.full_like(peaks, 2 * 0.1 * 49), atol=0.2)
        assert q[0, 99::100].abs().max() < 0.2


def test_unvoiced_frames_are_silent_whatever_their_f0():
    f0, voicing = torch.full((1, 9), 150.0), torch.tensor([[0.0, 0, 0, 1, 1, 0, 0, 0, 0]])
    f0[0, 6:] = torch.tensor([0.0, -5.0, 9000.0])
    e, q = HarmonicSource(16000, 256)(f0, voicing)
    silent = torch.cat([torch.arange(0, 2 * 256 + 128), torch.arange(6 * 256 - 128, 9 * 256)])
    assert not e[0, silent].any()
    assert not q[0, silent].any()
    assert e.isfinite().all()
    assert e[0, 3 * 256 : 5 * 256].square().mean() > 0.5


@pytest.mark.parametrize("cuts", [[10, 11, 20], [28]])
def test_windows_that_carry_the_phase_equal_one_pass(cuts):
    f0, voicing = (x.float() for x in track(30))
    source = HarmonicSource(22050, 256)
    whole = source(f0, voicing, 0.2)
    phase = torch.tensor(0.2, dtype=torch.float64)
    for first, last in itertools.pairwise([0, *cuts, 30]):
        window = slice(max(first - 1, 0), last + 1)  # the tone runs to the F0 of its neighbours
        cycles = source.cycles(f0[:, window], voicing[:, window])
        begin = phase - cycles[:, first - window.start]
        phase = begin + cycles[:, last - window.start]
        own = slice((first - window.start) * 256, (last - window.start) * 256)
        for part, expected in zip(
            source(f0[:, window], voicing[:, window], begin), whole, strict=True
        ):
            torch.testing.assert_close(
                part[:, own], expected[:, first * 256 : last * 256], atol=1e-5, rtol=0
            )


def test_phase_is_exact_after_hours():
    rate, hop, frames = 44100, 512, 40
    source = HarmonicSource(rate, hop)
    f0, voicing = torch.full((1, frames), 220.5), torch.ones(1, frames)  # 200 samples a period
    first, phase = source(f0, voicing)[0], torch.zeros(1, dtype=torch.float64)
    # Three hours, whole periods: 512 * 25 samples are 64 periods.
    cycles = source.cycles(torch.full((1, 25), 220.5), torch.ones(1, 25))[:, -1]
    for _ in range(3 * 3600 * rate // (hop * 25)):
        phase = (phase + cycles) % 1
    assert math.isclose(float((phase - phase.round()).abs()), 0, abs_tol=1e-7)
    torch.testing.assert_close(source(f0, voicing, phase)[0], first, atol=1e-3, rtol=0)
