"""Measures what each dependency costs in disk space and import time.

    python docs/scripts/dependencies.py         writes docs/results/dependencies.json

Run it on Linux or macOS where flow-vocoder and its extras are installed. `brings` is the size of a
package and of all that it needs beyond PyTorch; `alone` is what would go if only this dependency
went. Import time is processor time: PyTorch first, then the packages of the plain install in the
order of pyproject.toml, each beyond those before it.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from paths import RESULTS, ROOT
from vocoder.atomic import write_atomic

MODULES = {
    "hibari-tts": "hibari.g2p",
    "huggingface-hub": "huggingface_hub",
    "lightning": "lightning.pytorch",
    "matplotlib": "matplotlib.figure",
    "monotonic-alignment-search": "monotonic_alignment_search",
    "pyyaml": "yaml",
    "scipy": "scipy.fft",
    "speechmos": "speechmos.dnsmos",
    "tensorboard": "torch.utils.tensorboard",
}
"""What is imported of a package, where its name does not say so."""


def needed(requirements: Iterable[Requirement]) -> set[str]:
    """Names of the installed packages that these requirements bring, themselves included."""
    found: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in found:
                continue
            inner = requirements_of(name)
            if inner is None:
                continue  # of another platform, or of an extra that is not installed
            found.add((name, wanted))
            waiting += [(requirement, wanted) for requirement in inner]
    return {name for name, _ in found}


@functools.cache
def requirements_of(name: str) -> list[Requirement] | None:
    """What an installed package needs; None if it is not installed."""
    try:
        return [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return None


def megabytes(names: Iterable[str]) -> float:
    """Size of the files of packages, in MB of 10^6 bytes."""
    return round(sum(size(name) for name in names) / 1e6, 1)


@functools.cache
def size(name: str) -> int:
    """Bytes of the files of an installed package."""
    paths = [Path(str(file.locate())) for file in metadata.distribution(name).files or []]
    return sum(path.stat().st_size for path in paths if path.is_file())


def import_seconds(modules: Sequence[str]) -> list[float]:
    """Processor time of each import, one after the other in a fresh process."""
    code = (
        "import importlib, sys, time\n"
        "for module in sys.argv[1:]:\n"
        "    start = time.process_time()\n"
        "    importlib.import_module(module)\n"
        "    print(time.process_time() - start)\n"
    )
    command = [sys.executable, "-c", code, *modules]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [round(float(line), 2) for line in printed.split()]


def started(*arguments: str) -> float:
    """Processor time of Python with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(project: Mapping[str, Any]) -> dict[str, Any]:
    """The plain install and each extra: what a dependency takes and how long it is imported."""
    plain = [Requirement(text) for text in project["dependencies"]]
    groups = {"": plain} | {
        name: [Requirement(text) for text in texts]
        for name, texts in project["optional-dependencies"].items()
        if name != "dev"
    }
    pytorch = needed([requirement for requirement in plain if requirement.name == "torch"])
    imported = ["torch", *(name for r in plain if (name := canonicalize_name(r.name)) != "torch")]
    modules = [MODULES.get(name, name.replace("-", "_")) for name in imported]
    seconds = dict(zip(imported, import_seconds(modules), strict=True))
    rows = []
    for extra, requirements in groups.items():
        for requirement in requirements:
            name = canonicalize_name(requirement.name)
            own = needed([requirement])
            if name not in own or name == "torch":
                continue  # not installed, or in `pytorch`
            others = needed(other for other in plain if other.name != requirement.name)
            row = {
                "package": name,
                "extra": extra,
                "brings": megabytes(own - pytorch),
                "alone": megabytes(own - others),
            }
            rows.append(row if extra else row | {"import_seconds": seconds[name]})
    bare = started("-c", "pass")
    return {
        "python": sys.version.split()[0],
        "torch": metadata.version("torch"),
        "pytorch": megabytes(pytorch),
        "pytorch_seconds": seconds["torch"],
        "rest": megabytes(needed(plain) - pytorch),
        "import_vocoder_seconds": round(started("-c", "import vocoder") - bare, 2),
        "help_seconds": round(started("-m", "vocoder", "--help") - bare, 2),
        "rows": rows,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure what each dependency costs.")
    parser.add_argument("--output", type=Path, default=RESULTS / "dependencies.json")
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = json.dumps(measure(project), indent=1)
    write_atomic(arguments.output, (text + "\n").encode())


if __name__ == "__main__":
    main()
