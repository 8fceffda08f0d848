"""The ConvNeXt block in one dimension: depthwise convolution, then a network at each step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNextBlock(nn.Module):
    r"""A residual block that mixes steps and channels one after the other.

    .. math:: y = x + \gamma \odot W_2 \operatorname{GELU}(W_1 \operatorname{LN}(D * x))

    D is a depthwise convolution, LN normalises the channels of each step, W_1 widens them, and
    gamma is a learnt scale of each channel. Sequence length is kept (zero padding at the ends).
    Shapes: (batch, channels, time) to the same. Papers: ConvNeXt (Liu et al., 2022); Vocos
    (Siuzdak, 2023) uses it in one dimension.

    Args:
        channels: width.
        kernel_size: taps of D, odd.
        expansion: width between W_1 and W_2, in units of `channels`.
        scale: what gamma starts as; Vocos takes one over the number of blocks.
    """

    def __init__(
        self, channels: int, kernel_size: int = 7, expansion: int = 3, scale: float = 1.0
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}: it must be odd to keep the length")
        self.depthwise = nn.Conv1d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels
        )
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, expansion * channels)
        self.activation = nn.GELU()
        self.narrow = nn.Linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.depthwise(x).transpose(1, 2)  # (batch, time, channels)
        hidden = self.narrow(self.activation(self.widen(self.norm(hidden))))
        return x + (self.scale * hidden).transpose(1, 2)
