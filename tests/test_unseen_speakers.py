"""The script that chooses recordings of unseen speakers from two Debian packages."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import scripts


@pytest.fixture(scope="module")
def build():
    with scripts("recipes/unseen-speakers") as script:
        yield script("build")


def write(path, seconds, sample_rate, seed, channels=1):
    noise = np.random.default_rng(seed).normal(0, 0.1, (round(seconds * sample_rate), channels))
    noise[: len(noise) // 8] *= 1e-3  # a pause
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise, sample_rate)


@pytest.fixture(scope="module")
def packages(tmp_path_factory, build):
    """Two folders laid out as the packages; two recordings of each voice are too short."""
    fillets, stamps = tmp_path_factory.mktemp("fillets"), tmp_path_factory.mktemp("stamps")
    for number, voice in enumerate(build.VOICES):
        for take in range(voice.development + voice.test + 2):
            seconds, seed = 1.0 if take < 2 else 2.2, 100 * number + take
            if voice.source.startswith("font_"):
                level = "pub" if voice.level == "*" else voice.level
                name = f"{voice.name}-{take}"
                write(fillets / "sound" / level / "cs" / f"{name}.ogg", seconds, 22050, seed)
                script = fillets / "script" / level / "dialogs_cs.lua"
                script.parent.mkdir(parents=True, exist_ok=True)
                with script.open("a", encoding="utf-8") as file:
                    file.write(f'dialogId("{name}", "{voice.source}", "English")\n')
                    file.write(f'dialogStr("Česky \\"{take}\\"")\n\n')
            else:
                path = stamps / "animals" / f"{take}_desc_{voice.source}.ogg"
                write(path, seconds, 44100, seed, channels=2)
                with path.with_name(f"{take}.txt").open("a", encoding="utf-8") as file:
                    file.write(f"Stamp.\n{voice.source}.utf8=текст {take}\n")
    return fillets, stamps


def rows_of(folder):
    with (folder / "list.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_both_halves_are_as_planned(build, packages, tmp_path):
    folder = tmp_path / "first"
    summary = build.build(*packages, folder)
    rows = rows_of(folder)
    for half in build.HALVES:
        planned = {v.name: getattr(v, half) for v in build.VOICES}
        mine = [row for row in rows if row["half"] == half]
        assert f"{half}: {sum(planned.values())} recordings" in summary
        for name, count in planned.items():
            assert sum(row["voice"] == name for row in mine) == count
        files = {p.relative_to(folder / half).as_posix() for p in (folder / half).rglob("*.wav")}
        assert files == {row["file"] for row in mine}
    names = [row["file"] for row in rows]
    assert len(set(names)) == len(names)
    for path in folder.rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.channels, info.subtype) == (1, "PCM_16")
        assert info.samplerate == {"22k": 22050, "44k": 44100}[path.parent.name]
        assert build.SECONDS[0] <= info.duration <= build.SECONDS[1]
    for row in rows:
        name = Path(row["file"]).stem
        czech = f'Česky "{name.rpartition("-")[2]}"'
        text = czech if row["language"] == "Czech" else f"текст {name.split('_')[1]}"
        assert row["text"] == text
    # The selection is the same every time.
    build.build(*packages, tmp_path / "again")
    assert rows_of(tmp_path / "again") == rows


def test_clipped_silent_noisy_and_short_recordings_are_refused(build):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 3 * 22050).astype(np.float32)
    speech = noise.copy()
    speech[:8000] *= 1e-3  # a pause
    assert build.usable(speech, 22050)
    assert not build.usable(noise, 22050)
    assert not build.usable(speech[:22050], 22050)
    assert not build.usable(0.05 * speech, 22050)
    assert not build.usable(np.clip(8 * speech, -1, 1), 22050)


def test_without_the_packages_nothing_is_written(build, tmp_path):
    with pytest.raises(FileNotFoundError, match="install Debian's packages fillets-ng-data"):
        build.build(tmp_path / "no", tmp_path / "no", tmp_path / "out")
    assert not (tmp_path / "out").exists()
