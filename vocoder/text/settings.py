"""Limits and defaults of text to speech that can be imported without loading PyTorch."""

from __future__ import annotations

LONGEST_TEXT = 2000
"""Symbols that `AcousticModel.synthesize` takes at once."""

SLOWEST, FASTEST = 0.25, 4.0
"""Range of the speaking rate."""

ACOUSTIC_TEMPERATURE = 0.333
"""Default temperature of the acoustic model, the one Glow-TTS (Kim et al., 2020) was rated at."""


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
