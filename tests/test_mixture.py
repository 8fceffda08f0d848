"""The distribution of a 16-bit sample: a probability, computed well, and drawn from as it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vocoder.engines import autoregressive
from vocoder.nn.mixture import SMALLEST_SCALE, STEP, DiscretisedMixture, Distribution

CASES = [("logistic", 1), ("logistic", 4), ("gaussian", 1), ("gaussian", 3)]
LEVELS = torch.arange(-32768, 32768, dtype=torch.float32)


def parameters(mixture: DiscretisedMixture, log_scale: float, mean: float) -> Tensor:
    torch.manual_seed(int(100 * mean) + 7)
    m = mixture.n_mixtures
    result = torch.randn(mixture.n_parameters) * 0.5
    result[-2 * m : -m] = mean + 0.02 * torch.randn(m)
    result[-m:] += log_scale
    return result


@pytest.mark.parametrize(("distribution", "n_mixtures"), CASES)
@pytest.mark.parametrize("log_scale", [-30.0, -10.0, -6.0, 1.0])
@pytest.mark.parametrize("mean", [0.3, -0.999, 1.2])
def test_probabilities_of_all_levels_sum_to_one(
    distribution: Distribution, n_mixtures: int, log_scale: float, mean: float
) -> None:
    """From scales far below a step, where they are bounded, to wider than the range."""
    mixture = DiscretisedMixture(distribution, n_mixtures)
    own = parameters(mixture, log_scale, mean)
    log_prob = mixture.log_prob(own[None, :, None].expand(1, -1, len(LEVELS)), LEVELS[None])[0]
    assert log_prob.isfinite().all()
    assert abs(log_prob.double().exp().sum() - 1) < 2e-5


@pytest.mark.parametrize(("distribution", "n_mixtures"), CASES)
def test_float32_probabilities_are_those_of_float64_distribution_functions(
    distribution: Distribution, n_mixtures: int
) -> None:
    mixture = DiscretisedMixture(distribution, n_mixtures)
    for log_scale in (-12.0, -9.0, -5.0):
        own = parameters(mixture, log_scale, 0.1)
        logits, means, scales = (p[0, :, :] for p in mixture._split(own[None, :, None]))
        near = LEVELS[(LEVELS * STEP - means.mean()).abs() < 0.04]
        edges = (near.double()[None, :] + torch.tensor([[-0.5], [0.5]])) * STEP
        z = (edges[:, None] - means.double()) / scales.double()
        cdf = torch.sigmoid if distribution == "logistic" else torch.special.ndtr
        exact = (logits.double().softmax(0) * (cdf(z[1]) - cdf(z[0]))).sum(0)
        log_prob = mixture.log_prob(own[None, :, None].expand(1, -1, len(near)), near[None])[0]
        # The difference of float64 distribution functions is itself good to about 1e-16.
        seen = exact > 1e-9
        assert seen.sum() > 2
        assert (log_prob.double() - exact.log()).abs()[seen].max() < 1e-4


@pytest.mark.parametrize(("distribution", "n_mixtures"), CASES)
def test_samples_have_the_probabilities(distribution: Distribution, n_mixtures: int) -> None:
    """Over bins of many levels, to the accuracy of 40,000 draws."""
    mixture = DiscretisedMixture(distribution, n_mixtures)
    own = parameters(mixture, -4.0, 0.05)
    n = 40_000
    rng = torch.Generator().manual_seed(0)
    choice = torch.rand(n, generator=rng)
    value = mixture.standard(torch.randn(n, generator=rng), torch.rand(n, generator=rng))
    drawn = mixture.sample(own.expand(n, -1), choice[:, None], value, 1.0)
    levels = mixture.levels(drawn)
    assert torch.equal(levels * STEP, drawn)
    log_prob = mixture.log_prob(own[None, :, None].expand(1, -1, len(LEVELS)), LEVELS[None])[0]
    cumulative = log_prob.double().exp().cumsum(0)
    empirical = torch.searchsorted(levels.sort().values, LEVELS, right=True) / n
    assert (cumulative - empirical).abs().max() < 1.63 / np.sqrt(n)  # Kolmogorov, 1 %


@pytest.mark.parametrize(("distribution", "n_mixtures"), CASES)
def test_a_moved_mixture_is_an_affine_change_of_variables(
    distribution: Distribution, n_mixtures: int
) -> None:
    r"""log p(x) = log p_e((x - c) / g) - log g, at scales next to which a step is nothing."""
    mixture = DiscretisedMixture(distribution, n_mixtures)
    own = parameters(mixture, -3.0, 0.0).double()[None, :, None]
    own = own.expand(1, -1, 400)
    centre, gain = 0.1 * torch.randn(1, 400).double(), torch.rand(1, 400).double() + 0.2
    x = mixture.levels(centre + 0.1 * gain * torch.randn(1, 400)) * STEP
    moved = mixture.log_prob(mixture.moved(own, centre, gain), x / STEP)
    e = (x - centre) / gain  # between levels, which the density is smooth over
    plain = mixture.log_prob(own, e / STEP)
    assert torch.allclose(moved, plain - gain.log(), atol=5e-3)


@pytest.mark.parametrize(("distribution", "n_mixtures"), CASES)
def test_temperature_scales_the_noise(distribution: Distribution, n_mixtures: int) -> None:
    mixture = DiscretisedMixture(distribution, n_mixtures)
    own = parameters(mixture, -4.0, 0.05)[None]
    logits, means, scales = (p.squeeze(-1) for p in mixture._split(own[..., None]))
    best = logits.argmax()
    for choice in (0.0, 0.5, 0.9999):
        cold = mixture.sample(own, torch.tensor(choice), torch.tensor(3.0), 0.0)
        assert (cold - means[0, best]).abs() <= STEP / 2
    low = mixture.sample(own, torch.tensor(0.5), torch.tensor(3.0), 0.01)
    assert (low - means[0, best] - 0.03 * scales[0, best]).abs() <= STEP / 2


@pytest.mark.parametrize(("distribution", "n_mixtures"), CASES)
def test_gradients_are_finite_and_right_far_out_and_at_the_ends(
    distribution: Distribution, n_mixtures: int
) -> None:
    mixture = DiscretisedMixture(distribution, n_mixtures)
    levels = torch.tensor([[-32768.0, -32767.0, -5000.0, 0.0, 3.0, 32766.0, 32767.0]])
    for log_scale in (-20.0, -6.0, 5.0):
        own = parameters(mixture, log_scale, 0.0)[None, :, None].repeat(1, 1, levels.shape[1])
        own.requires_grad_()
        mixture.log_prob(own, levels).sum().backward()
        assert own.grad is not None
        assert own.grad.isfinite().all()
        exact = own.detach().double().requires_grad_()
        mixture.log_prob(exact, levels).sum().backward()
        assert exact.grad is not None
        assert torch.allclose(own.grad.double(), exact.grad, rtol=1e-3, atol=1e-3)
    own = parameters(mixture, -6.0, 0.0)[None, :, None].repeat(1, 1, levels.shape[1])
    assert torch.autograd.gradcheck(
        lambda p: mixture.log_prob(p, levels), own.double().requires_grad_(), atol=1e-3
    )


def test_levels_undo_dequantisation() -> None:
    rng = np.random.default_rng(0)
    q = rng.integers(-32768, 32768, 100_000)
    for u in (-0.5, -0.3, 0.0, 0.49):
        audio = torch.from_numpy(((q + u) / 32768).astype(np.float32))
        assert np.array_equal(DiscretisedMixture.levels(audio).numpy(), q)
    assert DiscretisedMixture.levels(torch.tensor([1.0, -1.0, 1.5])).tolist() == [
        32767,
        -32768,
        32767,
    ]


def test_standard_noise_is_finite_at_the_ends_of_the_uniform() -> None:
    ends = torch.tensor([0.0, 0.5, 1 - 2**-24])
    noise = DiscretisedMixture("logistic", 1).standard(ends, ends)
    assert noise.isfinite().all()
    assert (noise - torch.tensor([-17.3, 0.0, 17.3])).abs().max() < 0.1


def test_a_sample_can_be_no_surer_than_the_smallest_scale() -> None:
    mixture = DiscretisedMixture("logistic", 1)
    sure = mixture.log_prob(torch.tensor([[[0.0], [-1000.0]]]), torch.zeros(1, 1)).exp()
    assert (sure - np.tanh(STEP / SMALLEST_SCALE / 4)).abs() < 1e-6


@pytest.mark.parametrize(("distribution", "n_mixtures"), [("laplace", 1), ("logistic", 0)])
def test_other_mixtures_are_refused(distribution: Distribution, n_mixtures: int) -> None:
    with pytest.raises(ValueError, match=r"choose|at least"):
        DiscretisedMixture(distribution, n_mixtures)


def test_at_temperature_zero_no_noise_decides_between_components_almost_as_likely() -> None:
    mixture = DiscretisedMixture("logistic", 2)
    own = torch.tensor([[0.0, 2e-7, -0.5, 0.5, -9.0, -9.0]])
    for choice in (0.0, 0.3, 0.7, 0.9999):
        assert mixture.sample(own, torch.tensor(choice), torch.tensor(1.0), 0.0) == 0.5
        noise = np.float32(choice), np.float32(1), np.float32(0)
        moved = np.float32(0), np.float32(1)
        assert autoregressive.draw(own[0].numpy(), 2, *noise, *moved) == np.float32(0.5)
