"""Makes the mels that a restoring flow should learn to mend, in time with the recordings.

    python recipes/restoration/make_mels.py --data data/heart --acoustic acoustic
    python recipes/restoration/make_mels.py --data data/festvox-ru --vocoder hifi-gan
    python recipes/restoration/train.py --data ... --speech.mels '[data/heart-acoustic, ...]'

An acoustic model predicts the mel of each recording from its text, with the durations, pitch and
loudness of the recording (teacher forcing). A vocoder makes audio of the recording's mel, and the
mel of that audio is kept. Written to FOLDER-NAME, or to --output: ID.npy, (n_mels, frames).
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import vocoder
from vocoder.atomic import atomic_path
from vocoder.audio import LogMel, from_pcm16
from vocoder.corpus import read_corpus
from vocoder.evaluation.baselines import BASELINES, GriffinLim
from vocoder.training.acoustic import TextAndSpeech, collate
from vocoder.training.data import prepare

Mels = Iterator[tuple[str, torch.Tensor]]


def teacher_forced(name: str, folder: Path, cache: Path, voice: str | None) -> Mels:
    """The mels that an acoustic model predicts, in one of its voices, by utterance."""
    model = vocoder.load_acoustic(name)
    voice = voice or model.voices[0]
    model.check(voice)
    data = TextAndSpeech(model.mel_spec, folder, cache, voices={voice: ""})
    data.setup()
    for id, item in data.items(list(data.mels), model).items():
        item = item._replace(voice=model.voices.index(voice))
        with torch.inference_mode():
            yield id, model(collate([item])).mel[0].T


def copied(name: str, folder: Path, cache: Path, limit: int | None) -> Mels:
    """The mels of the audio that a vocoder makes of the recordings' mels, by utterance."""
    made = {**BASELINES, "griffin-lim": GriffinLim}
    model = made[name]() if name in made else vocoder.load(name)
    log_mel, hop = LogMel(model.mel_spec), model.mel_spec.hop_length
    prepared = prepare(read_corpus(folder), model.sample_rate, cache)
    for id in list(prepared.entries)[:limit]:
        recorded = torch.from_numpy(from_pcm16(prepared.audio(id)))
        mel = log_mel(recorded[: len(recorded) // hop * hop])
        how = {} if name in made else {"restore": 0}
        with torch.inference_mode():
            yield id, log_mel(model.synthesize(mel, **how))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="corpus in LJSpeech's layout")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--acoustic", help="acoustic model: a bundled name or a checkpoint")
    which.add_argument("--vocoder", help="hifi-gan, griffin-lim, a bundled name or a checkpoint")
    parser.add_argument("--voice", help="of the acoustic model (default: its first)")
    parser.add_argument("--limit", type=int, help="recordings for a vocoder (default: all)")
    parser.add_argument("--cache", type=Path, default=Path("data/prepared"))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    name = options.acoustic or options.vocoder
    output = options.output or options.data.with_name(f"{options.data.name}-{Path(name).name}")
    places = options.data, options.cache
    if options.acoustic:
        mels = teacher_forced(name, *places, options.voice)
    else:
        mels = copied(name, *places, options.limit)
    output.mkdir(parents=True, exist_ok=True)
    try:
        for count, (id, mel) in enumerate(mels, 1):
            with atomic_path(output / f"{id}.npy") as partial, partial.open("wb") as file:
                np.save(file, mel.half().numpy())
            print(f"\r{count} mels in {output}", end="", flush=True)
    except (OSError, ValueError) as error:
        sys.exit(f"make_mels.py: {error}")
    print()


if __name__ == "__main__":
    main()
