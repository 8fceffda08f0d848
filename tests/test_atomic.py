"""Files are written whole or not at all, and nothing stays hidden next to them."""

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from vocoder.atomic import atomic_path, exit_on_termination, partial_file, write_atomic
from vocoder.audio.writing import AudioWriter

KILLED = """
import os, signal, sys
from pathlib import Path
from vocoder.atomic import atomic_path

path = Path(sys.argv[1])
if path.suffix == ".wav":
    import numpy as np
    from vocoder.audio.writing import AudioWriter
    with AudioWriter(path, 8000) as file:
        file.write(np.zeros(80000, dtype=np.float32))
        os.kill(os.getpid(), signal.SIGKILL)
with atomic_path(path) as partial:
    partial.write_bytes(bytes(100_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["a.bin", "a.wav", "x" * 251 + ".wav"])
def test_what_a_killed_writer_leaves_goes_with_the_next_write(tmp_path, name):
    path = tmp_path / name
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, timeout=120)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    if name.endswith(".wav"):
        with AudioWriter(path, 8000) as file:
            file.write(np.zeros(10, dtype=np.float32))
        assert path.stat().st_size == 44 + 20  # nothing of the killed one is left in it
    else:
        write_atomic(path, b"whole")
        assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path):
    path = tmp_path / "a"
    contents = [bytes([n]) * 50_000 for n in range(4)]

    def write(content):
        for _ in range(100):
            write_atomic(path, content)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_previous_file_and_nothing_else(tmp_path):
    path = write_atomic(tmp_path / "a", b"before")
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail():
        with atomic_path(path) as partial:
            partial.write_bytes(b"half")
            full.filename = str(partial)
            raise full

    with pytest.raises(OSError, match="No space left") as caught:
        fail()
    assert caught.value.filename == str(path)  # not the hidden one
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_planted_under_the_hidden_name_is_not_written_through(tmp_path):
    victim = write_atomic(tmp_path / "victim", b"precious")
    for plant in (Path.symlink_to, Path.hardlink_to):
        with partial_file(tmp_path / "a") as partial:
            hidden = partial
        plant(hidden, victim)
        write_atomic(tmp_path / "a", b"new")
        assert victim.read_bytes() == b"precious"
        hidden.unlink()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals")
def test_a_signal_that_ends_the_process_cleans_up_and_one_that_is_ignored_does_not():
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, 15)}
    try:
        with exit_on_termination():
            os.kill(os.getpid(), signal.SIGHUP)
        for number, status, code in ((signal.SIGTERM, None, 143), (signal.SIGHUP, 0, 0)):
            signal.signal(number, signal.SIG_DFL)
            with pytest.raises(SystemExit) as exit_, exit_on_termination(status):
                os.kill(os.getpid(), number)
            assert exit_.value.code == code
            assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
