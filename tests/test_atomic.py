"""Files are written whole or not at all, and nothing stays hidden next to them."""

import errno
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from vocoder.atomic import atomic_path, exit_on_termination, write_atomic


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
