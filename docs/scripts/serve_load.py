"""Measures `vocoder serve` under load: clients that ask for a sentence again and again.

    python docs/scripts/serve_load.py       16 clients, 200 requests; writes docs/results/serve.json

The server runs in a process of its own, with the bundled models. A refused client (503) tries
again. One client in ten is killed in the middle of an answer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import torch

from load import percentiles
from paths import RESULTS
from vocoder.evaluation.results import machine_facts, save_result

BODY = {"input": "The birch canoe slid on the smooth planks.", "response_format": "mp3"}


def measure(address: str, clients: int, requests: int) -> dict[str, Any]:
    """Latency from the request to the first and to the last byte, retries left out."""
    numbers, lock = iter(range(requests)), threading.Lock()
    first: list[float] = []
    whole: list[float] = []
    counts = {"answered": 0, "refused": 0, "killed": 0}
    errors: list[str] = []

    def visit(_: int) -> None:
        with httpx.Client(base_url=address, timeout=None, trust_env=False) as client:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    ask(client, kills=number % 10 == 9)
                except (httpx.HTTPError, ValueError) as error:
                    errors.append(repr(error))

    def ask(client: httpx.Client, kills: bool) -> None:
        while True:
            started = time.perf_counter()
            with client.stream("POST", "/v1/audio/speech", json=BODY) as answer:
                if answer.status_code == 503:
                    counts["refused"] += 1
                    time.sleep(0.5)
                    continue
                answer.raise_for_status()
                for index, _ in enumerate(answer.iter_raw()):
                    if index == 0 and kills:
                        counts["killed"] += 1
                        return
                    if index == 0:
                        first.append(time.perf_counter() - started)
            whole.append(time.perf_counter() - started)
            counts["answered"] += 1
            return

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(visit, range(clients)))
    taken = time.perf_counter() - started
    return {
        "clients": clients,
        "requests": requests,
        **counts,
        "errors": errors,
        "first_byte_seconds": percentiles(first),
        "seconds": percentiles(whole),
        "requests_per_second": round(requests / taken, 2),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure vocoder serve under load.")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    command = [sys.executable, "-m", "vocoder", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            alone = measure(address, 1, 10)
            result = measure(address, options.clients, options.requests)
        finally:
            server.terminate()
    result["alone_seconds"] = alone["seconds"]
    result["machine"] = machine_facts(torch.device("cpu"))
    save_result(result, RESULTS / "serve.json")


if __name__ == "__main__":
    main()
