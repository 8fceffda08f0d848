"""Signals that end a process, turned into an exception so that it cleans up after itself."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def exit_on_termination(status: int | None = None) -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP (a closed terminal) raise `SystemExit`.

    So ``finally`` clauses run, and half-written and temporary files are deleted. A signal that is
    ignored, as under nohup, stays ignored. Only the main thread can handle signals: in any other
    the block changes nothing.

    Args:
        status: exit status; None for 128 + the number of the signal, as in shells.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number if status is None else status)

    previous = {}
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
