"""Measures what `vocoder say` takes from the shell, in a process of its own, part by part.

    python docs/scripts/cold_start.py                       the row `now`
    python docs/scripts/cold_start.py --tree DIR --row NAME  of a checkout of another version

of docs/results/cold_start.json.
Seconds are medians of several runs by the clock, after one that fills the caches of numba and of
the disk; other programs lengthen them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paths import RESULTS, ROOT
from vocoder.evaluation.results import cpu_name, save_result

TEXT = "The quick brown fox jumps over the lazy dog."

# What `say` does, in its order, and the seconds of each part.
PARTS = """
import json, time
last, found = time.perf_counter(), {}
def mark(part):
    global last
    now = time.perf_counter()
    found[part], last = now - last, now
import vocoder.cli; mark("command line")
import torch; mark("PyTorch")
import scipy.fft; mark("scipy.fft")
import numba; mark("numba")
import vocoder.audio, vocoder.models; mark("rest of the package")
from vocoder.text.speech import sentences, speak
script = sentences(TEXT); mark("text to phonemes, with its dictionary")
model = vocoder.load(); mark("load the vocoder")
acoustic = vocoder.load_acoustic(); mark("load the acoustic model")
list(speak(script, acoustic, model)); mark("first sentence")
list(speak(script, acoustic, model)); mark("the same again, not in `say`")
print(json.dumps(found))
"""


def run(tree: Path, *arguments: str) -> tuple[float, str]:
    """Seconds of a Python process, and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    command = [sys.executable, *arguments]
    began = time.perf_counter()
    printed = subprocess.check_output(command, cwd=tree, env=environment, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began, printed.decode()


def median(times: list[float]) -> dict[str, float]:
    """The median, in the form of the file."""
    return {"wall": round(statistics.median(times), 2)}


def measured(tree: Path, runs: int) -> dict[str, object]:
    """The whole command, and its parts."""
    with tempfile.TemporaryDirectory() as folder:
        say = ("-m", "vocoder", "say", TEXT, "-f", "-o", f"{folder}/said.wav")
        run(tree, *say)
        whole = [run(tree, *say)[0] for _ in range(runs)]
    code = PARTS.replace("TEXT", repr(TEXT))
    parts = [json.loads(run(tree, "-c", code)[1]) for _ in range(runs)]
    return {
        "say": median(whole),
        "parts": {part: median([own[part] for own in parts]) for part in parts[0]},
        "runs": runs,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
    }


def main() -> None:
    """Write the row of one tree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT)
    parser.add_argument("--row", default="now")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    path = RESULTS / "cold_start.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows[arguments.row] = measured(arguments.tree.resolve(), arguments.runs)
    save_result(rows, path)


if __name__ == "__main__":
    main()
