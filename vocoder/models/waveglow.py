"""WaveGlow: a normalizing flow from audio to Gaussian noise, conditioned on the mel spectrogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec
from vocoder.flows import (
    AffineCoupling,
    AlternatingFrames,
    AnotherSize,
    Bijection,
    Chain,
    ChannelHalves,
    ChannelMixing,
    ConditionalScale,
    FactorOut,
    InvertibleConv1x1,
    LappedTransform,
    Mixing,
    PLUConv1x1,
    Squeeze,
    values_key,
)
from vocoder.nn import GatedConvStack, TransposedUpsampling
from vocoder.nn.weight_norm import fuse_weight_norm

from .base import Array, Renderer, Vocoder, _like, _tensor
from .folded import FoldedStream, Folding, Latents, foldable
from .noise import Noise

Split = Literal["channels", "frames"]
"""What a coupling splits: the channels in halves, or the time steps in even and odd ones."""


class BandScale(nn.Module):
    r"""Minus the log standard deviation of each band of a lapped transform, read off the mel.

    .. math:: s(m) = -(A m + a) - g(m)

    A interpolates the log-mel linearly in frequency at the band centres and a undoes the gains of
    window and mel filters, so that Gaussian noise of standard deviation sigma gives
    :math:`s \approx -\log\sigma` before any training; both are then learnt. g is a small
    convolutional network that starts at zero.

    Shapes: mel (batch, n_mels, frames) to (batch, bands, frames).
    """

    def __init__(self, mel_spec: MelSpec, bands: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(mel_spec.n_mels, bands, 1)
        self.network = nn.Sequential(
            nn.Conv1d(mel_spec.n_mels, channels, kernel_size, padding=kernel_size // 2),
            nn.GELU(),
            nn.Conv1d(channels, bands, 1),
        )
        self.reach = kernel_size // 2
        weight, bias = _band_interpolation(mel_spec, bands)
        with torch.no_grad():
            self.linear.weight.copy_(-weight.unsqueeze(-1))
            assert self.linear.bias is not None
            self.linear.bias.copy_(-bias)
            for parameter in self.network[-1].parameters():
                parameter.zero_()

    def forward(self, mel: Tensor) -> Tensor:
        result: Tensor = self.linear(mel) - self.network(mel)
        return result


def _band_interpolation(mel_spec: MelSpec, bands: int) -> tuple[Tensor, Tensor]:
    """(bands, n_mels) and (bands,): log standard deviation of a band from the log-mel."""
    filters = mel_spec.filters().double()  # (n_mels, bins)
    bins = torch.linspace(0, mel_spec.sample_rate / 2, filters.shape[1], dtype=torch.float64)
    area = filters.sum(dim=1).clamp_min(1e-12)
    mel_centres = (filters @ bins) / area
    centres = (torch.arange(bands, dtype=torch.float64) + 0.5) * mel_spec.sample_rate / 2 / bands
    right = torch.searchsorted(mel_centres, centres).clamp(1, mel_spec.n_mels - 1)
    left = right - 1
    fraction = (centres - mel_centres[left]) / (mel_centres[right] - mel_centres[left])
    # Bands outside the mel's range take the value of its nearest filter.
    fraction = fraction.clamp(0, 1)
    rows = torch.arange(bands)
    weight = torch.zeros(bands, mel_spec.n_mels, dtype=torch.float64)
    weight[rows, left] += 1 - fraction
    weight[rows, right] += fraction
    # For white noise of unit variance |X| is Rayleigh with E|X| = sqrt(pi/4 sum w^2), and
    # E|X|^2 = sum w^2; a periodic Hann window has sum w^2 = 3/8 of its length.
    energy = 3 / 8 * mel_spec.win_length
    gain = math.pi / 4 * energy if mel_spec.power == 1 else energy
    log_gain = area.log() + mel_spec.power / 2 * math.log(gain)
    nats = 1.0 if mel_spec.log_base == "e" else math.log(10)
    weight_nats = weight * nats / mel_spec.power
    bias = -(weight @ log_gain) / mel_spec.power
    dtype = torch.get_default_dtype()
    return weight_nats.to(dtype), bias.to(dtype)


class WaveGlow(Vocoder):
    r"""WaveGlow with a choice of how audio becomes channels.

    .. math:: z = f(x; m), \qquad
        \log p(x \mid m) = \log \mathcal N(z; 0, I) + \log |\det \partial f / \partial x|

    f turns the waveform x into ``n_group`` channels and applies ``n_flows`` steps, each an
    invertible 1x1 convolution and an affine coupling whose gated convolution stack sees the mel m;
    every ``n_early_every`` steps, ``n_early_size`` channels are finished. All samples come out of
    one parallel pass of :math:`f^{-1}`. Paper: WaveGlow (Prenger, Valle and Catanzaro, 2019).

    ``squeeze="blocks"`` cuts the waveform into plain blocks of n_group samples, as the paper does
    (8). ``squeeze="lapped"`` takes the MDCT of n_group bands instead: orthogonal, without block
    edges; with n_group equal to the hop the whole network runs at the mel frame rate, which is
    what makes it fast. A diagonal scale that the mel sets (``conditional_scale``) then whitens the
    bands.

    The arguments' defaults are those of the paper.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        squeeze: "blocks" or "lapped".
        n_group: channels after the squeeze; must divide the hop.
        n_flows: number of steps.
        n_early_every: steps between early outputs; 0 for none.
        n_early_size: channels per early output.
        channels, n_layers, kernel_size: width, depth and taps of each coupling's `GatedConvStack`.
        mixing: what the 1x1 convolutions start as (see `vocoder.flows.mixing_matrix`); a list is
            cycled through.
        plu: keep the 1x1 convolutions in PLU factors.
        conditional_scale: begin with `ConditionalScale` by a `BandScale`; for "lapped" only.
        scale_channels, scale_kernel_size: width and taps of that network.
        log_scale_bound: bound of the couplings' log-scales (see `AffineCoupling`).
        separable: depthwise-separable convolutions in the couplings (SqueezeWave).
        weight_norm: weight normalisation in the couplings.
        split: what the couplings split, "channels" (`ChannelHalves`) or "frames"
            (`AlternatingFrames`: every other one sets the even steps by the odd ones, and the
            stacks run at half the rate); a list is cycled through.
        band_temperature: factors of the temperature at evenly spaced frequencies from 0 to half
            the sample rate, two or more, interpolated linearly (see `noise_shaping`); for "lapped"
            without early outputs and with one size of transform. None for 1 everywhere.
        shared: all couplings use the body of the first one's stack (NanoFlow, see
            `GatedConvStack`): as much work with far fewer parameters.
        look_ahead: steps of the latents that each coupling looks ahead at most (see
            `GatedConvStack`), for streaming with a short delay; a list is cycled through. None for
            as many as it looks back. `context_frames` tells what all of them come to.
        n_late_group: if not 0, the second half of the steps works in a lapped transform of so many
            bands (`AnotherSize`); for "lapped" without early outputs.

    Raises:
        ValueError: sizes that do not fit together; the message names them.
    """

    family = "waveglow"

    def __init__(
        self,
        mel_spec: MelSpec | str = "ljspeech",
        squeeze: Literal["blocks", "lapped"] = "blocks",
        n_group: int = 8,
        n_flows: int = 12,
        n_early_every: int = 4,
        n_early_size: int = 2,
        channels: int = 256,
        n_layers: int = 8,
        kernel_size: int = 3,
        mixing: Mixing | list[Mixing] = "rotation",
        plu: bool = False,
        conditional_scale: bool = False,
        scale_channels: int = 256,
        scale_kernel_size: int = 5,
        log_scale_bound: float | None = None,
        separable: bool = False,
        weight_norm: bool = True,
        split: Split | list[Split] = "channels",
        n_late_group: int = 0,
        shared: bool = False,
        band_temperature: list[float] | None = None,
        look_ahead: int | list[int] | None = None,
    ) -> None:
        super().__init__(mel_spec)
        hop = self.mel_spec.hop_length
        if squeeze not in ("blocks", "lapped"):
            raise ValueError(f"squeeze is {squeeze!r}: choose 'blocks' or 'lapped'")
        if n_group < 2 or hop % n_group:
            raise ValueError(
                f"n_group {n_group} does not divide the hop of {hop} samples into blocks of two "
                "samples or more"
            )
        if n_flows < 1:
            raise ValueError(f"n_flows is {n_flows}: a flow has at least one step")
        if conditional_scale and (squeeze != "lapped" or n_group != hop):
            raise ValueError(
                "conditional_scale reads the scale of frequency bands off the mel: it needs "
                "squeeze 'lapped' and n_group equal to the hop"
            )
        if n_late_group and (squeeze != "lapped" or n_early_every):
            raise ValueError(
                "n_late_group changes the size of the lapped transform between two steps: it needs "
                "squeeze 'lapped' and no early outputs (n_early_every 0)"
            )
        if band_temperature is not None:
            if squeeze != "lapped" or n_early_every or n_late_group:
                raise ValueError(
                    "band_temperature shapes the noise of the bands of one lapped transform: it "
                    "needs squeeze 'lapped', no early outputs (n_early_every 0) and n_late_group 0"
                )
            if len(band_temperature) < 2 or not all(0 <= f < math.inf for f in band_temperature):
                raise ValueError(
                    f"band_temperature is {band_temperature}: give two or more factors of 0 or "
                    "more, from the lowest frequency to the highest"
                )
        self.band_temperature = band_temperature
        self._shaping: Tensor | None = None
        self._shaping_key: tuple[object, ...] = ()
        splits: Sequence[Split] = [split] if isinstance(split, str) else split
        for name in splits:
            if name not in ("channels", "frames"):
                raise ValueError(f"split is {name!r}: choose 'channels' or 'frames'")
        self.n_group = n_group
        self.steps_per_frame = hop // n_group
        self.upsampling: TransposedUpsampling | None = None
        condition_channels = self.mel_spec.n_mels
        if self.steps_per_frame > 1:
            self.upsampling = TransposedUpsampling(
                self.mel_spec.n_mels, self.mel_spec.win_length, hop
            )
            condition_channels *= n_group
        self._fold = Squeeze(n_group)  # of the upsampled mel, to the rate of the latents
        self._folding = Folding()

        mixings: Sequence[Mixing] = [mixing] if isinstance(mixing, str) else mixing
        # Of all couplings together, in steps of the latents.
        reach = ahead = 0.0
        aheads = look_ahead if isinstance(look_ahead, list) else [look_ahead]
        body: GatedConvStack | None = None

        def one_step(step: int, width: int, rate: int = 1) -> list[Bijection]:
            """1x1 convolution and coupling of ``width`` channels, ``rate`` times as many steps."""
            nonlocal reach, ahead, body
            kind = mixings[step % len(mixings)]
            over_frames = splits[step % len(splits)] == "frames"
            changed = width if over_frames else width - width // 2
            network = GatedConvStack(
                in_channels=width if over_frames else width // 2,
                out_channels=2 * changed,
                condition_channels=condition_channels * (2 if over_frames else 1),
                channels=channels,
                n_layers=n_layers,
                kernel_size=kernel_size,
                weight_norm=weight_norm,
                separable=separable,
                body=body,
                look_ahead=aheads[step % len(aheads)],
            )
            if shared and body is None:
                body = network
            # One of the stack's steps is two frames, and those of a pair are a frame apart.
            reach += (2 * network.reach + 1 if over_frames else network.reach) / rate
            ahead += (2 * network.look_ahead + 1 if over_frames else network.look_ahead) / rate
            before = sum(splits[i % len(splits)] == "frames" for i in range(step))
            partition = AlternatingFrames(before % 2) if over_frames else ChannelHalves()
            return [
                PLUConv1x1(width, kind) if plu else InvertibleConv1x1(width, kind),
                AffineCoupling(network, partition, log_scale_bound),
            ]

        def flow_steps(first: int, width: int) -> Chain:
            pieces: list[Bijection] = []
            for step in range(first, n_flows):
                if n_early_every and step and step % n_early_every == 0 and step != first:
                    rest = flow_steps(step, width - n_early_size)
                    return Chain([*pieces, FactorOut(n_early_size, rest)])
                if n_late_group and step == n_flows // 2:
                    rate = n_group // n_late_group
                    late = [one_step(i, n_late_group, rate) for i in range(step, n_flows)]
                    inner = Chain(piece for pair in late for piece in pair)
                    return Chain([*pieces, AnotherSize(n_group, n_late_group, inner)])
                pieces += one_step(step, width)
            return Chain(pieces)

        early = (n_flows - 1) // n_early_every if n_early_every else 0
        if n_group - early * n_early_size < 2:
            raise ValueError(
                f"{early} early outputs of {n_early_size} channels leave fewer than two of "
                f"{n_group}: raise n_early_every or n_group"
            )
        pieces: list[Bijection] = []
        pieces.append(LappedTransform(n_group) if squeeze == "lapped" else Squeeze(n_group))
        scale_reach = 0
        if conditional_scale:
            scale = BandScale(self.mel_spec, n_group, scale_channels, scale_kernel_size)
            pieces.append(ConditionalScale(scale))
            scale_reach = scale.reach
        self.flow = Chain([*pieces, flow_steps(0, n_group)])

        if n_late_group:
            reach, ahead = reach + 2, ahead + 2  # what `AnotherSize` itself looks at
        lap = int(squeeze == "lapped")  # half a block into each neighbour
        neighbour = int("frames" in splits)  # a pair of frames may be made as one
        past, future = (
            max(scale_reach + neighbour, math.ceil(steps / self.steps_per_frame)) + lap
            for steps in (reach, ahead)
        )
        if self.upsampling is not None:
            past += math.ceil(self.mel_spec.win_length / hop) - 1
        self._context_frames = (past, future)
        odd = "frames" in splits and self.steps_per_frame % 2
        self._alignment = 2 if odd else 1

    @property
    def context_frames(self) -> tuple[int, int]:
        return self._context_frames

    @property
    def frame_alignment(self) -> int:
        """A window of mel frames that is made by itself must begin at a multiple of this.

        2 where couplings tell even frames from odd ones (split "frames"), else 1. `generate` sees
        to it for any window.
        """
        return self._alignment

    def _condition(self, mel: Tensor) -> Tensor:
        """The mel at the rate of the latents: (batch, condition channels, time)."""
        if self.upsampling is None:
            return mel
        folded, _ = self._fold(self.upsampling(mel))
        return folded

    def forward(self, audio: Array, mel: Array) -> tuple[Array, Array]:
        """From audio to latents.

        Args:
            audio: (batch, samples) or (samples,) with samples = frames * hop (up to a hop fewer are
                completed with zeros).
            mel: (batch, n_mels, frames) or (n_mels, frames).

        Returns:
            z (batch, n_group, samples / n_group), early outputs first, standard normal under the
            model; and log_det (batch,), in nats. Without the batch axis for input without one.
        """
        frames = _tensor(mel, "mel").to(device=self.device, dtype=self.dtype)
        samples, frames, batched = self._paired(audio, frames)
        z, log_det = self.flow(samples.unsqueeze(1), self._condition(frames))
        if not batched:
            z, log_det = z[0], log_det[0]
        return _like(audio, z), _like(audio, log_det)

    def inverse(self, z: Array, mel: Array) -> Array:
        """From latents to audio: the exact inverse of `forward`, differentiable, not clipped.

        Args:
            z: (batch, n_group, frames * hop / n_group), or without the batch axis.
            mel: (batch, n_mels, frames), or without the batch axis.

        Returns:
            (batch, frames * hop), or (frames * hop,).
        """
        frames = _tensor(mel, "mel").to(device=self.device, dtype=self.dtype)
        latents = _tensor(z, "z").to(device=self.device, dtype=self.dtype)
        batched = latents.ndim == 3
        if not batched:
            latents, frames = latents.unsqueeze(0), frames.unsqueeze(0)
        expected = (frames.shape[0], self.n_group, frames.shape[-1] * self.steps_per_frame)
        if latents.shape != expected:
            raise ValueError(
                f"latents of shape {tuple(latents.shape)} do not fit the mel: expected {expected}"
            )
        audio = self.flow.inverse(latents, self._condition(frames)).squeeze(1)
        return _like(z, audio if batched else audio[0])

    def log_likelihood(self, audio: Tensor, mel: Tensor) -> Tensor:
        z, log_det = self.flow(audio.unsqueeze(1), self._condition(mel))
        z = z.to(log_det.dtype)
        size = z[0].numel()
        return log_det - 0.5 * z.square().sum(dim=(1, 2)) - 0.5 * size * math.log(2 * math.pi)

    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        folded = None if torch.is_grad_enabled() else self._folding.of(self)
        if folded is not None:
            return folded.run(mel, self._drawing(mel, noise, temperature, first_frame))
        extra = first_frame % self.frame_alignment
        if extra:
            mel = F.pad(mel, (extra, 0), mode="replicate")
        audio = self.inverse(self.latents(mel, noise, temperature, first_frame - extra), mel)
        return audio[:, extra * self.mel_spec.hop_length :]

    def latents(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        """The latents that ``noise`` gives for a mel (batch, n_mels, frames), times temperature."""
        hop = self.mel_spec.hop_length
        drawn = noise.normal(first_frame, mel.shape[-1], hop)
        # (frames, steps, n_group) -> (n_group, frames * steps)
        z = drawn.reshape(-1, self.n_group).T * temperature
        z = z.to(device=self.device, dtype=self.dtype)
        shaping = self.noise_shaping()
        if shaping is not None:
            z = shaping @ z
        return z.expand(mel.shape[0], -1, -1)

    def _drawing(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Latents:
        """`latents` piece by piece, for items as many as those of a mel."""

        def draw(first: int, count: int) -> Tensor:
            shape = mel[:1, :, :1].expand(mel.shape[0], -1, count)
            return self.latents(shape, noise, temperature, first_frame + first)

        return draw

    def _in_windows(self, mel: Tensor, noise: Noise, temperature: float) -> Tensor:
        if self._folding.of(self) is not None:
            # Works in pieces itself, and needs no context for them.
            return self.generate(mel, noise, temperature)
        return super()._in_windows(mel, noise, temperature)

    def _renderer(self, noise: Noise, temperature: float) -> tuple[tuple[int, int], Renderer]:
        folded = self._folding.of(self)
        if folded is None:
            return super()._renderer(noise, temperature)
        example = torch.zeros(1, self.mel_spec.n_mels, 1)
        stream = FoldedStream(folded, 1, self._drawing(example, noise, temperature))
        early: list[Tensor] = []  # where frames come in pairs, one may come before its time

        def render(window: Tensor, start: int, first: int, last: int) -> Tensor:
            end = start + window.shape[2]
            fresh = window[:, :, stream.pushed - start :]
            made = torch.cat([*early, stream.push(fresh, last == end)])
            early[:] = [made[last - first :]]
            return made[: last - first].transpose(0, 1).reshape(1, -1)

        return (0, self._context_frames[1]), render

    @torch.no_grad()
    def noise_shaping(self) -> Tensor | None:
        r"""The matrix that gives the noise of each band its temperature; None where all have one.

        .. math:: z = \tau \, Q \operatorname{diag}(m) Q^\top \epsilon, \qquad
            W_K \cdots W_1 = Q P

        with epsilon standard normal, tau the temperature, m_b the factor of band b
        (`band_temperature` at its centre), and Q the orthogonal factor of the polar decomposition
        of all 1x1 convolutions together: the direction in the latents that each band is taken to.
        What the couplings do to a band's level is left aside. With m = 1 it is plain temperature.

        Returns:
            (n_group, n_group), symmetric.
        """
        if self.band_temperature is None:
            return None
        mixings = [m for m in self.flow.modules() if isinstance(m, ChannelMixing)]
        key = values_key(parameter for mixing in mixings for parameter in mixing.parameters())
        if self._shaping is None or key != self._shaping_key:
            product = torch.eye(self.n_group, dtype=torch.float64)
            for mixing in mixings:
                product = mixing.matrix().double().cpu() @ product
            u, _, v = torch.linalg.svd(product)
            q = u @ v
            knots = np.linspace(0, 1, len(self.band_temperature))
            centres = (np.arange(self.n_group) + 0.5) / self.n_group
            factors = torch.from_numpy(np.interp(centres, knots, self.band_temperature))
            self._shaping = ((q * factors) @ q.T).to(device=self.device, dtype=self.dtype)
            self._shaping_key = key
        return self._shaping

    def train(self, mode: bool = True) -> WaveGlow:
        # As for the inverses of the 1x1 convolutions: writes through .data go unnoticed.
        self._shaping = None
        self._folding.forget()
        super().train(mode)
        return self

    def fused(self, dtype: torch.dtype = torch.float32) -> WaveGlow:
        """The same function without weight normalisation: what to use for inference.

        Args:
            dtype: what the couplings are computed in when audio is made on a CPU: float32, or
                bfloat16, which is faster where the processor has it (AVX512_BF16, AMX) and rounds
                to 8 bits. Parameters, audio and likelihood stay in float32.

        Returns:
            A new model in evaluation mode, on the same device, with ``weight_norm=False``.

        Raises:
            ValueError: another type; or bfloat16 for a flow that does not fold (`FoldedFlow`).
        """
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"flows compute in float32 or bfloat16, not in {dtype}")
        if dtype == torch.bfloat16 and not foldable(self):
            raise ValueError(
                "bfloat16 is for flows on a lapped transform at the mel frame rate (n_group equal "
                "to the hop) whose couplings split channels: this one computes in float32 only"
            )
        model = WaveGlow(**{**self.config, "mel_spec": self.mel_spec, "weight_norm": False})
        model.load_state_dict(fuse_weight_norm(self.state_dict()))
        model._folding = Folding(dtype)
        return model.to(device=self.device, dtype=self.dtype).eval()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return next(self.parameters()).dtype


__all__ = ["BandScale", "WaveGlow"]
