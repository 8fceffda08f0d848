"""The voices of the corpus: those of Kokoro-82M, blends of two of them, and shifted ones.

A voice is written the way the ids of its utterances begin:

    af_heart            a voice of Kokoro-82M: language (a and b American and British English; e, f,
                        h, i, j, p, z Spanish, French, Hindi, Italian, Japanese, Portuguese,
                        Chinese), sex (f, m), and name
    af_heart+bf_emma    a blend: the mean of two style vectors, which is a voice of its own
    am_puck@84          am_puck with pitch and formants at 84 %, by resampling
    heart               hibari-tts's copy of af_heart: a smaller, much faster network
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sentences import Sentence

_KOKORO = re.compile(r"([a-z]{2}_[a-z]+)(?:\+([a-z]{2}_[a-z]+))?(?:@([1-9][0-9]{1,2}))?")


@dataclass(frozen=True)
class Voice:
    """What a voice of Kokoro-82M consists of.

    Args:
        styles: names of one or two voices, whose style vectors are averaged.
        percent: factor on pitch and formants, in percent.
    """

    styles: tuple[str, ...]
    percent: int = 100

    @classmethod
    def parse(cls, name: str) -> Voice:
        """The voice written as `name`.

        Raises:
            ValueError: the name has another form than those above.
        """
        match = _KOKORO.fullmatch(name)
        if match is None:
            raise ValueError(
                f"{name!r} is not a voice: write af_heart, af_heart+bf_emma or am_puck@84"
            )
        first, second, percent = match.groups()
        return cls((first, second) if second else (first,), int(percent or 100))

    @property
    def british(self) -> bool:
        return self.styles[0].startswith("b")


FAST = "heart"
"""The voice of hibari-tts, the only one that does not come from Kokoro-82M itself."""

_BEST = ("af_heart", "af_bella", "bf_emma")
_ENGLISH = (
    "af_alloy", "af_aoede", "af_jessica", "af_kore", "af_nicole", "af_nova", "af_river", "af_sky",
    "am_echo", "am_eric", "am_liam", "am_michael", "am_onyx", "am_puck",
    "bf_alice", "bf_lily", "bm_daniel", "bm_george", "bm_lewis",
)  # fmt: skip
_POOR = ("am_adam", "am_santa")
_FOREIGN = (
    "ef_dora", "em_alex", "ff_siwis", "hf_alpha", "hf_beta", "hm_omega", "hm_psi", "if_sara",
    "im_nicola", "jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "pf_dora", "pm_alex",
    "zf_xiaobei", "zf_xiaoxiao", "zm_yunjian", "zm_yunxi",
)  # fmt: skip
_BLENDS = (
    "af_heart+bf_emma", "af_bella+ff_siwis", "af_nicole+bf_alice", "af_aoede+bf_lily",
    "af_kore+if_sara", "af_nova+zf_xiaoxiao", "af_sky+hf_alpha", "af_alloy+jf_gongitsune",
    "am_michael+bm_george", "am_puck+bm_lewis", "am_onyx+em_alex", "am_echo+hm_omega",
    "bm_daniel+pm_alex", "am_eric+zm_yunjian", "am_michael+am_onyx", "am_liam+im_nicola",
    "bf_emma+bm_george", "af_heart+am_puck", "af_nicole+am_michael",
)  # fmt: skip
# Of voices that reach 11 kHz: those that end at 10 kHz, such as bm_george, would end below 9.
_SHIFTED = (
    "am_michael@88", "am_puck@84", "am_onyx@90", "am_echo@85", "bm_lewis@90", "zm_yunjian@85",
    "am_michael+bm_lewis@84", "am_michael+am_puck@87", "am_echo+hm_omega@86", "am_onyx+bm_lewis@92",
    "af_heart@110", "af_bella@108", "bf_emma@112", "am_puck@110",
)  # fmt: skip

TRAINING: dict[str, float] = {
    **dict.fromkeys(_BEST, 2.0),
    **dict.fromkeys(_ENGLISH, 1.0),
    **dict.fromkeys(_POOR, 0.25),
    **dict.fromkeys(_FOREIGN, 0.5),
    **dict.fromkeys(_BLENDS, 1.0),
    **dict.fromkeys(_SHIFTED, 1.0),
}
"""Voices to train on, and the share of the utterances that each speaks, relative to the others.

Of the English voices, those that Kokoro's authors grade best speak most (except for af_nicole, who
whispers), and the two graded worst least. Most of the shifted voices are men lowered further,
because low voices are rare among Kokoro's.
"""

UNSEEN: dict[str, float] = dict.fromkeys(
    ("af_sarah", "bf_isabella", "am_fenrir", "jm_kumo", "af_sarah+bf_isabella", "bm_fable@85"), 1.0
)
"""Voices that nothing is trained on, nor on any blend or shift of their styles."""


def in_turn(
    dealt: Mapping[str, Sequence[Sentence]], shares: Mapping[str, float]
) -> list[tuple[str, Sentence]]:
    """All sentences in one order, every beginning of which is divided between voices by share.

    Sentence k of a voice, k = 0, 1, ..., comes at time (k + 1/2) / share.

    Args:
        dealt: sentences of each voice.
        shares: voice -> relative share; ties are in the order of this mapping.

    Returns:
        Pairs of a voice and its sentence.
    """
    timed = [
        ((k + 0.5) / shares[voice], place, voice, sentence)
        for place, voice in enumerate(shares)
        for k, sentence in enumerate(dealt[voice])
    ]
    timed.sort(key=lambda item: item[:2])
    return [(voice, sentence) for _, _, voice, sentence in timed]
