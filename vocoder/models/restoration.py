"""The restoring flow: from mels that no audio has to mels of speech, before the vocoder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec
from vocoder.flows import (
    AffineCoupling,
    Bijection,
    Chain,
    ConditionalScale,
    InvertibleConv1x1,
    Squeeze,
    log_density,
)
from vocoder.nn import ConvNeXtBlock

from .base import Noise, SavedModel
from .card import RESTORATION
from .streaming import in_windows

T = TypeVar("T")

PAIR = 2
"""Frames that the flow handles as one step."""

GATE_FRAMES, GATE_NATS = 16, (0.04, 0.08)
"""Frames on either side, and the changes between which the gate of `Restoration.restore` opens."""


class Restoration(SavedModel):
    r"""A normalizing flow over log-mels x, given a degraded mel y of the same speech.

    .. math:: h = H(y), \qquad \mu = y + W h, \qquad
        \log p(x \mid y) = \log \mathcal N\bigl(f(x - \mu; h);\ 0, I\bigr)
        + \log |\det \partial f / \partial x|

    All of it sees a pair of frames as one step of 2 n_mels channels. H is a stack of
    `ConvNeXtBlock`, and its mean :math:`\mu` alone is a regression. f is a scale set by h, then
    ``n_flows`` times an invertible 1x1 convolution and an affine coupling conditioned on h.
    Acoustic models predict means, whose mels are smoother than those of speech, or make errors
    that no audio has; the flow draws what fits.

    It sees how degraded a mel is: mels of recordings stay nearly as they are.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        channels, n_blocks, kernel_size, expansion: of H.
        n_flows: couplings, 1 or more.
        coupling_channels: width of the network in each.
        log_scale_bound: of the couplings, see `AffineCoupling`.
    """

    architecture = "restoration"
    title = "restoring flow"
    card = RESTORATION
    default_temperature = 0.0

    def __init__(
        self,
        mel_spec: MelSpec | str = "ljspeech",
        channels: int = 192,
        n_blocks: int = 6,
        kernel_size: int = 5,
        expansion: int = 2,
        n_flows: int = 4,
        coupling_channels: int = 96,
        log_scale_bound: float = 2.0,
    ) -> None:
        super().__init__(mel_spec)
        width = PAIR * self.mel_spec.n_mels
        self.squeeze = Squeeze(PAIR)
        self.first = nn.Linear(width, channels)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(channels, kernel_size, expansion) for _ in range(n_blocks)
        )
        self.norm = nn.LayerNorm(channels)
        self.change = nn.Linear(channels, width)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)
        scale = _Pointwise(channels, width)
        nn.init.constant_(scale.layer.bias, 1.5)
        pieces: list[Bijection] = [ConditionalScale(scale)]
        undo = torch.eye(width)
        for k in range(n_flows):
            mixing = InvertibleConv1x1(width, "even-odd" if k % 2 else "half-swap")
            undo = undo @ mixing.weight.detach().T
            conditioner = _Conditioner(width // 2, channels, coupling_channels)
            pieces += [mixing, AffineCoupling(conditioner, log_scale_bound=log_scale_bound)]
        last = InvertibleConv1x1(width, "identity")
        last.weight.data.copy_(undo)  # so that the flow starts as the scale alone
        self.flow = Chain([*pieces, last])
        # In a coupling a pair sees 2 others on either side.
        own = PAIR * n_blocks * (kernel_size // 2)
        self.context_frames = own + max(2 * PAIR * n_flows, GATE_FRAMES)
        """Frames before and after a frame on which its restoration depends; even."""

    def fused(self) -> Restoration:
        """The same function with the 1x1 convolutions inverted once; frozen, for inference."""
        return self._frozen_copy()

    @property
    def look_ahead(self) -> int:
        """Frames by which `stream` lags its input."""
        return self.context_frames + PAIR - 1

    def read(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """What H sees in a degraded mel (batch, n_mels, frames), and the mean that it predicts.

        The last frame of an odd number counts twice.

        Returns:
            h, (batch, channels, pairs), and the mean, (batch, n_mels, frames).
        """
        # By strides, since lengths that depend on the number of frames cannot be exported.
        second = torch.cat([mel[..., 1:], mel[..., -1:]], dim=2)[..., ::PAIR]
        pairs = torch.stack([mel[..., ::PAIR], second], dim=2).flatten(1, 2).mT
        h = self.first((pairs - self.mel_spec.log_floor) * (self.mel_spec.nats / 4) - 1.6)
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)
        return h.mT, mel + self._frames(self.change(h).mT.float(), mel.shape[2])

    def _frames(self, pairs: Tensor, frames: int) -> Tensor:
        index = torch.arange(frames, device=pairs.device)
        return self.squeeze.inverse(pairs).index_select(2, index)

    def log_prob(self, mel: Tensor, degraded: Tensor) -> Tensor:
        """log p(mel | degraded) in nats, (batch,); both (batch, n_mels, frames), frames even."""
        h, mean = self.read(degraded)
        return self.log_density(mel - mean, h)

    def log_density(self, residual: Tensor, h: Tensor) -> Tensor:
        """Log-density in nats, (batch,), of what is left of a mel (batch, n_mels, frames) after
        the mean, given h; both from `read`."""
        return log_density(*self.flow(self.squeeze(residual)[0], h))

    @torch.no_grad()
    def restore(
        self,
        mel: Tensor,
        temperature: float | None = None,
        seed: int | Noise = 0,
        strength: float = 1.0,
        first_frame: int = 0,
    ) -> Tensor:
        r"""The restored mel, of the same shape: (n_mels, frames) or (batch, n_mels, frames).

        With c the mean absolute change in nats over the 33 frames around a frame, the change of the
        frame is multiplied by :math:`\min(1, \max(0, (c - 0.04) / 0.04))`: mels of recordings,
        which change little, stay as they are.

        Args:
            mel: log-mel in the convention of `mel_spec`.
            temperature: scale of the latent noise, 0 or more; 0 gives the mean. None takes
                `default_temperature`.
            seed: of the noise, or the noise itself; another seed gives another natural detail.
            strength: part of the change that is made, 0 to 1; 0 gives the mel as it is.
            first_frame: absolute index of the first frame, by which noise is drawn; even.
        """
        temperature = self._temperature(temperature)
        if not 0 <= strength <= 1:
            raise ValueError(
                f"restore is {strength}: give 0 (the mel as it is) to 1 (restored in full)"
            )
        batch = mel if mel.ndim == 3 else mel.unsqueeze(0)
        h, restored = self.read(batch)
        gate = self._gate(restored - batch)
        if temperature:
            noise = Noise(seed) if isinstance(seed, int) else seed
            drawn = noise.normal(first_frame, PAIR * h.shape[2], self.mel_spec.n_mels)
            z, _ = self.squeeze(drawn.reshape(-1, *drawn.shape[-2:]).mT.to(h))
            z = temperature * z.expand(len(batch), -1, -1)
            restored = restored + self._frames(self.flow.inverse(z, h), batch.shape[2])
        restored = batch + strength * gate * (restored - batch)
        restored = restored.clamp_min(self.mel_spec.log_floor)
        return restored if mel.ndim == 3 else restored[0]

    def _gate(self, change: Tensor) -> Tensor:
        """Factor of a change (batch, n_mels, frames), (batch, 1, frames)."""
        size = change.abs().mean(dim=1, keepdim=True) * self.mel_spec.nats
        width = 2 * GATE_FRAMES + 1
        around = F.avg_pool1d(size, width, 1, GATE_FRAMES, count_include_pad=False)
        least, full = GATE_NATS
        return ((around - least) / (full - least)).clamp(0, 1)

    def stream(
        self,
        chunks: Iterable[tuple[T, Tensor]],
        temperature: float | None = None,
        seed: int | Noise = 0,
        strength: float = 1.0,
    ) -> Iterator[tuple[T, Tensor]]:
        """`restore` chunk by chunk, in constant memory; what comes out lags by `look_ahead` frames.

        Args:
            chunks: mels (n_mels, frames), each with a tag.
            temperature, seed, strength: as in `restore`.

        Yields:
            Restored mels, with the tag of the chunk that completed them.
        """

        def render(window: Tensor, start: int, first: int, last: int) -> Tensor:
            return self.restore(window, temperature, seed, strength, start)[..., first - start :]

        batches = ((tag, chunk.unsqueeze(0)) for tag, chunk in chunks)
        context = self.context_frames, self.context_frames
        for tag, restored, _ in in_windows(batches, context, render, unit=PAIR):
            if restored.numel():
                yield tag, restored[0]


class _Pointwise(nn.Module):
    """A linear map of the channels of every step, zero at first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x.transpose(1, 2))
        return result.transpose(1, 2)


class _Conditioner(nn.Module):
    """Shift and log-scale of a coupling from its other half and the condition; zero at first."""

    def __init__(self, half: int, condition: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(half, channels)
        self.condition = nn.Linear(condition, channels)
        self.block = ConvNeXtBlock(channels, 5, 2)
        self.norm = nn.LayerNorm(channels)
        self.last = _Pointwise(channels, 2 * half)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.first(x.transpose(1, 2)) + self.condition(condition.transpose(1, 2))
        y = self.norm(self.block(F.gelu(y, approximate="tanh")))
        result: Tensor = self.last(y.transpose(1, 2))
        return result


def load_checkpoint(path: str | os.PathLike[str]) -> Restoration:
    """The restoring flow of a checkpoint directory, in evaluation mode, on the CPU, in float32.

    Raises:
        CheckpointError: no checkpoint there, or not one of a restoring flow.
    """
    return Restoration.load(path, "recipes/restoration/train.py")


__all__ = ["Restoration", "load_checkpoint"]
