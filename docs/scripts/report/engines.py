"""Tables of docs/engines.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables, markdown
from report.rows import FLOW, PUBLISHED


def engines_table(result: Mapping[str, Any]) -> str:
    """docs/results/benchmark.json: which engine of the MDCT flow is fastest where."""
    measured = result["rows"]
    headings = ["audio at once", "fastest in float32", "× real time", "fastest in any type"]
    headings += ["× real time", "over Vocos, float32", "any type", "over published WaveGlow"]
    rows = []
    for batch, seconds in dict.fromkeys((row["batch"], row["audio_seconds"]) for row in measured):
        here = {
            row["name"]: row
            for row in measured
            if (row["batch"], row["audio_seconds"]) == (batch, seconds)
        }
        own = [row for name, row in here.items() if name.startswith(FLOW)]
        if not own:
            continue
        best = max(own, key=_speed)
        exact = max((row for row in own if row["dtype"] == "float32"), key=_speed)
        vocos, published = here.get("Vocos"), here.get(PUBLISHED)
        rows.append(
            [
                f"{seconds:g} s" if batch == 1 else f"{batch} × {seconds:g} s",
                _engine(exact),
                f"{_speed(exact):.0f}",
                _engine(best),
                f"{_speed(best):.0f}",
                f"{_speed(exact) / _speed(vocos):.1f}" if vocos else "",
                f"{_speed(best) / _speed(vocos):.1f}" if vocos else "",
                f"{_speed(exact) / _speed(published):.0f}" if published else "",
            ]
        )
    return markdown(headings, rows, [0, 1, 3])


def _speed(row: Mapping[str, Any]) -> float:
    return float(row["times_real_time"])


def _engine(row: Mapping[str, Any]) -> str:
    return str(row["name"]).removeprefix(FLOW).strip(", ") or "PyTorch"


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
    first, machine = result["rows"][0], result["machine"]
    return (
        f"{markdown(headings, rows, [0])}\n\n"
        f"Memory of the whole process, PyTorch included. {first['chunk_frames']} frames "
        f"at once, {first['threads']} thread, × real time in processor time. {machine['cpu']}, "
        f"PyTorch {machine['torch']}, {machine['date']}."
    )


def determinism_table(result: Mapping[str, Any]) -> str:
    """Same seed, same audio: the differences promised and measured."""
    sweeps = result["sweeps"]
    headings = ["the same seed", "promised", "measured", f"with {sweeps} iterations", "measured"]

    def number(value: float) -> str:
        return "equal" if value == 0 else f"{value:.0e}".replace("e-0", "e-")

    rows = [
        [
            row["title"],
            *(number(row[key][column]) for column in (0, 1) for key in ("promised", "measured")),
        ]
        for row in result["rows"]
    ]
    machine = result["machine"]
    return (
        f"{markdown(headings, rows, [0])}\n\nLargest difference of a sample, of audio in "
        f"[-1, 1]; a step of 16 bits is 3e-5. Measured with the bundled default. "
        f"{machine['cpu']}, PyTorch {machine['torch']}, {machine['date']}."
    )


TABLES: Tables = {
    "engines": ("benchmark.json", engines_table),
    "streaming": ("streaming.json", streaming_table),
    "determinism": ("determinism.json", determinism_table),
}
