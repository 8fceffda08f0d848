"""A flow's weights folded for inference: its inverse direction as few matrix products.

Here belongs what can be multiplied out before any mel is seen. The pass over time is in
`vocoder.engines.frame.stream`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.flows import (
    AffineCoupling,
    AlternatingFrames,
    Chain,
    ConditionalScale,
    FusedConv1x1,
    Mdct,
    Narrowed,
    SourceFilter,
)
from vocoder.flows.source_filter import coefficients_of
from vocoder.nn import BandScale, GatedConvStack

Latents = Callable[[int, int], Tensor]
"""(first frame, number of frames) -> latents (batch, channels, frames)."""

TILE = 1024
"""Rows (frames of all items) computed at once: what fits the caches together with the weights."""

MIN_TILE_FRAMES = 96
"""Fewest frames computed at once, however large the batch: every piece repeats old rows."""


@dataclass
class Layer:
    """A gated layer: rows of hidden values in, rows of gates out.

    Time t of the gate reads its ``taps`` inputs at t - left, t - left + dilation, ..., t + right.
    """

    left: int
    right: int
    dilation: int
    taps: int
    source: slice
    """Columns of the work rows that the taps read."""
    gate: slice
    """Columns of the work rows that the gate is written to."""
    weight: Tensor
    """(taps * inputs, 2 * channels)"""
    edges: list[tuple[int, Tensor]]
    """(offset of a tap, (2 * channels,)): the bias contribution of that tap, subtracted where it
    falls outside the utterance."""
    minimal: tuple[Tensor, Tensor, Tensor, Tensor] | None
    """Weights of the four products that give two outputs of three taps, the condition's weights
    below those of the outer two; None unless there are three taps, in float32."""


@dataclass
class Step:
    """A coupling and the 1x1 convolution before it, both inverted."""

    layers: list[Layer]
    condition: Tensor
    """(condition channels + 1, layers * 2 * channels), the bias last"""
    first_hidden: Tensor | None
    """([context | gate], channels): the input of the second layer"""
    residuals: list[Tensor]
    """(channels, channels) each: from there to the inputs of the third layer and on"""
    output: Tensor
    """(layers * channels, 2 * targets): minus the shift and minus the log-scale, of all gates"""
    output_bias: Tensor
    log_scale_bound: float | None
    unmix: Tensor
    """(bands, bands)"""
    parity: int
    """Of a pair of frames, the one that conditions the other; 0 where a row is one frame."""


class FramePlan:
    r"""The inverse direction of a flow at the mel frame rate, folded into few matrix products.

    Everything is laid out in rows of time, so that a 1x1 convolution is one product of matrices and
    a dilated one is a gather of its taps and one product. What is multiplied out beforehand:

    - the 1x1 convolutions are inverted, weight normalisation is fused, all biases are one;
    - the coupling's first 1x1 convolution is part of its first dilated one and of the residual;
    - its skips and its last 1x1 convolution are one product with the gates of all layers;
    - :math:`\tanh(a) = 2\sigma(2a) - 1`, so that one sigmoid serves both halves of a gate (it is
      several times faster than tanh) and the constants go into the weights around it;
    - the condition of all layers of a coupling is one product;
    - in float32 and on many rows, two outputs of three taps take four products instead of six
      (minimal filtering F(2, 3): Winograd, 1980; Lavin and Gray, 2016).

    A row is a frame; where couplings separate even frames from odd ones (`AlternatingFrames`), it
    is a pair of frames side by side, the one that conditions the other first.

    Rows come in pieces: each coupling keeps the last rows that later ones need, so nothing is
    computed twice, whether streaming or in one pass (in pieces that fit the caches).

    Args:
        flow: of a fused `MdctFlow`, in float32: an `Mdct`, a `ConditionalScale` by a `BandScale`, a
            `SourceFilter` or none, and a chain of 1x1 convolutions and couplings in turn. Its
            weights are copied.
        n_mels: bands of the mel.
        dtype: float32; or bfloat16 for the weights and hidden values of the couplings, where the
            processor multiplies them (AVX512_BF16, AMX). The flow's own values, the band scale and
            the transform stay in float32.
    """

    def __init__(self, flow: Chain, n_mels: int, dtype: torch.dtype = torch.float32) -> None:
        whole = [piece.piece if isinstance(piece, Narrowed) else piece for piece in flow]
        transform, scale, *source, chain = whole
        assert isinstance(transform, Mdct)
        assert isinstance(scale, ConditionalScale)
        assert isinstance(chain, Chain)
        pieces = list(chain)
        steps = [
            (conv, coupling)
            for conv, coupling in zip(pieces[::2], pieces[1::2], strict=True)
            if isinstance(conv, FusedConv1x1) and isinstance(coupling, AffineCoupling)
        ]
        assert 2 * len(steps) == len(pieces)
        self.dtype = dtype
        self.bands = transform.bands
        self.pair = 2 if isinstance(steps[0][1].partition, AlternatingFrames) else 1
        """Frames in a row."""
        self.channels = self.pair * self.bands
        self.half = self.channels // 2
        self.n_mels = n_mels
        # The condition begins with what couplings see and ends with the tone, if there is one.
        last = list(flow)[-1]
        self.n_seen = last.n_condition if isinstance(last, Narrowed) else n_mels
        self.row_seen = self.pair * self.n_seen
        with torch.no_grad():
            self.steps = [_fold(conv, coupling, dtype) for conv, coupling in reversed(steps)]
            self.scale = _Scale(scale.network)
            self.tone: _Tone | None = None
            for piece in source:
                assert isinstance(piece, SourceFilter)
                self.tone = _Tone(piece)
            half = self.bands // 2
            # The right half of a block comes out mirrored, as the rotation needs it.
            dct = transform.dct.detach()
            self.dct = torch.cat([dct[:, :half], dct[:, half:].flip(1)], dim=1).contiguous()
            self.sin = transform.rotation_sin.detach().clone()
            self.cos = transform.rotation_cos.detach().clone()
        stack = self.steps[0].layers
        self.hidden = stack[0].gate.stop - stack[0].gate.start
        self.reaches = [
            (sum(x.left for x in s.layers), sum(x.right for x in s.layers)) for s in self.steps
        ]
        # The first coupling starts late enough for the scale and tone of the frames that come out.
        self.reach = max(self.scale.reach, self.tone.reach if self.tone else 0)
        scale_rows = -(-self.reach // self.pair)
        self.wait = max(0, scale_rows - sum(right for _, right in self.reaches))
        self.delay = self.wait + sum(right for _, right in self.reaches)
        """Rows by which the flow's output lags its input; the transform adds one frame."""
        self.work_columns = max(s.layers[-1].gate.stop for s in self.steps) + self.hidden * (
            max(len(s.layers) for s in self.steps) - 1
        )
        self.history = max(
            sum(layer.left + layer.right for layer in s.layers)
            + max(layer.left + layer.right for layer in s.layers)
            for s in self.steps
        )
        # Rows after the last: zeros at the end of an utterance, and what fills up pairs of blocks.
        self.filling = 2 * max(layer.dilation for s in self.steps for layer in s.layers)
        self.overhang = self.filling + max(layer.right for s in self.steps for layer in s.layers)
        self.mel_history = (
            self.delay + max(layer.left for s in self.steps for layer in s.layers) + scale_rows
        )
        self._scratch = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        # Working memory is neither copied nor pickled.
        return {name: value for name, value in self.__dict__.items() if name != "_scratch"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _scratch=threading.local())

    def buffer(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """Working memory of this thread, (rows, columns), with whatever was in it."""
        held: Tensor | None = getattr(self._scratch, name, None)
        if held is None or held.numel() < rows * columns or held.dtype != dtype:
            # A buffer created in inference mode could not be written to outside of it.
            with torch.inference_mode(False):
                held = torch.empty(rows * columns, dtype=dtype)
            setattr(self._scratch, name, held)
        return held[: rows * columns].view(rows, columns)


class _Tone:
    """A `SourceFilter`: the mean and the deviation of each row of bands, from the condition."""

    def __init__(self, piece: SourceFilter) -> None:
        self.bands, self.n_seen, self.reach = piece.bands, piece.n_seen, piece.reach
        self.width = piece.first.kernel_size[0]
        self.first, self.middle = _by_taps(piece.first), _by_taps(piece.middle)
        self.first_bias, self.middle_bias = _bias(piece.first).float(), _bias(piece.middle).float()
        self.last = piece.last.weight.detach()[:, :, 0].T.contiguous()
        self.last_bias = _bias(piece.last).float()

    def apply(
        self, blocks: Tensor, condition: Tensor, batch: int, outside: tuple[int, int]
    ) -> None:
        """Whitened bands (frames * batch, bands), w of the flow's base, become u.

        Args:
            blocks: changed in place.
            condition: rows of [seen | E | Q] with `reach` more frames on either side.
            outside: how many frames of this context lie before the utterance and after it.
        """
        seen = condition[:, : self.n_seen]
        frames = blocks.shape[0] // batch
        hidden = F.gelu(torch.addmm(self.first_bias, _taps(seen, self.width, batch), self.first))
        # One more frame on either side. Outside of the utterance the next layer sees zeros.
        before, after = (max(n - self.width // 2, 0) * batch for n in outside)
        hidden[:before] = 0
        hidden[len(hidden) - after :] = 0
        own = hidden[batch : (frames + 1) * batch]
        own = own + F.gelu(torch.addmm(self.middle_bias, _taps(hidden, 3, batch), self.middle))
        rows = condition[self.reach * batch : (self.reach + frames) * batch]
        of_e, of_q, log_sigma = coefficients_of(
            torch.addmm(self.last_bias, own, self.last), rows[:, self.n_seen - 2 : self.n_seen - 1]
        )
        e, q = rows[:, -2 * self.bands :].chunk(2, dim=1)
        blocks.mul_(log_sigma.exp_()).addcmul_(of_e, e).addcmul_(of_q, q)


class _Scale:
    """Minus the log-scale that a `BandScale` reads off the mel, as a factor of each row."""

    def __init__(self, network: nn.Module) -> None:
        assert isinstance(network, BandScale)
        first, _, last = network.network
        linear = network.linear
        assert isinstance(first, nn.Conv1d)
        assert isinstance(last, nn.Conv1d)
        self.reach = network.reach
        self.width = first.kernel_size[0]
        self.first = _by_taps(first)
        self.first_bias = _bias(first).float()
        # The factor is exp(-s), and s = linear - network.
        weight = torch.cat([last.weight[:, :, 0], -linear.weight[:, :, 0]], dim=1)
        self.last = weight.detach().T.contiguous()
        self.last_bias = (_bias(last) - _bias(linear)).float()

    def __call__(self, mel: Tensor, batch: int, frames: int) -> Tensor:
        """(frames * batch, bands) from rows of mel with `reach` more frames on either side."""
        taps = _taps(mel, self.width, batch)
        hidden = F.gelu(torch.addmm(self.first_bias, taps, self.first))
        middle = mel[self.reach * batch : (self.reach + frames) * batch]
        rows = torch.cat([hidden, middle], dim=1)
        return torch.addmm(self.last_bias, rows, self.last).exp_()


def _by_taps(layer: nn.Conv1d) -> Tensor:
    """The weight of a convolution over time as a matrix (taps * in, out)."""
    return layer.weight.detach().permute(2, 1, 0).reshape(-1, layer.out_channels).contiguous()


def _taps(rows: Tensor, width: int, batch: int) -> Tensor:
    """Rows (frames * batch, channels) side by side: (rows, width * channels), for width - 1 frames
    fewer.
    """
    count, channels = rows.shape[0] - (width - 1) * batch, rows.shape[1]
    stride = rows.stride(0)
    gathered = rows.as_strided(
        (count, width, channels), (stride, batch * stride, 1), rows.storage_offset()
    )
    return gathered.reshape(count, width * channels)


def _matrix(layer: nn.Conv1d) -> Tensor:
    """The weight of a 1x1 convolution as a matrix (out, in), float64."""
    return layer.weight.detach().double().squeeze(-1)


def _bias(layer: nn.Conv1d) -> Tensor:
    assert layer.bias is not None
    return layer.bias.detach().double()


def _fold(conv: FusedConv1x1, coupling: AffineCoupling, dtype: torch.dtype) -> Step:
    """A step's weights, multiplied out in float64."""
    network = coupling.conditioner
    assert isinstance(network, GatedConvStack)
    assert network.condition is not None

    width, n_layers = network.channels, network.n_layers
    start, end = _matrix(network.start), _matrix(network.end)
    half = start.shape[1]
    # sigmoid(2 a) and sigmoid(b) of the two halves of a gate.
    gain = torch.ones(2 * width, 1, dtype=torch.float64)
    gain[:width] = 2
    condition, condition_bias = _matrix(network.condition), _bias(network.condition)
    constant = _bias(network.start)  # of the hidden values, which are kept without it
    skip_bias = _bias(network.end).clone()
    layers, conditions, residuals, skips = [], [], [], []
    first_hidden = None
    gates_at = half
    hidden_at = half + n_layers * width
    for index in range(n_layers):
        dilated = network.dilated[index]
        assert isinstance(dilated, nn.Conv1d)
        kernel = dilated.weight.detach().double()  # (2 * width, width, taps)
        n_taps, dilation = kernel.shape[2], dilated.dilation[0]
        left, right = network.padding[index]
        pieces = [gain * kernel[:, :, tap] for tap in range(n_taps)]
        edges = [
            (tap * dilation - left, (piece @ constant).to(dtype))
            for tap, piece in enumerate(pieces)
            if tap * dilation != left
        ]
        rows = slice(index * 2 * width, (index + 1) * 2 * width)
        level = gain[:, 0] * (condition_bias[rows] + _bias(dilated))
        level = level + sum(piece @ constant for piece in pieces)
        conditions.append(torch.cat([gain * condition[rows], level[:, None]], dim=1).T)
        if index == 0:
            pieces = [piece @ start for piece in pieces]
            source = slice(0, half)
        else:
            source = slice(hidden_at, hidden_at + width)
            hidden_at += width
        minimal = None
        if n_taps == 3 and dtype == torch.float32:
            g0, g1, g2 = (piece.T for piece in pieces)
            minimal = (
                torch.cat([g0, conditions[-1]]).to(dtype),
                ((g0 + g1 + g2) / 2).to(dtype),
                ((g0 - g1 + g2) / 2).to(dtype),
                torch.cat([g2, conditions[-1]]).to(dtype),
            )
        layers.append(
            Layer(
                left=left,
                right=right,
                dilation=dilation,
                taps=n_taps,
                source=source,
                gate=slice(gates_at, gates_at + width),
                weight=torch.cat(pieces, dim=1).T.to(dtype).contiguous(),
                edges=edges,
                minimal=minimal,
            )
        )
        gates_at += width
        both = network.residual_skip[index]
        assert isinstance(both, nn.Conv1d)
        # The gates are kept with their sign turned.
        weight, offset = -_matrix(both), _bias(both)
        if index < n_layers - 1:
            residual, skip = weight[:width], weight[width:]
            constant = constant + offset[:width]
            offset = offset[width:]
            if index == 0:
                first_hidden = torch.cat([start, residual], dim=1).T.to(dtype).contiguous()
            else:
                residuals.append(residual.T.to(dtype).contiguous())
        else:
            skip = weight
        skips.append(end @ skip)
        skip_bias += end @ offset
    return Step(
        layers=layers,
        condition=torch.cat(conditions, dim=1).to(dtype),
        first_hidden=first_hidden,
        residuals=residuals,
        # Minus the shift and minus the log-scale: what the inverse needs.
        output=-torch.cat(skips, dim=1).T.to(dtype).contiguous(),
        output_bias=-skip_bias.to(dtype),
        log_scale_bound=coupling.log_scale_bound,
        unmix=conv.inverse_weight.float().T.contiguous(),
        parity=getattr(coupling.partition, "parity", 0),
    )
