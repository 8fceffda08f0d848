"""The README is true: its Python runs, its commands and files exist, its tables are measured."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer
import yaml

import vocoder
from vocoder import MelSpec, cli
from vocoder.audio import PRESETS
from vocoder.models import WaveGlow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README's examples name: a model and a recording."""
    monkeypatch.chdir(tmp_path)
    model = WaveGlow(
        squeeze="lapped",
        n_group=256,
        n_flows=1,
        n_early_every=0,
        channels=8,
        n_layers=1,
        conditional_scale=True,
    )
    model.save("runs/lapped/model")
    torch.manual_seed(0)
    vocoder.write_audio("in.wav", 0.1 * torch.randn(22050), 22050)
    parity = ROOT / "tests/data/waveglow_parity_small.safetensors"
    (tmp_path / "waveglow.safetensors").write_bytes(parity.read_bytes())
    return tmp_path


def test_the_python_examples_run(workplace: Path) -> None:
    names: dict[str, object] = {}
    code = blocks("python")
    assert len(code) >= 2
    for block in code:
        exec(compile(block, "README.md", "exec"), names)
    assert (workplace / "out.wav").exists()


def test_every_vocoder_command_parses() -> None:
    app = typer.main.get_command(cli.app)
    seen = 0
    for block in blocks("bash"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["vocoder"]:
                command = app.commands[words[1]]  # type: ignore[attr-defined]
                command.make_context(words[1], words[2:]).close()
                seen += 1
    assert seen >= 3


def test_every_make_target_and_linked_file_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("bash")), re.MULTILINE)
    assert {"sound", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link


def test_the_table_of_presets_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", README, re.MULTILINE)
    presets = {name: cells.split(" | ") for name, cells in rows if name in PRESETS}
    assert set(presets) == set(PRESETS)
    for name, cells in presets.items():
        spec = MelSpec.preset(name)
        low, high = f"{spec.fmin:,.0f}", f"{spec.fmax:,.0f}"
        numbers = [spec.sample_rate, spec.n_fft, spec.hop_length, spec.n_mels]
        assert cells == [*(f"{n:,}" for n in numbers), f"{low} – {high}"]
        assert spec.n_fft == spec.win_length


def test_the_look_ahead_is_that_of_the_default_flow() -> None:
    config = yaml.safe_load((ROOT / "recipes/ljspeech/config/mdct.yaml").read_text())
    model = WaveGlow(**config["model"]["init_args"])
    frames = model.context_frames[1]
    seconds = frames * model.mel_spec.hop_length / model.sample_rate
    assert f"looks {frames} frames ahead ({seconds:.1f} s at 22,050 Hz)" in README
