"""The tables of docs/install.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from report.markdown import Tables, markdown


def compatibility_table(result: Sequence[Mapping[str, Any]]) -> str:
    """Releases of Python, PyTorch and torchaudio, and how the fast part of the tests ended."""
    rows = [
        [
            *(row[name] for name in ("python", "torch", "torchaudio", "torchaudio loads")),
            row["outcome"].rpartition(" in ")[0],
        ]
        for row in result
    ]
    headings = ["Python", "torch", "torchaudio", "torchaudio loads", "fast part of the tests"]
    return markdown(headings, rows, text={0, 1, 2, 3, 4})


def cold_start_table(result: Mapping[str, Any]) -> str:
    """Seconds from the shell to a spoken sentence, by part."""
    names = list(result)
    lines: list[tuple[str, Callable[[Mapping[str, Any]], Mapping[str, float]]]] = [
        ("**`vocoder say`, in all**", lambda row: row["say"]),
        *(
            (part, lambda row, part=part: row["parts"][part])
            for part in result[names[-1]]["parts"]
            if part != "interpreter"
        ),
    ]
    rows = [
        [label, *(f"{times(result[name])['wall']:.2f}" for name in names)] for label, times in lines
    ]
    about = result[names[-1]]
    prose = (
        f"Medians of {about['runs']} runs, {about['cores']} cores of an {about['cpu']}, wall-clock "
        "seconds ([cold_start.py](scripts/cold_start.py)). What the parts leave of the whole is "
        "writing the file and the end of the process."
    )
    return f"{markdown(['', *names], rows, text={0})}\n\n{prose}"


TABLES: Tables = {
    "cold-start": ("cold_start.json", cold_start_table),
    "compatibility": ("compatibility.json", compatibility_table),
}
