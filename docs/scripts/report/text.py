"""The table of docs/text.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables, markdown, on
from vocoder.evaluation.results import estimate


def speech_table(result: Mapping[str, Any]) -> str:
    """Word error rates of a result of `vocoder evaluate --acoustic`."""
    about = result["about"]
    rows = [
        [name, _percent(row["word_error_rate"]), _percent(_less_recording(result, name))]
        for name, row in result["rows"].items()
        if row["word_error_rate"]["n"]
    ]
    return (
        f"{markdown(['', 'word error rate, %', 'less the recording'], rows, [0])}\n\n"
        f"Means over {len(result['files'])} sentences of {about['corpus']} that were kept from "
        f"training, transcribed by {about['recogniser']}; ± is half a 95 % interval. "
        f"{on(about['machine'])}"
    )


def _less_recording(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    values = [file["values"] for file in result["files"]]
    rates = [(v[name]["word_error_rate"], v["recording"]["word_error_rate"]) for v in values]
    return estimate([own - other for own, other in rates if None not in (own, other)])


def _percent(row: Mapping[str, Any]) -> str:
    return f"{100 * row['mean']:.1f} ± {100 * (row['upper'] - row['mean']):.1f}"


TABLES: Tables = {"speech": ("scores/acoustic.speech.json", speech_table)}
