"""Compares the mels of text-to-speech toolkits with ours.

    python recipes/mels/check.py              checks all, writes docs/results/mel_parity.json
    python recipes/mels/check.py -o FILE      writes elsewhere

Run it by hand in an environment of its own that has flow-vocoder and, without their dependencies,
the toolkits (README.md). A function is loaded from its installed file, so that a toolkit need not
work as a whole. What no package has is written anew here, from its published source, with librosa
or torch; no code is copied.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import librosa
import numpy as np
import torch
from torch import Tensor

from vocoder.audio import LogMel, MelSpec, convert_mel, read_audio
from vocoder.evaluation.results import save_result

ROOT = Path(__file__).parents[2]
RECORDINGS = sorted((ROOT / "recipes/ljspeech/sample/wavs").glob("*.flac"))[:6]
HISS = 1e-3
"""Level of added noise, -60 dB of full scale, that hides what toolkits add before a square root."""
PROMISE = 1e-4
RATE, N_FFT, HOP = 22050, 1024, 256
LJSPEECH, TACOTRON2 = MelSpec.preset("ljspeech"), MelSpec.preset("tacotron2")

Function = Callable[[Tensor], Tensor]


def module(package: str, file: str) -> Any:
    """A module of an installed package, without the packages around it."""
    path = importlib.metadata.distribution(package).locate_file(file)
    return SimpleNamespace(**runpy.run_path(str(path)))


def tacotron2() -> Function:
    """NVIDIA's TacotronSTFT, in the port on PyPI."""
    import tacotron2.layers
    import tacotron2.stft

    # Written for an older librosa, which took these by position.
    def filters(rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> Any:
        return librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)

    tacotron2.layers.librosa_mel_fn = filters
    tacotron2.stft.pad_center = lambda data, size: librosa.util.pad_center(data, size=size)
    stft = tacotron2.layers.TacotronSTFT(N_FFT, HOP, N_FFT, 80, RATE, 0.0, 8000.0)
    return lambda audio: stft.mel_spectrogram(audio[None])[0]


def fastpitch() -> Function:
    """NVIDIA's FastPitch has the TacotronSTFT of Tacotron 2; written anew with librosa."""

    def mel(audio: Tensor) -> Tensor:
        summed = librosa.feature.melspectrogram(
            y=audio.double().numpy(), sr=RATE, n_fft=N_FFT, hop_length=HOP, n_mels=80, fmin=0,
            fmax=8000, power=1.0, pad_mode="reflect",
        )  # fmt: skip
        return torch.from_numpy(np.log(np.maximum(summed, 1e-5))).float()

    return mel


def nemo_fastpitch() -> Function:
    """NeMo's: a symmetric window, zeros around the audio, and 1e-5 added before the logarithm."""
    filters = librosa.filters.mel(sr=RATE, n_fft=N_FFT, n_mels=80, fmin=0, fmax=8000)
    window = torch.from_numpy(np.hanning(N_FFT))

    def mel(audio: Tensor) -> Tensor:
        spectrum = torch.stft(
            audio.double(), N_FFT, HOP, window=window, pad_mode="constant", return_complex=True
        )
        logarithm = (torch.from_numpy(filters).double() @ spectrum.abs() + 1e-5).log()
        undone = (logarithm.exp() - 1e-5).clamp(min=1e-5).log()
        return convert_mel(undone.float(), "tacotron2", "tacotron2")

    return mel


def matcha() -> Function:
    """Matcha-TTS, which took HiFi-GAN's."""
    audio = module("matcha-tts", "matcha/utils/audio.py")
    # Normalised and denormalised as Matcha-TTS does, with its statistics of LJSpeech.
    mean, std = -5.536622, 2.116101

    def mel(samples: Tensor) -> Tensor:
        raw = audio.mel_spectrogram(samples[None], N_FFT, 80, RATE, HOP, N_FFT, 0, 8000)[0]
        return convert_mel((raw - mean) / std, "ljspeech", "ljspeech", mean=mean, std=std)

    return mel


def espnet() -> Function:
    """ESPnet 2, with the values of its recipes for LJSpeech."""
    from espnet2.tts.feats_extract.log_mel_fbank import LogMelFbank

    fbank = LogMelFbank(fs=RATE, n_fft=N_FFT, hop_length=HOP, fmin=80, fmax=7600, n_mels=80)
    return lambda audio: fbank(audio[None], torch.tensor([len(audio)]))[0][0].T


def vits_mel() -> Function:
    """The mel of VITS and Piper, in Coqui's port; it reaches half the sample rate."""
    transforms = module("coqui-tts", "TTS/utils/audio/torch_transforms.py")
    return lambda audio: transforms.wav_to_mel(
        audio[None], N_FFT, 80, RATE, HOP, N_FFT, 0.0, RATE / 2
    )[0]


# Model, what is checked, package (None: written anew), its mel, the spec that it follows, remark.
CASES: list[tuple[str, str, str | None, Callable[[], Function], MelSpec, str]] = [
    ("Tacotron 2", "`tacotron2.layers.TacotronSTFT`", "tacotron2", tacotron2, TACOTRON2, ""),
    ("FastPitch (NVIDIA)", "`common.layers.TacotronSTFT`, written anew", None, fastpitch,
     TACOTRON2, "not on PyPI"),
    ("FastPitch (NeMo)", "`FilterbankFeatures`, written anew", None, nemo_fastpitch,
     TACOTRON2, "needs most of NeMo to import; symmetric window, so never exact"),
    ("Matcha-TTS, HiFi-GAN", "`matcha.utils.audio.mel_spectrogram`", "matcha-tts", matcha,
     LJSPEECH, "adds 1e-9 to powers"),
    ("ESPnet", "`LogMelFbank`", "espnet", espnet,
     MelSpec.preset("espnet"), "raises powers to 1e-10"),
    ("VITS, Piper", "`wav_to_mel` of Coqui", "coqui-tts", vits_mel,
     dataclasses.replace(LJSPEECH, fmax=RATE / 2), "adds 1e-6 to powers, which a mel cannot undo"),
]  # fmt: skip


def differences(theirs: Function, spec: MelSpec, hiss: float) -> Tensor:
    """|theirs - ours| in nats of all values but those of frames that the ends reach."""
    ours = LogMel(spec)
    generator = torch.Generator().manual_seed(0)
    found = []
    for path in RECORDINGS:
        audio = read_audio(path, RATE)[0]
        audio = audio[: len(audio) // HOP * HOP]  # what is left over is padded in several ways
        audio = (audio + hiss * torch.randn(len(audio), generator=generator)).clamp(-1, 1)
        found.append(spec.nats * (theirs(audio) - ours(audio))[:, 2:-2].abs().flatten())
    return torch.cat(found)


def main() -> None:
    """Check all, write the file."""
    parser = argparse.ArgumentParser(description="Compare the mels of toolkits with ours.")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/results/mel_parity.json")
    output = parser.parse_args().output
    rows: list[dict[str, Any]] = []
    for model, checked, package, function, spec, remark in CASES:
        row = {"model": model, "checked": checked, "remark": remark, "package": package}
        rows.append(row)
        try:
            if package:
                row["version"] = importlib.metadata.version(package)
            theirs = function()
        except (ImportError, OSError) as error:
            row["missing"] = str(error)
            continue
        plain, noisy = differences(theirs, spec, 0.0), differences(theirs, spec, HISS)
        rows[-1] |= {
            "mean": plain.mean().item(),
            "largest": plain.max().item(),
            "share": (plain > PROMISE).float().mean().item(),
            "largest_with_hiss": noisy.max().item(),
            "share_with_hiss": (noisy > PROMISE).float().mean().item(),
        }
        print(json.dumps(rows[-1]))
    about = {
        "date": datetime.date.today().isoformat(),
        "recordings": len(RECORDINGS),
        "hiss": HISS,
        "promise": PROMISE,
        "librosa": librosa.__version__,
        "torch": torch.__version__,
    }
    save_result({"about": about, "rows": rows}, output)


if __name__ == "__main__":
    main()
