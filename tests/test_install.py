"""The package works without torchaudio's library, and says which version of it would fit."""

import subprocess
import sys

import pytest

from vocoder.evaluation.baselines import GriffinLim
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
PROXIES = """
import os
from vocoder.demo import without_proxies
os.environ.update(http_proxy="http://127.0.0.1:9", ALL_PROXY="socks://127.0.0.1:9")
for no_proxy in ("10.0.0.0/8,::1/128", None):
    os.environ.pop("no_proxy", None)
    if no_proxy:
        os.environ["no_proxy"] = no_proxy
    with without_proxies():
        import gradio, httpx
        httpx.Client(), httpx.AsyncClient()
    assert os.environ.get("no_proxy") == no_proxy
"""


def run(program):
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_synthesis_leaves_torchaudio_alone():
    run(SYNTHESIZE)


@pytest.mark.parametrize("error", ["OSError", "RuntimeError", "ImportError"])
def test_a_torchaudio_that_does_not_fit_is_named_with_the_one_that_does(
    error, tmp_path, monkeypatch
):
    (tmp_path / "torchaudio.py").write_text(f"raise {error}('undefined symbol: _ZN3c10')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    words = r'torchaudio does not load with torch 2\..* pip install "torchaudio==2\.'
    with pytest.raises(ImportError, match=words):
        GriffinLim()


def test_the_fitting_version():
    fitting = {"2.9.1": "2.9.1", "2.11.0+cpu": "2.11.0", "2.12.0": "2.11.1", "2.14.1": "2.11.1"}
    assert {torch: fitting_torchaudio(torch) for torch in fitting} == fitting


def test_the_demo_does_not_ask_the_proxies():
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    run(PROXIES)
