"""The table of docs/acoustic-models.md, which recipes/mels/check.py measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables, markdown


def table(result: Mapping[str, Any]) -> str:
    """How far the mels of other toolkits are from ours."""
    about = result["about"]
    share = f"over {about['promise']:g}"
    headings = ["model", "checked", "package", "mean, nats", "largest", share]
    headings += ["largest with hiss", f"{share} with hiss", "remark"]
    rows = []
    for row in result["rows"]:
        package = f"{row['package']} {row['version']}" if row.get("version") else row["package"]
        cells = [row["model"], row["checked"], package or "none"]
        if "missing" in row:
            rows.append([*cells, *[""] * 5, f"not installed: {row['missing']}"])
            continue
        for name in ("mean", "largest"):
            cells.append(f"{row[name]:.1e}")
        cells.append(f"{row['share']:.2%}")
        cells += [f"{row['largest_with_hiss']:.1e}", f"{row['share_with_hiss']:.2%}"]
        rows.append([*cells, row["remark"]])
    return (
        f"{markdown(headings, rows, [0, 1, 2, 8])}\n\n"
        f"{about['recordings']} recordings at 22,050 Hz; librosa {about['librosa']}, PyTorch "
        f"{about['torch']}, {about['date']}."
    )


TABLES: Tables = {"mel-parity": ("mel_parity.json", table)}
