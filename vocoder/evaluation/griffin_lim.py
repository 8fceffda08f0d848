"""Griffin-Lim, the vocoder without a model: the point of reference of every comparison."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vocoder.audio import MelSpec, Refine, check_refine, refine_audio
from vocoder.extras import torchaudio


def griffin_lim(
    spec: MelSpec, seed: int = 0, device: torch.device | str = "cpu", refine: Refine = 0
) -> Callable[[Tensor], Tensor]:
    """Griffin-Lim by torchaudio: least squares to linear frequency, then 32 rounds for the phase.

    Papers: Griffin and Lim, 1984; the fast version of Perraudin, Balazs and Soendergaard, 2013.

    Args:
        spec: the convention of the log-mels it will get.
        seed: of the phases it starts from.
        device: where it runs.
        refine: iterations afterwards, as in `Vocoder.synthesize`.

    Returns:
        A function from a log-mel (n_mels, frames) or (batch, n_mels, frames) on the device to
        audio, (frames * hop,) or (batch, frames * hop); it may end a hop earlier if frames are
        centred.

    Raises:
        ValueError: refine is out of range.
        ImportError: the installed torchaudio does not fit the torch.
    """
    check_refine(refine)
    device = torch.device(device)
    transforms = torchaudio().transforms
    linear = transforms.InverseMelScale(
        n_stft=spec.n_fft // 2 + 1,
        n_mels=spec.n_mels,
        sample_rate=spec.sample_rate,
        f_min=spec.fmin,
        f_max=spec.fmax,
        norm=spec.mel_norm,
        mel_scale=spec.mel_scale,
        # The only driver for filters of less than full rank; CUDA has none.
        driver="gelsd" if device.type == "cpu" else "gels",
    ).to(device)
    phase = transforms.GriffinLim(
        n_fft=spec.n_fft, win_length=spec.win_length, hop_length=spec.hop_length, power=spec.power
    ).to(device)
    # torchaudio reflects half a window at the ends of the audio.
    least = spec.n_fft // 2 // spec.hop_length + 2
    # torchaudio centres frame k on sample k * hop. Where this mel is half a hop later, one more
    # frame on either side lets the audio begin half a hop early and makes it long enough.
    start = 0 if spec.center else spec.hop_length // 2

    def synthesize(mel: Tensor) -> Tensor:
        magnitude = mel.exp() if spec.log_base == "e" else 10.0**mel
        if not spec.center:
            padded = F.pad(magnitude.reshape(-1, *mel.shape[-2:]), (1, 1), mode="replicate")
            magnitude = padded.reshape(*mel.shape[:-1], -1)
        magnitude = F.pad(magnitude, (0, max(0, least - magnitude.shape[-1])))
        forked = [device] if device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=forked):
            torch.manual_seed(seed)
            audio: Tensor = phase(linear(magnitude))
        audio = audio[..., start : start + mel.shape[-1] * spec.hop_length]
        if not refine:
            return audio
        # With centred frames the audio may have one more frame than the mel.
        target = torch.cat([mel, mel[..., -1:]], dim=-1)[..., : spec.frames(audio.shape[-1])]
        if device.type != "cpu":
            return refine_audio(audio, target, spec, refine)
        from vocoder.backends import refinement  # numba takes a second to import

        return refinement.refine_audio(audio, target, spec, refine)

    return synthesize
