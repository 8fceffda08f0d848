"""The demo under load: visitors at once, each of whom gets the audio of their own text."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> Any:
    pytest.importorskip("httpx", reason="gradio is not installed (extra demo)")
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed (extra demo)")
    spec = importlib.util.spec_from_file_location("load", ROOT / "docs/scripts/load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "load", module)  # for its dataclass
        spec.loader.exec_module(module)
    return module


def test_visitors_at_once_get_their_own_audio_or_a_full_queue(script: Any) -> None:
    import httpx

    texts = script.TEXTS[:8]
    with script.server("--device", "cpu") as (address, pid):
        with httpx.Client(timeout=None) as client:
            expected = [script.say(client, address, text) for text in texts]
        assert len({audio.tobytes() for audio in expected}) == len(texts)
        record = script.load(address, pid, texts, expected, 16, retry=False)
        assert len(record.seconds) == 16
        assert not record.wrong
        assert not record.errors
        # A swap would be seen.
        swapped = script.load(address, pid, texts[:2], expected[1::-1], 2, retry=False)
        assert swapped.wrong
        # More than wait and compute together.
        crowd, audio = [texts[0]] * 30, [expected[0]] * 30
        record = script.load(address, pid, crowd, audio, 30, retry=False)
        assert record.refused
        assert not record.wrong
        assert not record.errors
        assert len(record.seconds) + record.refused == 30
