"""Builds a corpus of synthetic English speech in many voices, 22.05 kHz, in LJSpeech's layout.

    apt-get install bible-kjv jargon-text fortunes
    python3 -m venv data/tts
    data/tts/bin/pip install -r recipes/synthetic-english/requirements.txt
    npm pack kokoro-js@1.2.1 --pack-destination data
    python recipes/synthetic-english/build.py --hours 3
    python recipes/synthetic-english/build.py --voices heart --hours 2 --output data/heart

A few utterances of each unseen voice go to data/synthetic-english-unseen, the others to
data/synthetic-english. The voices speak in turn, so a corpus is balanced, and can be trained on,
while it grows. Run the same command again to resume; more hours extend the corpus. An utterance
does not depend on when it is built: its name is its voice and a hash of its words. README.md
describes the voices, NOTICE their licences.
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
from voices import FAST, TRAINING, UNSEEN, in_turn

from vocoder.atomic import write_atomic
from vocoder.audio import write_audio

HERE = Path(__file__).parent
SAMPLE_RATE = 22050
LOWEST_RATE = 20000
"""Hz: the voices shifted down come at less than SAMPLE_RATE, and so with a little less treble."""

SECONDS = (2.5, 10.0)
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


Synthesiser = Callable[[str, str, int], tuple[np.ndarray, int]]
"""Voice, text and seed to samples, float32, and their rate in Hz."""


class Speaker:
    """A process that runs speak.py; calling it speaks one text."""

    def __init__(self, python: Path, kokoro: Path) -> None:
        try:
            self._process = subprocess.Popen(
                [python, HERE / "speak.py", kokoro],
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

    def __call__(self, voice: str, text: str, seed: int) -> tuple[np.ndarray, int]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        try:
            asked = {"voice": voice, "text": text, "seed": seed}
            requests.write(json.dumps(asked).encode() + b"\n")
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

    Raises ValueError for a much lower rate: upsampled audio would teach a model that speech has no
    treble.
    """
    if sample_rate < LOWEST_RATE:
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
        asked: voice, sentence, and whether its audio exists.
        synthesisers: each is used by one thread at a time.

    Yields:
        Voice, sentence, and its audio: None if that exists or `finish` refuses it.
    """
    idle: SimpleQueue[Synthesiser] = SimpleQueue()
    for synthesiser in synthesisers:
        idle.put(synthesiser)

    def speak(voice: str, sentence: Sentence) -> np.ndarray | None:
        synthesiser = idle.get()
        try:
            seed = noise_seed(utterance_id(voice, sentence))
            return finish(*synthesiser(voice, sentence.normalised, seed))
        finally:
            idle.put(synthesiser)

    waiting: deque[tuple[str, Sentence, Future[np.ndarray | None] | None]] = deque()
    with ThreadPoolExecutor(len(synthesisers)) as pool:
        try:
            for voice, sentence, there in asked:
                future = None if there else pool.submit(speak, voice, sentence)
                waiting.append((voice, sentence, future))
                # Yield existing audio at once: it may turn out to be enough.
                while waiting and (waiting[0][2] is None or len(waiting) > 2 * len(synthesisers)):
                    voice, sentence, future = waiting.popleft()
                    yield voice, sentence, future.result() if future else None
            for voice, sentence, future in waiting:
                yield voice, sentence, future.result() if future else None
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
    text = "".join(f"{lines[id]}\n" for id in sorted(lines))
    write_atomic(folder / "metadata.csv", text.encode())


@dataclass
class Amount:
    """A number of utterances, and their duration in all."""

    utterances: int = 0
    seconds: float = 0.0

    def covers(self, other: Amount) -> bool:
        return self.utterances >= other.utterances and self.seconds >= other.seconds


def build(
    folder: Path,
    items: Sequence[tuple[str, Sentence]],
    synthesisers: Sequence[Synthesiser],
    wanted: Amount,
    title: str = "speech",
) -> Amount:
    """Speak sentences in order until there are enough, and list them in metadata.csv.

    Words that another voice has spoken in this corpus already are passed over.

    Args:
        folder: corpus to add to.
        items: voices and the sentences they speak, in order.
        synthesisers: make the speech, in parallel.
        wanted: of these items, including what exists already.
        title: shown before the progress bar.

    Returns:
        What now exists of the items: less than wanted only if they ran out.
    """
    wavs = folder / "wavs"
    wavs.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(HERE / "NOTICE", folder / "NOTICE")
    lines = read_metadata(folder)
    spoken_as = {id.rpartition("-")[2]: id for id in lines}
    asked = (
        (voice, sentence, (wavs / f"{id}.wav").exists())
        for voice, sentence in items
        for id in [utterance_id(voice, sentence)]
        if spoken_as.get(sentence.key, id) == id
    )
    done, saved = Amount(), time.monotonic()
    bar = Progress(console=Console(stderr=True))
    task = bar.add_task(title, total=wanted.seconds or wanted.utterances)
    with closing(speak_all(asked, synthesisers)) as spoken, bar:
        try:
            for voice, sentence, audio in spoken:
                id = utterance_id(voice, sentence)
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


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--voices", nargs="+", choices=[*TRAINING, FAST], metavar="VOICE",
        help="voices to speak, of those in voices.py (default: all but heart)",
    )  # fmt: skip
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--hours", type=float, default=1.0, help="of speech in all (default: 1)")
    amount.add_argument("--sentences", type=int, help="in all, instead of hours")
    parser.add_argument(
        "--unseen", type=int, default=4, help="sentences of each unseen voice (default: 4)"
    )
    parser.add_argument("--output", type=Path, default=Path("data/synthetic-english"))
    parser.add_argument(
        "--tts", type=Path, default=Path("data/tts/bin/python"),
        help="Python of the environment with requirements.txt (default: data/tts/bin/python)",
    )  # fmt: skip
    parser.add_argument(
        "--kokoro", type=Path, default=Path("data/kokoro-js-1.2.1.tgz"),
        help="archive of the npm package kokoro-js (default: data/kokoro-js-1.2.1.tgz)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=1, help="processes that speak")
    parser.add_argument("--seed", type=int, default=0, help="chooses the sentences")
    return parser


def main() -> None:
    parser = options()
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error("--workers must be at least 1")
    if arguments.unseen < 0:
        parser.error("--unseen must be 0 or more")

    wanted = Amount(seconds=3600 * arguments.hours)
    if arguments.sentences is not None:
        wanted = Amount(utterances=arguments.sentences)
    shares = {v: {**TRAINING, FAST: 1.0}[v] for v in arguments.voices or TRAINING}
    dealt = deal(read_texts(), {**shares, **UNSEEN}, arguments.seed)
    with ExitStack() as stack:
        speakers = [Speaker(arguments.tts, arguments.kokoro) for _ in range(arguments.workers)]
        for speaker in speakers:
            stack.callback(speaker.close)
        if arguments.unseen:
            folder = arguments.output.with_name(f"{arguments.output.name}-unseen")
            for voice in UNSEEN:
                items = [(voice, sentence) for sentence in dealt[voice]]
                build(folder, items, speakers, Amount(utterances=arguments.unseen), voice)
        done = build(arguments.output, in_turn(dealt, shares), speakers, wanted)
    hours = done.seconds / 3600
    print(f"{done.utterances} utterances, {hours:.2f} h, in {arguments.output}")
    if not done.covers(wanted):
        print("there are no more sentences for these voices", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("build.py: stopped; run the same command again to resume")
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"build.py: {error}")
