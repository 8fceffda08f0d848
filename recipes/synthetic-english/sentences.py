"""English sentences to speak, from texts that Debian packages: reads and splits the texts, keeps
the sentences that can be read aloud without guessing, and assigns them to voices.
"""

import gzip
import hashlib
import math
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

JARGON = Path("/usr/share/doc/jargon-text/jargon.txt.gz")
FORTUNES = Path("/usr/share/games/fortunes")
FORTUNE_TOPICS = (
    "computers", "education", "food", "linux", "literature", "magic", "medicine", "paradoxum",
    "platitudes", "science", "tao", "wisdom", "work",
)  # fmt: skip

CHARACTERS = (50, 140)
"""Shortest and longest sentence: 2 to 12 s at 12 to 18 characters a second."""

FEWEST_WORDS = 5

ABBREVIATIONS = {
    "Mr.": "Mister", "Mrs.": "Missus", "Dr.": "Doctor", "St.": "Saint", "Prof.": "Professor",
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus",
    "cf.": "compare", "esp.": "especially", "approx.": "approximately",
}  # fmt: skip

SMALL_CAPITALS = {"LORD", "GOD", "JESUS", "JEHOVAH", "CHRIST", "JAH", "HOLINESS", "BRANCH"}
"""Words that the King James Bible prints in capitals; any other such word may be an acronym."""

_ABBREVIATION = re.compile(
    r"(?<![\w.])(" + "|".join(map(re.escape, ABBREVIATIONS)) + r")(?!\w)", re.IGNORECASE
)
_END = re.compile(r"""(?<=[.!?])["')]*\s+(?=["'(]*[A-Z])""")
_TITLE = re.compile(r"(?:^|[\s(\"])(?:[A-Z]|Mr|Mrs|Dr|St|Prof|vs|cf|esp|approx|e\.g|i\.e)\.$")
_READABLE = re.compile(r"[A-Z][A-Za-z',;: -]*[.!?]")
_TYPOGRAPHY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": " -- ", "–": " -- "})


@dataclass(frozen=True)
class Sentence:
    """A sentence as printed, and as read aloud: words, apostrophes, hyphens and , ; : . ! ?"""

    text: str
    normalised: str

    @property
    def key(self) -> str:
        """Ten hexadecimal digits that depend on the spoken words alone."""
        words = " ".join(re.findall(r"[a-z']+", self.normalised.lower()))
        return hashlib.sha256(words.encode()).hexdigest()[:10]


def split_sentences(paragraph: str) -> list[str]:
    """Cut a paragraph after . ! or ? before a capital, but not after titles and initials."""
    sentences: list[str] = []
    start = 0
    for match in _END.finditer(paragraph):
        if _TITLE.search(paragraph[start : match.start()]):
            continue
        sentences.append(paragraph[start : match.end()].strip())
        start = match.end()
    return [s for s in [*sentences, paragraph[start:].strip()] if s]


def normalise(text: str) -> str | None:
    """The sentence as read aloud, or None if that would take guessing.

    Figures, symbols, acronyms, code and nested sentences are refused rather than expanded: there is
    more than enough text.
    """
    text = text.translate(_TYPOGRAPHY)
    text = _ABBREVIATION.sub(_expanded, text)
    text = re.sub(r"[A-Z]{2,}", lambda m: _small(m[0]), text)
    text = re.sub(r"\s*(?:\(|\)|--+)\s*", ", ", text)
    # Quotation marks are not spoken; an apostrophe ends a word only as in "the disciples' feet".
    text = re.sub(r"(?<!\w)'(.+?)'(?!\w)", r"\1", text.replace('"', ""))
    text = re.sub(r"(?<!s)'(?!\w)", "", text)
    text = re.sub(r"(?:\s*,)+\s*([,;:.!?])", r"\1", text)
    text = re.sub(r"([;:])(?:\s*,)+", r"\1", text)
    text = " ".join(text.strip(" ,;:").split()).replace(" ,", ",")
    if not _READABLE.fullmatch(text) or not CHARACTERS[0] <= len(text) <= CHARACTERS[1]:
        return None
    words = re.findall(r"[A-Za-z']+", text)
    if len(words) < FEWEST_WORDS or any(_unspeakable(word) for word in words):
        return None
    return text


def _expanded(match: re.Match[str]) -> str:
    known = {short.lower(): long for short, long in ABBREVIATIONS.items()}
    ends = match.end() == len(match.string.rstrip("\"' )"))
    return known[match[1].lower()] + ("." if ends else "")


def _small(word: str) -> str:
    return word.capitalize() if word in SMALL_CAPITALS else word


def _unspeakable(word: str) -> bool:
    return not re.search(r"[aeiouy]", word.lower()) or bool(re.search(r"[a-zA-Z][A-Z]", word))


def readable(paragraphs: Iterable[str]) -> Iterator[Sentence]:
    """The sentences that can be read aloud as printed, each once."""
    seen = set()
    for paragraph in paragraphs:
        for text in split_sentences(" ".join(paragraph.split())):
            normalised = None if "|" in text else normalise(text)
            if normalised is None:
                continue
            sentence = Sentence(text, normalised)
            if sentence.key not in seen:
                seen.add(sentence.key)
                yield sentence


def king_james() -> list[str]:
    """The verses of the King James Bible (public domain), by Debian's command `bible`."""
    try:
        printed = subprocess.run(
            ["bible", "-f", "gen1:1-rev22:21"], check=True, capture_output=True, text=True
        ).stdout
    except FileNotFoundError as error:
        raise _missing("the command `bible`", "bible-kjv") from error
    return [line.partition(" ")[2] for line in printed.splitlines()]


def jargon(path: Path = JARGON) -> list[str]:
    """The paragraphs of the Jargon File (public domain)."""
    if not path.exists():
        raise _missing(path, "jargon-text")
    return re.split(r"\n\s*\n", gzip.decompress(path.read_bytes()).decode("utf-8"))


def fortunes(folder: Path = FORTUNES, topics: Sequence[str] = FORTUNE_TOPICS) -> list[str]:
    """The sayings of Debian's package `fortunes`, without their authors' names."""
    sayings: list[str] = []
    for topic in topics:
        path = folder / topic
        if not path.exists():
            raise _missing(path, "fortunes")
        text = path.read_text(encoding="utf-8", errors="replace")
        for saying in re.split(r"^%$", text, flags=re.MULTILINE):
            sayings.append(re.split(r"^\s*--", saying, maxsplit=1, flags=re.MULTILINE)[0])
    return sayings


def _missing(what: object, package: str) -> FileNotFoundError:
    return FileNotFoundError(f"{what} is missing: install it with `apt-get install {package}`")


def read_texts() -> list[list[Sentence]]:
    """The sentences of each text; none occurs in two texts."""
    seen: set[str] = set()
    texts = []
    for paragraphs in (king_james(), jargon(), fortunes()):
        new = [s for s in readable(paragraphs) if s.key not in seen]
        seen.update(s.key for s in new)
        texts.append(new)
    return texts


def deal(
    texts: Sequence[Sequence[Sentence]], shares: Mapping[str, float], seed: int
) -> dict[str, list[Sentence]]:
    """Assign every sentence to one voice, and give each voice an order of its sentences.

    The voice of a sentence depends only on its words and on `shares`, voice -> relative share. So
    no voice is tested on words that another was trained on, and adding a voice takes sentences
    from the others but moves none between them. `seed` sets the order, in which the texts
    alternate as long as they last.
    """
    dealt: dict[str, list[tuple[int, int, Sentence]]] = {voice: [] for voice in shares}
    for t, text in enumerate(texts):
        turns = dict.fromkeys(shares, 0)
        for sentence in sorted(text, key=lambda s: _unit_hash(f"order {seed} {s.key}")):
            voice = owner(sentence, shares)
            dealt[voice].append((turns[voice], t, sentence))
            turns[voice] += 1
    return {v: [s for *_, s in sorted(d, key=lambda item: item[:2])] for v, d in dealt.items()}


def owner(sentence: Sentence, shares: Mapping[str, float]) -> str:
    """The voice that speaks a sentence, by weighted rendezvous hashing.

    The largest share / -ln u wins, u in (0, 1) a hash of voice and words.
    """

    def score(voice: str) -> float:
        return shares[voice] / -math.log(_unit_hash(f"owner {voice} {sentence.key}"))

    return max(shares, key=score)


def _unit_hash(text: str) -> float:
    digest = hashlib.sha256(text.encode()).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / 2**48
