"""The study of architectures: its densities, counting and document; and a claim measured anew."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import scripts

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "recipes" / "families"


@pytest.fixture(scope="module")
def study() -> Iterator[Any]:
    with scripts("recipes/families") as script:
        yield script("study")


@pytest.fixture
def toys(study: Any) -> Any:
    return study.import_module("toys")


def test_every_file_is_a_claim_and_in_the_document(study: Any) -> None:
    files = FOLDER.glob("*.py")
    assert {f.stem for f in files if "\ndef measure(" in f.read_text()} == set(study.CLAIMS)
    assert {path.stem for path in study.RESULTS.iterdir()} == set(study.CLAIMS)
    assert {path.stem for path in study.PICTURES.iterdir()} == set(study.CLAIMS)


def test_the_document_is_that_of_the_figures(study: Any) -> None:
    text = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert text == study.document(), "run python recipes/families/study.py --document"


def test_a_figure_is_shown_by_its_path_and_format(study: Any) -> None:
    figures = {"ring": {"nats": -1.256, "modes": [7, 8]}, "share": 0.5}
    text = "On the ring {{ring/nats:.2f}}, {{ring/modes:each}} or {{ring/modes/0}} modes,\n"
    text += "{{ring/modes:.1f}} on average, {{share:.0%}}."
    expected = "On the ring -1.26, 7, 8 or 7 modes, 7.5 on average, 50 %."
    assert study.filled(text, figures) == expected
    assert study.filled("$$\nx\n$$", figures) == "$$\nx\n$$"


def test_a_claim_measured_anew_gives_its_recorded_figures(study: Any, tmp_path: Path) -> None:
    name = "change_of_variables"
    figures = study.run(name, 0, tmp_path, tmp_path)["figures"]
    recorded = json.loads((study.RESULTS / f"{name}.json").read_text())["figures"]
    assert figures == pytest.approx(recorded, rel=1e-3)
    assert figures["density"] == pytest.approx(0.5)
    assert figures["integral"] == pytest.approx(1, abs=1e-3)
    assert figures["largest_error_of_area"] < 0.01
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_only_alternation_reaches_every_variable(study: Any) -> None:
    claim = study.import_module("alternation")
    x = torch.randn(3, claim.CHANNELS, claim.TIME, dtype=torch.float64)
    for kind in claim.KINDS:
        torch.manual_seed(0)
        z, _ = claim.stack(kind, claim.Neighbours, claim.CHANNELS).double()(x)
        same = (z == x).all(dim=0)
        assert int(same.sum()) == (x[0].numel() // 2 if kind == "none" else 0), kind


def test_every_model_that_has_a_density_integrates_to_one(study: Any) -> None:
    found = []
    for name in ("coupling", "order"):
        figures = json.loads((study.RESULTS / f"{name}.json").read_text())["figures"]
        for own in figures.values():
            kinds = own.values() if name == "coupling" else [own]
            found += [kind["integral"] for kind in kinds if isinstance(kind, dict)]
    assert len(found) == 10
    assert found == pytest.approx([1] * 10, abs=0.02)


def test_the_toy_densities_are_those_of_their_samples(toys: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for draw, log_density in (
        (toys.ring, toys.ring_log_density),
        (toys.funnel, toys.funnel_log_density),
    ):
        assert toys.integral(log_density, -20, 20, 800) == pytest.approx(1, abs=0.005)
        points = draw(50_000, generator)
        inside = ((points > 0) & (points < 2)).all(dim=1).float().mean()
        mass = toys.on_grid(log_density, 0, 2, 200).sum() * (2 / 200) ** 2
        assert float(inside) == pytest.approx(float(mass), abs=0.01)


def test_modes_are_counted(toys: Any) -> None:
    points = toys.ring(4000, torch.Generator().manual_seed(0))[..., 0]
    assert toys.modes_found(points) == toys.MODES
    assert toys.share_near_modes(points) == pytest.approx(1 - math.exp(-4.5), abs=0.005)
    assert toys.modes_found(points[points[:, 0] > 1.8]) == 1
    assert toys.modes_found(torch.zeros(10, 2)) == 0
    assert toys.share_near_modes(torch.zeros(10, 2)) == 0


def test_networks_side_by_side_are_those_of_each_seed_alone(toys: Any) -> None:
    together = toys.Networks([3, 5], 2, 1, channels=7)
    alone = toys.Networks([5], 2, 1, channels=7)
    x = torch.randn(2, 11, 2)
    torch.testing.assert_close(together(x)[1:], alone(x[1:]))


def test_each_variable_of_the_masked_network_depends_on_those_before_it(study: Any) -> None:
    claim = study.import_module("dimension")
    torch.manual_seed(0)
    masked = claim.Masked(6)
    jacobian = torch.autograd.functional.jacobian(masked.network, torch.randn(6))
    for part in jacobian.split(6):
        assert (part.triu() == 0).all()
        assert (part.tril(-1) != 0).sum() == 15
    figures, _ = claim.measure(0, (4, 8), 1e-3)
    assert all(len(times) == 2 for times in figures["milliseconds"].values())


def test_an_unknown_claim_is_refused(
    study: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["study.py", "nothing"])
    with pytest.raises(SystemExit):
        study.main()
    assert "there is no claim nothing" in capsys.readouterr().err
