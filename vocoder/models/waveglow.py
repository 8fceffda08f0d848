"""WaveGlow as published: blocks of samples, couplings over channels, early outputs."""

from __future__ import annotations

import math

from torch import Tensor, nn

from vocoder.audio import MelSpec, Refine
from vocoder.flows import AffineCoupling, Bijection, Chain, FactorOut, InvertibleConv1x1, Squeeze
from vocoder.nn import GatedConvStack

from .flow import FlowVocoder


class WaveGlow(FlowVocoder):
    r"""WaveGlow (Prenger, Valle and Catanzaro, 2019).

    The waveform is cut into blocks of ``n_group`` samples; ``n_flows`` steps follow, each an
    invertible 1x1 convolution and an affine coupling whose gated convolution stack sees the
    upsampled mel. Every ``n_early_every`` steps, ``n_early_size`` channels are finished and go to
    the latents, before those of later steps.

    The arguments' defaults are those of the paper.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        n_group: samples per block; must divide the hop.
        n_flows: number of steps.
        n_early_every: steps between early outputs; 0 for none.
        n_early_size: channels per early output.
        channels, n_layers, kernel_size: width, depth and taps of each coupling's `GatedConvStack`.
        weight_norm: weight normalisation in the couplings.
        refine: iterations on the output unless another number is given (see `synthesize`).

    Raises:
        ValueError: sizes that do not fit together; the message names them.
    """

    architecture = "waveglow"
    title = "WaveGlow"

    def __init__(
        self,
        mel_spec: MelSpec | str = "ljspeech",
        n_group: int = 8,
        n_flows: int = 12,
        n_early_every: int = 4,
        n_early_size: int = 2,
        channels: int = 256,
        n_layers: int = 8,
        kernel_size: int = 3,
        weight_norm: bool = True,
        refine: Refine = 0,
    ) -> None:
        super().__init__(mel_spec, n_group, refine=refine)
        early = (n_flows - 1) // n_early_every if n_early_every else 0
        if n_group - early * n_early_size < 2:
            raise ValueError(
                f"{early} early outputs of {n_early_size} channels leave fewer than two of "
                f"{n_group}: raise n_early_every or n_group"
            )
        n_mels, hop = self.mel_spec.n_mels, self.mel_spec.hop_length
        # From mel frames to samples, cropped to frames * hop: the kernel is the window.
        self.upsampling = nn.ModuleDict()
        condition_channels = n_mels
        if self.steps_per_frame > 1:
            window = self.mel_spec.win_length
            self.upsampling["conv"] = nn.ConvTranspose1d(n_mels, n_mels, window, stride=hop)
            condition_channels *= n_group
        self._blocks = Squeeze(n_group)  # of the upsampled mel, to the rate of the latents

        def coupling(width: int) -> AffineCoupling:
            sizes = width // 2, 2 * (width - width // 2), condition_channels
            stack = GatedConvStack(*sizes, channels, n_layers, kernel_size, weight_norm)
            return AffineCoupling(stack)

        def steps_from(first: int, width: int) -> Chain:
            pieces: list[Bijection] = []
            for step in range(first, n_flows):
                if n_early_every and step and step % n_early_every == 0 and step != first:
                    rest = steps_from(step, width - n_early_size)
                    return Chain([*pieces, FactorOut(n_early_size, rest)])
                # The coupling first: random starts are drawn in this order.
                own = coupling(width)
                pieces += [InvertibleConv1x1(width), own]
            return Chain(pieces)

        self.flow = Chain([Squeeze(n_group), steps_from(0, n_group)])
        # Of all couplings together, in steps of the latents.
        reach = sum(m.reach for m in self.flow.modules() if isinstance(m, GatedConvStack))
        past = future = math.ceil(reach / self.steps_per_frame)
        if self.upsampling:
            past += math.ceil(self.mel_spec.win_length / hop) - 1
        self.flow_context = past, future

    def _at_latent_rate(self, condition: Tensor) -> Tensor:
        if not self.upsampling:
            return condition
        samples = condition.shape[2] * self.mel_spec.hop_length
        return self._blocks(self.upsampling["conv"](condition)[..., :samples])[0]
