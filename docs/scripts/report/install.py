"""Tables of docs/install.md and docs/acoustic-models.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from report.markdown import Tables
from vocoder.evaluation.tables import markdown


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
    *_, about = result.values()
    parts = [part for part in about["parts"] if part != "interpreter"]
    rows = [["**`vocoder say`, in all**", *(f"{r['say']['wall']:.2f}" for r in result.values())]]
    rows += [[p, *(f"{r['parts'][p]['wall']:.2f}" for r in result.values())] for p in parts]
    return (
        f"{markdown(['', *result], rows)}\n\nMedians of {about['runs']} runs, "
        f"{about['cores']} cores of an {about['cpu']}, wall-clock seconds "
        "([cold_start.py](scripts/cold_start.py)). The rest of the total is writing the "
        "file and process exit."
    )


def mel_table(result: Mapping[str, Any]) -> str:
    """How far the mels of other toolkits are from ours."""
    about = result["about"]
    share = f"over {about['promise']:g}"
    headings = ["model", "checked", "package", "mean, nats", "largest", share]
    headings += ["largest with hiss", f"{share} with hiss", "remark"]
    rows = []
    for row in result["rows"]:
        cells = [
            row["model"],
            row["checked"],
            f"{row['package'] or 'none'} {row.get('version') or ''}",
        ]
        if "missing" in row:
            figures = [*[""] * 5, f"not installed: {row['missing']}"]
        else:
            figures = [f"{row['mean']:.1e}", f"{row['largest']:.1e}", f"{row['share']:.2%}"]
            figures += [f"{row['largest_with_hiss']:.1e}", f"{row['share_with_hiss']:.2%}"]
            figures += [row["remark"]]
        rows.append([cell.strip() for cell in (*cells, *figures)])
    return (
        f"{markdown(headings, rows, [0, 1, 2, 8])}\n\n{about['recordings']} recordings at 22,050 "
        f"Hz; librosa {about['librosa']}, PyTorch {about['torch']}, {about['date']}."
    )


TABLES: Tables = {
    "cold-start": ("cold_start.json", cold_start_table),
    "compatibility": ("compatibility.json", compatibility_table),
    "mel-parity": ("mel_parity.json", mel_table),
}
