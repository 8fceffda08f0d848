"""Tables of docs/install.md and docs/acoustic-models.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from report.markdown import Tables
from vocoder.evaluation.tables import markdown


def compatibility_table(result: Sequence[Mapping[str, Any]]) -> str:
    """Releases of Python, PyTorch and torchaudio, and how the fast part of the tests ended."""
    names = ("python", "torch", "torchaudio")
    found = {tuple(row[name] for name in names): row["outcome"] for row in result}
    rows = [[*versions, outcome.rpartition(" in ")[0]] for versions, outcome in found.items()]
    return markdown(["Python", "torch", "torchaudio", "tests"], rows, text={0, 1, 2, 3})


def cold_start_sentence(result: Mapping[str, Any]) -> str:
    """Seconds from the shell to a spoken sentence, and the parts that take longest."""
    *_, about = result.values()
    parts = {part: measured["wall"] for part, measured in about["parts"].items()}
    longest = sorted(parts, key=lambda part: -parts[part])[:4]
    return (
        f"`vocoder say` takes {about['say']['wall']:.1f} s for a sentence. Its longest parts: "
        f"{'; '.join(f'{part}, {parts[part]:.1f} s' for part in longest)}. Medians of "
        f"{about['runs']} runs, {about['cores']} cores of an {about['cpu']} "
        "([cold_start.py](scripts/cold_start.py))."
    )


def mel_table(result: Mapping[str, Any]) -> str:
    """How far the mels of other toolkits are from ours."""
    about = result["about"]
    headings = ["model", "checked", "package", "largest", "largest with hiss", "remark"]
    rows = []
    for row in result["rows"]:
        package = f"{row['package'] or 'none'} {row.get('version') or ''}".strip()
        if "missing" in row:
            figures = ["", "", f"not installed: {row['missing']}"]
        else:
            largest = (row[key] for key in ("largest", "largest_with_hiss"))
            figures = [*(f"{value:.1e}" for value in largest), row["remark"]]
        rows.append([row["model"], row["checked"], package, *figures])
    return (
        f"{markdown(headings, rows, [0, 1, 2, 5])}\n\n{about['recordings']} recordings at 22,050 "
        f"Hz; librosa {about['librosa']}, PyTorch {about['torch']}, {about['date']}."
    )


TABLES: Tables = {
    "cold-start": ("cold_start.json", cold_start_sentence),
    "compatibility": ("compatibility.json", compatibility_table),
    "mel-parity": ("mel_parity.json", mel_table),
}
