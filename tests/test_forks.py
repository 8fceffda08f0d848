"""A model that ran in the parent runs in a forked child, too, as servers use it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, torch
from vocoder.models import MdctFlow

torch.set_num_threads(2)
model = MdctFlow("speech-16k", n_flows=1, channels=64, n_layers=2, scale_channels=8).eval()
mel = torch.full((80, 400), -6.0)
before = model.synthesize(mel, refine=1)
child = os.fork()
if child == 0:
    signal.alarm(120)  # a child that hangs is ended
    same = torch.allclose(model.synthesize(mel, refine=1), before, atol=1e-5)
    os._exit(0 if same and torch.get_num_threads() == 1 else 3)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_runs_the_model_of_its_parent() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["0", "2"]
