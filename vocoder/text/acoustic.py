"""The acoustic model: phonemes to a log-mel, by way of durations, pitch and loudness."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vocoder.audio import MelSpec
from vocoder.models import SavedModel
from vocoder.models.card import ACOUSTIC
from vocoder.nn import ConvNeXtBlock
from vocoder.text.alignment import whole_durations
from vocoder.text.frontend import LONGEST_TEXT

REFERENCE_HZ = 150.0
"""Pitch is the logarithm of F0 over this frequency."""

_HARMONICS = 8


class Batch(NamedTuple):
    """Excerpts of utterances, padded with zeros; B excerpts, S symbols, T frames."""

    symbols: Tensor  # (B, S) int64, of the whole texts, as `AcousticModel.indices` gives them
    symbol_counts: Tensor  # symbols of each text, (B,)
    voice: Tensor  # index of the voice, (B,)
    durations: Tensor  # frames of every state of the whole text, (B, S * states)
    place: Tensor  # of every frame of the excerpt, as `places` gives it, (B, T, 3) int64
    mel: Tensor  # log-mel, (B, T, n_mels)
    pitch: Tensor  # log(F0 / 150 Hz), (B, T)
    voicing: Tensor  # probability that the frame is voiced, (B, T)
    mask: Tensor  # 1 where there are frames and 0 in the padding, (B, T, 1)


class Predicted(NamedTuple):
    """What `AcousticModel.forward` predicts of a `Batch`."""

    log_duration: Tensor  # log of the mean duration of every state in frames, (B, S * states)
    symbol_mask: Tensor  # 1 where that is no padding, (B, S * states)
    pitch: Tensor  # log(F0 / 150 Hz), (B, T)
    voicing: Tensor  # logits, (B, T)
    loudness: Tensor  # mean over the bands of the normalised mel, (B, T)
    mel: Tensor  # the log-mel given the true pitch, voicing and loudness, (B, T, n_mels)


class AcousticModel(SavedModel):
    r"""Phonemes to log-mel frames, in one parallel pass.

    .. math:: h = E(c, u), \qquad d_s = e^{l_s(h)}, \qquad
        (p, v, e)_t = P(h_{s(t)}, k_t), \qquad x_t = D(h_{s(t)}, k_t, p, v, e)

    c are the symbols of the text and u the voice; every symbol (and a mark at either end, for the
    silence there) has ``states`` states in a row, and s(t) is the state of frame t under the
    durations d, k_t its place in that state. E works on symbols; P predicts pitch (log F0), voicing
    and loudness of every frame; D makes the log-mel x of them, so that speaking rate and pitch can
    be changed. E, P and D are stacks of `ConvNeXtBlock`. The prediction is a mean: a
    restoring flow (`vocoder.models.restoration`) can add the detail that a mean lacks.

    Durations and the idea of predicting pitch and energy: FastSpeech 2 (Ren et al., 2021); pitch as
    an input of the decoder: FastPitch (Łańcucki, 2021).

    Args:
        symbols: the phonemes and marks that texts are made of, in a fixed order.
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        voices: names of the voices; the first is the default.
        channels: width of all blocks.
        encoder_blocks, prosody_blocks, decoder_blocks: of E, P and D.
        states: states per symbol, 1 or more.
    """

    architecture = title = "acoustic model"
    card = ACOUSTIC
    default_temperature = 0.0
    reads_text = False
    """`synthesize` takes phonemes; `vocoder.text.tacotron2` takes letters."""

    mel_mean: Tensor
    mel_scale: Tensor
    prosody_mean: Tensor

    def __init__(
        self, symbols: Sequence[str], mel_spec: MelSpec | str = "ljspeech",
        voices: Sequence[str] = ("speaker",), channels: int = 256, encoder_blocks: int = 6,
        prosody_blocks: int = 4, decoder_blocks: int = 8, states: int = 2,
    ) -> None:  # fmt: skip
        super().__init__(mel_spec)
        self.symbols = tuple(symbols)
        self.voices = tuple(voices)
        self.states = states
        self._index = {symbol: index for index, symbol in enumerate(self.symbols, 1)}
        n_mels = self.mel_spec.n_mels
        self.embedding = nn.Embedding(len(self.symbols) + 1, channels)
        self.voice = nn.Embedding(len(self.voices), channels)
        self.symbol_place = nn.Linear(4, channels)
        self.encoder = _blocks(encoder_blocks, channels, 9, 2)
        hidden = nn.Linear(channels, channels), nn.GELU(approximate="tanh")
        self.duration = nn.Sequential(nn.LayerNorm(channels), *hidden, nn.Linear(channels, states))
        self.state = nn.Parameter(torch.randn(states, channels) * 0.1)
        self.frame_place = nn.Linear(5, channels)
        self.prosody = _blocks(prosody_blocks, channels, 9, 2)
        self.prosody_out = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 3))
        self.prosody_in = nn.Linear(3 + 2 * _HARMONICS, channels)
        self.decoder = _blocks(decoder_blocks, channels, 7, 3)
        self.mel_out = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, n_mels))
        # Statistics of the corpus, set by `normalise_by`.
        self.register_buffer("mel_mean", torch.zeros(n_mels))
        self.register_buffer("mel_scale", torch.ones(n_mels))
        self.register_buffer("prosody_mean", torch.zeros(len(self.voices), 2))

    def fused(self) -> AcousticModel:
        """The model in evaluation mode, its weights without gradients."""
        return self.eval().requires_grad_(False)

    def with_voices(self, voices: Sequence[str]) -> AcousticModel:
        """A copy for other voices, to train further: a new voice starts as the mean of all."""
        model = AcousticModel.from_config({**self.config, "voices": list(voices)})
        state = self.state_dict()
        for name in ("voice.weight", "prosody_mean"):
            old = state[name]
            state[name] = torch.stack(
                [old[self.voices.index(v)] if v in self.voices else old.mean(0) for v in voices]
            )
        model.load_state_dict(state)
        return model

    @torch.no_grad()
    def synthesize(
        self,
        phonemes: Sequence[str],
        voice: str | None = None,
        speaking_rate: float = 1.0,
        pitch: float = 0.0,
        durations: Tensor | None = None,
    ) -> Tensor:
        """A log-mel spectrogram (n_mels, frames), float32, in the convention of `mel_spec`.

        Args:
            phonemes: what to say, of `symbols`.
            voice: one of `voices`; None takes the first.
            speaking_rate: 2 is twice as fast, 0.5 half as fast; 0.25 to 4.
            pitch: semitones higher (or lower, if negative) than predicted; -12 to 12.
            durations: frames of every state, (states * (phonemes + 2),) whole numbers; None
                predicts them.

        Raises:
            ValueError: no phonemes, too many, unknown ones, an unknown voice, or an argument out of
                range.
        """
        self.check(pitch=pitch)
        encoded, speaker, predicted = self._read(phonemes, voice, speaking_rate)
        if durations is None:
            durations = predicted
        elif durations.shape != predicted.shape or int(durations.sum()) < 1:
            raise ValueError(
                f"durations of shape {tuple(durations.shape)} and sum {int(durations.sum())} do "
                f"not fit: {len(predicted)} whole numbers are needed, not all 0"
            )
        place = places(durations).to(self.device)[None]
        mask = encoded.new_ones(1, place.shape[1], 1)
        hidden = self.spread(encoded, place, mask)
        log_f0, voicing, loudness = self.predict_prosody(hidden, speaker, mask)
        log_f0 = log_f0 + pitch * math.log(2) / 12
        mel = self.decode(hidden, log_f0, torch.sigmoid(voicing), loudness, mask)
        return mel[0].T.float()

    @torch.no_grad()
    def durations(
        self, phonemes: Sequence[str], voice: str | None = None, speaking_rate: float = 1.0
    ) -> Tensor:
        """The durations that `synthesize` predicts: (states * (phonemes + 2),) int64, in frames."""
        return self._read(phonemes, voice, speaking_rate)[2]

    def _read(
        self, phonemes: Sequence[str], voice: str | None, speaking_rate: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encoded symbols (1, S, channels), index of the voice (1,), and predicted durations."""
        self.check(voice, speaking_rate)
        symbols = self.indices(phonemes).to(self.device)[None]
        counts = torch.tensor([symbols.shape[1]], device=self.device)
        index = 0 if voice is None else self.voices.index(voice)
        speaker = torch.tensor([index], device=self.device)
        encoded, _, log_duration = self.encode(symbols, counts, speaker)
        durations = whole_durations(log_duration[0].double().exp().cpu() / speaking_rate)
        durations[-1] += int(durations.sum() == 0)  # a mel has a frame
        return encoded, speaker, durations

    def check(
        self, voice: str | None = None, speaking_rate: float = 1.0, pitch: float = 0.0
    ) -> None:
        """Raises ValueError if the model has no such voice, or a number is out of range."""
        if voice is not None and voice not in self.voices:
            raise ValueError(f"there is no voice {voice!r}: choose {' or '.join(self.voices)}")
        if not 0.25 <= speaking_rate <= 4:
            raise ValueError(f"speaking_rate is {speaking_rate}: it must be from 0.25 to 4 (fast)")
        if not -12 <= pitch <= 12:
            raise ValueError(f"pitch is {pitch}: it must be from -12 to 12 semitones")

    def indices(self, phonemes: Sequence[str]) -> Tensor:
        """Indices of the symbols for the network: (symbols + 2,) int64, with a mark at either end;
        ValueError if there are none, too many at once, or unknown ones."""
        if isinstance(phonemes, str):
            raise ValueError("phonemes is one string: give a list with one string a phoneme")
        if not phonemes:
            raise ValueError("there are no phonemes to say: the text is empty")
        if (count := len(phonemes)) > LONGEST_TEXT:
            limit = f"(at most {LONGEST_TEXT}): split the text into sentences"
            raise ValueError(f"{count} phonemes are too many at once {limit}")
        if unknown := ", ".join(map(repr, sorted(set(phonemes) - self._index.keys()))):
            known = " ".join(self.symbols)
            raise ValueError(f"the model knows no phoneme {unknown}; it knows {known}")
        return torch.tensor([0, *(self._index[p] for p in phonemes), 0])

    def forward(self, batch: Batch) -> Predicted:
        """Everything that the model predicts of a batch, given its durations."""
        encoded, mask, log_duration = self.encode(batch.symbols, batch.symbol_counts, batch.voice)
        hidden = self.spread(encoded, batch.place, batch.mask)
        pitch, voicing, loudness = self.predict_prosody(hidden, batch.voice, batch.mask)
        true_loudness = self.loudness(batch.mel) * batch.mask[..., 0]
        mel = self.decode(hidden, batch.pitch, batch.voicing, true_loudness, batch.mask)
        symbol_mask = mask.expand(-1, -1, self.states).flatten(1)
        return Predicted(log_duration, symbol_mask, pitch, voicing, loudness, mel)

    def loudness(self, mel: Tensor) -> Tensor:
        """Mean over the bands of the normalised mel: (..., n_mels) to (...)."""
        return ((mel - self.mel_mean) / self.mel_scale).mean(dim=-1)

    @torch.no_grad()
    def normalise_by(self, mean: Tensor, scale: Tensor, prosody: Tensor) -> None:
        """Set the fixed statistics: mean and standard deviation of each band, (n_mels,), and mean
        pitch and loudness of each voice, (voices, 2)."""
        self.mel_mean.copy_(mean)
        self.mel_scale.copy_(scale)
        self.prosody_mean.copy_(prosody)

    def encode(
        self, symbols: Tensor, counts: Tensor, voice: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encoded symbols (B, S, channels), their mask (B, S, 1) and log-durations of the states
        (B, S * states)."""
        first = torch.arange(symbols.shape[1], device=symbols.device).expand(symbols.shape).float()
        total = counts.unsqueeze(1).float()
        mask = (first < total).float().unsqueeze(2)
        ends = torch.log1p(first) / 4, torch.log1p((total - 1 - first).clamp_min(0)) / 4
        place = [*ends, (first / total).clamp(max=1), total.log().expand_as(first) / 5]
        x = self.embedding(symbols) + self.voice(voice).unsqueeze(1)
        x = (x + self.symbol_place(torch.stack(place, dim=-1))) * mask
        for block in self.encoder:
            x = block(x, mask)
        return x, mask, self.duration(x).float().flatten(1)

    def spread(self, encoded: Tensor, place: Tensor, mask: Tensor) -> Tensor:
        """The encoded symbols at every frame, (B, T, channels), with the place in the state."""
        states = (encoded.unsqueeze(2) + self.state).flatten(1, 2)
        state, frame, length = place.unbind(dim=-1)
        batch = torch.arange(len(state), device=state.device).unsqueeze(1)
        frame, length = frame.float(), length.float()
        fraction = (frame + 0.5) / length
        ends = frame.clamp(max=20) / 10, (length - frame).clamp(max=20) / 10
        features = [fraction, 1 - fraction, length.log(), *ends]
        return (states[batch, state] + self.frame_place(torch.stack(features, dim=-1))) * mask

    def predict_prosody(
        self, hidden: Tensor, voice: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pitch, logits of voicing, and loudness, (B, T) each."""
        for block in self.prosody:
            hidden = block(hidden, mask)
        pitch, voicing, loudness = self.prosody_out(hidden).float().unbind(dim=-1)
        mean_pitch, mean_loudness = self.prosody_mean[voice].unbind(dim=-1)
        return pitch + mean_pitch.unsqueeze(1), voicing, loudness + mean_loudness.unsqueeze(1)

    def decode(
        self, hidden: Tensor, pitch: Tensor, voicing: Tensor, loudness: Tensor, mask: Tensor
    ) -> Tensor:
        """The log-mel (B, T, n_mels) of spread symbols with pitch, voicing (0 to 1), loudness."""
        v, p = voicing.unsqueeze(2), pitch.unsqueeze(2)
        # One number cannot place resolved harmonics in 80 bands; these waves of it can.
        waves = 3.0 * torch.arange(1, _HARMONICS + 1, device=p.device) * p
        features = [v, v * p, v * waves.sin(), v * waves.cos(), loudness.unsqueeze(2)]
        x = (hidden + self.prosody_in(torch.cat(features, dim=-1))) * mask
        for block in self.decoder:
            x = block(x, mask)
        mel: Tensor = self.mel_out(x).float() * self.mel_scale + self.mel_mean
        return mel


def _blocks(count: int, channels: int, kernel_size: int, expansion: int) -> nn.ModuleList:
    return nn.ModuleList(ConvNeXtBlock(channels, kernel_size, expansion) for _ in range(count))


def places(durations: Tensor) -> Tensor:
    """State, frame within the state, and frames of the state, for every frame: (frames, 3) int64,
    from the frames of every state, (states,) int64."""
    durations = durations.cpu()
    state = torch.repeat_interleave(torch.arange(len(durations)), durations)
    start = durations.cumsum(dim=0) - durations
    frame = torch.arange(len(state)) - start[state]
    return torch.stack([state, frame, durations[state]], dim=1)


def load_checkpoint(path: str | os.PathLike[str]) -> AcousticModel:
    """The acoustic model of a checkpoint directory, in evaluation mode, on the CPU, in float32;
    CheckpointError if there is none that this version reads."""
    return AcousticModel.load(path, "recipes/ljspeech/train_acoustic.py")
