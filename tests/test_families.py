"""The study of architectures: its toys, its document, and claims measured anew, small."""

import itertools
import json
import math
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import ROOT, scripts
from vocoder.audio import read_audio

FOLDER = ROOT / "recipes" / "families"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def families():
    with scripts("recipes/families") as script:
        yield SimpleNamespace(**{name: script(name) for name in MODULES})


@pytest.fixture
def excerpts():
    """Six stretches of speech of two seconds, at 16 kHz."""
    wavs = ROOT / "recipes/ljspeech/sample/wavs"
    sounds = [read_audio(wavs / f"ru_{name}.flac", 16000)[0] for name in ("0209", "0502", "0813")]
    return [sound[start : start + 32000] for sound in sounds for start in (8000, 40000)]


def finite(values):
    if isinstance(values, dict | list):
        return all(map(finite, values.values() if isinstance(values, dict) else values))
    return math.isfinite(values)


def measured(families, claim, *arguments):
    """The figures of a claim; the picture must be one, and the text find all its figures."""
    with torch.random.fork_rng(), torch.no_grad():
        module = getattr(families, families.study.CLAIMS[claim])
        figures, picture = getattr(module, claim)(0, *arguments)
    assert finite(figures)
    assert picture.axes
    (text,) = (part for part in families.study.sections() if f"families/{claim}.png" in part)
    assert families.study.updated(text, figures).count("<!--") == text.count("<!--")
    return dict(figures)


def test_every_claim_has_its_figures_and_its_picture(families):
    study = families.study
    assert len(study.CLAIMS) == len(study.sections()) - 1
    assert {path.stem for path in study.RESULTS.iterdir()} == set(study.CLAIMS)
    assert {path.stem for path in study.PICTURES.iterdir()} == set(study.CLAIMS)


def test_the_document_is_that_of_the_figures(families):
    text = families.study.DOCUMENT.read_text(encoding="utf-8")
    assert text == families.study.document(), "run python recipes/families/study.py --document"


def test_a_claim_measured_anew_gives_its_recorded_figures(families, tmp_path):
    name = "change_of_variables"
    with torch.random.fork_rng():
        figures = families.study.run(name, 0, tmp_path, tmp_path)
    recorded = json.loads((families.study.RESULTS / f"{name}.json").read_text())["figures"]
    assert figures == pytest.approx(recorded, rel=1e-3)
    assert figures["density"] == pytest.approx(0.5)
    assert figures["integral"] == pytest.approx(1, abs=1e-3)
    assert figures["largest_error_of_area"] < 0.01
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_bound_meets_the_exact_likelihood_of_a_linear_model(families):
    figures = measured(families, "vae_bound", 1000)
    assert figures["elbo_start"] < figures["elbo"]
    # The bound is estimated by 20 draws for each of 2,000 points.
    assert figures["elbo"] < figures["exact"] + 0.02
    assert figures["exact"] < figures["most_likely"] + 1e-4
    assert figures["most_likely"] - figures["elbo"] < 0.2
    weighted = figures["importance_weighted"]
    assert all(low < high for low, high in itertools.pairwise(weighted))
    assert weighted[-1] < figures["exact_of_spoilt"] < weighted[-1] + 0.3


def test_the_ring_is_covered_and_blurred(families):
    figures = measured(families, "vae_blur", 20)
    assert figures == measured(families, "vae_blur", 20)
    assert figures["share_near_modes_of_data"] == pytest.approx(0.989, abs=0.01)


@pytest.mark.parametrize(
    "claim",
    [*(f"autoencoder_{kind}" for kind in ("plain", "denoising", "disentangling")),
     "mixture", "multi_scale"],
)  # fmt: skip
def test_claims_about_speech_run(claim, families, excerpts, monkeypatch):
    monkeypatch.setattr(families.speech, "recordings", lambda: (excerpts[:4], excerpts[4:]))
    measured(families, claim, 2)
