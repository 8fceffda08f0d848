"""Builds a corpus of synthetic English speech with its text, 22.05 kHz, in LJSpeech's layout.

    apt-get install bible-kjv jargon-text fortunes
    python3 -m venv data/tts
    data/tts/bin/pip install -r recipes/synthetic-english/requirements.txt
    python recipes/synthetic-english/build.py --voices joe heart --hours 3
    python recipes/synthetic-english/build.py --voices kumo --hours 0.25

Voices to train on go to data/synthetic-english, the one held out as the unseen speaker to
data/synthetic-english-unseen. Run the same command again to resume; more hours extend the corpus.
An utterance does not depend on when it is built: its name is its voice and a hash of its words.
README.md describes the voices, NOTICE their licences.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import librosa
import numpy as np
import soundfile
import soxr
from rich.console import Console
from rich.progress import Progress
from sentences import Sentence, deal, read_texts

from vocoder.audio import write_audio

HERE = Path(__file__).parent
SAMPLE_RATE = 22050
SECONDS = (2.0, 12.0)
"""Shortest and longest utterance to keep."""

PAUSE = 0.15
"""Seconds of silence left before and after the speech: some networks give a second of zeros."""

SPEECH_DB = 50.0
"""Frames no further below the loudest count as speech."""

LOUDEST = 0.95
"""Peak amplitude: louder utterances are turned down to it, none is turned up."""

SILENT_RMS = 1e-3

SAVE_EVERY = 60.0
"""Seconds between writes of metadata.csv while speaking."""


@dataclass(frozen=True)
class Voice:
    """A voice: its share of all sentences, and whether it is held out as the unseen speaker."""

    share: float
    unseen: bool = False


VOICES = {
    "joe": Voice(share=4),
    "heart": Voice(share=4),
    "alpha": Voice(share=1),
    "gongitsune": Voice(share=1),
    "nezumi": Voice(share=1),
    "tebukuro": Voice(share=1),
    "kumo": Voice(share=1, unseen=True),
}

Synthesiser = Callable[[str, int], tuple[np.ndarray, int]]
"""Text and seed to samples, float32, and their rate in Hz."""


class Speaker:
    """A process that runs speak.py for one voice; calling it speaks one text."""

    def __init__(self, python: Path, voice: str) -> None:
        try:
            self._process = subprocess.Popen(
                [python, HERE / "speak.py", voice],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise OSError(
                f"there is no Python to speak with at {python}: create it with `python3 -m venv "
                f"{python.parent.parent} && {python.parent}/pip install -r "
                f"{HERE / 'requirements.txt'}`, or name another with --tts"
            ) from error

    def __call__(self, text: str, seed: int) -> tuple[np.ndarray, int]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        try:
            requests.write(json.dumps({"text": text, "seed": seed}).encode() + b"\n")
            requests.flush()
            head = json.loads(answers.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise RuntimeError("speak.py ended; its own message is above") from error
        samples = np.frombuffer(answers.read(4 * head["samples"]), "<f4")
        return samples, head["sample_rate"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def utterance_id(voice: str, sentence: Sentence) -> str:
    return f"{voice}-{sentence.key}"


def noise_seed(id: str) -> int:
    """The seed of an utterance's random numbers, independent of what was spoken before it."""
    return int.from_bytes(hashlib.sha256(f"noise {id}".encode()).digest()[:4], "big")


def finish(samples: np.ndarray, sample_rate: int) -> np.ndarray | None:
    """Speech for the corpus: 22.05 kHz, trimmed, not clipped; None if too short, long or silent.

    Raises ValueError for a lower rate: upsampled audio would teach a model that speech has no
    treble.
    """
    if sample_rate < SAMPLE_RATE:
        raise ValueError(f"{sample_rate} Hz cannot become {SAMPLE_RATE} Hz")
    audio = soxr.resample(samples, sample_rate, SAMPLE_RATE, quality="VHQ")
    if not np.isfinite(audio).all() or np.sqrt(np.mean(audio**2)) < SILENT_RMS:
        return None
    _, (start, stop) = librosa.effects.trim(audio, top_db=SPEECH_DB, frame_length=1024)
    pause = round(PAUSE * SAMPLE_RATE)
    audio = audio[max(0, start - pause) : stop + pause]
    if not SECONDS[0] <= len(audio) / SAMPLE_RATE <= SECONDS[1]:
        return None
    return audio * min(1.0, LOUDEST / float(np.abs(audio).max()))


def speak_all(
    asked: Iterator[tuple[str, Sentence, bool]], synthesisers: Sequence[Synthesiser]
) -> Iterator[tuple[str, Sentence, np.ndarray | None]]:
    """Speak the sentences that have no audio yet, in parallel, and yield all in order.

    Args:
        asked: id, sentence, and whether its audio exists.
        synthesisers: each is used by one thread at a time.

    Yields:
        Id, sentence, and its audio: None if that exists or `finish` refuses it.
    """
    idle: SimpleQueue[Synthesiser] = SimpleQueue()
    for synthesiser in synthesisers:
        idle.put(synthesiser)

    def speak(id: str, sentence: Sentence) -> np.ndarray | None:
        synthesiser = idle.get()
        try:
            return finish(*synthesiser(sentence.normalised, noise_seed(id)))
        finally:
            idle.put(synthesiser)

    waiting: deque[tuple[str, Sentence, Future[np.ndarray | None] | None]] = deque()
    with ThreadPoolExecutor(len(synthesisers)) as pool:
        try:
            for id, sentence, there in asked:
                waiting.append((id, sentence, None if there else pool.submit(speak, id, sentence)))
                # Yield existing audio at once: it may turn out to be enough.
                while waiting and (waiting[0][2] is None or len(waiting) > 2 * len(synthesisers)):
                    id, sentence, future = waiting.popleft()
                    yield id, sentence, future.result() if future else None
            for id, sentence, future in waiting:
                yield id, sentence, future.result() if future else None
        finally:
            pool.shutdown(cancel_futures=True)


def seconds_of(path: Path) -> float:
    """Duration of an audio file, 0 if it does not exist."""
    return soundfile.info(path).duration if path.exists() else 0.0


def read_metadata(folder: Path) -> dict[str, str]:
    """Lines of metadata.csv by id, of the utterances whose audio exists."""
    path = folder / "metadata.csv"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    by_id = {line.partition("|")[0]: line for line in lines}
    return {id: line for id, line in by_id.items() if (folder / "wavs" / f"{id}.wav").exists()}


def write_metadata(folder: Path, lines: dict[str, str]) -> None:
    partial = folder / ".metadata.csv.part"
    text = "".join(f"{lines[id]}\n" for id in sorted(lines))
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, folder / "metadata.csv")


@dataclass
class Amount:
    """A number of utterances, and their duration in all."""

    utterances: int = 0
    seconds: float = 0.0

    def covers(self, other: Amount) -> bool:
        return self.utterances >= other.utterances and self.seconds >= other.seconds


def build(
    folder: Path,
    voice: str,
    sentences: Sequence[Sentence],
    synthesisers: Sequence[Synthesiser],
    wanted: Amount,
) -> Amount:
    """Speak sentences in order until there are enough, and list them in metadata.csv.

    Args:
        folder: corpus to add to.
        voice: prefix of the utterances' ids.
        sentences: in the order to speak them.
        synthesisers: make the speech, in parallel.
        wanted: of this voice, including what exists already.

    Returns:
        What now exists of this voice: less than wanted only if the sentences ran out.
    """
    wavs = folder / "wavs"
    wavs.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(HERE / "NOTICE", folder / "NOTICE")
    lines = read_metadata(folder)
    there = ((utterance_id(voice, s), s) for s in sentences)
    asked = ((id, s, (wavs / f"{id}.wav").exists()) for id, s in there)
    done, saved = Amount(), time.monotonic()
    bar = Progress(console=Console(stderr=True))
    task = bar.add_task(voice, total=wanted.seconds or wanted.utterances)
    with closing(speak_all(asked, synthesisers)) as spoken, bar:
        try:
            for id, sentence, audio in spoken:
                path = wavs / f"{id}.wav"
                if audio is not None:
                    write_audio(path, audio, SAMPLE_RATE)
                duration = seconds_of(path)
                if not duration:
                    continue
                lines[id] = f"{id}|{sentence.text}|{sentence.normalised}"
                done.utterances += 1
                done.seconds += duration
                bar.update(task, completed=done.seconds if wanted.seconds else done.utterances)
                if time.monotonic() - saved > SAVE_EVERY:
                    write_metadata(folder, lines)
                    saved = time.monotonic()
                if done.covers(wanted):
                    break
        finally:
            write_metadata(folder, lines)
    return done


def folder_of(output: Path, voice: str) -> Path:
    """The corpus of a voice."""
    return output.with_name(f"{output.name}-unseen") if VOICES[voice].unseen else output


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--voices", nargs="+", choices=VOICES, default=list(VOICES))
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--hours", type=float, default=1.0, help="of each voice (default: 1)")
    amount.add_argument("--sentences", type=int, help="of each voice, instead of hours")
    parser.add_argument("--output", type=Path, default=Path("data/synthetic-english"))
    parser.add_argument(
        "--tts", type=Path, default=Path("data/tts/bin/python"),
        help="Python of the environment with requirements.txt (default: data/tts/bin/python)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=1, help="processes that speak")
    parser.add_argument("--seed", type=int, default=0, help="chooses the sentences")
    return parser


def main() -> None:
    parser = options()
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error("--workers must be at least 1")

    wanted = Amount(seconds=3600 * arguments.hours)
    if arguments.sentences is not None:
        wanted = Amount(utterances=arguments.sentences)
    dealt = deal(read_texts(), {v: VOICES[v].share for v in VOICES}, arguments.seed)
    for voice in arguments.voices:
        folder = folder_of(arguments.output, voice)
        with ExitStack() as stack:
            speakers = [Speaker(arguments.tts, voice) for _ in range(arguments.workers)]
            for speaker in speakers:
                stack.callback(speaker.close)
            done = build(folder, voice, dealt[voice], speakers, wanted)
        hours = done.seconds / 3600
        print(f"{voice}: {done.utterances} utterances, {hours:.2f} h, in {folder}")
        if not done.covers(wanted):
            print(f"{voice}: there are no more sentences for this voice", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("build.py: stopped; run the same command again to resume")
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"build.py: {error}")
