"""Measures what `vocoder say` takes from the shell, in a process of its own, part by part.

    python docs/scripts/cold_start.py                       the row `now`
    python docs/scripts/cold_start.py --tree DIR --row NAME  of a checkout of another version

of docs/results/cold_start.json.
Seconds are medians of several runs after one that fills the caches of numba and of the disk:
`processor` of user and system together, `wall` by the clock, which other programs lengthen.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paths import RESULTS, ROOT
from vocoder.evaluation.results import cpu_name, save_result

TEXT = "The quick brown fox jumps over the lazy dog."

# What `say` does, in its order. Each line of output is a part with its two times.
PARTS = """
import json, os, time
def now():
    used = os.times()
    return time.perf_counter(), used.user + used.system
last, found = now(), {"interpreter": (0.0, now()[1])}
def mark(part):
    global last
    here = now()
    found[part], last = (here[0] - last[0], here[1] - last[1]), here
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


def run(tree: Path, *arguments: str) -> tuple[float, float, str]:
    """Wall and processor seconds of a Python process, and what it printed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        check=True,
        capture_output=True,
        text=True,
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, used, done.stdout


def median(times: list[tuple[float, float]]) -> dict[str, float]:
    """Of wall and processor seconds, each."""
    wall, processor = (round(statistics.median(column), 2) for column in zip(*times, strict=True))
    return {"processor": processor, "wall": wall}


def measured(tree: Path, runs: int) -> dict[str, object]:
    """The whole command, and its parts."""
    whole: list[tuple[float, float]] = []
    parts: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        say = ("-m", "vocoder", "say", TEXT, "-f", "-o", f"{folder}/said.wav")
        run(tree, *say)
        for _ in range(runs):
            whole.append(run(tree, *say)[:2])
            printed = run(tree, "-c", PARTS.replace("TEXT", repr(TEXT)))[2]
            for part, times in json.loads(printed).items():
                parts.setdefault(part, []).append(times)
    return {
        "say": median(whole),
        "parts": {part: median(times) for part, times in parts.items()},
        "runs": runs,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
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
