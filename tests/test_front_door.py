"""The Makefile: `make sound` uses an utterance that no recipe trains on, and make skips a Python
that does not run, is of another version or cannot create environments.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from vocoder.corpus import held_out


def test_the_sentence_of_make_sound_was_never_trained_on():
    sentences = re.findall(r"sample/wavs/(\w+)\.flac", (ROOT / "Makefile").read_text())
    assert sentences
    assert set(sentences) <= set(held_out(ROOT / "recipes" / "ljspeech" / "sample").test)


@pytest.fixture
def make(tmp_path):
    """Runs make with a PATH of `tmp_path`/bin and what the Makefile's shell lines need."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("make", "sh", "touch"):
        (programs / name).symlink_to(shutil.which(name))

    def run(**pythons):
        for name, script in pythons.items():
            path = programs / name.replace("_", ".")
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "MAKEFLAGS")}
        environment["PATH"] = str(programs)
        command = ["make", f"VENV={tmp_path / 'venv'}", str(tmp_path / "venv" / ".created")]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return run


def test_an_environment_that_could_not_be_created_leaves_no_stamp(make, tmp_path):
    result = make(python3_11='[ "$1" = -m ] && mkdir -p "$3" && exit 1; echo 3.11')
    assert result.returncode != 0
    assert not (tmp_path / "venv" / ".created").exists()
    # The next Python is taken where one does not run; here, without pip, which takes ten seconds.
    python = f'[ "$1" = -m ] && set -- "$@" --without-pip\nexec {sys.executable} "$@"'
    result = make(python3_11="exit 127", python3=python)
    assert result.returncode == 0, result.stderr
    created = tmp_path / "venv" / "bin" / "python"
    version = subprocess.run([created, "-V"], capture_output=True, text=True, check=True).stdout
    assert version.split()[1] == sys.version.split()[0]
    assert (tmp_path / "venv" / ".created").exists()
