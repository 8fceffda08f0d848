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
        self.channels = channels
        self.n_layers = n_layers
        if look_ahead is not None and look_ahead < 0:
            raise ValueError(f"look_ahead is {look_ahead}: it must be 0 or more")
        halves = [(kernel_size // 2) * 2**layer for layer in range(n_layers)]
        # Zeros that each layer puts before and after its input.
        self.padding: list[tuple[int, int]] = []
        for half in halves:
            after = half
            if look_ahead is not None:
                after = min(half, look_ahead - sum(right for _, right in self.padding))
            self.padding.append((2 * half - after, after))
        # Steps before and after a step that its output depends on.
        self.reach = sum(left for left, _ in self.padding)
        self.look_ahead = sum(right for _, right in self.padding)

        def conv(n_in: int, n_out: int, kernel: int = 1, layer_index: int = 0) -> nn.Conv1d:
            left, right = self.padding[layer_index] if kernel > 1 else (0, 0)
            # Where the two sides differ, `forward` pads.
            padding, dilation = left if left == right else 0, 2**layer_index
            layer = nn.Conv1d(n_in, n_out, kernel, padding=padding, dilation=dilation)
            if weight_norm:
                parametrizations.weight_norm(layer)
            return layer

        self.start = conv(in_channels, channels)
        # One convolution serves the condition of all layers: computed once a pass.
        self.condition = (
            conv(condition_channels, 2 * channels * n_layers) if condition_channels else None
        )
        self.dilated = nn.ModuleList(
            conv(channels, 2 * channels, kernel_size, layer) for layer in range(n_layers)
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

    def forward(
        self, x: Tensor, condition: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The output (batch, out_channels, time).

        Args:
            x, condition: see the class.
            mask: (batch, 1, time), 1 where x holds values and 0 where it is padding. The stack then
                sees the zeros that follow the end of any sequence, so padding changes nothing.
        """
        # On a CPU, PyTorch's convolutions of short sequences take a third longer, forwards and
        # backwards, than matrix products over contiguous channels.
        products = self.training and x.device.type == "cpu" and mask is None
        convolve, channels = (_by_product, -1) if products else (_padded, 1)
        if products:
            x = x.transpose(1, 2)
            condition = None if condition is None else condition.transpose(1, 2)
        hidden = convolve(self.start, x)
        conditions: Sequence[Tensor | float] = [0.0] * self.n_layers
        if self.condition is not None:
            assert condition is not None
            conditions = convolve(self.condition, condition).chunk(self.n_layers, dim=channels)
        skip = torch.zeros_like(hidden)
        for layer in range(self.n_layers):
            if mask is not None:
                hidden = hidden * mask.to(hidden.dtype)
            dilated = convolve(self.dilated[layer], hidden, self.padding[layer])
            a, b = (dilated + conditions[layer]).chunk(2, dim=channels)
            out = convolve(self.residual_skip[layer], torch.tanh(a) * torch.sigmoid(b))
            if layer < self.n_layers - 1:
                residual, out = out.chunk(2, dim=channels)
                hidden = hidden + residual
            skip = skip + out
        result = convolve(self.end, skip)
        if products:
            return result.transpose(1, 2)
        return result if mask is None else result * mask.to(result.dtype)


def _padded(layer: nn.Module, x: Tensor, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """A layer's output, (batch, channels, time); it pads here only if the two sides differ."""
    left, right = padding
    result: Tensor = layer(x if left == right else F.pad(x, padding))
    return result


def _by_product(layer: nn.Module, x: Tensor, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """The same for (batch, time, channels), as one product of gathered taps and weights."""
    assert isinstance(layer, nn.Conv1d)
    (dilation,), (kernel_size,), steps = layer.dilation, layer.kernel_size, x.shape[1]
    if kernel_size > 1:
        x = F.pad(x, (0, 0, *padding))
        x = torch.cat([x[:, i * dilation :][:, :steps] for i in range(kernel_size)], dim=-1)
    weight = layer.weight.transpose(1, 2).flatten(1)  # (out, taps * in)
    return F.linear(x, weight, layer.bias)
