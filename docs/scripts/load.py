"""Measures the demo under load: many clients at once, each of which must get its own text back.

    python docs/scripts/load.py         32 clients, 1,000 requests; writes docs/results/load.json

The real server runs in a process of its own, with the bundled models; clients talk to it over
loopback by gradio's HTTP interface. Every client has a text, spoken alone first; under load, its
audio must be the same, sample by sample.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
import torch

from paths import RESULTS
from vocoder.evaluation.results import machine_facts, save_result

TEXTS = [
    f"{colour} {thing}."
    for colour in ("Red", "Blue", "Green", "Black", "White", "Grey", "Brown", "Pink")
    for thing in ("boats", "stones", "letters", "windows")
]

SETTLED = 100
"""Requests after which memory should not grow."""


class RefusedError(Exception):
    """The queue of the server is full."""


@dataclasses.dataclass
class Record:
    """What happened to the requests of all clients."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    refused: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)
    """Texts whose audio was not theirs."""
    errors: list[str] = dataclasses.field(default_factory=list)
    megabytes: list[float] = dataclasses.field(default_factory=list)
    """Memory of the server after each request that was answered."""


@contextlib.contextmanager
def server(*options: str, seconds: float = 300) -> Iterator[tuple[str, int]]:
    """A demo in a process of its own: its address and process id."""
    with tempfile.TemporaryFile() as log:

        def printed() -> str:
            return os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")

        command = [sys.executable, "-m", "vocoder", "demo", *options]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            end = time.monotonic() + seconds
            while not (found := re.search(r"The demo is at (\S+)", printed())):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the demo does not start: {printed()}")
                time.sleep(0.1)
            yield found[1].rstrip("/"), process.pid
            if process.poll() is not None:
                raise RuntimeError(f"the demo ended ({process.returncode}): {printed()}")
        finally:
            process.terminate()
            process.wait()


def say(client: httpx.Client, address: str, text: str) -> np.ndarray[Any, Any]:
    """The audio of a text, in 16 bits, as a visitor gets it.

    Raises:
        RefusedError: the queue is full.
        RuntimeError: another answer than audio.
    """
    call = f"{address}/gradio_api/call/say"
    data = [text, "acoustic/heart", "default", 8, 1.0, 0.0, 0.667, 0]
    asked = client.post(call, json={"data": data})
    if asked.status_code == 503 and "queue is full" in asked.text.lower():
        raise RefusedError(asked.json()["detail"])
    if asked.status_code != 200:
        raise RuntimeError(f"{asked.status_code}: {asked.text}")
    answer = client.get(f"{call}/{asked.json()['event_id']}").text
    event, data = re.findall(r"^event: (\w+)\ndata: (.*)$", answer, re.MULTILINE)[-1]
    if event != "complete":
        raise RuntimeError(f"{event}: {data}")
    path = json.loads(data)[-1]["path"]
    audio = client.get(f"{address}/gradio_api/file={path}").raise_for_status().content
    samples: np.ndarray[Any, Any] = soundfile.read(io.BytesIO(audio), dtype="int16")[0]
    return samples


def load(
    address: str,
    pid: int,
    texts: Sequence[str],
    expected: Sequence[np.ndarray[Any, Any]],
    requests: int,
    retry: bool,
) -> Record:
    """Requests by one client for each text, all at once.

    Args:
        address, pid: of the server.
        texts, expected: a client each, and its audio.
        requests: in all.
        retry: whether clients that are refused ask again, until all have been answered.
    """
    record, left, together = Record(), iter(range(requests)), threading.Barrier(len(texts))

    def visit(text: str, right: np.ndarray[Any, Any]) -> None:
        # As the server closes idle connections after 5 s, a new one for each call.
        fresh = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(timeout=None, limits=fresh) as client:
            together.wait()
            while next(left, None) is not None:
                ask(client, text, right)

    def ask(client: httpx.Client, text: str, right: np.ndarray[Any, Any]) -> None:
        started = time.perf_counter()
        try:
            audio = say(client, address, text)
        except RefusedError:
            record.refused += 1
            if retry:
                time.sleep(2)
                ask(client, text, right)
        except (RuntimeError, httpx.HTTPError, IndexError) as error:
            record.errors.append(f"{type(error).__name__}: {error}")
        else:
            record.seconds.append(time.perf_counter() - started)
            record.megabytes.append(megabytes(pid))
            if not np.array_equal(audio, right):
                record.wrong.append(text)

    with ThreadPoolExecutor(len(texts)) as clients:
        list(clients.map(visit, texts, expected))
    return record


def megabytes(pid: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Latency, in seconds."""
    return {str(p): round(float(np.percentile(seconds, p)), 2) for p in (50, 95, 99)}


def measure(address: str, pid: int, requests: int) -> dict[str, Any]:
    """All of it."""
    alone = Record()
    expected = []
    with httpx.Client(timeout=None) as client:
        say(client, address, TEXTS[0])  # the models are loaded when they are first used
        for text in TEXTS:
            started = time.perf_counter()
            expected.append(say(client, address, text))
            alone.seconds.append(time.perf_counter() - started)
    burst = load(address, pid, TEXTS, expected, len(TEXTS), retry=False)
    started = time.perf_counter()
    run = load(address, pid, TEXTS, expected, requests, retry=True)
    taken = time.perf_counter() - started
    return {
        "clients": len(TEXTS),
        "requests": requests,
        "audio_seconds": sum(map(len, expected)) / len(expected) / 22050,
        "alone_seconds": percentiles(alone.seconds),
        "burst": {"answered": len(burst.seconds), "refused": burst.refused},
        "answered": len(run.seconds),
        "refused": run.refused,
        "errors": burst.errors + run.errors,
        "wrong": burst.wrong + run.wrong,
        "seconds": percentiles(run.seconds),
        "requests_per_second": len(run.seconds) / taken,
        "megabytes": {
            "settled": run.megabytes[min(SETTLED, len(run.megabytes)) - 1],
            "end": run.megabytes[-1],
            "most": max(run.megabytes),
        },
        "load_average": os.getloadavg()[1],
        "machine": machine_facts(torch.device("cpu")),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure the demo under load.")
    parser.add_argument("--requests", type=int, default=1000)
    requests = parser.parse_args().requests
    with server() as (address, pid):
        save_result(measure(address, pid, requests), RESULTS / "load.json")


if __name__ == "__main__":
    main()
