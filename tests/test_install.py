"""The package works without torchaudio's library, and says which version of it would fit."""

import os
import subprocess
import sys

import pytest

from vocoder.extras import fitting_torchaudio

SYNTHESIZE = """
import sys
import torch
import vocoder
import vocoder.demo, vocoder.training
model = vocoder.load()
audio = model.synthesize(model.mel(torch.zeros(4000)))
assert audio.isfinite().all()
assert "torchaudio" not in sys.modules
"""
GRIFFIN_LIM = """
import sys
sys.path.insert(0, {!r})
from vocoder.evaluation.baselines import GriffinLim
GriffinLim()
"""
PROXIES = """
import os
from vocoder.demo import without_proxies
with without_proxies():
    import gradio, httpx
    httpx.Client(), httpx.AsyncClient()
assert os.environ.get("no_proxy") == {!r}
"""


def run(program, **variables):
    clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=clean | variables, capture_output=True, text=True)


def test_synthesis_leaves_torchaudio_alone():
    ran = run(SYNTHESIZE)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("error", ["OSError", "RuntimeError", "ImportError"])
def test_a_torchaudio_that_does_not_fit_is_named_with_the_one_that_does(error, tmp_path):
    (tmp_path / "torchaudio.py").write_text(f"raise {error}('undefined symbol: _ZN3c10')\n")
    last = run(GRIFFIN_LIM.format(str(tmp_path))).stderr.splitlines()[-1]
    assert last.startswith("ImportError: torchaudio does not load with torch 2.")
    assert 'pip install "torchaudio==2.' in last


def test_the_fitting_version():
    fitting = {"2.9.1": "2.9.1", "2.11.0+cpu": "2.11.0", "2.12.0": "2.11.1", "2.14.1": "2.11.1"}
    assert {torch: fitting_torchaudio(torch) for torch in fitting} == fitting


@pytest.mark.parametrize(
    "variables",
    [
        {"http_proxy": "http://127.0.0.1:9"},
        {"http_proxy": "http://127.0.0.1:9", "no_proxy": "10.0.0.0/8,::1/128"},
        {"ALL_PROXY": "socks://127.0.0.1:9"},
    ],
)
def test_the_demo_does_not_ask_the_proxies(variables):
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    ran = run(PROXIES.format(variables.get("no_proxy")), **variables)
    assert ran.returncode == 0, ran.stderr
