"""The distribution of one 16-bit sample: a mixture of logistics or Gaussians, cut into bins."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vocoder.audio.pcm import FULL_SCALE

STEP = 1 / FULL_SCALE
"""Distance of neighbouring levels of 16-bit audio in [-1, 1): one quantisation step."""

SMALLEST_SCALE = STEP / 4
"""Smallest scale of a component. No bin is wider than four scales, so float32 suffices."""

COLDEST = 1e-6
"""Temperature below which the likeliest component is taken, whatever the noise."""

LARGEST_LOG_SCALE = 2.0
"""Limit of r, from which a component's scale is computed."""

_NODES = 8  # of the quadrature

Distribution = Literal["logistic", "gaussian"]


class DiscretisedMixture:
    r"""Probability of the 65,536 levels of 16-bit audio, from a mixture of continuous densities.

    A sample is :math:`x = q / 32768` with whole q from -32768 to 32767, :math:`\Delta = 1/32768`:

    .. math:: P(q) = \sum_{i=1}^{M} \pi_i
        \int_{x - \Delta/2}^{x + \Delta/2} f\Bigl(\frac{y - \mu_i}{s_i}\Bigr) \frac{dy}{s_i},
        \qquad \pi = \mathrm{softmax}(l), \quad s_i = \Delta / 4 + e^{r_i}

    where f is the standard logistic or normal density; the first bin begins at minus infinity and
    the last ends at infinity, so the sum over all levels is 1. The network's output for a sample
    is :math:`(l_1 \dots l_M, \mu_1 \dots \mu_M, r_1 \dots r_M)`, without l where M is 1.
    r is limited to 2.

    Papers: PixelCNN++ (Salimans et al., 2017) and Parallel WaveNet (van den Oord et al., 2018) for
    logistics; ClariNet (Ping et al., 2019) for the single Gaussian.

    Args:
        distribution: f, "logistic" or "gaussian".
        n_mixtures: M, 1 or more.

    Raises:
        ValueError: either is out of range.
    """

    def __init__(self, distribution: Distribution, n_mixtures: int) -> None:
        if distribution not in ("logistic", "gaussian"):
            raise ValueError(f"distribution is {distribution!r}: choose 'logistic' or 'gaussian'")
        if n_mixtures < 1:
            raise ValueError(f"n_mixtures is {n_mixtures}: a mixture has at least one component")
        self.distribution = distribution
        self.n_mixtures = n_mixtures
        self.n_parameters = 2 if n_mixtures == 1 else 3 * n_mixtures

    @staticmethod
    def levels(audio: Tensor) -> Tensor:
        """q, whole numbers of float type, of audio in [-1, 1]; q + u with u in [-1/2, 1/2) is q."""
        return torch.floor(audio / STEP + 0.5).clamp(-32768, 32767)

    def log_prob(self, parameters: Tensor, levels: Tensor) -> Tensor:
        """log P(q) in nats, (batch, time).

        Computed in float32 (or float64 if the parameters are that), whatever the autocast.

        Args:
            parameters: (batch, `n_parameters`, time).
            levels: q, (batch, time), from `levels`.
        """
        with torch.autocast(parameters.device.type, enabled=False):
            if parameters.dtype != torch.float64:
                parameters = parameters.float()
            levels = levels.to(parameters.dtype).unsqueeze(1)
            logits, means, scales = self._split(parameters)
            # Close to the mean this difference is exact in floating point.
            centred = levels * STEP - means
            lower, upper = (centred - STEP / 2) / scales, (centred + STEP / 2) / scales
            if self.distribution == "logistic":
                below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
                # sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)): nothing cancels.
                inside = below + above + torch.log(-torch.expm1(-STEP / scales))
            else:
                below, above = _log_ndtr(upper), _log_ndtr(-lower)
                inside = _log_normal_integral(centred / scales, STEP / scales)
            each = torch.where(levels <= -32768, below, inside)
            each = torch.where(levels >= 32767, above, each)
            return torch.logsumexp(F.log_softmax(logits, dim=1) + each, dim=1)

    def sample(
        self, parameters: Tensor, choice: Tensor, value: Tensor, temperature: float
    ) -> Tensor:
        r"""A level, as audio in [-1, 1), from noise.

        .. math:: x = \mu_i + \tau s_i \epsilon, \qquad
            i \sim \mathrm{softmax}(l / \tau)

        rounded to the nearest level; at temperature tau = 1 this has the probabilities P.

        Args:
            parameters: (batch, `n_parameters`).
            choice: noise that selects i, uniform on [0, 1), a scalar or (batch, 1).
            value: epsilon, standard logistic or normal, a scalar or (batch,).
            temperature: tau, 0 or more.

        Returns:
            (batch,).
        """
        logits, means, scales = self._split(parameters.unsqueeze(-1))
        if temperature < COLDEST:
            index = logits.argmax(dim=1)
        else:
            cumulative = F.softmax(logits.squeeze(-1) / temperature, dim=1).cumsum(1)
            index = (cumulative <= choice).sum(dim=1, keepdim=True).clamp(max=self.n_mixtures - 1)
        mean = means.squeeze(-1).gather(1, index).squeeze(1)
        scale = scales.squeeze(-1).gather(1, index).squeeze(1)
        return self.levels(mean + temperature * scale * value) * STEP

    def standard(self, normal: Tensor, uniform: Tensor) -> Tensor:
        """Standard noise of this distribution from normal or uniform noise of the same shape."""
        if self.distribution == "gaussian":
            return normal
        # The middle of each of the 2^24 cells in which float32 draws uniform numbers.
        return torch.logit(uniform.double() + 2**-25).to(uniform.dtype)

    def moved(self, parameters: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
        r"""Parameters of the mixture with :math:`c + g \mu_i` for means and :math:`g e^{r_i}`.

        Args:
            parameters: (batch, `n_parameters`, ...).
            centre: c, (batch, ...).
            scale: g, (batch, ...), greater than 0.
        """
        m = self.n_mixtures
        logits, means, scales = parameters.split([parameters.shape[1] - 2 * m, m, m], dim=1)
        scale = scale.unsqueeze(1)
        return torch.cat([logits, centre.unsqueeze(1) + scale * means, scales + scale.log()], dim=1)

    def start(self, weight: Tensor, bias: Tensor, level: float) -> None:
        """Change a network's last layer in place so that, untrained, it covers audio of a level."""
        m = self.n_mixtures
        with torch.no_grad():
            weight.mul_(0.1)
            bias.zero_()
            bias[-2 * m : -m] = level * torch.linspace(-1, 1, m) if m > 1 else 0.0
            bias[-m:] = math.log(level)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and scales, (batch, M, time) each."""
        m = self.n_mixtures
        means, raw = parameters[:, -2 * m : -m], parameters[:, -m:]
        logits = torch.zeros_like(means) if m == 1 else parameters[:, :m]
        return logits, means, SMALLEST_SCALE + raw.clamp(max=LARGEST_LOG_SCALE).exp()


def _log_ndtr(z: Tensor) -> Tensor:
    """Log of the standard normal's distribution function; finite, with its gradient, everywhere.

    PyTorch's own has a wrong gradient below -1,000 in float32, so the first terms of the
    asymptotic series take over where they are exact to rounding.
    """
    far = z.clamp(max=-10.0)
    v = far.pow(-2)
    series = torch.log1p(-v * (1 - 3 * v * (1 - 5 * v * (1 - 7 * v))))
    tail = -0.5 * far.square() - torch.log(-far) - 0.5 * math.log(2 * math.pi) + series
    return torch.where(z < -10, tail, torch.special.log_ndtr(z.clamp_min(-10.0)))


def _log_normal_integral(middle: Tensor, width: Tensor) -> Tensor:
    """Log of the standard normal's integral over ``width`` (up to 4) around ``middle``.

    By Gauss-Legendre quadrature, which for bins so narrow is exact to rounding wherever the
    integral is not negligible. The difference of two values of the distribution function is not:
    it cancels.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    t = torch.as_tensor(nodes / 2, dtype=middle.dtype, device=middle.device)
    log_weight = torch.as_tensor(np.log(weights / 2), dtype=middle.dtype, device=middle.device)
    step = width.unsqueeze(-1) * t
    # Relative to the log-density in the middle, next to which rounding would lose these far out.
    exponent = log_weight - step * (middle.unsqueeze(-1) + 0.5 * step)
    log_density = -0.5 * middle.square() - 0.5 * math.log(2 * math.pi)
    return log_density + torch.logsumexp(exponent, dim=-1) + torch.log(width)


__all__ = [
    "COLDEST",
    "LARGEST_LOG_SCALE",
    "SMALLEST_SCALE",
    "STEP",
    "DiscretisedMixture",
    "Distribution",
]
