"""Models by name from the Hugging Face Hub, whose client is told what to find."""

import shutil
import sys

import pytest
import torch

import vocoder
from vocoder.hub import HubError, download

huggingface_hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Folders by (repository, revision), of which the client copies what it is asked for."""
    folders = {}

    def snapshot_download(repository, revision, allow_patterns):
        if (repository, revision) not in folders:
            raise errors.LocalEntryNotFoundError(f"no {repository}\nat {revision}: offline?")
        copy = tmp_path / "cache" / repository / str(revision)
        copy.mkdir(parents=True, exist_ok=True)
        for path in folders[repository, revision].iterdir():
            if path.name in allow_patterns:
                shutil.copy(path, copy)
        return str(copy)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return folders


@pytest.fixture
def model(tiny_flow):
    return tiny_flow()


def test_a_model_is_downloaded_by_name_and_revision(hub, model, tiny_flow, tiny_acoustic, tmp_path):
    hub["someone/voice", None] = model.save(tmp_path / "model")
    hub["someone/voice", "v1"] = tiny_flow(n_flows=2).save(tmp_path / "old")
    (tmp_path / "model/pytorch_model.bin").write_bytes(b"a pickle")
    mel = torch.full((80, 9), -5.0)
    loaded = vocoder.load("hf:someone/voice")
    assert (loaded.synthesize(mel) - model.synthesize(mel)).abs().max() < 1e-5
    names = sorted(path.name for path in download("hf:someone/voice").iterdir())
    assert names == ["config.json", "model.safetensors"]
    assert vocoder.load("hf:someone/voice@v1").config["n_flows"] == 2
    hub["someone/reader", None] = tiny_acoustic().save(tmp_path / "acoustic")
    assert vocoder.load_acoustic("hf:someone/reader").voices == ("speaker",)


def test_what_cannot_be_had_is_said_in_a_sentence(hub, tmp_path):
    hub["someone/empty", None] = tmp_path
    cases = {
        "hf:someone/none": r"could not be had from the Hub: no someone/none at None: offline\?",
        "hf:someone/empty": r"has no config.json, so it is not a model of flow-vocoder",
        "hf:someone": r"does not name a model on the Hub: give hf:owner/name",
    }
    for name, words in cases.items():
        with pytest.raises(HubError, match=words) as caught:
            vocoder.load(name)
        assert "\n" not in str(caught.value)


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
