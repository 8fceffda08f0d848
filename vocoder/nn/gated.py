"""The gated, dilated convolution stack of WaveNet, as flows use it: conditioned and not causal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class GatedConvStack(nn.Module):
    r"""WaveNet's residual stack without causality ("WN" in WaveGlow).

    With h the hidden channels of layer l, dilation :math:`2^l` and condition c,

    .. math::
        a, b &= W_l *_{2^l} h + V_l c \\
        r, k &= R_l (\tanh a \odot \sigma(b)) \\
        h &\leftarrow h + r, \qquad y \leftarrow y + k,

    where h starts as a 1x1 convolution of the input and the output is a 1x1 convolution of the
    summed skips y, initialised with zeros, so that a coupling built on it starts as the identity.
    Sequence length is kept (zero padding at the ends). Shapes: x (batch, in_channels, time),
    condition (batch, condition_channels, time), result (batch, out_channels, time). Papers:
    WaveNet (van den Oord et al., 2016), WaveGlow (Prenger et al., 2019).

    Args:
        in_channels, out_channels, condition_channels: widths of input, output and condition;
            with 0 condition channels there is no V_l, and the stack takes no condition.
        channels: hidden width h.
        n_layers: number of gated layers; dilation doubles from 1.
        kernel_size: taps of each dilated convolution, odd.
        weight_norm: train with weight normalisation (Salimans and Kingma, 2016). Turn it off for
            weights that come with the norm already fused.
        look_ahead: steps after a step on which its output may depend, of the input and of the
            condition together; the first layers use them up, and the taps of the others move to the
            past (0: causal). None for as many after as before.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition_channels: int,
        channels: int = 256,
        n_layers: int = 8,
        kernel_size: int = 3,
        weight_norm: bool = True,
        look_ahead: int | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}: it must be odd to keep the length")
        if n_layers < 1:
            raise ValueError(f"n_layers is {n_layers}: the stack needs at least one layer")
        if look_ahead is not None and look_ahead < 0:
            raise ValueError(f"look_ahead is {look_ahead}: it must be 0 or more")
        self.padding: list[tuple[int, int]] = []
        """Zeros that each layer puts before and after its input."""
        for layer in range(n_layers):
            half = after = (kernel_size // 2) * 2**layer
            if look_ahead is not None:
                after = min(half, look_ahead - sum(right for _, right in self.padding))
            self.padding.append((2 * half - after, after))
        # Steps before and after a step that its output depends on.
        self.reach = sum(left for left, _ in self.padding)
        self.look_ahead = sum(right for _, right in self.padding)

        def conv(n_in: int, n_out: int, kernel: int = 1, dilation: int = 1) -> nn.Conv1d:
            layer = nn.Conv1d(n_in, n_out, kernel, dilation=dilation)
            if weight_norm:
                parametrizations.weight_norm(layer)
            return layer

        self.start = conv(in_channels, channels)
        # One convolution serves the condition of all layers: computed once a pass.
        self.condition = (
            conv(condition_channels, 2 * channels * n_layers) if condition_channels else None
        )
        self.dilated = nn.ModuleList(
            conv(channels, 2 * channels, kernel_size, 2**layer) for layer in range(n_layers)
        )
        # The residual of the last layer would go nowhere, so that layer has a skip only.
        self.residual_skip = nn.ModuleList(
            conv(channels, channels if layer == n_layers - 1 else 2 * channels)
            for layer in range(n_layers)
        )
        # Weight normalisation cannot hold a zero-initialised layer, so this one has none.
        self.end = nn.Conv1d(channels, out_channels, 1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        hidden = _convolve(self.start, x.transpose(1, 2))  # (batch, time, channels)
        conditions: Sequence[Tensor | float] = [0.0] * len(self.padding)
        if self.condition is not None and condition is not None:
            product = _convolve(self.condition, condition.transpose(1, 2))
            conditions = product.chunk(len(self.padding), dim=2)
        skip = torch.zeros_like(hidden)
        layers = zip(self.dilated, self.residual_skip, self.padding, conditions, strict=True)
        for dilated, residual_skip, padding, own in layers:
            a, b = (_convolve(dilated, hidden, padding) + own).chunk(2, 2)
            # tanh(a) as 2 sigmoid(2a) - 1, which is faster on a CPU.
            out = _convolve(residual_skip, (2 * torch.sigmoid(2 * a) - 1) * torch.sigmoid(b))
            if residual_skip is not self.residual_skip[-1]:
                residual, out = out.chunk(2, dim=2)
                hidden = hidden + residual
            skip = skip + out
        # Contiguous, since what couplings do with it is several times faster then.
        return _convolve(self.end, skip).transpose(1, 2).contiguous()


def _convolve(layer: nn.Module, x: Tensor, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """A convolution of x, (batch, time, channels), as one product of gathered taps and weights.

    On a CPU, PyTorch's own convolutions of short sequences take a third longer.
    """
    assert isinstance(layer, nn.Conv1d)
    (dilation,), (kernel_size,), steps = layer.dilation, layer.kernel_size, x.shape[1]
    if kernel_size > 1:
        x = F.pad(x, (0, 0, *padding))
        x = torch.cat([x[:, i * dilation :][:, :steps] for i in range(kernel_size)], dim=2)
    return F.linear(x, layer.weight.transpose(1, 2).flatten(1), layer.bias)
