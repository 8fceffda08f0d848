"""Invertible linear maps across channels: the 1x1 convolution, and the swap."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .bijection import Bijection, promote, zero_log_det

Conv1x1Init = Literal["rotation", "even-odd", "half-swap", "identity"]


def initial_matrix(channels: int, kind: Conv1x1Init) -> Tensor:
    """A (channels, channels) orthogonal matrix for a 1x1 convolution to start from.

    rotation: random orthogonal with determinant +1 (Glow, WaveGlow), from torch's global generator.
    even-odd: even channels first, then the odd ones. half-swap: second half first.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "rotation":
        # Drawn in float64 on the CPU so that the start is the same whatever the default type.
        q, r = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
        q = q * r.diagonal().sign()
        if torch.det(q) < 0:
            q[:, 0] = -q[:, 0]
        return q.to(torch.get_default_dtype())
    index = torch.arange(channels)
    orders = {
        "even-odd": torch.cat([index[0::2], index[1::2]]),
        "half-swap": torch.cat([index[channels // 2 :], index[: channels // 2]]),
        "identity": index,
    }
    if kind not in orders:
        raise ValueError(
            f"unknown start {kind!r} of a 1x1 convolution: choose rotation or one of "
            f"{', '.join(orders)}"
        )
    return torch.eye(channels)[orders[kind]]


class InvertibleConv1x1(Bijection):
    r"""Invertible 1x1 convolution.

    .. math:: z_{:,t} = W x_{:,t}, \qquad \log|\det| = T \log|\det W|

    with T time steps and W of shape (channels, channels). Papers: Glow (Kingma and Dhariwal,
    2018), WaveGlow (Prenger et al., 2019). W may have a negative determinant; a singular W has
    log-determinant -inf and no inverse (`torch.linalg.LinAlgError`).

    The inverse is computed in every pass; `fused` gives a copy that stores it.

    Args:
        channels: number of channels C; the log-determinant costs O(C^3) once per pass.
        init: the orthogonal matrix W starts as, see `initial_matrix`.
    """

    def __init__(self, channels: int, init: Conv1x1Init = "rotation") -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(initial_matrix(channels, init))

    def inverse_matrix(self) -> Tensor:
        """W^-1, (channels, channels), differentiable; in float64 where no gradient flows."""
        weight = self.weight
        if torch.is_grad_enabled() and weight.requires_grad:
            return torch.linalg.inv(weight.to(promote(weight.dtype)))
        # On the CPU float64 costs little, and keeps W W^-1 = 1 to rounding.
        exact = torch.linalg.inv(weight.detach().double().cpu())
        return exact.to(device=weight.device, dtype=promote(weight.dtype))

    def log_abs_det(self) -> Tensor:
        """log |det W| in nats, a scalar in at least float32."""
        return torch.linalg.slogdet(self.weight.to(promote(self.weight.dtype))).logabsdet

    def fused(self) -> FusedConv1x1:
        """The same map with its inverse and log-determinant computed once."""
        return FusedConv1x1(self)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = _mix(self.weight, x)
        return z, zero_log_det(z) + x.shape[-1] * self.log_abs_det()

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return _mix(self.inverse_matrix(), z)


class FusedConv1x1(Bijection):
    """A trained `InvertibleConv1x1` that cannot change any more: W, W^-1 and log |det W| stored.

    In a state dict it looks like the convolution it came from.
    """

    inverse_weight: Tensor
    log_abs_det: Tensor

    def __init__(self, trained: InvertibleConv1x1) -> None:
        super().__init__()
        self.channels = trained.channels
        with torch.no_grad():
            self.weight = nn.Parameter(trained.weight.detach().clone(), requires_grad=False)
            self.register_buffer("inverse_weight", trained.inverse_matrix(), persistent=False)
            self.register_buffer("log_abs_det", trained.log_abs_det(), persistent=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = _mix(self.weight, x)
        return z, zero_log_det(z) + x.shape[-1] * self.log_abs_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return _mix(self.inverse_weight, z)


def _mix(weight: Tensor, x: Tensor) -> Tensor:
    """The matrix times the channels of every step, in at least float32."""
    with torch.autocast(x.device.type, enabled=False):
        weight = weight.to(promote(weight.dtype))
        return torch.matmul(weight, x.to(weight.dtype))


class Swap(Bijection):
    r"""Exchange the halves of the channels: :math:`z = [x_{\lceil C/2 \rceil ..}, x_{..}]`.

    The simplest alternation between couplings (NICE, Dinh et al., 2015). Log-determinant 0. With
    an odd number of channels the longer part comes first after the swap of ``forward`` and last
    before it, so ``inverse`` undoes it exactly.
    """

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        half = x.shape[1] // 2
        return torch.cat([x[:, half:], x[:, :half]], dim=1), zero_log_det(x)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        rest = z.shape[1] - z.shape[1] // 2
        return torch.cat([z[:, rest:], z[:, :rest]], dim=1)
