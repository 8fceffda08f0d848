"""From the mel frame rate to the rate at which a model works."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TransposedUpsampling(nn.Module):
    """One transposed convolution from mel frames to samples, cropped to frames * hop.

    (batch, channels, frames) -> (batch, channels, frames * hop). The frames' responses are
    ``kernel_size`` samples long and overlap; what extends past the last block is cut off.
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


class LinearUpsampling(nn.Module):
    """Linear interpolation between the middles of frames, without parameters.

    (batch, channels, frames + 2) -> (batch, channels, frames * hop): the first and the last frame
    are neighbours that the frames between them need. Sample j of a frame of ``hop`` samples lies
    at p = (j + 1/2) / hop - 1/2 of the way from the middle of its frame to that of the next, or,
    where p is negative, |p| of the way to that of the one before.
    """

    weights: Tensor

    def __init__(self, hop: int) -> None:
        super().__init__()
        self.hop = hop
        p = (torch.arange(hop, dtype=torch.float64) + 0.5) / hop - 0.5
        weights = torch.stack([(-p).clamp_min(0), 1 - p.abs(), p.clamp_min(0)])
        # (before, own, after) x hop. It follows from the sizes, so no checkpoint holds it.
        self.register_buffer("weights", weights.to(torch.get_default_dtype()), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        neighbours = frames.unfold(-1, 3, 1)  # (batch, channels, frames, 3)
        return torch.matmul(neighbours, self.weights.to(frames.dtype)).flatten(-2)
