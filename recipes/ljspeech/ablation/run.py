"""Trains every variant of a study for the same time and measures them all.

    python recipes/ljspeech/ablation/run.py frames --data data/festvox-ru --minutes 15 --jobs 2 \\
        --model.init_args.mel_spec speech-16k

A study is a folder beside this file. Its base is ../config/mdct.yaml with the folder's own
study.yaml; a variant is another file of the folder, which states its difference from the base. Each
is trained by the recipe in a process of its own, on cores of its own, and judged by the same
held-out test utterances. The same command again goes on where it stopped: finished variants are
skipped, failed ones too unless --again. Options that are not this script's go to the recipe, for
all runs alike. Results are collected into <study>.json, from which docs/ablation.py writes the
tables and draws the picture.

The time is that of the processor: on a machine that others use too, a run gets as much computation
as the others, however long it waits for it. On a GPU it is that of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parent
ROOT = RECIPE.parents[1]
BASE = "base"
TEMPERATURES = "temperatures"
"""Name of the job that measures temperatures on the trained base."""

INTERRUPTED = (130, 143, -2, -15)
"""Exit codes of a run that was asked to stop and goes on with the same command."""

TEMPERATURE_CURVES: list[tuple[float, list[float] | None]] = [
    *((temperature, None) for temperature in (0.0, 0.3, 0.5, 0.667, 0.8, 1.0)),
    *((0.667, curve) for curve in ([1.0, 0.75], [1.0, 0.5], [0.5, 1.0], [1.0, 1.25])),
    *((0.8, curve) for curve in ([1.0, 0.75], [1.0, 0.5])),
]
"""Temperatures and factors from the lowest band to the highest."""


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `recipe` holds what is left for the recipe."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("study", choices=studies(), help="which: a folder beside this script")
    parser.add_argument("--data", required=True, help="corpus, as the recipe's --data")
    parser.add_argument("--minutes", type=float, required=True, help="of training for each variant")
    parser.add_argument("--jobs", type=int, default=1, help="variants at the same time")
    parser.add_argument("--threads", type=int, default=1, help="threads (and cores) of each")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/ablation"), help="folder of run folders"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs", help="folder of ablation.md and ablation/"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants; default: all")
    parser.add_argument("--utterances", type=int, default=15, help="of the test, at most so many")
    parser.add_argument("--again", action="store_true", help="try again what failed before")
    parser.add_argument("--work", help=argparse.SUPPRESS)  # the job of a process of its own
    parser.add_argument("--cores", type=int, nargs="+", help=argparse.SUPPRESS)
    found, found.recipe = parser.parse_known_args(arguments)
    if not 0 < found.minutes < float("inf") or min(found.jobs, found.threads, found.utterances) < 1:
        parser.error("--minutes must be above 0, and --jobs, --threads, --utterances 1 or more")
    names = [*variants(found.study), TEMPERATURES]
    for name in found.only or []:
        if name not in names:
            parser.error(f"there is no variant {name}: choose among {', '.join(names)}")
    return found


def studies() -> list[str]:
    """The names of the studies."""
    return sorted(path.parent.name for path in HERE.glob("*/study.yaml"))


def variants(study: str) -> dict[str, Path | None]:
    """Name -> file of every variant of a study, the base (without a file) first."""
    files = sorted(path for path in (HERE / study).glob("*.yaml") if path.name != "study.yaml")
    return {BASE: None, **{path.stem: path for path in files}}


def difference(study: str, name: str) -> dict[str, Any]:
    """What a variant changes: dotted option -> value."""
    path = variants(study)[name]

    def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
        if not isinstance(tree, dict):
            yield name, tree
            return
        for key, value in tree.items():
            yield from leaves(value, f"{name}.{key}" if name else key)

    return {} if path is None else dict(leaves(yaml.safe_load(path.read_text(encoding="utf-8"))))


def question(study: str, name: str) -> str:
    """The first comment of a variant's file: what it asks."""
    path = variants(study)[name] or HERE / study / "study.yaml"
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def folder(given: argparse.Namespace, name: str) -> Path:
    """The run folder of a job."""
    return given.runs / given.study / name


def recipe_words(given: argparse.Namespace, name: str) -> list[str]:
    """The recipe's command line for a variant."""
    files = [RECIPE / "config" / "mdct.yaml", HERE / given.study / "study.yaml"]
    words = [word for path in files for word in ("--config", str(path))]
    # What the command line says holds for all; the variant comes last and has the last word.
    words += ["--data", given.data, *given.recipe]
    path = variants(given.study)[name]
    if path is not None:
        words += ["--config", str(path)]
    # The end is set by `ProcessorTime`; the recipe wants one of its own, and this one is far away.
    return [*words, "--run", str(folder(given, name)), "--max_time", "100d"]


def settings(given: argparse.Namespace, name: str) -> dict[str, Any]:
    """What a result depends on: a finished run with other settings is not this one's."""
    return {
        "study": given.study,
        "data": given.data,
        "minutes": given.minutes,
        "threads": given.threads,
        "utterances": given.utterances,
        "recipe": given.recipe,
        "difference": {} if name == TEMPERATURES else difference(given.study, name),
    }


# -- the runner --------------------------------------------------------------------------------


def run(given: argparse.Namespace) -> int:
    """Do what is not done yet, and collect; the exit code."""
    names = given.only or [*variants(given.study), TEMPERATURES]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    wanted = given.jobs * given.threads
    if cores and wanted > len(cores):
        return complain(
            f"{given.jobs} jobs of {given.threads} threads need {wanted} cores, and there are "
            f"{len(cores)}: runs that share cores are not compared at equal time"
        )
    waiting = []
    for name in names:
        try:
            state = done(given, name)
        except ValueError as error:
            return complain(str(error))
        if state == "nothing" or (state == "failed" and given.again):
            waiting.append(name)
        else:
            say(f"{name}: {state} before")
    # Temperatures are measured on the base once it is there.
    waiting.sort(key=lambda name: name == TEMPERATURES)
    slots = [cores[i * given.threads :][: given.threads] for i in range(given.jobs)]
    code = work_off(given, waiting, slots)
    collect(given)
    return code


def done(given: argparse.Namespace, name: str) -> str:
    """ "finished", "failed" or "nothing".

    Raises:
        ValueError: the folder holds a result of other settings.
    """
    for state, file in (("finished", "result.json"), ("failed", "failure.json")):
        path = folder(given, name) / file
        if path.is_file():
            held = json.loads(path.read_text(encoding="utf-8"))["settings"]
            now = settings(given, name)
            differ = [key for key in now if held.get(key) != now[key]]
            if differ:
                raise ValueError(
                    f"{folder(given, name)} {state} with other settings ({', '.join(differ)}): "
                    "choose another folder with --runs, or remove that one"
                )
            return state
    return "nothing"


def work_off(
    given: argparse.Namespace, waiting: Sequence[str], slots: Sequence[Sequence[int]]
) -> int:
    """Run the jobs, each in a process with a slot's cores; 130 if that was interrupted."""
    queue = list(waiting)
    running: dict[int, tuple[str, subprocess.Popen[bytes], float]] = {}
    interrupted = news = False

    def pass_on(*_: object) -> None:
        for _, process, _ in running.values():
            process.terminate()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, pass_on)
    while running or (queue and not interrupted):
        try:
            for slot in range(len(slots)):
                base_runs = any(name == BASE for name, *_ in running.values())
                wait = not queue or (queue[0] == TEMPERATURES and base_runs)
                if slot in running or wait or interrupted:
                    continue
                name = queue.pop(0)
                say(f"{name}: starts, {len(queue)} to go; {folder(given, name) / 'log.txt'}")
                running[slot] = (name, start(given, name, slots[slot]), time.monotonic())
            if news:  # after the next job has been started
                news = False
                collect(given)
            for slot, (name, process, began) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[slot]
                spent = timedelta(seconds=round(time.monotonic() - began))
                say(f"{name}: {outcome(given, name, process.returncode)} after {spent}")
                interrupted |= process.returncode in INTERRUPTED
                news = True
            time.sleep(0.2)
        except KeyboardInterrupt:
            # The terminal has told the runs as well, which save and leave; a second one stops now.
            if interrupted:
                raise
            interrupted = True
            say("stopping; the same command goes on from here")
    return 130 if interrupted else 0


def start(given: argparse.Namespace, name: str, cores: Sequence[int]) -> subprocess.Popen[bytes]:
    """The process that does one job, its output in log.txt of its run folder."""
    run = folder(given, name)
    run.mkdir(parents=True, exist_ok=True)
    (run / "failure.json").unlink(missing_ok=True)
    command = [
        *(sys.executable, str(HERE / "run.py"), given.study, "--work", name, "--data", given.data),
        *("--minutes", str(given.minutes), "--threads", str(given.threads)),
        *("--runs", str(given.runs), "--utterances", str(given.utterances)),
        *(["--cores", *map(str, cores)] if cores else []),
        *given.recipe,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    with (run / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def outcome(given: argparse.Namespace, name: str, code: int) -> str:
    """How a job ended, in a word; a failure is recorded."""
    if code == 0:
        return "finished"
    if code in INTERRUPTED:
        return "stopped"
    log = folder(given, name) / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    message = lines[-1] if lines else "no output"
    write_json(
        folder(given, name) / "failure.json",
        {"name": name, "settings": settings(given, name), "exit": code, "message": message},
    )
    return f"failed ({message})"


def collect(given: argparse.Namespace) -> None:
    """Write <study>.json from all finished and failed jobs, and the tables and picture of it."""
    found: dict[str, list[dict[str, Any]]] = {"result.json": [], "failure.json": []}
    for name in [*variants(given.study), TEMPERATURES]:
        for file, group in found.items():
            path = folder(given, name) / file
            if path.is_file():
                group.append(json.loads(path.read_text(encoding="utf-8")))
    runs = [result for result in found["result.json"] if result["name"] != TEMPERATURES]
    if not runs:
        return
    temperatures = [result for result in found["result.json"] if result["name"] == TEMPERATURES]
    (given.out / "ablation").mkdir(parents=True, exist_ok=True)
    write_json(
        given.out / "ablation" / f"{given.study}.json",
        {
            "runs": runs,
            "failures": found["failure.json"],
            "temperatures": temperatures[0]["rows"] if temperatures else [],
        },
    )
    script = ROOT / "docs" / "ablation.py"
    command = [sys.executable, str(script), given.study, "--folder", str(given.out)]
    # The study goes on without its tables, which can be made later.
    if subprocess.run(command).returncode:
        say(f"no tables: {script} failed")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def complain(sentence: str) -> int:
    sys.stderr.write(f"run.py: {sentence}\n")
    return 2


if __name__ == "__main__":
    given = options()
    if given.work is None:
        sys.exit(run(given))
    # Torch asks for the number of cores when it is imported.
    if given.cores:
        os.sched_setaffinity(0, given.cores)
    sys.path.insert(0, str(HERE))
    from job import work

    sys.exit(work(given))
