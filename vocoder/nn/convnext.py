"""Blocks of a convolutional network over frames or symbols, channels last."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNeXtBlock(nn.Module):
    r"""A depthwise convolution over time, then a two-layer network on every frame; residual.

    .. math:: x + \gamma\, W_2\, \mathrm{gelu}(W_1\, \mathrm{norm}(k * x) + b_1) + b_2

    Shape (batch, time, channels) in and out. Where ``mask`` (batch, time, 1) is 0, there is
    padding: zeros in and zeros out. Paper: ConvNeXt (Liu et al., 2022); over frames of a mel as in
    Vocos (Siuzdak, 2023).

    Args:
        channels: width.
        kernel_size: odd number of taps.
        expansion: width of the hidden layer over that of the block.
    """

    def __init__(self, channels: int, kernel_size: int = 7, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels
        )
        self.norm = nn.LayerNorm(channels)
        # 1x1 convolutions, written as products: faster on CPUs, above all in bfloat16.
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)
        self.gain = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        y = self.project(F.gelu(self.expand(self.norm(y)), approximate="tanh"))
        x = x + self.gain * y
        return x if mask is None else x * mask
