"""Measures the learning curve of a run: quality against minutes of training.

    python docs/scripts/curve.py english runs/source --corpus data/synthetic-english --every 8
    python docs/scripts/curve.py "english, 8 sweeps" runs/source \\
        --corpus data/synthetic-english --refine 8
    python docs/scripts/curve.py --draw

The first measures the snapshots of the run and the finished model on every eighth test recording of
the corpus. It writes one group of docs/results/curve.json, and one recording resynthesised by each
of them to docs/samples. The last draws docs/pictures/curve.png from that file.

Snapshots are averaged weights from the middle of a run, before its learning rate fell: a run that
ends at that time does better.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

from rich.progress import Progress

from paths import PICTURES, RESULTS, SAMPLES
from vocoder.audio import read_audio, write_audio
from vocoder.evaluation.copy_synthesis import GRIFFIN_LIM, evaluate
from vocoder.evaluation.plots import new_figure, save_figure
from vocoder.evaluation.recordings import find_recordings
from vocoder.evaluation.results import save_result
from vocoder.evaluation.tables import heading
from vocoder.models import Vocoder, load_checkpoint

FILE = RESULTS / "curve.json"
MEASURES = ("log_likelihood", "log_mel_distance", "stoi", "pesq")
SECONDS = 3.0  # of the recording that is kept to listen to


def stages(run: Path) -> list[tuple[dict[str, Any], Vocoder]]:
    """The facts and the model at each snapshot and at the end of the run.

    Raises:
        ValueError: the run kept no snapshot.
    """
    found = []
    for folder in run.glob("snapshots/*min"):
        facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        found.append((facts, load_checkpoint(folder).fused()))
    if not found:
        raise ValueError(f"{run} has no snapshots: train with --snapshot_minutes")
    found.sort(key=lambda stage: stage[0]["minutes"])
    if (run / "report.json").is_file():
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        last = report["validation"][-1]
        end = {
            "minutes": round(last["train_seconds"] / 60, 2),
            "steps": last["step"],
            "audio_seconds": last["audio_seconds"],
            "finished": True,
        }
        found.append((end, load_checkpoint(run / "model").fused()))
    return found


def measure(name: str, run: Path, corpus: Path, every: int, sweeps: int) -> dict[str, Any]:
    """A group of docs/results/curve.json; the sound goes to docs/samples."""
    reached = stages(run)
    recordings = find_recordings(corpus)[::every]
    with tempfile.TemporaryDirectory() as scratch, Progress() as bar:
        task = bar.add_task(name, total=None)
        for index, path in enumerate(recordings):
            (Path(scratch) / f"{index:04d}-{path.name}").symlink_to(path.resolve())

        def progress(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, description=label)

        models = {f"{facts['minutes']:g}": model for facts, model in reached}
        result = evaluate(models, scratch, measures=MEASURES, progress=progress, refine=[sweeps])
    points = []
    SAMPLES.mkdir(exist_ok=True)
    kept = recordings[0]
    for facts, model in reached:
        row = result["rows"][f"{facts['minutes']:g}, {sweeps} sweeps"]
        audio, _ = read_audio(kept, model.sample_rate)
        mel = model.mel(audio[: round(SECONDS * model.sample_rate)])
        plain = re.sub(r"\W+", "-", name)
        sound = SAMPLES / f"curve-{plain}-{facts['minutes']:.0f}min.flac"
        write_audio(sound, model.synthesize(mel, seed=0, refine=sweeps), model.sample_rate)
        points.append({**facts, "audio": sound.name, **row})
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return {
        "corpus": corpus.name,
        "recordings": [path.stem for path in recordings],
        "facts": report["facts"],
        "about": result["about"],
        "measures": result["measures"],
        "reference": result["rows"][f"{GRIFFIN_LIM}, {sweeps} sweeps"],
        "points": points,
    }


def draw(groups: dict[str, Any]) -> None:
    """docs/pictures/curve.png: a panel for each measure, a line for each run."""
    figure = new_figure(10, 5.5)
    panels = figure.subplots(2, 2).flat
    for axes, measure in zip(panels, MEASURES, strict=True):
        for index, (name, group) in enumerate(groups.items()):
            points = group["points"]
            minutes = [point["minutes"] for point in points]
            means = [point[measure]["mean"] for point in points]
            halves = [point[measure]["upper"] - point[measure]["mean"] for point in points]
            axes.errorbar(
                minutes, means, halves, fmt="o-", capsize=2, color=f"C{index}", label=name
            )
            other = group["reference"][measure]["mean"]
            if other is not None:
                axes.axhline(other, color=f"C{index}", linestyle=":", label=f"{name}, Griffin-Lim")
        axes.set_title(heading(group["measures"][measure]), fontsize="medium")
        axes.set_xscale("log")
        longest = max(p["minutes"] for g in groups.values() for p in g["points"])
        ticks = [5 * 2**n for n in range(int(math.log2(max(longest, 5) / 5)) + 1)]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.set_xlabel("minutes of training")
    figure.axes[2].legend(fontsize="small")
    save_figure(figure, PICTURES / "curve.png", dpi=120)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure and draw learning curves.")
    parser.add_argument("name", nargs="?", help="name of the group in docs/results/curve.json")
    parser.add_argument("run", nargs="?", type=Path, help="folder of the run")
    parser.add_argument("--corpus", type=Path, help="whose test recordings are resynthesised")
    parser.add_argument("--every", type=int, default=1, help="take only every n-th of them")
    parser.add_argument("--refine", type=int, default=0, help="sweeps of mel consistency")
    parser.add_argument("--draw", action="store_true", help="draw docs/pictures/curve.png")
    arguments = parser.parse_args()
    groups = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if arguments.run is not None:
        if arguments.corpus is None:
            parser.error("give --corpus, the folder of recordings")
        try:
            group = measure(
                arguments.name, arguments.run, arguments.corpus, arguments.every, arguments.refine
            )
        except ValueError as error:
            parser.error(str(error))
        groups[arguments.name] = group
        save_result(groups, FILE)
    if arguments.draw:
        draw(groups)


if __name__ == "__main__":
    main()
