"""Weights of the published WaveGlow give the published numbers, whatever form they come in."""

import json
import math
import pickle
import re
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import vocoder
from vocoder import CheckpointError, load_published_waveglow
from vocoder.flows import AffineCoupling, InvertibleConv1x1

REFERENCE = Path(__file__).parent / "data" / "waveglow_parity_small.safetensors"


@pytest.fixture(scope="module")
def reference():
    return load_file(REFERENCE)


@pytest.fixture(scope="module")
def config():
    with safetensors.safe_open(REFERENCE, "pt") as file:
        return json.loads(file.metadata()["config"])


@pytest.fixture(scope="module")
def weights(reference):
    return {k.removeprefix("weights."): v for k, v in reference.items() if k.startswith("weights.")}


def close(ours, theirs):
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() < 1e-4)


def test_numbers_of_the_published_implementation(reference, config):
    model = load_published_waveglow(REFERENCE)
    log_dets = []
    for module in model.modules():
        if isinstance(module, AffineCoupling | InvertibleConv1x1):
            module.register_forward_hook(lambda _m, _i, out: log_dets.append(out[1]))
    with torch.no_grad():
        z, log_det = model(reference["audio"], reference["mel"])
    assert close(z, reference["z"])
    # Steps alternate 1x1 convolution, coupling; each early output's rest is within the step before.
    order = [m for m in model.modules() if isinstance(m, AffineCoupling | InvertibleConv1x1)]
    assert len(order) == len(log_dets) == 2 * config["n_flows"]
    couplings, mixings = log_dets[1::2], log_dets[0::2]
    assert close(torch.stack(couplings), reference["sum_log_s"])
    # The published figure is batch * time * log|det W|.
    assert close(torch.stack(mixings).sum(dim=1), reference["log_det_W"])
    assert close(log_det, reference["sum_log_s"].sum(dim=0) + torch.stack(mixings).sum(dim=0))

    with torch.no_grad():
        loss = -model.log_prob(reference["audio"], reference["mel"]).sum()
    # The published loss leaves out the normal density's constant.
    per_sample = loss / reference["audio"].numel() - 0.5 * math.log(2 * math.pi)
    assert close(per_sample.reshape(1), reference["loss"])

    with torch.no_grad():
        zero = model.inverse(torch.zeros_like(z), reference["mel"])
        drawn = reference["infer_latents"]
        early, channels = config["n_early_size"], config["n_group"]
        last = channels - early * ((config["n_flows"] - 1) // config["n_early_every"])
        # Drawn last channels first, then the early outputs from the deepest; ours: early first.
        parts = [drawn[:, :last], *drawn[:, last:].split(early, dim=1)]
        latents = torch.cat(parts[::-1], dim=1)
        audio = model.inverse(latents, reference["mel"])
    assert close(zero, reference["infer_zero"])
    assert close(audio, reference["infer"])


def fused(weights):
    """Weight norm taken out by torch itself."""
    result = {k: v for k, v in weights.items() if not k.endswith(("weight_g", "weight_v"))}
    for stem in (name.removesuffix("_v") for name in weights if name.endswith("weight_v")):
        result[stem] = torch._weight_norm(weights[stem + "_v"], weights[stem + "_g"], 0)
    return result


def new_style(weights):
    """The names that torch's present weight_norm gives."""
    present = "parametrizations.weight.original"
    names = ((n.replace("weight_g", f"{present}0"), n) for n in weights)
    return {new.replace("weight_v", f"{present}1"): weights[old] for new, old in names}


FORMS = {
    "plain": lambda w: w,
    "fused": fused,
    "new weight norm": new_style,
    "module prefix": lambda w: {f"module.{k}": v for k, v in w.items()},
    "in state_dict": lambda w: {"state_dict": w, "epoch": 3},
    "in model, prefixed": lambda w: {"model": {f"module.{k}": v for k, v in fused(w).items()}},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["dict", "pt", "safetensors"])
def test_every_form_gives_the_same_audio(form, where, weights, reference, tmp_path):
    content = FORMS[form](weights)
    source = content if where == "dict" else tmp_path / f"waveglow.{where}"
    if where == "pt":
        torch.save(content, source)
    elif where == "safetensors":
        if not all(isinstance(value, Tensor) for value in content.values()):
            pytest.skip("safetensors files hold no nested dicts")
        save_file(content, source)
    model = load_published_waveglow(source)
    with torch.no_grad():
        zero = model.inverse(torch.zeros_like(reference["z"]), reference["mel"])
    assert close(zero, reference["infer_zero"])


def test_config_is_read_and_checked(weights, config, tmp_path):
    data = {"sampling_rate": 24000, "mel_fmax": 7600.0, "segment_length": 16000}
    whole = {"waveglow_config": config, "data_config": data}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(whole))
    for given in (whole, path, str(path)):
        model = load_published_waveglow(weights, given)
        assert model.sample_rate == 24000
        assert model.mel_spec.fmax == 7600
        assert model.mel_spec.center
    assert load_published_waveglow(weights, config).sample_rate == 22050
    with pytest.raises(CheckpointError, match="n_flows = 12 and the tensors say 4"):
        load_published_waveglow(weights, {**config, "n_flows": 12})
    with pytest.raises(CheckpointError, match=r"missing\.json is not readable"):
        load_published_waveglow(weights, tmp_path / "missing.json")


class Payload:
    """What a hostile file would hold: unpickling it runs code."""

    ran = False

    def __reduce__(self):
        return (_run, ())


def _run():
    Payload.ran = True
    return 1


def test_a_pickled_module_is_refused_and_nothing_runs(tmp_path):
    path = tmp_path / "waveglow_256channels.pt"
    torch.save({"model": Payload()}, path)
    with pytest.raises(CheckpointError, match=re.escape("torch.save({'state_dict'")):
        load_published_waveglow(path)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match="pickled"):
        vocoder.load(path)
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(CheckpointError, match="a pickled module could run code"):
        load_published_waveglow(path)
    assert not Payload.ran


def test_other_files_and_dicts_are_refused(weights, tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt cannot be read: .*No such file"):
        load_published_waveglow(tmp_path / "none.pt")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="not a readable file of tensors"):
        load_published_waveglow(tmp_path / "text.safetensors")
    for wrong, words in (
        ({"layer.weight": torch.zeros(2)}, "not the weights of a WaveGlow"),
        ({k: v for k, v in weights.items() if k != "WN.1.end.bias"}, "Missing"),
        ({**weights, "WN.1.extra.bias": torch.zeros(2)}, "Unexpected"),
        ({k: v for k, v in weights.items() if k != "WN.0.start.weight_v"}, "weight_v is not"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load_published_waveglow(wrong)
