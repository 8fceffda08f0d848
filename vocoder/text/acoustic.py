"""The acoustic model: from phonemes to a log-mel spectrogram, by a normalizing flow."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vocoder.audio import MelSpec, Noise
from vocoder.checkpoints import CheckpointError, no_larger_than, read_checkpoint
from vocoder.models.card import ACOUSTIC
from vocoder.models.saved import SavedModel
from vocoder.nn import SequenceEncoder
from vocoder.text.alignment import monotonic_alignment_search
from vocoder.text.durations import DurationPredictor, duration_loss, spoken_durations
from vocoder.text.mel_flow import FRAMES_PER_STEP, MelFlow
from vocoder.text.prior import Prior, length_mask
from vocoder.text.settings import ACOUSTIC_TEMPERATURE, LONGEST_TEXT, check_speaking_rate

KIND = "acoustic model"
"""Marks checkpoints of acoustic models in ``config.json``, as ``family`` marks vocoders."""


class Batch(NamedTuple):
    """Utterances to train on or to score, padded with zeros.

    symbols: (batch, symbols) int64, as `AcousticModel.indices` gives them.
    symbol_counts: symbols of each item, (batch,).
    mel: (batch, n_mels, frames), log-mels in the convention of the model's `MelSpec`.
    frames: frames of each item, (batch,), even.
    """

    symbols: Tensor
    symbol_counts: Tensor
    mel: Tensor
    frames: Tensor


class Scored(NamedTuple):
    """A batch along one alignment of text and mel.

    prior: of the texts, over the latents.
    z: latents, (batch, n_mels, frames).
    durations: frames of every state, (batch, states).
    log_likelihood: log p(mel | text, durations) in nats, (batch,).
    """

    prior: Prior
    z: Tensor
    durations: Tensor
    log_likelihood: Tensor


class AcousticModel(SavedModel):
    r"""Glow-TTS: phonemes to log-mel frames by a flow whose prior is set by the aligned text.

    .. math:: \log p(x \mid c, d) = \sum_{t=1}^{T} \log
        \mathcal N\bigl(z_t;\ \mu_{s(t)},\ \sigma_{s(t)}^2\bigr)
        + \log |\det \partial f / \partial x|, \qquad z = f(x)

    x are the T frames of a mel, z the latents (`MelFlow`), and s(t) is the state of frame t. Every
    symbol of the text c (and a mark at either end, for the silence there) has ``states`` states in
    a row, as in a hidden Markov model; an encoder that sees the whole text gives each its means,
    scales and expected duration. In training the durations d are found by monotonic alignment
    search; in synthesis they are predicted. Paper: Glow-TTS (Kim et al., 2020); new here are the
    states, the learnt scales, and separate means for even and odd frames (the flow works on pairs
    of frames).

    Args:
        symbols: the phonemes and marks that texts are made of, in a fixed order.
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        encoder_channels, encoder_layers, n_heads, n_convolutions, dropout: of the text's
            `SequenceEncoder`.
        n_flows, channels, n_layers, kernel_size: steps of the `MelFlow`, and width, depth and
            taps of the stack in each.
        states: states per symbol, 1 or more.
        log_scale_bound: bound of the couplings' and the prior's log-scales.
        weight_norm: weight normalisation in the couplings.

    Raises:
        ValueError: sizes that do not fit together; the message names them.
    """

    title = "acoustic model"
    card = ACOUSTIC
    default_temperature = ACOUSTIC_TEMPERATURE

    normal_mean: Tensor
    normal_scale: Tensor

    def __init__(
        self,
        symbols: Sequence[str],
        mel_spec: MelSpec | str = "ljspeech",
        encoder_channels: int = 160,
        encoder_layers: int = 4,
        n_heads: int = 2,
        n_convolutions: int = 2,
        dropout: float = 0.1,
        n_flows: int = 8,
        channels: int = 128,
        n_layers: int = 3,
        kernel_size: int = 3,
        states: int = 2,
        log_scale_bound: float = 3.0,
        weight_norm: bool = True,
    ) -> None:
        super().__init__(mel_spec)
        if not symbols or len(set(symbols)) < len(symbols):
            raise ValueError("symbols must be a list of different strings, at least one")
        if n_flows < 1 or states < 1:
            raise ValueError(f"n_flows is {n_flows} and states {states}: both must be at least 1")
        self.symbols = tuple(symbols)
        self.states = states
        self.log_scale_bound = log_scale_bound
        n_mels = self.mel_spec.n_mels
        self._index = {symbol: index for index, symbol in enumerate(self.symbols, 1)}
        self.embedding = nn.Embedding(len(self.symbols) + 1, encoder_channels)
        self.encoder = SequenceEncoder(
            encoder_channels, encoder_layers, n_heads, n_convolutions, dropout=dropout
        )
        # Mean and log-scale of each band, for even and odd frames, in each state.
        self.prior_of = nn.Linear(encoder_channels, states * FRAMES_PER_STEP * 2 * n_mels)
        nn.init.normal_(self.prior_of.weight, std=0.02)
        nn.init.zeros_(self.prior_of.bias)
        self.duration_of = DurationPredictor(encoder_channels, states, dropout)
        nn.init.constant_(self.duration_of.out.bias, 1.0)
        self.flow = MelFlow(
            n_mels, n_flows, channels, n_layers, kernel_size, log_scale_bound, weight_norm
        )
        # Set from the corpus by `normalise_by`; not trained.
        self.register_buffer("normal_mean", torch.zeros(n_mels, 1))
        self.register_buffer("normal_scale", torch.ones(n_mels, 1))

    @classmethod
    def header(cls) -> dict[str, str]:
        return {"kind": KIND}

    def fused(self) -> AcousticModel:
        """The same function in the form that is fastest to run.

        Weight normalisation is taken out, and the 1x1 convolutions are inverted once.

        Returns:
            A new model, on the same device, in evaluation mode and frozen: its weights take no
            gradient, and it refuses to go back to training. It can be pickled.
        """
        return self._frozen_copy()

    # -- synthesis -----------------------------------------------------------------------------

    @torch.no_grad()
    def synthesize(
        self,
        phonemes: Sequence[str],
        temperature: float | None = None,
        speaking_rate: float = 1.0,
        seed: int = 0,
        durations: Tensor | None = None,
    ) -> Tensor:
        """A log-mel spectrogram (n_mels, frames), float32, in the convention of `mel_spec`.

        Args:
            phonemes: what to say, of `symbols`.
            temperature: scale of the latent noise, 0 or more; 0 is deterministic and flat, 1
                samples the model's density. None takes `default_temperature`.
            speaking_rate: 2 is twice as fast, 0.5 half as fast; 0.25 to 4.
            seed: of the noise; the same frames get the same noise.
            durations: frames of every state, (states * (phonemes + 2),) whole numbers with an even
                sum; None predicts them.

        Raises:
            ValueError: no phonemes, too many, unknown ones, or an argument out of range.
        """
        temperature = self._temperature(temperature)
        check_speaking_rate(speaking_rate)
        prior = self.read(phonemes)
        if durations is None:
            durations = spoken_durations(prior.log_duration[0], speaking_rate)
        else:
            states, frames = prior.log_duration.shape[1], int(durations.sum())
            if durations.shape != (states,) or frames % FRAMES_PER_STEP or not frames:
                raise ValueError(
                    f"durations of shape {tuple(durations.shape)} and sum {frames} do not fit: "
                    f"{states} numbers with an even sum are needed"
                )
        durations = durations.unsqueeze(0).to(self.device)
        return self.render(prior, durations, temperature, seed)[0].float()

    @torch.no_grad()
    def durations(self, phonemes: Sequence[str], speaking_rate: float = 1.0) -> Tensor:
        """The durations that `synthesize` predicts: (states * (phonemes + 2),) int64, in frames.

        Raises:
            ValueError: as `synthesize`.
        """
        return spoken_durations(self.read(phonemes).log_duration[0], speaking_rate)

    @torch.no_grad()
    def render(self, prior: Prior, durations: Tensor, temperature: float, seed: int) -> Tensor:
        """A mel (1, n_mels, frames) from the prior of one text and its durations, (1, states)."""
        frames = int(durations.sum())
        mean, log_scale = prior.frames(durations, frames)
        noise = Noise(seed).normal(0, frames, self.mel_spec.n_mels).T.to(mean.device)
        return self.inverse(mean + temperature * log_scale.exp() * noise)

    # -- text ----------------------------------------------------------------------------------

    def indices(self, phonemes: Sequence[str]) -> Tensor:
        """Indices of the symbols for the network: (symbols + 2,) int64, with a mark at either end.

        Raises:
            ValueError: no phonemes, too many at once, or one that the model does not know.
        """
        if isinstance(phonemes, str):
            raise ValueError("phonemes is one string: give a list with one string a phoneme")
        if not phonemes:
            raise ValueError("there are no phonemes to say: the text is empty")
        if len(phonemes) > LONGEST_TEXT:
            raise ValueError(
                f"{len(phonemes)} phonemes are too many at once (at most {LONGEST_TEXT}): split "
                "the text into sentences"
            )
        unknown = sorted({p for p in phonemes if p not in self._index})
        if unknown:
            raise ValueError(
                f"the model knows no phoneme {', '.join(map(repr, unknown))}; it knows "
                f"{' '.join(self.symbols)}"
            )
        return torch.tensor([0, *(self._index[p] for p in phonemes), 0])

    def read(self, phonemes: Sequence[str]) -> Prior:
        """The `prior` of one text.

        Raises:
            ValueError: as `indices`.
        """
        symbols = self.indices(phonemes).to(self.device)
        return self.prior(symbols.unsqueeze(0), torch.tensor([len(symbols)], device=self.device))

    def prior(self, symbols: Tensor, counts: Tensor) -> Prior:
        """What the texts say about the latents.

        Args:
            symbols: (batch, symbols), from `indices`, padded.
            counts: symbols of each item, (batch,).
        """
        mask = length_mask(counts, symbols.shape[1])
        encoded = self.encoder(self.embedding(symbols), mask)
        # The durations follow the alignment and must not shape what is aligned.
        log_duration = self.duration_of(encoded.detach(), mask).float().flatten(1)
        wide = torch.promote_types(encoded.dtype, torch.float32)
        with torch.autocast(encoded.device.type, enabled=False):
            parameters = self.prior_of(encoded.to(wide))
        # (batch, symbols, states * ...) -> (batch, symbols * states, mean and scale, 2, n_mels)
        parameters = parameters.reshape(
            symbols.shape[0], symbols.shape[1] * self.states, 2, FRAMES_PER_STEP, -1
        )
        mean, log_scale = parameters.unbind(dim=2)
        bound = self.log_scale_bound
        log_scale = bound * torch.tanh(log_scale / bound)
        return Prior(mean, log_scale, log_duration, counts * self.states)

    # -- mels ----------------------------------------------------------------------------------

    @torch.no_grad()
    def normalise_by(self, mean: Tensor, scale: Tensor) -> None:
        """Set the fixed normalisation: mean and standard deviation of each band, (n_mels,)."""
        self.normal_mean.copy_(mean.reshape(-1, 1))
        self.normal_scale.copy_(scale.reshape(-1, 1))

    def forward(self, mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (batch, n_mels, frames) of mels of that shape, and log-determinants (batch,).

        Args:
            mel: (batch, n_mels, frames); the values in the padding do not matter.
            frames: frames of each item, (batch,), even.
        """
        if mel.shape[2] % FRAMES_PER_STEP or bool((frames % FRAMES_PER_STEP).any()):
            raise ValueError("the flow works on pairs of frames: cut the mel to an even number")
        keep = length_mask(frames, mel.shape[2]).unsqueeze(1)
        x = ((mel - self.normal_mean) / self.normal_scale).masked_fill(~keep, 0.0)
        mask = keep[:, :, ::FRAMES_PER_STEP].to(x.dtype)
        z, log_det = self.flow(x, mask)
        return z, log_det - frames * self.normal_scale.log().sum()

    def inverse(self, z: Tensor) -> Tensor:
        """Mels of latents (batch, n_mels, frames) without padding."""
        return self.flow.inverse(z) * self.normal_scale + self.normal_mean

    # -- likelihood ----------------------------------------------------------------------------

    @torch.no_grad()
    def align(self, z: Tensor, frames: Tensor, prior: Prior) -> Tensor:
        """Durations (batch, states) of the most likely alignment.

        Args:
            z: latents, from `forward`.
            frames: frames of each item, (batch,).
            prior: from `prior`.
        """
        return monotonic_alignment_search(self.alignment_scores(z, prior), prior.states, frames)

    @torch.no_grad()
    def alignment_scores(self, z: Tensor, prior: Prior) -> Tensor:
        """Log-density of every latent frame under every state: (batch, frames, states), nats."""
        # (batch, n_mels, frames) -> (batch, frames / 2, 2, n_mels)
        pairs = z.float().transpose(1, 2).unflatten(1, (-1, FRAMES_PER_STEP))
        precision = (-2 * prior.log_scale.float()).exp()
        mean = prior.mean.float()
        # (z - mu)^2 multiplied out, so that all pairs of frame and state are matrix products. Large
        # numbers cancel in it, which half precision would not survive.
        with torch.autocast(z.device.type, enabled=False):
            scores = torch.einsum("btpc,bspc->btps", pairs, mean * precision)
            scores -= 0.5 * torch.einsum("btpc,bspc->btps", pairs.square(), precision)
        rest = (0.5 * mean.square() * precision + prior.log_scale).sum(-1)
        scores -= rest.transpose(1, 2).unsqueeze(1)
        constant = 0.5 * self.mel_spec.n_mels * math.log(2 * math.pi)
        return scores.flatten(1, 2) - constant  # (batch, frames / 2, 2, states) before

    def log_likelihood(
        self, z: Tensor, log_det: Tensor, frames: Tensor, prior: Prior, durations: Tensor
    ) -> Tensor:
        """log p(mel | text, durations) in nats, (batch,), from what `forward` and `prior` gave."""
        mean, log_scale = prior.frames(durations, z.shape[2])
        each = -0.5 * ((z - mean) * (-log_scale).exp()).square() - log_scale
        each = each - 0.5 * math.log(2 * math.pi)
        keep = length_mask(frames, z.shape[2]).unsqueeze(1)
        return each.masked_fill(~keep, 0.0).sum(dim=(1, 2)) + log_det

    def score(self, batch: Batch, durations: Tensor | None = None) -> Scored:
        """Prior and latents of a batch, and its likelihood along an alignment.

        Args:
            batch: what to score.
            durations: (batch, states), where they are known; None for the best alignment.
        """
        prior = self.prior(batch.symbols, batch.symbol_counts)
        z, log_det = self(batch.mel, batch.frames)
        if durations is None:
            durations = self.align(z, batch.frames, prior)
        likelihood = self.log_likelihood(z, log_det, batch.frames, prior, durations)
        return Scored(prior, z, durations, likelihood)

    def training_terms(self, batch: Batch, durations: Tensor | None = None) -> dict[str, Tensor]:
        """What a training step needs: ``loss`` and its parts, scalars, and ``durations``.

        nll: mean negative log-likelihood in nats per mel element, given the durations.
        duration: see `duration_loss`.
        loss: their sum.

        Args:
            batch, durations: as in `score`.
        """
        prior, _, durations, log_likelihood = self.score(batch, durations)
        nll = -log_likelihood.sum() / (batch.frames.sum() * self.mel_spec.n_mels)
        duration = duration_loss(prior.log_duration, durations, prior.mask())
        return {"loss": nll + duration, "nll": nll, "duration": duration, "durations": durations}

    @torch.no_grad()
    def log_prob(self, mel: Tensor, phonemes: Sequence[str]) -> Tensor:
        """log p(mel | phonemes, best alignment) in nats, a scalar.

        Args:
            mel: (n_mels, frames) with an even number of frames.
            phonemes: of its text.
        """
        symbols = self.indices(phonemes).unsqueeze(0)
        counts, frames = torch.tensor([symbols.shape[1]]), torch.tensor([mel.shape[1]])
        parts = (symbols, counts, mel.unsqueeze(0), frames)
        return self.score(Batch(*(part.to(self.device) for part in parts))).log_likelihood[0]


def load_checkpoint(path: str | os.PathLike[str]) -> AcousticModel:
    """The acoustic model of a checkpoint directory, in evaluation mode, on the CPU, in float32.

    Raises:
        CheckpointError: no checkpoint there, or not one of an acoustic model that this version
            reads.
    """
    header, tensors = read_checkpoint(path)
    config = header.get("config")
    if header.get("kind") != KIND or not isinstance(config, Mapping):
        what = f"a vocoder ({header['family']})" if "family" in header else "something else"
        raise CheckpointError(
            f"{path} holds {what} and no acoustic model: give a "
            "checkpoint of recipes/ljspeech/train_acoustic.py"
        )
    with no_larger_than(config, tensors, path):
        model = AcousticModel.from_config(config)
    return model.load_weights(tensors, path)


__all__ = ["LONGEST_TEXT", "AcousticModel", "Batch", "Prior", "Scored", "load_checkpoint"]
