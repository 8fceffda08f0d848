"""A small transformer over a sequence of symbols, with rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def rotate(x: Tensor) -> Tensor:
    r"""Rotary position embedding: turn pair k of channels by :math:`n\theta_k` at position n.

    .. math:: \theta_k = 10000^{-2k/D}, \qquad k = 0 .. D/2 - 1,

    where pair k is channels k and k + D/2. The scalar product of two rotated vectors depends on
    their distance alone. Paper: RoFormer (Su et al., 2021).

    Args:
        x: (..., time, D), D even.
    """
    time, size = x.shape[-2:]
    k = torch.arange(size // 2, device=x.device, dtype=torch.float32)
    n = torch.arange(time, device=x.device, dtype=torch.float32)
    angle = torch.outer(n, 10000 ** (-2 * k / size))
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class TransformerLayer(nn.Module):
    """Self-attention, then two convolutions, each after a layer norm and added to its input.

    (batch, time, channels) -> the same. Convolutions instead of the usual pointwise network let a
    symbol see its neighbours directly, as in FastSpeech (Ren et al., 2019).

    Args:
        channels: width, a multiple of twice `n_heads`.
        n_heads: heads of the attention.
        kernel_size: taps of the convolutions, odd.
        dropout: probability with which values are dropped in training.
    """

    def __init__(self, channels: int, n_heads: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        if channels % (2 * n_heads):
            raise ValueError(
                f"{channels} channels do not split into {n_heads} heads of an even width"
            )
        self.n_heads = n_heads
        self.attention_norm = nn.LayerNorm(channels)
        self.queries_keys_values = nn.Linear(channels, 3 * channels)
        self.attention_out = nn.Linear(channels, channels)
        self.conv_norm = nn.LayerNorm(channels)
        self.conv_in = nn.Conv1d(channels, 2 * channels, kernel_size, padding=kernel_size // 2)
        self.conv_out = nn.Conv1d(2 * channels, channels, kernel_size, padding=kernel_size // 2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``mask``: (batch, time), true where x holds symbols, false where it is padding."""
        batch, time, channels = x.shape
        projected = self.queries_keys_values(self.attention_norm(x))
        # (batch, time, 3 * channels) -> three of (batch, heads, time, channels / heads)
        q, k, v = projected.reshape(batch, time, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(
            rotate(q), rotate(k), v, attn_mask=mask[:, None, None, :]
        )
        seen = seen.transpose(1, 2).reshape(batch, time, channels)
        x = x + self.dropout(self.attention_out(seen))
        keep = mask.unsqueeze(1)
        hidden = self.conv_norm(x).transpose(1, 2) * keep
        hidden = self.dropout(F.relu(self.conv_in(hidden))) * keep
        return x + self.dropout(self.conv_out(hidden).transpose(1, 2))


class SequenceEncoder(nn.Module):
    """Convolutions that see the neighbourhood, then transformer layers that see everything.

    (batch, time, channels) -> the same, layer-normalised. Padding changes nothing; ignore the
    output there.

    Args:
        channels: width.
        n_layers: transformer layers.
        n_heads: heads of each attention.
        n_convolutions: residual convolutions of five taps before the transformer.
        kernel_size: taps of the convolutions in the transformer, odd.
        dropout: probability with which values are dropped in training.
    """

    def __init__(
        self,
        channels: int,
        n_layers: int = 4,
        n_heads: int = 2,
        n_convolutions: int = 2,
        kernel_size: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(n_convolutions))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, channels, 5, padding=2) for _ in range(n_convolutions)
        )
        self.layers = nn.ModuleList(
            TransformerLayer(channels, n_heads, kernel_size, dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``mask``: (batch, time), true where x holds symbols, false where it is padding."""
        keep = mask.unsqueeze(1)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            hidden = norm(x).transpose(1, 2) * keep
            x = x + self.dropout(F.relu(convolution(hidden))).transpose(1, 2)
        for layer in self.layers:
            x = layer(x, mask)
        result: Tensor = self.norm(x)
        return result


__all__ = ["SequenceEncoder", "TransformerLayer", "rotate"]
