"""The recipe of the acoustic model, on recorded speech with English text to go with it."""

import json
import runpy

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import ROOT
from tests.test_recipe_ljspeech import RECIPE, rows, train_here
from vocoder.audio import MelSpec, read_audio
from vocoder.corpus import CorpusError
from vocoder.text.acoustic import load_checkpoint
from vocoder.text.frontend import SYMBOLS
from vocoder.training.acoustic import COLUMNS, AcousticRecipe, Excerpts, Item, TextAndSpeech
from vocoder.training.recipe import CONFIGS, duration, parser

CONFIG = CONFIGS / "acoustic.yaml"
OF_ACOUSTIC = AcousticRecipe("", CONFIG, RECIPE / "sample")
SMALL = [
    "--model.mel_spec", "speech-16k", "--model.channels", "8", "--model.encoder_blocks", "1",
    "--model.prosody_blocks", "1", "--model.decoder_blocks", "1", "--speech.batch_size", "2",
    "--training.warmup_steps", "2", "--trainer.val_check_interval", "4",
    "--trainer.accelerator", "cpu", "--max_time", "1d",
]  # fmt: skip
SENTENCES = (
    "One sentence.", "Another one, please.", "And a third.", "Here is the fourth!", "Five?",
    "The sixth is a bit longer than the others.", "Seven or eight.", "Nine.", "That is all.",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Recorded speech of two "voices", with text that does not match, which is enough here."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "wavs").mkdir()
    recordings = sorted((RECIPE / "sample" / "wavs").iterdir())
    lines = []
    for index, text in enumerate(SENTENCES):
        voice = "ann" if index < 8 else "bob"
        audio, rate = read_audio(recordings[index])
        excerpt = audio[: int((1.5 + 0.1 * index) * rate)].numpy()
        soundfile.write(folder / "wavs" / f"{voice}-{index}.wav", excerpt, rate)
        lines.append(f"{voice}-{index}|{text}|{text}\n")
    # Two that cannot be used: no text that can be read, and a text too long for its sound.
    for id, text in (("ann-x", "привет"), ("ann-y", "Far too many words for this. " * 12)):
        soundfile.write(folder / "wavs" / f"{id}.wav", audio[:8000].numpy(), rate)
        lines.append(f"{id}|{text}|{text}\n")
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return folder


class WithoutReport(AcousticRecipe):
    """Leaves out what takes longest."""

    def report(self, *args):
        pass


def train(folder, corpus, run, *arguments, recipe=OF_ACOUSTIC):
    words = ["--data", str(corpus), "--speech.voices", '{"ann": "ann-"}', "--run", run, *SMALL]
    return train_here(folder, *words, *arguments, recipe=recipe, config=CONFIG)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpus):
    """A folder with a run of eight steps in one go, and one that was resumed in between."""
    folder = tmp_path_factory.mktemp("acoustic")
    assert train(folder, corpus, "whole", "--max_steps", "8") == 0
    for steps in ("4", "8"):
        quick = WithoutReport("", CONFIG, RECIPE / "sample")
        assert train(folder, corpus, "resumed", "--max_steps", steps, recipe=quick) == 0
    return folder


def test_shipped_config_builds_its_model(tmp_path):
    assert CONFIG.read_text().startswith("# ")
    options = parser(OF_ACOUSTIC)
    config = options.parse_args(["--config", str(CONFIG), "--data", str(tmp_path)])
    module, data = OF_ACOUSTIC.build(options.instantiate(config), config)
    assert module.model.symbols == SYMBOLS
    assert data.mel_spec == MelSpec.preset("ljspeech")
    parameters = sum(p.numel() for p in module.model.parameters())
    assert parameters < 7.5e6  # 15 MB in half precision
    assert duration(config.max_time)


def test_run_leaves_a_model_that_speaks_and_a_report(trained):
    run = trained / "whole"
    model = load_checkpoint(run / "model")
    saved = torch.load(run / "last.ckpt", weights_only=True)
    for name, value in model.state_dict().items():  # the averaged weights, not the last ones
        torch.testing.assert_close(value, saved["state_dict"][f"model.{name}"])
    points = rows(run)
    assert points[-1]["step"] == 8
    assert points[-1]["val/mel_distance"] < points[0]["val/mel_distance"]
    assert {f"val/{name}" for name in COLUMNS} <= points[0].keys()
    report = json.loads((run / "report.json").read_text())
    assert report["facts"]["steps"].startswith("8, of which 0 skipped")
    page = (run / "report.md").read_text()
    distances = [score["mel_distance"] for score in report["test"]]
    assert report["test_mean"]["mel_distance"] == pytest.approx(np.mean(distances))
    for score in report["test"]:
        assert score["utterance"] in page
        mel = np.load(run / "held-out" / f"{score['utterance']}.npy")
        assert mel.shape[0] == 80
        made, rate = soundfile.read(run / "held-out" / f"{score['utterance']}.griffin-lim.wav")
        assert rate == 16000
        assert len(made) == mel.shape[1] * 256
    assert "vocoder say" in page


def test_mels_are_made_by_an_acoustic_model(trained, corpus, tmp_path, monkeypatch):
    script = ROOT / "recipes/restoration/make_mels.py"
    words = ["--data", str(corpus), "--acoustic", str(trained / "whole/model")]
    places = ["--output", str(tmp_path / "made"), "--cache", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [str(script), *words, *places])
    runpy.run_path(str(script), run_name="__main__")
    made = {path.stem: np.load(path) for path in (tmp_path / "made").glob("*.npy")}
    assert {"ann-0", "ann-7", "bob-8"} <= made.keys()
    frames = -(-len(read_audio(corpus / "wavs/ann-0.wav", 16000)[0]) // 256)
    assert made["ann-0"].shape == (80, frames)


def speech(model, corpus, cache, **voices):
    data = TextAndSpeech(model.mel_spec, corpus, cache, voices=voices)
    data.setup()
    return data


def test_voices_are_chosen_and_the_unusable_left_out(corpus, tmp_path, caplog):
    options = parser(OF_ACOUSTIC)
    config = options.parse_args(["--config", str(CONFIG), "--data", "none", *SMALL])
    model = OF_ACOUSTIC.build(options.instantiate(config), config)[0].model
    data = speech(model, corpus, tmp_path, ann="ann-")
    ids = [*data.split.train, *data.split.validation, *data.split.test]
    assert set(ids) == {f"ann-{index}" for index in range(8)} | {"ann-y"}
    assert "ann-x" in caplog.text
    items = data.items(ids, model)
    assert set(items) == {f"ann-{index}" for index in range(8)}
    assert "ann-y is left out" in caplog.text
    for id, item in items.items():
        assert int(item.durations.sum()) == data.mels[id].shape[1] == len(item.place)
    both = speech(model, corpus, tmp_path, ann="ann-", bob="bob-")
    assert both.items(["ann-1", "bob-8"], model)["bob-8"].voice == 1
    with pytest.raises(CorpusError, match=r"no utterance .* begins with 'eve-' \(voice eve\)"):
        speech(model, corpus, tmp_path, eve="eve-")


def test_draws_see_every_utterance_once_an_epoch():
    excerpts = Excerpts([Item(*[torch.tensor([n])] * 7) for n in range(50)], 160, seed=3)
    draws = [int(excerpts[n].symbols) for n in range(150)]
    epochs = [draws[first : first + 50] for first in (0, 50, 100)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_finetuned_voice_starts_from_the_bands_of_its_start(trained, corpus, tmp_path):
    start = trained / "whole" / "model"
    quick = WithoutReport("", CONFIG, RECIPE / "sample")
    words = ["--start_from", str(start), "--max_steps", "1", "--speech.voices", '{"bob": "ann-"}']
    assert train(tmp_path, corpus, "tuned", *words, recipe=quick) == 0
    tuned, before = load_checkpoint(tmp_path / "tuned" / "model"), load_checkpoint(start)
    assert tuned.voices == ("bob",)
    assert torch.equal(tuned.mel_mean, before.mel_mean)
    assert (tuned.embedding.weight - before.embedding.weight).abs().max() < 0.01


def test_a_resumed_run_sees_what_an_unbroken_one_would(trained):
    whole, resumed = (
        torch.load(trained / name / "last.ckpt", weights_only=True)["vocoder_training"]
        for name in ("whole", "resumed")
    )
    assert whole == resumed
    assert whole["items_seen"] == 16
    steps = [row["step"] for row in rows(trained / "resumed")]
    assert steps[0] == 0
    assert steps[-1] == 8
