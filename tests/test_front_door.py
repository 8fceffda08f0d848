"""`make sound` uses an utterance that no recipe trains on."""

import re

from tests.conftest import ROOT
from vocoder.corpus import held_out


def test_the_sentence_of_make_sound_was_never_trained_on():
    sentences = re.findall(r"sample/wavs/(\w+)\.flac", (ROOT / "Makefile").read_text())
    assert sentences
    assert set(sentences) <= set(held_out(ROOT / "recipes" / "ljspeech" / "sample").test)
