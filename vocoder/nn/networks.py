"""Convolution stacks, gated and ConvNeXt, and weight normalisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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

    where h starts as a 1x1 convolution of the input and the output is one of the summed skips y,
    initialised with zeros. Shapes: (batch, channels, time) each. Papers: WaveNet (van den Oord et
    al., 2016), WaveGlow (Prenger et al., 2019).

    Args:
        in_channels, out_channels, condition_channels: widths of input, output and condition (or 0).
        channels, n_layers, kernel_size: hidden width, gated layers, and their taps, odd.
        weight_norm: train with weight normalisation.
        look_ahead: steps after a step on which its output may depend; None for as many as before.
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
        self.padding: list[tuple[int, int]] = []  # before and after the input of each layer
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
        width = 2 * channels * n_layers  # of the condition of all layers
        self.condition = conv(condition_channels, width) if condition_channels else None
        self.dilated = nn.ModuleList(
            conv(channels, 2 * channels, kernel_size, 2**layer) for layer in range(n_layers)
        )
        # The residual of the last layer would go nowhere, so that layer has a skip only.
        self.residual_skip = nn.ModuleList(
            conv(channels, channels if layer == n_layers - 1 else 2 * channels)
            for layer in range(n_layers)
        )
        # Without weight normalisation, which cannot hold a zero-initialised layer.
        self.end = nn.Conv1d(channels, out_channels, 1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        hidden = convolve(self.start, x.transpose(1, 2))  # (batch, time, channels)
        conditions: Iterable[Tensor | float] = [0.0] * len(self.padding)
        if self.condition is not None and condition is not None:
            product = convolve(self.condition, condition.transpose(1, 2))
            conditions = product.chunk(len(self.padding), dim=2)
        skip = gated_layers(hidden, self.dilated, self.residual_skip, self.padding, conditions)
        # Contiguous, since what couplings do with it is several times faster then.
        return convolve(self.end, skip).transpose(1, 2).contiguous()


def gated_layers(
    hidden: Tensor,
    dilated: Iterable[nn.Module],
    residual_skip: nn.ModuleList,
    padding: Iterable[tuple[int, int]],
    conditions: Iterable[Tensor | float],
) -> Tensor:
    """The summed skips of gated layers, (batch, time, channels); the last has no residual."""
    skip = torch.zeros_like(hidden)
    for first, second, around, own in zip(dilated, residual_skip, padding, conditions, strict=True):
        a, b = (convolve(first, hidden, around) + own).chunk(2, 2)
        # tanh(a) as 2 sigmoid(2a) - 1, which is faster on a CPU.
        out = convolve(second, (2 * torch.sigmoid(2 * a) - 1) * torch.sigmoid(b))
        if second is not residual_skip[-1]:
            residual, out = out.chunk(2, dim=2)
            hidden = hidden + residual
        skip = skip + out
    return skip


def convolve(layer: nn.Module, x: Tensor, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """A convolution of x, (batch, time, channels), as a product: on a CPU a third faster."""
    assert isinstance(layer, nn.Conv1d)
    (dilation,), (kernel_size,), steps = layer.dilation, layer.kernel_size, x.shape[1]
    if kernel_size > 1:
        x = F.pad(x, (0, 0, *padding))
        x = torch.cat([x[:, i * dilation :][:, :steps] for i in range(kernel_size)], dim=2)
    return F.linear(x, layer.weight.transpose(1, 2).flatten(1), layer.bias)


class ConvNeXtBlock(nn.Module):
    r"""A depthwise convolution over time, then a two-layer network on every frame; residual.

    .. math:: x + \gamma\, W_2\, \mathrm{gelu}(W_1\, \mathrm{norm}(k * x) + b_1) + b_2

    Shape (batch, time, channels) in and out; zeros out where ``mask`` (batch, time, 1) is 0.
    ``kernel_size`` is odd, ``expansion`` the width of the hidden layer over that of the block.
    Papers: ConvNeXt (Liu et al., 2022); Vocos (Siuzdak, 2023).
    """

    def __init__(self, channels: int, kernel_size: int = 7, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels
        )
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)
        self.gain = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        y = self.project(F.gelu(self.expand(self.norm(y)), approximate="tanh"))
        x = x + self.gain * y
        return x if mask is None else x * mask


def fuse_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""A state dict with weight-normalised pairs replaced by weights :math:`g v / \lVert v \rVert`.

    The norm is over all axes but the first; ValueError if half of a pair is missing. Paper:
    Salimans and Kingma, 2016.
    """
    result = dict(state)
    # Gain and direction as torch names them: its first weight_norm, and the present one.
    present = "parametrizations.weight.original"
    for gain_name, direction_name in ("weight_g", "weight_v"), (f"{present}0", f"{present}1"):
        for name in [n for n in result if n.endswith("." + gain_name)]:
            stem = name[: -len(gain_name)]
            if stem + direction_name not in result:
                raise ValueError(f"{name} is there and {stem}{direction_name} is not")
            gain, direction = result.pop(name), result.pop(stem + direction_name)
            norm = direction.flatten(1).norm(dim=1).reshape(gain.shape)
            result[stem + "weight"] = gain * direction / norm
    return result
