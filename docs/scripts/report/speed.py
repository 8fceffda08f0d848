"""Tables of docs/backends.md and docs/scale.md: speed, memory and repeatability."""

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables, on
from vocoder.evaluation.tables import markdown


def streaming_table(result: Mapping[str, Any]) -> str:
    """Look-ahead, time to the first audio, and memory over an hour."""
    headings = ["flow", "look-ahead", "computing to the first audio", "streamed"]
    headings += ["memory before", "memory at most", "× real time"]
    rows = []
    for row in result["rows"]:
        ahead = f"{row['look_ahead_frames']} frames, {1000 * row['look_ahead_seconds']:.0f} ms"
        memory = ("megabytes_before", "megabytes")
        cells = [row["name"], ahead, f"{1000 * row['first_audio_seconds']:.0f} ms"]
        cells += [f"{row['minutes']:.0f} min", *(f"{row[key]:.0f} MB" for key in memory)]
        rows.append([*cells, f"{row['times_real_time']:.0f}"])
    first = result["rows"][0]
    return (
        f"{markdown(headings, rows)}\n\n"
        f"Memory of the whole process, PyTorch included. {first['chunk_frames']} frames "
        f"at once, {first['threads']} thread, × real time in processor time. "
        f"{on(result['machine'])}"
    )


def delays_table(result: Mapping[str, Any]) -> str:
    """What a short delay costs in quality and computing."""
    measured, rows = result["delays"], []
    for row in measured["rows"]:
        name = "exact" if row["look_ahead"] is None else f"`look_ahead={row['look_ahead']}`"
        cells = [name, f"{row['delay_frames']}, {1000 * row['delay_seconds']:.0f} ms"]
        cells += [f"{row['pesq']:.2f}", f"{row['distillmos']:.2f}"]
        rows.append([*cells, f"{1000 * row['seconds_per_second']:.0f} ms"])
    headings = ["stream", "delay in frames", "PESQ", "DistillMOS", "computing per second of audio"]
    return (
        f"{markdown(headings, rows)}\n\n"
        f"Means of {measured['recordings']} recordings of development speakers. Chunks of "
        f"{measured['chunk_frames']} frames, 1 thread, processor time. {on(measured['machine'])}"
    )


def determinism_table(result: Mapping[str, Any]) -> str:
    """Same seed, same audio: the differences promised and measured."""
    refined = f"with {result['iterations']} iterations"
    headings = ["the same seed", "promised", "measured", refined, "measured"]

    def number(value: float) -> str:
        return "equal" if value == 0 else f"{value:.0e}".replace("e-0", "e-")

    rows = [
        [
            row["title"],
            *(number(row[key][column]) for column in (0, 1) for key in ("promised", "measured")),
        ]
        for row in result["rows"]
    ]
    return (
        f"{markdown(headings, rows)}\n\nLargest difference of a sample, of audio in [-1, 1]; "
        f"a step of 16 bits is 3e-5. Measured with the bundled default. {on(result['machine'])}"
    )


def load_table(result: Mapping[str, Any]) -> str:
    """The demo under load: latency, refusals, mistakes, memory."""
    memory, burst = result["megabytes"], result["burst"]
    visitors = {"one visitor": "alone_seconds", f"{result['clients']} visitors at once": "seconds"}
    rows = [
        [title, *(f"{result[key][p]:.1f} s" for p in ("50", "95", "99"))]
        for title, key in visitors.items()
    ]
    wrong = len(result["wrong"]) + len(result["errors"])
    machine = result["machine"]
    return (
        f"{markdown(['', '50 %', '95 %', '99 %'], rows)}\n\n"
        f"Time from the accepted request to the audio, of texts of {result['audio_seconds']:.1f} s "
        f"on average. {result['answered']:,} requests were answered, "
        f"{result['requests_per_second']:.1f} a second; {wrong} got a wrong answer or none. Of "
        f"{result['clients']} requests at the same moment, {burst['refused']} were refused. Memory "
        f"of the server: {memory['settled']:.0f} MB after the first hundred requests, "
        f"{memory['end']:.0f} MB at the end. {machine['cpu']}, {machine['cores']} cores, shared "
        f"with the clients. {machine['date']}."
    )


def bulk_table(result: Mapping[str, Any]) -> str:
    """docs/results/bulk.json: files a second, by the number of workers."""
    seconds = result["audio_seconds"]
    rows = [
        [name, f"{row['files_per_second']:.1f}", f"{row['files_per_second'] * seconds:.0f}"]
        for name, row in result["ways"].items()
    ]
    return (
        f"{markdown(['', 'files a second', '× real time'], rows)}\n\n"
        f"Mels of {seconds:.1f} s, from file to file; one thread each. {on(result['machine'])}"
    )


def memory_table(result: Mapping[str, Any]) -> str:
    """docs/results/memory.json: memory of the commands on a minute and on an hour."""
    first, last = sorted(result["minutes"], key=int)
    headings = ["command", "memory for a minute", f"for {last} minutes", "× real time"]
    rows = [
        [
            f"`{name}`",
            f"{result['minutes'][first][name]['megabytes']:.0f} MB",
            f"{row['megabytes']:.0f} MB",
            f"{row['audio_seconds'] / row['seconds']:.0f}",
        ]
        for name, row in result["minutes"][last].items()
    ]
    return (
        f"{markdown(headings, rows)}\n\nPeak memory of the process, libraries included. "
        f"{on(result['machine'])}"
    )


TABLES: Tables = {
    "streaming": ("streaming.json", streaming_table),
    "delays": ("streaming.json", delays_table),
    "determinism": ("determinism.json", determinism_table),
    "load": ("load.json", load_table),
    "memory": ("memory.json", memory_table),
    "bulk": ("bulk.json", bulk_table),
}
