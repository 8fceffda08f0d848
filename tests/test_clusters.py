"""Training started by SLURM's srun: two processes learn what one would."""

import os
import stat
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT, one_thread
from tests.test_recipe_ljspeech import train_here

STEPS = 4

# At temperature 0 and on the whole batch, the sample does not depend on the number of processes.
DIFFERENCE = """
losses:
  - class_path: vocoder.training.losses.Likelihood
  - class_path: vocoder.training.losses.Mel
    init_args: {start: 0.0}
training: {sample_temperature: 0.0, sample_fraction: 1.0, final_learning_rate: 1.0}
"""

# One machine of a cluster: what a task finds in its environment, as SLURM sets it.
SRUN = f"""#!/bin/bash
for rank in 0 1; do
    export SLURM_PROCID=$rank SLURM_LOCALID=$rank
    {sys.executable} "${{@:2}}" &
    tasks="$tasks $!"
done
for task in $tasks; do wait "$task" || exit 1; done
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all train; the recipe is below it, as in the repository."""
    made = tmp_path_factory.mktemp("cluster")
    (made / "recipes").symlink_to(ROOT / "recipes")
    (made / "difference.yaml").write_text(DIFFERENCE)
    with one_thread():
        assert train_here(made, *options("one", 2)) == 0
    return made


def options(name, batch):
    return [
        "--config", "difference.yaml", "--run", name, "--max_steps", str(STEPS),
        "--speech.batch_size", str(batch), "--speech.validation_utterances", "1",
        "--speech.validation_seconds", "0.2", "--trainer.accelerator", "cpu",
    ]  # fmt: skip


def test_the_slurm_script_trains_like_one_process(folder):
    """Its body, with a stand-in for srun that starts two tasks here."""
    script = ROOT / "recipes/ljspeech/slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    srun = folder / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN)
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    slurm = {
        "JOB_ID": "12", "JOB_NAME": "vocoder", "NNODES": "1", "NODEID": "0", "NTASKS": "2",
        "NTASKS_PER_NODE": "2", "NODELIST": "127.0.0.1",
    }  # fmt: skip
    variables = {f"SLURM_{name}": value for name, value in slurm.items()}
    path = f"{srun.parent}:{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path}
    words = ["bash", str(script), "--config", "tiny", *options("slurm", 1)]
    done = subprocess.run(
        words, cwd=folder, env=environment | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = (folder / "one", folder / "slurm")
    one, two = (torch.load(run / "last.ckpt", weights_only=True) for run in runs)
    assert one["global_step"] == two["global_step"] == STEPS
    # As many crops with half the batch size in a process: there were two.
    assert one["vocoder_training"] == two["vocoder_training"]
    # Adam turns rounding into steps of up to the learning rate, 1e-3, where gradients are small.
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(value, two["state_dict"][key], rtol=0, atol=3e-4 * STEPS)
    assert (folder / "slurm/report.md").is_file()
    assert (folder / "slurm/model/model.safetensors").is_file()
