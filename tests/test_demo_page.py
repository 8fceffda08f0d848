"""The page of the demo: a real server, and a real headless Chromium."""

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

import numpy as np
import pytest
import soundfile

import vocoder
from tests.conftest import ROOT, perturb
from vocoder import cli
from vocoder.demo.copy_synthesis import compare
from vocoder.demo.models import Models
from vocoder.extras import MissingExtraError
from vocoder.models import WaveNet
from vocoder.pretrained import ACOUSTIC_NAME, DEFAULT_NAME

RECORDING = ROOT / "recipes/ljspeech/sample/wavs/ru_0502.flac"
# Not imported here: it leaves an event loop open, which these tests take for an error.
HAS_GRADIO = importlib.util.find_spec("gradio") is not None

SCRIPT = """
import pkgutil, sys
import vocoder.cli, vocoder.demo
for module in pkgutil.iter_modules(vocoder.demo.__path__):
    if module.name not in ("page", "widgets"):
        __import__(f"vocoder.demo.{module.name}")
print("gradio imported:", "gradio" in sys.modules, flush=True)

from vocoder.demo import models, page
bundled_models, models.bundled_models = models.bundled_models, dict
bare = models.Models(sys.argv.pop())
print("bare page:", page.build(bare).get_config_file(), flush=True)
models.bundled_models = bundled_models

try:
    vocoder.cli.main()  # until SIGTERM
except SystemExit as end:
    print("first end:", end.code, flush=True)
page.serve(bare, "127.0.0.1", None)  # until Ctrl-C
print("second end", flush=True)
"""


class Server:
    """A process that imports the demo, builds a page without bundled models, and runs the command:
    one for all, since gradio and PyTorch take long to import."""

    def __init__(self, folder, flow, *options):
        self.log = folder / "server.log"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, "demo", *options, flow],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stdout=log,
                stderr=subprocess.STDOUT,
                # Tests in the background ignore interruptions, and what they start inherits that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait(self, pattern, seconds=300):
        """The rest of the first line of the log that has this pattern, when it is there."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern + "(.*)\n", self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"the demo has not said {pattern!r}: {self.log.read_text()}")
            time.sleep(0.1)
        return found[1].strip()

    def files(self):
        return list(self.temporary.glob("vocoder-demo-*/**/*"))

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The models that the server uses: the bundled ones, and a small WaveNet."""
    wavenet = WaveNet("ljspeech", channels=8, n_layers=6, cycle=6, condition_channels=8)
    perturb(wavenet)
    return Models(autoregressive=str(wavenet.save(tmp_path_factory.mktemp("wavenet") / "model")))


@pytest.fixture(scope="module")
def server(tiny_flow, models, tmp_path_factory):
    """A demo of `models`, which may still be starting; at the end it is stopped in both ways, and
    leaves nothing behind."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    folder = tmp_path_factory.mktemp("server")
    flow, wavenet = str(tiny_flow().save(folder / "flow")), list(models.vocoders)[2]
    named = ["--checkpoint", DEFAULT_NAME, "--acoustic", ACOUSTIC_NAME, "--autoregressive", wavenet]
    started = Server(folder, flow, "--port", port, *named)
    try:
        yield started
        if HAS_GRADIO:
            assert started.wait("The demo is at ").startswith(f"http://127.0.0.1:{port}")
            left = started.files()  # by visitors
            assert left
            started.process.send_signal(signal.SIGTERM)
            assert started.wait("first end:") == "0"
            assert not any(path.exists() for path in left)
            started.wait("(?s:first end.*)The demo is at ")
            started.process.send_signal(signal.SIGINT)
            started.wait("second end")
            assert not started.files()
            assert "Traceback" not in started.log.read_text()
    finally:
        started.kill()


@pytest.mark.skipif(not HAS_GRADIO, reason="gradio is not installed (extra demo)")
def test_a_missing_acoustic_model_is_named_in_the_page(server):
    assert "No acoustic model fits this vocoder" in server.wait("bare page:")


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r'pip install "flow-vocoder\[demo\]"'):
        cli.demo()


class Browser:
    """Headless Chromium, and what a visitor does in it."""

    def __init__(self, microphone):
        from selenium import webdriver
        from selenium.common.exceptions import SessionNotCreatedException
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in (
            "headless=new",
            "window-size=1400,1200",
            "disable-dev-shm-usage",
            # No name resolves: a request to the network fails, and is seen to.
            "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            # The microphone plays a file.
            "use-fake-ui-for-media-stream",
            "use-fake-device-for-media-stream",
            f"use-file-for-fake-audio-capture={microphone}",
            # Its sandbox refuses to run as root, as in the containers of CI.
            *(["no-sandbox"] if os.geteuid() == 0 else []),
        ):
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        # Named, so that selenium does not look for a driver on the network.
        driver = shutil.which("chromedriver")
        try:
            self.driver = webdriver.Chrome(options, Service(driver))
        except SessionNotCreatedException:  # on a busy machine Chromium may start too late
            self.driver = webdriver.Chrome(options, Service(driver))
        self.errors_expected = False

    def open(self, url):
        """A new page, with a new log."""
        self.driver.get("about:blank")
        self.errors(), self.hosts()
        self.errors_expected = False
        self.driver.get(url)
        self.until(lambda: self.all("#say-text textarea"))

    def errors(self):
        """What the browser has logged as an error since the last call."""
        log = self.driver.get_log("browser")
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def hosts(self):
        """Machines that the page has sent a request to since the last call."""
        log = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [event for event in log if event["method"] == "Network.requestWillBeSent"]
        urls = [urllib.parse.urlsplit(event["params"]["request"]["url"]) for event in sent]
        return {url.hostname for url in urls if url.scheme not in ("data", "blob")}

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, selector):
        found = self.all(selector)
        return found[0].text if found else ""

    def until(self, condition, seconds=300):
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, seconds, 0.1, [StaleElementReferenceException])
        return wait.until(lambda _: condition())

    def press(self, selector, text=""):
        """Click the visible element of this selector, and of this text if one is given."""

        def found():
            shown = [element for element in self.all(selector) if element.is_displayed()]
            return [element for element in shown if not text or element.text.strip() == text]

        self.until(found)[0].click()

    def choose(self, name, option):
        """Choose in a drop-down list."""
        self.press(f"#{name} input")
        self.press(f"[role=option][aria-label='{option}']")

    def only(self, *names):
        """Leave these vocoders of all that are chosen at first."""
        for label in self.until(lambda: self.all("#copy-vocoders label")):
            if not any(name in label.text for name in names):
                label.click()

    def type(self, name, text):
        """Replace what is in a box by typing."""
        from selenium.webdriver.common.keys import Keys

        box = self.until(lambda: self.all(f"#{name} textarea"))[0]
        box.send_keys(Keys.CONTROL + "a")  # in a call of its own: keys stay down until its end
        box.send_keys(Keys.BACKSPACE, text)

    def upload(self, name, path):
        self.until(lambda: self.all(f"#{name} input[type=file]"))[0].send_keys(str(path))

    def audio(self, name, before=None):
        """The address of the audio in a player, when there is some other than before."""

        def addresses():
            links = [link.get_attribute("href") for link in self.all(f"#{name} a[download]")]
            return [link for link in links if link and link != before]

        return str(self.until(addresses)[0])

    def results(self, prefix):
        """The audio of each version by its name, when all are there."""
        self.until(lambda: self.all(f"#{prefix}-picture img"))
        rows = self.all(f"#{prefix}-versions audio")
        return {r.get_attribute("aria-label"): fetch(r.get_attribute("src")) for r in rows}

    def toast(self, text):
        """The message in the page that has this text."""
        return str(self.until(lambda: [t.text for t in self.all(".toast-body") if text in t.text]))


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory):
    """Chromium, with a recording at the microphone; the server starts meanwhile."""
    if not HAS_GRADIO:
        pytest.skip("gradio is not installed (extra demo)")
    pytest.importorskip("selenium", reason="selenium is not installed (extra dev)")
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("Chromium is not installed (Debian: apt install chromium chromium-driver)")
    microphone = tmp_path_factory.mktemp("microphone") / "speech.wav"
    soundfile.write(microphone, *soundfile.read(RECORDING))
    started = Browser(microphone)
    try:
        yield started
    finally:
        started.driver.quit()


@pytest.fixture
def page(server, browser):
    """The page, newly opened. No error may be logged in it, and nothing leave this machine."""
    browser.open(server.wait("The demo is at ").split()[0])
    yield browser
    errors, hosts = browser.errors(), browser.hosts()
    assert browser.errors_expected or errors == []
    assert hosts == {"127.0.0.1"}


def fetch(address):
    """Audio as the visitor's browser gets it."""
    assert urllib.parse.urlsplit(address).hostname == "127.0.0.1"
    with urllib.request.urlopen(address) as answer:
        return soundfile.read(io.BytesIO(answer.read()))


def test_the_page_opens_with_a_sentence_and_speaks_what_is_typed(page, models):
    pair = {"acoustic": models.voices[ACOUSTIC_NAME], "vocoder": models.page}
    first = page.audio("say-audio")
    expected = vocoder.say("The birch canoe slid on the smooth planks.", **pair)
    samples, rate = fetch(first)
    assert rate == models.page.sample_rate
    # Not raised to full scale either, as gradio does with floating point.
    np.testing.assert_allclose(samples, expected, atol=1.1 / 32768)
    text = "Seven words that nobody has heard before."
    page.type("say-text", text)
    page.choose("say-refine", "2")
    page.press("#say-button")
    samples, _ = fetch(page.audio("say-audio", first))
    np.testing.assert_allclose(samples, vocoder.say(text, refine=2, **pair), atol=1.1 / 32768)
    page.until(lambda: "times real time" in page.text("#say-note"))
    page.until(lambda: page.all("#say-picture img"))
    page.type("say-text", "")
    page.press("#say-button")
    assert "There is no text to read: give at least one word" in page.toast("text")


def test_an_uploaded_recording_is_compared_and_switched_in_place(page, models):
    page.press("button", "Copy synthesis")
    page.press("#copy-button")
    assert "There is no recording: choose, record or upload one" in page.toast("recording")
    page.only("default", "WaveNet", "Griffin-Lim")  # HiFi-GAN takes long
    page.upload("copy-recording", RECORDING)
    page.audio("copy-recording")
    page.press("#copy-button")
    made = page.results("copy")
    *_, state = compare(models, str(RECORDING), list(models.vocoders)[:1])
    titles = ("Recording", "MDCT flow", "MDCT flow", "WaveNet", "Griffin-Lim")
    assert all(name.startswith(title) for name, title in zip(made, titles, strict=True))
    samples, rate = made["MDCT flow (default)"]
    assert rate == models.page.sample_rate
    np.testing.assert_allclose(samples, state[1].samples, atol=1.1 / 32768)
    table = page.text("#copy-versions table")
    assert "STOI" in table
    # Another row goes on at the same position.
    first, second, *_ = page.all("#copy-versions audio")
    page.driver.execute_script("arguments[0].currentTime = 0.5; arguments[0].play()", first)
    page.until(lambda: first.get_property("currentTime") > 0.5)
    page.all("#copy-versions input")[1].click()
    assert page.until(lambda: second.get_property("currentTime")) > 0.5
    assert first.get_property("paused")
    assert (first.is_displayed(), second.is_displayed()) == (False, True)


def test_the_microphone_is_heard(page):
    page.press("button", "Copy synthesis")
    page.only("default)", "Griffin-Lim")
    page.press("#copy-recording [aria-label='Record audio']")
    page.press("#copy-recording .record-button")
    time.sleep(2.5)
    page.press("#copy-recording .stop-button")
    page.audio("copy-recording")
    page.press("#copy-button")
    made = page.results("copy")
    assert len(made) == 3
    assert all(len(x) > rate and x.std() > 1e-3 for x, rate in made.values())


def test_a_file_that_is_not_audio_is_refused_in_the_page(page, tmp_path):
    page.errors_expected = True  # the browser's player complains of the file, too
    page.press("button", "Copy synthesis")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"this is no sound" * 100)
    page.upload("copy-recording", broken)
    page.audio("copy-recording")
    page.press("#copy-button")
    message = page.toast("broken.wav")
    assert "broken.wav is not audio that can be read" in message
    assert "/" not in message  # no folder of the server


def test_the_page_fits_a_phone(page):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.audio("say-audio")
        for selector in ("#say-button", "#say-audio"):
            box = page.all(selector)[0].rect
            assert box["y"] + box["height"] <= 844  # on the first screen
        for title in ("Text to speech", "Copy synthesis"):
            page.press("button", title)
            assert page.all("html")[0].get_property("scrollWidth") == 390, title
        page.only("default)", "Griffin-Lim")
        page.upload("copy-recording", RECORDING)
        page.audio("copy-recording")
        page.press("#copy-button")
        page.results("copy")
        table = page.all("#copy-versions table")[0].rect
        assert table["x"] + table["width"] <= 390  # no column is cut off
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
