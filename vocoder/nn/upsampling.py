"""From the mel frame rate to the rate at which a model works."""

from __future__ import annotations

from torch import Tensor, nn


class TransposedUpsampling(nn.Module):
    """One transposed convolution from mel frames to samples, cropped to frames * hop.

    (batch, channels, frames) -> (batch, channels, frames * hop). The frames' responses are
    ``kernel_size`` samples long and overlap; what reaches beyond the last block is cut off.
    This is WaveGlow's upsampling (kernel = STFT window, stride = hop).
    """

    def __init__(self, channels: int, kernel_size: int, hop: int) -> None:
        super().__init__()
        if kernel_size < hop:
            raise ValueError(f"kernel_size {kernel_size} leaves gaps between frames {hop} apart")
        self.hop = hop
        self.conv = nn.ConvTranspose1d(channels, channels, kernel_size, stride=hop)

    def forward(self, frames: Tensor) -> Tensor:
        result: Tensor = self.conv(frames)[..., : frames.shape[-1] * self.hop]
        return result
