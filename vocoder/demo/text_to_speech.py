"""The tab *Text to speech*: text through the acoustic model and the vocoder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from vocoder.text import speech

from .models import Models
from .sound import Notify, Version, picture_of

TITLE = "Text to speech"

LONGEST_TEXT = 500  # characters

# At most 60 characters: longer ones are cut short on their buttons.
_EXAMPLES = [
    "The birch canoe slid on the smooth planks.",
    "All samples of this sentence were computed at once.",
    "A flow is an invertible network from sound to noise.",
]


def speak(
    models: Models, text: str, voice: str, name: str, notify: Notify | None = None, **settings: Any
) -> Version:
    """Text to speech, sentence by sentence.

    Args:
        voice: name of the acoustic model and, after a slash, of its voice.
        name: of the vocoder.
        settings: speaking_rate, pitch, temperature, seed and refine, as in `vocoder.say`.

    Raises:
        ValueError: no text, too much of it or none that can be read; another argument out of range;
            two models of different mel conventions.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"the text has {len(text)} characters: type at most {LONGEST_TEXT}")
    sentences, pieces = speech.sentences(text), []
    acoustic, _, settings["voice"] = voice.rpartition("/")
    pair = models.voices[acoustic], models.vocoders[name]
    list(speech.speak(speech.sentences("A."), *pair, **settings))  # the first call compiles
    start = time.perf_counter()
    for piece in speech.speak(sentences, *pair, **settings):
        pieces.append(torch.from_numpy(piece))
        if notify is not None:
            notify(len(pieces) / len(sentences), f"sentence {len(pieces)} of {len(sentences)}")
    taken = time.perf_counter() - start
    phonemes = "  ".join("".join(sentence.phonemes) for sentence in sentences)
    return Version("Speech", torch.cat(pieces), pair[1].mel_spec, phonemes, {"time, s": taken})


def layout(models: Models) -> None:
    """The tab."""
    import gradio as gr
    from gradio.context import Context

    from . import widgets

    specs = [voice.mel_spec for voice in models.voices.values()]
    readers = [name for name, model in models.vocoders.items() if model.mel_spec in specs]
    if not readers:
        gr.Markdown(
            "No acoustic model fits this vocoder. To have text read aloud, start the demo with "
            "`--acoustic runs/NAME/model`."
        )
        return
    with gr.Row():
        with gr.Column(scale=3):
            text = gr.Textbox(
                _EXAMPLES[0],
                label=f"Text (English, at most {LONGEST_TEXT} characters)",
                lines=2,
                max_length=LONGEST_TEXT,
                elem_id="say-text",
            )
            button = gr.Button("Speak", variant="primary", elem_id="say-button")
            audio = gr.Audio(
                label="Speech", interactive=False, buttons=["download"], elem_id="say-audio"
            )
            gr.Examples([[example] for example in _EXAMPLES], [text], label="Examples")
        with gr.Column(scale=2), gr.Group():
            named = models.voices.items()
            voices = [(voice, f"{name}/{voice}") for name, model in named for voice in model.voices]
            voice = gr.Dropdown(voices, label="Voice", elem_id="say-voice")
            titles = [(models.title(name), name) for name in readers]
            name = gr.Dropdown(titles, value=readers[0], label="Model", elem_id="say-model")
            rate = gr.Slider(0.5, 2.0, 1.0, step=0.05, label="Speaking rate")
            pitch = gr.Slider(-6, 6, 0, step=0.5, label="Pitch, semitones")
            refine, temperature, seed = widgets.settings(models, "say")
    note = gr.Markdown(elem_id="say-note")
    picture = widgets.picture("say-picture")

    def answer(text: str, voice: str, name: str, *settings: Any) -> Iterator[list[Any]]:
        refine, rate, pitch, temperature, seed, notify = settings
        options = {"speaking_rate": rate, "pitch": pitch, "temperature": temperature}
        said = speak(models, text, voice, name, notify, refine=refine, seed=seed or 0, **options)
        taken = said.figures["time, s"] or 0.0
        seconds = len(said.samples) / said.mel_spec.sample_rate
        remark = (
            f"{seconds:.2f} s of speech in {taken:.2g} s, {seconds / taken:.2g} times real time. "
            f"{widgets.MACHINE}\n\nPhonemes: {said.remark}"
        )
        yield [remark, picture_of([said]), widgets.playable(said)]

    assert Context.root_block is not None
    # On load, so that a sentence is there to play when the page opens.
    triggers = [Context.root_block.load, button.click, text.submit]
    inputs = [text, voice, name, refine, rate, pitch, temperature, seed]
    widgets.compute(triggers, answer, inputs, [note, picture, audio], "say")
