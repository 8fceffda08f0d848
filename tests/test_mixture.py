"""The distribution of a 16-bit sample: a probability, computed well, and drawn from as it says."""

import numpy as np
import pytest
import torch

from vocoder.nn.wavenet import SMALLEST_SCALE, STEP, LogisticMixture, levels_of, logistic_noise

LEVELS = torch.arange(-32768.0, 32768)


def mixture(components, log_scale, mean, time=1):
    """One distribution, for each of so many times."""
    torch.manual_seed(int(100 * mean) + 7)
    logits, means, scales = 0.5 * torch.randn(3, 1, components, 1)
    scales = SMALLEST_SCALE + (log_scale + scales).exp()
    parts = logits, mean + 0.04 * means, scales
    return LogisticMixture(*(part.expand(-1, -1, time) for part in parts))


@pytest.mark.parametrize("components", [1, 4])
@pytest.mark.parametrize("log_scale", [-30.0, -10.0, -6.0, 1.0])
@pytest.mark.parametrize("mean", [0.3, -0.999, 1.2])
def test_probabilities_of_all_levels_sum_to_one(components, log_scale, mean):
    """From scales far below a step to wider than the range."""
    log_prob = mixture(components, log_scale, mean, len(LEVELS)).log_prob(LEVELS[None])
    assert log_prob.isfinite().all()
    assert abs(log_prob.double().exp().sum() - 1) < 2e-5


@pytest.mark.parametrize("components", [1, 4])
def test_samples_have_the_probabilities(components):
    """Over bins of many levels, to the accuracy of 40,000 draws."""
    n = 40_000
    choice, uniform = torch.rand(2, 1, n, generator=torch.Generator().manual_seed(0))
    drawn = mixture(components, -4.0, 0.05, n).sample(choice, logistic_noise(uniform), 1.0)[0]
    levels = levels_of(drawn)
    assert torch.equal(levels * STEP, drawn)
    log_prob = mixture(components, -4.0, 0.05, len(LEVELS)).log_prob(LEVELS[None])[0]
    cumulative = log_prob.double().exp().cumsum(0)
    empirical = torch.searchsorted(levels.sort().values, LEVELS, right=True) / n
    assert (cumulative - empirical).abs().max() < 1.63 / np.sqrt(n)  # Kolmogorov, 1 %


def test_gradients_are_finite_and_right_far_out_and_at_the_ends():
    levels = torch.tensor([[-32768.0, -32767.0, -5000.0, 0.0, 3.0, 32766.0, 32767.0]])

    def gradient(own, double):
        parts = [(p.double() if double else p).clone().requires_grad_() for p in own]
        LogisticMixture(*parts).log_prob(levels).sum().backward()
        return torch.cat([p.grad for p in parts if p.grad is not None], dim=1)

    for log_scale in (-20.0, -6.0, 5.0):
        own = mixture(4, log_scale, 0.0, levels.shape[1])
        rough, exact = gradient(own, False), gradient(own, True)
        assert rough.isfinite().all()
        assert torch.allclose(rough.double(), exact, rtol=1e-3, atol=1e-3)


def test_levels_undo_dequantisation():
    q = np.random.default_rng(0).integers(-32768, 32768, 100_000)
    for u in (-0.5, -0.3, 0.0, 0.49):
        audio = torch.from_numpy(((q + u) / 32768).astype(np.float32))
        assert np.array_equal(levels_of(audio).numpy(), q)
    assert levels_of(torch.tensor([1.0, -1.0, 1.5])).tolist() == [32767, -32768, 32767]
