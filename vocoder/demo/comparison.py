"""The tab *Comparison*: one mel through the flow, its source alone, an autoregressive model and
Griffin-Lim, with times and likelihoods, as it happens.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vocoder.audio import MelSpec
from vocoder.evaluation.griffin_lim import griffin_lim
from vocoder.models import MdctFlow, Vocoder

from . import pictures
from .models import Models, Notify, silent
from .sound import (
    Sound,
    Timing,
    check_recording,
    check_seed,
    check_sweeps,
    convention,
    log_likelihood,
    read_recording,
    timed,
)

TITLE = "Comparison"

LONGEST_EXCERPT = 2.0
"""The longest excerpt, seconds: made sample by sample it takes many times as long."""

RECORDING, FLOW, SOURCE = "recording", "flow", "source"
AUTOREGRESSIVE, GRIFFIN_LIM = "autoregressive", "griffin-lim"
"""The rows of the comparison."""

WHY = {
    RECORDING: "What the mel was taken from.",
    FLOW: "Trained by exact likelihood: noise becomes all samples at once.",
    SOURCE: "What the flow starts from: a tone of the pitch that the mel shows, and noise. It has "
    "learnt nothing but to read pitch, so the difference is what training buys.",
    AUTOREGRESSIVE: "Trained by exact likelihood, too, but one sample after the other.",
    GRIFFIN_LIM: "No model: phases that fit the mel, found step by step.",
}
"""What each row stands for."""

# Mel frames that the autoregressive model makes between two updates of the page.
_CHUNK_FRAMES = 2


@dataclass
class Row:
    """A row of the comparison: a recording, or one way of making audio."""

    name: str
    how: str
    sound: Sound | None = None
    mel: Tensor | None = None
    mel_spec: MelSpec | None = None
    timing: Timing | None = None
    """Of what has been made so far."""
    progress: float = 0.0
    """The share that has been made."""
    distance: float | None = None
    """Log-mel distance from the recording, nats."""
    likelihoods: dict[str, float] = field(default_factory=dict)
    """Log-likelihood in nats per sample, by the key of the row whose model judges."""


@dataclass
class Comparison:
    """The comparison so far."""

    seconds: float
    """Duration of the excerpt."""
    start: float
    """Where it begins in the recording, seconds."""
    rows: dict[str, Row]
    judges: dict[str, str]
    """Rows whose models judge audio -> heading of their column."""
    notes: list[str]
    status: str = ""


def compare(
    models: Models,
    path: str | None,
    seconds: float,
    temperature: float | None,
    seed: int | None,
    refine: float | None = None,
    notify: Notify = silent,
) -> Iterator[Comparison]:
    """The loudest excerpt of a recording by the flow, its source, an autoregressive model and
    Griffin-Lim.

    All but the autoregressive model are timed after a first pass of the same length, and that one
    after a single frame. Its time is that of the computation alone, without the updates of the
    page.

    Args:
        seconds: duration of the excerpt.
        refine: sweeps of mel consistency for all; None for each model's own number, for the source
            that of the flow, and none for Griffin-Lim.

    Yields:
        The same `Comparison`, whenever something in it has changed.

    Raises:
        ValueError: no recording, one that cannot be read, or is too long or too short; an excerpt,
            a seed, a temperature or a number of sweeps out of range.
        CheckpointError: there is no autoregressive model.
    """
    seed, sweeps = check_seed(seed), check_sweeps(refine)
    if not 0 < seconds <= LONGEST_EXCERPT:
        raise ValueError(f"the excerpt lasts {seconds} s: choose at most {LONGEST_EXCERPT:g} s")
    path = check_recording(path)
    slow: Any = models.autoregressive(notify)
    flow = models.vocoder(notify)
    whole = read_recording(path, flow.sample_rate)
    first, length = _loudest(whole, seconds, flow.mel_spec.hop_length)
    start = first / flow.sample_rate
    judge = _Judge(flow, whole.excerpt(first, length).faded(flow.mel_spec.hop_length))
    if slow.mel_spec == flow.mel_spec:
        slow_judge = _Judge(slow, judge.excerpt)
        note = "All are given the same mel spectrogram."
    else:
        slow_judge = _Judge(slow, _same_excerpt(path, start, judge.excerpt.seconds, slow))
        note = (
            f"The models take mels of different conventions ({convention(flow.mel_spec)}; "
            f"{convention(slow.mel_spec)}), so each is given its own mel of the same excerpt and "
            "judges only audio at its own sample rate."
        )

    def own_sweeps(model: Vocoder) -> Any:
        return model.default_refine if sweeps is None else sweeps

    rows = {
        RECORDING: Row("Recording", ""),
        FLOW: Row(flow.title, _how("all samples in one pass", own_sweeps(flow))),
        SOURCE: Row("Source alone", _how("nothing learnt but pitch", own_sweeps(flow))),
        AUTOREGRESSIVE: Row(slow.title, _how("sample by sample", own_sweeps(slow))),
        GRIFFIN_LIM: Row("Griffin-Lim", _how("32 iterations, no model", sweeps or 0)),
    }
    source = _source(flow)
    if source is None:
        del rows[SOURCE]
    judges = {FLOW: judge, AUTOREGRESSIVE: slow_judge}
    headings = {key: by.heading for key, by in judges.items()}
    state = Comparison(judge.excerpt.seconds, start, rows, headings, [note])
    if models.autoregressive_is_bundled:
        state.notes.append(
            f"The bundled {slow.title} is small and was trained for an hour: it shows how such a "
            "model works and how fast it is, not how good it can sound."
        )
    judge.finish(rows[RECORDING], judge.excerpt)

    state.status = f"Griffin-Lim and {flow.title} …"
    yield state
    invert = griffin_lim(flow.mel_spec, seed, refine=sweeps or 0)
    samples, timing = timed(lambda: invert(judge.mel), judge.excerpt.seconds)
    judge.finish(rows[GRIFFIN_LIM], judge.cut(samples), timing)
    samples, timing = timed(
        lambda: flow.synthesize(judge.mel, temperature, seed, refine=sweeps),
        judge.excerpt.seconds,
    )
    judge.finish(rows[FLOW], Sound(samples[:length], flow.sample_rate), timing)
    if source is not None:
        samples, timing = timed(
            lambda: source.synthesize(judge.mel, temperature, seed, refine=own_sweeps(flow)),
            judge.excerpt.seconds,
        )
        judge.finish(rows[SOURCE], Sound(samples[:length], flow.sample_rate), timing)
    yield state

    row = rows[AUTOREGRESSIVE]
    state.status = f"{row.name}: getting ready …"
    yield state
    # Compiles, if need be.
    slow.synthesize(slow_judge.mel[:, :1], temperature, seed, refine=sweeps)
    chunks = []
    for chunk, timing in _streamed(slow, slow_judge.mel, temperature, seed):
        chunks.append(chunk)
        row.timing = timing
        row.progress = min(timing.audio / slow_judge.excerpt.seconds, 0.999)
        state.status = f"{row.name}: {timing.audio:.2f} of {slow_judge.excerpt.seconds:.2f} s"
        yield state
    samples, taken = _refined(slow, torch.cat(chunks), slow_judge.mel, own_sweeps(slow))
    timing = Timing(timing.taken + taken, timing.audio)
    # Sweeps leave the 16-bit grid.
    finished = replace(slow_judge.cut(samples), quantised=not own_sweeps(slow))
    slow_judge.finish(row, finished, timing)

    for judging, by in judges.items():
        for key, row in rows.items():
            sound = by.excerpt if key == RECORDING else row.sound
            assert sound is not None
            if sound.sample_rate != by.model.sample_rate:
                continue  # resampled audio has empty bands: its likelihood means nothing
            state.status = f"Likelihood of {row.name} under {rows[judging].name} …"
            yield state
            value = log_likelihood(by.model, sound, by.mel)
            if value is not None:
                row.likelihoods[judging] = value
    state.status = ""
    yield state


class _Judge:
    """A model with the excerpt at its sample rate, faded, and the mel of it."""

    def __init__(self, model: Vocoder, excerpt: Sound) -> None:
        self.model = model
        self.excerpt = excerpt
        self.mel = model.mel(excerpt.samples)

    @property
    def heading(self) -> str:
        bound = ", lower bound" if self.model.likelihood == "lower bound" else ""
        return f"log-likelihood by {self.model.title}{bound}"

    def cut(self, samples: Tensor) -> Sound:
        """Audio faded as the excerpt was: a mel does not show where sound is cut off."""
        sound = Sound(samples[: len(self.excerpt.samples)], self.model.sample_rate)
        return sound.faded(self.model.mel_spec.hop_length)

    def finish(self, row: Row, sound: Sound, timing: Timing | None = None) -> None:
        """Fill in all but the likelihoods."""
        row.sound, row.timing, row.progress = sound, timing, 1.0
        row.mel, row.mel_spec = self.model.mel(sound.samples), self.model.mel_spec
        if timing is not None:
            row.distance = float(self.model.mel_spec.distance(self.mel, row.mel))


def _source(flow: Vocoder) -> MdctFlow | None:
    """The harmonic source and noise of a flow's mel; None if the mel does not show pitch."""
    try:
        return MdctFlow(flow.mel_spec, n_flows=0, source=True).fused()
    except ValueError:
        return None


def _how(how: str, sweeps: Any) -> str:
    return f"{how}, {sweeps} sweep{'' if sweeps == 1 else 's'}" if sweeps else how


def _loudest(sound: Sound, seconds: float, hop: int) -> tuple[int, int]:
    """First sample and length, in whole frames, of the excerpt that has the most energy."""
    frames = min(round(seconds * sound.sample_rate / hop), len(sound.samples) // hop)
    length = max(frames, 1) * hop
    energy = torch.cat([torch.zeros(1).double(), sound.samples.double().square().cumsum(0)])
    return int((energy[length:] - energy[:-length]).argmax()), length


def _same_excerpt(path: str, start: float, seconds: float, model: Vocoder) -> Sound:
    """An excerpt, faded, at the sample rate of another model and in whole frames of it."""
    hop = model.mel_spec.hop_length
    frames = max(round(seconds * model.sample_rate / hop), 1)
    whole = read_recording(path, model.sample_rate)
    return whole.excerpt(round(start * model.sample_rate), frames * hop).faded(hop)


def _streamed(
    model: Vocoder, mel: Tensor, temperature: float | None, seed: int
) -> Iterator[tuple[Tensor, Timing]]:
    """Chunks of audio without sweeps, with the time of all of them so far."""
    # Sweeps look ahead: with them the first chunk might be the whole excerpt, and no progress seen.
    chunks = model.stream(mel.split(_CHUNK_FRAMES, dim=1), temperature, seed, refine=0)
    taken = seconds = 0.0
    while True:
        start = time.perf_counter()
        chunk = next(chunks, None)
        taken += time.perf_counter() - start
        if chunk is None:
            return
        seconds += len(chunk) / model.sample_rate
        yield chunk, Timing(taken, seconds)


def _refined(model: Vocoder, samples: Tensor, mel: Tensor, sweeps: int) -> tuple[Tensor, float]:
    """What `Vocoder.synthesize` makes of the model's own samples, and the seconds it takes."""
    if not sweeps:
        return samples, 0.0
    from vocoder.engines.refinement import refine_audio  # numba takes a second to import

    target = model.consistency_target(mel)
    start = time.perf_counter()
    refined = refine_audio(samples, target, model.mel_spec, sweeps).clamp(-1, 1)
    return refined, time.perf_counter() - start


def layout(models: Models) -> None:
    """The tab."""
    import gradio as gr

    from . import widgets

    family = models.autoregressive_family
    flow_title = models.family.title
    slow_title = family.title if family else "Autoregressive"
    gr.Markdown(
        f"Four ways to make audio from the same mel spectrogram: by the flow ({flow_title}), by "
        f"its source alone, sample by sample ({slow_title}), and without a model (Griffin-Lim). "
        "Only a short excerpt is taken, the loudest of the recording: an autoregressive model may "
        "need many seconds for each second of audio."
    )
    if family is None:
        gr.Markdown(
            "No autoregressive model is bundled with this version. To compare with one, start the "
            "demo with `--autoregressive runs/NAME/model`.",
            elem_id="compare-lacking",
        )
    with gr.Row():
        with gr.Column(scale=2):
            recording = widgets.recorder("Recording", "compare-recording")
            widgets.example_recordings(recording)
            with gr.Row():
                seconds = gr.Slider(0.25, LONGEST_EXCERPT, 1.0, step=0.25, label="Seconds")
                temperature = widgets.temperature(models)
            seed = widgets.seed()
            refine = widgets.sweeps(models, "compare-sweeps")
            with gr.Row():
                button = gr.Button(
                    "Compare",
                    variant="primary",
                    elem_id="compare-button",
                    interactive=family is not None,
                )
                stop = gr.Button("Stop", elem_id="compare-stop")
        with gr.Column(scale=3):
            titles = {
                RECORDING: "Recording",
                FLOW: flow_title,
                SOURCE: "Source alone",
                AUTOREGRESSIVE: slow_title,
                GRIFFIN_LIM: "Griffin-Lim",
            }
            players = widgets.players(
                [(title, f"compare-audio-{key}") for key, title in titles.items()],
                list(WHY.values()),
            )
            figures = widgets.figures("compare-figures")
            picture = widgets.picture("Mel spectrograms", "compare-picture")

    @widgets.answering
    def answer(
        path: str | None,
        seconds: float,
        temperature: float,
        seed: int | None,
        refine: float | None,
        progress: Any = gr.Progress(),
    ) -> Iterator[tuple[Any, ...]]:
        notify = widgets.notifying(progress)
        shown: set[str] = set()
        for state in compare(models, path, seconds, temperature, seed, refine, notify):
            audio: list[Any] = []
            for key in titles:
                row = state.rows.get(key)
                if row is None or row.progress < 1 or key in shown:
                    audio.append(gr.skip())
                else:
                    shown.add(key)
                    audio.append(gr.Audio(value=widgets.playable(row.sound), label=row.name))
            yield (_table(state), *audio, gr.skip() if state.status else _picture(state))

    started = button.click(
        answer,
        [recording, seconds, temperature, seed, refine],
        [figures, *players, picture],
        api_name="compare",
        show_progress_on=[figures],
        show_progress="minimal",
        **widgets.COMPUTING,
    )
    stop.click(None, cancels=[started])


def _table(state: Comparison) -> str:
    from . import widgets

    rows = []
    for row in state.rows.values():
        name = f"{html.escape(row.name)}<br><small>{html.escape(row.how)}</small>"
        if 0 < row.progress < 1:
            name += f'<div class="bar"><div style="width: {row.progress:.1%}"></div></div>'
        rows.append(
            [
                name,
                *widgets.pace(row.timing),
                "" if row.distance is None else f"{row.distance:.3f}",
                *(widgets.nats(row.likelihoods.get(judge)) for judge in state.judges),
            ]
        )
    excerpt = f"The excerpt: {state.seconds:.2f} s from {state.start:.2f} s on, the loudest."
    notes = [excerpt, *state.notes, widgets.LIKELIHOOD_NOTE, widgets.machine_note()]
    status = f"<p><strong>{html.escape(state.status)}</strong></p>" if state.status else ""
    head = ["", *widgets.PACE, "log-mel distance, nats", *state.judges.values()]
    return status + widgets.table(head, rows, notes, escaped=True)


def _picture(state: Comparison) -> pictures.Pixels:
    rows = [row for row in state.rows.values() if row.mel is not None and row.mel_spec is not None]
    return pictures.mel_row(
        [row.name for row in rows],
        [row.mel for row in rows if row.mel is not None],
        [row.mel_spec for row in rows if row.mel_spec is not None],
    )
