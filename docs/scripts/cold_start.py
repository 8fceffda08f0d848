"""Measures what `vocoder say` takes from the shell, in a process of its own, part by part.

    python docs/scripts/cold_start.py       writes docs/results/cold_start.json

Seconds are medians of several runs by the clock, after one that fills the caches of numba and of
the disk; other programs lengthen them.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

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


RUNS = 5


def run(*arguments: str) -> tuple[float, str]:
    """Seconds of a Python process, and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    began = time.perf_counter()
    printed = subprocess.check_output(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began, printed.decode()


def median(times: list[float]) -> dict[str, float]:
    """The median, in the form of the file."""
    return {"wall": round(statistics.median(times), 2)}


def main() -> None:
    """Measure the whole command, and its parts."""
    with tempfile.TemporaryDirectory() as folder:
        say = ("-m", "vocoder", "say", TEXT, "-f", "-o", f"{folder}/said.wav")
        run(*say)
        whole = [run(*say)[0] for _ in range(RUNS)]
    code = PARTS.replace("TEXT", repr(TEXT))
    parts = [json.loads(run("-c", code)[1]) for _ in range(RUNS)]
    about = {
        "say": median(whole),
        "parts": {part: median([own[part] for own in parts]) for part in parts[0]},
        "runs": RUNS,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
    }
    save_result({"now": about}, RESULTS / "cold_start.json")


if __name__ == "__main__":
    main()
