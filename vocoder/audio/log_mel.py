"""The log-mel transform: audio to the mel that a `MelSpec` defines, differentiable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.validation import check_layout

TILE = 1024  # frames that are transformed at once: some 30 MB at n_fft 1,024


class ExactBuffers(nn.Module):
    """A module whose buffers follow it to another device, but not to a dtype that rounds them."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        applied: Any = super()._apply(move, recurse)
        return applied


class LogMel(ExactBuffers):
    """Audio to log-mel spectrogram, by the equation of `MelSpec`.

    It equals librosa to 1e-4, even in quiet bands next to loud ones.

    Frames lie as `MelSpec` says: the audio is zero-padded at its end to a whole number of hops and
    (n_fft - hop_length) / 2 samples are reflected at either end; n_fft / 2 with `center=True`,
    without zeros. Audio shorter than that is reflected back and forth (as `numpy.pad` does).

    The result is float32, whatever the autocast, the dtype of the audio, or a `.half()` of the
    module around it. It is computed in float64, because float32 leaves errors of 2e-3 in quiet
    bands (in float32 on Apple's GPUs, which have no float64). The gradient is finite everywhere,
    and zero below the floor. The filters are not in the state dict: the MelSpec defines them.

    Args:
        mel_spec: the definition of the mel.
    """

    filters: Tensor  # (n_mels, n_fft // 2 + 1)

    def __init__(self, mel_spec: MelSpec) -> None:
        super().__init__()
        self.mel_spec = mel_spec
        self.padding, self.nats = mel_spec.padding, mel_spec.nats
        # Computed on the CPU, but modules are expected on the default device.
        filters = mel_spec.filters().to(torch.get_default_device())
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """The log-mel spectrogram of audio.

        Args:
            audio: (samples,) or (batch, samples), floating point, in [-1, 1], at
                `mel_spec.sample_rate`; at least one sample.

        Returns:
            (n_mels, frames) or (batch, n_mels, frames), float32, where frames =
            `mel_spec.frames(samples)`.

        Raises:
            ValueError: the audio has another shape, no samples, is not floating point, or looks
                like (samples, channels).
        """
        spec = self.mel_spec
        check_layout(audio)
        if not spec.center:
            audio = F.pad(audio, (0, -audio.shape[-1] % spec.hop_length))
        return torch.cat(list(self._tiles(_reflect(audio, *self.padding))), dim=-1)

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """The log-mel of audio that comes in pieces, in constant memory.

        The concatenated mels equal `forward` of the concatenated audio, bit for bit.

        Args:
            chunks: (samples,) each, of any lengths; ValueError if not, or as for `forward`.

        Yields:
            (n_mels, frames), float32, of 1,024 frames or fewer.
        """
        hop, n_fft = self.mel_spec.hop_length, self.mel_spec.n_fft
        left, right = self.padding
        step = TILE * hop
        # Enough at the start to be reflected, and at the end to know that it is not needed.
        needed = step + n_fft + left + right
        held: Tensor | None = None
        received, begun = 0, False  # begun: the start is reflected already
        for chunk in chunks:
            if chunk.ndim != 1:
                raise ValueError(f"stream takes (samples,), got shape {tuple(chunk.shape)}.")
            if chunk.shape[0] == 0:
                continue
            check_layout(chunk)
            received += len(chunk)
            held = chunk if held is None else torch.cat([held, chunk])
            while len(held) >= needed:
                if not begun:
                    held, begun = _reflect(held, left, 0), True
                yield self._transform(held[: step - hop + n_fft])
                held = held[step:]
        if held is None:
            raise ValueError("Audio has no samples, so it has no mel.")
        if not self.mel_spec.center:
            held = F.pad(held, (0, -received % hop))
        yield from self._tiles(_reflect(held, 0 if begun else left, right))

    def _tiles(self, padded: Tensor) -> Iterator[Tensor]:
        """The frames that fit into padded audio, `TILE` of them at once."""
        hop, n_fft = self.mel_spec.hop_length, self.mel_spec.n_fft
        frames = (padded.shape[-1] - n_fft) // hop + 1
        for first in range(0, frames, TILE):
            last = min(first + TILE, frames)
            yield self._transform(padded[..., first * hop : (last - 1) * hop + n_fft])

    def _transform(self, padded: Tensor) -> Tensor:
        """The frames that fit into padded audio."""
        spec = self.mel_spec
        dtype = torch.float32 if padded.device.type == "mps" else torch.float64
        with torch.autocast(padded.device.type, enabled=False):
            spectrum = torch.stft(
                padded.to(dtype),
                n_fft=spec.n_fft,
                hop_length=spec.hop_length,
                win_length=spec.win_length,
                window=torch.hann_window(spec.win_length, dtype=dtype, device=padded.device),
                center=False,
                return_complex=True,
            )  # (..., n_fft // 2 + 1, frames)
            # The gradient of abs() at 0 is 0; that of sqrt(re² + im²) would be NaN.
            spectrogram = spectrum.abs().pow(spec.power)
            mel = torch.matmul(self.filters.to(dtype), spectrogram).clamp(min=spec.floor)
            return (mel.log() / self.nats).float()


def _reflect(audio: Tensor, left: int, right: int) -> Tensor:
    """Reflection padding of the last axis, also of audio shorter than the padding."""
    samples = audio.shape[-1]
    if samples > max(left, right):
        # torch pads by reflection only where there is a channel axis.
        return F.pad(audio.unsqueeze(-2), (left, right), mode="reflect").squeeze(-2)
    return audio[..., mirror(torch.arange(-left, samples + right, device=audio.device), samples)]


def mirror(index: Tensor, samples: int) -> Tensor:
    """Indices of reflected samples brought into [0, samples): 0 1 2 1 0 1 2 ... for 3 samples."""
    # A tensor, since the ONNX exporter cannot divide by a symbolic number.
    period = torch.full_like(index[:1], max(2 * (samples - 1), 1))
    index = index % period
    return torch.minimum(index, (period - index) % period)
