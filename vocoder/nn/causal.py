"""WaveNet's stack: causal, gated, dilated, conditioned on frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .upsampling import LinearUpsampling


class CausalGatedStack(nn.Module):
    r"""WaveNet's residual stack: output t sees inputs up to t and the condition of its frames.

    With h the hidden channels of layer l, dilation :math:`d_l = 2^{l \bmod cycle}`, K taps and
    condition c at time t,

    .. math::
        a, b &= \sum_{k=0}^{K-1} W_{l,k} h_{t - k d_l} + V_l c_t \\
        r, y_l &= R_l (\tanh a \odot \sigma(b)) \\
        h &\leftarrow h + r

    and the output is two 1x1 convolutions, each behind a ReLU, of :math:`\sum_l y_l / \sqrt{L}`.
    Before the first input everything is zero, hidden channels included. V_l is applied to frames
    and the result is interpolated in time, which is the same at a fraction of the cost, since
    interpolation is linear. Paper: WaveNet (van den Oord et al., 2016).

    Args:
        condition_channels: channels of the condition.
        out_channels: channels of the result.
        hop: samples per frame of the condition.
        channels: C, width of hidden channels and skips.
        n_layers: L.
        cycle: layers after which dilations start again at 1.
        kernel_size: K, taps of each dilated convolution, at least 2.
        in_channels: channels of the input.
    """

    def __init__(
        self,
        condition_channels: int,
        out_channels: int,
        hop: int,
        channels: int = 128,
        n_layers: int = 30,
        cycle: int = 10,
        kernel_size: int = 3,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        if min(n_layers, cycle) < 1:
            raise ValueError(
                f"n_layers is {n_layers} and cycle {cycle}: both must be at least one layer"
            )
        if kernel_size < 2:
            raise ValueError(f"kernel_size is {kernel_size}: a causal stack needs two taps or more")
        self.channels = channels
        self.n_layers = n_layers
        self.kernel_size = kernel_size
        self.dilations = [2 ** (layer % cycle) for layer in range(n_layers)]
        self.receptive_field = (kernel_size - 1) * sum(self.dilations) + 1
        self.upsampling = LinearUpsampling(hop)
        self.start = nn.Conv1d(in_channels, channels, 1)
        # One convolution serves the condition of all layers, and is their bias.
        self.condition = nn.Conv1d(condition_channels, 2 * channels * n_layers, 1)
        self.dilated = nn.ModuleList(
            nn.Conv1d(channels, 2 * channels, kernel_size, dilation=dilation, bias=False)
            for dilation in self.dilations
        )
        # The residual of the last layer would go nowhere, so that layer has a skip only.
        self.residual_skip = nn.ModuleList(
            nn.Conv1d(channels, channels if layer == n_layers - 1 else 2 * channels, 1)
            for layer in range(n_layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv1d(channels, channels, 1), nn.ReLU(),
            nn.Conv1d(channels, out_channels, 1),
        )  # fmt: skip

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """One pass over all times.

        Args:
            x: (batch, in_channels, time).
            condition: (batch, condition_channels, frames + 2), the frames of x with one more on
                each side; time is at most frames * hop.

        Returns:
            (batch, out_channels, time).
        """
        hidden = self.start(x)
        conditions = self.condition(condition).chunk(self.n_layers, dim=1)
        skip: Tensor | None = None
        for layer, dilation in enumerate(self.dilations):
            padded = nn.functional.pad(hidden, ((self.kernel_size - 1) * dilation, 0))
            c = self.upsampling(conditions[layer])[..., : x.shape[-1]]
            a, b = (self.dilated[layer](padded) + c).chunk(2, dim=1)
            out = self.residual_skip[layer](torch.tanh(a) * torch.sigmoid(b))
            if layer < self.n_layers - 1:
                residual, out = out.chunk(2, dim=1)
                hidden = hidden + residual
            skip = out if skip is None else skip + out
        assert skip is not None
        result: Tensor = self.head(skip / math.sqrt(self.n_layers))
        return result
