"""Same seed, same audio: every row of the table in docs/backends.md, at the difference it promises.

The rows, and how each makes the audio again, are in docs/scripts/determinism.py.
"""

import json

import pytest

from tests.conftest import ROOT, scripts
from vocoder.pretrained import find_model

with scripts("docs/scripts") as script:
    determinism = script("determinism")


@pytest.fixture(scope="module", params=["bundled", "tiny"])
def checkpoint(request, tiny_flow, tmp_path_factory):
    if request.param == "bundled":
        return find_model()
    model = tiny_flow("ljspeech", n_flows=2, source=True)
    return model.save(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def cases(checkpoint):
    return {iterations: determinism.Case(checkpoint, iterations) for iterations in (0, 8)}


@pytest.mark.parametrize("iterations", [0, 8])
@pytest.mark.parametrize("name", [name for name in determinism.ROWS if name != "onnx"])
def test_the_same_seed_gives_the_same_audio(name, iterations, cases):
    """Of every row but ONNX, whose export takes long: test_onnx.py."""
    if name == "process" and not iterations:
        pytest.skip("it starts one, which takes long")
    row, case = determinism.ROWS[name], cases[iterations]
    assert case.audio.abs().max() > 0.01
    assert row.difference(case) <= (row.refined if iterations else row.tolerance)


def test_the_differences_are_seen(cases):
    """The rows would notice another seed or other iterations."""
    case = cases[0]
    other = determinism.Row("another seed", 0, 0, lambda case: case.synthesize(seed=4))
    assert other.difference(case) > 1e-3
    other = determinism.Row("other iterations", 0, 0, lambda case: case.synthesize(refine=1))
    assert other.difference(case) > 1e-3


def test_what_was_measured_is_what_is_promised():
    measured = json.loads((ROOT / "docs/results/determinism.json").read_text(encoding="utf-8"))
    rows = {row.title: [row.tolerance, row.refined] for row in determinism.ROWS.values()}
    assert {row["title"]: row["promised"] for row in measured["rows"]} == rows
    for row in measured["rows"]:
        for value, most in zip(row["measured"], row["promised"], strict=True):
            assert value <= most
