"""The tab *Text to speech*: text through the acoustic model and the vocoder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vocoder.audio import MelSpec

from . import pictures
from .models import Models, Notify, silent
from .sound import Sound, Timing, check_seed, check_sweeps, convention

TITLE = "Text to speech"

LONGEST_TEXT = 500
"""Characters of text that are spoken at once."""

_EXAMPLES = [
    "The birch canoe slid on the smooth planks.",
    "All samples of this sentence were computed at once.",
    "A flow is an invertible network from sound to noise.",
]
"""At most 60 characters: longer ones are cut short on their buttons."""


@dataclass(frozen=True)
class Speech:
    """Text as speech."""

    sound: Sound
    mel: Tensor
    mel_spec: MelSpec
    timing: Timing
    """Of both models together, from phonemes to audio."""
    phonemes: list[str]
    """What was read, one string a sentence."""


def speak(
    models: Models,
    text: str,
    temperature: float | None,
    speaking_rate: float,
    seed: int | None,
    refine: float | None = None,
    notify: Notify = silent,
) -> Speech:
    """Text to speech, sentence by sentence.

    Args:
        refine: sweeps of mel consistency; None for the vocoder's own number.

    Raises:
        ValueError: no text, too much of it or none that can be read; a seed, temperature, rate or
            number of sweeps out of range; two models of different mel conventions.
        CheckpointError: there is no acoustic model.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"the text has {len(text)} characters: type at most {LONGEST_TEXT}")
    seed, sweeps = check_seed(seed), check_sweeps(refine)
    from vocoder.text import speech

    sentences = speech.sentences(text)
    acoustic = models.acoustic(notify)
    vocoder = models.vocoder_for(acoustic.mel_spec, notify)
    if vocoder.mel_spec != acoustic.mel_spec:
        raise ValueError(
            f"the acoustic model makes mels of {convention(acoustic.mel_spec)} and the vocoder "
            f"takes {convention(vocoder.mel_spec)}: start the demo with two of the same convention"
        )
    if temperature is None:
        temperature = vocoder.default_temperature
    start = time.perf_counter()
    pieces = []
    for index, piece in enumerate(
        speech.speak(
            sentences,
            acoustic,
            vocoder,
            temperature=temperature,
            speaking_rate=speaking_rate,
            seed=seed,
            refine=sweeps,
        ),
        start=1,
    ):
        pieces.append(torch.from_numpy(piece))
        notify(index / len(sentences), f"sentence {index} of {len(sentences)}")
    taken = time.perf_counter() - start
    sound = Sound(torch.cat(pieces), vocoder.sample_rate)
    return Speech(
        sound,
        vocoder.mel(sound.samples),
        vocoder.mel_spec,
        Timing(taken, sound.seconds),
        ["".join(sentence.phonemes) for sentence in sentences],
    )


def layout(models: Models) -> None:
    """The tab."""
    import gradio as gr

    from . import widgets

    if not models.has_acoustic:
        gr.Markdown(
            "No acoustic model is bundled with this version. To have text read aloud, start the "
            "demo with `--acoustic runs/NAME/model`.",
            elem_id="say-lacking",
        )
    with gr.Row():
        with gr.Column(scale=2):
            text = gr.Textbox(
                value=_EXAMPLES[0],
                label="Text",
                info=f"English, at most {LONGEST_TEXT} characters",
                lines=3,
                max_length=LONGEST_TEXT,
                elem_id="say-text",
            )
            gr.Examples([[example] for example in _EXAMPLES], [text], label="Examples")
            with gr.Row():
                temperature = widgets.temperature(models)
                rate = gr.Slider(0.5, 2.0, 1.0, step=0.05, label="Speaking rate")
            refine = widgets.sweeps(models, "say-sweeps")
            seed = widgets.seed()
            button = gr.Button(
                "Speak", variant="primary", elem_id="say-button", interactive=models.has_acoustic
            )
        with gr.Column(scale=3):
            audio = widgets.player("Speech", "say-audio")
            picture = widgets.picture("Waveform and mel spectrogram", "say-picture")
            figures = widgets.figures("say-figures")

    @widgets.answering
    def answer(
        text: str,
        temperature: float,
        rate: float,
        seed: int | None,
        refine: float | None,
        progress: Any = gr.Progress(),
    ) -> tuple[Any, ...]:
        notify = widgets.notifying(progress)
        speech = speak(models, text, temperature, rate, seed, refine, notify)
        rows = [["Speech", f"{speech.sound.seconds:.2f} s", *widgets.pace(speech.timing)]]
        notes = [f"Phonemes: {'  '.join(speech.phonemes)}", widgets.machine_note()]
        return (
            widgets.playable(speech.sound),
            pictures.waveform_and_mel(speech.sound, speech.mel, speech.mel_spec),
            widgets.table(["", "duration", *widgets.PACE], rows, notes),
        )

    gr.on(
        [button.click, text.submit],
        answer,
        [text, temperature, rate, seed, refine],
        [audio, picture, figures],
        api_name="say",
        show_progress_on=[picture],
        **widgets.COMPUTING,
    )
