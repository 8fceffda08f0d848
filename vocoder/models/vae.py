"""The VAE vocoder: a variational auto-encoder on frequency bands at the mel frame rate."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from vocoder.audio import MelSpec, Noise
from vocoder.flows import Chain, ConditionalScale, Mdct
from vocoder.nn import Autoencoder, BandScale, Bound

from .base import Array, Vocoder, _like


class VaeVocoder(Vocoder):
    r"""A variational auto-encoder on the MDCT of the waveform, conditioned on the mel.

    .. math:: \log p(x \mid m) \ge \mathbb E_{q(z \mid y, m)} \bigl[ \log p(y \mid z, m) \bigr]
        - D\bigl(q(z \mid y, m) \,\|\, \mathcal N(0, I)\bigr) + \sum s(m), \qquad
        y = e^{s(m)} \odot \operatorname{MDCT}(x)

    The bands are those of `MdctFlow`: an MDCT with as many bands as the hop has samples, whitened
    by a `BandScale` s. The transform is orthogonal and the log-determinant of the scale is counted,
    so this bounds a density of the audio, and its nats compare with a flow's. Both q and p are
    Gaussians with independent elements (`Autoencoder`). What z does not carry, above all phases,
    p draws independently in every band and frame: heard as breathiness.

    Synthesis draws z from the prior and y from p(y | z, m), both at the temperature. Papers: Kingma
    and Welling, 2014; Rezende et al., 2014. Train with `vocoder.training.terms.Elbo`.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        latent_channels: width of z in a frame.
        channels, n_layers, kernel_size: width, depth and taps of the `GatedConvStack` that each of
            encoder and decoder is.
        look_ahead: frames that the decoder looks ahead at most; None for as many as it looks back.
        scale_channels, scale_kernel_size: width and taps of the `BandScale` network.
        weight_norm: weight normalisation in encoder and decoder.
        refine: see `Vocoder`.

    Raises:
        ValueError: sizes that do not fit together; the message names them.
    """

    family = "vae"
    title = "VAE"
    likelihood = "lower bound"
    default_temperature = 0.667

    def __init__(
        self,
        mel_spec: MelSpec | str = "ljspeech",
        latent_channels: int = 64,
        channels: int = 384,
        n_layers: int = 4,
        kernel_size: int = 3,
        look_ahead: int | None = None,
        scale_channels: int = 256,
        scale_kernel_size: int = 5,
        weight_norm: bool = True,
        refine: int = 0,
    ) -> None:
        super().__init__(mel_spec, refine)
        spec = self.mel_spec
        bands = spec.hop_length
        scale = BandScale(spec, bands, scale_channels, scale_kernel_size)
        self.front = Chain([Mdct(bands), ConditionalScale(scale)])
        """From audio (batch, 1, samples) to the whitened bands y (batch, bands, frames)."""
        self.autoencoder = Autoencoder(
            bands,
            latent_channels,
            condition_channels=spec.n_mels,
            channels=channels,
            n_layers=n_layers,
            kernel_size=kernel_size,
            weight_norm=weight_norm,
            look_ahead=look_ahead,
        )
        self.latent_channels = latent_channels
        decoder = self.autoencoder.decoder
        # The MDCT reaches half a block into each neighbour.
        self._context_frames = (
            max(decoder.reach, scale.reach) + 1,
            max(decoder.look_ahead, scale.reach) + 1,
        )

    @property
    def context_frames(self) -> tuple[int, int]:
        return self._context_frames

    # -- synthesis -----------------------------------------------------------------------------

    @property
    def noise_per_frame(self) -> int:
        return self.latent_channels + self.mel_spec.hop_length

    def sample(self, mel: Tensor, noise: Tensor, temperature: float) -> Tensor:
        mel = mel.to(device=self.device, dtype=self.dtype)
        sizes = [self.latent_channels, self.mel_spec.hop_length]
        latent_noise, band_noise = (temperature * noise.transpose(1, 2)).split(sizes, dim=1)
        bands = self.autoencoder.decode(latent_noise, mel).sample(band_noise)
        return self.front.inverse(bands, mel).squeeze(1)

    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        drawn = self._draw(noise, first_frame, mel.shape[2], self.noise_per_frame)
        return self.sample(mel, drawn.expand(mel.shape[0], -1, -1), temperature)

    def fused(self, dtype: torch.dtype = torch.float32) -> Self:
        """The same function without weight normalisation: for inference.

        Returns:
            A new model, on the same device, in evaluation mode and frozen: its weights take no
            gradient, and it refuses to go back to training.

        Raises:
            ValueError: another type than float32.
        """
        self._check_dtype(dtype)
        return self._frozen_copy()

    # -- bounds --------------------------------------------------------------------------------

    def bound(self, audio: Tensor, mel: Tensor, noise: Tensor) -> Bound:
        """The evidence lower bound of log p(audio | mel) at one draw of the latents, in nats.

        Args:
            audio: (batch, frames * hop).
            mel: (batch, n_mels, frames).
            noise: standard normal, (batch, latent_channels, frames).
        """
        bands, log_det = self.front(audio.unsqueeze(1), mel)
        found = self.autoencoder.bound(bands, noise, mel)
        return found._replace(reconstruction=found.reconstruction + log_det)

    def log_prob(self, audio: Array, mel: Array) -> Array:
        """A lower bound of log p(audio | mel) in nats, summed over the samples: no exact value.

        The evidence lower bound, estimated without bias by one draw of the latents that is always
        the same; `importance_weighted` is tighter. Otherwise as `Vocoder.log_prob`.
        """
        return super().log_prob(audio, mel)

    def log_likelihood(self, audio: Tensor, mel: Tensor) -> Tensor:
        """The evidence lower bound in nats, (batch,), for audio of exactly frames * hop samples."""
        noise = self._draw(Noise(0), 0, mel.shape[2], self.latent_channels)
        return self.bound(audio, mel, noise.transpose(1, 2)).elbo

    def importance_weighted(self, audio: Array, mel: Array, k: int, seed: int = 0) -> Array:
        r"""A tighter lower bound of log p(audio | mel), from k draws of the latents, in nats.

        .. math:: \log \frac1k \sum_{i=1}^k \frac{p(y \mid z_i, m)\, \mathcal N(z_i; 0, I)}
            {q(z_i \mid y, m)} + \sum s(m), \qquad z_i \sim q(z \mid y, m)

        Its expectation rises with k towards the exact value; with k = 1 it is that of `log_prob`.
        A whole utterance has one weight a draw, so long ones gain little from a few draws. Paper:
        Burda et al., 2016.

        Args:
            audio, mel: as in `log_prob`.
            k: number of draws, 1 or more; each costs a pass of the decoder.
            seed: of the draws.

        Returns:
            (batch,), or a scalar for input without a batch, of the same kind as ``audio``.

        Raises:
            ValueError: k is below 1, or audio and mel do not belong together.
        """
        if k < 1:
            raise ValueError(f"k is {k}: the bound takes at least one draw")
        samples, frames, batched = self._paired(audio, self._checked(mel).to(self.dtype))
        bands, log_det = self.front(samples.unsqueeze(1), frames)
        posterior = self.autoencoder.encode(bands, frames)
        noise, count = Noise(seed), frames.shape[2]
        log_weights = []
        for draw in range(k):
            drawn = self._draw(noise, draw * count, count, self.latent_channels).transpose(1, 2)
            z = posterior.sample(drawn)
            likelihood = self.autoencoder.decode(z, frames).log_prob(bands).sum(dim=(1, 2))
            # log N(z; 0, I) - log q(z | y, m): the constants cancel.
            ratio = 0.5 * (drawn.square() - z.square()) + posterior.log_scale
            log_weights.append(likelihood + ratio.sum(dim=(1, 2)))
        result = torch.stack(log_weights).logsumexp(dim=0) - math.log(k) + log_det
        return _like(audio, result if batched else result[0])

    def training_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean negative evidence lower bound in nats per sample, a scalar.

        The latents are drawn from torch's global generator. `vocoder.training.terms.Elbo` draws
        from the generator of the step, and has free bits.

        Args:
            batch: ``audio`` (batch, frames * hop) and ``mel`` (batch, n_mels, frames).
        """
        audio, mel = batch["audio"], batch["mel"]
        noise = mel.new_empty(mel.shape[0], self.latent_channels, mel.shape[2]).normal_()
        return -self.bound(audio, mel, noise).elbo.mean() / audio.shape[-1]

    def _draw(self, noise: Noise, first_frame: int, frames: int, width: int) -> Tensor:
        """Noise of frames from ``first_frame`` on, (1 or batch, frames, width), on the model's
        device.
        """
        drawn = noise.normal(first_frame, frames, width)
        drawn = drawn.view(-1, *drawn.shape[-2:])
        return drawn.to(device=self.device, dtype=self.dtype)
