"""Voice conversion by a direction in the latents of a flow: adds to every latent frame of one voice
the difference of two voices' mean latents, and goes back (Kingma and Dhariwal, 2018: Glow's
manipulation of attributes).

    python recipes/families/voice_conversion.py CORPUS --pair am_fenrir af_sarah

CORPUS is a folder in LJSpeech's layout whose ids begin with the name of the voice and a hyphen.
The flow is the bundled acoustic model's, from log-mels to latents; the bundled vocoder makes the
sound. The control adds the difference of mean log-mels without any flow. Means of the source voice
leave out the utterance that is converted. Measured for each row, as means over utterances:

- F0: median over voiced frames, in Hz, read by the bundled pitch network;
- distance to either voice: between mean MFCCs (1 to 19, of frames within 40 dB of the loudest),
  to the mean over that voice's other utterances. The manipulation moves just such means, so it
  says little about manner: F0 and the listener do;
- word error rate: by PocketSphinx, if it is installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from torch import Tensor

import vocoder
from vocoder.audio import MelError, MelSpec
from vocoder.checkpoints import CheckpointError
from vocoder.corpus import CorpusError, Utterance, read_corpus
from vocoder.evaluation.estimates import estimate, estimate_rate
from vocoder.evaluation.recognition import recognise, word_errors
from vocoder.evaluation.results import machine_facts, save_result
from vocoder.extras import MissingExtraError
from vocoder.nn.pitch import load_pitch
from vocoder.text.acoustic import AcousticModel
from vocoder.text.mel_flow import FRAMES_PER_STEP

CPU = torch.device("cpu")

FEWEST = 3
"""Utterances of a voice that are needed to speak of its mean."""


def voice(corpus: list[Utterance], name: str, limit: int) -> list[Utterance]:
    """The first utterances of a voice.

    Raises:
        CorpusError: there are too few.
    """
    found = [u for u in corpus if u.id.startswith(f"{name}-")][:limit]
    if len(found) < FEWEST:
        voices = sorted({u.id.rpartition("-")[0] for u in corpus})
        raise CorpusError(
            f"{len(found)} utterances of the voice {name!r}: at least {FEWEST} are needed; the "
            f"corpus holds {', '.join(voices)}"
        )
    return found


class Latents:
    """Log-mels to the latents of the acoustic model's flow, and back."""

    def __init__(self, model: AcousticModel) -> None:
        self.model = model

    def encode(self, mel: Tensor) -> Tensor:
        """(n_mels, frames) to latents (n_mels, frames / 2, 2): even and odd frames apart."""
        if mel.shape[1] % FRAMES_PER_STEP:
            mel = torch.cat([mel, mel[:, -1:]], dim=1)
        z, _ = self.model(mel.unsqueeze(0), torch.tensor([mel.shape[1]]))
        return z[0].unflatten(1, (-1, FRAMES_PER_STEP))

    def decode(self, z: Tensor) -> Tensor:
        """Latents to a mel, (n_mels, frames)."""
        mel = self.model.inverse(z.flatten(1).unsqueeze(0))[0]
        return mel.clamp_min(self.model.mel_spec.log_floor)


def frames_mean(items: list[Tensor]) -> Tensor:
    """Mean over all frames of several utterances; frames are in dimension 1."""
    return torch.cat(items, dim=1).mean(dim=1, keepdim=True)


def cepstral_mean(audio: np.ndarray, spec: MelSpec) -> np.ndarray:
    """Mean MFCCs 1 to 19 over the frames within 40 dB of the loudest, (19,).

    Of the band that the mel describes: what is above it does not come from the conversion.
    """
    cepstra = librosa.feature.mfcc(y=audio, sr=spec.sample_rate, n_mfcc=20, fmax=spec.fmax)
    level = librosa.feature.rms(y=audio)[0][: cepstra.shape[1]]
    return cepstra[1:, level > 0.01 * level.max()].mean(axis=1)


class Measures:
    """Collects the measures of one row over utterances."""

    def __init__(self, spec: MelSpec, recognised: bool) -> None:
        self.spec = spec
        self.recognised = recognised
        self.f0: list[float] = []
        self.to_source: list[float] = []
        self.to_target: list[float] = []
        self.errors: list[tuple[int, int]] = []

    def add(
        self, audio: np.ndarray, f0: float, source: np.ndarray, target: np.ndarray, text: str
    ) -> None:
        mean = cepstral_mean(audio, self.spec)
        self.f0.append(f0)
        self.to_source.append(float(np.linalg.norm(mean - source)))
        self.to_target.append(float(np.linalg.norm(mean - target)))
        if self.recognised:
            found = word_errors(text, recognise(audio, self.spec.sample_rate))
            self.errors.append((found.total, found.words))

    def row(self) -> dict[str, Any]:
        totals = [list(column) for column in zip(*self.errors, strict=True)]
        return {
            "f0_median_hz": estimate(self.f0),
            "mfcc_distance_to_source": estimate(self.to_source),
            "mfcc_distance_to_target": estimate(self.to_target),
            "word_error_rate": estimate_rate(*totals) if totals else None,
        }


@torch.no_grad()
def convert(
    corpus: list[Utterance],
    source: str,
    target: str,
    limit: int,
    strengths: list[float],
    recognised: bool,
) -> dict[str, Any]:
    """The result of one pair of voices as plain JSON values."""
    acoustic, model = vocoder.load_acoustic(), vocoder.load()
    if acoustic.mel_spec != model.mel_spec:
        raise MelError("the bundled models differ in their mel conventions: they must share one")
    rate, spec = model.sample_rate, model.mel_spec
    latents, pitch = Latents(acoustic), load_pitch(spec)
    voices = [voice(corpus, name, limit) for name in (source, target)]
    sounds = [[vocoder.read_audio(u.path, rate)[0] for u in voice] for voice in voices]
    mels = [[model.mel(sound) for sound in voice] for voice in sounds]
    encoded = [[latents.encode(mel) for mel in voice] for voice in mels]
    cepstra = [[cepstral_mean(sound.numpy(), spec) for sound in voice] for voice in sounds]

    def f0_median(audio: Tensor) -> float:
        frequency, voicing = pitch(model.mel(audio).unsqueeze(0))
        return float(frequency[voicing > 0.5].median())

    def others(items: list[Any], index: int) -> list[Any]:
        return [item for i, item in enumerate(items) if i != index]

    target_latent, target_mel = frames_mean(encoded[1]), frames_mean(mels[1])
    ways: dict[str, Callable[[int], Tensor]] = {"source, copy synthesis": lambda i: mels[0][i]}
    for strength in strengths:
        ways[f"latents, {strength:g} of the difference"] = lambda i, a=strength: latents.decode(
            encoded[0][i] + a * (target_latent - frames_mean(others(encoded[0], i)))
        )
        ways[f"log-mels, {strength:g} of the difference"] = lambda i, a=strength: (
            mels[0][i] + a * (target_mel - frames_mean(others(mels[0], i)))
        ).clamp_min(spec.log_floor)
    rows = {
        name: Measures(spec, recognised) for name in ("source, recorded", *ways, "target, recorded")
    }
    for index, utterance in enumerate(voices[0]):
        means = [np.mean(others(cepstra[0], index), axis=0), np.mean(cepstra[1], axis=0)]
        for name in ("source, recorded", *ways):
            audio = ways[name](index) if name in ways else None
            sound = sounds[0][index] if audio is None else model.synthesize(audio)
            rows[name].add(sound.numpy(), f0_median(sound), *means, utterance.normalised)
    for index, utterance in enumerate(voices[1]):
        means = [np.mean(cepstra[0], axis=0), np.mean(others(cepstra[1], index), axis=0)]
        sound = sounds[1][index]
        rows["target, recorded"].add(sound.numpy(), f0_median(sound), *means, utterance.normalised)
    return {
        "source": source,
        "target": target,
        "utterances": {source: [u.id for u in voices[0]], target: [u.id for u in voices[1]]},
        "rows": {name: row.row() for name, row in rows.items()},
    }


def shown(result: dict[str, Any]) -> str:
    """The result of one pair as a table in Markdown: means, with 95 % intervals."""
    lines = [
        f"| {result['source']} to {result['target']} | F0 median, Hz "
        "| MFCC distance to source | to target | word error rate |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in result["rows"].items():
        cells = [
            "–" if value is None
            else f"{value['mean']:.3g} ({value['lower']:.3g}–{value['upper']:.3g})"
            for value in row.values()
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument(
        "--pair", nargs=2, action="append", required=True, metavar=("SOURCE", "TARGET"),
        help="voice to convert and voice to take on; may be given several times",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=20, help="utterances of each voice at most")
    parser.add_argument(
        "--strength", type=float, nargs="+", default=[0.5, 1.0], help="parts of the difference"
    )
    parser.add_argument("--without-words", action="store_true", help="no word error rate")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    arguments = parser.parse_args()
    recognised, pairs = not arguments.without_words, []
    try:
        corpus = list(read_corpus(arguments.corpus).utterances)
        for source, target in arguments.pair:
            pairs.append(
                convert(corpus, source, target, arguments.limit, arguments.strength, recognised)
            )
            print(shown(pairs[-1]), end="\n\n", flush=True)
    except (CorpusError, CheckpointError, MelError, MissingExtraError, OSError) as error:
        sys.exit(f"voice_conversion.py: {error}")
    if arguments.json:
        about = {"corpus": arguments.corpus.resolve().name, "machine": machine_facts(CPU)}
        save_result({"about": about, "pairs": pairs}, arguments.json)


if __name__ == "__main__":
    main()
