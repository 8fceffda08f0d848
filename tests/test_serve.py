"""`vocoder serve` as a process of its own: answers, errors, its queue, and clients that go away."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import vocoder
from tests.conftest import ROOT, command
from vocoder.audio import to_pcm16

httpx = pytest.importorskip("httpx", reason="the extra demo is not installed")
pytest.importorskip("fastapi", reason="the extra serve is not installed")

LONG = "The rain fell on and on, and nobody came. " * 90


@pytest.fixture(scope="module")
def flow(tiny_flow):
    return tiny_flow()


@pytest.fixture(scope="module")
def acoustic(tiny_acoustic):
    return tiny_acoustic()


@pytest.fixture(scope="module")
def process(flow, acoustic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    flow.save(folder / "tiny")
    acoustic.save(folder / "voice")
    words = ["--checkpoint", "tiny", "--acoustic", "voice", "--port", "0", "--queue", "1"]
    started = subprocess.Popen(
        [sys.executable, "-m", "vocoder", "serve", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield started
    started.kill()
    started.communicate()


@pytest.fixture(scope="module")
def client(process):
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    with httpx.Client(base_url=address, timeout=120, trust_env=False) as client:
        yield client


def waiting_ends(client):
    """What /health says once nobody waits."""
    for _ in range(200):
        health = client.get("/health").json()
        if health["queue"]["running"] == 0:
            return health
        time.sleep(0.1)
    raise AssertionError(health)


def test_text_to_speech_in_every_format(client, flow, acoustic):
    text = "It was late. Nobody came."
    expected = vocoder.say(text, acoustic=acoustic, vocoder=flow)
    for form in ("wav", "flac", "mp3", "opus", "pcm"):
        body = {"model": "tiny", "input": text, "response_format": form}
        answer = client.post("/v1/audio/speech", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("audio/")
        if form == "pcm":
            assert len(answer.content) == pytest.approx(2 * len(expected) * 24000 / 16000, abs=4)
            continue
        audio, _ = vocoder.read_audio(io.BytesIO(answer.content), flow.sample_rate)
        assert len(audio) == pytest.approx(len(expected), abs=0 if form != "mp3" else 2000)
        if form in ("wav", "flac"):
            np.testing.assert_array_equal(to_pcm16(audio.numpy()), to_pcm16(expected))
    fast = client.post(
        "/v1/audio/speech", json={"input": text, "speed": 2, "response_format": "pcm"}
    )
    assert len(fast.content) < 0.7 * len(answer.content)


def test_a_mel_becomes_the_audio_of_synthesize(client, flow):
    mel = np.random.default_rng(0).normal(-5, 1, (80, 3000)).astype("f")
    file = io.BytesIO()
    np.save(file, mel)
    how = {"refine": 2, "seed": 7, "temperature": 0.5}
    answer = client.post("/synthesize", params=how, content=file.getvalue())
    audio, _ = vocoder.read_audio(io.BytesIO(answer.content))
    expected = flow.synthesize(mel, 0.5, 7, refine=2)
    np.testing.assert_allclose(audio.numpy(), expected, atol=2 / 32768)


SPEECH_ERRORS = {
    '{"input": ""}': "input: ",
    "{}": "input: ",
    "{": "JSON",
    '{"input": "* * *"}': "at least one word",
    '{"input": "дом"}': "Cyrillic",
    '{"input": "Hi.", "voice": "eve"}': "no voice 'eve'",
    '{"input": "Hi.", "model": "tts-1"}': "no model 'tts-1'",
    '{"input": "Hi.", "response_format": "aac"}': "response_format: ",
    '{"input": "Hi.", "speed": 9}': "speed: ",
    json.dumps({"input": "a " * 2100}): "4096",
}


@pytest.mark.parametrize("body", SPEECH_ERRORS)
def test_bad_requests_get_one_sentence(client, body):
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/audio/speech", content=body.encode(), headers=headers)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert SPEECH_ERRORS[body] in error["message"]
    assert "\n" not in error["message"]


def test_bad_mels_and_addresses_are_refused(client):
    good, batch, bad, whole = (io.BytesIO() for _ in range(4))
    np.save(good, np.full((80, 9), -5, "f"))
    np.save(batch, np.full((2, 80, 9), -5, "f"))
    np.save(bad, np.full((70, 9), -5, "f"))
    np.save(whole, np.full((80, 9), -5))
    for file, query, words in (
        (io.BytesIO(b"RIFF"), {}, "not a readable .npy"),
        (batch, {}, "2 mels"),
        (whole, {}, "holds int64 numbers: save floating-point numbers"),
        (bad, {}, "80"),
        (good, {"refine": "none"}, "refine"),
        (good, {"temperature": -1}, "temperature"),
        (good, {"seed": "x"}, "seed"),
    ):
        answer = client.post("/synthesize", params=query, content=file.getvalue())
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]
    assert client.get("/nothing").json()["error"]["message"] == "Not Found"
    large = client.post("/synthesize", content=(bytes(1 << 20) for _ in range(65)))
    assert large.status_code == 413


def test_a_full_queue_refuses_and_a_killed_client_frees_its_turn(client):
    body = json.dumps({"input": LONG, "response_format": "wav"}).encode()
    request = (
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    waiting_ends(client)
    place = client.base_url.host, client.base_url.port
    sockets = [socket.create_connection(place) for _ in range(2)]
    for one in sockets:
        one.sendall(request)
        assert one.recv(12) == b"HTTP/1.1 200"
    refused = client.post("/v1/audio/speech", json={"input": "Hi."})
    assert refused.status_code == 503
    assert refused.headers["retry-after"].isdecimal()
    assert "waiting" in refused.json()["error"]["message"]
    for one in sockets:
        one.close()
    assert waiting_ends(client)["queue"]["waiting"] == 0
    assert client.post("/v1/audio/speech", json={"input": "Hi."}).status_code == 200


def test_a_taken_port_is_named(client):
    result = command("serve", "--port", client.base_url.port)
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1, port {client.base_url.port}" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_it_stops_while_it_answers(process, client):
    with client.stream("POST", "/v1/audio/speech", json={"input": LONG}) as answer:
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    with pytest.raises(httpx.ConnectError):
        client.get("/health")
