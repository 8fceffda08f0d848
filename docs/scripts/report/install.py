"""The tables of docs/install.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from report.markdown import Tables, markdown


def dependencies_table(result: Mapping[str, Any]) -> str:
    """What the plain install and the extras take on disk and in time."""
    rows = [
        [
            f"`{row['package']}`",
            row["extra"] or "plain install",
            f"{row['brings']:,.0f}",
            f"{row['alone']:,.0f}",
            f"{row['import_seconds']:.2f}" if "import_seconds" in row else "",
        ]
        for row in sorted(result["rows"], key=lambda row: (row["extra"], -row["brings"]))
    ]
    headings = ["package", "of", "MB, with what it needs", "MB, it alone", "import, s"]
    prose = (
        f"PyTorch takes {result['pytorch'] / 1000:.1f} GB and {result['pytorch_seconds']:.1f} s to "
        f"import, all else of the plain install {result['rest']:,.0f} MB. Below, sizes are beyond "
        "PyTorch's: of a package with all that it needs, and what would go if only it went. A "
        "package is imported where it is first needed; its time is beyond those of PyTorch and of "
        "the packages before it in pyproject.toml. `import vocoder` takes "
        f"{result['import_vocoder_seconds']:.2f} s and `vocoder --help` "
        f"{result['help_seconds']:.2f} s. All seconds are of processor time (Python "
        f"{result['python']}, torch {result['torch']}; [dependencies.py](scripts/dependencies.py))."
    )
    return f"{prose}\n\n{markdown(headings, rows, text={0, 1})}"


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
    "dependencies": ("dependencies.json", dependencies_table),
}
