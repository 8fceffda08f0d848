"""Invertible linear maps across channels: the 1x1 convolution in two forms, and the swap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bijection import Bijection, promote, zero_log_det

Mixing = Literal["rotation", "permutation", "even-odd", "half-swap", "identity"]


def mixing_matrix(channels: int, kind: Mixing) -> Tensor:
    """A (channels, channels) orthogonal matrix for a 1x1 convolution to start from.

    rotation: random orthogonal with determinant +1 (Glow, WaveGlow). permutation: random.
    even-odd: even channels first, then the odd ones. half-swap: second half first. Random kinds
    draw from torch's global generator.
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
        "permutation": torch.randperm(channels) if kind == "permutation" else index,
        "even-odd": torch.cat([index[0::2], index[1::2]]),
        "half-swap": torch.cat([index[channels // 2 :], index[: channels // 2]]),
        "identity": index,
    }
    if kind not in orders:
        raise ValueError(f"unknown mixing {kind!r}: choose rotation or one of {', '.join(orders)}")
    return torch.eye(channels)[orders[kind]]


def values_key(parameters: Iterable[nn.Parameter]) -> tuple[object, ...]:
    """Changes when a parameter may have: what is computed from them is good while it is equal.

    An optimiser or load_state_dict writes in place, which raises the version counter; .to() and
    .data = swap the storage, which changes the pointer. Writes through .data go unnoticed.
    """
    return tuple(
        # Tensors made in inference mode count no versions, and cannot be written to outside of it.
        (0 if p.is_inference() else p._version, p.data_ptr(), p.dtype, p.device)
        for p in parameters
    )


class ChannelMixing(Bijection):
    """What both forms of the 1x1 convolution share: apply W, apply a cached inverse of W.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self._inverse: Tensor | None = None
        self._inverse_key: tuple[object, ...] = ()

    def matrix(self) -> Tensor:
        """W, (channels, channels), differentiable in the parameters."""
        raise NotImplementedError

    def log_abs_det(self) -> Tensor:
        """log |det W| in nats, a scalar in at least float32."""
        raise NotImplementedError

    def inverse_matrix(self) -> Tensor:
        """W^-1, (channels, channels); cached until a parameter changes.

        While gradients flow it is computed anew, since a cached one would be cut off from them.
        """
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
            weight = self.matrix()
            return torch.linalg.inv(weight.to(promote(weight.dtype)))
        key = values_key(self.parameters())
        if self._inverse is None or key != self._inverse_key:
            # Else what is made in inference mode could not take part in gradients later.
            with torch.inference_mode(False), torch.no_grad():
                weight = self.matrix()
                # Once per weight, so float64 costs nothing and keeps W W^-1 = 1 to rounding.
                exact = torch.linalg.inv(weight.double().cpu())
                self._inverse = exact.to(device=weight.device, dtype=promote(weight.dtype))
            self._inverse_key = key
        return self._inverse

    def train(self, mode: bool = True) -> Any:
        # Writes through .data escape the version counter; a change of mode is when they happen.
        self._inverse = None
        return super().train(mode)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            weight = self.matrix()
            weight = weight.to(promote(weight.dtype))
            z = F.conv1d(x.to(weight.dtype), weight.unsqueeze(-1))
            log_det = x.shape[-1] * self.log_abs_det()
        return z, zero_log_det(z) + log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            weight = self.inverse_matrix()
            return F.conv1d(z.to(weight.dtype), weight.unsqueeze(-1))


class InvertibleConv1x1(ChannelMixing):
    r"""Full-matrix invertible 1x1 convolution.

    .. math:: z_{:,t} = W x_{:,t}, \qquad \log|\det| = T \log|\det W|

    with T time steps and W of shape (channels, channels). Papers: Glow (Kingma and Dhariwal,
    2018), WaveGlow (Prenger et al., 2019). W may have a negative determinant; a singular W has
    log-determinant -inf and no inverse (`torch.linalg.LinAlgError`).

    Args:
        channels: number of channels C; the log-determinant costs O(C^3) once per pass.
        mixing: the orthogonal matrix W starts as, see `mixing_matrix`.
    """

    def __init__(self, channels: int, mixing: Mixing = "rotation") -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(mixing_matrix(channels, mixing))

    def matrix(self) -> Tensor:
        return self.weight

    def log_abs_det(self) -> Tensor:
        return torch.linalg.slogdet(self.weight.to(promote(self.weight.dtype))).logabsdet


class PLUConv1x1(ChannelMixing):
    r"""Invertible 1x1 convolution kept in its PLU factors, as Glow proposes.

    .. math:: W = P L (U + \operatorname{diag}(\sigma e^{s})), \qquad
              \log|\det| = T \textstyle\sum_i s_i

    P: fixed permutation; L: lower triangular with unit diagonal; U: strictly upper triangular;
    sigma: fixed signs; s: log-magnitudes of the diagonal. The determinant costs O(C) and W can
    never become singular. Paper: Glow (Kingma and Dhariwal, 2018), equation 10.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int, mixing: Mixing = "rotation") -> None:
        super().__init__(channels)
        permutation, lower, upper = torch.linalg.lu(mixing_matrix(channels, mixing).double())
        diagonal = upper.diagonal()
        dtype = torch.get_default_dtype()
        self.register_buffer("permutation", permutation.to(dtype))
        self.register_buffer("sign", diagonal.sign().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.log_diagonal = nn.Parameter(diagonal.abs().log().to(dtype))

    def matrix(self) -> Tensor:
        identity = torch.eye(self.channels, device=self.lower.device, dtype=self.lower.dtype)
        lower = self.lower.tril(-1) + identity
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())
        return self.permutation @ lower @ upper

    def log_abs_det(self) -> Tensor:
        return self.log_diagonal.to(promote(self.log_diagonal.dtype)).sum()


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
