"""The table of docs/text.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables
from vocoder.evaluation import tables


def speech_table(result: Mapping[str, Any]) -> str:
    """The result of `vocoder evaluate-speech` as Markdown."""
    return tables.recognition(dict(result)).section()


TABLES: Tables = {
    "speech": ("scores/acoustic.speech.json", speech_table),
}
