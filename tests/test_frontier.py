"""The frontier: measured through its command on two short signals, resumed, and shown."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import scripts
from vocoder.audio import write_audio
from vocoder.evaluation.systems import count_macs, voiced_signal
from vocoder.models import MdctFlow

RATE = 16000
SYSTEMS = ["white noise", "harmonic source", "Griffin-Lim", "tiny"]
OPTIONS = ["--sweeps", "0,2", "--limit", "2"]


@pytest.fixture(scope="module")
def frontier() -> Iterator[Any]:
    with scripts("docs/scripts") as script:
        yield script("frontier")


@pytest.fixture(scope="module")
def folder(
    frontier: Any,
    tiny_flow: Callable[..., MdctFlow],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """Where a tiny flow was measured on two of three short signals, the command's own files."""
    place = tmp_path_factory.mktemp("frontier")
    (place / "half/16k").mkdir(parents=True)
    for index in range(3):
        write_audio(place / f"half/16k/{index}.wav", voiced_signal(RATE + 300 * index, RATE), RATE)
    (place / "list.csv").write_text("file,voice\n16k/0.wav,a\n16k/1.wav,a\n16k/2.wav,b\n")
    tiny_flow("speech-16k").save(place / "tiny")
    module = frontier
    with pytest.MonkeyPatch.context() as patch:
        cheap = ("pesq", "stoi", "tone_excess", "log_mel_distance")  # no pitch, no networks
        patch.setattr(frontier.report, "SHOWN", cheap)
        patch.setattr(module, "PICTURES", place)
        patch.setattr(module, "FILE", place / "frontier.json")
        patch.setattr(module, "RECORDINGS", place / "half/16k")
        patch.setattr(module.vocoder, "load", lambda name=None: _loaded(place, name))
        patch.setattr(module, "bundled_models", lambda: {"tiny": place / "tiny"})
        quick = functools.partial(
            module.measure_times, lengths=(0.25, 0.5), rounds=1, timed_sweeps=2
        )
        patch.setattr(module, "measure_times", quick)
        module.main(OPTIONS)
        yield place


def _loaded(place: Path, name: str | None) -> MdctFlow:
    from vocoder.models import load_checkpoint

    model = load_checkpoint(place / "tiny" if name in (None, "tiny") else name)
    assert isinstance(model, MdctFlow)
    return model.fused()


def read(folder: Path) -> dict[str, Any]:
    result = json.loads((folder / "frontier.json").read_text(encoding="utf-8"))
    assert isinstance(result, dict)
    return result


def counted(frontier: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, ...]]:
    """The pairs that are measured from here on."""
    pairs: list[tuple[torch.Tensor, ...]] = []
    own = frontier.measure

    def measure(reference: torch.Tensor, audio: torch.Tensor, *rest: Any) -> Any:
        pairs.append((reference, audio))
        return own(reference, audio, *rest)

    monkeypatch.setattr(frontier, "measure", measure)
    return pairs


def test_every_system_is_measured_with_every_number_of_sweeps(frontier: Any, folder: Path) -> None:
    result = read(folder)
    assert list(result["recordings"]) == ["0.wav", "2.wav"]  # a voice each
    rows = frontier.report.rows(result)
    assert [(row.system, row.sweeps) for row in rows] == [(s, n) for s in SYSTEMS for n in (0, 2)]
    assert [row.trained for row in rows] == [False] * 6 + [True] * 2
    for plain, refined in zip(rows[::2], rows[1::2], strict=True):
        change = refined.difference(plain, "log_mel_distance")
        assert change["n"] == 2
        assert change["mean"] < 0, plain.system
    assert (folder / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_start_measures_only_what_is_missing(
    frontier: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(folder)
    pairs = counted(frontier, monkeypatch)
    frontier.main(OPTIONS)
    assert not pairs
    assert read(folder) == before
    cut = read(folder)
    del cut["values"]["Griffin-Lim"]["2"]["2.wav"]
    (folder / "frontier.json").write_text(json.dumps(cut))
    frontier.main(OPTIONS)
    assert len(pairs) == 1
    assert read(folder) == before


def test_other_weights_are_measured_anew(
    frontier: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = read(folder)
    stale = json.loads(json.dumps(known))
    stale["systems"]["tiny"]["weights"] = "others"
    (folder / "frontier.json").write_text(json.dumps(stale))
    pairs = counted(frontier, monkeypatch)
    frontier.main([*OPTIONS, "--only", "tiny"])
    assert len(pairs) == 4
    assert read(folder) == known


def test_a_checkpoint_joins_by_name_and_the_times_are_of_one_run(
    frontier: Any, folder: Path, tiny_flow: Callable[..., MdctFlow]
) -> None:
    kept = (folder / "frontier.json").read_text()
    tiny_flow("speech-16k", n_flows=2).save(folder / "other")
    words = ["--model", f"other={folder / 'other'}", "--only", "other"]
    frontier.main([*OPTIONS, *words])
    rows = frontier.report.rows(read(folder))
    assert [row.system for row in rows] == [name for name in [*SYSTEMS, "other"] for _ in range(2)]
    # Measured again without it, it has values and no time that would compare.
    frontier.main(["--times"])
    assert "other" in read(folder)["values"]
    shown = frontier.report.rows(read(folder))
    assert [row.system for row in shown] == [name for name in SYSTEMS for _ in range(2)]
    (folder / "frontier.json").write_text(kept)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--only", "vocos"], "no system 'vocos': choose from white noise"),
        (["--limit", "1"], "values of other recordings"),
        (["--sweeps", "-1"], "argument --sweeps"),
        (["--model", "runs/model"], "'runs/model' is not NAME=PATH"),
        (["--recordings", "nowhere"], "nowhere is not there"),
    ],
)
def test_bad_input_is_one_sentence(
    frontier: Any, folder: Path, words: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = read(folder)
    with pytest.raises(SystemExit):
        frontier.main([*OPTIONS, *words])
    assert message in capsys.readouterr().err
    assert read(folder) == before


def test_a_model_of_another_mel_or_of_a_name_that_is_taken_is_refused(
    frontier: Any, folder: Path, tiny_flow: Callable[..., MdctFlow]
) -> None:
    tiny_flow("ljspeech").save(folder / "wide")
    spec = tiny_flow("speech-16k").mel_spec
    with pytest.raises(ValueError, match="has another mel"):
        frontier.systems(spec, {"wide": str(folder / "wide")})
    with pytest.raises(ValueError, match="already"):
        frontier.systems(spec, {"tiny": str(folder / "tiny")})


def test_the_products_are_those_of_vocos(frontier: Any) -> None:
    macs = count_macs(frontier.vocos_products(10))
    assert macs == 10 * frontier.VOCOS_MACS_PER_FRAME
    assert macs / 10 == pytest.approx(13.5e6, rel=0.02)  # the parameters, once for each frame


def made(times: dict[str, dict[int, float]], pesq: dict[str, dict[int, float]]) -> dict[str, Any]:
    """A result of one recording, with these times in seconds and scores."""
    measure = {"title": "PESQ", "unit": "MOS", "better": "higher"}
    facts = {"threads": 1, "audio_seconds": 20.0}
    return {
        "measures": {"pesq": measure},
        "recordings": {"a.wav": 1.0},
        "recording": {"a.wav": {}},
        "systems": {name: {"trained": name == "flow"} for name in pesq},
        "values": {
            name: {str(n): {"a.wav": {"pesq": v}} for n, v in found.items()}
            for name, found in pesq.items()
        },
        "times": {
            "rows": [
                {"system": name, "sweeps": n, "processor_seconds": t, "wall_seconds": t, **facts}
                for name, found in times.items()
                for n, t in found.items()
            ]
        },
    }


def test_n_sweeps_cost_the_pass_and_n_times_a_sweep(frontier: Any) -> None:
    times = {"plain": {0: 0.01, 32: 0.042}, "learnt": {0: 0.01, 2: 0.03, 34: 0.062}}
    result = made(times, {})
    cost = frontier.report.cost
    assert [cost(result, "plain", n) for n in (0, 8, 64)] == pytest.approx([0.01, 0.018, 0.074])
    assert [cost(result, "learnt", n) for n in (1, 2, 4)] == pytest.approx([0.02, 0.03, 0.032])
    assert cost(result, "absent") is None


def test_the_best_of_a_budget_is_the_best_that_it_pays_for(frontier: Any) -> None:
    report = frontier.report
    times = {"noise": {0: 0.001, 10: 0.011}, "flow": {0: 0.004, 10: 0.014}, report.VOCOS: {0: 0.02}}
    scores = {"noise": {0: 1.5, 5: 3.0, 30: 4.0}, "flow": {0: 2.0, 5: 3.5}}
    table = report.budgets_table(made(times, scores)).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[2:6]] for line in table[2:]]
    assert cells == [
        ["nothing", "noise, 5 sweeps", "6.0", "3.00"],
        ["trained", "flow, 5 sweeps", "9.0", "3.50"],
        ["nothing", "noise, 5 sweeps", "6.0", "3.00"],
        ["trained", "flow, 0 sweeps", "4.0", "2.00"],
        ["nothing", "noise, 0 sweeps", "1.0", "1.50"],
        ["trained", "none is as fast", "", ""],
    ]
    text = report.learning_text(made(times, scores))
    assert "Training changes PESQ by +0.500 (paired)" in text
    assert "PESQ by -1.000" in text


def test_a_row_without_every_recording_or_without_a_time_is_not_shown(
    frontier: Any,
) -> None:
    result = made({"noise": {0: 0.001, 10: 0.011}}, {"noise": {0: 1.5, 2: 2.0}, "flow": {0: 2.0}})
    result["values"]["noise"]["2"] = {}
    assert [row.name for row in frontier.report.rows(result)] == ["noise, 0 sweeps"]


def test_every_text_is_made_of_the_result(frontier: Any, folder: Path) -> None:
    result = read(folder)
    for name, (_, make) in frontier.report.TABLES.items():
        lines = [line for line in make(result).splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, name
        assert "None" not in make(result)
    assert frontier.report.times_table(result).count(": a sweep") == len(SYSTEMS)


def test_nothing_is_drawn_of_nothing(
    frontier: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(frontier, "FILE", tmp_path / "frontier.json")
    with pytest.raises(SystemExit):
        frontier.main(["--draw"])
    assert "does not hold both quality and times yet" in capsys.readouterr().err
