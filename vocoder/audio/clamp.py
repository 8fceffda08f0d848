"""The last step of synthesis: samples beyond full scale are clamped, counted and reported.

A normalised mel lies within the range of a MelSpec, so `check_mel` cannot refuse it, but it is far
too loud: its level and the audio that it gives betray it.
"""

from __future__ import annotations

import logging
import math
import warnings
from functools import lru_cache

import torch
from torch import Tensor

from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.validation import MIN_FRAMES, MelError, normalisation

log = logging.getLogger(__name__)

SAID = 2e-3
"""Share of clamped samples that is worth a warning; the mels of loud recordings have half of it."""

REFUSED = 0.1
"""Share of clamped samples from which a loud mel is refused: normalised ones have 0.4 to 1."""

LOUD = 0.5
"""RMS that speech with peaks at full scale reaches in one frame of thirty."""

SHORTEST = 0.01
"""Length of window, in seconds, from which levels are judged: a shorter one can hold a single
pulse of a voice."""

_MOSTLY_LOUD, _MOSTLY_IMPOSSIBLE = 0.4, 0.3  # shares of frames
_SOME_IMPOSSIBLE = 0.02
"""Share of frames above an RMS of 1 from which loud audio is taken for a normalised mel: the mel of
a recording has none, however hard it was clipped."""

# Full scale to 16 bits: autoregressive models go no further.
_FULL_SCALE = 1 - 2.0**-15

# Frames after which the past of a stream counts half.
_HALF_LIFE = 200


def frame_rms(mel: Tensor, mel_spec: MelSpec) -> Tensor:
    r"""A lower estimate of the RMS of each frame, from its log-mel alone.

    .. math:: \mathrm{RMS}^2 \approx \frac{2}{N \sum_n w_n^2} \sum_m b_m \bar{X}_m^2

    (Parseval) with N = n_fft, the window w, the mean magnitude X of band m and its width b, both in
    bins. Audio in [-1, 1] stays below 1.

    Args:
        mel: (n_mels, frames).
        mel_spec: its convention.

    Returns:
        (frames,), float64, on the CPU.
    """
    sums, widths, scale = _bands(mel_spec)
    mean = (mel.detach().cpu().double() * mel_spec.nats).exp() / sums[:, None]
    power = mean.square() if mel_spec.power == 1 else mean
    return (scale * (power * widths[:, None]).sum(0)).sqrt()


@lru_cache(maxsize=8)
def _bands(spec: MelSpec) -> tuple[Tensor, Tensor, float]:
    filters = spec.filters().double().cpu()
    sums = filters.sum(1)
    sums[sums == 0] = math.inf  # filters between two bins measure nothing
    widths = sums / filters.amax(1).clamp(min=1e-30)
    widths[sums.isinf()] = 0
    window = torch.hann_window(spec.win_length, dtype=torch.float64, device="cpu")
    return sums, widths, 2 / (spec.n_fft * window.square().sum().item())


def limited(mel: Tensor, mel_spec: MelSpec) -> Tensor:
    """A mel whose frames are less loud than `LOUD`: what is louder is lowered in all bands.

    Args:
        mel: (n_mels, frames).
        mel_spec: its convention.
    """
    excess = (frame_rms(mel, mel_spec) / (0.9 * LOUD)).clamp(min=1).log()
    units = excess * (mel_spec.power / mel_spec.nats)
    return (mel - units.to(mel)).clamp(min=mel_spec.log_floor)


class Clamp:
    """Clamps the audio of one item, or of one stream, and refuses mels that are far too loud.

    Args:
        mel_spec: the convention of the mels.
        temperature: of the synthesis.
    """

    def __init__(self, mel_spec: MelSpec, temperature: float) -> None:
        self.mel_spec = mel_spec
        self.temperature = temperature
        self.samples = self.clamped = 0
        """Samples so far, and those of them that were at or beyond full scale."""
        self.peak = 0.0
        # Of the last frames and samples, the older the less.
        self._frames = self._loud = self._impossible = 0.0
        self._recent = self._recent_clamped = 0.0

    def expect(self, mel: Tensor) -> None:
        """Look at the level of a mel, or of the next piece of it, (n_mels, frames).

        Raises:
            MelError: most of its frames are louder than any audio in [-1, 1].
        """
        least, most = torch.aminmax(mel)
        if least == most:  # a constant fits any convention
            return
        if self.mel_spec.win_length < SHORTEST * self.mel_spec.sample_rate:
            return
        rms = frame_rms(mel, self.mel_spec)
        fading = 0.5 ** (len(rms) / _HALF_LIFE)
        self._frames = self._frames * fading + len(rms)
        self._loud = self._loud * fading + int((rms > LOUD).sum())
        self._impossible = self._impossible * fading + int((rms > 1).sum())
        if self._frames >= MIN_FRAMES and self._impossible > _MOSTLY_IMPOSSIBLE * self._frames:
            raise MelError(
                f"The mel is too loud for audio in [-1, 1]: {int((rms > 1).sum()):,} of its "
                f"{len(rms):,} frames would have an RMS above 1. "
                f"{normalisation(mel, self.mel_spec)}"
            )

    def __call__(self, audio: Tensor, mel: Tensor) -> Tensor:
        """Audio (samples,) clamped to [-1, 1].

        Args:
            audio: of one item, or the next piece of a stream.
            mel: its mel, (n_mels, frames), for the message.

        Raises:
            MelError: the mel is loud, and far too many samples are beyond full scale; the message
                names the likely normalisation.
        """
        if not audio.numel():
            return audio
        size = audio.abs()
        clamped = int((size >= _FULL_SCALE).sum())
        self.samples += len(audio)
        self.clamped += clamped
        self.peak = max(self.peak, size.max().item())
        fading = 0.5 ** (len(audio) / (_HALF_LIFE * self.mel_spec.hop_length))
        self._recent = self._recent * fading + len(audio)
        self._recent_clamped = self._recent_clamped * fading + clamped
        if (
            self._frames >= MIN_FRAMES
            and self._loud > _MOSTLY_LOUD * self._frames
            and self._impossible > _SOME_IMPOSSIBLE * self._frames
            and self._recent_clamped > REFUSED * self._recent
        ):
            raise MelError(
                f"The mel gives audio far beyond full scale: {clamped:,} of {len(audio):,} samples "
                f"are outside [-1, 1], and the peak is {self.peak:.3g}. "
                f"{normalisation(mel, self.mel_spec)}"
            )
        return audio.clamp(-1, 1)

    def finish(self, stacklevel: int = 3) -> None:
        """Say how much was cut, once all audio is there: to the log where the mel is not at fault.

        Warns:
            UserWarning: the mel is of loud audio, and more than a few samples were clamped.
        """
        if not self.clamped:
            return
        what = (
            f"Clamped {self.clamped:,} of {self.samples:,} samples to [-1, 1]; the peak was "
            f"{self.peak:.3g}."
        )
        if self.clamped < SAID * self.samples:
            log.info(what)
        elif self._frames >= MIN_FRAMES and self._loud > 0.02 * self._frames:
            warnings.warn(
                f"{what} The mel is that of very loud audio: lower it, or check its MelSpec.",
                stacklevel=stacklevel,
            )
        else:
            cause = "the temperature is high" if self.temperature > 1 else "the model is too loud"
            log.warning("%s The mel is not that loud: %s.", what, cause)
