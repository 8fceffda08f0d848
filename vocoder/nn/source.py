"""A harmonic source read off the mel, as frequency bands: what a flow at the mel rate can see."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.source import HarmonicSource, SourceState
from vocoder.flows import Mdct

from .pitch import load_pitch

CENTRE_HZ = 150.0


class Reading(NamedTuple):
    """What a mel shows of the source, (batch, frames) each.

    Attributes:
        f0: in Hz, float64, of unvoiced frames too.
        probability: of voicing, in the dtype of the mel.
        voiced: 1 where a frame is voiced, else 0; as the mel.
    """

    f0: Tensor
    probability: Tensor
    voiced: Tensor


class MelSource(nn.Module):
    r"""A log-mel to the MDCT of a harmonic source, with F0 and voicing as the mel shows them.

    .. math:: s = \bigl[v,\; v \ln(f / 150\,\mathrm{Hz}),\; E,\; Q\bigr]

    F0 f and the voicing v, a probability, are those of `MelPitch`, with the bundled weights, which
    stay as they are in training. E and Q are the MDCT of the tone e and its quadrature q
    (`HarmonicSource`), which sound in frames with v of 0.5 or more and are of unit power there.

    F0 and phase are computed in float64, so that pieces of an utterance of any length give what the
    whole gives.

    Args:
        mel_spec: the convention of the mel.
        bands: of the MDCT; the hop of the mel.
    """

    def __init__(self, mel_spec: MelSpec, bands: int) -> None:
        super().__init__()
        self.pitch = load_pitch(mel_spec)
        self.source = HarmonicSource(mel_spec.sample_rate, bands)
        self.mdct = Mdct(bands)
        self.channels = 2 + 2 * bands
        """Channels of s."""
        back, ahead = self.pitch.context_frames
        self.look_ahead = ahead + 2
        """Frames after a frame on which its s depends; it depends on all before it."""
        self._pitch_context = back, ahead

    def train(self, mode: bool = True) -> MelSource:
        super().train(mode)
        self.pitch.eval()
        return self

    def forward(
        self, mel: Tensor, phase: Tensor | float = 0.0, audio: Tensor | None = None
    ) -> Tensor:
        """s of whole utterances, (batch, channels, frames).

        Args:
            mel: (batch, n_mels, frames).
            phase: of the source before the first sample, in cycles; a number or (batch,).
            audio: (batch, frames * hop); if given, the source is locked to the phase of its
                fundamental (`HarmonicSource.drift_of`), and ``phase`` has no effect.
        """
        return self.tone(self.read(mel), phase, audio)

    def read(self, mel: Tensor) -> Reading:
        """F0 and voicing of a mel (batch, n_mels, frames): the part that no phase changes."""
        with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
            f0, probability = self.pitch(mel.double())
            voiced = (probability >= 0.5).to(mel.dtype)
            return Reading(f0, probability.to(mel.dtype), voiced)

    def tone(
        self, reading: Reading, phase: Tensor | float = 0.0, audio: Tensor | None = None
    ) -> Tensor:
        """s of what `read` gave; see `forward`."""
        f0, probability, voiced = reading
        with torch.no_grad(), torch.autocast(f0.device.type, enabled=False):
            drift = None
            if audio is not None:
                phase, drift = 0.0, self.source.drift_of(audio.to(voiced.dtype), f0, voiced)
            e, q = self.source(f0, voiced, phase, drift)
            bands = [self.mdct(x.unsqueeze(1))[0] for x in (e, q)]
            return torch.cat([self._features(f0, probability), *bands], dim=1)

    def stream(self, batch: int, phase: Tensor | float = 0.0) -> SourceStream:
        """s in pieces, from pieces of the mel."""
        return SourceStream(self, batch, phase)

    def _features(self, f0: Tensor, probability: Tensor) -> Tensor:
        logarithm = (f0 / CENTRE_HZ).log().to(probability.dtype)
        return torch.stack([probability, probability * logarithm], dim=1)


class SourceStream:
    """The source of utterances whose mel comes in pieces; see `MelSource`.

    Args:
        source: the module.
        batch: number of items, of equal length.
        phase: as in `MelSource.forward`.
    """

    def __init__(self, source: MelSource, batch: int, phase: Tensor | float = 0.0) -> None:
        self.source = source
        self._phase = phase
        self._mel: Tensor | None = None  # frames that are still needed
        self._known = 0  # frames of it before the first whose F0 is not yet read
        self._state: SourceState | None = None
        self._features: list[Tensor] = []  # that wait for their bands
        self._blocks = [torch.zeros(batch, 0, source.mdct.bands) for _ in range(2)]  # of e and q
        self._begun = False  # whether the first two blocks have been transformed already

    def push(self, mel: Tensor, last: bool) -> Tensor:
        """s of the frames (batch, channels, frames) that more mel completes.

        Args:
            mel: the next frames, (batch, n_mels, frames); none is allowed.
            last: whether the mel ends here; then s ends as well.
        """
        source = self.source
        with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
            features = self._read(mel, last)
            if features is not None:
                self._features.append(features)
            bands = [self._transform(index, last) for index in range(2)]
            count = bands[0].shape[2]
            waiting = torch.cat(self._features, dim=2) if self._features else mel[:, :2, :0]
            self._features = [waiting[:, :, count:]]
            result = torch.cat([waiting[:, :, :count], *bands], dim=1)
            assert result.shape[1] == source.channels
            return result

    def _read(self, mel: Tensor, last: bool) -> Tensor | None:
        """Voicing and F0 of the next frames; their source goes to `_blocks`."""
        source = self.source
        back, ahead = source._pitch_context
        self._mel = mel if self._mel is None else torch.cat([self._mel, mel], dim=2)
        ready = self._mel.shape[2] - self._known - (0 if last else ahead)
        if ready <= 0:
            return None
        own = slice(self._known, self._known + ready)
        f0, probability, voiced = (x[:, own] for x in source.read(self._mel))
        drop = max(own.stop - back, 0)
        self._mel, self._known = self._mel[:, :, drop:], own.stop - drop
        fresh = f0, voiced
        if self._state is None:
            self._state = source.source.start(f0[:, 0], voiced[:, 0], self._phase)
            fresh = f0[:, 1:], voiced[:, 1:]
        e, q, self._state = source.source.push(*fresh, self._state, last)
        for index, samples in enumerate((e, q)):
            blocks = samples.reshape(len(samples), -1, source.mdct.bands)
            held = self._blocks[index].to(blocks)
            self._blocks[index] = torch.cat([held, blocks], dim=1)
        return source._features(f0, probability)

    def _transform(self, index: int, last: bool) -> Tensor:
        """The MDCT of the blocks of e or q whose neighbours are there."""
        blocks = self._blocks[index]
        old = 1 if self._begun else 0  # a block that only completes its neighbour
        count = blocks.shape[1] - old - (0 if last else 1)
        if count <= 0:
            return blocks[:, :0].transpose(1, 2)
        bands, _ = self.source.mdct(blocks.reshape(len(blocks), 1, -1))
        self._blocks[index] = blocks[:, old + count - 1 :]
        if index == 1:
            self._begun = True
        return bands[:, :, old : old + count]
