"""The restoring flow: exact density, what it leaves alone, checkpoints."""

import json
import runpy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import ROOT, perturb
from vocoder.audio import LogMel, MelSpec, read_audio
from vocoder.checkpoints import CheckpointError
from vocoder.corpus import CorpusError
from vocoder.models.restoration import Restoration, load_checkpoint
from vocoder.training.recipe import main
from vocoder.training.restoration import RestorationData, RestorationRecipe, degrade, in_a_room

SAMPLE = ROOT / "recipes/ljspeech/sample"
SPEC = replace(MelSpec.preset("ljspeech"), n_mels=6)
SMALL = {"channels": 8, "n_blocks": 2, "kernel_size": 3, "n_flows": 2, "coupling_channels": 8}


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Restoration(SPEC, **SMALL)
    perturb(model, 0.1)
    return model.eval()


def mels(frames, seed=1, batch=1):
    generator = torch.Generator().manual_seed(seed)
    return 1.2 * torch.randn(batch, 6, frames, generator=generator) - 5


def test_density_is_that_of_the_jacobian(model):
    x, y = mels(6), mels(6, seed=2)
    h, mean = model.read(y)

    def latents(flat):
        residual = flat.reshape(1, 6, 6) - mean
        z, _ = model.flow(model.squeeze(residual)[0], h)
        return z.flatten()

    jacobian = torch.autograd.functional.jacobian(latents, x.flatten())
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(latents(x.flatten())).sum()
    expected = standard + torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(model.log_prob(x, y)[0], expected, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_the_inverse_undoes_and_items_do_not_mix(model):
    x, y = mels(20, batch=3), mels(20, seed=2, batch=3)
    h, mean = model.read(y)
    residual = model.squeeze(x - mean)[0]
    z, _ = model.flow(residual, h)
    torch.testing.assert_close(model.flow.inverse(z, h), residual, rtol=0, atol=1e-3)
    alone = torch.cat([model.log_prob(x[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model.log_prob(x, y), alone, rtol=1e-5, atol=1e-2)


def test_a_new_flow_leaves_mels_as_they_are():
    model = Restoration(SPEC, **SMALL).eval()
    y = mels(21)
    torch.testing.assert_close(model.restore(y), y)
    assert model.restore(y[0]).shape == (6, 21)


def test_strength_is_the_share_of_the_change(model):
    y = mels(40)
    full = model.read(y)[1].detach().clamp_min(SPEC.log_floor)
    torch.testing.assert_close(model.restore(y), full, rtol=0, atol=1e-5)
    half = model.restore(y, strength=0.5)
    torch.testing.assert_close(half, ((full + y) / 2), rtol=0, atol=1e-4)
    assert torch.equal(model.restore(y, strength=0.0), y)


def test_noise_is_seeded_and_scaled(model):
    y = mels(30)
    one, again, other = (model.restore(y, 0.8, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    little = [model.restore(y, 1e-3, seed) for seed in (1, 2)]
    assert (little[0] - little[1]).abs().max() < 0.01 * (one - other).abs().max()
    with pytest.raises(ValueError, match="temperature"):
        model.restore(y, -1.0)


def test_a_frame_depends_on_its_context_alone(model):
    y = mels(160)
    changed = y.clone()
    changed[..., 120:] = 0
    reach = 120 - model.context_frames
    before, after = model.restore(y), model.restore(changed)
    assert torch.equal(before[..., :reach], after[..., :reach])
    assert not torch.equal(before[..., reach:120], after[..., reach:120])


def test_checkpoint_round_trip(model, tmp_path):
    y = mels(20)
    model.save(tmp_path / "m")
    loaded = load_checkpoint(tmp_path / "m")
    assert torch.equal(loaded.restore(y, 0.5), model.restore(y, 0.5))
    torch.testing.assert_close(loaded.fused().restore(y, 0.5), model.restore(y, 0.5))
    (tmp_path / "none").mkdir()
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "none")


def test_streams_equal_one_pass(model):
    y = mels(301)[0]
    for temperature in (0.0, 0.7):
        whole = model.restore(y, temperature, 3)
        sizes = [1, 2, 90, 37, 100, 71]
        parts = model.stream(enumerate(y.split(sizes, dim=1)), temperature, 3)
        tags, pieces = zip(*parts, strict=True)
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-4)
        assert list(tags) == sorted(tags)
        first = sum(sizes[: tags[0] + 1])
        assert pieces[0].shape[1] >= first - model.look_ahead
    assert list(model.stream([])) == []


def test_vocoders_restore_by_default_in_all_doors(model, tiny_flow, tmp_path):
    flow = tiny_flow(SPEC)
    y = mels(50)[0]
    before = flow.synthesize(y)
    with pytest.raises(ValueError, match="has no restoring flow"):
        flow.synthesize(y, restore=1.0)
    state = set(flow.state_dict())
    flow.restored_by(model)
    assert set(flow.state_dict()) == state
    assert torch.equal(flow.synthesize(y, restore=0), before)
    restored = flow.synthesize(y)
    expected = flow.synthesize(model.restore(y), restore=0)
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(restored, before, atol=1e-3)
    streamed = torch.cat(list(flow.stream(y.split(13, dim=1))))
    torch.testing.assert_close(streamed, restored, rtol=0, atol=1e-4)
    assert flow.look_ahead() == flow.look_ahead(restore=0) + model.look_ahead
    batch = torch.stack([y, mels(50, seed=5)[0]])
    torch.testing.assert_close(flow.synthesize(batch)[0], restored, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"restore is 2\.0"):
        flow.synthesize(y, restore=2.0)
    with pytest.raises(ValueError, match="is for mels of"):
        tiny_flow("speech-16k").restored_by(model)
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from vocoder.export import OnnxVocoder, export_onnx

    graph = OnnxVocoder(export_onnx(flow, tmp_path / "flow.onnx"))
    for frames in (49, 50):
        torch.testing.assert_close(
            torch.from_numpy(graph.synthesize(y[:, :frames].numpy())),
            flow.synthesize(y[:, :frames]), rtol=0, atol=1e-3,
        )  # fmt: skip


def test_degraded_mels_are_near_and_a_third_is_clean():
    y = mels(60, batch=300)
    generator = torch.Generator().manual_seed(0)
    error = (degrade(y, generator) - y).abs().mean(dim=(1, 2))
    assert 0.25 < float((error == 0).float().mean()) < 0.45
    assert 0.05 < float(error[error > 0].median()) < 1.5


def test_rooms_add_tails_and_noise():
    audio = torch.zeros(200, 4096)
    audio[:, 100] = 1.0
    heard = in_a_room(audio, 16000, torch.Generator().manual_seed(0))
    assert 0.15 < float((heard == audio).all(dim=1).float().mean()) < 0.35
    assert bool(heard.isfinite().all())
    before, after = heard[:, :90].abs().amax(dim=1), heard[:, 110:].abs().amax(dim=1)
    assert float((before > 1e-4).float().mean()) > 0.3  # noise
    assert float(((before < 1e-5) & (after > 1e-3)).float().mean()) > 0.1  # a tail without noise


@pytest.mark.filterwarnings("ignore")
def test_the_recipe_trains_and_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = ROOT / "recipes"
    recipe = RestorationRecipe(
        "", root / "restoration/config/restoration.yaml", root / "ljspeech/sample"
    )
    words = [
        "--data", "sample", "--run", "r", "--model.mel_spec", "speech-16k", "--model.channels",
        "8", "--model.n_blocks", "1", "--model.n_flows", "1", "--model.coupling_channels", "8",
        "--speech.batch_size", "2", "--speech.validation_utterances", "2", "--trainer.accelerator",
        "cpu", "--trainer.val_check_interval", "2",
    ]  # fmt: skip
    for steps in ("2", "4"):
        assert main(recipe, [*words, "--max_steps", steps]) == 0
    rows = [json.loads(line) for line in (tmp_path / "r/history.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 4
    assert rows[-1]["val/log_likelihood"] > rows[0]["val/log_likelihood"]
    assert "nats per mel element" in (tmp_path / "r/report.md").read_text()
    restored = load_checkpoint(tmp_path / "r/model").restore(torch.full((80, 20), -5.0))
    assert restored.shape == (80, 20)


def made_data(folder, **options):
    return RestorationData(MelSpec.preset("speech-16k"), SAMPLE, folder / "cache", **options)


def test_made_mels_are_in_time_with_their_crops(tmp_path):
    spec, folder = MelSpec.preset("speech-16k"), tmp_path / "made"
    folder.mkdir()
    log_mel = LogMel(spec)
    for path in sorted((SAMPLE / "wavs").iterdir()):
        np.save(folder / f"{path.stem}.npy", log_mel(read_audio(path, 16000)[0]).numpy())
    data = made_data(tmp_path, crop_frames=40, mels=(str(folder),), made=0.5)
    data.setup()
    items = data.training_set(1)
    found = 0
    for item in (items[n] for n in range(40)):
        kept = np.isfinite(item["made"]).all(axis=0)
        mel = log_mel(torch.from_numpy(item["clean"])).numpy()
        np.testing.assert_allclose(item["made"][:, kept], mel[:, kept], atol=0.02)
        found += kept.sum() >= 30
    assert 10 <= found <= 30


def test_made_mels_that_do_not_fit_are_named(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    with pytest.raises(CorpusError, match="holds no mel of an utterance"):
        made_data(tmp_path, mels=(str(folder),)).setup()
    for path in (SAMPLE / "wavs").iterdir():
        np.save(folder / f"{path.stem}.npy", np.zeros((40, 100), dtype=np.float32))
    with pytest.raises(CorpusError, match=r"the shape \(40, 100\)"):
        made_data(tmp_path, mels=(str(folder),)).setup()


@pytest.mark.filterwarnings("ignore")
def test_mels_are_made_by_a_vocoder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = ROOT / "recipes/restoration/make_mels.py"
    words = ["--data", str(SAMPLE), "--vocoder", "griffin-lim", "--limit", "2", "--output", "made"]
    monkeypatch.setattr("sys.argv", [str(script), *words])
    runpy.run_path(str(script), run_name="__main__")
    made = [np.load(path) for path in sorted((tmp_path / "made").glob("*.npy"))]
    assert len(made) == 2
    recorded = sorted((SAMPLE / "wavs").iterdir())[0]
    true = LogMel(MelSpec.preset("ljspeech"))(read_audio(recorded, 22050)[0]).numpy()
    frames = min(true.shape[1], made[0].shape[1])
    error = np.abs(made[0][:, :frames] - true[:, :frames]).mean()
    assert 0.01 < error < 0.5
