"""The distribution of a 16-bit sample: a mixture of logistics, cut into bins."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio.pcm import FULL_SCALE

STEP = 1 / FULL_SCALE
"""Distance of neighbouring levels of 16-bit audio in [-1, 1): one quantisation step."""

SMALLEST_SCALE = STEP / 4
"""Added to every scale, so that no bin is much wider than its component."""

LOG_SCALES = -4.0, 2.0
"""Range of r. The lower end keeps likelihoods of audio that the model did not expect finite in
practice: a residual of its usual size g costs at most 55 nats."""

COLDEST = 1e-6
"""Temperature below which the likeliest component is taken, whatever the noise."""


class LogisticMixture(NamedTuple):
    r"""Probability of the 65,536 levels of 16-bit audio, from a mixture of logistic densities.

    A sample is :math:`x = q / 32768` with whole q from -32768 to 32767, :math:`\Delta = 1/32768`:

    .. math:: P(q) = \sum_{i=1}^{M} \pi_i
        \Bigl[\sigma\Bigl(\frac{x + \Delta/2 - \mu_i}{s_i}\Bigr) -
        \sigma\Bigl(\frac{x - \Delta/2 - \mu_i}{s_i}\Bigr)\Bigr], \qquad
        \pi = \mathrm{softmax}(l)

    The first bin begins at minus infinity and the last ends at infinity, so the sum over all levels
    is 1. Papers: PixelCNN++ (Salimans et al., 2017), Parallel WaveNet (van den Oord et al., 2018).

    Attributes:
        logits, means, scales: l, mu and s, (batch, M, time).
    """

    logits: Tensor
    means: Tensor
    scales: Tensor

    @classmethod
    def of(cls, output: Tensor, centre: Tensor, gain: Tensor) -> Self:
        r"""The mixture with :math:`\mu_i = c + g m_i` and :math:`s_i = \Delta / 4 + g e^{r_i}`.

        Args:
            output: l, m and r of a network, (batch, 3 M, time); r is limited to `LOG_SCALES`.
            centre, gain: c and g, (batch, time).
        """
        logits, means, log_scales = output.chunk(3, dim=1)
        gain = gain.unsqueeze(1)
        scales = SMALLEST_SCALE + gain * log_scales.clamp(*LOG_SCALES).exp()
        return cls(logits, centre.unsqueeze(1) + gain * means, scales)

    def log_prob(self, levels: Tensor) -> Tensor:
        """log P(q) in nats, (batch, time), of levels q (batch, time), as `levels_of` gives them."""
        q = levels.to(self.means.dtype).unsqueeze(1)
        centred = q * STEP - self.means  # exact in floating point close to the mean
        below = F.logsigmoid((centred + STEP / 2) / self.scales)
        above = F.logsigmoid((STEP / 2 - centred) / self.scales)
        # sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)): nothing cancels.
        each = below + above + torch.log(-torch.expm1(-STEP / self.scales))
        each = torch.where(q <= -FULL_SCALE, below, torch.where(q >= FULL_SCALE - 1, above, each))
        return torch.logsumexp(F.log_softmax(self.logits, dim=1) + each, dim=1)

    def sample(self, choice: Tensor, value: Tensor, temperature: float) -> Tensor:
        r"""A level of each time, as audio in [-1, 1), (batch, time).

        .. math:: x = \mu_i + \tau s_i \epsilon, \qquad i \sim \mathrm{softmax}(l / \tau)

        rounded to the nearest level; at temperature tau = 1 this has the probabilities P.

        i is chosen by ``choice``, uniform noise on [0, 1); epsilon is ``value``, standard logistic
        noise; (batch, time) each.
        """
        index = self.logits.argmax(dim=1, keepdim=True)
        if temperature >= COLDEST:
            cumulative = F.softmax(self.logits / temperature, dim=1).cumsum(1)
            index = (cumulative <= choice.unsqueeze(1)).sum(dim=1, keepdim=True)
            index = index.clamp(max=self.logits.shape[1] - 1)
        mean, scale = (x.gather(1, index).squeeze(1) for x in (self.means, self.scales))
        return levels_of(mean + temperature * scale * value) * STEP


def levels_of(audio: Tensor) -> Tensor:
    """q, whole numbers of float type, of audio in [-1, 1]; q + u with u in [-1/2, 1/2) is q."""
    return torch.floor(audio / STEP + 0.5).clamp(-FULL_SCALE, FULL_SCALE - 1)


def logistic_noise(uniform: Tensor) -> Tensor:
    """Standard logistic noise from uniform noise on [0, 1) in float32."""
    # The middle of each of the 2^24 cells in which float32 draws uniform numbers.
    return torch.logit(uniform.double() + 2**-25).to(uniform.dtype)


@torch.no_grad()
def start_mixture(last: nn.Conv1d, level: float) -> None:
    """Change the last layer of a network so that, untrained, it covers a signal of a level."""
    assert last.bias is not None
    _, means, log_scales = last.bias.zero_().chunk(3)
    last.weight.mul_(0.1)
    if len(means) > 1:
        means.copy_(level * torch.linspace(-1, 1, len(means)))
    log_scales.fill_(math.log(level))
