"""A small network that reads F0 and voicing off a log-mel, and the weights it ships with."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.pitch import N_CANDIDATES, BandLevels, HarmonicSalience, expected_pitch

_BACK = (4, 4, 3, 3)
_AHEAD = (2, 2, 1, 1)
_SALIENCE_GAIN = 10.0


class MelPitch(nn.Module):
    r"""F0 and voicing of each frame of a log-mel.

    .. math::
        p = \mathrm{softmax}(10\, s(m) + g(m)), \qquad f = \bar c(p), \qquad
        v = \sigma(a(m) + b \log \max p)

    s is the `HarmonicSalience` of the candidates; g and a are computed from s, its maximum and the
    `BandLevels` by a stack of depthwise-separable convolutions over frames; b is learnt; and
    :math:`\bar c` is the mean frequency around the best candidate (`expected_pitch`). There is no
    search over time: the convolutions see 14 frames back and 6 ahead, so a stream needs a
    look-ahead of 6 frames.

    Only s and the levels depend on the convention of the mel, and they are computed from the
    `MelSpec`; the weights are the same for all. They are trained on the presets, whose frames are
    10.7 to 16 ms apart.

    Everything is computed in the dtype of the mel, whatever that of the weights: a phase that is
    integrated from F0 over minutes needs it in float64, or rounding would add up.

    Args:
        mel_spec: the convention of the mel, with at least 22 bands below 1.8 kHz.
        channels: width of the stack.

    Raises:
        ValueError: the mel has too few bands to show harmonics.
    """

    def __init__(self, mel_spec: MelSpec, channels: int = 96) -> None:
        super().__init__()
        self.salience = HarmonicSalience(mel_spec)
        self.levels = BandLevels(mel_spec)
        self.first = nn.Conv1d(N_CANDIDATES + self.levels.count + 1, channels, 1)
        self.blocks = nn.ModuleList(
            _Block(channels, back, ahead) for back, ahead in zip(_BACK, _AHEAD, strict=True)
        )
        self.last = nn.Conv1d(channels, N_CANDIDATES + 1, 1)
        self.certainty = nn.Parameter(torch.ones(()))
        self.context_frames = (sum(_BACK), sum(_AHEAD))
        """Frames before and after a frame on which its F0 and voicing depend."""

    def scores(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the candidates (batch, N_CANDIDATES, frames) and of voicing (batch, frames)."""
        salience = self.salience(mel)
        best = salience.amax(dim=1, keepdim=True)
        x = _pointwise(self.first, torch.cat([salience, best, self.levels(mel)], dim=1))
        for block in self.blocks:
            x = block(_gelu(x))
        y = _pointwise(self.last, _gelu(x))
        logits = y[:, :-1] + _SALIENCE_GAIN * salience
        certainty = torch.log_softmax(logits, dim=1).amax(dim=1)
        return logits, y[:, -1] + self.certainty.to(mel.dtype) * certainty

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """F0 in Hz, of unvoiced frames too, and the probability that a frame is voiced.

        A frame counts as voiced from 0.5 on.

        Args:
            mel: (batch, n_mels, frames).

        Returns:
            (batch, frames) each.
        """
        logits, voicing = self.scores(mel)
        return expected_pitch(logits), torch.sigmoid(voicing)


class _Block(nn.Module):
    """A depthwise convolution over frames, then one over channels; residual."""

    def __init__(self, channels: int, back: int, ahead: int) -> None:
        super().__init__()
        self.padding = (back, ahead)
        self.depthwise = nn.Conv1d(channels, channels, back + 1 + ahead, groups=channels)
        self.pointwise = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = _pointwise(self.pointwise, _gelu(_depthwise(self.depthwise, F.pad(x, self.padding))))
        return x + y


# In float64 neither PyTorch nor onnxruntime has fast convolutions; products and sums are fast.


def _pointwise(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """A 1x1 convolution in the dtype of x."""
    assert layer.bias is not None
    weight, bias = layer.weight.to(x.dtype), layer.bias.to(x.dtype)
    return torch.matmul(weight.squeeze(2), x) + bias.unsqueeze(1)


def _depthwise(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """A depthwise convolution, without padding, in the dtype of x."""
    assert layer.bias is not None
    weight, bias = layer.weight.to(x.dtype), layer.bias.to(x.dtype)
    (taps,) = layer.kernel_size
    frames = x.shape[2] - taps + 1
    y = bias.unsqueeze(1).expand(-1, frames)
    for tap in range(taps):
        y = torch.addcmul(y, weight[:, :, tap], x[:, :, tap : tap + frames])
    return y


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def load_pitch(mel_spec: MelSpec) -> MelPitch:
    """The bundled network for mels of this convention, in evaluation mode, without gradients.

    ``vocoder/weights/pitch.md`` describes its training and accuracy.
    """
    path = Path(str(resources.files("vocoder"))) / "weights" / "pitch.safetensors"
    network = MelPitch(mel_spec)
    # Stored in half precision.
    weights = {name: w.float() for name, w in safetensors.torch.load_file(path).items()}
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)
