"""Auto-encoders of sequences: Gaussians as latents and as output, their bound, and the variants."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vocoder.nn import GatedConvStack

_LOG_2PI = math.log(2 * math.pi)


class Gaussian(NamedTuple):
    r"""A Gaussian with independent elements, :math:`\mathcal N(\mu, \operatorname{diag} \sigma^2)`.

    mean: mu, of any shape.
    log_scale: log sigma, of the same shape.
    """

    mean: Tensor
    log_scale: Tensor

    @classmethod
    def of(cls, parameters: Tensor) -> Gaussian:
        """From means and log-scales stacked in dimension 1; in at least float32."""
        wide = torch.promote_types(parameters.dtype, torch.float32)
        return cls(*parameters.to(wide).chunk(2, dim=1))

    def sample(self, noise: Tensor) -> Tensor:
        r"""Reparametrised (Kingma and Welling, 2014): :math:`\mu + \sigma \odot \epsilon`."""
        return self.mean + self.log_scale.exp() * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of each element, in nats, of the shape of x."""
        standard = (x - self.mean) * (-self.log_scale).exp()
        return -0.5 * standard.square() - self.log_scale - 0.5 * _LOG_2PI

    def kl(self) -> Tensor:
        r"""Kullback-Leibler divergence of each element from the standard normal, in nats.

        .. math:: D(\mathcal N(\mu, \sigma^2) \,\|\, \mathcal N(0, 1)) =
            \tfrac12 (\mu^2 + \sigma^2 - 1) - \log \sigma
        """
        variance = (2 * self.log_scale).exp()
        return 0.5 * (self.mean.square() + variance - 1) - self.log_scale


class Autoencoder(nn.Module):
    r"""A convolutional auto-encoder of sequences with a Gaussian output.

    The encoder gives :math:`q(z \mid x) = \mathcal N(\mu_q(x), \sigma_q^2(x))` and the decoder
    :math:`p(x \mid z) = \mathcal N(\mu_p(z), \sigma_p^2(z))`, each a `GatedConvStack`. How it is
    used makes the variant:

    - plain: z is the encoder's mean (no noise), and `reconstruction` is maximised without the KL
      term;
    - denoising (Vincent et al., 2008): the same, from a corrupted x to the clean one;
    - disentangling (``style_channels`` above 0): the same, with the latents in two parts. The
      content z loses its mean and variance over time to instance normalisation, and a style
      encoder's mean over time is all that the decoder learns about them. Papers: AutoVC (Qian et
      al., 2019), AdaIN-VC (Chou et al., 2019).

    Shapes: x (batch, in_channels, time), z (batch, latent_channels, time), style (batch,
    style_channels, 1).

    Args:
        in_channels: width of x.
        latent_channels: width of z, the bottleneck.
        channels, n_layers: of each `GatedConvStack`.
        style_channels: width of the style; 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        channels: int = 64,
        n_layers: int = 3,
        style_channels: int = 0,
    ) -> None:
        super().__init__()

        def stack(n_in: int, n_out: int) -> GatedConvStack:
            return GatedConvStack(n_in, n_out, 0, channels, n_layers, weight_norm=False)

        self.encoder = stack(in_channels, 2 * latent_channels)
        # Latents that start at zero would give the decoder nothing to learn from.
        self.encoder.end.reset_parameters()
        self.style_encoder = stack(in_channels, style_channels) if style_channels else None
        self.decoder = stack(latent_channels + style_channels, 2 * in_channels)

    def encode(self, x: Tensor) -> Gaussian:
        """q(z | x): each part (batch, latent_channels, time)."""
        found = Gaussian.of(self.encoder(x))
        if self.style_encoder is None:
            return found
        mean = torch.nn.functional.instance_norm(found.mean)
        return Gaussian(mean, found.log_scale)

    def style(self, x: Tensor) -> Tensor | None:
        """What stays the same over time, (batch, style_channels, 1); None without a style."""
        if self.style_encoder is None:
            return None
        return self.style_encoder(x).mean(dim=2, keepdim=True)

    def decode(self, z: Tensor, style: Tensor | None = None) -> Gaussian:
        """p(x | z): each part (batch, in_channels, time)."""
        if style is not None:
            z = torch.cat([z, style.expand(-1, -1, z.shape[2])], dim=1)
        return Gaussian.of(self.decoder(z))

    def reconstruction(self, x: Tensor) -> Gaussian:
        """The output without noise on the latents: p(x | z) at the mean of q(z | x)."""
        return self.decode(self.encode(x).mean, self.style(x))
