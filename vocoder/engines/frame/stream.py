"""The pass of a folded flow over time: mel in, audio out, in pieces of any size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .plan import MIN_TILE_FRAMES, TILE, FramePlan, Latents, Layer, Step

_MINIMAL_ROWS = 256
"""Fewest rows for which minimal filtering saves more than its additions cost."""


Condition = Callable[[Tensor, bool], Tensor]
"""(next frames of mel, whether they are the last) -> the condition of the frames they complete."""


def run(plan: FramePlan, mel: Tensor, latents: Latents, condition: Condition) -> Tensor:
    """Audio (batch, frames * bands) of a mel (batch, n_mels, frames), in one call."""
    batch, _, frames = mel.shape
    stream = FrameStream(plan, batch, latents)
    tile = max(TILE // batch, MIN_TILE_FRAMES) * plan.pair
    audio = torch.empty(batch, frames, plan.bands, dtype=torch.float32)
    by_time = audio.transpose(0, 1)
    done = 0
    for first in range(0, frames, tile):
        last = min(first + tile, frames)
        samples = stream.push(condition(mel[:, :, first:last], last == frames), last == frames)
        by_time[done : done + samples.shape[0]] = samples
        done += samples.shape[0]
    return audio.reshape(batch, -1)


class FrameStream:
    """The passage of one utterance (or a batch of equal lengths) through a `FramePlan`.

    Args:
        plan: the folded flow.
        batch: number of items.
        latents: draws the latents of frames; called in their order.
    """

    def __init__(self, plan: FramePlan, batch: int, latents: Latents) -> None:
        self.plan = plan
        self.batch = batch
        self.latents = latents
        self.pushed = 0
        """Frames of the condition so far."""
        self._rows = 0  # so far
        self._begun = 0  # rows that the first coupling has seen
        self._unpaired: Tensor | None = None  # a frame that waits for its neighbour
        history = plan.history * batch
        with torch.inference_mode(False):  # as in `FramePlan.buffer`
            self._seen = torch.zeros(plan.mel_history * batch, plan.row_seen + 1, dtype=plan.dtype)
            self._values = [
                torch.zeros(history, plan.channels, dtype=torch.float32) for _ in plan.steps
            ]
            self._work = [
                torch.zeros(history, plan.work_columns, dtype=plan.dtype) for _ in plan.steps
            ]
        self._exact: Tensor | None = None  # past rows of the condition, by frames, in float32
        # Of the last block: its left half, done, and its right half, which waits for the next.
        self._waiting: tuple[Tensor, Tensor] | None = None

    def push(self, condition: Tensor, final: bool) -> Tensor:
        """The samples (frames, batch, bands) that more of the condition completes.

        Args:
            condition: of the next frames, (batch, channels, frames): the mel or, where the flow has
                a source, what `MdctFlow.condition` makes of it. May be empty.
            final: whether the utterance ends here; then all blocks come out.
        """
        plan, batch = self.plan, self.batch
        self.pushed += condition.shape[2]
        if self._unpaired is not None:
            condition, self._unpaired = torch.cat([self._unpaired, condition], dim=2), None
        if condition.shape[2] % plan.pair and not final:
            condition, self._unpaired = condition[:, :, :-1], condition[:, :, -1:].clone()
        missing = -condition.shape[2] % plan.pair  # frames of a last pair
        start = self._rows
        self._rows += (condition.shape[2] + missing) // plan.pair
        seen_rows = self._with_condition(condition, missing)
        origin = start - plan.mel_history  # the first row
        end = self._rows if final else max(self._rows - plan.wait, 0)
        first = self._begun
        self._begun = end
        rows = (plan.history + end - first + plan.overhang) * batch
        values = plan.buffer("values0", rows, plan.channels, torch.float32)
        if end > first:
            into = values[plan.history * batch : (plan.history + end - first) * batch]
            self._draw(into.view(end - first, batch, plan.channels), first, missing)
        for number, step in enumerate(plan.steps):
            values, first, end = self._invert(
                number, step, values, first, end, seen_rows, origin, final, missing
            )
        count = end - first
        blocks = values[plan.history * batch : (plan.history + count) * batch]
        if plan.pair > 1:
            by_row = blocks.view(count, batch, plan.pair, plan.bands).transpose(1, 2)
            blocks = by_row.reshape(count * plan.pair * batch, plan.bands)
            first, end = first * plan.pair, end * plan.pair - missing * bool(count)
            origin, count = origin * plan.pair, end - first
            blocks = blocks[: count * batch]
        if count:
            total = self._rows * plan.pair - missing if final else None
            self._unwhiten(blocks, first, end, origin, total)
        return self._overlap(blocks.view(count, batch, plan.bands), final)

    def _draw(self, into: Tensor, first: int, missing: int) -> None:
        """Latents of the rows (rows, batch, channels) from row `first` on."""
        plan, (rows, batch, _) = self.plan, into.shape
        z = self.latents(first * plan.pair, rows * plan.pair - missing).permute(2, 0, 1)
        if plan.pair == 1:
            into.copy_(z)
            return
        halves = into.view(rows, batch, plan.pair, plan.bands)
        conditioning = plan.steps[0].parity
        for frame in range(plan.pair):
            own = z[frame :: plan.pair]
            half = halves[:, :, frame ^ conditioning]
            half[: len(own)] = own
            half[len(own) :] = 0

    def _unwhiten(
        self, blocks: Tensor, first: int, end: int, origin: int, total: int | None
    ) -> None:
        """Add the tone to the bands of the frames [first, end), and give them their scale."""
        plan, batch = self.plan, self.batch

        def around(reach: int) -> Tensor:
            return self._exact_rows[
                (first - reach - origin) * batch : (end + reach - origin) * batch
            ]

        if plan.tone is not None:
            reach = plan.tone.reach
            after = 0 if total is None else max(end + reach - total, 0)
            plan.tone.apply(blocks, around(reach), batch, (max(reach - first, 0), after))
        mel = around(plan.scale.reach)[:, : plan.n_mels]
        blocks.mul_(plan.scale(mel, batch, end - first))

    def _with_condition(self, condition: Tensor, missing: int) -> Tensor:
        """Rows of what couplings see, from `mel_history` before the new ones; the last column is 1.

        All of the condition, by frames, goes to `_exact_rows`.
        """
        plan, batch = self.plan, self.batch
        frames = condition.shape[2]
        seen = condition[:, : plan.n_seen]
        new, past = (frames + missing) // plan.pair, plan.mel_history * batch
        rows = plan.buffer(
            "seen", past + (new + plan.filling) * batch, plan.row_seen + 1, plan.dtype
        )
        rows[:past] = self._seen
        fresh = rows[past : past + new * batch].view(new, batch, plan.row_seen + 1)
        for frame in range(plan.pair):
            own = seen[:, :, frame :: plan.pair].permute(2, 0, 1)
            columns = slice(frame * plan.n_seen, (frame + 1) * plan.n_seen)
            fresh[: len(own), :, columns] = own
            if len(own) < new:  # a missing frame takes the condition of the last one
                fresh[-1:, :, columns] = seen[:, :, -1:].permute(2, 0, 1)
        fresh[:, :, -1] = 1
        self._seen.copy_(rows[new * batch : past + new * batch])
        # By frames, with zeros after the end as before the beginning.
        past, channels = past * plan.pair, condition.shape[1]
        exact = plan.buffer(
            "exact", past + (frames + missing + plan.reach) * batch, channels, torch.float32
        )
        exact[:past] = 0 if self._exact is None else self._exact
        exact[past : past + frames * batch].view(frames, batch, channels).copy_(
            condition.permute(2, 0, 1)
        )
        exact[past + frames * batch :] = 0
        self._exact = exact[frames * batch : past + frames * batch].clone()
        self._exact_rows = exact
        return rows

    def _invert(
        self,
        number: int,
        step: Step,
        values: Tensor,
        first: int,
        end: int,
        seen: Tensor,
        seen_origin: int,
        final: bool,
        missing: int,
    ) -> tuple[Tensor, int, int]:
        """The rows [first, end) of the input through one step: (output, its first, its end).

        Row ``history`` of the input, and of the output, is the first new one.
        """
        plan, batch = self.plan, self.batch
        half, hidden = plan.half, plan.hidden
        origin = first - plan.history  # the first row here
        rows = (plan.history + end - first + plan.overhang) * batch
        past = plan.history * batch
        fresh = slice(past, past + (end - first) * batch)
        work = plan.buffer("work", rows, plan.work_columns, plan.dtype)
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
            conditions = plan.buffer("conditions", count, step.condition.shape[1], plan.dtype)
            begin_seen = (condition_first - seen_origin) * batch
            torch.mm(seen[begin_seen : begin_seen + count], step.condition, out=conditions)
        for index, layer in enumerate(step.layers):
            begin = max(begin - layer.right, 0)
            stop = end if final else max(stop - layer.right, 0)
            frames = stop - begin
            if frames <= 0:
                continue
            target = at(begin, stop)
            tapped = work[(begin - layer.left - origin) * batch :, layer.source]
            if conditions is None:
                pre = self._minimal(layer, tapped, seen[(begin - seen_origin) * batch :], frames)
            else:
                own = conditions[
                    (begin - condition_first) * batch : (stop - condition_first) * batch,
                    index * 2 * hidden : (index + 1) * 2 * hidden,
                ]
                pre = self._direct(layer, tapped, own)
            for offset, edge in layer.edges:
                # Taps before the beginning of the utterance, or after its end.
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
            # What later frames need.
            keep = slice((end - first) * batch, (end - first) * batch + past)
            self._values[number].copy_(values[keep])
            self._work[number].copy_(work[keep])
        output = plan.buffer(
            f"values{1 + number % 2}",
            (plan.history + max(stop - begin, 0) + plan.overhang) * batch,
            plan.channels,
            torch.float32,
        )
        if stop <= begin:
            return output, begin, begin
        target = at(begin, stop)
        gates = work[target, step.layers[0].gate.start : step.layers[-1].gate.stop]
        shift_scale = plan.buffer("shift", (stop - begin) * batch, step.output.shape[1], plan.dtype)
        torch.addmm(step.output_bias, gates, step.output, out=shift_scale)
        targets = plan.channels - half
        log_scale = shift_scale[:, targets:].float()
        if step.log_scale_bound is not None:
            log_scale.div_(step.log_scale_bound).tanh_().mul_(step.log_scale_bound)
        moved = values[target]
        moved[:, half:].add_(shift_scale[:, :targets]).mul_(log_scale.exp_())
        unmixed = output[past : past + (stop - begin) * batch]
        if plan.pair == 1:
            torch.mm(moved, step.unmix, out=unmixed)
            return output, begin, stop
        # The frame that conditions the next step comes first; after the last step, the even one.
        following = plan.steps[number + 1].parity if number + 1 < len(plan.steps) else 0
        for half_of, halves in ((step.parity, moved[:, :half]), (1 - step.parity, moved[:, half:])):
            at_half = (half_of ^ following) * half
            torch.mm(halves, step.unmix, out=unmixed[:, at_half : at_half + half])
        if final and missing:
            odd = (1 ^ following) * half
            unmixed[-batch:, odd : odd + half] = 0
        return output, begin, stop

    def _direct(self, layer: Layer, tapped: Tensor, condition: Tensor) -> Tensor:
        """A dilated convolution as one product of its gathered taps, plus the condition.

        Row 0 of ``tapped`` is the first tap of the first output.
        """
        rows, inputs = condition.shape[0], tapped.shape[1]
        taps = self.plan.buffer("taps", rows, layer.taps * inputs, self.plan.dtype)
        stride = tapped.stride(0)
        gathered = tapped.as_strided(
            (rows, layer.taps, inputs), (stride, layer.dilation * self.batch * stride, 1)
        )
        taps.view(rows, layer.taps, inputs).copy_(gathered)
        pre = self.plan.buffer("pre", rows, layer.weight.shape[1], self.plan.dtype)
        torch.addmm(condition, taps, layer.weight, out=pre)
        return pre

    def _minimal(self, layer: Layer, tapped: Tensor, seen: Tensor, frames: int) -> Tensor:
        r"""The same, with its condition, by minimal filtering.

        Time goes in pairs of blocks as long as the dilation. Of inputs :math:`d_0 .. d_3`, a block
        apart, and taps :math:`g_0, g_1, g_2` a pair of outputs is

        .. math::
            m_0 &= (d_0 - d_2) g_0, & m_1 &= (d_1 + d_2) (g_0 + g_1 + g_2) / 2, \\
            m_3 &= (d_3 - d_1) g_2, & m_2 &= (d_2 - d_1) (g_0 - g_1 + g_2) / 2, \\
            y_0 &= m_0 + m_1 + m_2, & y_1 &= m_1 - m_2 + m_3.

        The condition is added to :math:`m_0` and :math:`m_3`. Rows that fill up the last pair hold
        arbitrary values and are left out of the result.
        """
        assert layer.minimal is not None
        plan, inputs = self.plan, tapped.shape[1]
        block = layer.dilation * self.batch
        pairs = -(-frames * self.batch // (2 * block))

        def blocks(of: Tensor, number: int) -> Tensor:
            stride = of.stride(0)
            return of[number * block :].as_strided(
                (pairs, block, of.shape[1]), (2 * block * stride, stride, 1)
            )

        def rows(name: str, columns: int) -> Tensor:
            return plan.buffer(name, pairs * block, columns, plan.dtype).view(pairs, block, columns)

        d0, d1, d2, d3 = (blocks(tapped, number) for number in range(4))
        outer, inner = inputs + seen.shape[1], inputs
        v0, v1, v2, v3 = (rows(f"v{n}", w) for n, w in enumerate((outer, inner, inner, outer)))
        torch.sub(d0, d2, out=v0[:, :, :inputs])
        torch.add(d1, d2, out=v1)
        torch.sub(d2, d1, out=v2)
        torch.sub(d3, d1, out=v3[:, :, :inputs])
        v0[:, :, inputs:] = blocks(seen, 0)
        v3[:, :, inputs:] = blocks(seen, 1)
        width = layer.weight.shape[1]
        m0, m1, m2, m3 = (rows(f"m{n}", width) for n in range(4))
        for m, v, weight in zip((m0, m1, m2, m3), (v0, v1, v2, v3), layer.minimal, strict=True):
            torch.mm(v.flatten(0, 1), weight, out=m.view(pairs * block, width))
        pre = plan.buffer("pre", 2 * pairs * block, width, plan.dtype)
        both = pre.view(pairs, 2, block, width)
        torch.add(m1, m2, out=both[:, 0]).add_(m0)
        torch.sub(m1, m2, out=both[:, 1]).add_(m3)
        return pre[: frames * self.batch]

    def _overlap(self, blocks: Tensor, final: bool) -> Tensor:
        """The inverse MDCT: blocks of bands to blocks of samples, one block later."""
        plan, batch = self.plan, self.batch
        half, count = plan.bands // 2, blocks.shape[0]
        raw = torch.mm(blocks.reshape(count * batch, plan.bands), plan.dct)
        raw = raw.view(count, batch, plan.bands)
        lefts, rights = raw[:, :, :half], raw[:, :, half:]
        # The outer ends of an utterance have no neighbour, so those halves are not rotated.
        done = lefts[:1]
        if self._waiting is not None:
            done, right = self._waiting
            rights = torch.cat([right, rights])
        else:
            lefts = lefts[1:]
        # Pairs mirrored about each boundary; the half before it comes mirrored from `plan.dct`.
        before = rights[: lefts.shape[0]]
        done = torch.cat([done, plan.sin * lefts - plan.cos * before])
        turned = plan.sin * before + plan.cos * lefts
        if final:
            turned = torch.cat([turned, rights[lefts.shape[0] :]])
        elif rights.shape[0]:
            self._waiting = done[-1:], rights[-1:].clone()
        return torch.cat([done[: turned.shape[0]], turned.flip(-1)], dim=2)
