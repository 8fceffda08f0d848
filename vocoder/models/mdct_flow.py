"""The MDCT flow: a flow on frequency bands at the mel frame rate, which is what makes it fast."""

from __future__ import annotations

from typing import ClassVar

import torch

from vocoder.audio import MelSpec, Refine
from vocoder.flows import (
    AffineCoupling,
    AlternatingFrames,
    Bijection,
    Chain,
    ConditionalScale,
    InvertibleConv1x1,
    Mdct,
)
from vocoder.nn import BandScale, GatedConvStack, MelSource, SourceFilter, WhiteSource

from .flow import FlowVocoder


class MdctFlow(FlowVocoder):
    r"""A WaveGlow-style flow on the MDCT of the waveform, at the mel frame rate.

    The squeeze is the MDCT with as many bands as the hop has samples: orthogonal, and without the
    block edges of plain blocks. A diagonal scale that the mel sets (`BandScale`) whitens the bands;
    ``n_flows`` steps follow, each an invertible 1x1 convolution and an affine coupling whose gated
    convolution stack sees the mel. In turn, even frames set odd ones and odd ones even ones
    (`AlternatingFrames`), so the stacks run at half the rate of the mel.

    With ``source``, the base density has a harmonic part (`SourceFilter`): a tone whose F0 and
    voicing are read off the mel (`MelSource`). The couplings see a few learnt channels of it.
    Training then locks it to the phase of the recording's fundamental (`training_loss`).

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        n_flows: number of steps; 0 leaves the scaled noise (and tone) alone.
        channels, n_layers, kernel_size: width, depth and taps of each coupling's `GatedConvStack`.
        look_ahead: pairs of frames that each coupling's stack looks ahead at most, for streaming
            with a short delay (see `GatedConvStack`); None for as many as it looks back.
        scale_channels: width of the `BandScale` network.
        weight_norm: weight normalisation in the couplings.
        log_scale_bound: bound of the couplings' log-scales (see `AffineCoupling`); without one, the
            density of recordings unlike the training data can be wrong by orders of magnitude.
        source: whether the base density has a harmonic part.
        source_channels: width of its network.
        source_features: channels of the tone that the couplings see.
        refine: iterations on the output unless another number is given (see `synthesize`).

    Raises:
        ValueError: sizes that do not fit together; the message names them.
    """

    architecture = "mdct-flow"
    title = "MDCT flow"
    dtypes = (torch.float32, torch.bfloat16)
    former: ClassVar = {"split", "scale_kernel_size", "conv1x1_init"}

    def __init__(
        self,
        mel_spec: MelSpec | str = "ljspeech",
        n_flows: int = 4,
        channels: int = 280,
        n_layers: int = 3,
        kernel_size: int = 3,
        look_ahead: int | None = None,
        scale_channels: int = 256,
        weight_norm: bool = True,
        log_scale_bound: float | None = None,
        source: bool = False,
        source_channels: int = 192,
        source_features: int = 32,
        refine: Refine = 0,
    ) -> None:
        spec = MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec
        bands = spec.hop_length
        if n_flows < 0:
            raise ValueError(f"n_flows is {n_flows}: give 0 or more steps")
        n_features = source_features if source and n_flows else 0
        n_condition = spec.n_mels + 2 * source + n_features
        scale = BandScale(spec, bands, scale_channels)
        steps: list[Bijection] = []
        reach = ahead = 0  # of all couplings together, in frames
        for step in range(n_flows):
            # The stack runs on pairs of frames, and sees both frames' condition.
            sizes = bands, 2 * bands, 2 * n_condition, channels, n_layers, kernel_size
            network = GatedConvStack(*sizes, weight_norm=weight_norm, look_ahead=look_ahead)
            reach, ahead = reach + 2 * network.reach + 1, ahead + 2 * network.look_ahead + 1
            steps += [
                InvertibleConv1x1(bands, "half-swap" if step % 2 else "even-odd"),
                AffineCoupling(network, AlternatingFrames(step % 2, n_condition), log_scale_bound),
            ]
        mel_source = MelSource(spec, bands, n_features) if source else WhiteSource()
        pieces: list[Bijection] = [Mdct(bands), ConditionalScale(scale)]
        if source:
            pieces.append(SourceFilter(bands, spec.n_mels + 2, spec.sample_rate, source_channels))
        super().__init__(spec, bands, mel_source, refine)
        if source:  # temperature scales the noise alone, which drowns the tone's pulses
            self.default_temperature = 0.45
        self.flow = Chain([*pieces, Chain(steps)])
        self.alignment = 2 if n_flows else 1
        # The MDCT reaches half a block into each neighbour; a pair may be generated at once.
        nearest = (SourceFilter.reach if source else BandScale.reach) + self.alignment - 1
        self.flow_context = max(nearest, reach) + 1, max(nearest, ahead) + 1

    @classmethod
    def renamed(cls, name: str) -> str:  # of the bundled weights
        return name.replace(".piece.", ".").replace("tone_features.", "source.features.")
