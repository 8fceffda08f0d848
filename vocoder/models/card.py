"""The model card of a saved model: the README.md that a hub of models shows."""

from __future__ import annotations

from typing import NamedTuple

from vocoder.audio import MelSpec

CARD_NAME = "README.md"


class Card(NamedTuple):
    """What the card of a class of models says; the example loads ``NAME`` and runs the model."""

    task: str  # the hub's ``pipeline_tag``
    purpose: str
    example: str


VOCODER = Card(
    "audio-to-audio",
    "A vocoder: log-mel spectrograms to speech",
    "audio = vocoder.load(NAME).synthesize(mel)",
)
ACOUSTIC = Card(
    "text-to-speech",
    "An acoustic model: English text to the log-mel spectrograms that a vocoder takes",
    'audio = vocoder.say("Some text.", acoustic=vocoder.load_acoustic(NAME))',
)
RESTORATION = Card(
    "audio-to-audio",
    "A restoring flow: the mels of acoustic models become mels of speech before a vocoder",
    "from vocoder.models.restoration import load_checkpoint\n\n"
    "mel = load_checkpoint(NAME).restore(mel)",
)


def model_card(card: Card, title: str, spec: MelSpec) -> str:
    """A model card in Markdown; the licence, which depends on the data, is left open."""
    example = card.example.replace("NAME", '"hf:OWNER/NAME"')
    return f"""---
license: other  # such as apache-2.0: the terms of the training data count
library_name: flow-vocoder
pipeline_tag: {card.task}
tags: [speech]
---

# {title}

{card.purpose}, at {spec.sample_rate:,} Hz. Install: `pip install "flow-vocoder[hub]"`.

```python
import vocoder

{example}
```

`config.json` holds the mel convention and the arguments of the model. To be written here: what it
was trained on, for how long, and what it should not be used for.
"""
