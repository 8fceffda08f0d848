"""The flow over log-mel spectrograms: an invertible network from mel frames to latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocoder.flows import AffineCoupling, Bijection, Conv1x1Init, InvertibleConv1x1, Squeeze
from vocoder.nn import GatedConvStack

FRAMES_PER_STEP = 2
"""Frames of the mel that the flow handles as one step: a mel has an even number of frames."""


class _PaddedConditioner(nn.Module):
    """A `GatedConvStack` whose only condition is where there is padding."""

    def __init__(self, stack: GatedConvStack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        result: Tensor = self.stack(x, mask=condition)
        return result


class MelFlow(Bijection):
    r"""The flow between normalised log-mels and latents of the same shape.

    .. math:: z = f(x), \qquad f = W_{K+1} \circ c_K \circ W_K \circ \dots \circ c_1 \circ W_1

    on pairs of frames (2 n_mels channels at half the frame rate), with 1x1 convolutions W and
    affine couplings c. W_1 to W_K start as permutations, so that the couplings in turn predict odd
    frames from even ones and half of the bands from the other half. W_{K+1} starts as the inverse
    of their product, so f starts as the identity, and training starts from a plain mixture of
    Gaussians over mel frames, which can be aligned. Papers: Glow (Kingma and Dhariwal, 2018),
    Glow-TTS (Kim et al., 2020).

    Shapes: x and z are (batch, n_mels, frames) with an even number of frames; the condition is
    the mask (batch, 1, frames / 2), 1 where there are frames and 0 where there is padding, or
    None. Padding must be zeros, gives zeros, and adds nothing to the log-determinant.

    Args:
        n_mels: bands.
        n_flows: K.
        channels, n_layers, kernel_size: of the `GatedConvStack` in each coupling.
        log_scale_bound: of the couplings, see `AffineCoupling`.
        weight_norm: weight normalisation in the couplings.
    """

    def __init__(
        self,
        n_mels: int,
        n_flows: int,
        channels: int,
        n_layers: int,
        kernel_size: int,
        log_scale_bound: float | None,
        weight_norm: bool = True,
    ) -> None:
        super().__init__()
        width = FRAMES_PER_STEP * n_mels
        kinds: tuple[Conv1x1Init, ...] = ("even-odd", "half-swap")
        self.squeeze = Squeeze(FRAMES_PER_STEP)
        self.mixings = nn.ModuleList(
            InvertibleConv1x1(width, kinds[step % len(kinds)]) for step in range(n_flows)
        )
        last = InvertibleConv1x1(width, "identity")
        with torch.no_grad():
            for mixing in self.mixings:
                last.weight.copy_(last.weight @ mixing.weight.T)  # type: ignore[operator]
        self.mixings.append(last)
        self.couplings = nn.ModuleList(
            AffineCoupling(
                _PaddedConditioner(
                    GatedConvStack(
                        n_mels, 2 * n_mels, 0, channels, n_layers, kernel_size, weight_norm
                    )
                ),
                log_scale_bound=log_scale_bound,
            )
            for _ in range(n_flows)
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.squeeze(x)
        # A 1x1 convolution counts every step alike; only this part of them is not padding.
        unpadded = 1.0 if condition is None else condition.mean(dim=(1, 2))
        for index, mixing in enumerate(self.mixings):
            z, mixing_log_det = mixing(z)
            log_det = log_det + unpadded * mixing_log_det
            if index < len(self.couplings):
                z, coupling_log_det = self.couplings[index](z, condition)
                log_det = log_det + coupling_log_det
        return self.squeeze.inverse(z), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        x, _ = self.squeeze(z)
        for index in reversed(range(len(self.mixings))):
            if index < len(self.couplings):
                x = self.couplings[index].inverse(x, condition)  # type: ignore[operator]
            x = self.mixings[index].inverse(x)  # type: ignore[operator]
        return self.squeeze.inverse(x)
