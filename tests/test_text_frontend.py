"""The text frontend: normalised words, a closed inventory of symbols, sentences, refusals."""

import csv
import itertools

import pytest

from tests.conftest import ROOT
from vocoder.text import frontend
from vocoder.text.frontend import SYMBOLS, TextError, normalise, phonemes, split_sentences

SPOKEN = {
    "$3.50": "three dollars and fifty cents",
    "£20": "twenty pounds",
    "$1.2 billion": "one point two billion dollars",
    "Dr. Smith at 221B Baker St.": "Dr Smith at two hundred twenty-one B Baker Street.",
    "on 3 March 1999, 5:45 pm": "on the third of March nineteen ninety-nine, five forty-five P.M.",
    "at 3 a.m. or 9:05": "at three A.M. or nine oh five",
    "died on 12/10/1978": "died on December tenth, nineteen seventy-eight",
    "2026-11-21": "November twenty-first, twenty twenty-six",
    "the 1990s": "the nineteen nineties",
    "1,984 in 1984": "one thousand nine hundred eighty-four in nineteen eighty-four",
    "1,234,567": "one million two hundred thirty-four thousand five hundred sixty-seven",
    "3.14": "three point one four",
    "the 21st": "the twenty-first",
    "50%": "fifty percent",
    "10 km/h": "ten kilometers per hour",
    "5 kg and 20 °C": "five kilograms and twenty degrees Celsius",
    "from 3-5 days": "from three to five days",
    "3/4 cup": "three quarters cup",
    "⅓ cup": "one third cup",
    "1½ hours, 3 ¾ inches": "one and one half hours, three and three quarters inches",
    "200 ℃": "two hundred degrees Celsius",
    "Call 555-1234": "Call five five five, one two three four",
    "Henry VIII": "Henry the eighth",
    "No. 5": "Number five",
    "e.g. this": "for example this",
    "NASA and the U.S.": "NASA and the U.S.",
    "it's  a\ndog": "it's a dog",
    # Forms that the libraries misread.
    "+49 (0)30 1234567": "plus four nine, three zero, one two three four five six seven",
    "milk - eggs": "milk — eggs",
    "(1) First": "one, First",
    "I like it (a lot)": "I like it (a lot)",
    "coop\u00aderation in a zero\u200bwidth\ufeff word": "cooperation in a zerowidth word",
    "\u202eＨｅｌｌｏ ｏﬀice １２": "Hello office twelve",
    "5 m²": "five meters squared",
    "Write to john.smith@mail.co.uk.": "Write to john dot smith at mail dot co dot U K.",
    "a_b-c@example.org": "a underscore b dash c at example dot org",
    "https://www.ab.com/a?b=1": "W W W dot ab dot com slash a question mark b equals one",
    "example.com": "example dot com",
    "$5bn and £2.5tn": "five billion dollars and two point five trillion pounds",
    "€3 mn": "three million euros",
    "the '90s, the ’80s and mid-1970's": "the nineties, the eighties and mid-nineteen seventies",
    "class of '05": "class of oh five",
    "5 x 4": "five by four",
    "1 1/2 cups": "one and one half cups",
    "a .5 mm gap": "a zero point five millimeters gap",
    "16:9": "sixteen to nine",
    "24/7": "twenty-four seven",
    "C++ and F-16": "C plus plus and F sixteen",
    "v2.0": "version two point zero",
    "(555) 123-4567": "five five five, one two three, four five six seven",
    "№ 5": "Number five",
    "5bn": "five billion",
    'She said "chapter 5" to him.': 'She said "chapter five" to him.',
    "rock 'n' roll, don't, the dogs' 5 bones": "rock 'n' roll, don't, the dogs' five bones",
}


@pytest.mark.parametrize("text", SPOKEN)
def test_normalised_words(text):
    assert normalise(text) == SPOKEN[text]
    assert normalise(SPOKEN[text]) == SPOKEN[text]


PRONOUNCED = {
    "Hello, Bob": "h ə l ˈoʊ , b ˈɑ b .",
    "NASA": "n ˈæ s ə .",
    "the U.S.": "ð ə _ j ˌu ˈɛ s .",
    "3 a.m.": "θ ɹ ˈi _ ˌeɪ ˈɛ m .",
    "50%": "f ˈɪ f t i _ p ə ɹ s ˈɛ n t .",
    # The same letters, another word: as a noun and as a verb, before a vowel and not.
    "a record": "ə _ ɹ ˈɛ k ə ɹ d .",
    "to record": "t ə _ ɹ ə k ˈɔ ɹ d .",
    "the end": "ð i _ ˈɛ n d .",
    # Marks: the first of several at a boundary; quotation marks and brackets give none.
    '"Go" — (now)... please?!': "ɡ ˈoʊ , n ˈaʊ . p l ˈi z ?",
    "One: two; three!": "w ˈʌ n : t ˈu ; θ ɹ ˈi !",
    # A word that no dictionary has.
    "blorft": "b l ˈɔ ɹ f t .",
}


@pytest.mark.parametrize("text", PRONOUNCED)
def test_phonemes(text):
    assert " ".join(phonemes(text)).replace("   ", " _ ") == PRONOUNCED[text]


def test_symbols_are_a_fixed_inventory():
    # Trained acoustic models depend on it: a change here changes their input.
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 80
    assert SYMBOLS[:8] == (".", ",", "?", "!", ";", ":", " ", "b")
    assert SYMBOLS[-3:] == ("ʌ", "ˌʌ", "ˈʌ")


def test_the_inventory_is_closed_over_text_of_all_kinds():
    metadata = ROOT / "recipes/ljspeech/sample/metadata.csv"
    with metadata.open(encoding="utf-8", newline="") as file:
        russian = [row[-1] for row in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE)]
    assert russian
    texts = [
        *SPOKEN,
        *PRONOUNCED,
        *ROOT.joinpath("README.md").read_text("utf-8").split("\n\n"),
        "Çelik naïve façade Łódź Þórr œuvre ĳs São",
        "supercalifragilisticexpialidociousness " * 5,
        "zzzxqj wrtghx bcdfg",
        "http://example.com/a?b=1&c=2 me@example.org C++ #1 @home 5×4=20 x² H2O",
    ]
    known = set(SYMBOLS)
    read = 0
    for text in texts:
        try:
            symbols = phonemes(text[: frontend.MAX_CHARACTERS])
        except TextError:
            continue
        read += 1
        assert set(symbols) <= known, text
        assert symbols[-1] in frontend.PUNCTUATION
        assert symbols[0] not in (*frontend.PUNCTUATION, frontend.WORD_BOUNDARY)
        for left, right in itertools.pairwise(symbols):
            assert not {left, right} <= {*frontend.PUNCTUATION, frontend.WORD_BOUNDARY}, text
        assert phonemes(text[: frontend.MAX_CHARACTERS]) == symbols
    assert read > len(SPOKEN) + len(PRONOUNCED)
    for text in russian:
        with pytest.raises(TextError):
            phonemes(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no text"),
        (" \n\t", "no text"),
        ("...", "nothing in '...'"),
        ("$ ☃ —", "nothing in"),
        ("Он сказал", "'Он' is written in Cyrillic letters: only English"),
        ("the word 日本", "'日本' is written in Chinese letters"),
        ("a" * 1001, "1,001 characters"),
        ("5]€➇", "cannot be read .*write it in words"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(text, words):
    with pytest.raises(TextError, match=words) as caught:
        phonemes(text)
    assert "\n" not in str(caught.value)


def test_sentences():
    text = (
        "Dr. Smith lives at 221B Baker St. He pays $3.50 a day. “Really?” she asked.\n"
        "It rose by 3.5 in Jan. 1999. J. K. Rowling\nmet Mr. T. at 5 p.m. on Friday.\n\n"
        "A heading\n\nWait... what?"
    )
    assert split_sentences(text) == [
        "Dr. Smith lives at 221B Baker St.",
        "He pays $3.50 a day.",
        "“Really?” she asked.",
        "It rose by 3.5 in Jan. 1999.",
        "J. K. Rowling met Mr. T. at 5 p.m. on Friday.",
        "A heading",
        "Wait... what?",
    ]
    assert split_sentences(" \n\n ") == []


def test_long_sentences_are_cut_where_they_pause():
    clause = "the rain fell on and on"
    sentence = "; ".join([clause] * 30)
    pieces = split_sentences(sentence, max_characters=100)
    assert max(map(len, pieces)) <= 100
    assert all(piece.endswith(";") for piece in pieces[:-1])
    assert " ".join(pieces) == sentence
    words = split_sentences("word " * 50, max_characters=32)
    assert words[0] == "word word word word word word"
    assert sum(piece.count("word") for piece in words) == 50
    assert [len(piece) for piece in split_sentences("x" * 70, max_characters=32)] == [32, 32, 6]


@pytest.mark.parametrize(
    "text, spoken",
    [
        ("See vol. 4 of it.", ["See volume four of it."]),
        ("There were approx. 10 people.", ["There were approximately ten people."]),
        ("I bought 2 lbs. of apples.", ["I bought two pounds of apples."]),
        ("She is 5 ft. He is 6 ft. tall.", ["She is five feet.", "He is six feet tall."]),
        ("It weighs 3 kg. Lift it.", ["It weighs three kilograms.", "Lift it."]),
        ("He has no. Then he left.", ["He has no.", "Then he left."]),
        ("1. First\n2. Second", ["one, First", "two, Second"]),
    ],
)
def test_written_forms_are_read_as_they_are_spoken(text, spoken):
    assert [normalise(sentence) for sentence in split_sentences(text)] == spoken


def test_a_dash_between_spaces_is_a_pause():
    assert phonemes("milk - eggs") == phonemes("milk, eggs")
