"""The demo under load: visitors at once, each of whom gets the audio of their own text."""

import pytest

from tests.conftest import scripts


def test_visitors_at_once_get_their_own_audio_or_a_full_queue():
    pytest.importorskip("gradio", reason="gradio is not installed (extra demo)")
    import httpx

    with scripts("docs/scripts") as get:
        script = get("load")
    texts = script.TEXTS[:4]
    with script.server("--device", "cpu") as (address, pid):
        with httpx.Client(timeout=None) as client:
            expected = [script.say(client, address, text) for text in texts]
        assert len({audio.tobytes() for audio in expected}) == len(texts)
        record = script.load(address, pid, texts, expected, 8, retry=False)
        assert len(record.seconds) == 8
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
