"""Training objectives: from a model and a batch to the terms of a loss. No training framework."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vocoder.models import Vocoder


class Objective(nn.Module):
    """Base class of the objectives.

    `forward(model, audio, mel, budget_used, generator)` takes audio (batch, frames * hop), mel
    (batch, n_mels, frames), the fraction of the training budget that is used up, in [0, 1], and
    the generator to draw from. It returns named scalars; `loss` is the one to minimise, and
    `nll` the negative log-likelihood in nats per sample.
    """

    def forward(
        self,
        model: Vocoder,
        audio: Tensor,
        mel: Tensor,
        budget_used: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        raise NotImplementedError


class MaximumLikelihood(Objective):
    r"""Negative log-likelihood of the audio, in nats per sample: :math:`-\log p(x \mid m) / T`."""

    def forward(
        self,
        model: Vocoder,
        audio: Tensor,
        mel: Tensor,
        budget_used: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        nll = model.training_loss({"audio": audio, "mel": mel})
        return {"loss": nll, "nll": nll.detach()}


class LikelihoodAndSpectral(Objective):
    r"""Likelihood, and the distance of the model's own audio from the recording in spectra.

    .. math:: L = -\frac{\log p(x \mid m)}{T} + w \, \Bigl( D_{STFT}(x, \hat x)
        + w_{phase} \, D_{phase}(x, \hat x)
        + w_{tone} \, R(\hat x) + w_{mel} \, \lVert M(x) - M(\hat x) \rVert_1 \Bigr), \qquad
        \hat x = f^{-1}(\tau z; m), \; z \sim \mathcal N(0, I)

    where the D are `multi_resolution_stft` and `phase_advance`, R is `phase_repetition` over two
    frames, and M is the model's own log-mel, averaged over its elements and in nats. The second
    term needs an inverse pass with gradients, which costs about as much as the likelihood does; it
    is computed on a part of the batch, in float32. Likelihood alone spends its effort on noise;
    this term buys sound for some nats. Paper: WG-WaveNet (Hsu and Lee, 2020) trains a flow in this
    way.

    With `energy_distance`, D_STFT and the distance of the mels are energy distances: of two draws
    for the same mel, half of their distance from each other is taken off, so that it pays to draw
    and not to settle for the one sound in the middle. Paper: Gritsenko et al., "A spectral energy
    distance for parallel speech synthesis" (2020).

    For models with `forward` and `inverse` (flows).

    Args:
        weight: w, of all spectral terms.
        mel_weight: of the log-mel term relative to the STFT terms.
        phase_weight: of the phase advance relative to the STFT terms.
        tone_weight: of the repetition relative to the STFT terms. Magnitudes alone let a flow give
            neighbouring frames the same phases, heard as tones at multiples of the frame rate.
        tone_start: fraction of the training budget after which that term sets in, not before
            `start`. It is easier to stop repeating than to become intelligible without.
        energy_distance: draw twice for half as many items, and reward what tells the draws apart.
        start: fraction of the training budget after which the term sets in: audio from an
            untrained flow has nothing to teach.
        temperature: tau.
        batch_fraction: part of the batch, at least one item, on which the term is computed.
        resolutions: FFT lengths in samples; hop and window are a quarter and the whole of each.
    """

    def __init__(
        self,
        weight: float = 1.5,
        mel_weight: float = 1.0,
        phase_weight: float = 0.0,
        tone_weight: float = 0.0,
        tone_start: float = 0.0,
        energy_distance: bool = False,
        start: float = 0.15,
        temperature: float = 0.7,
        batch_fraction: float = 0.5,
        resolutions: Sequence[int] = (512, 1024, 2048),
    ) -> None:
        super().__init__()
        self.weight = weight
        self.mel_weight = mel_weight
        self.phase_weight = phase_weight
        self.tone_weight = tone_weight
        self.tone_start = tone_start
        self.energy_distance = energy_distance
        self.start = start
        self.temperature = temperature
        self.batch_fraction = batch_fraction
        self.resolutions = tuple(resolutions)

    def forward(
        self,
        model: Vocoder,
        audio: Tensor,
        mel: Tensor,
        budget_used: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        if budget_used < self.start:
            nll = model.training_loss({"audio": audio, "mel": mel})
            return {"loss": nll, "nll": nll.detach()}
        z, log_det = model(audio, mel)
        z = z.to(log_det.dtype)
        log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=tuple(range(1, z.ndim)))
        nll = -(log_prior + log_det).mean() / audio.shape[-1]
        draws = 2 if self.energy_distance else 1
        items = max(1, round(self.batch_fraction * audio.shape[0]) // draws)
        noise = torch.randn(
            (draws * items, *z.shape[1:]), generator=generator, device=z.device, dtype=z.dtype
        )
        audio, mel = audio[:items].repeat(draws, 1), mel[:items].repeat(draws, 1, 1)
        inverse = model.inverse
        assert callable(inverse)
        made = inverse(self.temperature * noise, mel)
        with torch.autocast(audio.device.type, enabled=False):
            made = made.float()
            made_mel = model.mel(made)
            nats = math.log(10) if model.mel_spec.log_base == "10" else 1.0
            stft = multi_resolution_stft(made, audio, self.resolutions)
            distance = nats * (made_mel - mel).abs().mean()
            if self.energy_distance:
                (one, other), mels = made.chunk(2), made_mel.chunk(2)
                stft = stft - 0.5 * multi_resolution_stft(one, other, self.resolutions)
                distance = distance - 0.5 * nats * (mels[0] - mels[1]).abs().mean()
            spectral = stft + self.mel_weight * distance
            terms = {"stft": stft.detach(), "mel_distance": distance.detach()}
            if self.phase_weight:
                phase = phase_advance(made, audio, self.resolutions)
                spectral = spectral + self.phase_weight * phase
                terms["phase"] = phase.detach()
            if self.tone_weight and budget_used >= self.tone_start:
                repetition = phase_repetition(made, 2 * model.mel_spec.hop_length)
                spectral = spectral + self.tone_weight * repetition
                terms["repetition"] = repetition.detach()
            loss = nll + self.weight * spectral
        return {"loss": loss, "nll": nll.detach(), **terms}


def multi_resolution_stft(
    made: Tensor, true: Tensor, resolutions: Sequence[int] = (512, 1024, 2048)
) -> Tensor:
    r"""Spectral convergence and log-magnitude distance, averaged over STFT resolutions.

    .. math:: D_{STFT} = \frac1R \sum_r \frac{\lVert S_r(x) - S_r(\hat x) \rVert_F}
        {\lVert S_r(x) \rVert_F} + \operatorname{mean} |\log S_r(x) - \log S_r(\hat x)|

    S is the magnitude under a Hann window, at least 1e-4 (about the noise of 16 bits). Paper:
    Parallel WaveGAN (Yamamoto et al., 2020).

    Args:
        made, true: (batch, samples), in [-1, 1]; at least half of the longest resolution.

    Returns:
        a scalar, without unit.
    """
    total = made.new_zeros(())
    for size in resolutions:
        made_magnitude, true_magnitude = (
            _stft(x, size).abs().clamp_min(1e-4) for x in (made, true)
        )
        difference = torch.linalg.vector_norm(true_magnitude - made_magnitude, dim=(1, 2))
        convergence = difference / torch.linalg.vector_norm(true_magnitude, dim=(1, 2))
        log_distance = (true_magnitude.log() - made_magnitude.log()).abs().mean()
        total = total + convergence.mean() + log_distance
    return total / len(resolutions)


def phase_advance(
    made: Tensor, true: Tensor, resolutions: Sequence[int] = (512, 1024, 2048)
) -> Tensor:
    r"""Distance in what the phase does from frame to frame, averaged over STFT resolutions.

    With :math:`A_r(t, f) = S_r(t + 1, f) \, \overline{S_r(t, f)}`, S the STFT under a Hann window:

    .. math:: D_{phase} = \frac1R \sum_r \frac{\sum |A_r(x)|^{0.6}
        (1 - \cos(\angle A_r(x) - \angle A_r(\hat x)))}{\sum |A_r(x)|^{0.6}}

    A mel does not tell the phase, so phases themselves cannot be compared; the angle of A is the
    frequency of what sounds in the band, which speech of the same mel shares. About losses on
    derivatives of phase: Ai and Ling, "Neural speech phase prediction" (2023).

    Args:
        made, true: (batch, samples), in [-1, 1]; at least half of the longest resolution.

    Returns:
        a scalar in [0, 2], without unit.
    """
    total = made.new_zeros(())
    for size in resolutions:
        stft = (_stft(x, size) for x in (made, true))
        made_advance, true_advance = (s[..., 1:] * s[..., :-1].conj() for s in stft)
        made_size, true_size = (a.abs().clamp_min(1e-8) for a in (made_advance, true_advance))
        cosine = (made_advance * true_advance.conj()).real / (made_size * true_size)
        weight = true_size**0.6 * (true_size > 1e-8)
        total = total + (weight * (1 - cosine)).sum() / weight.sum().clamp_min(1e-8)
    return total / len(resolutions)


def phase_repetition(audio: Tensor, period: int) -> Tensor:
    r"""How far phases repeat from period to period: tones at multiples of its frequency.

    .. math:: R = \frac{1}{2L} \sum_{l=1}^{L} \operatorname{mean}_b
        \bigl| \operatorname{mean}_{f \in b} A_l(f) \bigr|
        + \operatorname{mean}_f \bigl| A_l(f) \bigr|^2, \qquad
        A_l(f) = \frac{\sum_t C(t + l, f) \, \overline{C(t, f)}}
        {\sum_t |C(t + l, f)| \, |C(t, f)|}, \qquad C = S / \sqrt{|S|}

    S is the STFT at every multiple of the period, under a Hann window of one; sums over t are over
    the batch too, b are eight bands, and L is 16, or half of the periods if that is less. A is the
    mean of what the phase advances by: R is 1 where every phase comes back, and near 0 where phases
    are random or follow a pitch that knows nothing of the period, as those of speech do. The first
    term is the autocorrelation of whitened bands (GCC-PHAT: Knapp and Carter, 1976) at l periods;
    it is no square, since a little is heard: noise of which a seventh of the power repeats has
    lines 4 dB out (`tone_excess_db`). The second sees what repeats with a shift. Flows evade what
    asks for less: where the phases themselves must differ, they repeat one sound for a while and
    then another; where all moments count alike, the loud ones repeat and the quiet ones make up for
    it; and what is asked of the next periods alone comes back after more.

    Args:
        audio: (batch, samples), in [-1, 1]; at least a period.
        period: samples. That of what repeats, or a multiple of it.

    Returns:
        a scalar in [0, 1], without unit.
    """
    window = torch.hann_window(period, device=audio.device, dtype=audio.dtype)
    stft = torch.stft(audio, period, period, period, window, return_complex=True)
    # A magnitude counts as 1e-4 at least, so that silence has no phase.
    root = stft.abs().clamp_min(1e-4).sqrt()
    compressed = stft / root
    lags = range(1, min(16, stft.shape[-1] // 2) + 1)
    total = audio.new_zeros(())
    for lag in lags:
        product = (compressed[..., lag:] * compressed[..., :-lag].conj()).sum(dim=(0, 2))
        advance = product / (root[..., lag:] * root[..., :-lag]).sum(dim=(0, 2))
        # Of an exact zero, as in silence, the gradient of the modulus would be NaN.
        for band in advance.chunk(8):
            total = total + (band.mean() + 1e-12).abs() / 8
        total = total + (advance.real.square() + advance.imag.square()).mean()
    return total / (2 * len(lags))


def _stft(audio: Tensor, size: int) -> Tensor:
    """Complex (batch, bins, frames), under a Hann window as long as the FFT, at a quarter of it."""
    window = torch.hann_window(size, device=audio.device, dtype=audio.dtype)
    return torch.stft(audio, size, size // 4, size, window, return_complex=True)
