"""Models by name from a hub: a server on this machine that speaks the hub's protocol."""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest
import torch

import vocoder
from vocoder.hub import HubError, download

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")

COMMIT, OLDER = "a" * 40, "b" * 40


class Hub(BaseHTTPRequestHandler):
    """Answers for repositories of files, by name and revision."""

    repositories: ClassVar[dict[str, dict[str, tuple[str, dict[str, bytes]]]]] = {}
    """Name -> revision -> commit and files."""
    status: ClassVar[dict[str, int]] = {}
    """Repositories that are answered with an error."""
    requests: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    @classmethod
    def add(cls, name, folder, commit=COMMIT, *names):
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        for revision in (commit, *names):
            cls.repositories.setdefault(name, {})[revision] = commit, files

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.requests.append(f"{self.command} {path}")
        words = path.removeprefix("/api/models").strip("/").split("/")
        name, rest = "/".join(words[:2]), words[2:]
        status, content, headers = self.status.get(name, 404), b"{}", {}
        revisions = self.repositories.get(name)
        if name in self.status or revisions is None:
            headers["X-Error-Code"] = {403: "GatedRepo", 404: "RepoNotFound"}.get(status, "")
        elif (revision := rest[1] if len(rest) > 1 else "main") not in revisions:
            headers["X-Error-Code"] = "RevisionNotFound"
        else:
            status, (commit, files) = 200, revisions[revision]
            oid = {file: hashlib.sha1(data).hexdigest() for file, data in files.items()}
            answer = {"id": name, "sha": commit, "siblings": [{"rfilename": f} for f in files]}
            if rest[:1] == ["tree"]:
                answer = [
                    {"type": "file", "path": file, "size": len(data), "oid": oid[file]}
                    for file, data in files.items()
                ]
            content = json.dumps(answer).encode()
            if rest[:1] == ["resolve"]:
                content = files[rest[2]]
                headers = {"ETag": f'"{oid[rest[2]]}"', "X-Repo-Commit": commit}
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for store in (Hub.repositories, Hub.status, Hub.requests):
        store.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    # What the environment variables of the same names set at import.
    for name, value in {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": False,
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(tiny_flow):
    return tiny_flow()


def test_a_model_is_downloaded_once_and_used_without_a_network(hub, model, tmp_path, monkeypatch):
    folder = model.save(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    hub.add("someone/voice", folder, COMMIT, "main")
    mel = torch.full((80, 9), -5.0)
    loaded = vocoder.load("hf:someone/voice")
    assert (loaded.synthesize(mel) - model.synthesize(mel)).abs().max() < 1e-5
    cached = download("hf:someone/voice")
    assert sorted(path.name for path in cached.iterdir()) == ["config.json", "model.safetensors"]
    got = [request for request in hub.requests if request.startswith("GET /someone/voice/resolve")]
    assert len(got) == 2
    for offline in (True, False):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        assert download("hf:someone/voice") == cached
        assert download(f"hf:someone/voice@{COMMIT}") == cached


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, tiny_flow, tiny_acoustic, tmp_path):
    hub.add("someone/voice", tiny_flow(n_flows=1).save(tmp_path / "old"), OLDER, "v1")
    hub.add("someone/voice", tiny_flow(n_flows=2).save(tmp_path / "new"), COMMIT, "main")
    for name, flows in (("", 2), ("@v1", 1), ("@main", 2), (f"@{OLDER}", 1)):
        assert vocoder.load(f"hf:someone/voice{name}").config["n_flows"] == flows
    with pytest.raises(HubError, match="v2"):
        vocoder.load("hf:someone/voice@v2")
    hub.add("someone/reader", tiny_acoustic().save(tmp_path / "model"), COMMIT, "main")
    assert vocoder.load_acoustic("hf:someone/reader").voices == ("speaker",)


def test_what_cannot_be_had_is_said_in_a_sentence(hub, model, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/README.md").write_text("Nothing here.")
    hub.add("someone/empty", tmp_path / "empty", COMMIT, "main")
    folder = model.save(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    hub.add("someone/pickled", folder, COMMIT, "main")
    hub.status |= {"someone/secret": 401, "someone/gated": 403, "someone/broken": 500}
    cases = {
        "hf:someone/none": "Repository Not Found",
        "hf:someone/secret": "401",
        "hf:someone/gated": "403",
        "hf:someone/broken": "500|cannot find",
        "hf:someone/empty": "has no config.json, so it is not a model of flow-vocoder",
        "hf:someone/pickled": "has no model.safetensors, so it is not a model of flow-vocoder",
        "hf:someone": "does not name a model on the Hub: give hf:owner/name",
        "hf:some..one/--": "some..one/--",
    }
    for name, words in cases.items():
        with pytest.raises(HubError, match=words) as caught:
            vocoder.load(name)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        HubError, match=r"hf:someone/none could not be had from the Hub: .*HF_HUB_OFFLINE"
    ):
        vocoder.load("hf:someone/none")


def test_the_extra_and_the_prefix_are_named_where_they_are_missing(monkeypatch):
    with pytest.raises(
        vocoder.CheckpointError, match=r"there is no checkpoint at owner/name.*hf:OWNER/NAME"
    ):
        vocoder.load("owner/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'hf:a/b needs .* pip install "flow-vocoder\[hub\]"'):
        vocoder.load("hf:a/b")


def test_a_saved_model_has_a_card_that_a_hub_shows(model, tiny_acoustic, tmp_path):
    tasks = {model: "audio-to-audio", tiny_acoustic(): "text-to-speech"}
    for number, (saved, task) in enumerate(tasks.items()):
        card = saved.save(tmp_path / str(number)) / "README.md"
        text = card.read_text(encoding="utf-8")
        metadata = huggingface_hub.ModelCard(text).data.to_dict()
        found = [metadata[key] for key in ("license", "library_name", "pipeline_tag")]
        assert found == ["other", "flow-vocoder", task]
        assert f"{saved.sample_rate:,} Hz" in text
        (code,) = [part.removeprefix("python\n") for part in text.split("```")[1::2]]
        compile(code, "card", "exec")
        card.write_text("mine", encoding="utf-8")
        saved.save(card.parent)
        assert card.read_text(encoding="utf-8") == "mine"
