"""Normalisation as a bijection: ActNorm and batch normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .bijection import Bijection, promote, zero_log_det


class ActNorm(Bijection):
    r"""Per-channel affine map that starts by normalising the first batch.

    .. math:: z_{c,t} = e^{s_c} x_{c,t} + b_c, \qquad \log|\det| = T \textstyle\sum_c s_c

    On the first call of ``forward`` in training mode s and b are set so that each channel of z has
    zero mean and unit variance over batch and time; from then on they are ordinary parameters.
    Paper: Glow (Kingma and Dhariwal, 2018), section 3.1.
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1))
        # A buffer, so that a resumed or loaded model is not initialised a second time.
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        flat = x.transpose(0, 1).flatten(1).to(self.shift.dtype)
        # A channel that is constant in the first batch has no scale to learn from it.
        std = flat.std(dim=1, correction=0, keepdim=True).clamp_min(1e-6)
        self.log_scale.copy_(-std.log())
        self.shift.copy_(-flat.mean(dim=1, keepdim=True) / std)
        self.initialized.fill_(True)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training and not self.initialized:
            self._initialize(x)
        z = self.log_scale.exp() * x + self.shift
        log_scale = self.log_scale.to(promote(self.log_scale.dtype))
        return z, zero_log_det(z) + x.shape[-1] * log_scale.sum()

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return (z - self.shift) * (-self.log_scale).exp()


class BatchNorm(Bijection):
    r"""Batch normalisation with its log-determinant.

    .. math:: z_{c,t} = (x_{c,t} - \mu_c) / \sqrt{v_c + \epsilon}, \qquad
              \log|\det| = -\tfrac{T}{2} \textstyle\sum_c \log(v_c + \epsilon)

    In training mode mean and variance are those of the batch (and are taken as constants in the
    log-determinant, as in the paper), and running averages are kept; in evaluation mode, and for
    ``inverse`` in either mode, the running averages are used. Exact inversion therefore holds in
    evaluation mode. Paper: Real NVP (Dinh et al., 2017), section 3.7 and appendix E.

    Args:
        channels: number of channels.
        momentum: weight of the newest batch in the running averages, in (0, 1].
        eps: added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum is {momentum}: it must lie in (0, 1]")
        self.momentum = momentum
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(channels, 1))
        self.register_buffer("running_var", torch.ones(channels, 1))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training:
            mean = x.mean(dim=(0, 2)).unsqueeze(1)
            variance = x.var(dim=(0, 2), correction=0).unsqueeze(1)
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)
        else:
            mean, variance = self.running_mean, self.running_var
        variance = variance.to(promote(variance.dtype)) + self.eps
        log_det = -0.5 * x.shape[-1] * variance.log().sum()
        z = (x - mean) * variance.rsqrt()
        return z, zero_log_det(z) + log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z * (self.running_var + self.eps).sqrt() + self.running_mean
