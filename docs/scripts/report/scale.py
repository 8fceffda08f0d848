"""Tables of docs/scale.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables, markdown
from report.rows import DEFAULT, FLOW

HOURS = 1000
"""Of speech."""
TERAFLOPS = 10
"""What the estimate assumes that a GPU sustains on this model."""
GPUS = 8


def hours_table(result: Mapping[str, Any]) -> str:
    """What a thousand hours take, from the speed of the bundled default."""
    speed = result["rows"][DEFAULT]["times_real_time"]["mean"]
    about = result["about"]
    spec = about["models"][DEFAULT]["mel_spec"]
    frames = HOURS * 3600 * spec["sample_rate"] / spec["hop_length"]
    rows = [
        [
            f"{HOURS:,} hours of audio, 16 bits",
            f"{2 * spec['sample_rate'] * HOURS * 3.6e-6:,.0f} GB",
        ],
        ["their mels, float32", f"{4 * spec['n_mels'] * frames / 1e9:,.0f} GB"],
        [f"synthesis by {DEFAULT}", f"{HOURS / speed:,.0f} hours of {about['threads']} thread"],
        ["the same on 64 cores", f"{60 * HOURS / speed / 64:,.0f} minutes"],
    ]
    note = (
        f"From the measured {speed:.0f} times real time of one worker ("
        f"{about['machine']['cpu']}); the last row assumes that workers do not disturb each other."
    )
    return f"{markdown(['what', 'how much'], rows, [0])}\n\n{note}"


def node_sentence(result: Mapping[str, Any]) -> str:
    """An estimate for a node with GPUs, from the cost in docs/results/benchmark.json."""
    cost = next(r["gmac_per_audio_second"] for r in result["rows"] if r["name"] == FLOW)
    # Forwards and backwards cost three passes; a multiply-accumulate is two operations.
    operations = HOURS * 3600 * cost * 1e9 * 2 * 3
    return (
        f"**Estimated, not measured**: an epoch of {HOURS:,} hours is {operations / 1e15:.0f} "
        f"PFLOP in the flow (three passes of {cost:.2f} billion multiply-accumulates a second of "
        f"audio). {GPUS} GPUs that sustained {TERAFLOPS} TFLOP/s each would take "
        f"{operations / (GPUS * TERAFLOPS * 1e12) / 60:.0f} minutes for it; the spectral terms of "
        "the loss, the loader and the gradients' exchange come on top."
    )


def load_table(result: Mapping[str, Any]) -> str:
    """The demo under load: latency, refusals, mistakes, memory."""
    memory, burst = result["megabytes"], result["burst"]
    headings = ["", "50 %", "95 %", "99 %"]
    rows = [
        [title, *(f"{result[key][p]:.1f} s" for p in ("50", "95", "99"))]
        for title, key in (
            ("one visitor", "alone_seconds"),
            (f"{result['clients']} visitors at once", "seconds"),
        )
    ]
    wrong = len(result["wrong"]) + len(result["errors"])
    machine = result["machine"]
    return (
        f"{markdown(headings, rows, [0])}\n\n"
        f"Time from the accepted request to the audio, of texts of {result['audio_seconds']:.1f} s "
        f"on average. {result['answered']:,} requests were answered, "
        f"{result['requests_per_second']:.1f} a second; {wrong} got a wrong answer or none. Of "
        f"{result['clients']} requests at the same moment, {burst['refused']} were refused; "
        f"visitors who were refused tried again every two seconds, {result['refused']:,} times in "
        f"all. Memory of the server: {memory['settled']:.0f} MB after the first hundred requests, "
        f"{memory['end']:.0f} MB at the end. {machine['cpu']}, {machine['cores']} cores, shared "
        f"with the clients; load average {result['load_average']:.1f}. {machine['date']}."
    )


def bulk_table(result: Mapping[str, Any]) -> str:
    """docs/results/bulk.json: files a second, by the number of workers."""
    headings = ["", "files a second", "× real time", "start"]
    rows = [
        [
            name,
            f"{row['files_per_second']:.1f}",
            f"{row['files_per_second'] * result['audio_seconds']:.0f}",
            f"{row['start_seconds']:.0f} s",
        ]
        for name, row in result["ways"].items()
    ]
    machine = result["machine"]
    return (
        f"{markdown(headings, rows, [0])}\n\nMels of {result['audio_seconds']:.1f} s, from file to "
        f"file; one thread each. {machine['cpu']}, {machine['cores']} cores, {machine['date']}."
    )


def memory_table(result: Mapping[str, Any]) -> str:
    """docs/results/memory.json: memory of the commands on a minute and on an hour."""
    short, long = (result["minutes"][key] for key in sorted(result["minutes"], key=int))
    minutes = max(map(int, result["minutes"]))
    headings = ["command", "memory for a minute", f"for {minutes} minutes", "× real time"]
    rows = [
        [
            f"`{name}`",
            f"{short[name]['megabytes']:.0f} MB",
            f"{row['megabytes']:.0f} MB",
            f"{row['audio_seconds'] / row['seconds']:.0f}",
        ]
        for name, row in long.items()
    ]
    machine = result["machine"]
    return (
        f"{markdown(headings, rows, [0])}\n\nPeak memory of the process, libraries included; "
        f"PyTorch {machine['torch']}. {machine['cpu']}, {machine['date']}."
    )


TABLES: Tables = {
    "hours": ("scores/default.unseen-speakers.json", hours_table),
    "node": ("benchmark.json", node_sentence),
    "load": ("load.json", load_table),
    "memory": ("memory.json", memory_table),
    "bulk": ("bulk.json", bulk_table),
}
