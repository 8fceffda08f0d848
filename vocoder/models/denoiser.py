"""The denoiser: removes the tones that a vocoder adds to all of its audio."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Array, Vocoder, _audio, _like

STRENGTH = 0.003
"""Default strength of `Denoiser`."""

_FRAMES = 88  # of the neutral mel, besides the context at its ends
_SEGMENT = 2**20  # samples denoised at once, so that memory is bounded


class Denoiser:
    r"""Removes the bias of a vocoder by spectral subtraction.

    .. math:: \hat X[k, t] = \max(|X[k, t]| - s B[k],\; 0) \, e^{i \arg X[k, t]}

    X is the short-time Fourier transform of the audio (Hann window), s the strength and B the bias:
    the mean magnitude of the model's audio for a mel of zeros at temperature 0, which holds no
    speech but does hold what the vocoder adds to all of its audio, such as tones at multiples of
    the frame rate. A mel of zeros is loud (a magnitude of 1 in every band), hence the small
    strengths. It works on any audio of the model. The bias has one level and speech has
    many: loud sounds keep their tones, and anything quieter than s B is lost. Idea: the
    denoiser published with WaveGlow (Prenger et al., 2019).

    Args:
        model: the vocoder.
        n_fft: window, samples; the hop is a quarter of it.
    """

    def __init__(self, model: Vocoder, n_fft: int = 1024) -> None:
        self.sample_rate = model.sample_rate
        self.n_fft = n_fft
        self.hop_length = n_fft // 4
        self.window = torch.hann_window(n_fft)
        past, ahead = model.context_frames
        # Frames near either end see the edge of the mel, so they are left out.
        edges = (ahead if past is None else past) + ahead
        neutral = torch.zeros(model.mel_spec.n_mels, _FRAMES + edges)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # so loud a mel may be clamped
            audio = model.synthesize(neutral, temperature=0.0).cpu()
        start = (edges - ahead) * model.mel_spec.hop_length
        middle = audio[start : start + _FRAMES * model.mel_spec.hop_length]
        spectrum = torch.stft(
            middle, n_fft, self.hop_length, window=self.window, center=False, return_complex=True
        )
        self.bias = spectrum.abs().mean(dim=1)
        """B, (n_fft / 2 + 1,)"""

    def __call__(self, audio: Array, strength: float = STRENGTH) -> Array:
        """Audio without the bias.

        Args:
            audio: (samples,) or (batch, samples), at the sample rate of the model.
            strength: s, 0 or more; 0 changes nothing.

        Returns:
            Of the shape and kind of ``audio``, float32, in [-1, 1].

        Raises:
            ValueError: another shape, audio that is not floating point, or a strength below 0.
        """
        _check_strength(strength)
        samples = _audio(audio).detach().cpu().float()
        if samples.ndim not in (1, 2):
            raise ValueError(
                f"audio of shape {tuple(samples.shape)}: give (samples,) or (batch, samples)"
            )
        rows = samples if samples.ndim == 2 else samples.unsqueeze(0)
        length = rows.shape[1]
        # A window of zeros on either side, so that every sample has all the windows that cover it.
        padded = F.pad(rows, (self.n_fft, self.n_fft + self.hop_length))
        denoised = torch.empty_like(rows)
        segment = _SEGMENT // self.hop_length * self.hop_length
        for start in range(0, length, segment):
            stop = min(start + segment, length)
            denoised[:, start:stop] = self._subtract(padded, start, stop, strength)
        result = denoised.clamp(-1, 1)
        return _like(audio, result if samples.ndim == 2 else result[0])

    def stream(self, pieces: Iterable[Array], strength: float = STRENGTH) -> Iterator[Array]:
        """Audio without the bias, piece by piece, in constant memory.

        The concatenated pieces equal the denoised concatenation.

        Args:
            pieces: (samples,) each, of any lengths, all of one kind.
            strength: as above.

        Yields:
            (samples,) float32 in [-1, 1], of other lengths than the pieces.
        """
        _check_strength(strength)
        segment = _SEGMENT // self.hop_length * self.hop_length
        needed = segment + 2 * self.n_fft
        parts, length = [torch.zeros(1, self.n_fft)], self.n_fft
        piece: Array | None = None
        for piece in pieces:
            samples = _audio(piece).detach().cpu().float()
            parts.append(samples.unsqueeze(0))
            length += len(samples)
            while length >= needed:
                held = torch.cat(parts, dim=1)
                yield _like(piece, self._subtract(held, 0, segment, strength).clamp(-1, 1)[0])
                parts, length = [held[:, segment:]], length - segment
        if piece is None:
            return
        held = F.pad(torch.cat(parts, dim=1), (0, self.n_fft + self.hop_length))
        for start in range(0, length - self.n_fft, segment):
            stop = min(start + segment, length - self.n_fft)
            yield _like(piece, self._subtract(held, start, stop, strength).clamp(-1, 1)[0])

    def _subtract(self, padded: Tensor, start: int, stop: int, strength: float) -> Tensor:
        """Samples [start, stop), which lie n_fft later in ``padded``."""
        hops = math.ceil((stop - start) / self.hop_length)
        piece = padded[:, start : start + hops * self.hop_length + 2 * self.n_fft]
        spectrum = torch.stft(
            piece, self.n_fft, self.hop_length, window=self.window, return_complex=True
        )
        magnitude = (spectrum.abs() - strength * self.bias[:, None]).clamp_min(0)
        changed = torch.polar(magnitude, spectrum.angle())
        audio = torch.istft(
            changed, self.n_fft, self.hop_length, window=self.window, length=piece.shape[1]
        )
        return audio[:, self.n_fft : self.n_fft + stop - start]


def _check_strength(strength: float) -> None:
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(f"strength is {strength}: it must be a number from 0 up")


__all__ = ["STRENGTH", "Denoiser"]
