"""Shows docs/results/frontier.json: the tables and sentences of docs/frontier.md, and the picture.

docs/scripts/frontier.py measures. Only rows with a value for every recording and with a time are
shown.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report.markdown import Tables, markdown
from vocoder.evaluation.copy_synthesis import GRIFFIN_LIM
from vocoder.evaluation.estimates import estimate
from vocoder.evaluation.plots import new_figure, save_figure
from vocoder.evaluation.tables import heading

SHOWN = ("pesq", "stoi", "dnsmos", "periodicity_error", "voicing_f1", "f0_rmse")
SHOWN += ("tone_excess", "mcd", "log_mel_distance")
PANELS = ("pesq", "periodicity_error")
VOCOS = "Vocos"
PRODUCTS = "matrix products of Vocos"
BUDGETS = {1: "Vocos's time", 3: "a third of it", 10: "a tenth of it"}
THREADS = 1  # of the times that stand for cost: other work disturbs them least

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A system with a number of sweeps.

    Attributes:
        cost: processor time on one thread, seconds per second of audio.
        values: file -> measure -> value.
    """

    system: str
    sweeps: int
    trained: bool
    cost: float
    values: Mapping[str, Mapping[str, float | None]]

    @property
    def name(self) -> str:
        return f"{self.system}, {self.sweeps} sweep{'' if self.sweeps == 1 else 's'}"

    def estimate(self, measure: str) -> dict[str, Any]:
        """Mean and interval over the files with a value."""
        found = (values.get(measure) for values in self.values.values())
        return estimate([value for value in found if value is not None])

    def difference(self, other: Row, measure: str) -> dict[str, Any]:
        """Mean and interval of the paired differences, this less the other."""
        pairs = [(self.values[f].get(measure), other.values[f].get(measure)) for f in self.values]
        return estimate([a - b for a, b in pairs if a is not None and b is not None])


def cost(result: Result, system: str, sweeps: int = 0) -> float | None:
    """Processor time per second of audio on one thread, at the greatest length timed."""
    rows = [
        row
        for row in result["times"]["rows"]
        if row["system"] == system and row["threads"] == THREADS
    ]
    if not rows:
        return None
    length = max(row["audio_seconds"] for row in rows)
    timed = {r["sweeps"]: r["processor_seconds"] for r in rows if r["audio_seconds"] == length}
    if len(timed) == 1:
        return float(timed[0]) if sweeps == 0 else None
    points = sorted(timed)
    # Linear between two numbers of sweeps that were timed, and on the last such line beyond.
    upper = next((i for i, n in enumerate(points) if i and n >= sweeps), len(points) - 1)
    low, high = points[upper - 1], points[upper]
    slope = (timed[high] - timed[low]) / (high - low)
    return float(timed[low] + slope * (sweeps - low))


def rows(result: Result) -> list[Row]:
    """The complete rows, by system and number of sweeps."""
    found = []
    for system, facts in result["systems"].items():
        numbers = result["values"].get(system, {})
        for number in sorted(map(int, numbers)):
            values = numbers[str(number)]
            spent = cost(result, system, number)
            if spent is not None and set(values) == set(result["recordings"]):
                found.append(Row(system, number, facts["trained"], spent, values))
    return found


def vocos(result: Result) -> float:
    """What Vocos costs: its package where it was installed, else its matrix products."""
    measured = cost(result, VOCOS)
    found = cost(result, PRODUCTS) if measured is None else measured
    assert found is not None  # the products are always timed
    return found


def best(candidates: Sequence[Row], most: float) -> Row | None:
    """The row with the highest PESQ among those that cost at most so much."""
    within = [r for r in candidates if r.cost <= most and r.estimate("pesq")["n"]]
    return max(within, key=lambda row: row.estimate("pesq")["mean"], default=None)


# -- tables and sentences --------------------------------------------------------------------------


def rows_table(result: Result) -> str:
    """Every row, with the recordings themselves."""
    measures = [name for name in SHOWN if name in result["measures"]]
    headings = ["", "ms/s", *(heading(result["measures"][name]) for name in measures)]
    own = Row("recording", 0, False, 0, result["recording"])
    lines = [["recording", "", *(_mean(own.estimate(name)) for name in measures)]]
    for row in rows(result):
        estimates = (_mean(row.estimate(name)) for name in measures)
        lines.append([row.name, _ms(row.cost), *estimates])
    seconds = sum(result["recordings"].values())
    note = (
        f"Means over {len(result['recordings'])} recordings, {seconds:.0f} s; ± is half a 95 % "
        "interval. ms/s: milliseconds of processor time per second of audio, on one thread."
    )
    return f"{markdown(headings, lines, [0])}\n\n{note}"


def budgets_table(result: Result) -> str:
    """The best of Vocos's time, of a third and of a tenth of it: with nothing learnt, trained."""
    measures = [name for name in SHOWN if name in result["measures"]]
    headings = ["processor time at most", "learnt", "best by PESQ", "ms/s"]
    headings += [heading(result["measures"][name]) for name in measures]
    lines = []
    for share, title in BUDGETS.items():
        most = vocos(result) / share
        for trained in (False, True):
            found = best([row for row in rows(result) if row.trained is trained], most)
            lead = [f"{title}, {_ms(most)} ms/s", "trained" if trained else "nothing"]
            if found is None:
                lines.append([*lead, "none is as fast", "", *("" for _ in measures)])
                continue
            estimates = (_mean(found.estimate(name)) for name in measures)
            lines.append([*lead, found.name, _ms(found.cost), *estimates])
    return markdown(headings, lines, [0, 1, 2])


def learning_text(result: Result) -> str:
    """What training adds at each of the budgets, and Griffin-Lim next to the others."""
    found = rows(result)
    blocks = []
    for share, title in BUDGETS.items():
        most = vocos(result) / share
        plain = best([row for row in found if not row.trained], most)
        trained = best([row for row in found if row.trained], most)
        lead = f"**In {title}** ({_ms(most)} ms per second of audio)"
        if plain is None or trained is None:
            kind = "trained model" if trained is None else "system with nothing learnt"
            other = trained or plain
            rest = f"; {other.name} reaches PESQ {_mean(other.estimate('pesq'))}" if other else ""
            blocks.append(f"{lead} no {kind} makes the sound{rest}.")
            continue
        blocks.append(
            f"{lead} the best with nothing learnt is {plain.name}, the best trained is "
            f"{trained.name}. {_change(trained, plain)}"
        )
    reference = next((r for r in found if r.system == GRIFFIN_LIM and r.sweeps == 0), None)
    others = [row for row in found if row.system != GRIFFIN_LIM]
    rival = None if reference is None else best(others, reference.cost)
    if reference is not None and rival is not None:
        better, worse = _compared(result, rival, reference)
        text = f"**Griffin-Lim** takes {_ms(reference.cost)} ms per second of audio. The best of "
        text += f"the others in that time, {rival.name}, is better in {_listed(better)}"
        blocks.append(text + (f", and worse in {_listed(worse)}." if worse else "."))
    return "\n\n".join(blocks)


def _change(trained: Row, plain: Row) -> str:
    changes = []
    for measure, title in (("pesq", "PESQ"), ("stoi", "STOI")):
        row = trained.difference(plain, measure)
        if row["mean"] is not None:
            half = "" if row["upper"] is None else f" ± {row['upper'] - row['mean']:.3f}"
            changes.append(f"{title} by {row['mean']:+.3f}{half}")
    unsure = trained.difference(plain, "pesq")
    text = f"Training changes {' and '.join(changes)} (paired)."
    if unsure["upper"] is not None and unsure["lower"] <= 0 <= unsure["upper"]:
        text += " For PESQ, that is no clear difference."
    return text


def _compared(result: Result, row: Row, other: Row) -> tuple[list[str], list[str]]:
    """The titles of the measures in which the mean of a row is better, and worse."""
    better, worse = [], []
    for name, facts in result["measures"].items():
        mean = row.difference(other, name)["mean"]
        if mean:
            higher = (mean > 0) is (facts["better"] == "higher")
            (better if higher else worse).append(facts["title"])
    return better, worse


def _listed(words: Sequence[str]) -> str:
    if not words:
        return "nothing"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def times_table(result: Result) -> str:
    """Processor and wall time of each system's pass and of a sweep."""
    measured = result["times"]["rows"]
    cells = {(r["system"], r["threads"], r["audio_seconds"], r["sweeps"]): r for r in measured}
    settings = sorted({(r["threads"], r["audio_seconds"]) for r in measured})
    headings = ["", *(f"{_threads(threads)}, {length:g} s" for threads, length in settings)]
    lines = []
    for system in dict.fromkeys(row["system"] for row in measured):
        numbers = sorted({row["sweeps"] for row in measured if row["system"] == system})
        spans = [(None, 0), *itertools.pairwise(numbers)]
        for low, high in spans:
            what = system if low is None else f"{system}: a sweep"
            if len(numbers) > 2 and low == 0:
                what = f"{system}: a learnt sweep"
            line = [what]
            for setting in settings:
                row = cells[system, *setting, high]
                before = {} if low is None else cells[system, *setting, low]
                count = 1 if low is None else high - low
                pair = (
                    (row[clock] - before.get(clock, 0)) / count
                    for clock in ("processor_seconds", "wall_seconds")
                )
                line.append(" / ".join(map(_ms, pair)))
            lines.append(line)
    machine = result["times"]["machine"]
    load = machine["load_before"]
    note = (
        "A sweep is the difference of two passes, and negative where other work disturbed one. "
        "Milliseconds of processor time (of all threads together) / of time on the clock, per "
        f"second of audio; medians of {machine['rounds']} rounds. {machine['cpu']}, "
        f"{machine['cores']} cores, PyTorch {machine['torch']}, {machine['date']}"
        + ("." if load is None else f"; load of the machine before: {load:.1f} (0: idle).")
    )
    if result["times"]["left_out"]:
        note += f" Not installed: {_listed(list(result['times']['left_out']))}."
    return f"{markdown(headings, lines, [0])}\n\n{note}"


def vocos_sentence(result: Result) -> str:
    """What stands for Vocos, and what it takes."""
    products, measured = cost(result, PRODUCTS), cost(result, VOCOS)
    assert products is not None
    gmac = result["times"]["products_gmac"]
    text = (
        f"The line is the speed of Vocos on the same machine. Its matrix products alone, "
        f"{gmac:.2f} GMAC per second of audio, take {_ms(products)} ms per second of audio"
    )
    if measured is None:
        return text + "; what it does between them comes on top, so Vocos itself is slower."
    return text + f"; the whole of its own package, with random weights, {_ms(measured)} ms."


def _threads(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'}"


def _ms(seconds: float) -> str:
    """Milliseconds with two significant digits."""
    value = 1000 * seconds
    decimals = max(0, 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(decimals, 3)}f}"


def _mean(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return ""
    size = abs(found["mean"])
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{found['mean']:.{digits}f}"
    if found["upper"] is not None:
        text += f" ± {found['upper'] - found['mean']:.{digits}f}"
    return text


TABLES: Tables = {
    "frontier-budgets": ("frontier.json", budgets_table),
    "frontier-learning": ("frontier.json", learning_text),
    "frontier-vocos": ("frontier.json", vocos_sentence),
    "frontier-rows": ("frontier.json", rows_table),
    "frontier-times": ("frontier.json", times_table),
}

# -- the picture -----------------------------------------------------------------------------------


def draw(result: Result, path: Path) -> Path:
    """A panel for each of `PANELS`: a line for each system, a dot for each number of sweeps."""
    found = rows(result)
    shown = [name for name in PANELS if name in result["measures"]]
    figure = new_figure(11, 5)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, measure in zip(panels, shown, strict=True):
        for index, system in enumerate(dict.fromkeys(row.system for row in found)):
            own = [row for row in found if row.system == system and row.estimate(measure)["n"]]
            costs = [1000 * row.cost for row in own]
            means = [row.estimate(measure)["mean"] for row in own]
            style = "o-" if own and own[0].trained else "o--"
            axes.plot(costs, means, style, color=f"C{index}", markersize=4, label=system)
            for row, x, y in zip(own, costs, means, strict=True):
                axes.annotate(
                    str(row.sweeps), (x, y), textcoords="offset points", xytext=(3, 4),
                    fontsize=7, color=f"C{index}",
                )  # fmt: skip
        for name, line in ((VOCOS, "-"), (PRODUCTS, ":")):
            spent = cost(result, name)
            if spent is not None:
                axes.axvline(1000 * spent, color="0.4", linestyle=line, linewidth=1, label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(which="minor", labelsize=7)
        axes.grid(color="0.9", which="major")
        axes.set_axisbelow(True)
        axes.set_xlabel("processor time, ms per second of audio, one thread")
        axes.set_title(heading(result["measures"][measure]), fontsize="medium")
    panels[0].legend(fontsize="small")
    machine = result["times"]["machine"]
    figure.suptitle(
        f"dots: number of sweeps; dashed: nothing learnt. {machine['cpu']}, "
        f"{len(result['recordings'])} recordings",
        fontsize="medium",
    )
    return save_figure(figure, path, dpi=120)
