"""The MDCT flow: a flow on frequency bands at the mel frame rate, which is what makes it fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec, Noise, Refine
from vocoder.engines.frame import Condition, FramePlan, FrameStream, Latents, run
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
    Narrowed,
    SourceFilter,
)
from vocoder.nn import BandScale, GatedConvStack, MelSource

from . import base
from .base import Renderer
from .flow import FlowVocoder


class MdctFlow(FlowVocoder):
    r"""A WaveGlow-style flow on the MDCT of the waveform, at the mel frame rate.

    The squeeze is the MDCT with as many bands as the hop has samples: orthogonal, and without the
    block edges of plain blocks. A diagonal scale that the mel sets (`BandScale`) whitens the bands;
    ``n_flows`` steps follow, each an invertible 1x1 convolution and an affine coupling whose gated
    convolution stack sees the mel. The whole network runs once per frame of the mel.

    With ``source``, the base density has a harmonic part (`SourceFilter`): a tone whose F0 and
    voicing are read off the mel (`MelSource`). The couplings see a few learnt channels of it. The
    phase theta of the tone before the first sample is one of 16, all as likely:

    .. math:: p(x \mid m) = \frac1{16} \sum_{k=0}^{15} p(x \mid m, \theta = k / 16)

    `log_likelihood` is this sum, exactly; `synthesize` draws theta by its seed; and training locks
    the tone to the recording's fundamental instead (`training_loss`).

    The arguments' defaults are those of the recipe's ``mdct.yaml``.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        n_flows: number of steps; 0 leaves the scaled noise (and tone) alone.
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
        log_scale_bound: bound of the couplings' log-scales (see `AffineCoupling`). Without one, a
            flow of several couplings can give recordings unlike its training data a density that
            is wrong by orders of magnitude, since each coupling feeds the next.
        source: whether the base density has a harmonic part.
        source_channels: width of its network.
        source_features: channels of the tone that the couplings see.
        refine: sweeps of mel consistency after the model's own pass unless another number is given
            (see `Vocoder.synthesize`).

    Raises:
        ValueError: sizes that do not fit together; the message names them.
    """

    family = "mdct-flow"
    title = "MDCT flow"
    dtypes = (torch.float32, torch.bfloat16)

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
        log_scale_bound: float | None = None,
        source: bool = False,
        source_channels: int = 192,
        source_features: int = 32,
        refine: Refine = 0,
    ) -> None:
        spec = MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec
        bands = spec.hop_length
        super().__init__(spec, bands, refine)
        if n_flows < 0:
            raise ValueError(f"n_flows is {n_flows}: give 0 or more steps")
        if split not in ("channels", "frames"):
            raise ValueError(f"split is {split!r}: choose 'channels' or 'frames'")
        if isinstance(conv1x1_init, str) or not conv1x1_init:
            raise ValueError(
                f"conv1x1_init is {conv1x1_init!r}: give a list of starts to cycle through"
            )
        over_frames = split == "frames"
        scale = BandScale(spec, bands, scale_channels, scale_kernel_size)
        source_features *= source and n_flows > 0
        n_condition = spec.n_mels + 2 * source + source_features
        steps: list[Bijection] = []
        reach = ahead = 0  # of all couplings together, in frames
        for step in range(n_flows):
            # Over frames the stack runs on pairs of frames, and sees both frames' condition.
            network = GatedConvStack(
                in_channels=bands if over_frames else bands // 2,
                out_channels=2 * (bands if over_frames else bands - bands // 2),
                condition_channels=n_condition * (2 if over_frames else 1),
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
                AffineCoupling(network, partition, log_scale_bound),
            ]
        self.flow = Chain([Mdct(bands), ConditionalScale(scale), Chain(steps)])
        self.source: MelSource | None = None
        """Reads the tone of the base density off the mel; None without one."""
        if source:
            self.source = MelSource(spec, bands)
            if source_features:
                self.tone_features = nn.Conv1d(2 * bands, source_features, 1)
            tone = SourceFilter(bands, spec.n_mels + 2, spec.sample_rate, source_channels)
            self.flow = Chain(
                [
                    Mdct(bands),
                    Narrowed(ConditionalScale(scale), spec.n_mels),
                    tone,
                    Narrowed(Chain(steps), n_condition),
                ]
            )
            reach, ahead = max(reach, tone.reach), max(ahead, tone.reach)
        self._alignment = 2 if over_frames and n_flows else 1
        # The MDCT reaches half a block into each neighbour; a pair of frames may be generated at
        # once.
        nearest = scale.reach + int(self._alignment > 1)
        self._flow_context = (max(nearest, reach) + 1, max(nearest, ahead) + 1)
        self._plan: FramePlan | None = None

    @property
    def context_frames(self) -> tuple[int | None, int]:
        past, ahead = self._flow_context
        if self.source is None:
            return past, ahead
        return None, ahead + self.source.look_ahead  # the tone's phase is a sum over all the past

    @property
    def noise_per_frame(self) -> int:
        """The latents; and, with a source, one number of which the first frame's sets the phase."""
        return self.mel_spec.hop_length + int(self.source is not None)

    # -- the tone ------------------------------------------------------------------------------

    def condition(
        self, mel: Tensor, phase: Tensor | float = 0.0, audio: Tensor | None = None
    ) -> Tensor:
        """What the flow sees: the mel and, with a source, the tone; (batch, channels, frames).

        Args:
            mel: (batch, n_mels, frames).
            phase, audio: as in `MelSource.forward`.
        """
        if self.source is None:
            return mel
        return self._joined(mel, self.source(mel, phase, audio))

    def _joined(self, mel: Tensor, tone: Tensor) -> Tensor:
        """The condition, given what `source` read off the mel."""
        pitch, bands = tone[:, :2], tone[:, 2:]
        parts = [mel, pitch, bands]
        if self.config["n_flows"]:
            parts.insert(2, self.tone_features(bands))
        return torch.cat(parts, dim=1)

    def phase(self, noise: Tensor) -> Tensor:
        """theta of noise (batch, frames, `noise_per_frame`), in cycles, (batch,).

        All are as likely for noise of temperature 1; noise of temperature 0 gives 0.
        """
        number = (torch.special.ndtr(noise[:, 0, -1].float()) * _PHASES).floor()
        return (number.double() + _PHASES // 2) % _PHASES / _PHASES

    def log_likelihood(self, audio: Tensor, mel: Tensor) -> Tensor:
        if self.source is None:
            return super().log_likelihood(audio, mel)
        reading = self.source.read(mel)
        parts = [
            self._density(audio, self._joined(mel, self.source.tone(reading, k / _PHASES)))
            for k in range(_PHASES)
        ]
        return torch.logsumexp(torch.stack(parts), dim=0) - math.log(_PHASES)

    def training_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean negative log-likelihood in nats per sample, a scalar.

        With a source, it is the likelihood given the phase of the recording's fundamental, not
        that of `log_likelihood`: one pass instead of 16, and the tone teaches the phases of all
        harmonics.
        """
        audio, mel = batch["audio"], batch["mel"]
        if self.source is None:
            return super().training_loss(batch)
        return -self._density(audio, self.condition(mel, audio=audio)).mean() / audio.shape[-1]

    def sample(self, mel: Tensor, noise: Tensor, temperature: float) -> Tensor:
        if self.source is None:
            return super().sample(mel, noise, temperature)
        z = self.latents(noise, temperature)
        return self.flow.inverse(z, self.condition(mel, self.phase(temperature * noise))).squeeze(1)

    # -- rendering -----------------------------------------------------------------------------

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
        if model.dtype == torch.float32 and self.config["n_flows"]:
            model._plan = FramePlan(model.flow, self.mel_spec.n_mels, dtype)
        return model

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
            batch = mel.shape[0]
            latents = self._latents(noise, temperature, batch, first_frame)
            return run(plan, mel, latents, self._conditions(noise, temperature, batch))
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
        batch, _, frames = mel.shape
        if self._engine() is not None:
            # The engine works in pieces anyway, and without repeating their context.
            return self.generate(mel, noise, temperature)
        if self.source is None or frames <= base.LONGEST_PASS:
            return super()._in_windows(mel, noise, temperature)
        render, ahead = self._windows(noise, temperature, batch), self.context_frames[1]
        pieces, first = [], 0
        while first < frames:
            last = first + base.LONGEST_PASS
            if last + ahead > frames:
                last = frames
            pieces.append(render(mel[:, :, first : last + ahead], first, first, last))
            first = last
        return torch.cat(pieces, dim=1)

    def _conditions(self, noise: Noise, temperature: float, batch: int) -> Condition:
        """`condition` of an utterance that comes in pieces, from frame 0 on."""
        if self.source is None:
            return lambda mel, last: mel
        phase = self.phase(temperature * self.draw(noise, 0, 1))
        stream = self.source.stream(batch, phase.expand(batch))
        waiting: list[Tensor] = []  # mel whose tone is not known yet

        def condition(mel: Tensor, last: bool) -> Tensor:
            tone = stream.push(mel, last)
            held = torch.cat([*waiting, mel], dim=2)
            count = tone.shape[2]
            waiting[:] = [held[:, :, count:]]
            return self._joined(held[:, :, :count], tone)

        return condition

    def _renderer(self, noise: Noise, temperature: float) -> tuple[tuple[int, int], Renderer]:
        with torch.no_grad():
            plan = self._engine()
        if plan is None:
            if self.source is None:
                return super()._renderer(noise, temperature)
            return (0, self.context_frames[1]), self._windows(noise, temperature, 1)
        condition = self._conditions(noise, temperature, 1)
        stream = FrameStream(plan, 1, self._latents(noise, temperature, 1))
        early: list[Tensor] = []  # of a pair of frames, one may be ready early
        pushed = 0  # frames of mel

        def render(window: Tensor, start: int, first: int, last: int) -> Tensor:
            nonlocal pushed
            end = start + window.shape[2]
            fresh, pushed = window[:, :, pushed - start :], end
            blocks = torch.cat([*early, stream.push(condition(fresh, last == end), last == end)])
            early[:] = [blocks[last - first :]]
            return blocks[: last - first].transpose(0, 1).reshape(1, -1)

        return (0, self.context_frames[1]), render

    def _windows(self, noise: Noise, temperature: float, batch: int) -> Renderer:
        """Renders without the engine: reads the tone as the mel comes, and inverts the flow on
        windows of it.
        """
        hop, (past, _) = self.mel_spec.hop_length, self._flow_context
        condition = self._conditions(noise, temperature, batch)
        pushed = origin = 0  # frames of mel so far, and the first frame of those held
        held: Tensor | None = None

        def render(window: Tensor, start: int, first: int, last: int) -> Tensor:
            nonlocal pushed, origin, held
            end = start + window.shape[2]
            fresh, pushed = condition(window[:, :, pushed - start :], last == end), end
            held = fresh if held is None else torch.cat([held, fresh], dim=2)
            drawn = self.draw(noise, origin, held.shape[2])
            audio = self.flow.inverse(self.latents(drawn, temperature), held).squeeze(1)
            audio = audio[:, (first - origin) * hop : (last - origin) * hop]
            keep = max(last - past, origin)
            keep -= keep % self.frame_alignment
            held, origin = held[:, :, keep - origin :], keep
            return audio

        return render


_PHASES = 16
