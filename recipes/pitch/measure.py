"""Measures the bundled pitch network against probabilistic YIN.

    python recipes/pitch/measure.py data/unheard-speech/development

For every preset: the F1 score of voicing; and over the frames that both call voiced, the median
error of F0 in cents, the share off by more than 50 cents, and the share off by an octave.
Recordings below a preset's sample rate are left out of it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr
import torch
from train import LABEL_RATE, LABEL_STEP, Recording, find, label

from vocoder.audio import PRESETS, LogMel
from vocoder.nn.pitch import load_pitch


@dataclass
class Count:
    """Counts over all frames of a preset."""

    voiced: int = 0
    found: int = 0
    both: int = 0
    frames: int = 0
    errors: list[np.ndarray] = field(default_factory=list)

    def add(self, f0: np.ndarray, voicing: np.ndarray, truth: np.ndarray) -> None:
        voiced, found = truth > 0, voicing > 0.5
        both = voiced & found
        self.voiced += int(voiced.sum())
        self.found += int(found.sum())
        self.both += int(both.sum())
        self.frames += len(truth)
        self.errors.append(np.abs(1200 * np.log2(f0[both] / truth[both])))

    def row(self) -> str:
        errors = np.concatenate(self.errors)
        f1 = 2 * self.both / max(self.voiced + self.found, 1)
        octaves = np.mean(np.abs(errors - 1200) < 100)
        return (
            f"| {self.frames} | {f1:.3f} | {1 - self.both / self.voiced:.3f} | "
            f"{1 - self.both / max(self.found, 1):.3f} | {np.median(errors):.1f} | "
            f"{np.mean(errors > 50):.3f} | {octaves:.4f} |"
        )


def measure(recordings: list[Recording], preset: str) -> Count:
    """The counts over the recordings whose sample rate is enough for the preset."""
    spec = PRESETS[preset]
    network, log_mel = load_pitch(spec), LogMel(spec)
    count = Count()
    for recording in recordings:
        if recording.sample_rate < spec.sample_rate:
            continue
        audio = soxr.resample(recording.audio, recording.sample_rate, spec.sample_rate)
        with torch.no_grad():
            f0, voicing = network(log_mel(torch.from_numpy(audio).unsqueeze(0)))
        centres = (np.arange(f0.shape[1]) + 0.5) * spec.hop_length / spec.sample_rate
        nearest = np.rint(centres * LABEL_RATE / LABEL_STEP).astype(int)
        truth = recording.f0[nearest.clip(max=len(recording.f0) - 1)]
        count.add(f0[0].numpy(), voicing[0].numpy(), truth)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recordings", type=Path, nargs="+")
    arguments = parser.parse_args()
    try:
        recordings = [label(path) for path in find(arguments.recordings)]
    except (OSError, ValueError) as error:
        sys.exit(f"measure.py: {error}")
    print("| preset | frames | F1 | missed | false | median, cents | over 50 cents | octave |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for preset in PRESETS:
        if any(r.sample_rate >= PRESETS[preset].sample_rate for r in recordings):
            print(f"| {preset} {measure(recordings, preset).row()}", flush=True)


if __name__ == "__main__":
    main()
