"""English text to phonemes: sentences, normalised words, symbols. Joins three small libraries that
need no network, hibari-tts, normt2s and sentencex (docs/text.md says why these), maps their output
to a closed inventory of symbols, and refuses what cannot be read.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from vocoder.text.written import UNFINISHED, plain_characters, spelled_out

if TYPE_CHECKING:
    from hibari.g2p import G2P
    from normt2s import Normalizer


class TextError(ValueError):
    """A text cannot be read aloud; the message says why."""


MAX_CHARACTERS = 1000
"""Longest text of one call, in characters; `split_sentences` cuts up longer ones."""

LONGEST_TEXT = 2000
"""Symbols that `AcousticModel.synthesize` takes at once."""

MAX_SENTENCE = 400
"""Longest sentence that `split_sentences` leaves whole, in characters."""

WORD_BOUNDARY = " "
PUNCTUATION = (".", ",", "?", "!", ";", ":")
CONSONANTS = ("b", "d", "dʒ", "f", "h", "j", "k", "l", "m", "n", "p", "s", "t", "tʃ", "v", "w", "z",
              "ð", "ŋ", "ɡ", "ɹ", "ɾ", "ʃ", "ʒ", "θ")  # fmt: skip
VOWELS = ("aɪ", "aʊ", "eɪ", "i", "oʊ", "u", "æ", "ɑ", "ɔ", "ɔɪ", "ɛ", "ɜ", "ɪ", "ʊ", "ʌ")
REDUCED_VOWELS = ("ə", "ᵊ", "ᵻ")  # never stressed
_STRESSED = (stress + vowel for vowel in VOWELS for stress in ("", "ˌ", "ˈ"))

SYMBOLS = (*PUNCTUATION, WORD_BOUNDARY, *CONSONANTS, *REDUCED_VOWELS, *_STRESSED)
"""Every symbol that `phonemes` can give, in a fixed order: the input table of acoustic models.

A vowel carries its stress (`ˈeɪ`, `ˌeɪ`, `eɪ`), so each symbol is a stretch of sound or a pause, as
an alignment of symbols to frames assumes.
"""

# Of hibari-tts; the last two lines are rare variants from its network for unknown words.
_IPA = {
    "A": "eɪ", "I": "aɪ", "O": "oʊ", "W": "aʊ", "Y": "ɔɪ", "T": "ɾ", "ʤ": "dʒ", "ʧ": "tʃ",
    "ɐ": "ə", "…": ".", "—": ",", "–": ",",
    "a": "ɑ", "y": "i", "ʀ": "ɹ", "ʔ": "t", "ɒ": "ɑ", "ɚ": "ə", "g": "ɡ", "r": "ɹ", "e": "ɛ",
    "o": "oʊ", "x": "k",
}  # fmt: skip
_PHONES = frozenset(CONSONANTS + REDUCED_VOWELS)
_VOWELS = frozenset(VOWELS)

# Four digits alone are a year, as in hibari-tts; normt2s expects a preposition before a year.
_YEAR = re.compile(r"(?<![\w.,$£€#-])(1[1-9]\d\d|20\d\d)(?![\w%]|[.,]\d)")
_NO = re.compile(r"(?<=\bno)(?=\.(?!\s*\d))", re.I)  # hibari-tts reads any "no." as "number"
_ITEM = re.compile(r"^[ \t]*(?:\d{1,3}[.)]|[-*•])[ \t]+(?=\S)", re.M)
_LIST_NUMBER = re.compile(r"^\d{1,3}\.(?=\s[^\W\d_])")
_HELD = "\ue000"  # of the private use area: no text has it, and no sentence ends with it
PARAGRAPHS = re.compile(r"\n\s*\n")
_CLAUSE_END = re.compile(r"(?<=[,;:—])\s+")
_FAILURES = ValueError, LookupError, ArithmeticError, RecursionError  # of the libraries


@lru_cache(maxsize=1)
def _g2p() -> G2P:
    from hibari.g2p import G2P

    return G2P()


@lru_cache(maxsize=1)
def _number_words() -> Normalizer:
    from normt2s import Normalizer
    from normt2s.langs.en import English

    class SpokenEnglish(English):
        def time(self, hour: int, minute: int, suffix: str | None) -> str:
            # "a m" would be read as an article and a letter.
            words = super().time(hour, minute, suffix)
            return re.sub(r" ([ap]) m$", lambda match: f" {match[1].upper()}.M.", words)

    normalizer = Normalizer(SpokenEnglish(), latex="keep")
    normalizer.lexicon.punctuation.clear()  # `phonemes` turns dashes into pauses
    for spelled in ("U.S.", "U.K."):  # the pronunciation dictionary knows their stress
        normalizer.lexicon.abbreviations.pop(spelled, None)
    return normalizer


def normalise(text: str) -> str:
    """Write out numbers, money, dates, times and units as they are spoken: "Dr. Smith paid $3.50."
    becomes "Dr Smith paid three dollars and fifty cents." White space becomes single spaces.

    Raises:
        TextError: only white space, longer than `MAX_CHARACTERS`, or something that cannot be read.
    """
    from hibari.g2p import numbers
    from hibari.g2p.normalize import normalize

    if not text.strip():
        raise TextError("there is no text to read: give at least one word")
    if len(text) > MAX_CHARACTERS:
        raise TextError(
            f"the text has {len(text):,} characters, more than the {MAX_CHARACTERS:,} that can be "
            "read at once: split it into sentences first"
        )
    text = spelled_out(plain_characters(text))
    try:
        text = normalize(_NO.sub(_HELD, text)).replace(_HELD, "")
        text = _YEAR.sub(lambda match: numbers.year(int(match[1])).replace(",", ""), text)
        return _number_words().normalize(text).strip()
    except _FAILURES as error:
        raise TextError(f"{_quoted(text)} cannot be read ({error}): write it in words") from error


def phonemes(text: str) -> list[str]:
    """The sounds of an English sentence in General American, as members of `SYMBOLS`.

    Phonemes are in IPA, each vowel with its stress. A space stands between words, and one of
    `. , ? ! ; :` in its place where the text pauses. A dash counts as a comma, an ellipsis as a
    full stop; quotation marks and brackets are dropped. A full stop is added where the text ends
    without punctuation: "Hello, Bob" gives `h ə l ˈoʊ , b ˈɑ b .`, with no spaces around the comma.

    Raises:
        TextError: no text, too much (`MAX_CHARACTERS`), nothing that can be pronounced, or letters
            that are not Latin.
    """
    words = normalise(text)
    _refuse_other_scripts(words)
    try:
        read = list(_symbols(_g2p()(words, normalize_text=False)))
    except _FAILURES as error:
        raise TextError(f"{_quoted(text)} cannot be read ({error}): write it in words") from error
    symbols: list[str] = []
    for between, run in itertools.groupby(read, lambda s: s == WORD_BOUNDARY or s in PUNCTUATION):
        if not between:
            symbols.extend(run)
        elif symbols:
            symbols.append(next((s for s in run if s in PUNCTUATION), WORD_BOUNDARY))
    if symbols[-1:] == [WORD_BOUNDARY]:
        symbols.pop()
    if not symbols:
        raise TextError(f"nothing in {_quoted(text)} can be pronounced: give at least one word")
    if symbols[-1] not in PUNCTUATION:
        symbols.append(".")
    return symbols


def _symbols(pronunciation: str) -> Iterator[str]:
    """Without brackets, quotation marks, and marks from the unknown-word network."""
    stress = ""
    for symbol in (_IPA.get(character, character) for character in pronunciation):
        if symbol in ("ˈ", "ˌ"):
            stress = symbol
        elif symbol in _VOWELS:
            yield stress + symbol
            stress = ""
        elif symbol in _PHONES or symbol in PUNCTUATION:
            yield symbol
            if symbol in REDUCED_VOWELS:
                stress = ""
        elif symbol.isspace():
            yield WORD_BOUNDARY


def _refuse_other_scripts(text: str) -> None:
    for character in text:
        if character.isalpha() and not unicodedata.name(character, "").startswith(
            ("LATIN", "MODIFIER LETTER", "FEMININE ORDINAL", "MASCULINE ORDINAL")
        ):
            word = next(word for word in text.split() if character in word)
            script = unicodedata.name(character, "unknown").split()[0].capitalize()
            script = script.replace("Cjk", "Chinese")
            raise TextError(
                f"{_quoted(word)} is written in {script} letters: only English can be read"
            )


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def split_sentences(text: str, max_characters: int = MAX_SENTENCE) -> list[str]:
    """The sentences of a text, in order, each without white space around it.

    A line break is white space, except before the items of a list ("2. Eggs", "- eggs"); an empty
    line always ends a sentence. A sentence longer than `max_characters` is cut after the last
    comma, semicolon, colon or dash that fits, or else between words.
    """
    import sentencex

    def hold(match: re.Match[str]) -> str:
        return match[0].replace(".", _HELD)

    sentences: list[str] = []
    for paragraph in PARAGRAPHS.split(text):
        starts = [match.start() for match in _ITEM.finditer(paragraph)]
        bounds = [0, *(starts if len(starts) > 1 else []), len(paragraph)]
        for a, b in itertools.pairwise(bounds):
            held = _LIST_NUMBER.sub(hold, UNFINISHED.sub(hold, " ".join(paragraph[a:b].split())))
            for sentence in sentencex.segment("en", held):
                sentences.extend(_cut(sentence.strip().replace(_HELD, "."), max_characters))
    return sentences


def _cut(sentence: str, max_characters: int) -> Iterator[str]:
    while len(sentence) > max_characters:
        head = sentence[: max_characters + 1]
        ends = [match.end() for match in _CLAUSE_END.finditer(head)]
        at = ends[-1] if ends else head.rfind(" ") + 1 or max_characters
        yield sentence[:at].strip()
        sentence = sentence[at:].strip()
    if sentence:
        yield sentence
