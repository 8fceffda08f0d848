"""Tacotron 2 as the acoustic model: downloaded, random weights, and what it refuses."""

import functools
import http.server
import threading

import pytest
import torch
from torchaudio.pipelines import TACOTRON2_GRIFFINLIM_CHAR_LJSPEECH as PIPELINE
from torchaudio.pipelines._tts import impl

import vocoder
from tests.conftest import command
from vocoder.checkpoints import CheckpointError
from vocoder.pretrained import load_text_to_mel
from vocoder.text.speech import sentences, speak


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A local server with weights of the published shapes, and torch.hub's empty folder.

    The weights are random; those of the gate end a mel after one frame.
    """
    folder = tmp_path_factory.mktemp("tacotron2")
    path = folder / "served" / PIPELINE._tacotron2_path
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    network = impl.Tacotron2(**PIPELINE._tacotron2_params)
    torch.nn.init.constant_(network.decoder.gate_layer.bias, 100.0)
    torch.save(network.state_dict(), path)
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(folder / "served")
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TORCH_HOME", str(folder / "home"))
            patch.setattr(impl, "_BASE_URL", f"http://127.0.0.1:{server.server_port}")
            yield server
        server.shutdown()


def test_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(impl, "_BASE_URL", "http://127.0.0.1:9")
    result = command("say", "Hello.", "-o", tmp_path / "a.wav", "--acoustic", "tacotron2")
    assert result.exit_code == 2
    assert "the weights of Tacotron 2 cannot be had" in result.stderr
    assert not list(tmp_path.rglob("*.*"))  # neither audio nor half a file of weights
    (tmp_path / "hub/checkpoints").mkdir(parents=True, exist_ok=True)
    name = PIPELINE._tacotron2_path.rpartition("/")[2]
    (tmp_path / "hub/checkpoints" / name).write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"after deleting what is left of them in \S+hub"):
        load_text_to_mel("tacotron2")


def test_it_speaks_with_downloaded_weights(served, tmp_path):
    words = ["say", "Hello.", "-o", tmp_path / "a.wav", "--acoustic", "tacotron2", "--refine", "0"]
    result = command(*words)
    assert result.exit_code == 0, result.stderr
    audio, rate = vocoder.read_audio(tmp_path / "a.wav")
    assert rate == 22050
    assert len(audio)


@pytest.fixture(scope="module")
def short(served):
    """Tacotron 2 whose mels have twelve frames."""
    model = load_text_to_mel("tacotron2")
    torch.nn.init.constant_(model.network.decoder.gate_layer.bias, -100.0)
    model.network.decoder.decoder_max_step = 12
    return model


@pytest.mark.filterwarnings("ignore:Reached max decoder steps")
def test_a_mel_depends_on_the_letters_alone(short):
    mel = short.synthesize("hello")
    assert mel.shape == (80, 12)
    torch.rand(5)
    torch.testing.assert_close(short.synthesize(list("hello")), mel, rtol=0, atol=0)
    assert not torch.equal(short.synthesize("hollow"), mel)
    with pytest.raises(ValueError, match="no letters"):
        short.synthesize("")


def test_figures_are_written_out(short, monkeypatch):
    read = []
    monkeypatch.setattr(short, "synthesize", lambda text, *_: read.append("".join(text)) or mel)
    mel = torch.full((80, 12), -5.0)
    list(speak(sentences("It is 7 p.m."), short, vocoder.load(), refine=0))
    assert "seven" in read[0]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"voice": "heart"}, "no voice 'heart'"),
        ({"speaking_rate": 2.0}, "no control of rate and pitch"),
        ({"pitch": 1.0}, "no control of rate and pitch"),
        ({"words": []}, "no timestamps"),
    ],
)
def test_what_it_cannot_do_is_refused(short, how, message):
    with pytest.raises(ValueError, match=message):
        list(speak(sentences("Hello."), short, vocoder.load(), **how))


def test_phonemes_are_refused(served, tmp_path):
    words = ["say", "--phonemes", "h ə", "-o", tmp_path / "a.wav", "--acoustic", "tacotron2"]
    result = command(*words)
    assert result.exit_code == 2
    assert "tacotron2 reads letters: leave out --phonemes" in result.stderr
