"""Tables of docs/engines.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables, markdown, on
from report.rows import FLOW, PUBLISHED


def engines_table(result: Mapping[str, Any]) -> str:
    """docs/results/benchmark.json: which backend of the MDCT flow is fastest where."""
    headings = ["audio at once", "fastest in float32", "× real time", "fastest in any type"]
    headings += ["× real time", "over Vocos, float32", "any type", "over published WaveGlow"]
    workloads: dict[tuple[int, float], list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        workloads.setdefault((row["batch"], row["audio_seconds"]), []).append(row)
    rows = []
    for (batch, seconds), measured in workloads.items():
        speed = {row["name"]: row["times_real_time"] for row in measured}
        own = [row for row in measured if row["name"].startswith(FLOW)]
        best = max((row["name"] for row in own), key=lambda name: speed[name])
        exact = max(
            (row["name"] for row in own if row["dtype"] == "float32"), key=lambda name: speed[name]
        )

        def over(name: str, other: str, decimals: int) -> str:
            return f"{speed[name] / speed[other]:.{decimals}f}" if other in speed else ""  # noqa: B023

        label = f"{seconds:g} s" if batch == 1 else f"{batch} × {seconds:g} s"
        cells = [
            label,
            _backend(exact),
            f"{speed[exact]:.0f}",
            _backend(best),
            f"{speed[best]:.0f}",
        ]
        cells += [over(exact, "Vocos", 1), over(best, "Vocos", 1), over(exact, PUBLISHED, 0)]
        rows.append(cells)
    return markdown(headings, rows, [0, 1, 3])


def _backend(name: str) -> str:
    return name.removeprefix(FLOW).strip(", ") or "PyTorch"


def streaming_table(result: Mapping[str, Any]) -> str:
    """Look-ahead, time to the first audio, and memory over an hour."""
    headings = ["flow", "look-ahead", "computing to the first audio", "streamed", "memory at most"]
    headings += ["after the first minute", "before the first chunk", "× real time"]
    rows = []
    for row in result["rows"]:
        ahead = f"{row['look_ahead_frames']} frames, {1000 * row['look_ahead_seconds']:.0f} ms"
        memory = ("megabytes", "megabytes_after_a_minute", "megabytes_before")
        cells = [row["name"], ahead, f"{1000 * row['first_audio_seconds']:.0f} ms"]
        cells += [f"{row['minutes']:.0f} min", *(f"{row[key]:.0f} MB" for key in memory)]
        rows.append([*cells, f"{row['times_real_time']:.0f}"])
    first = result["rows"][0]
    return (
        f"{markdown(headings, rows, [0])}\n\n"
        f"Memory of the whole process, PyTorch included. {first['chunk_frames']} frames "
        f"at once, {first['threads']} thread, × real time in processor time. "
        f"{on(result['machine'])}"
    )


def determinism_table(result: Mapping[str, Any]) -> str:
    """Same seed, same audio: the differences promised and measured."""
    iterations = result["sweeps"]
    headings = [
        "the same seed",
        "promised",
        "measured",
        f"with {iterations} iterations",
        "measured",
    ]

    def number(value: float) -> str:
        return "equal" if value == 0 else f"{value:.0e}".replace("e-0", "e-")

    rows = [
        [
            row["title"],
            *(number(row[key][column]) for column in (0, 1) for key in ("promised", "measured")),
        ]
        for row in result["rows"]
    ]
    return (
        f"{markdown(headings, rows, [0])}\n\nLargest difference of a sample, of audio in [-1, 1]; "
        f"a step of 16 bits is 3e-5. Measured with the bundled default. {on(result['machine'])}"
    )


TABLES: Tables = {
    "engines": ("benchmark.json", engines_table),
    "streaming": ("streaming.json", streaming_table),
    "determinism": ("determinism.json", determinism_table),
}
