"""What the tabs of the demo do, and the page itself: a real server and a real headless Chromium."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import vocoder
from vocoder import MelSpec, cli
from vocoder.checkpoints import CheckpointError
from vocoder.demo import pictures, tasks
from vocoder.demo.models import Models
from vocoder.evaluation.extras import MissingExtraError
from vocoder.models import WaveGlow, WaveNet

ROOT = Path(__file__).parents[1]
WAVS = ROOT / "recipes/ljspeech/sample/wavs"
SENTENCE, OTHER = str(WAVS / "ru_0502.flac"), str(WAVS / "ru_0813.flac")
SPEC = MelSpec.preset("speech-16k")


def train(model: Any, steps: int, samples: int) -> None:
    """Some seconds of training: enough for a model that is no longer as it was made."""
    audio = torch.cat([vocoder.read_audio(path, 16000)[0] for path in sorted(WAVS.iterdir())[:6]])
    rng = np.random.default_rng(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        starts = rng.integers(0, len(audio) - samples, size=4)
        batch = torch.stack([audio[start : start + samples] for start in starts])
        batch = batch * torch.hann_window(samples).sqrt()
        batch = batch + (torch.rand_like(batch) - 0.5) / 32768
        loss = model.training_loss({"audio": batch, "mel": model.mel(batch)})
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A flow, a WaveNet and an acoustic model, all small, of the same convention."""
    from vocoder.text.acoustic import AcousticModel
    from vocoder.text.frontend import SYMBOLS

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    flow = WaveGlow(
        SPEC,
        squeeze="lapped",
        n_group=256,
        n_flows=2,
        n_early_every=0,
        channels=24,
        n_layers=1,
        mixing=["even-odd", "half-swap"],
        conditional_scale=True,
        scale_channels=16,
    )
    train(flow, 40, 32 * 256)
    wavenet = WaveNet(SPEC, channels=8, n_layers=6, cycle=6, condition_channels=8)
    train(wavenet, 10, 8 * 256)
    acoustic = AcousticModel(
        SYMBOLS,
        SPEC,
        encoder_channels=8,
        encoder_layers=1,
        n_convolutions=1,
        n_flows=1,
        channels=8,
        n_layers=1,
    )
    acoustic.normalise_by(torch.full((SPEC.n_mels,), -5.0), torch.full((SPEC.n_mels,), 2.0))
    return {
        "checkpoint": str(flow.save(folder / "flow")),
        "wavenet": str(wavenet.save(folder / "wavenet")),
        "acoustic": str(acoustic.save(folder / "acoustic")),
    }


@pytest.fixture(scope="module")
def models(checkpoints: dict[str, str]) -> Models:
    return Models(**checkpoints)


# -- behind the tabs -------------------------------------------------------------------------------


def test_copy_synthesis_is_the_flow_s_own_and_is_judged(models: Models) -> None:
    result = tasks.copy_synthesis(models, SENTENCE, 0.5, 3)
    audio, _ = vocoder.read_audio(SENTENCE, 16000)
    flow = models.flow()
    expected = flow.synthesize(flow.mel(audio), 0.5, 3)[: len(audio)]
    assert torch.equal(result.made.samples, expected)
    assert torch.equal(result.original.samples, audio)
    assert result.timing.audio == len(audio) / 16000
    assert result.scores["log_mel_distance"] < 1
    recording, made = result.likelihoods
    assert 3 < recording < 8
    assert made is not None
    backwards = tasks.Sound(audio.flip(0), 16000, quantised=True)
    assert tasks._likelihood(flow, backwards, result.mels[0]) < recording


def test_a_recording_that_is_cut_off_is_judged_by_its_sound(models: Models, tmp_path: Path) -> None:
    audio, rate = vocoder.read_audio(SENTENCE)
    loud = int(audio.abs().argmax())
    vocoder.write_audio(tmp_path / "cut.wav", audio[loud : loud + rate], rate)
    recording, made = tasks.copy_synthesis(models, str(tmp_path / "cut.wav"), 0.5, 3).likelihoods
    assert recording is not None
    assert made is not None
    assert min(recording, made) > 2


@pytest.mark.parametrize("suffix, subtype", [("wav", "PCM_24"), ("ogg", "VORBIS"), ("mp3", None)])
def test_any_format_and_rate_is_taken(
    models: Models, tmp_path: Path, suffix: str, subtype: str | None
) -> None:
    stereo = 0.1 * np.random.default_rng(0).standard_normal((44100, 2))
    path = tmp_path / f"noise.{suffix}"
    soundfile.write(path, stereo, 44100, subtype=subtype)
    result = tasks.copy_synthesis(models, str(path), 0.667, 0)
    assert result.made.sample_rate == 16000
    assert result.made.seconds == pytest.approx(1, abs=0.1)


def test_what_cannot_be_used_is_said_in_one_sentence(models: Models, tmp_path: Path) -> None:
    long, short, text = (tmp_path / name for name in ("long.flac", "short.wav", "text.wav"))
    soundfile.write(long, np.zeros(61 * 8000), 8000)
    soundfile.write(short, np.zeros(800), 8000)
    text.write_text("no audio at all")
    cases = {
        None: "there is no recording: choose, record or upload one",
        str(long): "the recording lasts 61.00 s: choose one of 0.2 to 60 s, or cut it",
        str(short): "the recording lasts 0.10 s",
        str(text): "text.wav is not audio that can be read",
    }
    for path, message in cases.items():
        with pytest.raises(ValueError, match="^" + re.escape(message)) as error:
            tasks.copy_synthesis(models, path, 0.667, 0)
        assert str(tmp_path) not in str(error.value)
    for seed in (None, -1, 2**31):
        with pytest.raises(ValueError, match="the seed is"):
            tasks.copy_synthesis(models, SENTENCE, 0.667, seed)
    with pytest.raises(ValueError, match="there is no second recording"):
        tasks.interpolate(models, SENTENCE, None, "first")
    with pytest.raises(ValueError, match="choose at most 2 s"):
        next(tasks.compare(models, SENTENCE, 3.0, 0.667, 0))


def test_text_is_read_and_the_limits_hold(models: Models) -> None:
    told: list[tuple[float, str]] = []
    text = "Two words. And three more."
    made = tasks.speak(models, text, 0.5, 1.0, 4, lambda *news: told.append(news))
    flow, acoustic = models.flow(), models.acoustic()
    expected = vocoder.say(text, 0.5, seed=4, acoustic=acoustic, vocoder=flow)
    np.testing.assert_array_equal(made.sound.samples.numpy(), expected)
    assert len(made.phonemes) == 2
    assert told[-2:] == [(0.5, "sentence 1 of 2"), (1.0, "sentence 2 of 2")]
    with pytest.raises(ValueError, match="the text has 501 characters: type at most 500"):
        tasks.speak(models, "a" * 501, 0.667, 1.0, 0)
    with pytest.raises(ValueError, match="there is no text"):
        tasks.speak(models, " \n", 0.667, 1.0, 0)


def test_the_comparison_goes_on_before_one_s_eyes_and_judges_all(models: Models) -> None:
    progress, states = [], []
    for state in tasks.compare(models, SENTENCE, 0.5, 0.667, 1, "compiled"):
        progress.append(state.entries[tasks.WAVENET].progress)
        states.append(state.status)
    assert progress == sorted(progress)
    assert len(set(progress)) > 5
    assert any("WaveNet: 0.2" in status for status in states)
    assert states[-1] == ""
    samples = round(0.5 * 16000 / 256) * 256
    for key, entry in state.entries.items():
        assert len(entry.sound.samples) == samples
        assert set(entry.likelihoods) == {tasks.FLOW, tasks.WAVENET}
        assert (entry.distance is None) == (key == tasks.RECORDING)
    # The loudest half second, of the recording as it is but for its faded ends.
    audio, _ = vocoder.read_audio(SENTENCE, 16000)
    energy = audio.square().cumsum(0)
    first = round(state.start * 16000)
    loudest = (energy[samples:] - energy[:-samples]).max()
    assert energy[first + samples] - energy[first] == pytest.approx(loudest.item(), rel=1e-2)
    excerpt = state.entries[tasks.RECORDING].sound.samples
    assert torch.equal(excerpt[256:-256], audio[first + 256 : first + samples - 256])
    assert abs(excerpt[0]) < abs(audio[first]) + 1e-6
    # What was streamed is what the model makes at once.
    wavenet = models.wavenet()
    at_once = wavenet.synthesize(wavenet.mel(excerpt), 0.667, 1)
    streamed = state.entries[tasks.WAVENET].sound.samples
    torch.testing.assert_close(streamed[256:-256], at_once[256:-256], rtol=0, atol=2 / 32768)


def test_models_of_two_conventions_get_a_mel_each(
    checkpoints: dict[str, str], tmp_path: Path
) -> None:
    spec = replace(MelSpec.preset("ljspeech"), n_mels=40)
    wavenet = WaveNet(spec, channels=8, n_layers=2, cycle=2, condition_channels=8)
    named = {**checkpoints, "wavenet": str(wavenet.save(tmp_path / "other"))}
    *_, state = tasks.compare(Models(**named), SENTENCE, 0.5, 0.667, 0, "compiled")
    assert any("22,050 Hz, 40 bands" in note for note in state.notes)
    made = state.entries[tasks.WAVENET]
    assert made.sound.sample_rate == 22050
    assert made.sound.seconds == pytest.approx(0.5, abs=0.02)
    assert set(made.likelihoods) == {tasks.WAVENET}
    assert set(state.entries[tasks.RECORDING].likelihoods) == {tasks.FLOW, tasks.WAVENET}
    assert set(state.entries[tasks.GRIFFIN_LIM].likelihoods) == {tasks.FLOW}


def test_the_sweep_begins_without_noise(models: Models) -> None:
    first = tasks.sweep(models, SENTENCE, 0, (0.0, 1.0))
    second = tasks.sweep(models, SENTENCE, 1, (0.0, 1.0))
    assert torch.equal(first.points[0].sound.samples, second.points[0].sound.samples)
    assert not torch.equal(first.points[1].sound.samples, second.points[1].sound.samples)
    assert [point.at for point in first.points] == [0.0, 1.0]


def test_an_interpolation_ends_at_the_recordings(models: Models) -> None:
    arc = tasks.interpolate(models, SENTENCE, OTHER, "between", 3)
    audio = [vocoder.read_audio(path, 16000)[0] for path in (SENTENCE, OTHER)]
    length = min(len(samples) // 256 for samples in audio) * 256
    for point, recording in ((arc.points[0], audio[0]), (arc.points[-1], audio[1])):
        assert len(point.sound.samples) == length
        # The last frame of the one that was cut is faded.
        torch.testing.assert_close(
            point.sound.samples[:-256], recording[: length - 256], rtol=0, atol=1e-4
        )
    assert arc.reconstruction < 1e-4
    assert 80 < arc.angle < 100  # the noise of two recordings is unrelated
    middle = arc.points[1].sound.samples
    assert not torch.allclose(
        middle, 0.5 * (arc.points[0].sound.samples + arc.points[2].sound.samples)
    )
    held = tasks.interpolate(models, SENTENCE, OTHER, "first", 3)
    torch.testing.assert_close(held.points[0].sound.samples, arc.points[0].sound.samples)
    assert not torch.allclose(held.points[2].sound.samples, arc.points[2].sound.samples, atol=1e-3)


def test_the_great_circle_keeps_to_the_sphere_and_may_be_a_point(models: Models) -> None:
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(2, 8, 50, generator=generator, dtype=torch.float64)
    ends /= ends.norm(dim=(1, 2), keepdim=True)
    angle = torch.arccos((ends[0] * ends[1]).sum()).item()
    for t in (0.0, 0.25, 0.5, 1.0):
        z = tasks._between(ends[0], ends[1], t, angle)
        assert z.norm().item() == pytest.approx(1)
        assert torch.arccos((z * ends[0]).sum().clamp(-1, 1)).item() == pytest.approx(
            t * angle, abs=1e-6
        )
    same = tasks.interpolate(models, SENTENCE, SENTENCE, "between", 3)
    assert same.angle == pytest.approx(0, abs=0.1)
    torch.testing.assert_close(
        same.points[1].sound.samples, same.points[0].sound.samples, rtol=0, atol=1e-4
    )


def test_models_are_loaded_once_and_chosen_by_convention(
    checkpoints: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    models = Models(**checkpoints)
    first = models.flow(lambda _, message: told.append(message))
    assert models.flow(lambda _, message: told.append(message)) is first
    assert told == ["loading the flow"]
    # A flow of the rival's convention is preferred, if one is bundled.
    spec = replace(SPEC, n_mels=20)
    other = WaveGlow(spec, n_flows=1, channels=8, n_layers=1)
    bundled = {
        "acoustic": Path(checkpoints["acoustic"]),
        "default": Path(checkpoints["checkpoint"]),
        "other": other.save(tmp_path / "other"),
    }
    monkeypatch.setattr("vocoder.demo.models.bundled_models", lambda: bundled)
    monkeypatch.setattr("vocoder.pretrained.bundled_models", lambda: bundled)
    models = Models()
    assert models.flow_beside(spec).mel_spec == spec
    assert models.flow_beside(replace(spec, n_mels=21)) is models.flow()
    assert models.has_acoustic
    assert not models.has_wavenet


def test_wrong_models_are_named(checkpoints: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no model nowhere"):
        Models("nowhere")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        Models(checkpoints["checkpoint"], wavenet=str(tmp_path))
    swapped = Models(checkpoints["wavenet"], wavenet=checkpoints["checkpoint"])
    with pytest.raises(CheckpointError, match="all samples at once"):
        swapped.wavenet()
    with pytest.raises(CheckpointError, match="has no latent space"):
        swapped.latent_flow()


def test_pictures_are_drawn_of_silence_too(models: Models) -> None:
    mel = models.flow().mel(torch.zeros(4000))
    sound = tasks.Sound(torch.zeros(4000), 16000)
    for picture in (
        pictures.waveform_and_mel(sound, mel, SPEC),
        pictures.mels(["one", "two"], [mel, mel], [SPEC, SPEC]),
        pictures.mel_row(["one", "two"], [mel, mel], [SPEC, SPEC]),
    ):
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert len(np.unique(picture)) > 10  # titles and axes at least


def test_sixteen_bits_do_not_wrap_around() -> None:
    sound = tasks.Sound(torch.tensor([-1.0, 0.0, 0.5, 1.0]), 16000)
    assert sound.pcm().tolist() == [-32768, 0, 16384, 32767]


def test_nothing_imports_gradio_but_the_page() -> None:
    code = (
        "import sys, vocoder, vocoder.cli, vocoder.demo.models, vocoder.demo.tasks, "
        "vocoder.demo.pictures; print('gradio' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_without_gradio_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r'pip install "flow-vocoder\[demo\]"'):
        cli.demo()


# -- the page --------------------------------------------------------------------------------------


def need_gradio() -> None:
    # Not imported here: it leaves an event loop open, which these tests take for an error.
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed (extra demo)")


class Server:
    """`vocoder demo` as a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        self.log = folder / "server.log"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vocoder.cli", "demo", "--port", str(port), *arguments],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stdout=log,
                stderr=subprocess.STDOUT,
                # Tests in the background ignore interruptions, and what they start inherits that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait(self, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while "The demo is at" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise RuntimeError(f"the demo did not start: {self.log.read_text()}")
            time.sleep(0.2)

    def files(self) -> list[Path]:
        return list(self.temporary.glob("vocoder-demo-*/**/*"))

    def stop(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(120)


def options(checkpoints: dict[str, str]) -> list[str]:
    return [word for name, path in checkpoints.items() for word in (f"--{name}", path)]


@pytest.fixture(scope="module")
def server(
    checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    need_gradio()
    started = Server(tmp_path_factory.mktemp("server"), *options(checkpoints))
    try:
        started.wait()
        yield started
        assert started.files()
        assert started.stop(signal.SIGTERM) == 0
        assert not started.files()  # what visitors left
    finally:
        started.process.kill()
        started.process.wait()
    assert "Traceback" not in started.log.read_text()


class Page:
    """The page in headless Chromium, with what a visitor does in it."""

    def __init__(self, url: str, recording: Path) -> None:
        from selenium import webdriver
        from selenium.common.exceptions import SessionNotCreatedException
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = _chromium() or ""
        for argument in (
            "--headless=new",
            "--window-size=1400,1200",
            "--disable-dev-shm-usage",
            # No name resolves: what would reach for the network fails, and is seen to.
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            # The microphone hears a file.
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={recording}",
            # Its sandbox refuses to run as root, who the containers of CI are.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        # Named, so that selenium does not look for a driver on the network.
        service = Service(shutil.which("chromedriver"))
        try:
            self.driver = webdriver.Chrome(options=options, service=service)
        except SessionNotCreatedException:  # on a busy machine Chromium may start too late
            self.driver = webdriver.Chrome(options=options, service=Service(service.path))
        self.driver.get(url)
        self.until(lambda: self.all("#say-text textarea"))

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        found = self.all(selector)
        return found[0].text if found else ""

    def until(self, condition: Any, seconds: float = 120) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(
            self.driver, seconds, 0.1, ignored_exceptions=[StaleElementReferenceException]
        )
        return wait.until(lambda _: condition())

    def click(self, text: str) -> None:
        """Click the visible button of this text."""

        def visible() -> Any:
            return next(
                (b for b in self.all("button") if b.is_displayed() and b.text.strip() == text), None
            )

        self.until(visible).click()

    def type(self, name: str, text: str) -> None:
        """Replace what is in a box by typing."""
        from selenium.webdriver.common.keys import Keys

        box = self.until(lambda: self.all(f"#{name} textarea"))[0]
        box.send_keys(Keys.CONTROL + "a")  # by itself, since keys stay down to the end of a call
        box.send_keys(Keys.BACKSPACE)
        if text:
            box.send_keys(text)

    def clear(self, name: str) -> None:
        self.until(lambda: self.all(f"#{name} [aria-label=Clear]"))[0].click()
        self.until(lambda: not self.all(f"#{name} a[download]"))

    def press(self, name: str) -> None:
        self.until(lambda: [b for b in self.all(f"#{name}") if b.is_displayed()])[0].click()

    def upload(self, name: str, path: Path) -> None:
        self.until(lambda: self.all(f"#{name} input[type=file]"))[0].send_keys(str(path))

    def audio(self, name: str, other_than: str = "") -> str:
        """The address of the audio in a player, when there is some."""

        def address() -> str | None:
            links = [link.get_attribute("href") for link in self.all(f"#{name} a[download]")]
            return next((link for link in links if link and link != other_than), None)

        return str(self.until(address))

    def toast(self, text: str) -> str:
        """The message in the page that has this text."""
        message = self.until(
            lambda: next((t.text for t in self.all(".toast-body") if text in t.text), None)
        )
        for button in self.all(".toast-close"):
            button.click()
        self.until(lambda: not self.all(".toast-body"))
        return str(message)


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@contextlib.contextmanager
def chromium(url: str, folder: Path) -> Iterator[Page]:
    """The page of an address, with a recording at the microphone."""
    pytest.importorskip("selenium", reason="selenium is not installed (extra dev)")
    if _chromium() is None or shutil.which("chromedriver") is None:
        pytest.skip("Chromium is not installed (Debian: apt install chromium chromium-driver)")
    recording = folder / "speech.wav"
    audio, rate = soundfile.read(SENTENCE)
    soundfile.write(recording, audio, rate)
    opened = Page(url, recording)
    try:
        yield opened
    finally:
        opened.driver.quit()


@pytest.fixture(scope="module")
def page(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(server.url, tmp_path_factory.mktemp("microphone")) as opened:
        yield opened


def fetch(address: str) -> tuple[np.ndarray, int]:
    """Audio as the visitor's browser gets it."""
    assert urllib.parse.urlsplit(address).hostname == "127.0.0.1"
    with urllib.request.urlopen(address) as answer:
        return soundfile.read(io.BytesIO(answer.read()))


def test_text_typed_becomes_sound(page: Page, models: Models) -> None:
    page.type("say-text", "Seven words that nobody has heard before.")
    page.press("say-button")
    samples, rate = fetch(page.audio("say-audio"))
    expected = vocoder.say(
        "Seven words that nobody has heard before.",
        acoustic=models.acoustic(),
        vocoder=models.flow(),
    )
    assert rate == 16000
    # Not raised to full scale either, as gradio does with floating point.
    np.testing.assert_allclose(samples, expected, atol=1.1 / 32768)
    page.until(lambda: "times real time" in page.text("#say-figures"))
    page.until(lambda: page.all("#say-picture img"))
    page.type("say-text", "")
    page.press("say-button")
    assert "There is no text to read: give at least one word" in page.toast("text")


def test_a_recording_uploaded_comes_back(page: Page, models: Models) -> None:
    page.click("Copy synthesis")
    page.press("copy-button")
    assert "There is no recording: choose, record or upload one" in page.toast("recording")
    page.upload("copy-recording", Path(SENTENCE))
    page.audio("copy-recording")
    page.press("copy-button")
    samples, rate = fetch(page.audio("copy-audio"))
    result = tasks.copy_synthesis(models, SENTENCE, 0.667, 0)
    assert rate == 16000
    np.testing.assert_allclose(samples, result.made.samples, atol=1.1 / 32768)
    page.until(lambda: "STOI" in page.text("#copy-figures"))
    assert f"{result.likelihoods[0]:.2f}" in page.text("#copy-figures")


def test_the_microphone_is_heard(page: Page) -> None:
    page.click("Copy synthesis")
    before = page.audio("copy-audio")
    page.clear("copy-recording")
    page.until(lambda: page.all("#copy-recording [aria-label='Record audio']"))[0].click()
    page.until(lambda: page.all("#copy-recording .record-button"))[0].click()
    time.sleep(2.5)
    page.until(lambda: [b for b in page.all("#copy-recording .stop-button") if b.is_displayed()])[
        0
    ].click()
    page.audio("copy-recording")
    page.press("copy-button")
    samples, rate = fetch(page.audio("copy-audio", other_than=before))
    assert rate == 16000
    assert len(samples) > 16000
    assert samples.std() > 1e-3


def test_three_ways_of_making_audio_side_by_side(page: Page) -> None:
    page.click("Flow against autoregressive")
    page.click("recorded speech, Russian")
    page.audio("compare-recording")
    page.press("compare-button")
    page.until(
        lambda: page.all("#compare-figures .bar") and "WaveNet: " in page.text("#compare-figures")
    )
    page.until(lambda: page.all("#compare-picture img"))
    lengths = set()
    for name in ("original", "flow", "wavenet", "griffin-lim"):
        samples, rate = fetch(page.audio(f"compare-{name}"))
        assert samples.std() > 1e-4
        lengths.add((len(samples), rate))
    assert lengths == {(15872, 16000)}  # whole frames
    rows = [row.text for row in page.all("#compare-figures tr")]
    assert [row.split()[0] for row in rows[1:]] == [
        "Recording",
        "WaveGlow",
        "WaveNet",
        "Griffin-Lim",
    ]
    assert "–" not in " ".join(rows)  # every likelihood is there


def test_latents_are_played_with(page: Page, models: Models) -> None:
    page.click("Latent space")
    page.click("recorded speech, Russian")
    page.audio("sweep-recording")
    page.press("sweep-button")
    heard = [fetch(page.audio(f"sweep-audio-{index}"))[0] for index in range(6)]
    assert len({len(samples) for samples in heard}) == 1
    assert not np.allclose(heard[0], heard[5], atol=1e-3)
    page.click("Interpolation")
    page.click("English to Russian")
    page.audio("interpolate-first")
    page.audio("interpolate-second")
    page.press("interpolate-button")
    samples, _ = fetch(page.audio("interpolate-audio-0"))
    first = ROOT / "vocoder/demo/examples/english-female.flac"
    recording, _ = vocoder.read_audio(first, 16000)
    np.testing.assert_allclose(samples[:-256], recording[: len(samples) - 256], atol=1e-3)
    page.until(lambda: "apart" in page.text("#interpolate-figures"))


def test_no_error_was_logged_and_nothing_left_this_machine(page: Page) -> None:
    """Of all that the tests above did."""
    log = page.driver.get_log("browser")
    assert [entry["message"] for entry in log if entry["level"] == "SEVERE"] == []
    requests = set()
    for entry in page.driver.get_log("performance"):
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            address = urllib.parse.urlsplit(event["params"]["request"]["url"])
            if address.scheme not in ("data", "blob"):
                requests.add(address.hostname)
    assert requests == {"127.0.0.1"}


def test_a_file_that_is_no_sound_is_refused_in_the_page(page: Page, tmp_path: Path) -> None:
    # After the look at the console, where the browser says that it cannot play it either.
    page.click("Copy synthesis")
    page.clear("copy-recording")
    page.until(lambda: page.all("#copy-recording [aria-label='Upload file']"))[0].click()
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"this is no sound" * 100)
    page.upload("copy-recording", broken)
    page.audio("copy-recording")
    page.press("copy-button")
    message = page.toast("broken.wav")
    assert "broken.wav is not audio that can be read" in message
    assert "/" not in message  # no folder of the server


def test_the_bundled_voice_is_understood(tmp_path: Path) -> None:
    from vocoder.pretrained import ACOUSTIC_NAME, DEFAULT_NAME, bundled_models

    missing = {ACOUSTIC_NAME, DEFAULT_NAME} - set(bundled_models())
    if missing:
        pytest.skip(f"not bundled: {', '.join(sorted(missing))}")
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed (extra metrics)")
    need_gradio()
    from vocoder.evaluation.recognition import recognise, word_error_rate

    text = "The people of the city want to know what the government will do this year."
    server = Server(tmp_path)
    try:
        server.wait()
        with chromium(server.url, tmp_path) as page:
            page.type("say-text", text)
            page.press("say-button")
            samples, rate = fetch(page.audio("say-audio"))
    finally:
        server.stop(signal.SIGINT)
    assert 2 < len(samples) / rate < 10
    assert word_error_rate([text], [recognise(samples, rate)]) <= 0.5


def test_what_is_missing_is_said_in_the_page(checkpoints: dict[str, str]) -> None:
    need_gradio()
    code = (
        "import sys; from unittest import mock; from vocoder.demo import models, page; "
        "mock.patch.object(models, 'bundled_models', dict).start(); "
        "print(page.build(models.Models(sys.argv[1])).get_config_file())"
    )
    command = [sys.executable, "-c", code, checkpoints["checkpoint"]]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "No acoustic model is bundled" in result.stdout
    assert "No autoregressive model is bundled" in result.stdout


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"^cannot listen on 127.0.0.1, port {port} \(.*in use"):
            cli.demo(port=port)
