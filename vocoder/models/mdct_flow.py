"""The MDCT flow: a flow on frequency bands at the mel frame rate, which is what makes it fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from vocoder.audio import MelSpec, Noise
from vocoder.engines.frame import FramePlan, FrameStream, Latents, run
from vocoder.flows import (
    AffineCoupling,
    AlternatingFrames,
    Bijection,
    Chain,
    ChannelHalves,
    ConditionalScale,
    Conv1x1Init,
    InvertibleConv1x1,
    Mdct,
)
from vocoder.nn import BandScale, GatedConvStack

from .base import Renderer
from .flow import FlowVocoder


class MdctFlow(FlowVocoder):
    r"""A WaveGlow-style flow on the MDCT of the waveform, at the mel frame rate.

    The squeeze is the MDCT with as many bands as the hop has samples: orthogonal, and without the
    block edges of plain blocks. A diagonal scale that the mel sets (`BandScale`) whitens the bands;
    ``n_flows`` steps follow, each an invertible 1x1 convolution and an affine coupling whose gated
    convolution stack sees the mel. The whole network runs once per frame of the mel.

    The arguments' defaults are the recipe of the bundled model.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        n_flows: number of steps.
        channels, n_layers, kernel_size: width, depth and taps of each coupling's `GatedConvStack`.
        split: what couplings split: "frames" (`AlternatingFrames`: in turn, even frames set odd
            ones and odd ones even ones, so the stacks run at half the rate) or "channels"
            (`ChannelHalves`).
        conv1x1_init: what the 1x1 convolutions start as (see `vocoder.flows.initial_matrix`),
            cycled through.
        look_ahead: frames (pairs of frames with split "frames") that each coupling's stack looks
            ahead at most, for streaming with a short delay (see `GatedConvStack`); None for as
            many as it looks back. `context_frames` gives the total.
        scale_channels, scale_kernel_size: width and taps of the `BandScale` network.
        weight_norm: weight normalisation in the couplings.
        refine: sweeps of mel consistency after the model's own pass unless another number is given
            (see `Vocoder.synthesize`).

    Raises:
        ValueError: sizes that do not fit together; the message names them.
    """

    family = "mdct-flow"
    title = "MDCT flow"

    def __init__(
        self,
        mel_spec: MelSpec | str = "ljspeech",
        n_flows: int = 4,
        channels: int = 280,
        n_layers: int = 3,
        kernel_size: int = 3,
        split: Literal["channels", "frames"] = "frames",
        conv1x1_init: Sequence[Conv1x1Init] = ("even-odd", "half-swap"),
        look_ahead: int | None = None,
        scale_channels: int = 256,
        scale_kernel_size: int = 5,
        weight_norm: bool = True,
        refine: int = 0,
    ) -> None:
        spec = MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec
        bands = spec.hop_length
        super().__init__(spec, bands, refine)
        if n_flows < 1:
            raise ValueError(f"n_flows is {n_flows}: a flow has at least one step")
        if split not in ("channels", "frames"):
            raise ValueError(f"split is {split!r}: choose 'channels' or 'frames'")
        if isinstance(conv1x1_init, str) or not conv1x1_init:
            raise ValueError(
                f"conv1x1_init is {conv1x1_init!r}: give a list of starts to cycle through"
            )
        over_frames = split == "frames"
        scale = BandScale(spec, bands, scale_channels, scale_kernel_size)
        steps: list[Bijection] = []
        reach = ahead = 0  # of all couplings together, in frames
        for step in range(n_flows):
            # Over frames the stack runs on pairs of frames, and sees both frames' condition.
            network = GatedConvStack(
                in_channels=bands if over_frames else bands // 2,
                out_channels=2 * (bands if over_frames else bands - bands // 2),
                condition_channels=spec.n_mels * (2 if over_frames else 1),
                channels=channels,
                n_layers=n_layers,
                kernel_size=kernel_size,
                weight_norm=weight_norm,
                look_ahead=look_ahead,
            )
            reach += 2 * network.reach + 1 if over_frames else network.reach
            ahead += 2 * network.look_ahead + 1 if over_frames else network.look_ahead
            partition = AlternatingFrames(step % 2) if over_frames else ChannelHalves()
            steps += [
                InvertibleConv1x1(bands, conv1x1_init[step % len(conv1x1_init)]),
                AffineCoupling(network, partition),
            ]
        self.flow = Chain([Mdct(bands), ConditionalScale(scale), Chain(steps)])
        self._alignment = 2 if over_frames else 1
        # The MDCT reaches half a block into each neighbour; a pair of frames may be generated at
        # once.
        nearest = scale.reach + int(over_frames)
        self._context_frames = (max(nearest, reach) + 1, max(nearest, ahead) + 1)
        self._plan: FramePlan | None = None

    @property
    def context_frames(self) -> tuple[int, int]:
        return self._context_frames

    @property
    def frame_alignment(self) -> int:
        """A separate window of mel frames must begin at a multiple of this.

        2 where couplings separate even frames from odd ones (split "frames"), else 1. `generate`
        handles any window.
        """
        return self._alignment

    def fused(self, dtype: torch.dtype = torch.float32) -> Self:
        """The same function with its weights folded for the frame engine: for inference.

        Args:
            dtype: type that the couplings are computed in when audio is generated on a CPU:
                float32, or bfloat16, which is faster where the processor supports it
                (AVX512_BF16, AMX) and rounds to 8 bits. Parameters, audio and likelihood stay in
                float32.

        Returns:
            A new, frozen model: see `FlowVocoder.fused`.

        Raises:
            ValueError: another type.
        """
        model = super().fused(dtype)
        if model.dtype == torch.float32:
            model._plan = FramePlan(model.flow, self.mel_spec.n_mels, dtype)
        return model

    def _check_dtype(self, dtype: torch.dtype) -> None:
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"flows compute in float32 or bfloat16, not in {dtype}")

    def _engine(self) -> FramePlan | None:
        """The folded form, where it can run: on the CPU, in float32, without autocast."""
        usable = (
            self.device.type == "cpu"
            and self.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and not torch.is_grad_enabled()
        )
        return self._plan if usable else None

    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        plan = self._engine()
        if plan is not None:
            return run(plan, mel, self._latents(noise, temperature, mel.shape[0], first_frame))
        extra = first_frame % self.frame_alignment
        if extra:
            mel = F.pad(mel, (extra, 0), mode="replicate")
        audio = super().generate(mel, noise, temperature, first_frame - extra)
        return audio[:, extra * self.mel_spec.hop_length :]

    def _latents(
        self, noise: Noise, temperature: float, batch: int, first_frame: int = 0
    ) -> Latents:
        """Draws the latents of a batch piece by piece, for the frame engine."""

        def draw(first: int, count: int) -> Tensor:
            drawn = self.draw(noise, first_frame + first, count)
            return self.latents(drawn, temperature).expand(batch, -1, -1)

        return draw

    def _in_windows(self, mel: Tensor, noise: Noise, temperature: float) -> Tensor:
        if self._engine() is not None:
            # The engine works in pieces anyway, and without repeating their context.
            return self.generate(mel, noise, temperature)
        return super()._in_windows(mel, noise, temperature)

    def _renderer(self, noise: Noise, temperature: float) -> tuple[tuple[int, int], Renderer]:
        with torch.no_grad():
            plan = self._engine()
        if plan is None:
            return super()._renderer(noise, temperature)
        stream = FrameStream(plan, 1, self._latents(noise, temperature, 1))
        early: list[Tensor] = []  # of a pair of frames, one may be ready early

        def render(window: Tensor, start: int, first: int, last: int) -> Tensor:
            end = start + window.shape[2]
            fresh = window[:, :, stream.pushed - start :]
            blocks = torch.cat([*early, stream.push(fresh, last == end)])
            early[:] = [blocks[last - first :]]
            return blocks[: last - first].transpose(0, 1).reshape(1, -1)

        return (0, self._context_frames[1]), render
