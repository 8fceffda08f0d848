"""The acoustic model: from phonemes to a log-mel spectrogram, by a normalizing flow."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec
from vocoder.audio.noise import Noise
from vocoder.checkpoints import CheckpointError, read_checkpoint, write_checkpoint
from vocoder.flows import AffineCoupling, Bijection, Conv1x1Init, InvertibleConv1x1, Squeeze
from vocoder.nn import GatedConvStack, SequenceEncoder
from vocoder.nn.weight_norm import fuse_weight_norm
from vocoder.text.alignment import (
    monotonic_alignment_search,
    state_of_frame,
    whole_durations,
)

KIND = "acoustic model"
"""What the config of a checkpoint says it holds, which keeps it apart from vocoders."""

LONGEST_TEXT = 2000
"""Symbols that `AcousticModel.synthesize` takes at once."""

SLOWEST, FASTEST = 0.25, 4.0
"""Range of the speaking rate."""

_FRAMES_PER_STEP = 2


class _PaddedConditioner(nn.Module):
    """A `GatedConvStack` whose only condition is where there is padding."""

    def __init__(self, stack: GatedConvStack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        result: Tensor = self.stack(x, mask=condition)
        return result


class MelFlow(Bijection):
    r"""The flow between normalised log-mels and latents of the same shape.

    .. math:: z = f(x), \qquad f = W_{K+1} \circ c_K \circ W_K \circ \dots \circ c_1 \circ W_1

    on pairs of frames (2 n_mels channels at half the frame rate), with 1x1 convolutions W and
    affine couplings c. The W start as permutations, so that the couplings predict in turn odd
    frames from even ones and half of the bands from the other half; W_{K+1} starts as the inverse
    of all the others together, so that f starts as the identity, and training starts from a plain
    mixture of Gaussians over mel frames, which can be aligned. Papers: Glow (Kingma and Dhariwal,
    2018), Glow-TTS (Kim et al., 2020).

    Shapes: x and z are (batch, n_mels, frames) with an even number of frames, the condition is
    the mask (batch, 1, frames / 2), 1 where there are frames and 0 where there is padding, or
    None. Padding must be zeros, gives zeros, and adds nothing to the log-determinant.

    Args:
        n_mels: bands.
        n_flows: K.
        channels, n_layers, kernel_size: of the `GatedConvStack` in each coupling.
        log_scale_bound: of the couplings, see `AffineCoupling`.
        weight_norm: weight normalisation in the couplings.
    """

    def __init__(
        self,
        n_mels: int,
        n_flows: int,
        channels: int,
        n_layers: int,
        kernel_size: int,
        log_scale_bound: float | None,
        weight_norm: bool = True,
    ) -> None:
        super().__init__()
        width = _FRAMES_PER_STEP * n_mels
        kinds: tuple[Conv1x1Init, ...] = ("even-odd", "half-swap")
        self.squeeze = Squeeze(_FRAMES_PER_STEP)
        self.mixings = nn.ModuleList(
            InvertibleConv1x1(width, kinds[step % len(kinds)]) for step in range(n_flows)
        )
        last = InvertibleConv1x1(width, "identity")
        with torch.no_grad():
            for mixing in self.mixings:
                last.weight.copy_(last.weight @ mixing.weight.T)  # type: ignore[operator]
        self.mixings.append(last)
        self.couplings = nn.ModuleList(
            AffineCoupling(
                _PaddedConditioner(
                    GatedConvStack(
                        n_mels, 2 * n_mels, 0, channels, n_layers, kernel_size, weight_norm
                    )
                ),
                log_scale_bound=log_scale_bound,
            )
            for _ in range(n_flows)
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.squeeze(x)
        steps: Tensor | int = z.shape[-1] if condition is None else condition.sum(dim=(1, 2))
        for index, mixing in enumerate(self.mixings):
            assert isinstance(mixing, InvertibleConv1x1)
            # Its own log-determinant would count the padding.
            with torch.autocast(x.device.type, enabled=False):
                z = F.conv1d(z.to(mixing.weight.dtype), mixing.weight.unsqueeze(-1))
                log_det = log_det + steps * mixing.log_abs_det()
            if index < len(self.couplings):
                z, coupling_log_det = self.couplings[index](z, condition)
                log_det = log_det + coupling_log_det
        return self.squeeze.inverse(z), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        x, _ = self.squeeze(z)
        for index in reversed(range(len(self.mixings))):
            if index < len(self.couplings):
                x = self.couplings[index].inverse(x, condition)  # type: ignore[operator]
            x = self.mixings[index].inverse(x)  # type: ignore[operator]
        return self.squeeze.inverse(x)


class DurationPredictor(nn.Module):
    """Log of the mean duration in frames of every state: (batch, time, channels) -> (..., states).

    Two convolutions, as in FastSpeech (Ren et al., 2019) and Glow-TTS.
    """

    def __init__(self, channels: int, states: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=1) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(channels, states)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        keep = mask.unsqueeze(1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = F.relu(convolution(x.transpose(1, 2) * keep)).transpose(1, 2)
            x = self.dropout(norm(hidden))
        result: Tensor = self.out(x)
        return result


class Prior(NamedTuple):
    """What the text says about the latents.

    mean, log_scale: (batch, states, 2, n_mels), for frames of even and of odd index.
    log_duration: (batch, states), log of the expected number of frames.
    states: number of states of each item, (batch,).
    """

    mean: Tensor
    log_scale: Tensor
    log_duration: Tensor
    states: Tensor

    def mask(self) -> Tensor:
        """(batch, states), true where there is no padding."""
        return _mask(self.states, self.mean.shape[1])


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


class AcousticModel(nn.Module):
    r"""Glow-TTS: phonemes to log-mel frames by a flow whose prior is set by the aligned text.

    .. math:: \log p(x \mid c, d) = \sum_{t=1}^{T} \log
        \mathcal N\bigl(z_t;\ \mu_{s(t)},\ \sigma_{s(t)}^2\bigr)
        + \log |\det \partial f / \partial x|, \qquad z = f(x)

    x are the T frames of a mel, z the latents (`MelFlow`), and s(t) is the state that frame t falls
    into. Every symbol of the text c (and a mark at either end, for the silence there) has
    ``states`` states in a row, as in a hidden Markov model; an encoder that sees the whole text
    gives each its means, its scales and its expected duration. In training the durations d are
    found by monotonic alignment search; in synthesis they are predicted. Paper: Glow-TTS (Kim et
    al., 2020); new here are the states, the learnt scales and that even and odd frames have means
    of their own (the flow works on pairs of frames).

    Args:
        symbols: the phonemes and marks that texts are made of, in a fixed order.
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        encoder_channels, encoder_layers, n_heads, n_convolutions, dropout: of the text's
            `SequenceEncoder`.
        n_flows, channels, n_layers, kernel_size: steps of the `MelFlow`, and width, depth and
            taps of the stack in each.
        states: states a symbol, 1 or more.
        log_scale_bound: bound of the couplings' and the prior's log-scales.
        weight_norm: weight normalisation in the couplings.

    Raises:
        ValueError: sizes that make no model; the message names them.
    """

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
        super().__init__()
        if not symbols or len(set(symbols)) < len(symbols):
            raise ValueError("symbols must be a list of different strings, at least one")
        if n_flows < 1 or states < 1:
            raise ValueError(f"n_flows is {n_flows} and states {states}: both must be at least 1")
        self.mel_spec = MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec
        self.config: dict[str, Any] = {
            "symbols": list(symbols),
            "mel_spec": self.mel_spec.to_dict(),
            "encoder_channels": encoder_channels,
            "encoder_layers": encoder_layers,
            "n_heads": n_heads,
            "n_convolutions": n_convolutions,
            "dropout": dropout,
            "n_flows": n_flows,
            "channels": channels,
            "n_layers": n_layers,
            "kernel_size": kernel_size,
            "states": states,
            "log_scale_bound": log_scale_bound,
            "weight_norm": weight_norm,
        }
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
        self.prior_of = nn.Linear(encoder_channels, states * _FRAMES_PER_STEP * 2 * n_mels)
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

    @property
    def sample_rate(self) -> int:
        """Samples per second of the audio that the mels are of, Hz."""
        return self.mel_spec.sample_rate

    # -- text ----------------------------------------------------------------------------------

    def indices(self, phonemes: Sequence[str]) -> Tensor:
        """The symbols as the network takes them: (symbols + 2,) int64, with a mark at either end.

        Raises:
            ValueError: nothing to say, too much at once, or a symbol that the model does not know.
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

    def prior(self, symbols: Tensor, counts: Tensor) -> Prior:
        """What the text says about the latents.

        Args:
            symbols: (batch, symbols), from `indices`, padded.
            counts: symbols of each item, (batch,).
        """
        mask = _mask(counts, symbols.shape[1])
        encoded = self.encoder(self.embedding(symbols), mask)
        # The durations follow the alignment and must not shape what is aligned.
        log_duration = self.duration_of(encoded.detach(), mask).float().flatten(1)
        wide = torch.promote_types(encoded.dtype, torch.float32)
        with torch.autocast(encoded.device.type, enabled=False):
            parameters = self.prior_of(encoded.to(wide))
        # (batch, symbols, states * ...) -> (batch, symbols * states, mean and scale, 2, n_mels)
        parameters = parameters.reshape(
            symbols.shape[0], symbols.shape[1] * self.states, 2, _FRAMES_PER_STEP, -1
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
            mel: (batch, n_mels, frames); what stands in the padding does not matter.
            frames: frames of each item, (batch,), even.
        """
        if mel.shape[2] % _FRAMES_PER_STEP or bool((frames % _FRAMES_PER_STEP).any()):
            raise ValueError("the flow works on pairs of frames: cut the mel to an even number")
        keep = _mask(frames, mel.shape[2]).unsqueeze(1)
        x = ((mel - self.normal_mean) / self.normal_scale).masked_fill(~keep, 0.0)
        mask = keep[:, :, ::_FRAMES_PER_STEP].to(x.dtype)
        z, log_det = self.flow(x, mask)
        return z, log_det - frames * self.normal_scale.log().sum()

    def inverse(self, z: Tensor) -> Tensor:
        """Mels of latents (batch, n_mels, frames) without padding."""
        return self.flow.inverse(z) * self.normal_scale + self.normal_mean

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
        pairs = _pairs(z.float())
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
        mean, log_scale = _of_frames(prior, durations, z.shape[2])
        each = -0.5 * ((z - mean) * (-log_scale).exp()).square() - log_scale
        each = each - 0.5 * math.log(2 * math.pi)
        keep = _mask(frames, z.shape[2]).unsqueeze(1)
        return each.masked_fill(~keep, 0.0).sum(dim=(1, 2)) + log_det

    def training_terms(self, batch: Batch, durations: Tensor | None = None) -> dict[str, Tensor]:
        """What a training step needs: ``loss`` and its parts, scalars, and ``durations``.

        nll: mean negative log-likelihood in nats per mel element, given the durations.
        duration: see `duration_loss`.
        loss: their sum.

        Args:
            batch: what to score.
            durations: (batch, states), where they are known; None for the best alignment.
        """
        prior = self.prior(batch.symbols, batch.symbol_counts)
        z, log_det = self(batch.mel, batch.frames)
        if durations is None:
            durations = self.align(z, batch.frames, prior)
        total = self.log_likelihood(z, log_det, batch.frames, prior, durations).sum()
        nll = -total / (batch.frames.sum() * self.mel_spec.n_mels)
        duration = duration_loss(prior.log_duration, durations, prior.mask())
        return {"loss": nll + duration, "nll": nll, "duration": duration, "durations": durations}

    def training_loss(self, batch: Batch) -> Tensor:
        """`training_terms`'s loss, a scalar."""
        return self.training_terms(batch)["loss"]

    @torch.no_grad()
    def log_prob(self, mel: Tensor, phonemes: Sequence[str]) -> Tensor:
        """log p(mel | phonemes, best alignment) in nats, a scalar.

        Args:
            mel: (n_mels, frames) with an even number of frames.
            phonemes: what is said in it.
        """
        device = self.normal_mean.device
        symbols = self.indices(phonemes).to(device).unsqueeze(0)
        frames = torch.tensor([mel.shape[1]], device=device)
        prior = self.prior(symbols, torch.tensor([symbols.shape[1]], device=device))
        z, log_det = self(mel.to(device).unsqueeze(0), frames)
        durations = self.align(z, frames, prior)
        return self.log_likelihood(z, log_det, frames, prior, durations)[0]

    # -- synthesis -----------------------------------------------------------------------------

    @torch.no_grad()
    def synthesize(
        self,
        phonemes: Sequence[str],
        temperature: float = 0.333,
        speaking_rate: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """A log-mel spectrogram (n_mels, frames), float32, in the convention of `mel_spec`.

        Args:
            phonemes: what to say, of `symbols`.
            temperature: scale of the latent noise, 0 or more; 0 is deterministic and flat, 1
                samples the model's density.
            speaking_rate: 2 is twice as fast, 0.5 half as fast; 0.25 to 4.
            seed: of the noise; the same frames get the same noise.

        Raises:
            ValueError: no phonemes, too many, unknown ones, or an argument out of range.
        """
        durations = self.durations(phonemes, speaking_rate)
        return self.synthesize_aligned(phonemes, durations, temperature, seed)

    @torch.no_grad()
    def durations(self, phonemes: Sequence[str], speaking_rate: float = 1.0) -> Tensor:
        """Predicted durations in frames of all states, (states * (phonemes + 2),) int64.

        They add up to an even number, at least 2: the last state is lengthened if need be.

        Raises:
            ValueError: as `synthesize`.
        """
        if not SLOWEST <= speaking_rate <= FASTEST:
            raise ValueError(
                f"speaking_rate is {speaking_rate}: it must be from {SLOWEST} (slow) to "
                f"{FASTEST:g} (fast); 1 is the rate of the recordings"
            )
        prior = self._prior_alone(phonemes)
        durations = whole_durations(prior.log_duration[0].double().exp().cpu() / speaking_rate)
        total = int(durations.sum())
        durations[-1] += max(-total % _FRAMES_PER_STEP, _FRAMES_PER_STEP - total)
        return durations

    @torch.no_grad()
    def synthesize_aligned(
        self,
        phonemes: Sequence[str],
        durations: Tensor,
        temperature: float = 0.333,
        seed: int = 0,
    ) -> Tensor:
        """`synthesize` with given durations, (states * (phonemes + 2),), of an even sum."""
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(
                f"temperature is {temperature}: it must be a number from 0 up, usually to 1"
            )
        frames = int(durations.sum())
        prior = self._prior_alone(phonemes)
        states = prior.log_duration.shape[1]
        if durations.shape != (states,) or frames % _FRAMES_PER_STEP or not frames:
            raise ValueError(
                f"durations of shape {tuple(durations.shape)} and sum {frames} do not fit: "
                f"{states} numbers with an even sum are needed"
            )
        durations = durations.unsqueeze(0).to(prior.mean.device)
        return self.render(prior, durations, temperature, seed)[0].float()

    @torch.no_grad()
    def render(self, prior: Prior, durations: Tensor, temperature: float, seed: int) -> Tensor:
        """A mel (1, n_mels, frames) from what the text says and durations, (1, states)."""
        frames = int(durations.sum())
        mean, log_scale = _of_frames(prior, durations, frames)
        noise = Noise(seed).normal(0, frames, self.mel_spec.n_mels).T.to(mean.device)
        return self.inverse(mean + temperature * log_scale.exp() * noise)

    def _prior_alone(self, phonemes: Sequence[str]) -> Prior:
        symbols = self.indices(phonemes).to(self.normal_mean.device)
        return self.prior(symbols.unsqueeze(0), torch.tensor([len(symbols)], device=symbols.device))

    # -- on disk -------------------------------------------------------------------------------

    def fused(self) -> AcousticModel:
        """The same function without weight normalisation: what to use for inference.

        Returns:
            A new model in evaluation mode, on the same device, with ``weight_norm=False``. Unlike
            one that can be trained it can be pickled.
        """
        model = AcousticModel(**{**self.config, "mel_spec": self.mel_spec, "weight_norm": False})
        model.load_state_dict(fuse_weight_norm(self.state_dict()))
        return model.to(self.normal_mean.device, self.normal_mean.dtype).eval()

    def save(self, path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> Path:
        """Write a checkpoint directory: ``model.safetensors`` and ``config.json``.

        Args:
            path: of the directory.
            dtype: what weights are stored as; torch.float16 halves the file. A model computes in
                float32 whatever its file holds. None keeps them as they are.

        Returns:
            The directory.
        """
        tensors = self.state_dict()
        if dtype is not None:
            tensors = {name: value.to(dtype) for name, value in tensors.items()}
        return write_checkpoint(path, {"kind": KIND, "config": self.config}, tensors)


def duration_loss(log_duration: Tensor, durations: Tensor, mask: Tensor) -> Tensor:
    r"""Mean of :math:`l + d e^{-l}` over the states where ``mask`` is true, a scalar.

    The negative log-likelihood of durations d that are exponentially distributed with mean e^l,
    so that the mean duration is what is learnt. (A squared error of logarithms would give the
    geometric mean, and hasty speech.)
    """
    each = log_duration + durations * (-log_duration).exp()
    return each.masked_fill(~mask, 0.0).sum() / mask.sum()


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
            f"{path} holds {what} and no acoustic model: give what "
            "recipes/ljspeech/train_acoustic.py wrote"
        )
    arguments = {**config, "mel_spec": MelSpec.from_dict(config["mel_spec"])}
    try:
        model = AcousticModel(**arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"the config in {path} does not fit the acoustic model of this version: {error}"
        ) from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit their config: {error}") from error
    return model.eval()


def _mask(lengths: Tensor, size: int) -> Tensor:
    """(batch, size), true before the end of each item."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


def _pairs(z: Tensor) -> Tensor:
    """(batch, n_mels, frames) -> (batch, frames / 2, 2, n_mels)."""
    return z.transpose(1, 2).unflatten(1, (-1, _FRAMES_PER_STEP))


def _of_frames(prior: Prior, durations: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Mean and log-scale of every frame: (batch, n_mels, frames) each."""
    state = state_of_frame(durations, frames).clamp(max=prior.mean.shape[1] - 1)
    odd = torch.arange(frames, device=state.device) % _FRAMES_PER_STEP
    batch = torch.arange(state.shape[0], device=state.device).unsqueeze(1)
    # (batch, states, 2, n_mels) at (batch, frames) -> (batch, frames, n_mels)
    mean, log_scale = (x[batch, state, odd] for x in (prior.mean, prior.log_scale))
    return mean.transpose(1, 2), log_scale.transpose(1, 2)


__all__ = ["AcousticModel", "Batch", "MelFlow", "Prior", "load_checkpoint"]
