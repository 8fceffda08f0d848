"""The script that chooses recordings of unseen speakers from two Debian packages."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.conftest import scripts


@pytest.fixture(scope="module")
def build() -> Iterator[Any]:
    with scripts("recipes/unseen-speakers") as script:
        yield script("build")


def write(path: Path, seconds: float, sample_rate: int, seed: int, channels: int = 1) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.1, (round(seconds * sample_rate), channels))
    noise[: len(noise) // 8] *= 1e-3  # a pause
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise, sample_rate)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, build: Any) -> tuple[Path, Path]:
    """Two folders laid out as the packages; two recordings of each voice are too short."""
    fillets, stamps = tmp_path_factory.mktemp("fillets"), tmp_path_factory.mktemp("stamps")
    for number, voice in enumerate(build.VOICES):
        lines = []
        for take in range(voice.development + voice.test + 2):
            seconds, seed = 1.0 if take < 2 else 2.2, 100 * number + take
            if voice.source.startswith("font_"):
                level = "pub" if voice.level == "*" else voice.level
                lines += [f'dialogId("{voice.name}-{take}", "{voice.source}", "English")',
                          f'dialogStr("Česky \\"{take}\\"")', ""]  # fmt: skip
                path = fillets / "sound" / level / "cs" / f"{voice.name}-{take}.ogg"
                write(path, seconds, 22050, seed)
            else:
                path = stamps / "animals" / f"{take}_desc_{voice.source}.ogg"
                write(path, seconds, 44100, seed, channels=2)
                with path.with_name(f"{take}.txt").open("a", encoding="utf-8") as file:
                    file.write(f"Stamp.\n{voice.source}.utf8=текст {take}\n")
        if lines:
            script = fillets / "script" / level / "dialogs_cs.lua"
            script.parent.mkdir(parents=True, exist_ok=True)
            with script.open("a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
    return fillets, stamps


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "list.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, build: Any, packages: tuple[Path, Path]
) -> tuple[Path, str]:
    """The folder built from the packages, and the line about it."""
    folder = tmp_path_factory.mktemp("unseen-speakers")
    return folder, build.build(*packages, folder)


def test_the_halves_are_disjoint_and_as_large_as_planned(
    build: Any, built: tuple[Path, str]
) -> None:
    folder, summary = built
    rows = rows_of(folder)
    for half in build.HALVES:
        planned = {v.name: getattr(v, half) for v in build.VOICES if getattr(v, half)}
        mine = [row for row in rows if row["half"] == half]
        assert f"{half}: {sum(planned.values())} recordings" in summary
        for name, count in planned.items():
            assert sum(row["voice"] == name for row in mine) == count
        files = {p.relative_to(folder / half).as_posix() for p in (folder / half).rglob("*.wav")}
        assert files == {row["file"] for row in mine}
    names = [row["file"] for row in rows]
    assert len(set(names)) == len(names)
    assert len({row["language"] for row in rows}) >= 3


def test_recordings_are_mono_at_their_own_rate_and_of_usable_length(
    build: Any, built: tuple[Path, str]
) -> None:
    for path in built[0].rglob("*.wav"):
        info = soundfile.info(path)
        assert info.channels == 1
        assert info.subtype == "PCM_16"
        assert info.samplerate == {"22k": 22050, "44k": 44100}[path.parent.name]
        assert build.SECONDS[0] <= info.duration <= build.SECONDS[1]


def test_texts_are_those_of_the_recordings(built: tuple[Path, str]) -> None:
    for row in rows_of(built[0]):
        name = Path(row["file"]).stem
        if row["language"] == "Czech":
            assert row["text"] == f'Česky "{name.rpartition("-")[2]}"'
        else:
            assert row["text"] == f"текст {name.split('_')[1]}"


def test_the_selection_is_the_same_every_time(
    build: Any, packages: tuple[Path, Path], built: tuple[Path, str], tmp_path: Path
) -> None:
    build.build(*packages, tmp_path)
    assert rows_of(tmp_path) == rows_of(built[0])


def test_clipped_silent_noisy_and_short_recordings_are_refused(build: Any) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 3 * 22050).astype(np.float32)
    speech = noise.copy()
    speech[:8000] *= 1e-3  # a pause
    assert build.usable(speech, 22050)
    assert not build.usable(noise, 22050)
    assert not build.usable(speech[:22050], 22050)
    assert not build.usable(0.05 * speech, 22050)
    assert not build.usable(np.clip(8 * speech, -1, 1), 22050)


def test_without_the_packages_nothing_is_written(build: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install Debian's packages fillets-ng-data"):
        build.build(tmp_path / "no", tmp_path / "no", tmp_path / "out")
    assert not (tmp_path / "out").exists()
