"""Hostile input by the hundred: seeded mutations of files and command lines.

    python tests/fuzz.py [--inputs 250] [--seed 0]

prints a table: for each kind of input, how many were refused in words, how many were read (right),
and how many were wrong: any exception but a sentence for the user, or more than `LIMIT` seconds.
Wrong ones are printed with the number that makes them again, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

import vocoder
from vocoder.audio import MelSpec
from vocoder.checkpoints import CheckpointError
from vocoder.models import MdctFlow, load_checkpoint

LIMIT = 60
"""Seconds after which an input counts as a hang."""

MEMORY = 6 * 1024**3
"""Bytes of address space that an input may claim besides what is there."""

REFUSED = (ValueError, OSError, TypeError)
"""What users get: MelError, TextError and CheckpointError are ValueErrors."""

SPEC = MelSpec.preset("speech-16k")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes with some flipped, cut, repeated, or numbers in them replaced by extreme ones."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        head = min(len(content), 200) if rng.random() < 0.7 else len(content)
        at = rng.randrange(max(head, 1))
        match rng.randrange(6):
            case 0 if content:
                content[at % len(content)] = rng.randrange(256)
            case 1:
                number = rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
                content[at : at + 4] = struct.pack(rng.choice("<>") + "I", number)
            case 2:
                del content[at:]
            case 3:
                del content[at : at + rng.randint(1, 50)]
            case 4:
                content[at:at] = rng.randbytes(rng.randint(1, 50))
            case 5:
                content[at:at] = content[at : at + rng.randint(1, 500)]
    return bytes(content)


class Fuzzer:
    """The kinds of input, each a method that makes an input of a random generator and uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        torch.manual_seed(0)
        tiny: dict[str, Any] = {"n_flows": 1, "channels": 8, "n_layers": 1, "scale_channels": 8}
        self.model = MdctFlow(SPEC, **tiny).eval()
        self.checkpoint = self.model.save(folder / "model")
        time = np.arange(8000) / 16000
        tone = 0.3 * np.sin(2 * np.pi * 220 * time)
        self.sounds = []
        for kind, subtype in (
            ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("FLAC", "PCM_16"),
            ("OGG", "VORBIS"), ("MP3", None), ("AIFF", "PCM_16"), ("AU", "PCM_16"),
            ("CAF", "PCM_16"), ("W64", "PCM_16"), ("RF64", "PCM_16"),
        ):  # fmt: skip
            file = io.BytesIO()
            soundfile.write(file, np.stack([tone, tone], 1), 16000, subtype, format=kind)
            self.sounds.append(file.getvalue())
        self.mel = self.model.mel(torch.from_numpy(tone).float()).numpy()

    def audio(self, rng: random.Random) -> None:
        """A mutated audio file, by path or as a file object, resampled or not."""
        data = mutated(rng.choice(self.sounds), rng)
        rate = rng.choice([None, 16000, 22050])
        source: Any = io.BytesIO(data)
        if rng.random() < 0.7:
            source = self.folder / "fuzzed.wav"
            source.write_bytes(data)
        audio, _ = vocoder.read_audio(source, rate)
        assert audio.ndim == 1
        assert audio.isfinite().all()

    def checkpoints(self, rng: random.Random) -> None:
        """A checkpoint with mutated weights or config, or a config of extreme numbers."""
        folder = self.folder / "fuzzed"
        folder.mkdir(exist_ok=True)
        files = {name: (self.checkpoint / name).read_bytes() for name in
                 ("model.safetensors", "config.json")}  # fmt: skip
        if rng.random() < 0.5:
            name = rng.choice(list(files))
            files[name] = mutated(files[name], rng)
        else:
            config = json.loads(files["config.json"])
            inner = config["config"]
            target = inner["mel_spec"] if rng.random() < 0.5 else inner
            key = rng.choice(list(target))
            extremes: list[Any] = [0, -1, 10**9, 10**18, 1e308, float("nan"), None, "x", [], {}]
            target[key] = rng.choice([*extremes, True])
            files["config.json"] = json.dumps(config).encode()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        load_checkpoint(folder)

    def command_lines(self, rng: random.Random) -> None:
        """Commands with mutated files and absurd options."""
        from typer.testing import CliRunner

        from vocoder.cli import app

        mel = self.folder / "mel.npy"
        file = io.BytesIO()
        np.save(file, self.mel)
        mel.write_bytes(mutated(file.getvalue(), rng) if rng.random() < 0.7 else file.getvalue())
        sound = self.folder / "in.wav"
        sound.write_bytes(mutated(rng.choice(self.sounds), rng))
        out = self.folder / rng.choice(["out.wav", "out.flac", "out.xyz", "no/out.wav", "-"])
        command: list[Any] = {
            0: ["synthesize", mel, "-o", out],
            1: ["resynthesize", sound, "-o", out],
            2: ["refine", sound, mel, "-o", out, "--mel-spec", "speech-16k", "-n", 1],
            3: ["info", rng.choice([sound, mel, self.folder, "\x01", "a" * 5000, "x.onnx"])],
        }[rng.randrange(4)]
        if command[0] in ("synthesize", "resynthesize"):
            command += ["-c", rng.choice([self.checkpoint, self.checkpoint, sound, "none"])]
        if rng.random() < 0.5:
            option = rng.choice(["-t", "--seed", "--refine", "--device", "--nothing"])
            command += [option, rng.choice(["-1", "0", "nan", "1e999", "9" * 30, "x", ""])]
        result = CliRunner().invoke(app, [*map(str, command), *(["-f"] * rng.randrange(2))])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if "Traceback" in result.output:
            raise AssertionError(result.output)
        if result.exit_code:
            raise ValueError(result.output)

    def kinds(self) -> dict[str, Callable[[random.Random], None]]:
        return {
            "audio files": self.audio,
            "checkpoint files": self.checkpoints,
            "command lines": self.command_lines,
        }


def _hang(*_: object) -> None:
    raise TimeoutError(f"more than {LIMIT} s")


def run(inputs: int, seed: int, folder: Path) -> tuple[dict[str, list[int]], list[str]]:
    """Use so many inputs of each kind.

    Returns:
        Kind -> numbers of inputs refused, right and wrong; and a report of each wrong one.
    """
    import resource

    claimed = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    fuzzer = Fuzzer(folder)
    table: dict[str, list[int]] = {}
    reports: list[str] = []
    resource.setrlimit(resource.RLIMIT_AS, (claimed + MEMORY, limits[1]))
    before = signal.signal(signal.SIGALRM, _hang)
    try:
        for kind, use in fuzzer.kinds().items():
            counts = table[kind] = [0, 0, 0]
            for number in range(inputs):
                rng = random.Random(f"{seed} {kind} {number}")
                signal.alarm(LIMIT)
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        use(rng)
                    counts[1] += 1
                except TimeoutError as error:
                    counts[2] += 1
                    reports.append(f"{kind} {number}: {error}")
                except REFUSED as error:
                    if isinstance(error, TypeError) and not _is_ours(error):
                        counts[2] += 1
                        reports.append(f"{kind} {number}: {traceback.format_exc()}")
                    else:
                        counts[0] += 1
                except Exception:
                    counts[2] += 1
                    reports.append(f"{kind} {number}: {traceback.format_exc()}")
                finally:
                    signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return table, reports


def _is_ours(error: BaseException) -> bool:
    """Whether the package itself raised an error, rather than a library below it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "vocoder" in Path(trace.tb_frame.f_code.co_filename).parts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=250, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table, reports = run(arguments.inputs, arguments.seed, Path(folder))
    print("\n".join(reports))
    print("| kind | inputs | refused in words | right | wrong |\n|---|---|---|---|---|")
    for kind, (refused, right, wrong) in table.items():
        print(f"| {kind} | {refused + right + wrong} | {refused} | {right} | {wrong} |")
    return 1 if reports else 0


if __name__ == "__main__":
    assert issubclass(CheckpointError, ValueError)
    sys.exit(main())
