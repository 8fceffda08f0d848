"""A flow folded for inference: the inverse direction of `WaveGlow` as matrix products on the CPU.

What belongs here: how the weights are folded, and the pass over time that keeps a state. It makes
the audio that `WaveGlow.inverse` makes (to 1e-5 in float32), faster, in pieces of any size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.flows import (
    AffineCoupling,
    AlternatingFrames,
    Chain,
    ChannelHalves,
    ConditionalScale,
    InvertibleConv1x1,
    LappedTransform,
    PLUConv1x1,
    values_key,
)
from vocoder.nn import GatedConvStack

if TYPE_CHECKING:
    from .waveglow import WaveGlow

Latents = Callable[[int, int], Tensor]
"""(first frame, number of frames) -> latents (batch, channels, frames)."""

TILE = 1024
"""Rows (frames of all items) computed at once: what fits the caches beside the weights."""

_SHORTEST_TILE = 96
"""Frames computed at once even of large batches, since every piece begins with old rows."""

_MINIMAL_ROWS = 256
"""Rows from which on minimal filtering saves more than its additions cost."""


@dataclass
class _Layer:
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
    """(offset of a tap, (2 * channels,)): what the bias takes for granted of that tap, and is not
    there where the tap lies outside of the utterance."""
    minimal: tuple[Tensor, Tensor, Tensor, Tensor] | None
    """Weights of the four products that make two outputs of three taps, the condition's weights
    below those of the outer two; None where there are not three taps, or not in float32."""


@dataclass
class _Step:
    """A coupling and the 1x1 convolution before it, both inverted."""

    layers: list[_Layer]
    condition: Tensor
    """(n_mels + 1, layers * 2 * channels), the bias last"""
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


class FoldedFlow:
    r"""The inverse direction of a flow at the mel frame rate, folded into few matrix products.

    Everything lies in rows of time, so that a 1x1 convolution is one product of matrices and a
    dilated one is a gather of its taps and one product. What has been multiplied out beforehand:

    - the 1x1 convolutions are inverted, weight normalisation is fused, all biases are one;
    - the coupling's first 1x1 convolution is part of its first dilated one and of the residual;
    - its skips and its last 1x1 convolution are one product with the gates of all layers;
    - :math:`\tanh(a) = 2\sigma(2a) - 1`, so that one sigmoid serves both halves of a gate (it is
      several times faster than tanh) and the constants go into the weights around it;
    - the condition of all layers of a coupling is one product with the mel;
    - in float32 and on many rows, two outputs of three taps take four products instead of six
      (minimal filtering F(2, 3): Winograd, 1980; Lavin and Gray, 2016).

    A row is a frame; where couplings tell even frames from odd ones (`AlternatingFrames`), it is a
    pair of frames side by side, the one that conditions the other first.

    Rows come in pieces: each coupling keeps the last rows that later ones need, so that nothing
    is computed twice, in one pass (in pieces that fit the caches) or streaming.

    Args:
        model: a `WaveGlow` for which `foldable` is true, in float32, on the CPU. Its weights are
            copied: later changes of the model change nothing here.
        dtype: float32; or bfloat16 for the weights and hidden values of the couplings, where the
            processor multiplies them (AVX512_BF16, AMX). The flow's own values, the band scale and
            the transform stay in float32.
    """

    def __init__(self, model: WaveGlow, dtype: torch.dtype = torch.float32) -> None:
        transform, scale, steps = _parts(model)
        self.dtype = dtype
        self.bands = transform.bands
        self.pair = 2 if type(steps[0][1].partition) is AlternatingFrames else 1
        """Frames in a row."""
        self.channels = self.pair * self.bands
        self.half = self.channels // 2
        self.n_mels = model.mel_spec.n_mels
        self.row_mels = self.pair * self.n_mels
        with torch.no_grad():
            self.steps = [_fold(mixing, coupling, dtype) for mixing, coupling in reversed(steps)]
            self.scale = None if scale is None else _Scale(scale.network)
            half = self.bands // 2
            # The right half of a block comes out mirrored, as the rotation wants it.
            dct = transform.dct.detach()
            self.dct = torch.cat([dct[:, :half], dct[:, half:].flip(1)], dim=1).contiguous()
            self.sin = transform.rotation_sin.detach().clone()
            self.cos = transform.rotation_cos.detach().clone()
        stack = self.steps[0].layers
        self.hidden = stack[0].gate.stop - stack[0].gate.start
        self.reaches = [
            (sum(x.left for x in s.layers), sum(x.right for x in s.layers)) for s in self.steps
        ]
        scale_reach = 0 if self.scale is None else self.scale.reach
        # The first coupling starts late enough for the band scale of the frames that come out.
        scale_rows = -(-scale_reach // self.pair)
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
        # Rows behind the last: zeros at the end of an utterance, and what fills up pairs of blocks.
        self.filling = 2 * max(layer.dilation for s in self.steps for layer in s.layers)
        self.overhang = self.filling + max(layer.right for s in self.steps for layer in s.layers)
        self.mel_history = (
            self.delay + max(layer.left for s in self.steps for layer in s.layers) + scale_rows
        )
        self._scratch = threading.local()

    def run(self, mel: Tensor, latents: Latents) -> Tensor:
        """Audio (batch, frames * channels) of a mel (batch, n_mels, frames), in one go."""
        batch, _, frames = mel.shape
        stream = FoldedStream(self, batch, latents)
        tile = max(TILE // batch, _SHORTEST_TILE) * self.pair
        audio = torch.empty(batch, frames, self.bands, dtype=torch.float32)
        by_time = audio.transpose(0, 1)
        done = 0
        for first in range(0, frames, tile):
            last = min(first + tile, frames)
            made = stream.push(mel[:, :, first:last], last == frames)
            by_time[done : done + made.shape[0]] = made
            done += made.shape[0]
        return audio.reshape(batch, -1)

    def buffer(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """Working memory of this thread, (rows, columns), with whatever was in it."""
        held: Tensor | None = getattr(self._scratch, name, None)
        if held is None or held.numel() < rows * columns or held.dtype != dtype:
            # Else a buffer made in inference mode could not be written to outside of it.
            with torch.inference_mode(False):
                held = torch.empty(rows * columns, dtype=dtype)
            setattr(self._scratch, name, held)
        return held[: rows * columns].view(rows, columns)


class FoldedStream:
    """One utterance (or a batch of one length) on its way through a `FoldedFlow`.

    Args:
        flow: the folded flow.
        batch: number of items.
        latents: draws the latents of frames that the flow comes to; called in their order.
    """

    def __init__(self, flow: FoldedFlow, batch: int, latents: Latents) -> None:
        self.flow = flow
        self.batch = batch
        self.latents = latents
        self.pushed = 0
        """Frames of mel so far."""
        self._pushed = 0  # rows of mel
        self._begun = 0  # rows that the first coupling has seen
        self._unpaired: Tensor | None = None  # a frame of mel that waits for its neighbour
        history = flow.history * batch
        with torch.inference_mode(False):  # as in `FoldedFlow.buffer`
            self._mel = torch.zeros(flow.mel_history * batch, flow.row_mels + 1, dtype=flow.dtype)
            self._values = [
                torch.zeros(history, flow.channels, dtype=torch.float32) for _ in flow.steps
            ]
            self._work = [
                torch.zeros(history, flow.work_columns, dtype=flow.dtype) for _ in flow.steps
            ]
            self._exact_mel = torch.zeros(
                (flow.mel_history * flow.pair * batch) if flow.scale is not None else 0,
                flow.n_mels,
                dtype=torch.float32,
            )
        # Of the last block: its left half, done, and its right half, which waits for the next.
        self._waiting: tuple[Tensor, Tensor] | None = None

    def push(self, mel: Tensor, final: bool) -> Tensor:
        """The samples (frames, batch, channels) that more mel (batch, n_mels, frames) completes.

        Args:
            mel: may be of no frames.
            final: nothing comes after it; all blocks come out.
        """
        flow, batch = self.flow, self.batch
        self.pushed += mel.shape[2]
        if self._unpaired is not None:
            mel, self._unpaired = torch.cat([self._unpaired, mel], dim=2), None
        if mel.shape[2] % flow.pair and not final:
            mel, self._unpaired = mel[:, :, :-1], mel[:, :, -1:].clone()
        missing = -mel.shape[2] % flow.pair  # a frame at the end
        start = self._pushed
        self._pushed += (mel.shape[2] + missing) // flow.pair
        mel_rows = self._with_mel(mel, missing)
        origin = start - flow.mel_history  # the first row
        end = self._pushed if final else max(self._pushed - flow.wait, 0)
        first = self._begun
        self._begun = end
        rows = (flow.history + end - first + flow.overhang) * batch
        values = flow.buffer("values0", rows, flow.channels, torch.float32)
        if end > first:
            into = values[flow.history * batch : (flow.history + end - first) * batch]
            self._draw(into.view(end - first, batch, flow.channels), first, missing)
        for number, step in enumerate(flow.steps):
            values, first, end = self._invert(
                number, step, values, first, end, mel_rows, origin, final, missing
            )
        made = end - first
        blocks = values[flow.history * batch : (flow.history + made) * batch]
        if flow.pair > 1:
            by_row = blocks.view(made, batch, flow.pair, flow.bands).transpose(1, 2)
            blocks = by_row.reshape(made * flow.pair * batch, flow.bands)
            first, end = first * flow.pair, end * flow.pair - missing * bool(made)
            origin, made = origin * flow.pair, end - first
            blocks = blocks[: made * batch]
        if flow.scale is not None and made:
            reach = flow.scale.reach
            context = self._scale_rows[
                (first - reach - origin) * batch : (end + reach - origin) * batch
            ]
            blocks.mul_(flow.scale(context, batch, made))
        return self._overlap(blocks.view(made, batch, flow.bands), final)

    def _draw(self, into: Tensor, first: int, missing: int) -> None:
        """Latents of the rows (rows, batch, channels) from row `first` on."""
        flow, (rows, batch, _) = self.flow, into.shape
        z = self.latents(first * flow.pair, rows * flow.pair - missing).permute(2, 0, 1)
        if flow.pair == 1:
            into.copy_(z)
            return
        halves = into.view(rows, batch, flow.pair, flow.bands)
        conditioning = flow.steps[0].parity
        for frame in range(flow.pair):
            own = z[frame :: flow.pair]
            half = halves[:, :, frame ^ conditioning]
            half[: len(own)] = own
            half[len(own) :] = 0

    def _with_mel(self, mel: Tensor, missing: int) -> Tensor:
        """Rows of the mel so far, from `mel_history` rows before the new ones on; a one last."""
        flow, batch = self.flow, self.batch
        frames = mel.shape[2]
        new, past = (frames + missing) // flow.pair, flow.mel_history * batch
        rows = flow.buffer(
            "mel", past + (new + flow.filling) * batch, flow.row_mels + 1, flow.dtype
        )
        rows[:past] = self._mel
        fresh = rows[past : past + new * batch].view(new, batch, flow.row_mels + 1)
        for frame in range(flow.pair):
            own = mel[:, :, frame :: flow.pair].permute(2, 0, 1)
            columns = slice(frame * flow.n_mels, (frame + 1) * flow.n_mels)
            fresh[: len(own), :, columns] = own
            if len(own) < new:  # the frame that is missing has the condition of the last one
                fresh[-1:, :, columns] = mel[:, :, -1:].permute(2, 0, 1)
        fresh[:, :, -1] = 1
        self._mel.copy_(rows[new * batch : past + new * batch])
        if flow.scale is not None:
            # By frames. Behind the end there are zeros, as before the beginning.
            past *= flow.pair
            exact = flow.buffer(
                "exact_mel",
                past + (frames + missing + flow.scale.reach) * batch,
                flow.n_mels,
                torch.float32,
            )
            exact[:past] = self._exact_mel
            exact[past : past + frames * batch].view(frames, batch, flow.n_mels).copy_(
                mel.permute(2, 0, 1)
            )
            exact[past + frames * batch :] = 0
            self._exact_mel.copy_(exact[frames * batch : past + frames * batch])
            self._scale_rows = exact
        return rows

    def _invert(
        self,
        number: int,
        step: _Step,
        values: Tensor,
        first: int,
        end: int,
        mel: Tensor,
        mel_origin: int,
        final: bool,
        missing: int,
    ) -> tuple[Tensor, int, int]:
        """The rows [first, end) of the input through one step: (output, its first, its end).

        Row ``history`` of the input, and of the output, is the first new one.
        """
        flow, batch = self.flow, self.batch
        half, hidden = flow.half, flow.hidden
        origin = first - flow.history  # the first row here
        rows = (flow.history + end - first + flow.overhang) * batch
        past = flow.history * batch
        fresh = slice(past, past + (end - first) * batch)
        work = flow.buffer("work", rows, flow.work_columns, flow.dtype)
        values[:past] = self._values[number]
        work[:past] = self._work[number]
        work[fresh, :half] = values[fresh, :half]
        if final:
            work[fresh.stop :] = 0

        def at(begin: int, stop: int) -> slice:
            return slice((begin - origin) * batch, (stop - origin) * batch)

        begin, stop = first, end  # of the input of the next layer
        few = (end - first) * batch < _MINIMAL_ROWS
        conditions, condition_first = None, max(first - sum(x.right for x in step.layers), 0)
        if few or any(layer.minimal is None for layer in step.layers):
            condition_stop = end if final else max(end - step.layers[0].right, 0)
            count = max(condition_stop - condition_first, 0) * batch
            conditions = flow.buffer("conditions", count, step.condition.shape[1], flow.dtype)
            begin_mel = (condition_first - mel_origin) * batch
            torch.mm(mel[begin_mel : begin_mel + count], step.condition, out=conditions)
        for index, layer in enumerate(step.layers):
            begin = max(begin - layer.right, 0)
            stop = end if final else max(stop - layer.right, 0)
            frames = stop - begin
            if frames <= 0:
                continue
            target = at(begin, stop)
            tapped = work[(begin - layer.left - origin) * batch :, layer.source]
            if conditions is None:
                pre = self._minimal(layer, tapped, mel[(begin - mel_origin) * batch :], frames)
            else:
                own = conditions[
                    (begin - condition_first) * batch : (stop - condition_first) * batch,
                    index * 2 * hidden : (index + 1) * 2 * hidden,
                ]
                pre = self._direct(layer, tapped, own)
            for offset, edge in layer.edges:
                # Taps before the beginning or, at the end, behind it.
                if offset < 0 and begin < -offset:
                    pre[: (min(stop, -offset) - begin) * batch] -= edge
                elif offset > 0 and final and stop > end - offset:
                    pre[(max(end - offset, begin) - begin) * batch :] -= edge
            pre.sigmoid_()
            near, far = pre[:, :hidden], pre[:, hidden:]
            torch.addcmul(far, near, far, value=-2, out=work[target, layer.gate])
            if index == 0 and step.first_hidden is not None:
                into = work[target, step.layers[1].source]
                torch.mm(work[target, : layer.gate.stop], step.first_hidden, out=into)
            elif index < len(step.layers) - 1:
                old = work[target, layer.source]
                into = work[target, step.layers[index + 1].source]
                torch.addmm(old, work[target, layer.gate], step.residuals[index - 1], out=into)
        if not final:
            # What later frames need of these.
            keep = slice((end - first) * batch, (end - first) * batch + past)
            self._values[number].copy_(values[keep])
            self._work[number].copy_(work[keep])
        output = flow.buffer(
            f"values{1 + number % 2}",
            (flow.history + max(stop - begin, 0) + flow.overhang) * batch,
            flow.channels,
            torch.float32,
        )
        if stop <= begin:
            return output, begin, begin
        target = at(begin, stop)
        gates = work[target, step.layers[0].gate.start : step.layers[-1].gate.stop]
        shift_scale = flow.buffer("shift", (stop - begin) * batch, step.output.shape[1], flow.dtype)
        torch.addmm(step.output_bias, gates, step.output, out=shift_scale)
        targets = flow.channels - half
        log_scale = shift_scale[:, targets:].float()
        if step.log_scale_bound is not None:
            log_scale = (log_scale / step.log_scale_bound).tanh_().mul_(step.log_scale_bound)
        moved = values[target]
        moved[:, half:].add_(shift_scale[:, :targets]).mul_(log_scale.exp_())
        unmixed = output[past : past + (stop - begin) * batch]
        if flow.pair == 1:
            torch.mm(moved, step.unmix, out=unmixed)
            return output, begin, stop
        # What conditions the next step comes first; at the end, the even frame.
        following = flow.steps[number + 1].parity if number + 1 < len(flow.steps) else 0
        for half_of, halves in ((step.parity, moved[:, :half]), (1 - step.parity, moved[:, half:])):
            at_half = (half_of ^ following) * half
            torch.mm(halves, step.unmix, out=unmixed[:, at_half : at_half + half])
        if final and missing:
            odd = (1 ^ following) * half
            unmixed[-batch:, odd : odd + half] = 0
        return output, begin, stop

    def _direct(self, layer: _Layer, tapped: Tensor, condition: Tensor) -> Tensor:
        """A dilated convolution as one product of its gathered taps, plus the condition.

        Row 0 of ``tapped`` is the first tap of the first output.
        """
        rows, inputs = condition.shape[0], tapped.shape[1]
        taps = self.flow.buffer("taps", rows, layer.taps * inputs, self.flow.dtype)
        stride = tapped.stride(0)
        gathered = tapped.as_strided(
            (rows, layer.taps, inputs), (stride, layer.dilation * self.batch * stride, 1)
        )
        taps.view(rows, layer.taps, inputs).copy_(gathered)
        pre = self.flow.buffer("pre", rows, layer.weight.shape[1], self.flow.dtype)
        torch.addmm(condition, taps, layer.weight, out=pre)
        return pre

    def _minimal(self, layer: _Layer, tapped: Tensor, mel: Tensor, frames: int) -> Tensor:
        r"""The same, with the condition of the mel, by minimal filtering.

        Time goes in pairs of blocks as long as the dilation. Of inputs :math:`d_0 .. d_3`, a block
        apart, and taps :math:`g_0, g_1, g_2` a pair of outputs is

        .. math::
            m_0 &= (d_0 - d_2) g_0, & m_1 &= (d_1 + d_2) (g_0 + g_1 + g_2) / 2, \\
            m_3 &= (d_3 - d_1) g_2, & m_2 &= (d_2 - d_1) (g_0 - g_1 + g_2) / 2, \\
            y_0 &= m_0 + m_1 + m_2, & y_1 &= m_1 - m_2 + m_3.

        The condition rides on :math:`m_0` and :math:`m_3`. Rows that fill up the last pair hold
        anything, and are left out of the result.
        """
        assert layer.minimal is not None
        flow, inputs = self.flow, tapped.shape[1]
        block = layer.dilation * self.batch
        pairs = -(-frames * self.batch // (2 * block))

        def blocks(of: Tensor, number: int) -> Tensor:
            stride = of.stride(0)
            return of[number * block :].as_strided(
                (pairs, block, of.shape[1]), (2 * block * stride, stride, 1)
            )

        def rows(name: str, columns: int) -> Tensor:
            return flow.buffer(name, pairs * block, columns, flow.dtype).view(pairs, block, columns)

        d0, d1, d2, d3 = (blocks(tapped, number) for number in range(4))
        outer, inner = inputs + mel.shape[1], inputs
        v0, v1, v2, v3 = (rows(f"v{n}", w) for n, w in enumerate((outer, inner, inner, outer)))
        torch.sub(d0, d2, out=v0[:, :, :inputs])
        torch.add(d1, d2, out=v1)
        torch.sub(d2, d1, out=v2)
        torch.sub(d3, d1, out=v3[:, :, :inputs])
        v0[:, :, inputs:] = blocks(mel, 0)
        v3[:, :, inputs:] = blocks(mel, 1)
        width = layer.weight.shape[1]
        m0, m1, m2, m3 = (rows(f"m{n}", width) for n in range(4))
        for m, v, weight in zip((m0, m1, m2, m3), (v0, v1, v2, v3), layer.minimal, strict=True):
            torch.mm(v.flatten(0, 1), weight, out=m.view(pairs * block, width))
        pre = flow.buffer("pre", 2 * pairs * block, width, flow.dtype)
        both = pre.view(pairs, 2, block, width)
        torch.add(m1, m2, out=both[:, 0]).add_(m0)
        torch.sub(m1, m2, out=both[:, 1]).add_(m3)
        return pre[: frames * self.batch]

    def _overlap(self, blocks: Tensor, final: bool) -> Tensor:
        """The inverse lapped transform: blocks of bands to blocks of samples, one block later."""
        flow, batch = self.flow, self.batch
        half, count = flow.bands // 2, blocks.shape[0]
        raw = torch.mm(blocks.reshape(count * batch, flow.bands), flow.dct)
        raw = raw.view(count, batch, flow.bands)
        lefts, rights = raw[:, :, :half], raw[:, :, half:]
        # At the outer ends of an utterance there is no neighbour, so a half stays as it is.
        done = lefts[:1]
        if self._waiting is not None:
            done, right = self._waiting
            rights = torch.cat([right, rights])
        else:
            lefts = lefts[1:]
        # Pairs mirrored about each boundary; the half before it comes mirrored from `flow.dct`.
        before = rights[: lefts.shape[0]]
        done = torch.cat([done, flow.sin * lefts - flow.cos * before])
        turned = flow.sin * before + flow.cos * lefts
        if final:
            turned = torch.cat([turned, rights[lefts.shape[0] :]])
        elif rights.shape[0]:
            self._waiting = done[-1:], rights[-1:].clone()
        return torch.cat([done[: turned.shape[0]], turned.flip(-1)], dim=2)


class _Scale:
    """Minus the log-scale that a `BandScale` reads off the mel, as a factor of each row."""

    def __init__(self, network: nn.Module) -> None:
        first, _, last = network.network  # type: ignore[misc]
        self.reach = first.kernel_size[0] // 2
        self.width = first.kernel_size[0]
        self.first = first.weight.detach().permute(2, 1, 0).reshape(-1, first.out_channels)
        self.first = self.first.contiguous()
        self.first_bias = first.bias.detach().clone()
        linear = network.linear
        # The factor is exp(-s), and s = linear - network.
        weight = torch.cat([last.weight[:, :, 0], -linear.weight[:, :, 0]], dim=1)  # type: ignore
        self.last = weight.detach().T.contiguous()
        self.last_bias = (last.bias - linear.bias).detach()  # type: ignore[union-attr]

    def __call__(self, mel: Tensor, batch: int, frames: int) -> Tensor:
        """(frames * batch, bands) from rows of mel, `reach` frames more on either side."""
        n_mels = mel.shape[1]
        taps = mel.as_strided(
            (frames * batch, self.width, n_mels),
            (n_mels, batch * n_mels, 1),
            mel.storage_offset(),
        ).reshape(frames * batch, self.width * n_mels)
        hidden = F.gelu(torch.addmm(self.first_bias, taps, self.first))
        middle = mel[self.reach * batch : (self.reach + frames) * batch]
        rows = torch.cat([hidden, middle], dim=1)
        return torch.addmm(self.last_bias, rows, self.last).exp_()


class Folding:
    """The folded form of one model: made when it is first wanted, and anew when weights change.

    A copy of the model, by `copy.deepcopy` or pickle, begins with an empty one.

    Args:
        dtype: see `FoldedFlow`.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.forget()

    def forget(self) -> None:
        """Look at the model anew next time, also where its weights changed unnoticed."""
        self._parameters: list[nn.Parameter] = []
        self._key: tuple[object, ...] | None = None
        self._flow: FoldedFlow | None = None

    def of(self, model: WaveGlow) -> FoldedFlow | None:
        """The folded form; None where the model runs piece by piece.

        That is while it trains or is under autocast, on other devices and in other types than
        float32 (nothing here has been tried there), and if it has a piece that cannot be folded.
        """
        if (
            model.training
            or model.device.type != "cpu"
            or model.dtype != torch.float32
            or torch.is_autocast_enabled("cpu")
        ):
            return None
        if not self._parameters:
            # Kept, since finding them among the modules takes longer than looking at them.
            self._parameters = list(model.parameters())
        key = values_key(self._parameters)
        if key != self._key:
            self._flow = FoldedFlow(model, self.dtype) if foldable(model) else None
            self._key = key
        return self._flow

    def __deepcopy__(self, memo: dict[int, object]) -> Folding:
        return Folding(self.dtype)

    def __reduce__(self) -> tuple[type[Folding], tuple[torch.dtype]]:
        return Folding, (self.dtype,)


def foldable(model: WaveGlow) -> bool:
    """Whether `FoldedFlow` knows every piece of a flow; else it runs piece by piece."""
    try:
        _parts(model)
    except TypeError:
        return False
    return True


def _parts(
    model: WaveGlow,
) -> tuple[
    LappedTransform,
    ConditionalScale | None,
    list[tuple[InvertibleConv1x1 | PLUConv1x1, AffineCoupling]],
]:
    """Transform, band scale and steps of a flow.

    Raises:
        TypeError: there is a piece that folding does not know.
    """
    pieces = list(model.flow)
    transform = pieces.pop(0)
    if type(transform) is not LappedTransform or model.steps_per_frame != 1:
        raise TypeError("only flows on a lapped transform at the mel frame rate are folded")
    scale = pieces.pop(0) if type(pieces[0]) is ConditionalScale else None
    if len(pieces) != 1 or type(pieces[0]) is not Chain:
        raise TypeError("the steps of the flow are not one chain")
    steps = list(pieces[0])
    if len(steps) % 2:
        raise TypeError("the steps of the flow are not all alike")
    pairs = list(zip(steps[::2], steps[1::2], strict=True))
    for mixing, coupling in pairs:
        if (
            type(mixing) not in (InvertibleConv1x1, PLUConv1x1)
            or type(coupling) is not AffineCoupling
        ):
            raise TypeError("a step is not a 1x1 convolution and an affine coupling")
        network, partition = coupling.conditioner, coupling.partition
        if type(network) is not GatedConvStack or network.condition is None:
            raise TypeError("a coupling's network is not a conditioned stack")
        if type(partition) is not type(pairs[0][1].partition):
            raise TypeError("some couplings split channels, and some frames")
        if type(partition) is not AlternatingFrames and (
            type(partition) is not ChannelHalves or partition.swap
        ):
            raise TypeError("a coupling splits neither the channels in halves nor the frames")
        if not all(isinstance(layer, nn.Conv1d) for layer in network.dilated):
            raise TypeError("separable convolutions are not folded")
    return transform, scale, pairs  # type: ignore[return-value]


def _fold(
    mixing: InvertibleConv1x1 | PLUConv1x1, coupling: AffineCoupling, dtype: torch.dtype
) -> _Step:
    """A step's weights, multiplied out in float64."""
    network = coupling.conditioner
    assert isinstance(network, GatedConvStack)

    def matrix(layer: nn.Module) -> Tensor:
        return layer.weight.detach().double().squeeze(-1)  # type: ignore[operator]

    def bias(layer: nn.Module) -> Tensor:
        return layer.bias.detach().double()  # type: ignore[operator]

    width, n_layers = network.channels, network.n_layers
    start, end = matrix(network.start), matrix(network.end)
    half = start.shape[1]
    # sigmoid(2 a) and sigmoid(b) of the two halves of a gate.
    gain = torch.ones(2 * width, 1, dtype=torch.float64)
    gain[:width] = 2
    condition, condition_bias = matrix(network.condition), bias(network.condition)  # type: ignore[arg-type]
    constant = bias(network.start)  # of the hidden values, which are kept without it
    skip_bias = bias(network.end).clone()
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
        level = gain[:, 0] * (condition_bias[rows] + bias(dilated))
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
            _Layer(
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
        # The gates are kept with their sign turned.
        weight, offset = -matrix(both), bias(both)
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
    return _Step(
        layers=layers,
        condition=torch.cat(conditions, dim=1).to(dtype),
        first_hidden=first_hidden,
        residuals=residuals,
        # Minus the shift and minus the log-scale: what the inverse needs.
        output=-torch.cat(skips, dim=1).T.to(dtype).contiguous(),
        output_bias=-skip_bias.to(dtype),
        log_scale_bound=coupling.log_scale_bound,
        unmix=mixing.inverse_matrix().detach().float().T.contiguous(),
        parity=getattr(coupling.partition, "parity", 0),
    )
