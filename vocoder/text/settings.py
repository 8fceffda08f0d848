"""Limits and defaults of text to speech that can be imported without loading PyTorch."""

from __future__ import annotations

LONGEST_TEXT = 2000
"""Symbols that `AcousticModel.synthesize` takes at once."""

SLOWEST, FASTEST = 0.25, 4.0
"""Range of the speaking rate."""

LARGEST_PITCH = 12.0
"""Semitones that a voice can be raised or lowered by."""


def check_pitch(pitch: float) -> None:
    """Check a change of pitch.

    Raises:
        ValueError: it is not from -`LARGEST_PITCH` to `LARGEST_PITCH` semitones.
    """
    if not -LARGEST_PITCH <= pitch <= LARGEST_PITCH:
        raise ValueError(
            f"pitch is {pitch}: it must be from {-LARGEST_PITCH:g} (lower) to {LARGEST_PITCH:g} "
            "(higher) semitones; 0 leaves the voice as it is"
        )


def check_speaking_rate(speaking_rate: float) -> None:
    """Check a speaking rate.

    Raises:
        ValueError: the rate is not from `SLOWEST` to `FASTEST`.
    """
    if not SLOWEST <= speaking_rate <= FASTEST:
        raise ValueError(
            f"speaking_rate is {speaking_rate}: it must be from {SLOWEST:g} (slow) to "
            f"{FASTEST:g} (fast); 1 is the rate of the recordings"
        )
